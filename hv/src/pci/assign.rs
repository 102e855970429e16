//! Giving a function to a domain, and taking it back.
//!
//! Assigning checks everything first, then acts in an order in which each step can be undone: reset, map BARs, open the
//! IOMMU, and only then let the function decode. Taking back goes the other way and stops DMA first.

use super::{Bdf, Command, DomId, Faults, Label, Ordering, fmt, iommu, system};
use super::{Function, Owner, SILENCED, State, find, functions, messages, reset};
use hv_core::space::{Page, PageKind, Rights};
use hv_core::{domain::Domain, error::Errno, ids::Gfn, ids::Mfn};

/// Frames for page tables that showing the registers of a label's devices takes at most.
pub fn tables_of(label: Label) -> u32 {
    let its = functions().iter().filter(|function| function.is_for(label) && function.unfit.is_none());
    let tables: u64 = its.flat_map(Function::memory_bars).map(|(bar, _)| bar.tables()).sum();
    u32::try_from(tables).unwrap_or(u32::MAX)
}

/// Gives a function to a domain that is being built.
///
/// # Errors
/// `ENODEV`: no such function, or it does not answer. `EPERM`: it is not for this label, it cannot be confined, or it
/// cannot be kept apart from a function that is not for this label. `EBUSY`: somebody has it. `EIO`: the IOMMU failed.
pub fn assign(bdf: Bdf, domain: &mut Domain) -> Result<(), Errno> {
    let function = find(bdf).ok_or(Errno::ENODEV)?;
    let state = &mut *function.state.lock();
    check(function, state, domain.label())?;
    if !reset::finish(function, state) {
        log::warn!("{bdf}: does not answer after its reset");
        state.owner = Owner::Broken;
        return Err(Errno::ENODEV);
    }
    let mut mapped = 0;
    let opened = map_bars(function, domain, &mut mapped).and_then(|()| open(function, domain));
    if let Err(error) = opened {
        quarantine(function);
        unmap_bars(function, domain, mapped);
        return Err(error);
    }
    if !function.is_confined() {
        log::warn!("{bdf}: UNPROTECTED, no IOMMU confines it: it may not master the bus, so it can do no DMA");
    }
    state.owner = Owner::Domain(domain.id());
    state.faults_of_owner = Faults::NONE;
    // Bus mastering is for the domain to switch on, once it has brought the device to a state that it knows: one without
    // a reset may still have the rings of its last owner.
    function.config.command(Command::MEMORY_ENABLE | Command::INTERRUPT_DISABLE);
    Ok(())
}

fn check(function: &Function, state: &State, label: Label) -> Result<(), Errno> {
    let bdf = function.found.bdf;
    let refuse = |why: fmt::Arguments| {
        log::warn!("{bdf}: not assigned: {why}");
        Err(Errno::EPERM)
    };
    if !function.is_for(label) {
        return Err(Errno::EPERM);
    }
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
    let mut group = functions().iter().filter(|other| other.is_endpoint() && other.group == function.group);
    if let Some(Function { found, .. }) = group.find(|other| !other.is_for(label)) {
        return refuse(format_args!("cannot be kept apart from {}, which has another owner or none", found.bdf));
    }
    Ok(())
}

/// Lets the function through the IOMMU, and makes its MSI-X table reachable for the hypervisor.
fn open(function: &Function, domain: &Domain) -> Result<(), Errno> {
    messages::prepare(function);
    let Some((unit, root)) = function.unit.zip(domain.space.iommu_root()) else { return Ok(()) };
    iommu::set_context(unit, function.found.bdf, domain.id(), Some(root.base())).map_err(|why| {
        log::error!("{}: not assigned: {why}", function.found.bdf);
        Errno::EIO
    })
}

/// No decoding, no bus mastering, no interrupts.
fn quarantine(function: &Function) {
    function.config.command(Command::INTERRUPT_DISABLE);
    messages::disable(function);
}

/// Every page of registers that the function's owner may have: where it appears, and what it shows.
fn pages(function: &Function) -> impl Iterator<Item = (Gfn, Mfn)> {
    function.memory_bars().flat_map(|(bar, address)| {
        let shown = bar.pages().zip(address / 4096..);
        let open = shown.filter(|(page, _)| !function.holes().iter().any(|hole| hole.contains(page)));
        open.map(|(page, gfn)| (Gfn(gfn), Mfn(page)))
    })
}

/// Counts in `mapped` how far it came.
fn map_bars(function: &Function, domain: &mut Domain, mapped: &mut usize) -> Result<(), Errno> {
    for (gfn, mfn) in pages(function) {
        let page = Page { mfn, rights: Rights::ReadWrite, kind: PageKind::Device };
        domain.space.map(&system().env(), gfn, page)?;
        *mapped += 1;
    }
    Ok(())
}

/// Takes the first `mapped` pages away again.
fn unmap_bars(function: &Function, domain: &mut Domain, mapped: usize) {
    for (gfn, _) in pages(function).take(mapped) {
        if let Ok(unmapped) = domain.space.unmap(gfn, &system().machine) {
            let _no_frame_behind_it = unmapped.flush(&system().machine);
        }
    }
}

/// Takes all functions of a dying domain back into quarantine. On return none of them can reach memory; interrupts of
/// the domain must have been released before (`irq::release`). Mappings of BARs go with the domain's address space.
pub fn release(domain: DomId) {
    for function in functions() {
        let state = &mut *function.state.lock();
        if state.owner != Owner::Domain(domain) {
            continue;
        }
        let bdf = function.found.bdf;
        quarantine(function);
        let blocked = match function.unit {
            Some(unit) if iommu::available() => iommu::set_context(unit, bdf, domain, None),
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
        reset::restore(function);
        reset::start(function, state);
    }
}
