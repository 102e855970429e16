//! Dates as HTTP writes them (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.

use alloc::format;
use alloc::string::String;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const SECONDS_A_DAY: i64 = 86_400;
/// Days in 400 years of the Gregorian calendar.
const DAYS_AN_ERA: i64 = 146_097;

/// `seconds` since 1970 as text; `None` outside the years that the format can hold.
#[must_use]
pub fn http_date(seconds: i64) -> Option<String> {
    let days = seconds.div_euclid(SECONDS_A_DAY);
    let second = seconds.rem_euclid(SECONDS_A_DAY);
    // Years are counted from March, so that the leap day is a year's last.
    let since_march_of_0 = days.checked_add(719_468)?;
    let era = since_march_of_0.div_euclid(DAYS_AN_ERA);
    let day_of_era = since_march_of_0.rem_euclid(DAYS_AN_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    if !(0..=9999).contains(&year) {
        return None;
    }
    let weekday = DAYS.get(usize::try_from(days.rem_euclid(7)).ok()?)?;
    let month = MONTHS.get(usize::try_from(month).ok()?)?;
    let (hour, minute) = (second / 3600, second / 60 % 60);
    Some(format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{:02} GMT", second % 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(seconds).as_deref(), Some(text));
        }
        for seconds in [253_402_300_800, i64::MAX, i64::MIN] {
            assert_eq!(http_date(seconds), None);
        }
    }
}
