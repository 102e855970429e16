//! PCI devices: found once at boot, owned by exactly one domain, by the hypervisor, or by quarantine.
//!
//! What a function *is* (identity, BARs, capabilities, group) is read at boot into [`Function`] and never again: nothing
//! that a device or its owner does later can move what was checked. Who *has* it is in [`State`], under a lock of its own.
//!
//! Quarantine is where every device starts and where it returns: no decoding, no bus mastering, no interrupts, and a
//! context entry in the IOMMU that blocks. Bridges, and what has no type 0 header, stay the hypervisor's.
//!
//! **Bus mastering** is a right that is lost for good, or until the next owner: for faults without end, when an IOMMU fails,
//! and where none confines the device. `config_write` asks [`denied`] each time.
//!
//! Lock order: a domain's lock, then `irq`'s, then a function's, then the IOMMU's.

mod access;
mod assign;
mod ecam;
mod enumerate;
mod messages;
mod reset;

pub use access::{config_read, config_write, describe, info};
pub use assign::{assign, release, tables_of};
pub use messages::{keeps_masked_messages, messages_of, set_message};

use crate::boot::report::{Finding, fact};
use crate::{acpi::Facts, iommu, mmio::Registers, system::system, time::Instant};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use ecam::{Config, Ecam};
use hv_core::authority::{SealedPolicy, Unresolved};
use hv_core::pci::bar::{BARS, Bar, Bars, PageRange};
use hv_core::pci::group::{Member, Node};
use hv_core::{ids::DomId, ids::Label, iommu::vtd::Fault, pci::Bdf, pci::config::Command, pci::faults::Faults};
use spin::{Mutex, Once};

/// MSI-X as found at boot.
struct MsiX {
    /// Offset of the capability.
    at: u16,
    vectors: u16,
    /// The table, which only the hypervisor reaches.
    table: Registers,
    /// The pages of the table and of its pending bits, which no domain gets.
    holes: [PageRange; 2],
}

/// How it signals interrupts by message.
enum Messages {
    None,
    /// At this offset.
    Msi(u16),
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

/// A function: what was found at boot, which does not change, and its state.
struct Function {
    config: Config,
    found: Member,
    bars: Bars,
    bar_registers: [u32; BARS],
    /// Where its owner finds the BARs; 0 for none.
    addresses: [u64; BARS],
    messages: Messages,
    /// PCI Express capability, and its device control as firmware set it.
    express: Option<(u16, u16)>,
    reset: Reset,
    /// Index of the first function of its isolation group.
    group: u16,
    /// The IOMMU that confines it.
    unit: Option<usize>,
    /// Why no domain may have it.
    unfit: Option<&'static str>,
    /// Label and selector of the sealed policy, once that is known.
    driver: Once<(Label, u32)>,
    state: Mutex<State>,
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
struct State {
    owner: Owner,
    /// DMA faults since boot.
    faults: u32,
    /// DMA faults since it was assigned.
    faults_of_owner: Faults,
    /// A reset is in progress until then.
    ready_at: Instant,
}

/// All functions, by name.
static FUNCTIONS: Once<Vec<Function>> = Once::new();
/// No device masters the bus any more.
static SILENCED: AtomicBool = AtomicBool::new(false);
/// Faults of what is no known function.
static STRANGERS: Mutex<Faults> = Mutex::new(Faults::NONE);

/// All functions, by name.
fn functions() -> &'static [Function] {
    FUNCTIONS.get().map_or(&[], Vec::as_slice)
}

/// The function with this name.
fn find(bdf: Bdf) -> Option<&'static Function> {
    functions().get(functions().binary_search_by_key(&bdf, |function| function.found.bdf).ok()?)
}

/// Finds all functions and quarantines them. After `acpi::init`, before `iommu::init`.
pub fn init(facts: &Facts) {
    let refuse = |why: fmt::Arguments| fact("pci", Finding::Missing, why);
    let ecam = match facts.ecam.as_ref().map(Ecam::map) {
        Some(Ok(ecam)) => ecam,
        Some(Err(why)) => return refuse(format_args!("cannot map configuration space: {why:?}")),
        None => return refuse(format_args!("no configuration space (MCFG): no devices")),
    };
    let functions = enumerate::enumerate(&ecam, facts);
    let endpoints = functions.iter().filter(|function| function.is_endpoint()).count();
    fact("pci", Finding::Ok, format_args!("{} functions, {endpoints} in quarantine", functions.len()));
    FUNCTIONS.call_once(|| functions);
}

/// Finds out which function each device entry of the policy means, reports it, and starts resetting those functions so
/// that they are ready when they are asked for. After `system::init`.
pub fn resolve(policy: &SealedPolicy) {
    let candidates = functions().iter().filter(|function| function.is_endpoint()).map(|function| &function.found);
    for (index, entry) in policy.devices().iter().enumerate() {
        let name = policy.text(entry.name);
        match policy.resolve(index, candidates.clone()) {
            Ok(bdf) => select(bdf, Label(entry.label as u16), index as u32, name, policy),
            Err(why) if why == Unresolved::Missing && entry.optional != 0 => {
                fact(name, Finding::Missing, format_args!("no such device, optional"));
            }
            Err(why) => fact(name, Finding::Refused, format_args!("{why}")),
        }
    }
}

fn select(bdf: Bdf, label: Label, selector: u32, name: &str, policy: &SealedPolicy) {
    let Some(function) = find(bdf) else { return };
    function.driver.call_once(|| (label, selector));
    reset::start(function, &mut function.state.lock());
    let Member { vendor, device, .. } = function.found;
    let (owner, reset) = (policy.name(label), if function.reset == Reset::None { ", no reset" } else { "" });
    match function.unfit {
        Some(why) => fact(name, Finding::Refused, format_args!("{bdf} {vendor:04x}:{device:04x}: {why}")),
        None => fact(name, Finding::Ok, format_args!("{bdf} {vendor:04x}:{device:04x} for {owner}{reset}")),
    }
}

/// Buses that have functions, for the IOMMU's tables.
pub fn buses() -> impl Iterator<Item = u8> {
    let mut last = None;
    functions().iter().map(|function| function.found.bdf.bus()).filter(move |bus| last.replace(*bus) != Some(*bus))
}

/// Counts and reports a DMA or interrupt fault. A device that goes on and on loses bus mastering.
pub fn record_fault(fault: &Fault) {
    let bdf = fault.source;
    let Some(function) = find(bdf) else {
        if let Some(count) = STRANGERS.lock().record() {
            log::warn!("DMA fault: unknown device {bdf} {fault} [{count}]");
        }
        return;
    };
    let mut state = function.state.lock();
    state.faults = state.faults.saturating_add(1);
    let told = state.faults_of_owner.record();
    let too_many = state.faults_of_owner.too_many();
    if too_many {
        function.silence();
    }
    let Some(count) = told else { return };
    let end = if too_many { ", its bus mastering stays off" } else { "" };
    let owner = match (state.owner, function.driver.get()) {
        (Owner::Domain(_), Some((label, _))) => system().policy.name(*label),
        _ => "none",
    };
    log::warn!("DMA fault: device {bdf} (domain {owner}) {fault} [{count}]{end}");
}

/// Takes bus mastering from every device for good, without a lock: the last resort when an IOMMU fails, so that what
/// its caches still hold is of no use to anyone.
pub fn silence_all(why: &str) {
    if SILENCED.swap(true, Ordering::SeqCst) {
        return;
    }
    log::error!("{why}: bus mastering of all devices is off for good");
    functions().iter().filter(|function| function.is_endpoint()).for_each(Function::silence);
}

/// What the owner of a device must not set in its command register now.
fn denied(function: &Function, state: &State) -> Command {
    let lost = SILENCED.load(Ordering::SeqCst) || state.faults_of_owner.too_many();
    if lost || !function.is_confined() { Command::BUS_MASTER_ENABLE } else { Command::empty() }
}

impl Messages {
    /// How many different ones there are.
    fn count(&self) -> u16 {
        match self {
            Self::MsiX(msix) => msix.vectors,
            Self::Msi(_) => 1,
            Self::None => 0,
        }
    }
}

impl Function {
    /// Whether a domain could have it, in principle.
    fn is_endpoint(&self) -> bool {
        self.found.node == Node::Endpoint
    }

    /// Takes bus mastering from it and leaves the rest of its command register as it is.
    fn silence(&self) {
        // The upper half is status, whose ones are cleared by ones.
        self.config.change(4, 0xffff_0000 | u32::from(Command::BUS_MASTER_ENABLE.bits()), 0);
    }

    /// Whether the sealed policy gives it to this label.
    fn is_for(&self, label: Label) -> bool {
        self.driver.get().is_some_and(|(driver, _)| *driver == label)
    }

    /// Whether an IOMMU confines its DMA.
    fn is_confined(&self) -> bool {
        iommu::available() && self.unit.is_some()
    }

    /// Pages of its registers that no domain gets.
    fn holes(&self) -> &[PageRange] {
        if let Messages::MsiX(msix) = &self.messages { &msix.holes } else { &[] }
    }

    /// Its BARs, and where its owner finds them.
    fn memory_bars(&self) -> impl Iterator<Item = (&Bar, u64)> {
        self.bars.iter().zip(self.addresses).filter_map(|(bar, address)| Some((bar.as_ref()?, address)))
    }
}
