//! Own pages, granted to a peer.

use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use xen_abi::native::{CONSOLE_RING, GRANT_REF_CONSOLE, GRANT_REF_XENSTORE, PAGE_SIZE, STORE_RING};

use super::{GrantError, table};
use crate::ids::{Access, DomId, GrantRef};
use crate::local::Local;
use crate::pages::{PAGE, Pages};
use crate::shared::Shared;

/// Pages that a peer still maps although their owner here is done with them. Never used again unless a later sweep
/// finds them revocable.
static QUARANTINE: Local<Vec<(Pages, Vec<GrantRef>)>> = Local::new(Vec::new());
static QUARANTINED: AtomicUsize = AtomicUsize::new(0);

/// Pages held back because a peer would not let go of them.
pub fn quarantined_pages() -> usize {
    QUARANTINED.load(Relaxed)
}

/// Own pages that `peer` may map or copy, one grant reference a page.
///
/// When dropped, the grants are revoked. Pages that the peer has mapped at that moment go to a quarantine list instead of
/// the heap, so a peer that does not let go costs memory, never safety.
#[derive(Debug)]
pub struct GrantedPages {
    /// `None` only after `revoke` took them.
    pages: Option<Pages>,
    references: Vec<GrantRef>,
    peer: Cell<DomId>,
    access: Access,
}

impl GrantedPages {
    /// Grants all of `pages`. On an error nothing is granted.
    pub fn new(pages: Pages, peer: DomId, access: Access) -> Result<Self, GrantError> {
        sweep();
        let count = pages.count();
        let references = Vec::with_capacity(count);
        let mut granted = Self { pages: Some(pages), references, peer: Cell::new(peer), access };
        for index in 0..count {
            let gfn = granted.pages().gfn(index);
            // On an error, dropping `granted` revokes what was granted.
            granted.references.push(table::open(gfn, peer, access)?);
        }
        Ok(granted)
    }

    /// Allocates `count` zeroed pages and grants them.
    pub fn allocate(count: usize, peer: DomId, access: Access) -> Result<Self, GrantError> {
        Self::new(Pages::new(count).ok_or(GrantError::NoSpace)?, peer, access)
    }

    fn pages(&self) -> &Pages {
        self.pages.as_ref().expect("taken only by `revoke` and `drop`, which consume the value")
    }

    /// The references, in page order.
    pub fn references(&self) -> &[GrantRef] {
        &self.references
    }

    /// The reference of page `index`.
    pub fn reference(&self, index: usize) -> GrantRef {
        self.references[index]
    }

    /// Who may use them.
    pub fn peer(&self) -> DomId {
        self.peer.get()
    }

    /// Grants the pages to the successor of a peer that is dead and has been taken apart, by the same references: what
    /// names them in requests stays good. `Again`: the old peer still has one of them mapped; those that it has not are
    /// granted anew, the rest is as before.
    pub fn regrant(&self, peer: DomId) -> Result<(), GrantError> {
        if peer == self.peer.get() {
            return Ok(());
        }
        for (index, &reference) in self.references.iter().enumerate() {
            table::reopen(reference, self.pages().gfn(index), peer, self.access)?;
        }
        self.peer.set(peer);
        Ok(())
    }

    /// All bytes, in page order.
    pub fn memory(&self) -> Shared<'_> {
        self.pages().shared_view()
    }

    /// The bytes of page `index`.
    pub fn page(&self, index: usize) -> Shared<'_> {
        self.memory().part(index * PAGE, PAGE)
    }

    /// Takes the pages back, if the peer has none of them mapped; else gives the unrevoked rest back to try later.
    pub fn revoke(mut self) -> Result<Pages, GrantedPages> {
        self.close_all();
        if self.references.is_empty() {
            return Ok(self.pages.take().expect("present until here"));
        }
        Err(self)
    }

    /// Revokes what can be revoked and keeps the rest in `references`.
    fn close_all(&mut self) {
        self.references.retain(|&reference| !table::close(reference));
    }
}

impl Drop for GrantedPages {
    fn drop(&mut self) {
        self.close_all();
        if self.references.is_empty() {
            return;
        }
        if let Some(pages) = self.pages.take() {
            QUARANTINED.fetch_add(pages.count(), Relaxed);
            QUARANTINE.borrow().push((pages, core::mem::take(&mut self.references)));
        }
    }
}

/// Frees what has become revocable.
fn sweep() {
    if quarantined_pages() == 0 {
        return;
    }
    QUARANTINE.borrow().retain_mut(|(pages, references)| {
        references.retain(|&reference| !table::close(reference));
        let held = !references.is_empty();
        if !held {
            QUARANTINED.fetch_sub(pages.count(), Relaxed);
        }
        held
    });
}

/// Grants this domain's own console ring page to the console domain: for the policy domain, which nobody builds, and for
/// everybody when the console domain was started again.
pub fn grant_own_console_ring(peer: DomId) -> Result<(), GrantError> {
    table::open_reserved(GrantRef(GRANT_REF_CONSOLE), CONSOLE_RING / PAGE_SIZE, peer)
}

/// Grants this domain's own xenstore ring page to the xenstore domain. For the policy domain, which nobody builds.
pub fn grant_own_store_ring(peer: DomId) -> Result<(), GrantError> {
    table::open_reserved(GrantRef(GRANT_REF_XENSTORE), STORE_RING / PAGE_SIZE, peer)
}
