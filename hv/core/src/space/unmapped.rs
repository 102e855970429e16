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
    domain: DomId,
    gfn: Gfn,
    page: Page,
    scope: FlushScope,
}

impl Unmapped {
    pub(super) fn new(domain: DomId, gfn: Gfn, page: Page, scope: FlushScope) -> Self {
        Self { domain, gfn, page, scope }
    }

    /// What was mapped.
    pub fn page(&self) -> Page {
        self.page
    }

    /// Flushes this page.
    #[inline]
    pub fn flush(self, machine: &impl Machine) -> Flushed {
        machine.flush_page(self.domain, self.gfn, self.scope);
        Flushed { gfn: self.gfn, page: self.page }
    }
}

/// A page that its former space can no longer reach, by page table or cached translation.
#[derive(Debug)]
#[must_use = "the frame has still to be released or unpinned"]
pub struct Flushed {
    gfn: Gfn,
    page: Page,
}

impl Flushed {
    pub(super) fn new(gfn: Gfn, page: Page) -> Self {
        Self { gfn, page }
    }

    /// A private page that was never mapped, for tests of what comes after.
    #[cfg(test)]
    pub(crate) fn for_test(mfn: crate::ids::Mfn) -> Self {
        let (rights, kind) = (super::Rights::ReadWrite, super::PageKind::Private);
        Self { gfn: Gfn(0), page: Page { mfn, rights, kind } }
    }

    /// Where it was mapped.
    pub fn gfn(&self) -> Gfn {
        self.gfn
    }

    /// What was mapped there.
    pub fn page(&self) -> Page {
        self.page
    }

    pub(crate) fn into_page(self) -> Page {
        self.page
    }
}
