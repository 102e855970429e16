//! Device interrupts: vectors, what is behind each, and how a domain gets it as an event channel.
//!
//! `PHYSDEVOP_map_pirq` gives a domain a *pirq* for a message of its own device or for a line that the policy grants;
//! `EVTCHNOP_bind_pirq` ties it to a port, and only then is the source unmasked. Authority is looked up here, in terms of
//! the device or the line, never in terms of what the domain calls them.
//!
//! **Storms.** A source may fire once until its domain comes back for more (`SCHEDOP_block`, `SCHEDOP_poll`, or
//! `PHYSDEVOP_eoi`); firing again before that masks it until then. So a device, or a domain that does not tend it, costs
//! the machine two interrupts each time that the domain itself runs. A message that waits in an MSI-X table is sent when it
//! is opened; an edge on a masked line is lost, so the domain gets one event too many instead. Level-triggered lines are
//! masked at once and wait for `PHYSDEVOP_eoi`.
//!
//! Lock order: [`IRQS`], then `pci`'s, then the IOMMU's.

mod ioapic;

use crate::{acpi::Facts, domain::ERRANDS, domain::REARM, iommu, iommu::InterruptEntry, pci, system::system};
use core::sync::atomic::Ordering;
use heapless::Vec;
use hv_core::ids::{DomId, Label, Pirq};
use hv_core::iommu::vtd::{Route, Trigger, plain_message, remappable_message};
use hv_core::{error::Errno, events::PIRQS_MAX, pci::Bdf};
use ioapic::Lines;
use spin::{Mutex, MutexGuard};
use xen_abi::physdev::{
    MAP_PIRQ_TYPE_GSI, MAP_PIRQ_TYPE_MSI, MAP_PIRQ_TYPE_MSI_SEG, PhysdevMapPirq, XENIRQSTAT_NEEDS_EOI,
};

/// The IOMMU's fault interrupt.
pub const FAULT_VECTOR: u8 = 0x30;
/// First vector for devices.
pub const FIRST_VECTOR: u8 = 0x31;
/// One past the last vector for devices; the timer's and others are from there on.
pub const END_VECTOR: u8 = crate::apic::TIMER_VECTOR;
const VECTORS: usize = (END_VECTOR - FIRST_VECTOR) as usize;
/// Messages get pirqs from here up; below, a line's pirq is its number.
const FIRST_MESSAGE_PIRQ: u32 = 24;

/// Where an interrupt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Message { bdf: Bdf, entry: u16 },
    Line { line: u32, trigger: Trigger },
}

/// Whether a source may fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Unbound, or waiting for its domain.
    Masked,
    /// May fire.
    Open,
    /// Fired since its domain came back last; may fire once more, and is masked then.
    Fired,
}

/// A vector in use.
struct Irq {
    domain: DomId,
    pirq: Pirq,
    source: Source,
    entry: Option<InterruptEntry>,
    bound: bool,
    gate: Gate,
}

struct Irqs {
    by_vector: [Option<Irq>; VECTORS],
    /// Vectors whose gate is not open although they are bound: what [`rearm`] has to look at. (If any: [`REARM`].)
    waiting: [u64; VECTORS.div_ceil(64)],
    lines: Lines,
    cpu: u8,
}

static IRQS: Mutex<Irqs> =
    Mutex::new(Irqs { by_vector: [const { None }; VECTORS], waiting: [0; _], lines: Lines::NONE, cpu: 0 });

/// Masks all lines and takes the IOMMU's fault interrupt. After `iommu::init`; `cpu` is the APIC id of the CPU that
/// device interrupts go to.
pub fn init(facts: &Facts, cpu: u32) {
    let mut irqs = IRQS.lock();
    irqs.lines = Lines::new(facts);
    // Interrupt messages without extended destinations reach APIC ids below 255; the boot CPU's is one.
    irqs.cpu = cpu as u8;
    iommu::enable_fault_interrupt(FAULT_VECTOR, irqs.cpu);
}

/// A device's interrupt has arrived; the local APIC is told by the caller, afterwards. Answers whom to raise it for
/// (`events::raise_pirq`).
#[must_use]
#[inline(always)] // in the way of each interrupt
pub fn handle(vector: u8) -> Option<(DomId, Pirq)> {
    let index = usize::from(vector.checked_sub(FIRST_VECTOR)?);
    let mut irqs = IRQS.lock();
    let irq = irqs.by_vector.get_mut(index)?.as_mut()?;
    if irq.gate != Gate::Open || !irq.bound || irq.is_level() {
        return mask(irqs, index);
    }
    irq.gate = Gate::Fired;
    let whom = (irq.domain, irq.pirq);
    irqs.wait(index);
    Some(whom)
}

/// An interrupt that must not come again until its domain comes back.
#[inline(never)]
fn mask(mut irqs: MutexGuard<'_, Irqs>, index: usize) -> Option<(DomId, Pirq)> {
    let Irqs { by_vector, lines, .. } = &mut *irqs;
    let irq = by_vector.get_mut(index)?.as_mut()?;
    irq.set_gate(Gate::Masked, lines);
    let whom = irq.bound.then_some((irq.domain, irq.pirq));
    if irq.bound && !irq.is_level() {
        irqs.wait(index);
    }
    whom
}

/// The domain has come back for more (it blocks or polls): sources that waited for that may fire again. Tells those
/// that may have lost an interrupt meanwhile: bit `n` is pirq `n`.
pub fn rearm(domain: DomId) -> u64 {
    const { assert!(PIRQS_MAX == 64) }
    let mut lost = 0;
    let mut irqs = IRQS.lock();
    let Irqs { by_vector, waiting, lines, .. } = &mut *irqs;
    for (word, group) in waiting.iter_mut().zip(by_vector.chunks_mut(64)) {
        let mut bits = *word;
        while bits != 0 {
            let bit = bits.trailing_zeros();
            bits &= bits - 1;
            let irq = group.get_mut(bit as usize).and_then(Option::as_mut);
            if let Some(irq) = irq.filter(|irq| irq.domain == domain) {
                *word &= !(1 << bit);
                if irq.bound && irq.open(lines) {
                    lost |= 1 << irq.pirq.0;
                }
            }
        }
    }
    if irqs.waiting.iter().all(|word| *word == 0) {
        ERRANDS.fetch_and(!REARM, Ordering::Relaxed);
    }
    lost
}

impl Irq {
    fn is_level(&self) -> bool {
        matches!(self.source, Source::Line { trigger: Trigger::Level, .. })
    }

    /// Masks or opens the source itself.
    fn set_gate(&mut self, gate: Gate, lines: &Lines) {
        self.gate = gate;
        match self.source {
            Source::Message { bdf, entry } => {
                // The device is the domain's for as long as the vector is: `release` goes before `pci::release`.
                let _ = pci::set_message(self.domain, bdf, entry, None, gate);
            }
            Source::Line { line, .. } => lines.mask(line, gate),
        }
    }

    /// Lets the source fire again; answers whether an interrupt may have been lost meanwhile.
    fn open(&mut self, lines: &Lines) -> bool {
        if self.gate != Gate::Masked {
            self.gate = Gate::Open;
            return false;
        }
        self.set_gate(Gate::Open, lines);
        match self.source {
            Source::Line { trigger, .. } => trigger == Trigger::Edge,
            Source::Message { bdf, .. } => !pci::keeps_masked_messages(bdf),
        }
    }
}

/// `PHYSDEVOP_map_pirq` for `domain` itself.
///
/// # Errors
/// `EPERM`: not its device, or not a line that the policy grants it. `EINVAL`: no such vector, line or kind. `EEXIST`:
/// the pirq is in use. `EBUSY`: the vector or line is mapped, by whomever. `ENOSPC`: no vector or pirq left. `EIO`.
pub fn map(domain: DomId, label: Label, request: &PhysdevMapPirq) -> Result<Pirq, Errno> {
    let source = match request.kind {
        MAP_PIRQ_TYPE_MSI | MAP_PIRQ_TYPE_MSI_SEG => {
            let (bus, devfn) = (u8::try_from(request.bus), u8::try_from(request.devfn));
            // Another segment, or a number out of range, is no device of this machine.
            let (Ok(bus), Ok(devfn)) = (bus, devfn) else { return Err(Errno::EPERM) };
            let bdf = Bdf(u16::from_be_bytes([bus, devfn]));
            let entry = u16::try_from(request.entry_nr).map_err(|_| Errno::EINVAL)?;
            if entry >= pci::messages_of(domain, bdf)? {
                return Err(Errno::EINVAL);
            }
            Source::Message { bdf, entry }
        }
        MAP_PIRQ_TYPE_GSI => {
            let line = u32::try_from(request.index).map_err(|_| Errno::EINVAL)?;
            if !system().policy.may_use_line(label, line) {
                return Err(Errno::EPERM);
            }
            Source::Line { line, trigger: ioapic::signalling(line).0 }
        }
        _ => return Err(Errno::EINVAL),
    };
    IRQS.lock().map(domain, source, u32::try_from(request.pirq).ok())
}

impl Irqs {
    /// Notes that a vector is to be looked at when its domain comes back.
    #[inline(always)]
    fn wait(&mut self, index: usize) {
        self.waiting[index / 64] |= 1 << (index % 64);
        ERRANDS.fetch_or(REARM, Ordering::Relaxed);
    }

    fn find(&mut self, domain: DomId, pirq: Pirq) -> Result<(usize, &mut Irq, &Lines), Errno> {
        let Self { by_vector, lines, .. } = self;
        let irqs = by_vector.iter_mut().enumerate().filter_map(|(index, irq)| Some((index, irq.as_mut()?)));
        let mut own = irqs.filter(|(_, irq)| irq.domain == domain && irq.pirq == pirq);
        own.next().map(|(index, irq)| (index, irq, &*lines)).ok_or(Errno::EINVAL)
    }

    /// A pirq that the domain does not use yet: the one it wants, else `preferred` and up.
    fn choose_pirq(&mut self, domain: DomId, wanted: Option<u32>, preferred: u32) -> Result<Pirq, Errno> {
        match wanted {
            Some(pirq) if pirq as usize >= PIRQS_MAX => Err(Errno::EINVAL),
            Some(pirq) if self.find(domain, Pirq(pirq)).is_ok() => Err(Errno::EEXIST),
            Some(pirq) => Ok(Pirq(pirq)),
            None => {
                let mut all = (preferred..PIRQS_MAX as u32).map(Pirq);
                all.find(|&pirq| self.find(domain, pirq).is_err()).ok_or(Errno::ENOSPC)
            }
        }
    }

    /// Makes a source of the domain's own, masked, an interrupt that nobody else has.
    fn map(&mut self, domain: DomId, source: Source, wanted: Option<u32>) -> Result<Pirq, Errno> {
        if self.by_vector.iter().flatten().any(|irq| irq.source == source) {
            return Err(Errno::EBUSY);
        }
        let index = self.by_vector.iter().position(Option::is_none).ok_or(Errno::ENOSPC)?;
        let vector = FIRST_VECTOR + index as u8;
        let (requester, trigger, preferred) = match source {
            Source::Message { bdf, .. } => (Some(bdf), Trigger::Edge, FIRST_MESSAGE_PIRQ),
            Source::Line { line, trigger } => (self.lines.find(line).ok_or(Errno::EINVAL)?.0.source, trigger, line),
        };
        let pirq = self.choose_pirq(domain, wanted, preferred)?;
        // Failures are not logged: a domain could ask on and on. What breaks is logged when it breaks.
        let entry = match requester {
            Some(bdf) => iommu::allocate_interrupt(vector, self.cpu, trigger, bdf).map_err(|_| Errno::EIO)?,
            None if iommu::remaps_interrupts() => return Err(Errno::EIO),
            None => None,
        };
        let remapped = entry.as_ref().map(|entry| entry.0);
        match source {
            Source::Message { bdf, entry: number } => {
                let message = remapped.map_or_else(|| plain_message(vector, self.cpu), remappable_message);
                if let Err(error) = pci::set_message(domain, bdf, number, Some(message), Gate::Masked) {
                    entry.into_iter().for_each(iommu::free_interrupt);
                    return Err(error);
                }
            }
            Source::Line { line, .. } => {
                let route = remapped.map_or(Route::Plain(self.cpu), Route::Remapped);
                self.lines.set(line, vector, route);
            }
        }
        self.by_vector[index] = Some(Irq { domain, pirq, source, entry, bound: false, gate: Gate::Masked });
        Ok(pirq)
    }

    /// Masks the source, blocks its remapping entry, frees the vector. A message that is on its way finds no vector.
    fn remove(&mut self, index: usize) {
        let Some(mut irq) = self.by_vector.get_mut(index).and_then(Option::take) else { return };
        irq.set_gate(Gate::Masked, &self.lines);
        self.waiting[index / 64] &= !(1 << (index % 64));
        irq.entry.into_iter().for_each(iommu::free_interrupt);
    }
}

/// `PHYSDEVOP_unmap_pirq`. The domain's port, if it bound one, stays and is silent.
///
/// # Errors
/// `EINVAL`: not mapped.
pub fn unmap(domain: DomId, pirq: Pirq) -> Result<(), Errno> {
    let mut irqs = IRQS.lock();
    let (index, ..) = irqs.find(domain, pirq)?;
    irqs.remove(index);
    Ok(())
}

/// Before `EVTCHNOP_bind_pirq`: whether the pirq is mapped.
///
/// # Errors
/// `EPERM`: it is not.
pub fn check(domain: DomId, pirq: Pirq) -> Result<(), Errno> {
    IRQS.lock().find(domain, pirq).map(drop).map_err(|_| Errno::EPERM)
}

/// After `EVTCHNOP_bind_pirq`: the source may fire ([`Gate::Open`]). After `EVTCHNOP_close` of its port: it is masked.
pub fn set_bound(domain: DomId, pirq: Pirq, gate: Gate) {
    if let Ok((_, irq, lines)) = IRQS.lock().find(domain, pirq) {
        irq.bound = gate == Gate::Open;
        irq.set_gate(gate, lines);
    }
}

/// `PHYSDEVOP_eoi`: the domain has handled the interrupt. `Ok(true)`: raise the pirq once more, an edge may have been
/// lost.
///
/// # Errors
/// `EINVAL`: not mapped.
pub fn end_of_interrupt(domain: DomId, pirq: Pirq) -> Result<bool, Errno> {
    IRQS.lock().find(domain, pirq).map(|(_, irq, lines)| irq.bound && irq.open(lines))
}

/// `PHYSDEVOP_irq_status_query`: `XENIRQSTAT_*`.
///
/// # Errors
/// `EINVAL`: not mapped.
pub fn status(domain: DomId, pirq: Pirq) -> Result<u32, Errno> {
    IRQS.lock().find(domain, pirq).map(|(_, irq, _)| if irq.is_level() { XENIRQSTAT_NEEDS_EOI } else { 0 })
}

/// Takes everything of a dying domain away. Goes before `pci::release`. Bounded by the number of vectors.
pub fn release(domain: DomId) {
    let mut irqs = IRQS.lock();
    for index in 0..VECTORS {
        if irqs.by_vector.get(index).and_then(Option::as_ref).is_some_and(|irq| irq.domain == domain) {
            irqs.remove(index);
        }
    }
}
