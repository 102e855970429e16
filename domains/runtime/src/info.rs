//! What the domain was told at its start: ids, the heap's size, its name and its command line.

use xen_abi::native::{self, StartInfo};

/// The start info page.
///
/// Only on the bare machine: a host process has none.
pub fn start_info() -> &'static StartInfo {
    // SAFETY: the builder filled this page before the domain first ran, nobody can write it since (read-only to the
    // domain, and the builder's access ended), it is there as long as the domain is, and any bytes are a StartInfo.
    unsafe { &*(native::START_INFO as *const StartInfo) }
}

/// This domain's id.
pub fn own_domid() -> u16 {
    start_info().domid as u16
}

/// This domain's name in the policy.
pub fn name() -> &'static str {
    text(&start_info().name)
}

/// The boot bundle; empty except in the policy domain.
pub fn bundle() -> &'static [u8] {
    let bytes = start_info().bundle_bytes as usize;
    if bytes == 0 {
        return &[];
    }
    // SAFETY: the hypervisor mapped this many bytes there before the domain first ran, read-only and for ever, and
    // nobody writes the frames behind them.
    unsafe { core::slice::from_raw_parts(native::BUNDLE_BASE as *const u8, bytes) }
}

/// The command line as the policy has it.
pub fn command_line() -> &'static str {
    text(&start_info().arguments)
}

/// The `key=value` words of the command line, in order. A word without `=` has an empty value.
pub fn arguments() -> impl Iterator<Item = (&'static str, &'static str)> {
    parse_arguments(command_line())
}

/// The value of the last `key=value` with this key.
pub fn argument(key: &str) -> Option<&'static str> {
    arguments().filter(|(k, _)| *k == key).last().map(|(_, value)| value)
}

/// Splits a command line at white space into `key=value` pairs. A value that contains white space is put in double
/// quotes, all of it: `greeting="hello world"`.
pub fn parse_arguments(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = line;
    core::iter::from_fn(move || {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let key_end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at(key_end);
        let Some(value) = after.strip_prefix('=') else {
            rest = after;
            return Some((key, ""));
        };
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => value.split_at(value.find(char::is_whitespace).unwrap_or(value.len())),
        };
        rest = after;
        Some((key, value))
    })
}

/// NUL-padded UTF-8 as text; what is not UTF-8 is cut off.
fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let bytes = &bytes[..end];
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => core::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn parsed(line: &str) -> Vec<(&str, &str)> {
        parse_arguments(line).collect()
    }

    #[test]
    fn words_split_at_white_space_and_the_first_equals_sign() {
        assert_eq!(parsed(" a=1  b=x=y\tquiet "), [("a", "1"), ("b", "x=y"), ("quiet", "")]);
        assert_eq!(parsed(""), []);
    }

    #[test]
    fn quotes_hold_a_value_together() {
        assert_eq!(parsed("say=\"good day\" n=2"), [("say", "good day"), ("n", "2")]);
        assert_eq!(parsed("say=\"never closed"), [("say", "never closed")]);
    }

    #[test]
    fn text_stops_at_nul_and_at_garbage() {
        assert_eq!(text(b"web\0\0"), "web");
        assert_eq!(text(b"ok\xff\xfe"), "ok");
    }
}
