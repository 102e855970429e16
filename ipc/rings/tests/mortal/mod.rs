//! Memory that a back end dies over.

use std::cell::Cell;

use xen_rings::memory::{CellMemory, SharedMemory};

/// Memory of a back end that dies: after so many stores, of a word or less each, it makes none any more.
#[derive(Clone, Copy)]
pub struct Mortal<'a>(pub CellMemory<'a>, pub &'a Cell<u32>);

impl Mortal<'_> {
    fn lives(self) -> bool {
        self.1.replace(self.1.get().saturating_sub(1)) > 0
    }
}

impl SharedMemory for Mortal<'_> {
    fn bytes(&self) -> usize {
        self.0.bytes()
    }
    fn load_u32(&self, offset: usize) -> u32 {
        self.0.load_u32(offset)
    }
    fn store_u32(&self, offset: usize, value: u32) {
        if self.lives() {
            self.0.store_u32(offset, value);
        }
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        self.0.read(offset, into);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        for (index, word) in from.chunks(8).enumerate() {
            if self.lives() {
                self.0.write(offset + 8 * index, word);
            }
        }
    }
    fn fence(&self) {}
}
