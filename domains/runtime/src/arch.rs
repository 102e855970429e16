//! The instructions that Rust has no words for: the hypercall, port I/O, the time stamp counter, the first jump.
//!
//! On the host (unit tests, clippy) a hypercall answers `-ENOSYS` and the other instructions do nothing, so that all
//! modules above compile there.

use core::ptr;

/// Enters the hypervisor: RAX = number, RDI RSI RDX R10 R8 = arguments, result in RAX; the argument registers, R9, RCX
/// and R11 are clobbered.
///
/// # Safety
///
/// What the hypervisor is asked to write (through an address among the arguments), to map or to unmap must be memory
/// that no Rust reference covers at that moment, except one that the caller holds exclusively for this purpose.
#[cfg(target_os = "none")]
#[inline(always)]
pub unsafe fn hypercall(number: u64, arguments: [u64; 5]) -> i64 {
    let result: i64;
    // SAFETY: SYSCALL changes the registers that are named here only; memory effects are the caller's promise, and the block is not
    // declared free of them, so the compiler reloads what it had cached.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as i64 => result,
            inlateout("rdi") arguments[0] => _,
            inlateout("rsi") arguments[1] => _,
            inlateout("rdx") arguments[2] => _,
            inlateout("r10") arguments[3] => _,
            inlateout("r8") arguments[4] => _,
            lateout("r9") _,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// [`hypercall`] with two arguments, as most have: the other argument registers are left as they are.
///
/// # Safety
///
/// As for [`hypercall`].
#[cfg(target_os = "none")]
#[inline(always)]
pub unsafe fn hypercall_with_two(number: u64, arguments: [u64; 2]) -> i64 {
    let result: i64;
    // SAFETY: as in `hypercall`.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as i64 => result,
            inlateout("rdi") arguments[0] => _,
            inlateout("rsi") arguments[1] => _,
            lateout("rdx") _,
            lateout("r10") _,
            lateout("r8") _,
            lateout("r9") _,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// As the other one.
///
/// # Safety
///
/// None needed.
#[cfg(not(target_os = "none"))]
pub unsafe fn hypercall_with_two(number: u64, _arguments: [u64; 2]) -> i64 {
    // SAFETY: none needed.
    unsafe { hypercall(number, [0; 5]) }
}

/// There is no hypervisor under a host process: `-ENOSYS`.
///
/// # Safety
///
/// None needed; the signature is that of the real one.
#[cfg(not(target_os = "none"))]
pub unsafe fn hypercall(_number: u64, _arguments: [u64; 5]) -> i64 {
    -38
}

/// Reads the time stamp counter.
pub fn read_tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC has no effect but its result, and the hypervisor leaves CR4.TSD clear.
    unsafe {
        // LFENCE keeps the read behind the loads before it (the version counter of the time page).
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// Up to this many bytes a copy is made of single moves, above by a string instruction, which is slow to start.
const SMALL: usize = 128;

/// Copies `bytes` bytes of memory that others may read or write meanwhile: each byte is read once and written once,
/// in words of 8 as far as they go.
///
/// # Safety
///
/// The source is readable and the destination writable, and they do not overlap. No Rust reference covers either of
/// them, except one that the caller holds for this purpose.
#[inline(always)] // the length is known nearly everywhere, and what is left then are the moves
pub unsafe fn copy_once(from: *const u8, to: *mut u8, bytes: usize) {
    let words = bytes / 8;
    // SAFETY: the caller's promise; all accesses lie in the first `bytes` bytes. They may be unaligned, which is all the
    // same to this machine's volatile accesses of integers.
    unsafe {
        if bytes > SMALL {
            copy_words(from, to, words);
        } else {
            // Four at a time: counting costs as much as moving.
            let by_four = words & !3;
            for word in (0..by_four).step_by(4) {
                copy_one::<u64>(from.add(8 * word), to.add(8 * word));
                copy_one::<u64>(from.add(8 * word + 8), to.add(8 * word + 8));
                copy_one::<u64>(from.add(8 * word + 16), to.add(8 * word + 16));
                copy_one::<u64>(from.add(8 * word + 24), to.add(8 * word + 24));
            }
            for word in by_four..words {
                copy_one::<u64>(from.add(8 * word), to.add(8 * word));
            }
        }
        let mut done = 8 * words;
        if bytes & 4 != 0 {
            copy_one::<u32>(from.add(done), to.add(done));
            done += 4;
        }
        for byte in done..bytes {
            copy_one::<u8>(from.add(byte), to.add(byte));
        }
    }
}

/// One volatile access on either side; the pointers need no alignment, so they are accessed as packed.
///
/// # Safety
///
/// As for [`copy_once`].
#[inline(always)]
unsafe fn copy_one<T: Copy>(from: *const u8, to: *mut u8) {
    #[repr(C, packed)]
    struct Unaligned<T>(T);
    // SAFETY: the caller's promise; a packed structure has alignment 1.
    unsafe { ptr::write_volatile(to.cast::<Unaligned<T>>(), ptr::read_volatile(from.cast::<Unaligned<T>>())) }
}

/// Copies words of 8 bytes.
///
/// # Safety
///
/// As for [`copy_once`].
#[inline]
unsafe fn copy_words(from: *const u8, to: *mut u8, words: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise; the direction flag is clear, as the ABI wants it.
    unsafe {
        core::arch::asm!(
            "rep movsq",
            inout("rcx") words => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for word in 0..words {
        // SAFETY: the caller's promise.
        unsafe { copy_one::<u64>(from.add(8 * word), to.add(8 * word)) }
    }
}

/// The first instruction of every native domain. RDI = start info, RSP = top of the stack (`xen_abi::native`).
#[cfg(target_os = "none")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text._start")]
extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "xor ebp, ebp", // ends the frame chain for debuggers
        "call {main}",  // pushes 8 bytes: the stack is aligned as the System V ABI wants it
        "ud2",
        "2: jmp 2b", // never reached: to this a debugger can put a domain that is to hang, all of whose code is shared
        main = sym crate::start::start,
    )
}
