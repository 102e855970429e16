//! The CPU, as far as a test needs it: descriptor tables, ports, MSRs, CPUID, and exceptions that are expected.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The vector of event upcalls.
pub const UPCALL: u8 = 0x30;
/// Another vector that they can come by.
pub const OTHER_UPCALL: u8 = 0x31;
/// Upcalls so far.
pub static UPCALLS: AtomicU64 = AtomicU64::new(0);
/// The vector of the last one.
pub static LAST_UPCALL: AtomicU64 = AtomicU64::new(0);
/// Interrupts of other vectors so far.
pub static INTERRUPTS: AtomicU64 = AtomicU64::new(0);
/// Whether an exception is expected, and goes on behind an instruction of two bytes.
static EXPECTED: AtomicBool = AtomicBool::new(false);
static RAISED: AtomicU64 = AtomicU64::new(u64::MAX);

#[repr(C, align(16))]
struct Table([[u64; 2]; 256]);

static mut IDT: Table = Table([[0; 2]; 256]);

unsafe extern "C" {
    static guest_stubs: u8;
}

/// Loads an interrupt table with all vectors.
pub fn init() {
    let idt = &raw mut IDT;
    for vector in 0..256u64 {
        let at = (&raw const guest_stubs).addr() as u64 + vector * 16;
        let low = at & 0xffff | 8 << 16 | 0x8e << 40 | (at >> 16 & 0xffff) << 48;
        // SAFETY: one vCPU, and interrupts are off.
        unsafe { (*idt).0[vector as usize] = [low, at >> 32] };
    }
    let pointer = [(size_of::<Table>() as u64 - 1) << 48, idt.addr() as u64];
    let at = (&raw const pointer).addr() + 6;
    // SAFETY: the pointer names a table that stays.
    unsafe { asm!("lidt [{}]", in(reg) at, options(readonly, nostack)) };
}

/// What the entry stubs push.
#[repr(C)]
struct Trap {
    registers: [u64; 9],
    vector: u64,
    error: u64,
    rip: u64,
}

#[unsafe(no_mangle)]
extern "C" fn guest_trapped(trap: &mut Trap) {
    match trap.vector {
        vector if [UPCALL, OTHER_UPCALL].map(u64::from).contains(&vector) => {
            LAST_UPCALL.store(vector, Ordering::Relaxed);
            UPCALLS.fetch_add(1, Ordering::Relaxed);
            crate::tasks::upcall();
        }
        32.. => {
            INTERRUPTS.fetch_add(1, Ordering::Relaxed);
            write_msr(0x80b, 0);
        }
        _ if EXPECTED.load(Ordering::Relaxed) => {
            RAISED.store(trap.vector, Ordering::Relaxed);
            trap.rip += 2;
        }
        vector => panic!("exception {vector}, error {:#x}, at {:#x}", trap.error, trap.rip),
    }
}

/// Runs what may raise an exception, of one instruction of two bytes; answers its vector.
pub fn expecting(act: impl FnOnce()) -> Option<u64> {
    RAISED.store(u64::MAX, Ordering::Relaxed);
    EXPECTED.store(true, Ordering::Relaxed);
    act();
    EXPECTED.store(false, Ordering::Relaxed);
    Some(RAISED.load(Ordering::Relaxed)).filter(|vector| *vector != u64::MAX)
}

/// WRMSR.
pub fn write_msr(msr: u32, value: u64) {
    // SAFETY: tests choose registers that do not take the ground away, or are ready for an exception.
    unsafe { asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack)) };
}

/// RDMSR.
pub fn read_msr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading changes nothing.
    unsafe {
        asm!("rdmsr", in("ecx") msr, inlateout("eax") 0u32 => low, inlateout("edx") 0u32 => high, options(nostack))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// IN of one, two or four bytes, by `width` modulo three.
pub fn input(port: u16, width: u32) -> u32 {
    let mut value = 0u32;
    // SAFETY: the machine has no device behind a port that could touch memory.
    unsafe {
        match width % 3 {
            0 => asm!("in al, dx", inout("eax") value, in("dx") port, options(nostack)),
            1 => asm!("in ax, dx", inout("eax") value, in("dx") port, options(nostack)),
            _ => asm!("in eax, dx", inout("eax") value, in("dx") port, options(nostack)),
        }
    }
    value
}

/// OUT of a byte.
pub fn output(port: u16, value: u8) {
    // SAFETY: as above.
    unsafe { asm!("out dx, al", in("al") value, in("dx") port, options(nostack)) };
}

/// Waits for an interrupt, with interrupts on meanwhile.
pub fn wait() {
    // SAFETY: the handlers keep all registers.
    unsafe { asm!("sti", "hlt", "cli") };
}

/// Lets interrupts in, once.
pub fn let_interrupts_in() {
    // SAFETY: as above.
    unsafe { asm!("sti", "nop", "cli") };
}

/// The time stamp counter.
pub fn time() -> u64 {
    // SAFETY: no effect on memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The NUL-terminated text at an address, empty at 0.
pub fn text_at(address: u64) -> &'static str {
    if address == 0 {
        return "";
    }
    // SAFETY: the builder put it there, and nobody writes to it.
    let text = unsafe { core::ffi::CStr::from_ptr(core::ptr::with_exposed_provenance(address as usize)) };
    text.to_str().unwrap_or_default()
}
