//! Giving a function to a domain, and taking it back.
//!
//! Assigning checks everything first, then acts in an order in which each step can be undone: reset, map BARs, open the
//! IOMMU, and only then let the function decode. Taking back goes the other way and stops DMA first.

use super::messages;
use super::{Function, Machine, Owner, SILENCED, STATES, State, find, machine, reset};
use crate::iommu;
use crate::system::system;
use core::fmt;
use core::sync::atomic::Ordering;
use hv_core::domain::Domain;
use hv_core::error::Errno;
use hv_core::ids::{DomId, Gfn, Label, Mfn};
use hv_core::pci::Bdf;
use hv_core::pci::bar::PageRange;
use hv_core::pci::config::{COMMAND_INTX_DISABLE, COMMAND_MEMORY};
use hv_core::pci::faults::Faults;
use hv_core::space::{Page, PageKind, Rights};
use xen_abi::native::MMIO_WINDOW;

/// Bytes of the MMIO window that each function of the machine has for itself.
const WINDOW_BYTES: u64 = 1 << 36;

/// Where a BAR of function number `index` appears in its owner's address space. `None` beyond the function's part of the
/// window.
pub(super) fn bar_address(function: &Function, index: usize, slot: usize) -> Option<u64> {
    let mut next = MMIO_WINDOW.checked_add((index as u64).checked_mul(WINDOW_BYTES)?)?;
    let end = next + WINDOW_BYTES;
    for (number, bar) in function.memory_bars() {
        let pages = bar.pages()?;
        let bytes = (pages.end - pages.first) * 4096;
        let start = next.checked_next_multiple_of(bytes.next_power_of_two().min(2 << 20))?;
        next = start.checked_add(bytes).filter(|next| *next <= end)?;
        if number == slot {
            return Some(start + bar.base % 4096);
        }
    }
    None
}

/// Frames for page tables that showing the registers of a label's devices takes at most.
pub fn tables_of(label: Label) -> u32 {
    let states = STATES.lock();
    let functions = machine().map_or(&[][..], |machine| &machine.functions);
    let its = functions.iter().enumerate().zip(states.iter()).filter(|(_, state)| state.is_for(label));
    let tables = its.map(|((index, function), _)| -> u64 {
        let shown = function.memory_bars().filter(|(slot, _)| bar_address(function, index, *slot).is_some());
        shown.map(|(_, bar)| bar.tables()).sum()
    });
    u32::try_from(tables.sum::<u64>()).unwrap_or(u32::MAX)
}

/// Gives a function to a domain that is being built.
///
/// # Errors
/// `ENODEV`: no such function, or it does not answer. `EPERM`: it is not for this label, it cannot be confined, or it
/// cannot be kept apart from a function that is not for this label. `EBUSY`: somebody has it. `EIO`: the IOMMU failed.
pub fn assign(bdf: Bdf, domain: &mut Domain) -> Result<(), Errno> {
    let (machine, index, function) = find(bdf).ok_or(Errno::ENODEV)?;
    let mut states = STATES.lock();
    check(machine, &states, index, function, domain.label())?;
    let state = states.get_mut(index).ok_or(Errno::ENODEV)?;
    if !reset::finish(machine, function, state) {
        log::warn!("{bdf}: does not answer after its reset");
        state.owner = Owner::Broken;
        return Err(Errno::ENODEV);
    }
    let mut mapped = 0;
    let opened = map_bars(function, index, domain, &mut mapped).and_then(|()| open(machine, function, state, domain));
    if let Err(error) = opened {
        quarantine(machine, function);
        unmap_bars(function, index, domain, mapped);
        return Err(error);
    }
    if !function.is_confined() {
        log::warn!("{bdf}: UNPROTECTED, no IOMMU confines it: it may not master the bus, so it can do no DMA");
    }
    state.owner = Owner::Domain(domain.id());
    state.faults_of_owner = Faults::NONE;
    // Bus mastering is for the domain to switch on, once it has brought the device to a state that it knows: one without
    // a reset may still have the rings of its last owner.
    machine.ecam.write(bdf, 4, COMMAND_MEMORY | COMMAND_INTX_DISABLE);
    Ok(())
}

fn check(machine: &Machine, states: &[State], index: usize, function: &Function, label: Label) -> Result<(), Errno> {
    let bdf = function.member.bdf;
    let refuse = |why: fmt::Arguments| {
        log::warn!("{bdf}: not assigned: {why}");
        Err(Errno::EPERM)
    };
    let state = states.get(index).filter(|state| state.is_for(label)).ok_or(Errno::EPERM)?;
    if state.owner != Owner::Quarantine {
        return Err(Errno::EBUSY);
    }
    if let Some(why) = function.unfit {
        return refuse(format_args!("{why}"));
    }
    if SILENCED.load(Ordering::SeqCst) {
        return refuse(format_args!("an IOMMU has failed"));
    }
    let confined = function.is_confined();
    if !(confined && iommu::remaps_interrupts() || system().policy.accepts_unprotected_dma()) {
        let why = if confined { "it could raise any interrupt" } else { "no IOMMU confines its DMA" };
        return refuse(format_args!("{why}"));
    }
    let mut all = machine.functions.iter().zip(states);
    let strange = |(other, its): &(&Function, &State)| {
        other.is_endpoint() && other.group == function.group && !its.is_for(label)
    };
    match all.find(strange) {
        Some((other, _)) => {
            let name = other.member.bdf;
            refuse(format_args!("cannot be kept apart from {name}, which has another owner or none"))
        }
        None => Ok(()),
    }
}

/// Lets the function through the IOMMU, and makes its MSI-X table reachable for the hypervisor.
fn open(machine: &Machine, function: &Function, state: &mut State, domain: &Domain) -> Result<(), Errno> {
    messages::prepare(machine, function, state)?;
    let Some((unit, root)) = function.unit.zip(domain.space.iommu_root()) else { return Ok(()) };
    iommu::attach(unit, function.member.bdf, domain.id(), root.base()).map_err(|why| {
        log::error!("{}: not assigned: {why}", function.member.bdf);
        Errno::EIO
    })
}

/// No decoding, no bus mastering, no interrupts.
fn quarantine(machine: &Machine, function: &Function) {
    machine.ecam.write(function.member.bdf, 4, COMMAND_INTX_DISABLE);
    messages::disable(machine, function);
}

/// Every page of registers that the function's owner may have, in order: where it appears, and what it shows.
fn for_each_page(
    function: &Function,
    index: usize,
    mut act: impl FnMut(Gfn, Mfn) -> Result<(), Errno>,
) -> Result<(), Errno> {
    for (slot, bar) in function.memory_bars() {
        let PageRange { first, end } = bar.pages().ok_or(Errno::EINVAL)?;
        let start = bar_address(function, index, slot).ok_or(Errno::E2BIG)? / 4096;
        for page in (first..end).filter(|page| !function.holes().iter().any(|hole| hole.contains(*page))) {
            act(Gfn(start + (page - first)), Mfn(page))?;
        }
    }
    Ok(())
}

/// Counts in `mapped` how far it came.
fn map_bars(function: &Function, index: usize, domain: &mut Domain, mapped: &mut u64) -> Result<(), Errno> {
    for_each_page(function, index, |gfn, mfn| {
        let page = Page { mfn, rights: Rights::ReadWrite, kind: PageKind::Device };
        domain.space.map(&system().env(), gfn, page)?;
        *mapped += 1;
        Ok(())
    })
}

/// Takes the first `mapped` pages away again.
fn unmap_bars(function: &Function, index: usize, domain: &mut Domain, mut mapped: u64) {
    // The same walk as for mapping: it gets at least as far.
    let _ = for_each_page(function, index, |gfn, _| {
        mapped = mapped.checked_sub(1).ok_or(Errno::ERANGE)?;
        if let Ok(unmapped) = domain.space.unmap(gfn, &system().machine) {
            let _no_frame_behind_it = unmapped.flush(&system().machine);
        }
        Ok(())
    });
}

/// Takes all functions of a dying domain back into quarantine. On return none of them can reach memory; interrupts of
/// the domain must have been released before (`irq::release`). Mappings of BARs go with the domain's address space.
pub fn release(domain: DomId) {
    let Some(machine) = machine() else { return };
    let mut states = STATES.lock();
    for (function, state) in machine.functions.iter().zip(states.iter_mut()) {
        if state.owner != Owner::Domain(domain) {
            continue;
        }
        let bdf = function.member.bdf;
        quarantine(machine, function);
        let blocked = match function.unit {
            Some(unit) if iommu::available() => iommu::detach(unit, bdf, domain),
            _ => Ok(()),
        };
        state.owner = match blocked {
            Ok(()) => Owner::Quarantine,
            Err(why) => {
                // `iommu` has silenced every device.
                log::error!("{bdf}: lost: {why}");
                Owner::Broken
            }
        };
        reset::restore(&machine.ecam, function);
        reset::start(machine, function, state);
    }
}

/// Functions that a domain has.
pub(super) fn owned_by(domain: DomId, states: &[State]) -> impl Iterator<Item = usize> {
    states.iter().enumerate().filter(move |(_, state)| state.owner == Owner::Domain(domain)).map(|(index, _)| index)
}
