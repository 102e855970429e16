//! The 2-level event bits: which ports are pending, and which of them are masked.
//!
//! Xen public header `xen.h`, `struct shared_info`: `evtchn_pending` and `evtchn_mask` are 64 words of 64 ports,
//! `evtchn_pending_sel` (in `vcpu_info`) has a bit for each word with something new in it. The hypervisor sets
//! *pending*, then (unless masked) *selector*, then *upcall pending*; the domain clears them in the opposite order and
//! looks at what they guard only afterwards, so no event falls between two stools.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::SeqCst;

/// Ports of the 2-level ABI.
pub const PORTS: u32 = 4096;
/// Words of pending or mask bits.
pub const WORDS: usize = 64;

/// The words, wherever they lie.
#[derive(Clone, Copy)]
pub struct EventBits<'a> {
    /// `evtchn_pending`.
    pub pending: &'a [AtomicU64; WORDS],
    /// `evtchn_mask`.
    pub mask: &'a [AtomicU64; WORDS],
    /// `evtchn_pending_sel`.
    pub selector: &'a AtomicU64,
}

impl<'a> EventBits<'a> {
    #[inline]
    fn word_and_bit(port: u32) -> (usize, u64) {
        assert!(port < PORTS, "port {port} is beyond the 2-level ABI");
        ((port / 64) as usize, 1 << (port % 64))
    }

    /// Masks every port. At the start, before any is bound.
    pub fn mask_all(self) {
        for word in self.mask {
            word.store(u64::MAX, SeqCst);
        }
    }

    /// Stops delivery of a port; events stay pending.
    pub fn mask(self, port: u32) {
        let (word, bit) = Self::word_and_bit(port);
        self.mask[word].fetch_or(bit, SeqCst);
    }

    /// Lets a port be delivered; an event that came while it was masked is delivered by the next scan.
    pub fn unmask(self, port: u32) {
        let (word, bit) = Self::word_and_bit(port);
        self.mask[word].fetch_and(!bit, SeqCst);
        if self.pending[word].load(SeqCst) & bit != 0 {
            self.selector.fetch_or(1 << word, SeqCst);
        }
    }

    /// Makes a port pending by our own hand, so that the next scan finds it.
    pub fn raise(self, port: u32) {
        let (word, bit) = Self::word_and_bit(port);
        self.pending[word].fetch_or(bit, SeqCst);
        self.selector.fetch_or(1 << word, SeqCst);
    }

    /// Whether the port is pending, masked or not.
    pub fn is_pending(self, port: u32) -> bool {
        let (word, bit) = Self::word_and_bit(port);
        self.pending[word].load(SeqCst) & bit != 0
    }

    /// Clears the port's pending bit and says whether it was set.
    #[inline]
    pub fn take(self, port: u32) -> bool {
        let (word, bit) = Self::word_and_bit(port);
        self.pending[word].fetch_and(!bit, SeqCst) & bit != 0
    }

    /// Takes the selector and goes through the ports that it names.
    pub fn scan(self) -> Scan<'a> {
        Scan { bits: self, words: self.selector.swap(0, SeqCst), word: 0, ports: 0 }
    }
}

/// Iterator over pending, unmasked ports; each is cleared as it is returned. What is left when the iterator is dropped
/// stays pending for the next scan.
pub struct Scan<'a> {
    bits: EventBits<'a>,
    /// Selected words not looked at yet.
    words: u64,
    /// The word that `ports` belongs to.
    word: usize,
    /// Ports of that word seen pending and not returned yet.
    ports: u64,
}

impl Iterator for Scan<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            while self.ports != 0 {
                let bit = self.ports & self.ports.wrapping_neg();
                self.ports ^= bit;
                // A port that somebody took since (a synchronous wait) is not returned a second time.
                if self.bits.pending[self.word].fetch_and(!bit, SeqCst) & bit != 0 {
                    return Some(self.word as u32 * 64 + bit.trailing_zeros());
                }
            }
            if self.words == 0 {
                return None;
            }
            self.word = self.words.trailing_zeros() as usize;
            self.words &= self.words - 1;
            self.ports = self.bits.pending[self.word].load(SeqCst) & !self.bits.mask[self.word].load(SeqCst);
        }
    }
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        let unfinished = if self.ports != 0 { 1 << self.word } else { 0 };
        if self.words | unfinished != 0 {
            self.bits.selector.fetch_or(self.words | unfinished, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    struct Memory {
        pending: [AtomicU64; WORDS],
        mask: [AtomicU64; WORDS],
        selector: AtomicU64,
    }

    impl Memory {
        fn new() -> Self {
            let zeros = || [const { AtomicU64::new(0) }; WORDS];
            Self { pending: zeros(), mask: zeros(), selector: AtomicU64::new(0) }
        }

        fn bits(&self) -> EventBits<'_> {
            EventBits { pending: &self.pending, mask: &self.mask, selector: &self.selector }
        }

        /// What the hypervisor does for an event.
        fn send(&self, port: u32) {
            let (word, bit) = EventBits::word_and_bit(port);
            let was = self.pending[word].fetch_or(bit, SeqCst) & bit != 0;
            if !was && self.mask[word].load(SeqCst) & bit == 0 {
                self.selector.fetch_or(1 << word, SeqCst);
            }
        }
    }

    #[test]
    fn every_port_sent_is_returned_once_in_order() {
        let memory = Memory::new();
        for port in [4095, 0, 63, 64, 700, 64] {
            memory.send(port);
        }
        assert_eq!(memory.bits().scan().collect::<Vec<_>>(), [0, 63, 64, 700, 4095]);
        assert_eq!(memory.bits().scan().next(), None);
    }

    #[test]
    fn masked_ports_wait_until_they_are_unmasked() {
        let memory = Memory::new();
        memory.bits().mask_all();
        memory.send(9);
        assert_eq!(memory.bits().scan().next(), None);
        memory.bits().unmask(9);
        assert_eq!(memory.bits().scan().collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn a_scan_that_is_dropped_half_way_loses_nothing() {
        let memory = Memory::new();
        for port in [1, 2, 100] {
            memory.send(port);
        }
        assert_eq!(memory.bits().scan().next(), Some(1));
        assert_eq!(memory.bits().scan().collect::<Vec<_>>(), vec![2, 100]);
    }

    #[test]
    fn an_event_during_the_scan_is_found_by_the_next_one() {
        let memory = Memory::new();
        memory.send(5);
        let mut scan = memory.bits().scan();
        assert_eq!(scan.next(), Some(5));
        memory.send(5);
        memory.send(3);
        assert_eq!(scan.next(), None);
        drop(scan);
        assert_eq!(memory.bits().scan().collect::<Vec<_>>(), [3, 5]);
    }

    #[test]
    fn a_port_taken_by_a_synchronous_wait_is_not_returned_again() {
        let memory = Memory::new();
        memory.send(5);
        memory.send(6);
        let mut scan = memory.bits().scan();
        assert_eq!(scan.next(), Some(5));
        assert!(memory.bits().take(6));
        assert_eq!(scan.next(), None);
        memory.bits().raise(6);
        drop(scan);
        assert_eq!(memory.bits().scan().next(), Some(6));
    }
}
