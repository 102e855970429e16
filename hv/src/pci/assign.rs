//! Giving a function to a domain, and taking it back.
//!
//! Assigning checks everything first, then acts in an order in which each step can be undone: reset, map BARs, open the
//! IOMMU, and only then let the function decode. Taking back goes the other way and stops DMA first.

use super::messages;
use super::{Function, Machine, Messages, Owner, Role, STATES, State, find, machine, reset};
use crate::iommu;
use hv_core::error::Errno;
use hv_core::ids::{DomId, Gfn, Hpa, Label, Mfn};
use hv_core::pci::Bdf;
use hv_core::pci::bar::{PageRange, mappable, share_a_page};
use hv_core::pci::config::{COMMAND_INTX_DISABLE, COMMAND_MEMORY};
use xen_abi::native::MMIO_WINDOW;

/// The domain's address space, as far as devices are concerned.
pub trait DeviceSpace {
    /// Maps a page of device registers: uncached, read-write.
    fn map(&mut self, gfn: Gfn, mfn: Mfn) -> Result<(), Errno>;
    /// Takes it away again, with what must be flushed flushed.
    fn unmap(&mut self, gfn: Gfn);
}

/// Whom a device is for.
#[derive(Clone, Copy, Debug)]
pub struct Recipient {
    /// The domain.
    pub domain: DomId,
    /// Its label.
    pub label: Label,
    /// Root of its IOMMU table.
    pub io_root: Option<Hpa>,
    /// The policy accepts DMA that nothing confines.
    pub accepts_unprotected: bool,
}

/// Bytes of the MMIO window that each function of the machine has for itself.
const WINDOW_BYTES: u64 = 1 << 36;

/// Where each BAR of function number `index` appears in its owner's address space: `(gpa, bar)`. `None` beyond the
/// function's part of the window.
pub(super) fn bar_address(function: &Function, index: usize, slot: usize) -> Option<u64> {
    let mut next = MMIO_WINDOW.checked_add((index as u64).checked_mul(WINDOW_BYTES)?)?;
    let end = next + WINDOW_BYTES;
    for (number, bar) in function.memory_bars() {
        let pages = bar.pages()?;
        let bytes = (pages.end - pages.first) * 4096;
        let start = next.checked_next_multiple_of(bytes.next_power_of_two().min(2 << 20))?;
        next = start.checked_add(bytes).filter(|next| *next <= end)?;
        if number == slot {
            return Some(start + bar.offset_in_page());
        }
    }
    None
}

/// Gives a function to a domain that is being built.
///
/// # Errors
/// `ENODEV`: no such function, or it does not answer. `EPERM`: it is not for this label, it cannot be confined, or it
/// cannot be kept apart from a function that is not for this label. `EBUSY`: somebody has it. `EIO`: the IOMMU failed.
pub fn assign(bdf: Bdf, to: &Recipient, space: &mut dyn DeviceSpace) -> Result<(), Errno> {
    let (machine, index) = find(bdf).ok_or(Errno::ENODEV)?;
    let function = machine.functions.get(index).ok_or(Errno::ENODEV)?;
    let mut states = STATES.lock();
    check(machine, &states, index, function, to)?;
    let state = states.get_mut(index).ok_or(Errno::ENODEV)?;
    if !reset::finish(function, state) {
        log::warn!("{bdf}: does not answer after its reset");
        state.owner = Owner::Broken;
        return Err(Errno::ENODEV);
    }
    map_bars(function, index, space)?;
    if let Err(error) = open(machine, function, state, to) {
        unmap_bars(function, index, u64::MAX, space);
        return Err(error);
    }
    state.owner = Owner::Domain(to.domain);
    state.faults_of_owner = 0;
    // Bus mastering is for the domain to switch on, once it has brought the device to a state that it knows: one without
    // a reset may still have the rings of its last owner.
    machine.ecam.write(bdf, 4, COMMAND_MEMORY | COMMAND_INTX_DISABLE);
    Ok(())
}

fn check(machine: &Machine, states: &[State], index: usize, function: &Function, to: &Recipient) -> Result<(), Errno> {
    let bdf = function.identity.bdf;
    let refuse = |why: &str| {
        log::warn!("{bdf}: not assigned: {why}");
        Err(Errno::EPERM)
    };
    let is_for = |state: &State| state.driver.is_some_and(|(label, _)| label == to.label);
    let state = states.get(index).ok_or(Errno::ENODEV)?;
    if function.role != Role::Endpoint || !is_for(state) {
        return Err(Errno::EPERM);
    }
    if state.owner != Owner::Quarantine {
        return Err(Errno::EBUSY);
    }
    if function.aliased {
        return refuse("a bridge to conventional PCI speaks for it, so the IOMMU cannot tell it apart");
    }
    if function.reserved_memory {
        return refuse("firmware reserves memory for its DMA");
    }
    let confined = iommu::available() && function.unit.is_some() && to.io_root.is_some();
    if !(confined && iommu::remaps_interrupts() || to.accepts_unprotected) {
        return refuse(if confined { "it could raise any interrupt" } else { "no IOMMU confines its DMA" });
    }
    for (other, its) in machine.functions.iter().zip(states).filter(|(other, _)| other.identity.bdf != bdf) {
        let giveable = other.role == Role::Endpoint;
        if giveable && other.group == function.group && !is_for(its) {
            let name = other.identity.bdf;
            log::warn!("{bdf}: not assigned: cannot be kept apart from {name}, which has another owner or none");
            return Err(Errno::EPERM);
        }
        if !is_for(its) && share_a_page(&function.bars, &other.bars) {
            log::warn!("{bdf}: not assigned: shares a page of registers with {}", other.identity.bdf);
            return Err(Errno::EPERM);
        }
    }
    Ok(())
}

/// Lets the function through the IOMMU, and makes its MSI-X table reachable for the hypervisor.
fn open(machine: &Machine, function: &Function, state: &mut State, to: &Recipient) -> Result<(), Errno> {
    messages::prepare(machine, function, state)?;
    match (function.unit, to.io_root) {
        (Some(unit), Some(root)) if iommu::available() => iommu::attach(unit, function.identity.bdf, to.domain, root)
            .map_err(|error| {
                log::error!("{}: not assigned: {error}", function.identity.bdf);
                Errno::EIO
            }),
        _ => Ok(()),
    }
}

/// Every page of registers that the function's owner may have, in order: where it appears, and what it shows.
fn for_each_page(
    function: &Function,
    index: usize,
    mut act: impl FnMut(Gfn, Mfn) -> Result<(), Errno>,
) -> Result<(), Errno> {
    const NOWHERE: PageRange = PageRange { first: 0, end: 0 };
    let holes = match &function.messages {
        Messages::MsiX(msix) => {
            [msix.table, msix.pending].map(|inside| inside.pages(&function.bars).unwrap_or(NOWHERE))
        }
        _ => [NOWHERE; 2],
    };
    for (slot, bar) in function.memory_bars() {
        let whole = bar.pages().ok_or(Errno::EINVAL)?;
        let start = bar_address(function, index, slot).ok_or(Errno::E2BIG)? / 4096;
        for page in mappable(whole, &holes).flat_map(|run| run.first..run.end) {
            act(Gfn(start + (page - whole.first)), Mfn(page))?;
        }
    }
    Ok(())
}

fn map_bars(function: &Function, index: usize, space: &mut dyn DeviceSpace) -> Result<(), Errno> {
    let mut done = 0;
    let mapped = for_each_page(function, index, |gfn, mfn| {
        space.map(gfn, mfn)?;
        done += 1;
        Ok(())
    });
    if mapped.is_err() {
        unmap_bars(function, index, done, space);
    }
    mapped
}

/// Takes the first `pages` pages away again.
fn unmap_bars(function: &Function, index: usize, pages: u64, space: &mut dyn DeviceSpace) {
    let mut left = pages;
    // The same walk as for mapping: it gets at least as far.
    let _ = for_each_page(function, index, |gfn, _| {
        left = left.checked_sub(1).ok_or(Errno::ERANGE)?;
        space.unmap(gfn);
        Ok(())
    });
}

/// Takes all functions of a dying domain back into quarantine. On return none of them can reach memory; interrupts of
/// the domain must have been released before (`irq::release`). Mappings of BARs go with the domain's address space.
pub fn release(domain: DomId) {
    let Some(machine) = machine() else { return };
    let mut states = STATES.lock();
    let mut any = false;
    for (function, state) in machine.functions.iter().zip(states.iter_mut()) {
        if state.owner != Owner::Domain(domain) {
            continue;
        }
        any = true;
        let bdf = function.identity.bdf;
        machine.ecam.write(bdf, 4, COMMAND_INTX_DISABLE);
        messages::disable(machine, function);
        let blocked = match function.unit {
            Some(unit) if iommu::available() => iommu::detach(unit, bdf, domain),
            _ => Ok(()),
        };
        state.owner = match blocked {
            Ok(()) => Owner::Quarantine,
            Err(error) => {
                // `iommu` has silenced every device behind it.
                log::error!("{bdf}: lost: {error}");
                Owner::Broken
            }
        };
        reset::restore(&machine.ecam, function);
        reset::start(function, state);
    }
    if any && iommu::available() {
        iommu::flush_domain(domain);
    }
}

/// Functions that a domain has.
pub(super) fn owned_by(domain: DomId, states: &[State]) -> impl Iterator<Item = usize> {
    states.iter().enumerate().filter(move |(_, state)| state.owner == Owner::Domain(domain)).map(|(index, _)| index)
}
