//! Node paths: absolute, of a form that was checked when they were read from the wire.

use crate::domid::DomId;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use core::borrow::Borrow;
use core::fmt;
use xen_abi::errno::Errno;
use xen_rings::store as wire;

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

    /// What a client of `domain` means by `name`. The special names are no nodes.
    pub fn resolve(name: wire::Path<'_>, domain: DomId) -> Result<Self, Errno> {
        match name {
            wire::Path::Absolute(text) => Ok(Path(Rc::from(text))),
            wire::Path::Relative(text) => Ok(Path::home(domain).child(text)),
            wire::Path::Special(_) => Err(Errno::EINVAL),
        }
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

    /// The node `name` under this one. The name must come from a checked path.
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
            || self.0.strip_prefix(ancestor.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// How a client of `domain` that watches by a relative path names this node.
    #[must_use]
    pub fn relative_to_home(&self, domain: DomId) -> &str {
        self.0.strip_prefix(Path::home(domain).as_str()).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&self.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Path, Errno> {
        Path::resolve(wire::Path::parse(text.as_bytes()).unwrap(), DomId(7))
    }

    #[test]
    fn relative_paths_start_at_home() {
        assert_eq!(resolve("device/vif").unwrap().as_str(), "/local/domain/7/device/vif");
        assert_eq!(resolve("/device").unwrap().as_str(), "/device");
        assert_eq!(resolve("/"), Ok(Path::root()));
        assert_eq!(resolve("@releaseDomain"), Err(Errno::EINVAL));
    }

    #[test]
    fn parents_children_and_prefixes() {
        let path = resolve("/a/bc").unwrap();
        assert_eq!(path.parent().unwrap().as_str(), "/a");
        assert_eq!(path.parent().unwrap().parent().unwrap(), Path::root());
        assert_eq!(Path::root().parent(), None);
        assert_eq!(path.name(), "bc");
        assert_eq!(Path::root().child("a").child("bc"), path);
        assert!(path.is_at_or_under(&Path::root()));
        assert!(path.is_at_or_under(&path));
        assert!(!path.is_at_or_under(&resolve("/a/b").unwrap()));
        assert_eq!(Path::home(DomId(3)).child("x").relative_to_home(DomId(3)), "x");
        assert_eq!(Path::home(DomId(33)).child("x").relative_to_home(DomId(3)), "/local/domain/33/x");
    }
}
