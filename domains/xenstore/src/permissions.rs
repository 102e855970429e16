//! Who may read and write a node.
//!
//! A list of entries, never empty. The first names the owner, who may do everything; its access letter is what every
//! domain has that no further entry names. On the wire an entry is `n`, `r`, `w` or `b` and a domain id, NUL-terminated.

use crate::domid::DomId;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use xen_abi::errno::Errno;
pub use xen_rings::store::Access;
use xen_rings::store::{Permission, Strings};

/// One domain and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The domain.
    pub domain: DomId,
    /// For the first entry: everybody else's access; for the others: this domain's.
    pub access: Access,
}

/// The list of a node, shared with the nodes that inherited it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    first: Entry,
    others: Rc<[Entry]>,
}

impl Permissions {
    /// A list of just the owner and what everybody else may do.
    #[must_use]
    pub fn new(owner: DomId, everybody_else: Access) -> Self {
        Permissions { first: Entry { domain: owner, access: everybody_else }, others: Rc::from([]) }
    }

    /// Reads the entries of a `SET_PERMS` request.
    pub fn parse(entries: Strings<'_>) -> Result<Self, Errno> {
        let mut entries = entries.map(|text| Permission::parse(text).map(Entry::from).ok_or(Errno::EINVAL));
        let first = entries.next().ok_or(Errno::EINVAL)??;
        let others = entries.collect::<Result<Vec<_>, _>>()?;
        Ok(Permissions { first, others: Rc::from(others) })
    }

    /// Appends the entries as `GET_PERMS` sends them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for entry in self.entries() {
            let entry = Permission { access: entry.access, domid: entry.domain.0 };
            out.extend_from_slice(format!("{entry}\0").as_bytes());
        }
    }

    /// The domain that the node belongs to and that pays for it.
    #[must_use]
    pub fn owner(&self) -> DomId {
        self.first.domain
    }

    /// Entries in the list.
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// What `domain` may do.
    #[must_use]
    pub fn access_of(&self, domain: DomId) -> Access {
        if domain.is_privileged() || domain == self.first.domain {
            return Access::Both;
        }
        self.others.iter().find(|entry| entry.domain == domain).map_or(self.first.access, |entry| entry.access)
    }

    /// The list for a node that `creator` makes under one with this list: a privileged creator hands the list on as it
    /// is, any other becomes the owner.
    #[must_use]
    pub fn inherited_by(&self, creator: DomId) -> Self {
        let mut inherited = self.clone();
        if !creator.is_privileged() {
            inherited.first.domain = creator;
        }
        inherited
    }

    /// The list without any further entry for `domain`, or `None` when there is none.
    #[must_use]
    pub fn without(&self, domain: DomId) -> Option<Self> {
        let others: Vec<Entry> = self.others.iter().copied().filter(|entry| entry.domain != domain).collect();
        (others.len() != self.others.len()).then(|| Permissions { first: self.first, others: Rc::from(others) })
    }

    /// A list of these entries, the first of them apart.
    pub(crate) fn from_entries(first: Entry, others: Vec<Entry>) -> Self {
        Permissions { first, others: Rc::from(others) }
    }

    /// The same list as `other`? Then one in memory for both.
    pub(crate) fn share_with(&mut self, other: &Permissions) {
        if self.others == other.others {
            self.others = other.others.clone();
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        core::iter::once(&self.first).chain(self.others.iter())
    }
}

impl From<Permission> for Entry {
    fn from(entry: Permission) -> Self {
        Entry { domain: DomId(entry.domid), access: entry.access }
    }
}

/// Whether `access` has all of `wanted`.
#[must_use]
pub fn covers(access: Access, wanted: Access) -> bool {
    (!wanted.reads() || access.reads()) && (!wanted.writes() || access.writes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &[u8]) -> Permissions {
        Permissions::parse(Strings::new(text)).unwrap()
    }

    #[test]
    fn owner_others_and_default() {
        let permissions = list(b"r1\0w2\0b3\0n4\0");
        assert_eq!(permissions.owner(), DomId(1));
        for (domain, access) in [
            (0, Access::Both),
            (1, Access::Both),
            (2, Access::Write),
            (3, Access::Both),
            (4, Access::None),
            (5, Access::Read),
        ] {
            assert_eq!(permissions.access_of(DomId(domain)), access, "domain {domain}");
        }
    }

    #[test]
    fn round_trip() {
        let mut out = Vec::new();
        list(b"n0\0r12\0").encode(&mut out);
        assert_eq!(out, b"n0\0r12\0");
    }

    #[test]
    fn malformed_entries_are_refused() {
        for bad in [&b""[..], b"\0", b"r\0", b"x1\0", b"r65536\0", b"r-1\0", b"r1", b"r1\0\0", b"r1x\0"] {
            assert_eq!(Permissions::parse(Strings::new(bad)), Err(Errno::EINVAL), "{bad:?}");
        }
    }

    #[test]
    fn s2_entries_of_a_gone_domain_can_be_dropped() {
        let permissions = list(b"n0\0r5\0w6\0");
        assert_eq!(permissions.without(DomId(5)), Some(list(b"n0\0w6\0")));
        assert_eq!(permissions.without(DomId(7)), None);
    }
}
