//! Byte ranges (RFC 9110, section 14).

/// The part of a file that a `Range` field asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: no field, one that makes no sense, or several parts, which a server need not support.
    Whole,
    /// So many bytes, at least one, from `first` on.
    Part {
        /// Offset of the first byte.
        first: u64,
        /// How many.
        length: u64,
    },
    /// Nothing of the file lies there.
    Unsatisfiable,
}

/// What `field` asks for of a file of `size` bytes.
#[must_use]
pub fn wanted(field: &[u8], size: u64) -> Wanted {
    parse(field, size).unwrap_or(Wanted::Whole)
}

/// `None`: malformed.
fn parse(field: &[u8], size: u64) -> Option<Wanted> {
    let (unit, set) = field.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") || set.contains(&b',') {
        return None;
    }
    let set = core::str::from_utf8(set).ok()?.trim_matches([' ', '\t']);
    let (first, last) = set.split_once('-')?;
    if first.is_empty() {
        let length = number(last)?.min(size);
        return Some(if length == 0 { Wanted::Unsatisfiable } else { Wanted::Part { first: size - length, length } });
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    if first >= size {
        return Some(Wanted::Unsatisfiable);
    }
    Some(Wanted::Part { first, length: last.min(size - 1) - first + 1 })
}

/// A number; one too large for 64 bits is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn single_ranges() {
        let part = |first, length| Wanted::Part { first, length };
        for (field, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-5", part(2, 4)),
            ("Bytes=2-", part(2, 8)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-30", part(0, 10)),
            ("bytes=5-99999999999999999999999", part(5, 5)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-20", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=3-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(wanted(field.as_bytes(), 10), expected, "{field}");
        }
        assert_eq!(wanted(b"bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(wanted(b"bytes=-5", 0), Wanted::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn parts_lie_inside_the_file(field in "bytes=[0-9-]{0,24}", size in any::<u64>()) {
            if let Wanted::Part { first, length } = wanted(field.as_bytes(), size) {
                prop_assert!(length > 0 && first < size && length <= size - first);
            }
        }
    }
}
