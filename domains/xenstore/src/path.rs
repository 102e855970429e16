//! Node paths: checked once, absolute ever after.
//!
//! A path on the wire is absolute (`/local/domain/3/name`) or relative to the client's home (`name`). Allowed are
//! letters, digits and `-/_@`, no empty component, no slash at the end except the root itself.

use crate::domid::DomId;
use crate::error::Error;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use core::borrow::Borrow;
use core::fmt;

/// Bytes of an absolute path at most (`XENSTORE_ABS_PATH_MAX`).
pub const ABSOLUTE_MAX: usize = 3072;
/// Bytes of a relative path at most (`XENSTORE_REL_PATH_MAX`).
pub const RELATIVE_MAX: usize = 2048;

/// A checked absolute path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Rc<str>);

impl Path {
    /// The root, `/`.
    #[must_use]
    pub fn root() -> Self {
        Path(Rc::from("/"))
    }

    /// The home of `domain`, which its relative paths start from.
    #[must_use]
    pub fn home(domain: DomId) -> Self {
        Path(Rc::from(format!("/local/domain/{domain}")))
    }

    /// Checks `text` as a client of `domain` sent it and makes it absolute.
    pub fn parse(text: &[u8], domain: DomId) -> Result<Self, Error> {
        let text = core::str::from_utf8(text).map_err(|_| Error::Invalid)?;
        if text.starts_with('/') {
            return check(text, ABSOLUTE_MAX).map(|()| Path(Rc::from(text)));
        }
        if text.starts_with('@') {
            return Err(Error::Invalid);
        }
        check(text, RELATIVE_MAX)?;
        let absolute = format!("{}/{text}", Path::home(domain));
        check(&absolute, ABSOLUTE_MAX)?;
        Ok(Path(Rc::from(absolute)))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The last component; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The node above, or `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Path> {
        if self.is_root() {
            return None;
        }
        match self.0.rfind('/') {
            Some(0) | None => Some(Path::root()),
            Some(at) => self.0.get(..at).map(|text| Path(Rc::from(text))),
        }
    }

    /// The child `name` of this node. The name must come from a checked path.
    #[must_use]
    pub fn child(&self, name: &str) -> Path {
        let mut text = String::with_capacity(self.0.len() + 1 + name.len());
        if !self.is_root() {
            text.push_str(&self.0);
        }
        text.push('/');
        text.push_str(name);
        Path(Rc::from(text))
    }

    /// Whether this is `ancestor` or lies under it.
    #[must_use]
    pub fn is_at_or_under(&self, ancestor: &Path) -> bool {
        ancestor.is_root()
            || self
                .0
                .strip_prefix(ancestor.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// How a client of `domain` that watches by a relative path names this node.
    #[must_use]
    pub fn relative_to_home(&self, domain: DomId) -> &str {
        self.0
            .strip_prefix(Path::home(domain).as_str())
            .and_then(|rest| rest.strip_prefix('/'))
            .unwrap_or(&self.0)
    }
}

impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(text: &str, longest: usize) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/' | b'_' | b'@');
    let well_formed = !text.is_empty()
        && text.len() <= longest
        && text.bytes().all(allowed)
        && !text.contains("//")
        && (text == "/" || !text.ends_with('/'));
    if well_formed { Ok(()) } else { Err(Error::Invalid) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn parse(text: &str) -> Result<String, Error> {
        Path::parse(text.as_bytes(), DomId(7)).map(|path| path.to_string())
    }

    #[test]
    fn relative_paths_start_at_home() {
        assert_eq!(parse("device/vif"), Ok("/local/domain/7/device/vif".into()));
        assert_eq!(parse("/device"), Ok("/device".into()));
        assert_eq!(parse("/"), Ok("/".into()));
    }

    #[test]
    fn malformed_paths_are_refused() {
        for bad in [
            "",
            "a//b",
            "/a/",
            "a/",
            "//",
            "a b",
            "a\u{e4}",
            "@releaseDomain",
            "a.b",
            "/a\n",
        ] {
            assert_eq!(parse(bad), Err(Error::Invalid), "{bad:?}");
        }
        assert_eq!(Path::parse(b"\xff", DomId(0)), Err(Error::Invalid));
    }

    #[test]
    fn s4_path_lengths_are_bounded() {
        let absolute = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
        assert!(parse(&absolute(ABSOLUTE_MAX)).is_ok());
        assert_eq!(parse(&absolute(ABSOLUTE_MAX + 1)), Err(Error::Invalid));
        assert!(parse(&"a".repeat(RELATIVE_MAX)).is_ok());
        assert_eq!(parse(&"a".repeat(RELATIVE_MAX + 1)), Err(Error::Invalid));
    }

    #[test]
    fn parents_children_and_prefixes() {
        let path = Path::parse(b"/a/bc", DomId(0)).unwrap();
        assert_eq!(path.parent().unwrap().as_str(), "/a");
        assert_eq!(path.parent().unwrap().parent().unwrap(), Path::root());
        assert_eq!(Path::root().parent(), None);
        assert_eq!(path.name(), "bc");
        assert_eq!(Path::root().child("a").child("bc"), path);
        assert!(path.is_at_or_under(&Path::root()));
        assert!(path.is_at_or_under(&path));
        assert!(!path.is_at_or_under(&Path::parse(b"/a/b", DomId(0)).unwrap()));
        assert_eq!(Path::home(DomId(3)).child("x").relative_to_home(DomId(3)), "x");
        assert_eq!(
            Path::home(DomId(33)).child("x").relative_to_home(DomId(3)),
            "/local/domain/33/x"
        );
    }
}
