//! Why an exception ends a domain, in words: for the log and for `platform_op` DOMAIN_INFO.

use super::{Frame, crash::exception_name};
use hv_core::domain::Death;
use x86_64::structures::idt::PageFaultErrorCode as Fault;
use xen_abi::sched::SHUTDOWN_CRASH;

const PAGE_FAULT: u64 = 14;

/// Describes an exception of a domain. `fault_address` is CR2.
pub fn exception(frame: &Frame, fault_address: u64) -> Death {
    let (name, rip, error) = (exception_name(frame.vector), frame.rip, frame.error);
    if frame.vector != PAGE_FAULT {
        return Death::new(SHUTDOWN_CRASH, format_args!("{name} at rip {rip:#x}, error {error:#x}"));
    }
    let fault = Fault::from_bits_truncate(error);
    let access = match (fault.contains(Fault::INSTRUCTION_FETCH), fault.contains(Fault::CAUSED_BY_WRITE)) {
        (true, _) => "fetch from",
        (false, true) => "write to",
        (false, false) => "read of",
    };
    let why = if fault.contains(Fault::PROTECTION_VIOLATION) { "not allowed" } else { "not mapped" };
    let what = format_args!("{name}: {access} {fault_address:#x} ({why}) at rip {rip:#x}, error {error:#x}");
    Death::new(SHUTDOWN_CRASH, what)
}
