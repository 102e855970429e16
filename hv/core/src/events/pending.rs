//! Pending and mask bits: `struct shared_info` and `struct vcpu_info` as the guest sees them.

use core::mem::offset_of;

use xen_abi::xen::{SharedInfo, VcpuInfo};

use super::{MachineMemory, Port, VcpuId};
use crate::domain::VCPUS_MAX;
use crate::ids::{Hpa, Mfn};

const PENDING: u64 = offset_of!(SharedInfo, evtchn_pending) as u64;
const MASK: u64 = offset_of!(SharedInfo, evtchn_mask) as u64;
const VCPU_INFO_BYTES: u64 = size_of::<VcpuInfo>() as u64;
const SELECTOR: u64 = offset_of!(VcpuInfo, evtchn_pending_sel) as u64;
const UPCALL_PENDING: u64 = offset_of!(VcpuInfo, evtchn_upcall_pending) as u64;

/// What making a port pending means for the vCPU behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// It was pending already.
    Nothing,
    /// It is pending now, but masked: only a vCPU that polls this port cares.
    Masked,
    /// It is pending now and unmasked: a waiting vCPU wakes.
    Unmasked,
}

/// A domain's shared info page, and where each vCPU's part of it has moved to.
#[derive(Clone, Copy, Debug)]
pub struct SharedInfoPage {
    base: Hpa,
    vcpu_info: [Hpa; VCPUS_MAX],
}

impl SharedInfoPage {
    /// All vCPUs' parts begin in the page itself.
    pub fn new(frame: Mfn) -> Self {
        let vcpu_info = core::array::from_fn(|vcpu| frame.at((vcpu as u64).wrapping_mul(VCPU_INFO_BYTES)));
        Self { base: frame.base(), vcpu_info }
    }

    /// The page.
    pub fn frame(&self) -> Mfn {
        self.base.mfn()
    }

    /// Where a vCPU's `VcpuInfo` is (the time part too).
    pub fn vcpu_info(&self, vcpu: VcpuId) -> Hpa {
        // A vCPU that there is: the remainder changes nothing.
        self.vcpu_info.get(usize::from(vcpu.0) % VCPUS_MAX).copied().unwrap_or(self.base)
    }

    /// Moves a vCPU's part to `place`, a frame that the caller has pinned, with its contents. All words are marked as
    /// possibly pending, since bits may have been set in the old place meanwhile.
    pub(crate) fn move_vcpu_info(&mut self, vcpu: VcpuId, place: Hpa, memory: &impl MachineMemory) {
        let old = self.vcpu_info(vcpu);
        memory.copy(old, place, VCPU_INFO_BYTES as usize);
        if let Some(slot) = self.vcpu_info.get_mut(usize::from(vcpu.0)) {
            *slot = place;
        }
        memory.fetch_or_u64(Hpa(place.0.wrapping_add(SELECTOR)), u64::MAX);
        memory.store_u8(Hpa(place.0.wrapping_add(UPCALL_PENDING)), 1);
    }

    /// The word of a port, which is one that exists, and its bit.
    fn word(&self, base: u64, port: Port) -> (Hpa, u64) {
        let at = self.base.0.wrapping_add(base).wrapping_add(u64::from(port.0 >> 6) << 3);
        (Hpa(at), 1u64.wrapping_shl(port.0))
    }

    /// Makes a port pending.
    #[inline(always)] // in the way of each event
    pub(crate) fn set_pending(&self, port: Port, vcpu: VcpuId, memory: &impl MachineMemory) -> Signal {
        let (at, bit) = self.word(PENDING, port);
        if memory.fetch_or_u64(at, bit) & bit != 0 {
            return Signal::Nothing;
        }
        let (at, _) = self.word(MASK, port);
        if memory.load_u64(at).wrapping_shr(port.0) & 1 != 0 {
            return Signal::Masked;
        }
        self.select(port, vcpu, memory);
        Signal::Unmasked
    }

    /// Makes a port pending that is neither masked nor pending already. `false`: it is, and nothing is done.
    #[inline(always)] // in the way of each request and its answer
    pub(crate) fn set_unmasked(&self, port: Port, vcpu: VcpuId, memory: &impl MachineMemory) -> bool {
        let (mask, bit) = self.word(MASK, port);
        let (pending, _) = self.word(PENDING, port);
        let set = memory.load_u64(mask) & bit == 0 && memory.fetch_or_u64(pending, bit) & bit == 0;
        if set {
            self.select(port, vcpu, memory);
        }
        set
    }

    /// Unmasks a port; a signal if it was pending.
    pub(crate) fn unmask(&self, port: Port, vcpu: VcpuId, memory: &impl MachineMemory) -> Signal {
        let (at, bit) = self.word(MASK, port);
        if memory.fetch_and_u64(at, !bit) & bit == 0 || !self.is_pending(port, memory) {
            return Signal::Nothing;
        }
        self.select(port, vcpu, memory);
        Signal::Unmasked
    }

    /// Tells the vCPU which word to look at, and that there is something.
    #[inline(always)]
    fn select(&self, port: Port, vcpu: VcpuId, memory: &impl MachineMemory) {
        let info = self.vcpu_info(vcpu);
        memory.fetch_or_u64(Hpa(info.0.wrapping_add(SELECTOR)), 1u64.wrapping_shl(port.0 >> 6));
        memory.store_u8(Hpa(info.0.wrapping_add(UPCALL_PENDING)), 1);
    }

    /// Forgets that a port is pending.
    pub(crate) fn clear_pending(&self, port: Port, memory: &impl MachineMemory) {
        let (at, bit) = self.word(PENDING, port);
        memory.fetch_and_u64(at, !bit);
    }

    /// Whether a port is pending.
    pub fn is_pending(&self, port: Port, memory: &impl MachineMemory) -> bool {
        let (at, bit) = self.word(PENDING, port);
        memory.load_u64(at) & bit != 0
    }

    /// Whether a vCPU was told of an event since it cleared `evtchn_upcall_pending` last.
    pub fn upcall_pending(&self, vcpu: VcpuId, memory: &impl MachineMemory) -> bool {
        memory.load_u64(self.vcpu_info(vcpu)) & 0xff != 0
    }
}

// The flag is the first byte of a word.
const _: () = assert!(UPCALL_PENDING == 0);
