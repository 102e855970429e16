//! The order that keeps a freed page out of stale translations: unmapped, then flushed, and only then let go.
//!
//! [`Unmapped`] comes from clearing page table entries; [`Flushed`] only from flushing it; and the frame table takes a
//! frame back only for a [`Flushed`]. Neither can be made, copied or silently dropped by anyone else.

use super::Page;
use crate::ids::{DomId, Gfn};
use crate::machine::{FlushScope, Machine};

/// A page whose entries are gone and whose translations may still be cached.
#[derive(Debug)]
#[must_use = "the translation caches still hold this page"]
pub struct Unmapped {
    pub(super) domain: DomId,
    pub(super) gfn: Gfn,
    pub(super) page: Page,
    pub(super) scope: FlushScope,
}

impl Unmapped {
    /// Flushes this page.
    pub fn flush(self, machine: &impl Machine) -> Flushed {
        machine.flush_pages(self.domain, &[self.gfn], self.scope);
        Flushed(self.page)
    }
}

/// Pages of a run at most.
pub const RUN_MAX: usize = 16;

/// Several pages of one space whose entries are gone and whose translations may still be cached.
#[derive(Debug)]
#[must_use = "the translation caches still hold these pages"]
pub struct UnmappedRun {
    pub(super) domain: DomId,
    pub(super) scope: FlushScope,
    pub(super) pages: heapless::Vec<Gfn, RUN_MAX>,
}

/// That the pages of a run can no longer be reached.
#[derive(Debug)]
#[must_use = "the frames have still to be unpinned"]
pub struct FlushedRun(());

impl UnmappedRun {
    /// No pages of this domain yet.
    pub const fn new(domain: DomId) -> Self {
        Self { domain, scope: FlushScope::Cpu, pages: heapless::Vec::new() }
    }

    /// Flushes them all. (It is not moved here: that would be a copy of all its places.)
    #[inline(always)]
    pub fn flush(&mut self, machine: &impl Machine) -> FlushedRun {
        if !self.pages.is_empty() {
            machine.flush_pages(self.domain, &self.pages, self.scope);
        }
        self.pages.clear();
        FlushedRun(())
    }
}

/// A page that its former space can no longer reach, by page table or cached translation.
#[derive(Debug)]
#[must_use = "the frame has still to be released or unpinned"]
pub struct Flushed(pub(super) Page);

impl Flushed {
    /// A private page that was never mapped, for tests of what comes after.
    #[cfg(test)]
    pub(crate) fn for_test(mfn: crate::ids::Mfn) -> Self {
        Self(Page { mfn, rights: super::Rights::ReadWrite, kind: super::PageKind::Private })
    }

    pub(crate) fn into_page(self) -> Page {
        self.0
    }
}
