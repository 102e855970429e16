//! `console_io` (Xen public `xen.h`, `CONSOLEIO_*`): a domain's early output, before it has its console ring.

use super::{Call, Errno, Gpa, Outcome, system, user};
use xen_abi::xen as abi;

/// Bytes that one call writes at most; the caller goes on with the rest.
const CHUNK: usize = 256;

pub fn serve(call: &Call) -> Outcome {
    let [command, count, buffer, ..] = call.args;
    if command != abi::CONSOLEIO_WRITE {
        return Err(Errno::ENOSYS);
    }
    let mut bytes = [0; CHUNK];
    let count = usize::try_from(count).map_or(CHUNK, |count| count.min(CHUNK));
    let text = &mut bytes[..count];
    user::read_bytes(Gpa(buffer), text)?;
    for byte in text.iter_mut().filter(|byte| !matches!(**byte, b'\n' | b'\t' | 0x20..=0x7e)) {
        *byte = b'?';
    }
    let label = system().domains.label(call.caller).ok_or(Errno::ESRCH)?;
    crate::logging::domain_text(system().policy.name(label), core::str::from_utf8(text).unwrap_or_default());
    Ok(count as u64)
}
