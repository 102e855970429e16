//! `multicall` (Xen public `xen.h`, `multicall_entry`): several calls for one entry into the hypervisor.

use super::{Call, Errno, Gpa, OK, Outcome, SERVERS, domain, user};
use xen_abi::xen::{HYPERVISOR_MULTICALL, MulticallEntry};

/// Calls served before others get a chance.
const SLICE: u32 = 16;

pub fn serve(call: &Call) -> Outcome {
    let [list, count, ..] = call.args;
    let count = u32::try_from(count).map_err(|_| Errno::EINVAL)?;
    let first = domain::swap_progress(0);
    let end = count.min(first.saturating_add(SLICE));
    for index in first..end {
        let at =
            list.checked_add(u64::from(index) * size_of::<MulticallEntry>() as u64).map(Gpa).ok_or(Errno::EFAULT)?;
        let mut entry: MulticallEntry = call.read_in_out(at)?;
        let [rdi, rsi, rdx, r10, r8, _] = entry.args;
        let server = SERVERS.get(entry.op as usize).filter(|_| entry.op != HYPERVISOR_MULTICALL);
        entry.result = server.map_or(Errno::ENOSYS.to_result() as u64, |server| server(rdi, rsi, rdx, r10, r8));
        if domain::take_restart().is_some() {
            // The entry goes on when the call is made again.
            return again(call, index);
        }
        user::write(at, &entry)?;
        if domain::waits() {
            // The domain waits, and then goes on with the next entry.
            return again(call, index + 1);
        }
    }
    if end < count { again(call, end) } else { OK }
}

fn again(call: &Call, progress: u32) -> Outcome {
    domain::swap_progress(progress);
    domain::restart(call.number, call.args);
    OK
}
