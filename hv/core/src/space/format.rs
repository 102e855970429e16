//! Page table formats: how an entry says where and what.

use super::{Access, Page, PageKind, Rights};
use crate::ids::Mfn;

/// The entries of a radix table of 512-entry levels and 4 KiB pages.
pub(super) trait TableFormat: Copy {
    /// Levels, 3 or 4.
    fn levels(self) -> u32 {
        4
    }
    /// Whether the walker reads tables past the CPU caches, so that entries must be written back.
    fn write_back(self) -> bool {
        false
    }
    /// An entry for a page.
    fn leaf(self, page: Page) -> u64;
    /// An entry for a table of the next level.
    fn table(self, table: Mfn) -> u64;
    /// What a leaf entry that is [`present`] shows.
    fn page(self, entry: u64) -> Page;
    /// Whether a leaf entry shows memory of the domain's own that it may use so. (One comparison, where it can be.)
    fn is_private(self, entry: u64, access: Access) -> bool {
        let page = self.page(entry);
        present(entry) && page.kind == PageKind::Private && (access == Access::Read || page.rights.writable())
    }
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// In ordinary tables the present bit; in second-level ones the read right, which every entry of ours has.
const PRESENT: u64 = 1;

/// Whether an entry of either format is in use.
pub(super) fn present(entry: u64) -> bool {
    entry & PRESENT != 0
}

/// The frame that an entry of either format points to.
pub(super) fn target(entry: u64) -> Mfn {
    Mfn((entry & ADDRESS) >> 12)
}

/// Ordinary page tables (Intel SDM volume 3, 4.5; AMD APM volume 2, 5.3) and AMD nested ones, which want U=1 just so.
/// The page's kind is kept in bits 9-11, which the CPU ignores.
#[derive(Clone, Copy, Debug)]
pub(super) struct NativeFormat;

const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// PCD and PWT: PAT entry 3, uncached in the power-on PAT and in `hv`'s.
const UNCACHED: u64 = 1 << 3 | 1 << 4;
const KIND_SHIFT: u32 = 9;
/// All of the kind's bits; none is set for [`PageKind::Private`].
const KIND_MASK: u64 = 7 << KIND_SHIFT;
const NO_EXECUTE: u64 = 1 << 63;

impl TableFormat for NativeFormat {
    #[inline(always)]
    fn is_private(self, entry: u64, access: Access) -> bool {
        let (mask, wanted) = match access {
            Access::Read => (KIND_MASK | PRESENT, PRESENT),
            Access::Write => (KIND_MASK | PRESENT | WRITABLE, PRESENT | WRITABLE),
        };
        entry & mask == wanted
    }

    fn leaf(self, page: Page) -> u64 {
        let rights = match page.rights {
            Rights::Read => NO_EXECUTE,
            Rights::ReadWrite => WRITABLE | NO_EXECUTE,
            Rights::ReadExecute => 0,
            Rights::All => WRITABLE,
        };
        let cache = if page.kind == PageKind::Device { UNCACHED } else { 0 };
        page.mfn.base().0 & ADDRESS | rights | cache | (page.kind as u64) << KIND_SHIFT | USER | PRESENT
    }

    fn table(self, table: Mfn) -> u64 {
        table.base().0 & ADDRESS | USER | WRITABLE | PRESENT
    }

    #[inline(always)] // most do not look at all of it
    fn page(self, entry: u64) -> Page {
        let rights = match (entry & WRITABLE != 0, entry & NO_EXECUTE != 0) {
            (true, true) => Rights::ReadWrite,
            (true, false) => Rights::All,
            (false, true) => Rights::Read,
            (false, false) => Rights::ReadExecute,
        };
        let kind = match (entry & KIND_MASK) >> KIND_SHIFT {
            0 => PageKind::Private,
            1 => PageKind::Foreign,
            2 => PageKind::Device,
            3 => PageKind::Shared,
            _ => PageKind::Lent,
        };
        Page { mfn: target(entry), rights, kind }
    }
}

/// VT-d second-level tables (VT-d 3.x, 9.8): read in bit 0, write in bit 1, no execute right. Tables have three levels
/// where the IOMMU supports 39-bit addresses only.
#[derive(Clone, Copy, Debug)]
pub struct VtdFormat {
    /// Levels: 3 (AW 39) or 4 (AW 48).
    pub levels: u32,
    /// The IOMMU does not snoop its own table walks (ECAP.C = 0).
    pub write_back: bool,
}

const VTD_WRITE: u64 = 1 << 1;

impl TableFormat for VtdFormat {
    fn levels(self) -> u32 {
        self.levels.clamp(3, 4)
    }

    fn write_back(self) -> bool {
        self.write_back
    }

    fn leaf(self, page: Page) -> u64 {
        let write = if page.rights.writable() { VTD_WRITE } else { 0 };
        page.mfn.base().0 & ADDRESS | write | PRESENT
    }

    fn table(self, table: Mfn) -> u64 {
        table.base().0 & ADDRESS | VTD_WRITE | PRESENT
    }

    fn page(self, entry: u64) -> Page {
        let rights = if entry & VTD_WRITE != 0 { Rights::ReadWrite } else { Rights::Read };
        Page { mfn: target(entry), rights, kind: PageKind::Private }
    }
}
