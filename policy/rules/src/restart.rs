//! What the policy says of a domain that has died, or that is silent: started again how often, how soon, after how long.
//!
//! It travels to the policy domain as two settings of the domain's `config`: the hypervisor has no part in it.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;
use core::time::Duration;

/// The setting that holds a [`Restart`].
pub const RESTART_SETTING: &str = "restart";
/// The setting that holds the bound of silence, in milliseconds.
pub const WATCHDOG_SETTING: &str = "watchdog-ms";

/// The setting that holds the names of the images that may be run in the place of the domain's own, with blanks between.
pub const REPLACEMENTS_SETTING: &str = "replacements";

/// Whether a domain that has died is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// It stays down.
    #[default]
    Never,
    /// Each time.
    Always,
    /// Each time, as long as it does not die too often.
    Budget(Budget),
}

/// How often is too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Starts beyond the first within any [`Budget::within`]; the death after the last of them is final.
    pub max: u32,
    /// The time that counts.
    pub within: Duration,
    /// Nothing is waited for before the first of them, this before the second, and twice as long before each further one.
    pub backoff: Duration,
}

/// Between two starts where the policy gives no other figure.
pub const BACKOFF_DEFAULT: Duration = Duration::from_millis(100);

/// Text that is no [`Restart`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRestart;

impl fmt::Display for Restart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Restart::Never => out.write_str("never"),
            Restart::Always => out.write_str("always"),
            Restart::Budget(Budget { max, within, backoff }) => {
                write!(out, "{max} {} {}", within.as_millis(), backoff.as_millis())
            }
        }
    }
}

impl FromStr for Restart {
    type Err = BadRestart;

    fn from_str(text: &str) -> Result<Self, BadRestart> {
        match text {
            "never" => return Ok(Restart::Never),
            "always" => return Ok(Restart::Always),
            _ => {}
        }
        let mut numbers = text.split(' ').map(|number| number.parse::<u32>().map_err(|_| BadRestart));
        let mut next = || numbers.next().unwrap_or(Err(BadRestart));
        let time = |number: u32| Duration::from_millis(number.into());
        let budget = Budget { max: next()?, within: time(next()?), backoff: time(next()?) };
        if numbers.next().is_some() { Err(BadRestart) } else { Ok(Restart::Budget(budget)) }
    }
}

/// `"250ms"`, `"60s"`, `"5m"`: at least a millisecond, at most a day.
pub fn time(text: &str) -> Result<Duration, String> {
    const DAY_MS: u32 = 24 * 60 * 60 * 1000;
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60 * 1000,
        _ => return Err(alloc::format!("`{text}` is no time")),
    };
    let ms = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit_ms));
    match ms {
        Some(0) => Err("it is no time at all".to_string()),
        Some(ms) if ms <= DAY_MS => Ok(Duration::from_millis(ms.into())),
        _ => Err(alloc::format!("`{text}` is more than a day")),
    }
}

/// How times are written.
pub const TIME_HELP: &str = "write a whole number and ms, s or m, as in \"500ms\" or \"60s\"";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_need_a_unit_and_an_end() {
        assert_eq!(time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(time("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(time("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "5", "s", "0s", "-1s", "1.5s", "1h", "99999999s", "4294967296ms", "1441m"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nonsense_is_no_restart() {
        for bad in ["", "sometimes", "1", "1 2", "1 2 3 4", "-1 2 3", "1  2 3", "always "] {
            assert_eq!(bad.parse::<Restart>(), Err(BadRestart), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_budget_survives_the_setting(max: u32, within: u32, backoff: u32) {
            let time = |ms: u32| Duration::from_millis(ms.into());
            let restart = Restart::Budget(Budget { max, within: time(within), backoff: time(backoff) });
            prop_assert_eq!(restart.to_string().parse(), Ok(restart));
        }
    }
}
