//! This domain's own grant table: which entries are free, and the words of an entry in the right order.
//!
//! Xen public header `grant_table.h`, "Granting access" and "Revoking": the entry's frame and domain are written before
//! its flags; it is revoked by a compare-exchange of the flags that fails while the peer has the page mapped.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use xen_abi::grant_table as abi;
use xen_abi::native::{GRANT_TABLE, GRANT_TABLE_FRAMES_MAX, PAGE_SIZE};

use super::GrantError;
use crate::hypercall::memory;
use crate::ids::{Access, DomId, GrantRef};
use crate::local::Local;
use crate::pages::PAGE;
use crate::shared::Shared;

static TABLE: Local<Table> = Local::new(Table { frames: 0, free: Vec::new() });

struct Table {
    /// Frames in place.
    frames: u64,
    free: Vec<GrantRef>,
}

impl Table {
    /// Adds a frame of entries.
    fn grow(&mut self) -> Result<(), GrantError> {
        if self.frames >= GRANT_TABLE_FRAMES_MAX {
            return Err(GrantError::NoSpace);
        }
        let gfn = GRANT_TABLE / PAGE_SIZE + self.frames;
        // SAFETY: the address map reserves these pages for the table, and this one is not in place yet.
        unsafe { memory::add_grant_frame(self.frames, gfn) }.map_err(|_| GrantError::NoSpace)?;
        let first = self.frames as u32 * abi::GRANT_ENTRIES_PER_FRAME;
        self.frames += 1;
        let usable = first.max(abi::GNTTAB_NR_RESERVED_ENTRIES)..first + abi::GRANT_ENTRIES_PER_FRAME;
        self.free.extend(usable.rev().map(GrantRef));
        Ok(())
    }

    fn entry(&self, reference: GrantRef) -> Entry {
        // SAFETY: `frames` pages from here are in place, for ever, and accessed through this type only; the table's
        // entries are 8 bytes.
        let table = unsafe { Shared::new(GRANT_TABLE as *mut u8, self.frames as usize * PAGE) };
        Entry(table.part(reference.0 as usize * size_of::<abi::GrantEntryV1>(), size_of::<abi::GrantEntryV1>()))
    }
}

/// The words of one entry, which the hypervisor writes too.
struct Entry(Shared<'static>);

impl Entry {
    fn open(&self, gfn: u64, peer: DomId, access: Access) -> Result<(), GrantError> {
        let frame = u32::try_from(gfn).map_err(|_| GrantError::BadAddress)?;
        let flags = match access {
            Access::ReadOnly => abi::GTF_PERMIT_ACCESS | abi::GTF_READONLY,
            Access::ReadWrite => abi::GTF_PERMIT_ACCESS,
        };
        self.0.u16_at(2).store(peer.0, Relaxed);
        self.0.u32_at(4).store(frame, Relaxed);
        self.0.u16_at(0).store(flags, Release);
        Ok(())
    }

    /// Revokes, unless the peer has it mapped. The peer may map and unmap at any moment, so the exchange is tried a few
    /// times, not for ever.
    fn close(&self) -> bool {
        let flags = self.0.u16_at(0);
        for _ in 0..16 {
            let now = flags.load(Acquire);
            if now & (abi::GTF_READING | abi::GTF_WRITING) != 0 {
                return false;
            }
            if flags.compare_exchange(now, 0, SeqCst, Relaxed).is_ok() {
                return true;
            }
        }
        false
    }
}

/// Grants the page `gfn` to `peer`.
///
/// The caller sees to it that no Rust reference covers the page while the grant stands.
pub(super) fn open(gfn: u64, peer: DomId, access: Access) -> Result<GrantRef, GrantError> {
    let mut table = TABLE.borrow();
    if table.free.is_empty() {
        table.grow()?;
    }
    let reference = table.free.pop().ok_or(GrantError::NoSpace)?;
    if let Err(error) = table.entry(reference).open(gfn, peer, access) {
        table.free.push(reference);
        return Err(error);
    }
    Ok(reference)
}

/// Revokes a grant; `false`: the peer has the page mapped, the grant stands.
#[must_use = "a grant that is not revoked keeps its page"]
pub(super) fn close(reference: GrantRef) -> bool {
    let mut table = TABLE.borrow();
    let closed = table.entry(reference).close();
    if closed {
        table.free.push(reference);
    }
    closed
}

/// Grants the page of an open entry to another peer. `Again`: the old one has it mapped, and nothing has changed.
pub(super) fn reopen(reference: GrantRef, gfn: u64, peer: DomId, access: Access) -> Result<(), GrantError> {
    let table = TABLE.borrow();
    let entry = table.entry(reference);
    if !entry.close() {
        return Err(GrantError::Again);
    }
    entry.open(gfn, peer, access)
}

/// Writes one of the reserved entries (the console's and the xenstore ring's), for the policy domain, whose builder is
/// the hypervisor. `reference` is below `GNTTAB_NR_RESERVED_ENTRIES`.
pub(super) fn open_reserved(reference: GrantRef, gfn: u64, peer: DomId) -> Result<(), GrantError> {
    if reference.0 >= abi::GNTTAB_NR_RESERVED_ENTRIES {
        return Err(GrantError::BadReference);
    }
    let mut table = TABLE.borrow();
    if table.frames == 0 {
        table.grow()?;
    }
    let entry = table.entry(reference);
    if !entry.close() {
        return Err(GrantError::Again);
    }
    entry.open(gfn, peer, Access::ReadWrite)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_entry(test: impl FnOnce(&Entry, &mut dyn FnMut(u16))) {
        let mut word = 0u64;
        let base = (&raw mut word).cast::<u8>();
        // SAFETY: `word` outlives the entry and is touched through it only.
        let entry = Entry(unsafe { Shared::new(base, 8) });
        // SAFETY: as above.
        let flags = Entry(unsafe { Shared::new(base, 8) });
        test(&entry, &mut |bits| {
            flags.0.u16_at(0).fetch_or(bits, SeqCst);
        });
    }

    #[test]
    fn a_mapped_grant_is_not_revoked() {
        with_entry(|entry, set| {
            entry.open(7, DomId(3), Access::ReadOnly).unwrap();
            set(abi::GTF_READING);
            assert!(!entry.close());
            assert_eq!(entry.0.u16_at(2).load(Relaxed), 3);
        });
    }

    #[test]
    fn an_unmapped_grant_is_revoked_and_can_be_used_again() {
        with_entry(|entry, _| {
            entry.open(7, DomId(3), Access::ReadWrite).unwrap();
            assert!(entry.close());
            assert_eq!(entry.0.u16_at(0).load(Relaxed), abi::GTF_INVALID);
            entry.open(8, DomId(4), Access::ReadOnly).unwrap();
            assert_eq!(entry.0.u32_at(4).load(Relaxed), 8);
            assert_eq!(entry.0.u16_at(0).load(Relaxed), abi::GTF_PERMIT_ACCESS | abi::GTF_READONLY);
        });
    }

    #[test]
    fn a_frame_that_v1_cannot_name_is_refused() {
        with_entry(|entry, _| {
            assert_eq!(entry.open(1 << 32, DomId(1), Access::ReadOnly), Err(GrantError::BadAddress));
            assert_eq!(entry.0.u16_at(0).load(Relaxed), 0);
        });
    }
}
