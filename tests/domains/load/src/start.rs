//! The first instruction, arguments, and the end.

use crate::linux::{self, Failed};
use core::ffi::{CStr, c_char};

core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xorl %ebp, %ebp",
    "movq %rsp, %rdi",
    "andq $-16, %rsp",
    "call load_start",
    options(att_syntax)
);

/// What Linux puts on a program's stack: the number of arguments, and where they are.
#[unsafe(no_mangle)]
extern "C" fn load_start(stack: *const usize) -> ! {
    let argument = |number: usize| {
        // SAFETY: Linux leaves the count there, so many addresses of text behind it, and an address of zero.
        let text: *const c_char = unsafe {
            if number >= *stack {
                return None;
            }
            core::ptr::with_exposed_provenance(*stack.add(1 + number))
        };
        // SAFETY: a text that ends with NUL and stays as it is.
        unsafe { CStr::from_ptr(text) }.to_str().ok()
    };
    let status = match crate::program::main(argument(1), argument(2)) {
        Ok(()) => 0,
        Err(Failed(what, error)) => {
            linux::say(&["BENCH-FAILED load: ", what, ", error "]);
            linux::say_number(error.unsigned_abs());
            1
        }
    };
    linux::exit(status)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    linux::say(&["BENCH-FAILED load: panicked\n"]);
    linux::exit(2)
}
