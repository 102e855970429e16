//! Permissions of a node, as text: a letter and a domain id, e.g. `r3`. The first of a list names the owner and what
//! domains without an entry may do.

use super::strings::parse_decimal;

/// What a domain may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: `n`.
    None,
    /// Read: `r`.
    Read,
    /// Write: `w`.
    Write,
    /// Both: `b`.
    Both,
}

impl Access {
    /// Its letter.
    #[must_use]
    pub const fn letter(self) -> u8 {
        match self {
            Access::None => b'n',
            Access::Read => b'r',
            Access::Write => b'w',
            Access::Both => b'b',
        }
    }

    /// May it read?
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Access::Read | Access::Both)
    }

    /// May it write?
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Access::Write | Access::Both)
    }
}

/// One entry of a node's permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What.
    pub access: Access,
    /// Who.
    pub domid: u16,
}

impl Permission {
    /// Reads an entry's text.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (letter, digits) = text.split_first()?;
        let access = match letter {
            b'n' => Access::None,
            b'r' => Access::Read,
            b'w' => Access::Write,
            b'b' => Access::Both,
            _ => return None,
        };
        let domid = u16::try_from(parse_decimal(digits)?).ok()?;
        Some(Self { access, domid })
    }
}

impl core::fmt::Display for Permission {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}{}", char::from(self.access.letter()), self.domid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_a_letter_and_a_domain() {
        assert_eq!(Permission::parse(b"b12"), Some(Permission { access: Access::Both, domid: 12 }));
        for bad in [&b""[..], b"r", b"x1", b"r-1", b"r65536", b"r1 ", b"1"] {
            assert_eq!(Permission::parse(bad), None);
        }
    }
}
