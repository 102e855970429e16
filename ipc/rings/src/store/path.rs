//! Names of nodes: absolute, relative to the caller's home, or one of the special ones that can only be watched.

use xen_abi::io::xs_wire::{XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX};

/// Watched to learn of new domains.
pub const INTRODUCE_DOMAIN: &str = "@introduceDomain";
/// Watched to learn of domains that are gone.
pub const RELEASE_DOMAIN: &str = "@releaseDomain";

/// A name of legal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// Begins with a slash; `/` is the root.
    Absolute(&'a str),
    /// Relative to `/local/domain/N`.
    Relative(&'a str),
    /// Begins with `@`.
    Special(&'a str),
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It has no characters.
    Empty,
    /// It is longer than allowed.
    TooLong,
    /// A character that is not a letter, digit, or one of `-/_@`.
    Character(u8),
    /// Two slashes, or one at the end.
    EmptyName,
}

impl<'a> Path<'a> {
    /// Checks a name.
    pub fn parse(name: &'a [u8]) -> Result<Self, PathError> {
        let limit = if name.first() == Some(&b'/') { XENSTORE_ABS_PATH_MAX } else { XENSTORE_REL_PATH_MAX };
        if name.len() > limit {
            return Err(PathError::TooLong);
        }
        if let Some(&bad) = name.iter().find(|&&byte| !legal(byte)) {
            return Err(PathError::Character(bad));
        }
        // Legal bytes are ASCII, so this holds.
        let text = core::str::from_utf8(name).map_err(|_| PathError::Character(0xff))?;
        if text.contains("//") || (text.len() > 1 && text.ends_with('/')) {
            return Err(PathError::EmptyName);
        }
        match name.first() {
            None => Err(PathError::Empty),
            Some(b'/') => Ok(Path::Absolute(text)),
            Some(b'@') => Ok(Path::Special(text)),
            Some(_) => Ok(Path::Relative(text)),
        }
    }

    /// The name as it was written.
    #[must_use]
    pub const fn text(self) -> &'a str {
        match self {
            Path::Absolute(text) | Path::Relative(text) | Path::Special(text) => text,
        }
    }
}

const fn legal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/' | b'_' | b'@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_by_their_first_character() {
        assert_eq!(Path::parse(b"/"), Ok(Path::Absolute("/")));
        assert_eq!(Path::parse(b"/local/domain/1"), Ok(Path::Absolute("/local/domain/1")));
        assert_eq!(Path::parse(b"device/vbd"), Ok(Path::Relative("device/vbd")));
        assert_eq!(Path::parse(RELEASE_DOMAIN.as_bytes()), Ok(Path::Special("@releaseDomain")));
    }

    #[test]
    fn bad_names_say_what_is_bad() {
        assert_eq!(Path::parse(b""), Err(PathError::Empty));
        assert_eq!(Path::parse(b"/a//b"), Err(PathError::EmptyName));
        assert_eq!(Path::parse(b"/a/"), Err(PathError::EmptyName));
        assert_eq!(Path::parse(b"//"), Err(PathError::EmptyName));
        assert_eq!(Path::parse(b"/a.b"), Err(PathError::Character(b'.')));
        assert_eq!(Path::parse(b"/a\xff"), Err(PathError::Character(0xff)));
    }

    #[test]
    fn lengths_are_bounded_by_kind() {
        let mut name = [b'a'; XENSTORE_ABS_PATH_MAX + 1];
        assert!(Path::parse(&name[..XENSTORE_REL_PATH_MAX]).is_ok());
        assert_eq!(Path::parse(&name[..XENSTORE_REL_PATH_MAX + 1]), Err(PathError::TooLong));
        name[0] = b'/';
        assert!(Path::parse(&name[..XENSTORE_ABS_PATH_MAX]).is_ok());
        assert_eq!(Path::parse(&name), Err(PathError::TooLong));
    }
}
