//! Domains on this machine: `hv_core::domain` joined with CPUs, registers, timers and devices.

mod ending;
mod native;
mod policy;
mod schedule;
mod vcpus;

pub use ending::{end, end_current};
pub use native::{create, pause, rights, set_entry, unpause, with_building};
pub use policy::start;
pub use schedule::{
    CHORES, ERRANDS, REARM, current_waits, finish_call, hand_over, let_interrupts_in, reschedule, restart, resume,
};
pub use schedule::{set_deadline, take_restart, timer, usage, vcpu_waits, waits, wake, wake_at_last, yield_now};
pub use vcpus::HYPERCALLS;

use crate::{cpu::percpu, system::system};
use core::sync::atomic::Ordering;
use hv_core::ids::{DomId, Slot, VcpuId};
use hv_core::{events, sched::VcpuKey};

/// The domain whose trap is being handled; [`percpu::NOBODY`] if it has ended meanwhile.
pub fn current() -> DomId {
    percpu::with(|cpu| cpu.current)
}

/// The vCPU whose trap is being handled.
pub fn current_vcpu() -> VcpuId {
    next_key().map_or(VcpuId(0), VcpuKey::vcpu)
}

/// The vCPU that the scheduler has put on this CPU.
pub fn next_key() -> Option<VcpuKey> {
    percpu::with(|cpu| cpu.queue.current())
}

/// A domain has made a hypercall. (SYSCALL's entry counts for itself.)
pub fn count_hypercall(slot: Slot) {
    vcpus::place(slot).hypercalls.fetch_add(1, Ordering::Relaxed);
}

/// Remembers how far the current domain's multicall has come; answers what was remembered.
pub fn swap_progress(progress: u32) -> u32 {
    vcpus::place(current().slot()).progress.swap(progress, Ordering::Relaxed)
}

/// Raises a virtual interrupt for the domain whose label has a flag.
fn raise_for_flag(flag: u32, virq: u32) {
    let system = system();
    let domain = system.policy.find_flag(flag).and_then(|label| system.domains.of_label(label));
    wake(domain.and_then(|domain| events::raise_virq(&system.env(), domain, virq, VcpuId(0))));
}

/// Whether a domain id has been used. (Ids are given out in order of generation, so none is forgotten.)
pub fn existed(id: DomId) -> bool {
    id.0 < DomId::FIRST_RESERVED && vcpus::domain(id.slot()).0 >= id.0 && vcpus::root(id.slot()).0 != 0
}
