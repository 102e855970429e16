//! Sizes of memory, as they are written in policies and in the shell.

use alloc::format;
use alloc::string::String;

/// Bytes of `"64M"`, `"1G"`, `"512K"`.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "" if !number.is_empty() => return Err(format!("`{text}` has no unit")),
        "k" | "m" | "g" | "kB" | "KB" | "MB" | "GB" | "B" => {
            return Err(format!("`{unit}` is no unit for memory"));
        }
        _ => return Err(format!("`{text}` is no size")),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no size"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is more than any machine has"))
}

/// How sizes are written.
pub const HELP: &str = "write a whole number and K, M or G (powers of 1024), as in \"64M\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!(parse("64M"), Ok(64 << 20));
        assert_eq!(parse("4096K"), Ok(4 << 20));
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        for bad in ["", "64", "M", "-1M", "64MB", "1.5G", "64 M", "99999999999999G", "18446744073709551616K"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
