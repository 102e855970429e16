//! Single values that are texts in TOML: port ranges, device classes, disk names, MAC addresses.

use alloc::format;
use alloc::string::{String, ToString};

use crate::table::{Class, Span};

/// `"0x3f8-0x3ff"` or `"0x80"`.
pub fn ports(text: &str) -> Result<Span, String> {
    let port = |text: &str| {
        let text = text.trim();
        let number = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')),
            None => text.parse().ok().filter(|_| !text.starts_with('+')),
        };
        match number {
            Some(port) if port <= 0xffff => Ok(port),
            Some(_) => Err(format!("port {text} is beyond 0xffff")),
            None => Err(format!("`{text}` is no I/O port")),
        }
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if last < first {
        return Err(format!("the range `{text}` ends before it begins"));
    }
    Ok(Span { first, last })
}

/// `"01"`, `"0100"` or `"010000"`: as many digits as are to be compared.
pub fn class(text: &str) -> Result<Class, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let value = u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'));
    match (value, digits.len()) {
        (Some(value), 2 | 4 | 6) => {
            let shift = 24 - 4 * digits.len() as u32;
            Ok(Class { value: value << shift, mask: 0xff_ffff >> shift << shift })
        }
        _ => Err(format!("`{text}` is no device class")),
    }
}

/// The virtual device number of `xvda`, `xvdb3`, ...: as Xen's `vbd-interface` document has it.
pub fn disk_number(text: &str) -> Result<u32, String> {
    let bad = || format!("`{text}` is no virtual disk");
    let rest = text.strip_prefix("xvd").ok_or_else(bad)?;
    let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
    let (letters, partition) = rest.split_at(letters);
    if letters.is_empty() || letters.len() > 2 || partition.starts_with('0') {
        return Err(bad());
    }
    let disk = letters.bytes().fold(0, |number: u32, b| number * 26 + u32::from(b - b'a') + 1) - 1;
    let partition: u32 = if partition.is_empty() { 0 } else { partition.parse().map_err(|_| bad())? };
    match (disk, partition) {
        (0..16, 0..16) => Ok(202 << 8 | disk << 4 | partition),
        (_, 0..256) => Ok(1 << 28 | disk << 8 | partition),
        _ => Err(bad()),
    }
}

/// `"52:54:00:12:34:56"`.
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let bad = || format!("`{text}` is no MAC address");
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or_else(bad)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
    }
    if parts.next().is_some() {
        return Err(bad());
    }
    match mac {
        [0, 0, 0, 0, 0, 0] => Err("the MAC address of all zeros belongs to nobody".to_string()),
        [first, ..] if first & 1 == 1 => Err(format!("`{text}` is a group's MAC address, not one interface's")),
        _ => Ok(mac),
    }
}

/// A MAC address as people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges() {
        assert_eq!(ports("0x3f8-0x3ff"), Ok(Span { first: 0x3f8, last: 0x3ff }));
        assert_eq!(ports("128"), Ok(Span { first: 128, last: 128 }));
        for bad in ["", "0x", "0x3ff-0x3f8", "0x10000", "1-2-3", "+1", "0x+1", "-"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn classes_compare_as_many_digits_as_are_written() {
        assert_eq!(class("0x01"), Ok(Class { value: 0x01_0000, mask: 0xff_0000 }));
        assert_eq!(class("0106"), Ok(Class { value: 0x01_0600, mask: 0xff_ff00 }));
        assert_eq!(class("010601"), Ok(Class { value: 0x01_0601, mask: 0xff_ffff }));
        assert!(class("1").is_err() && class("storage").is_err() && class("").is_err());
    }

    #[test]
    fn disk_numbers_are_xens() {
        assert_eq!(disk_number("xvda"), Ok(51712));
        assert_eq!(disk_number("xvdb"), Ok(51728));
        assert_eq!(disk_number("xvda1"), Ok(51713));
        assert_eq!(disk_number("xvdq"), Ok(1 << 28 | 16 << 8));
        assert_eq!(disk_number("xvdaa"), Ok(1 << 28 | 26 << 8));
        for bad in ["", "xvd", "sda", "xvdA", "xvda0", "xvda256", "xvdaaa", "xvda1x"] {
            assert!(disk_number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mac_addresses_are_of_one_interface() {
        assert_eq!(mac("52:54:00:12:34:Ab").map(mac_text), Ok("52:54:00:12:34:ab".to_string()));
        for bad in ["", "52:54", "01:00:5e:00:00:01", "00:00:00:00:00:00", "52:54:00:12:34:56:78", "5:2:3:4:5:6"] {
            assert!(mac(bad).is_err(), "{bad}");
        }
    }
}
