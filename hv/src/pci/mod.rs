//! PCI devices: found once at boot, owned by exactly one domain, by the hypervisor, or by quarantine.
//!
//! What a function *is* (identity, BARs, capabilities, group) is read at boot into [`Function`] and never again: nothing
//! that a device or its owner does later can move what was checked. Who *has* it is in [`State`], under a lock.
//!
//! Quarantine is where every device starts and where it returns: no decoding, no bus mastering, no interrupts, and a
//! context entry in the IOMMU that blocks. Bridges, and what has no type 0 header, stay the hypervisor's.
//!
//! Lock order: a domain's lock, then `irq`'s, then [`STATES`], then the IOMMU's.

mod access;
mod assign;
mod ecam;
mod enumerate;
mod messages;
mod reset;

pub use access::{config_read, config_write, describe, info};
pub use assign::{DeviceSpace, Recipient, assign, release};
pub use messages::{MessageMask, keeps_masked_messages, messages_of, set_message};

use crate::acpi::Facts;
use crate::boot::report::{Finding, fact};
use crate::mmio::Registers;
use crate::system::system;
use crate::time::Instant;
use alloc::vec::Vec;
use core::fmt;
use ecam::Ecam;
use hv_core::authority::{Function as Identity, Resolution, SealedPolicy};
use hv_core::ids::{DomId, Label};
use hv_core::iommu::vtd::Fault;
use hv_core::pci::Bdf;
use hv_core::pci::bar::{BARS, Bar, BarKind, Inside};
use hv_core::pci::config::{COMMAND_INTX_DISABLE, COMMAND_MEMORY};
use pci_types::capability::{MsiCapability, MsixCapability};
use spin::{Mutex, Once};

/// What a function may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It can be given to a domain.
    Endpoint,
    /// It leads to other buses.
    Bridge { secondary: u8, subordinate: u8, express: bool },
    /// Host bridge, ISA bridge, anything with an unknown header.
    Fixed,
}

/// MSI-X as found at boot.
#[derive(Clone, Copy, Debug)]
struct MsiX {
    capability: MsixCapability,
    vectors: u16,
    table: Inside,
    pending: Inside,
}

/// How it signals interrupts by message.
#[derive(Clone, Copy, Debug)]
enum Messages {
    None,
    Msi(MsiCapability),
    MsiX(MsiX),
}

/// How it can be reset. The offsets are those of the capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    /// PCI Express function-level reset.
    FunctionLevel(u16),
    /// Through power state D3hot, which loses its state.
    PowerCycle(u16),
    /// Not at all: its new owner gets it as the last one left it, without DMA and interrupts.
    None,
}

/// What was found at boot; does not change.
#[derive(Debug)]
struct Function {
    identity: Identity,
    role: Role,
    bars: [Option<Bar>; BARS],
    bar_registers: [u32; BARS],
    messages: Messages,
    /// PCI Express capability, and its device control as firmware set it.
    express: Option<(u16, u16)>,
    reset: Reset,
    /// Index of the first function of its isolation group.
    group: u16,
    /// The IOMMU that confines it.
    unit: Option<usize>,
    /// Firmware wants memory kept for its DMA.
    reserved_memory: bool,
    /// A bridge to conventional PCI speaks for it.
    aliased: bool,
}

/// Who has a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The hypervisor itself, for good.
    Hypervisor,
    /// Nobody; it can do nothing.
    Quarantine,
    /// Nobody, for good: it could not be taken back in order.
    Broken,
    /// A domain.
    Domain(DomId),
}

/// What changes about a function.
#[derive(Debug)]
struct State {
    owner: Owner,
    /// DMA faults since boot.
    faults: u32,
    /// DMA faults since it was assigned.
    faults_of_owner: u32,
    /// A reset is in progress until then.
    ready_at: Instant,
    /// The MSI-X table, once mapped.
    table: Option<Registers>,
    /// Label and selector of the sealed policy.
    driver: Option<(Label, u32)>,
}

/// Everything about PCI that does not change.
struct Machine {
    ecam: Ecam,
    functions: Vec<Function>,
}

static MACHINE: Once<Machine> = Once::new();
static STATES: Mutex<Vec<State>> = Mutex::new(Vec::new());

fn machine() -> Option<&'static Machine> {
    MACHINE.get()
}

/// The function with this name, as an index into [`Machine::functions`] and [`STATES`].
fn find(bdf: Bdf) -> Option<(&'static Machine, usize)> {
    let machine = machine()?;
    let at = machine.functions.binary_search_by_key(&bdf, |function| function.identity.bdf).ok()?;
    Some((machine, at))
}

/// Finds all functions and quarantines them. After `acpi::init`, before `iommu::init`.
pub fn init(facts: &Facts) {
    let Some(info) = &facts.ecam else {
        fact("pci", Finding::Missing, format_args!("no configuration space (MCFG): no devices"));
        return;
    };
    let ecam = match Ecam::map(info) {
        Ok(ecam) => ecam,
        Err(why) => {
            fact("pci", Finding::Missing, format_args!("cannot map configuration space: {why:?}"));
            return;
        }
    };
    let (functions, more) = enumerate::enumerate(&ecam, facts);
    if more {
        fact("pci", Finding::Refused, format_args!("more functions than supported: the rest is left alone"));
    }
    let owner = |function: &Function| match function.role {
        Role::Endpoint => Owner::Quarantine,
        _ => Owner::Hypervisor,
    };
    let state = |function: &Function| State {
        owner: owner(function),
        faults: 0,
        faults_of_owner: 0,
        ready_at: Instant::from_nanos(0),
        table: None,
        driver: None,
    };
    *STATES.lock() = functions.iter().map(state).collect();
    let endpoints = functions.iter().filter(|function| function.role == Role::Endpoint).count();
    fact("pci", Finding::Ok, format_args!("{} functions, {endpoints} in quarantine", functions.len()));
    MACHINE.call_once(|| Machine { ecam, functions });
}

/// Finds out which function each device entry of the policy means, reports it, and starts resetting those functions so
/// that they are ready when they are asked for. After `system::init`.
pub fn resolve(policy: &SealedPolicy) {
    let none = Vec::new();
    let functions = machine().map_or(&none, |machine| &machine.functions);
    let candidates =
        functions.iter().filter(|function| function.role == Role::Endpoint).map(|function| &function.identity);
    for (index, entry) in policy.devices().iter().enumerate() {
        let name = policy.text(entry.name);
        let refused = |why: fmt::Arguments| fact(name, Finding::Refused, why);
        match policy.resolve(index, candidates.clone()) {
            Resolution::One(bdf) => select(bdf, Label(entry.label as u16), index as u32, name, policy),
            Resolution::Missing { optional: true } => {
                fact(name, Finding::Missing, format_args!("no such device, optional"));
            }
            Resolution::Missing { optional: false } => refused(format_args!("no such device in this machine")),
            Resolution::Ambiguous(one, other) => {
                refused(format_args!("both {one} and {other} match: name the slot in the policy"));
            }
            Resolution::Contested(bdf, rival) => {
                let rival = policy.devices().get(rival).map_or("", |entry| policy.text(entry.name));
                refused(format_args!("{bdf} is claimed by {rival} too"));
            }
        }
    }
}

fn select(bdf: Bdf, label: Label, selector: u32, name: &str, policy: &SealedPolicy) {
    let Some((machine, at)) = find(bdf) else { return };
    let mut states = STATES.lock();
    let Some((function, state)) = machine.functions.get(at).zip(states.get_mut(at)) else { return };
    state.driver = Some((label, selector));
    reset::start(function, state);
    let Identity { vendor, device, .. } = function.identity;
    let reset = match function.reset {
        Reset::FunctionLevel(_) => "function-level reset",
        Reset::PowerCycle(_) => "reset by power state",
        Reset::None => "no reset",
    };
    fact(name, Finding::Ok, format_args!("{bdf} {vendor:04x}:{device:04x} for {}, {reset}", policy.name(label)));
}

/// Buses that have functions, for the IOMMU's tables.
pub fn buses() -> impl Iterator<Item = u8> {
    let functions = machine().map_or(&[][..], |machine| &machine.functions);
    let mut last = None;
    functions.iter().map(|function| function.identity.bdf.bus()).filter(move |bus| last.replace(*bus) != Some(*bus))
}

/// Faults of one owner after which its device loses bus mastering.
const FAULTS_MAX: u32 = 4096;
/// Faults of one owner that are reported one by one; after that, each power of two.
const FAULTS_REPORTED: u32 = 8;

/// Counts and reports a DMA or interrupt fault. A device that goes on and on loses bus mastering.
pub fn record_fault(fault: &Fault) {
    let bdf = fault.source;
    let Some((machine, at)) = find(bdf) else {
        log::warn!("DMA fault: unknown device {bdf}: {fault}");
        return;
    };
    let mut states = STATES.lock();
    let Some(state) = states.get_mut(at) else { return };
    state.faults = state.faults.saturating_add(1);
    state.faults_of_owner = state.faults_of_owner.saturating_add(1);
    let count = state.faults_of_owner;
    if count <= FAULTS_REPORTED || count.is_power_of_two() {
        match (state.owner, state.driver) {
            (Owner::Domain(_), Some((label, _))) => {
                let name = system().policy.name(label);
                log::warn!("DMA fault: device {bdf} (domain {name}) {fault} [{count}]");
            }
            (owner, _) => log::warn!("DMA fault: device {bdf} ({owner:?}) {fault} [{count}]"),
        }
    }
    if count == FAULTS_MAX && matches!(state.owner, Owner::Domain(_) | Owner::Quarantine) {
        machine.ecam.write(bdf, 4, COMMAND_MEMORY | COMMAND_INTX_DISABLE);
        log::warn!("DMA fault: device {bdf} faulted {count} times: its bus mastering is off");
    }
}

/// Takes bus mastering from every device, without a lock: the last resort when an IOMMU does not answer, so that what
/// its caches still hold is of no use to anyone.
pub fn silence_all() {
    let Some(machine) = machine() else { return };
    for function in machine.functions.iter().filter(|function| function.role == Role::Endpoint) {
        machine.ecam.write(function.identity.bdf, 4, COMMAND_MEMORY | COMMAND_INTX_DISABLE);
    }
}

impl Function {
    /// Its memory BARs, with their numbers.
    fn memory_bars(&self) -> impl Iterator<Item = (usize, &Bar)> {
        let bars = self.bars.iter().enumerate();
        bars.filter_map(|(slot, bar)| Some((slot, bar.as_ref().filter(|bar| bar.kind == BarKind::Memory)?)))
    }
}
