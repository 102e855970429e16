//! Typed ids and addresses. A bare integer never names a domain, a port, a frame or a device in a signature.

/// Bytes in a page.
pub const PAGE_BYTES: u64 = 4096;
/// log2 of [`PAGE_BYTES`].
pub const PAGE_SHIFT: u32 = 12;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($int:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[repr(transparent)]
        pub struct $name(pub $int);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}

ids! {
    /// A domain id: slot number in the low bits, generation above. See `domain::table`.
    DomId(u16);
    /// A domain's index in the sealed policy table.
    Label(u16);
    /// An event channel port of one domain.
    Port(u32);
    /// An index into a domain's grant table.
    GrantRef(u32);
    /// A grant mapping, named by the domain that holds it (`grant_handle_t`).
    Handle(u32);
    /// A guest frame number.
    Gfn(u64);
    /// A machine frame number.
    Mfn(u64);
    /// A guest-physical byte address; for native domains also the virtual and the I/O virtual address.
    Gpa(u64);
    /// A machine (host-physical) byte address.
    Hpa(u64);
    /// A physical interrupt as one domain knows it.
    Pirq(u32);
    /// Index of a virtual CPU in its domain.
    VcpuId(u8);
    /// A domain's slot: below [`SLOTS`], where its state lies. Reused by later domains, unlike [`DomId`] (soon).
    Slot(u8);
}

/// PCI bus << 8 | device << 3 | function (segment 0), which is also the requester id. See `pci` for more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Bdf(pub u16);

/// Domains that can exist at once.
pub const SLOTS: usize = 128;

impl DomId {
    /// The policy domain.
    pub const POLICY: DomId = DomId(0);
    /// First id that is no domain's (`DOMID_FIRST_RESERVED`).
    pub const FIRST_RESERVED: u16 = 0x7ff0;
    /// The caller itself, in arguments (`DOMID_SELF`).
    pub const SELF: DomId = DomId(0x7ff0);

    /// The slot that this id is about. That of a reserved id holds a domain of another id, if any.
    pub const fn slot(self) -> Slot {
        Slot((self.0 as usize % SLOTS) as u8)
    }

    /// Resolves [`DomId::SELF`].
    pub fn or_self(self, caller: DomId) -> DomId {
        if self == Self::SELF { caller } else { self }
    }
}

impl Gfn {
    /// First byte.
    pub const fn base(self) -> Gpa {
        Gpa(self.0 << PAGE_SHIFT)
    }
}

impl Mfn {
    /// First byte.
    pub const fn base(self) -> Hpa {
        Hpa(self.0 << PAGE_SHIFT)
    }

    /// The byte at `offset`; offsets beyond the frame wrap within it.
    pub const fn at(self, offset: u64) -> Hpa {
        Hpa((self.0 << PAGE_SHIFT) | (offset & (PAGE_BYTES - 1)))
    }
}

impl Gpa {
    /// The page that holds this byte.
    pub const fn gfn(self) -> Gfn {
        Gfn(self.0 >> PAGE_SHIFT)
    }

    /// Offset in its page.
    pub const fn offset(self) -> u64 {
        self.0 & (PAGE_BYTES - 1)
    }
}

impl Hpa {
    /// The frame that holds this byte.
    pub const fn mfn(self) -> Mfn {
        Mfn(self.0 >> PAGE_SHIFT)
    }
}

impl Bdf {
    /// Bus number.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_low_bits_of_an_id_are_its_slot() {
        assert_eq!(DomId(0).slot(), Slot(0));
        assert_eq!(DomId(129).slot(), Slot(1));
    }

    #[test]
    fn offsets_stay_in_the_frame() {
        assert_eq!(Mfn(2).at(5), Hpa(0x2005));
        assert_eq!(Mfn(2).at(0x1005), Hpa(0x2005));
        assert_eq!(Hpa(0x2005).mfn(), Mfn(2));
    }
}
