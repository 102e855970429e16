//! The instructions that Rust has no words for: the hypercall, port I/O, the time stamp counter, the first jump.
//!
//! On the host (unit tests, clippy) a hypercall answers `-ENOSYS` and the other instructions do nothing, so that all
//! modules above compile there.

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
        main = sym crate::start::start,
    )
}
