//! Hypercalls with any arguments: all the unsafe code of this domain.

use core::arch::asm;
use runtime::Errno;
use runtime::errno::Result;
use xen_abi::platform::HYPERCALL;
use zerocopy::{FromBytes, IntoBytes};

/// A hypercall with any arguments.
pub fn hypercall(number: u64, arguments: [u64; 5]) -> i64 {
    let result: i64;
    // SAFETY: callers pass addresses of structures that they borrow exclusively, of memory set aside for it, or such as
    // must be refused. A hypercall changes these registers only.
    unsafe {
        asm!("syscall", inlateout("rax") number as i64 => result, inlateout("rdi") arguments[0] => _,
            inlateout("rsi") arguments[1] => _, inlateout("rdx") arguments[2] => _, inlateout("r10") arguments[3] => _,
            inlateout("r8") arguments[4] => _, lateout("r9") _, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A command of `platform_op` with its structure. Unlike the runtime's wrappers, outputs are seen on errors too, and
/// what was in them before is up to the caller.
pub fn platform<T: FromBytes + IntoBytes>(command: u64, structure: &mut T) -> Result<u64> {
    let address = core::ptr::from_mut(structure) as u64;
    at(command, address, size_of::<T>() as u64)
}

/// A command of `platform_op` with its structure at any address, and of any size.
pub fn at(command: u64, address: u64, bytes: u64) -> Result<u64> {
    Errno::check(hypercall(HYPERCALL, [command, address, bytes, 0, 0]))
}
