//! `multicall` (Xen public `xen.h`, `multicall_entry`): several calls for one entry into the hypervisor.

use super::{Answer, Call, Errno, Gpa, OK, Outcome, dispatch, domain};
use crate::traps::Frame;
use xen_abi::xen::{HYPERVISOR_MULTICALL, MulticallEntry};

/// Calls served before others get a chance.
const SLICE: u32 = 16;

#[inline(never)]
pub fn serve(call: &Call) -> Outcome {
    let [list, count, ..] = call.args();
    let count = u32::try_from(count).map_err(|_| Errno::EINVAL)?;
    let first = domain::swap_progress(0);
    let end = count.min(first.saturating_add(SLICE));
    for index in first..end {
        let at = super::element::<MulticallEntry>(Gpa(list), index)?;
        let mut entry: MulticallEntry = call.read_in_out(at)?;
        let [rdi, rsi, rdx, r10, r8, _] = entry.args;
        let registers = &Frame { rax: entry.op, rdi, rsi, rdx, r10, r8, ..Frame::start(0, 0, 0) };
        let inner = Call { caller: call.caller, registers };
        let outcome = if entry.op == HYPERVISOR_MULTICALL { Err(Errno::ENOSYS) } else { dispatch(&inner) };
        entry.result = match outcome {
            Ok(Answer::Done(value)) => value,
            Err(error) => error.to_result() as u64,
            Ok(Answer::Ended) => return outcome,
            // The entry goes on when the call is made again.
            Ok(Answer::Again) => return again(index),
            Ok(Answer::Waits) => 0,
        };
        call.write(at, &entry)?;
        if outcome == Ok(Answer::Waits) {
            // The domain waits, and then goes on with the next entry.
            return again(index + 1);
        }
    }
    if end < count { again(end) } else { OK }
}

fn again(progress: u32) -> Outcome {
    domain::swap_progress(progress);
    Ok(Answer::Again)
}
