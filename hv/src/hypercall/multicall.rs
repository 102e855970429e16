//! `multicall` (Xen public `xen.h`, `multicall_entry`): several calls for one entry into the hypervisor.

use super::{Answer, Call, OK, Outcome, dispatch};
use crate::domain;
use crate::traps::Frame;
use hv_core::error::Errno;
use hv_core::ids::Gpa;
use xen_abi::xen::{HYPERVISOR_MULTICALL, MulticallEntry};

/// Calls served before others get a chance.
const SLICE: u32 = 16;

#[inline(never)]
pub fn serve(call: &Call) -> Outcome {
    let [list, count, ..] = call.args();
    let count = u32::try_from(count).map_err(|_| Errno::EINVAL)?;
    let first = domain::take_progress();
    let end = count.min(first.saturating_add(SLICE));
    for index in first..end {
        let offset = u64::from(index) * size_of::<MulticallEntry>() as u64;
        let at = Gpa(list.checked_add(offset).ok_or(Errno::EFAULT)?);
        let mut entry: MulticallEntry = call.read_in_out(at)?;
        let registers = registers(&entry);
        let inner = Call::new(call.caller, &registers);
        let outcome = if entry.op == HYPERVISOR_MULTICALL { Err(Errno::ENOSYS) } else { dispatch(&inner) };
        let (result, next) = match outcome {
            Ok(Answer::Done(value)) => (value, None),
            Err(error) => (error.to_result() as u64, None),
            Ok(Answer::Ended) => return Ok(Answer::Ended),
            // The entry goes on when the call is made again.
            Ok(Answer::Again) => return again(index),
            // The domain waits, and then goes on with the next entry.
            Ok(Answer::Waits) => (0, Some(index + 1)),
        };
        entry.result = result;
        call.write(at, &entry)?;
        if let Some(next) = next {
            return again(next);
        }
    }
    if end < count { again(end) } else { OK }
}

fn again(progress: u32) -> Outcome {
    domain::keep_progress(progress);
    Ok(Answer::Again)
}

/// An entry as a call of its own.
fn registers(entry: &MulticallEntry) -> Frame {
    let [rdi, rsi, rdx, r10, r8, _] = entry.args;
    Frame { rax: entry.op, rdi, rsi, rdx, r10, r8, ..Frame::start(0, 0, 0) }
}
