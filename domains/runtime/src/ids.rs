//! Typed numbers: a domain, an event channel port, a grant reference.

use core::fmt;

/// A domain's id. Not reused soon: an id that was read twice names the same domain or a dead one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomId(pub u16);

impl DomId {
    /// The caller itself (`DOMID_SELF`).
    pub const SELF: DomId = DomId(0x7ff0);
    /// The policy domain.
    pub const POLICY: DomId = DomId(0);

    /// Reads an id as start info and xenstore have it; what is no domain's id is `None`.
    pub fn from_u32(id: u32) -> Option<DomId> {
        u16::try_from(id).ok().filter(|&id| id < Self::SELF.0).map(DomId)
    }
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An event channel port of this domain. A plain number: [`crate::event::Channel`] is the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)] // arrays of them are passed to the hypervisor
pub struct Port(pub u32);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A reference into some domain's grant table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantRef(pub u32);

impl fmt::Display for GrantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the other side may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}
