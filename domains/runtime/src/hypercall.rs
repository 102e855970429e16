//! Typed hypercalls: one module for each of the hypervisor's interfaces. `docs/hypercalls.md` has the register tables.
//!
//! These are thin: numbers in, numbers out, errors as [`Errno`]. What has an owner (a port, a mapping, a grant) is
//! better had from [`crate::event`] and [`crate::grant`].
//!
//! A wrapper is `unsafe` where it could change memory that Rust relies on; the others are safe, because the hypervisor
//! touches nothing of the domain but the structure that it is passed.

pub mod console_io;
pub mod event_channel;
pub mod grant_table;
pub mod memory;
pub mod physdev;
pub mod platform;
pub mod sched;
pub mod vcpu;
pub mod version;

use crate::arch;
use crate::errno::{Errno, Result};

/// Makes a hypercall of plain numbers.
///
/// # Safety
///
/// As for [`arch::hypercall`].
#[inline(always)]
unsafe fn call(number: u64, arguments: [u64; 5]) -> Result<u64> {
    // SAFETY: passed on to the caller.
    Errno::check(unsafe { arch::hypercall(number, arguments) })
}

/// [`call`] with two numbers.
///
/// # Safety
///
/// As for [`arch::hypercall`].
#[inline(always)]
unsafe fn call_with_two(number: u64, arguments: [u64; 2]) -> Result<u64> {
    // SAFETY: passed on to the caller.
    Errno::check(unsafe { arch::hypercall_with_two(number, arguments) })
}

/// Makes a hypercall `(command, structure)`, the usual form.
///
/// # Safety
///
/// What the command does beside reading and writing the structure must respect Rust's references, see
/// [`arch::hypercall`].
#[inline(always)]
unsafe fn with<T>(number: u64, command: u64, structure: &mut T) -> Result<u64> {
    // SAFETY: the structure is exclusively borrowed; the rest is the caller's promise.
    unsafe { call_with_two(number, [command, core::ptr::from_mut(structure) as u64]) }
}
