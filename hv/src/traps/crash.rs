//! The end: a record of what happened on the serial line, then stop. Nothing here takes a lock or allocates.

use super::Frame;
use crate::{mm::layout, power, serial::Serial};
use core::sync::atomic::{AtomicBool, Ordering};
use core::{fmt::Write, panic::PanicInfo};
use x86_64::VirtAddr;
use x86_64::registers::control::{Cr2, Cr3};

/// Words of stack shown.
const STACK_WORDS: usize = 32;
/// Exit code for `isa-debug-exit`: QEMU's status is 2 * 0x1f + 1 = 63.
const EXIT_CODE: u32 = 0x1f;

static CRASHED: AtomicBool = AtomicBool::new(false);

/// Names of the exceptions, by vector.
const NAMES: &str = "divide error,debug trap,NMI,breakpoint,overflow,bound range exceeded,invalid opcode,\
    device not available (FPU),double fault,coprocessor segment overrun,invalid TSS,segment not present,stack fault,\
    general protection fault,page fault,reserved exception,x87 floating-point error,alignment check,machine check,\
    SIMD floating-point error,virtualization exception,control protection exception";

/// The name of an exception.
pub fn exception_name(vector: u64) -> &'static str {
    NAMES.split(',').nth(vector as usize).unwrap_or("unknown exception")
}

/// Only the first crash is told; one inside the telling stops at once.
fn begin() {
    if CRASHED.swap(true, Ordering::Relaxed) {
        power::stop(EXIT_CODE);
    }
}

/// An exception in the hypervisor; also a double fault or machine check, on a stack of its own, from anywhere.
pub extern "C" fn exception(frame: &Frame) -> ! {
    begin();
    // The serial port cannot fail.
    let _ = writeln!(Serial, "\nhv: CRASH: {} ({}) in the hypervisor", exception_name(frame.vector), frame.vector);
    let _ = writeln!(Serial, " {frame:x?}\n cr2 {:x}, {:x?}", Cr2::read_raw(), Cr3::read_raw());
    let overflow = layout::page_down(Cr2::read_raw()) == layout::page_down(frame.rsp);
    if overflow {
        let _ = writeln!(Serial, " the stack overflowed");
    }
    stack(if overflow { layout::page_up(frame.rsp) } else { frame.rsp });
    finish()
}

/// Shows the words at `rsp`, those that look like return addresses with a mark. Stays inside the stack region.
fn stack(rsp: u64) {
    let [text, rodata, ..] = layout::image_parts().map(VirtAddr::as_u64);
    if !(layout::STACK_BASE..layout::STACK_BASE + (1 << 39)).contains(&rsp) || !rsp.is_multiple_of(8) {
        let _ = writeln!(Serial, " not on a stack of the hypervisor");
        return;
    }
    let _ = writeln!(Serial, " stack (* may be a return address):");
    for at in (rsp..layout::page_up(rsp + 1)).step_by(8).take(STACK_WORDS) {
        // SAFETY: an aligned word of the page that RSP points into, in the stack region; should that page be a guard
        // page, the fault is caught by `begin`, which stops.
        let word = unsafe { (at as *const u64).read_volatile() };
        let _ = writeln!(Serial, "  {at:016x}: {word:016x}{}", if (text..rodata).contains(&word) { " *" } else { "" });
    }
}

fn finish() -> ! {
    let nmis = super::entry::NMIS.load(Ordering::Relaxed);
    let _ = writeln!(Serial, "hv: stopped; all domains are lost ({nmis} NMIs since boot)");
    power::stop(EXIT_CODE)
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    begin();
    let _ = writeln!(Serial, "\nhv: CRASH: {info}");
    stack((&raw const info).addr() as u64 & !7);
    finish()
}
