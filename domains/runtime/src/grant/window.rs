//! Addresses for mapping others' pages: hands out runs of the grant window.
//!
//! The window is far larger than anything that can be mapped at once, so runs come in powers of two and are never
//! split or merged: taking and giving back are a push and a pop.

use alloc::vec::Vec;

/// Allocator of page runs in an address range.
#[derive(Debug)]
pub struct Window {
    next: u64,
    end: u64,
    page_bytes: u64,
    /// Free runs of `1 << class` pages.
    free: [Vec<u64>; Self::CLASSES],
}

impl Window {
    /// Runs of up to 2^15 pages.
    const CLASSES: usize = 16;

    /// An allocator for `[start, end)`, both multiples of `page_bytes`.
    pub const fn new(start: u64, end: u64, page_bytes: u64) -> Self {
        Self { next: start, end, page_bytes, free: [const { Vec::new() }; Self::CLASSES] }
    }

    fn class(pages: usize) -> Option<usize> {
        let class = pages.max(1).checked_next_power_of_two()?.trailing_zeros() as usize;
        (class < Self::CLASSES).then_some(class)
    }

    /// The address of a free run of at least `pages` pages.
    pub fn take(&mut self, pages: usize) -> Option<u64> {
        let class = Self::class(pages)?;
        if let Some(address) = self.free[class].pop() {
            return Some(address);
        }
        let bytes = self.page_bytes << class;
        let address = self.next;
        self.next = address.checked_add(bytes).filter(|&next| next <= self.end)?;
        Some(address)
    }

    /// Gives back a run that `take(pages)` returned.
    pub fn give_back(&mut self, address: u64, pages: usize) {
        if let Some(class) = Self::class(pages) {
            self.free[class].push(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_in_use_never_overlap() {
        let mut window = Window::new(0, 0x10_0000, 0x1000);
        let mut held: Vec<(u64, usize)> = Vec::new();
        for step in 0..2000usize {
            let pages = step * 7 % 11 + 1;
            if step % 3 == 2 {
                let (address, pages) = held.swap_remove(step % held.len());
                window.give_back(address, pages);
            } else if let Some(address) = window.take(pages) {
                let end = address + pages as u64 * 0x1000;
                assert!(end <= 0x10_0000);
                assert!(held.iter().all(|&(a, n)| end <= a || a + n as u64 * 0x1000 <= address));
                held.push((address, pages));
            }
        }
    }

    #[test]
    fn a_full_window_and_a_huge_run_are_refused() {
        let mut window = Window::new(0x1000, 0x3000, 0x1000);
        assert_eq!((window.take(1), window.take(1), window.take(1)), (Some(0x1000), Some(0x2000), None));
        window.give_back(0x1000, 1);
        assert_eq!(window.take(1), Some(0x1000));
        assert_eq!(window.take(usize::MAX), None);
        assert_eq!(window.take(1 << 16), None);
    }
}
