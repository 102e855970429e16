//! Payloads are made of strings that end in NUL, some with bytes behind the last.

/// The NUL-terminated strings of a payload, without their NULs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strings<'a> {
    rest: &'a [u8],
}

impl<'a> Strings<'a> {
    /// Over a payload.
    #[must_use]
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// What no string has been taken from yet: the value behind a path, or a string without its NUL.
    #[must_use]
    pub const fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// Ends at the end of the payload or before a string without NUL: look at [`Strings::rest`] to tell which.
impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| byte == 0)?;
        let (string, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or(&[]);
        Some(string)
    }
}

/// Reads a decimal number without sign, blanks or leading nothing.
#[must_use]
pub fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, &byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Writes payloads into a buffer of the caller's. What does not fit makes [`PayloadBuilder::finish`] fail.
#[derive(Debug)]
pub struct PayloadBuilder<'a> {
    buffer: &'a mut [u8],
    length: usize,
    overflown: bool,
}

impl<'a> PayloadBuilder<'a> {
    /// Into `buffer`.
    #[must_use]
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, length: 0, overflown: false }
    }

    /// Adds bytes as they are.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let end = self.length.saturating_add(bytes.len());
        match self.buffer.get_mut(self.length..end) {
            Some(space) => {
                space.copy_from_slice(bytes);
                self.length = end;
            }
            None => self.overflown = true,
        }
        self
    }

    /// Adds a string and its NUL.
    #[must_use]
    pub fn string(self, text: &[u8]) -> Self {
        self.bytes(text).bytes(&[0])
    }

    /// Adds a decimal number and its NUL.
    #[must_use]
    pub fn decimal(self, number: u64) -> Self {
        let mut digits = [0; 20];
        let mut start = digits.len();
        let mut rest = number;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return self.string(&digits[start..]);
            }
        }
    }

    /// The payload; `None` when it did not fit.
    #[must_use]
    pub fn finish(self) -> Option<&'a [u8]> {
        if self.overflown {
            return None;
        }
        let buffer: &'a [u8] = self.buffer;
        buffer.get(..self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_end_at_nul_and_leave_the_rest() {
        let mut strings = Strings::new(b"a/b\0\0tail");
        assert_eq!(strings.next(), Some(&b"a/b"[..]));
        assert_eq!(strings.next(), Some(&b""[..]));
        assert_eq!(strings.next(), None);
        assert_eq!(strings.rest(), b"tail");
    }

    #[test]
    fn decimals_are_strict() {
        assert_eq!(parse_decimal(b"0"), Some(0));
        assert_eq!(parse_decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"18446744073709551616", b"-1", b"+1", b" 1", b"1 ", b"0x1"] {
            assert_eq!(parse_decimal(bad), None);
        }
    }

    #[test]
    fn a_payload_that_does_not_fit_is_none() {
        let mut buffer = [0; 8];
        assert_eq!(PayloadBuilder::new(&mut buffer).string(b"ab").decimal(123).finish(), Some(&b"ab\x00123\x00"[..]));
        let mut buffer = [0; 6];
        assert_eq!(PayloadBuilder::new(&mut buffer).string(b"ab").decimal(123).finish(), None);
    }

    #[test]
    fn decimals_are_written_as_they_are_read() {
        for number in [0, 7, 10, 4096, u64::MAX] {
            let mut buffer = [0; 21];
            let text = PayloadBuilder::new(&mut buffer).decimal(number).finish().unwrap();
            assert_eq!(parse_decimal(&text[..text.len() - 1]), Some(number));
        }
    }
}
