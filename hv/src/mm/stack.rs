//! Stacks with unmapped pages around them: an overflow is a page fault (then a double fault on a stack of its own),
//! never silent damage.

use super::paging::{self, MapError};
use x86_64::VirtAddr;

/// A stack that lives as long as the hypervisor.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// One past its highest byte, 16-byte aligned.
    pub top: VirtAddr,
}

impl Stack {
    /// Makes a stack of `pages` pages.
    pub fn new(pages: u64) -> Result<Self, MapError> {
        Ok(Self { top: paging::map_stack(pages)? })
    }
}
