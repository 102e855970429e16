//! `console_io`: early output through the hypervisor.

use xen_abi::xen::{CONSOLEIO_WRITE, HYPERVISOR_CONSOLE_IO};

/// Writes text to the hypervisor's log, which prefixes the domain's name. For early and last words.
pub fn write(text: &[u8]) {
    // The hypervisor takes a bounded piece at a time.
    for piece in text.chunks(256) {
        // SAFETY: the hypervisor only reads the bytes.
        let _ = unsafe {
            super::call(HYPERVISOR_CONSOLE_IO, [CONSOLEIO_WRITE, piece.len() as u64, piece.as_ptr() as u64, 0, 0])
        };
    }
}
