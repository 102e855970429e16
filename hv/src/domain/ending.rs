//! The end of domains: at once for the domain, in bounded slices for what it had.

use super::{DomId, Ordering, current, raise_for_flag, schedule, system, vcpus};
use crate::{irq, logging, mm, pci};
use heapless::Deque;
use hv_core::authority::table::{FLAG_CONTROL, FLAG_LOG};
use hv_core::domain::{Death, begin_destroy, destroy_slice};
use hv_core::{error::Errno, ids::SLOTS, machine::MachineMemory, space::Progress};
use log::Level;
use spin::Mutex;
use xen_abi::{sched::SHUTDOWN_POWEROFF, xen::VIRQ_DOM_EXC};

/// Domains whose resources are being returned.
static DYING: Mutex<Deque<DomId, SLOTS>> = Mutex::new(Deque::new());

/// Ends the current domain; it does not come back from its trap.
pub fn end_current(death: Death) {
    // It runs, so it is there and not dying.
    let _ = end(current(), death);
}

/// Ends a domain in any state: it does not run any more; [`slice()`] returns what it had.
///
/// # Errors
/// `ESRCH`: no such domain. `EBUSY`: it is dying already.
pub fn end(domain: DomId, death: Death) -> Result<(), Errno> {
    let system = system();
    let label = system.domains.label(domain).ok_or(Errno::ESRCH)?;
    begin_destroy(&system.env(), domain, death.clone())?;
    let name = system.policy.name(label);
    let (level, how) = if death.reason == SHUTDOWN_POWEROFF { (Level::Info, "ended") } else { (Level::Warn, "died") };
    log::log!(level, "domain {domain} ({name}) {how}: {}", death.why);
    let (slot, root) = system.domains.with(domain, |domain| (domain.slot(), domain.space.cpu_root()))?;
    schedule::dismiss(slot);
    schedule::forget_deadlines(slot);
    if system.policy.has_flag(label, FLAG_LOG) {
        logging::OWN_SERIAL.store(true, Ordering::Relaxed);
    }
    // What the teardown walks must be the domain's own.
    system.machine.write(root.at(mm::UPPER_HALF as u64), &[0; mm::UPPER_HALF]);
    vcpus::clear(slot);
    if domain == DomId::POLICY {
        log::error!("the policy domain has ended: what runs goes on, nothing can be started or mended any more");
    }
    // There are as many places as slots.
    let _ = DYING.lock().push_back(domain);
    schedule::ERRANDS.fetch_or(schedule::CHORES, Ordering::Relaxed);
    raise_for_flag(FLAG_CONTROL, VIRQ_DOM_EXC);
    Ok(())
}

/// Returns a bounded part of what one dying domain had. Answers whether there is more to do.
pub fn slice() -> bool {
    let Some(domain) = DYING.lock().pop_front() else { return false };
    let release_devices = |domain| {
        irq::release(domain);
        pci::release(domain);
    };
    if destroy_slice(&system().env(), domain, release_devices) == Ok(Progress::More) {
        // It was in the queue just now.
        let _ = DYING.lock().push_back(domain);
    } else {
        log::debug!("domain {domain} is gone; {} frames free", system().frames.free());
        raise_for_flag(FLAG_CONTROL, VIRQ_DOM_EXC);
    }
    !DYING.lock().is_empty()
}
