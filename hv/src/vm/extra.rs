//! What neither VMRUN nor the world switch switches: the state of XSAVE, XCR0, the debug address registers.
//!
//! It stays in the CPU when the vCPU that it belongs to stops, and is changed when another vCPU of a guest comes here:
//! native domains can touch none of it (no FPU, no XGETBV, breakpoints off).

use crate::machine::at;
use core::arch::asm;
use hv_core::ids::{Mfn, PAGE_BYTES};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::debug::{DebugAddressRegister, Dr0, Dr1, Dr2, Dr3};
use x86_64::registers::xcontrol::XCr0;

/// Components that guests may use: x87, SSE, AVX, AVX-512.
pub const COMPONENTS: u64 = 0xe7;
const MXCSR: usize = 24;
const MXCSR_RESET: u32 = 0x1f80;

/// All components that the CPU has, and whether one page holds them all.
pub fn components() -> Option<u64> {
    let leaf = core::arch::x86_64::__cpuid_count(0xd, 0);
    (leaf.eax & 3 == 3 && u64::from(leaf.ecx) <= PAGE_BYTES).then_some(u64::from(leaf.edx) << 32 | u64::from(leaf.eax))
}

/// One vCPU's.
pub struct Extra {
    area: Mfn,
    xcr0: u64,
    debug: [u64; 4],
}

impl Extra {
    /// As after reset. `area` is a zeroed frame of its own.
    pub fn new(area: Mfn) -> Self {
        // SAFETY: the frame is the caller's gift, and plain memory.
        unsafe { at::<u8>(area.at(MXCSR as u64)).cast::<u32>().write(MXCSR_RESET) };
        Self { area, xcr0: 1, debug: [0; 4] }
    }

    /// The frame that [`Self::new`] was given.
    pub fn frame(&self) -> Mfn {
        self.area
    }

    /// Takes the state out of the CPU.
    pub fn save(&mut self) {
        let all = components().unwrap_or(3);
        // SAFETY: the area is a page, as large as all components need (`components`); XCR0 takes what CPUID names.
        with_xsave(|| unsafe {
            self.xcr0 = XCr0::read_raw();
            XCr0::write_raw(all);
            asm!("xsave64 [{}]", in(reg) at::<u8>(self.area.base()), in("rax") u64::MAX, in("rdx") u64::MAX);
        });
        self.debug = [Dr0::read(), Dr1::read(), Dr2::read(), Dr3::read()];
    }

    /// Puts it into the CPU.
    pub fn load(&self) {
        let all = components().unwrap_or(3);
        // SAFETY: the area was made by `new` or `save`, and no guest can write it; `xcr0` was in the CPU, or is its reset
        // value.
        with_xsave(|| unsafe {
            XCr0::write_raw(all);
            asm!("xrstor64 [{}]", in(reg) at::<u8>(self.area.base()), in("rax") u64::MAX, in("rdx") u64::MAX);
            XCr0::write_raw(self.xcr0);
        });
        // DR7, which is off whenever the hypervisor runs, is what would give these addresses a meaning.
        Dr0::write(self.debug[0]);
        Dr1::write(self.debug[1]);
        Dr2::write(self.debug[2]);
        Dr3::write(self.debug[3]);
    }
}

/// XSETBV for the guest whose state is in the CPU. `false`: not a value for it.
pub fn set_guest_xcr0(register: u32, value: u64) -> bool {
    let all = components().unwrap_or(3) & COMPONENTS;
    let avx = value >> 5 & 7;
    let valid = value & 1 != 0 && value & !all == 0 && (value & 4 == 0 || value & 2 != 0);
    if register != 0 || !valid || (avx != 0 && (avx != 7 || value & 4 == 0)) {
        return false;
    }
    // SAFETY: checked above, as the CPU would.
    with_xsave(|| unsafe { XCr0::write_raw(value) });
    true
}

/// Lets XSAVE and its kin work, which they do not at other times.
fn with_xsave(act: impl FnOnce()) {
    let (cr0, cr4) = (Cr0::read_raw(), Cr4::read_raw());
    // SAFETY: the FPU is let in and out again; nothing else of the hypervisor depends on these bits.
    unsafe {
        Cr0::write_raw(cr0 & !(Cr0Flags::TASK_SWITCHED | Cr0Flags::EMULATE_COPROCESSOR).bits());
        Cr4::write_raw(cr4 | Cr4Flags::OSXSAVE.bits() | Cr4Flags::OSFXSR.bits());
        act();
        Cr4::write_raw(cr4);
        Cr0::write_raw(cr0);
    }
}
