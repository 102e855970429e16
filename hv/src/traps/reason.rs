//! Why a domain ended, in words: for the log and for `platform_op` DOMAIN_INFO.

use super::{Frame, crash};
use core::fmt::Write;
use heapless::String;

/// Bytes of a reason, as in `xen_abi::platform::DomainInfo::why`.
pub const REASON_BYTES: usize = 128;
/// The text.
pub type Reason = String<REASON_BYTES>;

const PAGE_FAULT: u64 = 14;
/// Page fault error code (AMD APM volume 2, 8.4.2): the page was there, but not for this.
const ERROR_PRESENT: u64 = 1;
/// Page fault error code: write.
const ERROR_WRITE: u64 = 1 << 1;
/// Page fault error code: instruction fetch.
const ERROR_FETCH: u64 = 1 << 4;

/// Describes an exception of a domain. `fault_address` is CR2.
pub fn exception(frame: &Frame, fault_address: u64) -> Reason {
    let mut text = Reason::new();
    let (error, rip) = (frame.error, frame.rip);
    let name = crash::exception_name(frame.vector);
    // Text that does not fit is cut off.
    let _ = if frame.vector == PAGE_FAULT {
        let access = match (error & ERROR_FETCH != 0, error & ERROR_WRITE != 0) {
            (true, _) => "fetch from",
            (false, true) => "write to",
            (false, false) => "read of",
        };
        let why = if error & ERROR_PRESENT != 0 { "not allowed" } else { "not mapped" };
        write!(text, "{name}: {access} {fault_address:#x} ({why}) at rip {rip:#x}, error {error:#x}")
    } else {
        write!(text, "{name} at rip {rip:#x}, error {error:#x}")
    };
    text
}
