//! The end: a record of what happened on the serial line, then stop. Nothing here takes a lock or allocates.

use super::Frame;
use crate::mm::layout;
use crate::serial::Serial;
use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};
use x86_64::registers::control::{Cr2, Cr3};

/// Words of stack shown.
const STACK_WORDS: u64 = 32;
/// Exit code for `isa-debug-exit`: QEMU's status is 2 * 0x1f + 1 = 63.
const EXIT_CODE: u32 = 0x1f;

static CRASHED: AtomicBool = AtomicBool::new(false);

/// Names of the exceptions.
pub fn exception_name(vector: u64) -> &'static str {
    const NAMES: [&str; 22] = [
        "divide error",
        "debug trap",
        "NMI",
        "breakpoint",
        "overflow",
        "bound range exceeded",
        "invalid opcode",
        "device not available (FPU)",
        "double fault",
        "coprocessor segment overrun",
        "invalid TSS",
        "segment not present",
        "stack fault",
        "general protection fault",
        "page fault",
        "reserved exception",
        "x87 floating-point error",
        "alignment check",
        "machine check",
        "SIMD floating-point error",
        "virtualization exception",
        "control protection exception",
    ];
    usize::try_from(vector).ok().and_then(|index| NAMES.get(index)).copied().unwrap_or("unknown exception")
}

/// Only the first crash is told; one inside the telling stops at once.
fn begin() {
    if CRASHED.swap(true, Ordering::Relaxed) {
        crate::power::debug_exit(EXIT_CODE);
        crate::power::halt();
    }
}

/// An exception in the hypervisor.
pub fn exception(frame: &Frame) -> ! {
    begin();
    // The serial port cannot fail.
    let _ = writeln!(Serial, "\nhv: CRASH: {} ({}) in the hypervisor", exception_name(frame.vector), frame.vector);
    registers(frame);
    if layout::page_down(Cr2::read_raw()) == layout::page_down(frame.rsp) {
        let _ = writeln!(Serial, " the stack overflowed");
        stack(layout::page_up(frame.rsp));
    } else {
        stack(frame.rsp);
    }
    finish()
}

fn registers(f: &Frame) {
    let cr3 = Cr3::read_raw().0.start_address();
    let _ = writeln!(Serial, " rip {:016x}  cs {:x}  rflags {:x}  error {:x}", f.rip, f.cs, f.rflags, f.error);
    let _ = writeln!(Serial, " rsp {:016x}  ss {:x}  cr2 {:x}  cr3 {:x}", f.rsp, f.ss, Cr2::read_raw(), cr3);
    let rows = [
        [("rax", f.rax), ("rbx", f.rbx), ("rcx", f.rcx), ("rdx", f.rdx)],
        [("rsi", f.rsi), ("rdi", f.rdi), ("rbp", f.rbp), ("r8 ", f.r8)],
        [("r9 ", f.r9), ("r10", f.r10), ("r11", f.r11), ("r12", f.r12)],
        [("r13", f.r13), ("r14", f.r14), ("r15", f.r15), ("vec", f.vector)],
    ];
    for row in rows {
        for (name, value) in row {
            let _ = write!(Serial, " {name} {value:016x}");
        }
        let _ = writeln!(Serial);
    }
}

/// Shows the words at `rsp`, those that look like return addresses with a mark. Stays inside the stack region.
fn stack(rsp: u64) {
    let image = layout::image();
    let _ = writeln!(Serial, " stack (* may be a return address):");
    let page_end = layout::page_up(rsp + 1);
    if !(layout::STACK_BASE..layout::STACK_BASE + (1 << 39)).contains(&rsp) || !rsp.is_multiple_of(8) {
        let _ = writeln!(Serial, "  not on a stack of the hypervisor");
        return;
    }
    for index in 0..STACK_WORDS {
        let at = rsp + index * 8;
        if at >= page_end {
            break;
        }
        // SAFETY: an aligned word of the page that RSP points into, in the stack region; should that page be a guard
        // page, the fault is caught by `begin`, which stops.
        let word = unsafe { (at as *const u64).read_volatile() };
        let text = image.text.0.as_u64()..image.text.1.as_u64();
        let _ = writeln!(Serial, "  {at:016x}: {word:016x}{}", if text.contains(&word) { " *" } else { "" });
    }
}

fn finish() -> ! {
    let _ = writeln!(Serial, "hv: stopped; all domains are lost ({} NMIs since boot)", super::entry::nmis());
    crate::power::debug_exit(EXIT_CODE);
    crate::power::halt()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    begin();
    let _ = writeln!(Serial, "\nhv: CRASH: {info}");
    let rsp: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    stack(rsp);
    finish()
}
