//! Others' pages, mapped.

use alloc::vec::Vec;

use xen_abi::grant_table as abi;
use xen_abi::native::{GRANT_WINDOW, GRANT_WINDOW_END, PAGE_SIZE};

use super::GrantError;
use super::window::Window;
use crate::hypercall::grant_table;
use crate::ids::{Access, DomId, GrantRef};
use crate::local::Local;
use crate::pages::PAGE;
use crate::shared::Shared;

/// Where others' pages are mapped.
pub(super) static WINDOW: Local<Window> = Local::new(Window::new(GRANT_WINDOW, GRANT_WINDOW_END, PAGE_SIZE));

/// Why a run of grants could not be mapped: which one was refused first, and why. None is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapError {
    /// Its place in the array.
    pub index: usize,
    /// The reason.
    pub error: GrantError,
}

impl core::fmt::Display for MapError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "grant {} of the request: {}", self.index, self.error)
    }
}

impl core::error::Error for MapError {}

/// Pages of a peer, mapped one behind the other. In a driver domain the addresses are good for its devices too (a
/// read-only mapping only for reads by the device). Unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: u64,
    handles: Vec<u32>,
}

impl Mapping {
    /// Maps `references` of `peer`, all or none.
    pub fn new(peer: DomId, references: &[GrantRef], access: Access) -> Result<Self, MapError> {
        let no_space = MapError { index: 0, error: GrantError::NoSpace };
        let count = references.len();
        let base = WINDOW.borrow().take(count).ok_or(no_space)?;
        let flags = flags(access);
        let mut operations: Vec<_> = references
            .iter()
            .enumerate()
            .map(|(index, reference)| abi::GnttabMapGrantRef {
                host_addr: base + index as u64 * PAGE_SIZE,
                flags,
                gref: reference.0,
                dom: peer.0,
                // What the hypervisor does not get to counts as refused.
                status: abi::GNTST_GENERAL_ERROR,
                ..Default::default()
            })
            .collect();
        // SAFETY: the addresses are a run of the window that nobody else holds.
        let called = unsafe { grant_table::map(&mut operations) };
        let refused = operations.iter().enumerate().find_map(|(index, operation)| {
            GrantError::check(operation.status).err().map(|error| MapError { index, error })
        });
        match (refused, called) {
            (None, Ok(())) => Ok(Self { base, handles: operations.iter().map(|operation| operation.handle).collect() }),
            (refused, _) => {
                // Exactly those that were mapped are unmapped.
                let mapped = operations.iter().filter(|operation| operation.status == abi::GNTST_OKAY);
                let undone = unmap(mapped.map(|operation| (operation.host_addr, operation.handle)));
                if undone {
                    WINDOW.borrow().give_back(base, count);
                }
                Err(refused.unwrap_or(no_space))
            }
        }
    }

    /// Maps one page.
    pub fn page_of(peer: DomId, reference: GrantRef, access: Access) -> Result<Self, GrantError> {
        Self::new(peer, &[reference], access).map_err(|refused| refused.error)
    }

    /// The first address: virtual, guest-physical and, in a driver domain, I/O virtual.
    pub fn address(&self) -> u64 {
        self.base
    }

    /// Number of pages.
    pub fn count(&self) -> usize {
        self.handles.len()
    }

    /// All bytes. Writing to a read-only mapping ends the domain.
    pub fn memory(&self) -> Shared<'_> {
        // SAFETY: mapped until `self` is dropped; nothing else refers to the run.
        unsafe { Shared::new(self.base as *mut u8, self.handles.len() * PAGE) }
    }

    /// The bytes of page `index`.
    pub fn page(&self, index: usize) -> Shared<'_> {
        self.memory().part(index * PAGE, PAGE)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let base = self.base;
        let pages = self.handles.iter().enumerate();
        if unmap(pages.map(|(index, &handle)| (base + index as u64 * PAGE_SIZE, handle))) {
            WINDOW.borrow().give_back(base, self.handles.len());
        }
    }
}

/// The flags of a mapping.
pub(super) fn flags(access: Access) -> u32 {
    match access {
        Access::ReadOnly => abi::GNTMAP_HOST_MAP | abi::GNTMAP_READONLY,
        Access::ReadWrite => abi::GNTMAP_HOST_MAP,
    }
}

/// Unmaps pages; `false`: not all of them went, their addresses must not be used again.
fn unmap(pages: impl Iterator<Item = (u64, u32)>) -> bool {
    let mut operations: Vec<_> = pages
        .map(|(host_addr, handle)| abi::GnttabUnmapGrantRef {
            host_addr,
            handle,
            status: abi::GNTST_GENERAL_ERROR,
            ..Default::default()
        })
        .collect();
    if operations.is_empty() {
        return true;
    }
    // SAFETY: the mapping is being given up: no `Shared` of it is left, its lifetime was the mapping's.
    let called = unsafe { grant_table::unmap(&mut operations) };
    called.is_ok() && operations.iter().all(|operation| operation.status == abi::GNTST_OKAY)
}
