//! The order that keeps a freed page out of stale translations: unmapped, then flushed, and only then let go.
//!
//! [`Unmapped`] comes from clearing page table entries; [`Flushed`] only from flushing it; and the frame table takes a
//! frame back only for a [`Flushed`]. Neither can be made, copied or silently dropped by anyone else.

use super::Page;
use crate::{ids::DomId, ids::Gfn, machine::FlushScope, machine::Machine};

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
        machine.flush_pages(self.domain, core::iter::once(self.gfn), self.scope);
        Flushed(self.page)
    }
}

/// Pages of a run at most.
pub const RUN_MAX: usize = 64;

/// Several pages of one space whose entries are gone and whose translations may still be cached, with what has to be
/// done for each when they are flushed.
#[derive(Debug)]
#[must_use = "the translation caches still hold these pages"]
pub struct UnmappedRun<T> {
    domain: DomId,
    scope: FlushScope,
    pages: heapless::Vec<(Gfn, T), RUN_MAX>,
}

/// Pages of a run that can no longer be reached.
#[derive(Debug)]
#[must_use = "the frames have still to be unpinned"]
pub struct FlushedRun<'a, T>(&'a [(Gfn, T)]);

impl<T> UnmappedRun<T> {
    /// No pages of this domain yet.
    pub const fn new(domain: DomId) -> Self {
        Self { domain, scope: FlushScope::Cpu, pages: heapless::Vec::new() }
    }

    /// Whether there is no room for another page.
    pub fn is_full(&self) -> bool {
        self.pages.is_full()
    }

    /// Adds a page. One that does not belong here, or finds no room, is flushed by itself, and `then` not kept.
    #[inline(always)]
    pub fn add(&mut self, unmapped: Unmapped, then: T, machine: &impl Machine) {
        let Unmapped { domain, gfn, scope, .. } = unmapped;
        self.scope = scope;
        if domain != self.domain || self.pages.push((gfn, then)).is_err() {
            debug_assert!(false, "a page that does not belong to this run");
            machine.flush_pages(domain, core::iter::once(gfn), scope);
        }
    }

    /// Flushes them all.
    #[inline(always)]
    pub fn flush(&self, machine: &impl Machine) -> FlushedRun<'_, T> {
        if !self.pages.is_empty() {
            machine.flush_pages(self.domain, self.pages.iter().map(|(gfn, _)| *gfn), self.scope);
        }
        FlushedRun(&self.pages)
    }
}

impl<'a, T> FlushedRun<'a, T> {
    /// What has to be done now, with the pages.
    pub fn what(self) -> &'a [(Gfn, T)] {
        self.0
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
