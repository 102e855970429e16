//! `sched_op`: waiting, giving way, ending.

use xen_abi::native::SCHEDOP_SEND_AND_BLOCK;
use xen_abi::sched as abi;
use xen_abi::xen::HYPERVISOR_SCHED_OP;

use super::with;
use crate::errno::Result;
use crate::ids::Port;
use crate::time::Instant;

/// Why a domain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Its work is done.
    Done,
    /// It wants to be started again.
    Restart,
    /// It is broken.
    Crash,
}

/// Lets other domains run.
#[inline]
pub fn give_way() {
    // SAFETY: no memory is involved.
    let _ = unsafe { super::call_with_two(HYPERVISOR_SCHED_OP, [abi::SCHEDOP_YIELD, 0]) };
}

/// Waits until any unmasked port is pending.
#[inline]
pub fn block() {
    // SAFETY: no memory is involved.
    let _ = unsafe { super::call_with_two(HYPERVISOR_SCHED_OP, [abi::SCHEDOP_BLOCK, 0]) };
}

/// Sends an event and waits until any unmasked port is pending: a request and the wait for its answer.
#[inline]
pub fn send_and_block(port: Port) -> Result<()> {
    // SAFETY: no memory is involved.
    unsafe { super::call_with_two(HYPERVISOR_SCHED_OP, [SCHEDOP_SEND_AND_BLOCK, u64::from(port.0)]) }.map(drop)
}

/// Waits until one of the ports is pending or the time has come. May return early.
pub fn poll(ports: &[Port], deadline: Option<Instant>) {
    // A timeout of 0 means none; a deadline of 0 has passed.
    let timeout = deadline.map_or(0, |deadline| deadline.0.max(1));
    let mut structure =
        abi::SchedPoll { ports: ports.as_ptr() as u64, nr_ports: ports.len() as u32, timeout, ..Default::default() };
    // SAFETY: the hypervisor only reads the structure and the array.
    let _ = unsafe { with(HYPERVISOR_SCHED_OP, abi::SCHEDOP_POLL, &mut structure) };
}

/// Ends this domain.
pub fn shutdown(reason: Shutdown) -> ! {
    let reason = match reason {
        Shutdown::Done => abi::SHUTDOWN_POWEROFF,
        Shutdown::Restart => abi::SHUTDOWN_REBOOT,
        Shutdown::Crash => abi::SHUTDOWN_CRASH,
    };
    loop {
        let mut structure = abi::SchedShutdown { reason };
        // SAFETY: the hypervisor only reads the structure.
        let _ = unsafe { with(HYPERVISOR_SCHED_OP, abi::SCHEDOP_SHUTDOWN, &mut structure) };
        core::hint::spin_loop();
    }
}
