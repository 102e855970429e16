//! Granted and mapped pages as the memory that `xen_rings` works on, so that a ring can own its pages.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::fence;

use xen_rings::memory::SharedMemory;

use crate::grant::{GrantedPages, Mapping};
use crate::shared::Shared;

impl SharedMemory for Shared<'_> {
    fn bytes(&self) -> usize {
        self.len()
    }
    fn load_u32(&self, offset: usize) -> u32 {
        self.u32_at(offset).load(Acquire)
    }
    fn store_u32(&self, offset: usize, value: u32) {
        self.u32_at(offset).store(value, Release);
    }
    #[inline]
    fn load_u64(&self, offset: usize) -> u64 {
        self.u64_at(offset).load(Relaxed)
    }
    #[inline]
    fn store_u64(&self, offset: usize, value: u64) {
        self.u64_at(offset).store(value, Relaxed);
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        Shared::read(*self, offset, into);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        Shared::write(*self, offset, from);
    }
    fn fence(&self) {
        fence(SeqCst);
    }
}

macro_rules! over_memory {
    ($($owner:ty)*) => { $(
        impl SharedMemory for $owner {
            fn bytes(&self) -> usize {
                self.memory().bytes()
            }
            fn load_u32(&self, offset: usize) -> u32 {
                self.memory().load_u32(offset)
            }
            fn store_u32(&self, offset: usize, value: u32) {
                self.memory().store_u32(offset, value);
            }
            #[inline]
            fn load_u64(&self, offset: usize) -> u64 {
                self.memory().load_u64(offset)
            }
            #[inline]
            fn store_u64(&self, offset: usize, value: u64) {
                self.memory().store_u64(offset, value);
            }
            #[inline]
            fn read(&self, offset: usize, into: &mut [u8]) {
                self.memory().read(offset, into);
            }
            #[inline]
            fn write(&self, offset: usize, from: &[u8]) {
                self.memory().write(offset, from);
            }
            fn fence(&self) {
                fence(SeqCst);
            }
        }
    )* };
}

over_memory! { GrantedPages Mapping }
