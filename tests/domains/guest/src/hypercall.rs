//! VMMCALL: RAX = number, RDI RSI RDX R10 R8 = arguments, result in RAX.

use core::arch::asm;
use xen_abi::sched::{SCHEDOP_SHUTDOWN, SchedShutdown};
use xen_abi::xen::{CONSOLEIO_WRITE, HYPERVISOR_CONSOLE_IO, HYPERVISOR_SCHED_OP};

/// A hypercall, whatever it is.
pub fn call(number: u64, [rdi, rsi, rdx, r10, r8]: [u64; 5]) -> i64 {
    let result: i64;
    // SAFETY: what a hypercall writes lies in structures that callers own, or (in tests of nonsense) in a scratch area
    // that no Rust object lives in.
    unsafe {
        asm!("vmmcall", inlateout("rax") number => result, in("rdi") rdi, in("rsi") rsi, in("rdx") rdx, in("r10") r10,
            in("r8") r8, options(nostack));
    }
    result
}

/// A command with a structure.
pub fn with<T>(number: u64, command: u64, structure: &mut T) -> i64 {
    call(number, [command, (&raw mut *structure).addr() as u64, 0, 0, 0])
}

/// Writes to the hypervisor's log.
pub fn write(mut text: &[u8]) {
    while !text.is_empty() {
        let written =
            call(HYPERVISOR_CONSOLE_IO, [CONSOLEIO_WRITE, text.len() as u64, text.as_ptr().addr() as u64, 0, 0]);
        let Ok(written @ 1..) = usize::try_from(written) else { return };
        text = text.get(written..).unwrap_or_default();
    }
}

/// Ends the domain.
pub fn shutdown(reason: u32) -> ! {
    loop {
        with(HYPERVISOR_SCHED_OP, SCHEDOP_SHUTDOWN, &mut SchedShutdown { reason });
    }
}
