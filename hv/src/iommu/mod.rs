//! DMA and interrupt remapping (Intel VT-d): every device reaches its owner's memory and nothing else, and can raise
//! the interrupts that it was given and no others.
//!
//! All units share one set of tables: a root table, a context table for each bus that has functions, one interrupt
//! remapping table. A function without an owner has no context entry, so its DMA ends in a fault.
//!
//! No command is ever taken as done because it should be: a unit that does not answer in time, or reports an error, is
//! *broken*. Then the machine's devices lose bus mastering, and whoever waited for the flush goes on safely.

mod tables;
mod unit;

use crate::boot::report::{Finding, fact};
use crate::{acpi::Facts, pci, system::system};
use alloc::vec::Vec;
use hv_core::ids::{DomId, Gfn, Hpa};
use hv_core::iommu::vtd::{
    BLOCKED, Command, ExtendedCapabilities, IommuDomainId, Trigger, context_entry, interrupt_entry, plain_message,
    root_entry,
};
use hv_core::{pci::Bdf, space::VtdFormat};
use spin::{Mutex, Once};
use tables::{ENTRIES, TablePage};
use unit::Unit;

pub use unit::REGISTER_BYTES;

/// Why the IOMMU did not do what it should, in words: nobody can do more than report it.
pub type Failure = &'static str;

const UNPROTECTED: &str = "UNPROTECTED DMA: the policy lets domains have devices that no IOMMU confines. They may not \
    master the bus, so they can do no DMA; one that does it all the same is stopped by NOTHING";
const NO_ENTRY: Failure = "no IOMMU table entry left";

/// What all units share.
struct Remapping {
    units: Vec<Mutex<Unit>>,
    /// Context tables by bus.
    contexts: [Option<TablePage>; 256],
    /// The interrupt remapping table, and which of its entries are in use.
    interrupts: Option<Mutex<Interrupts>>,
    coherent: bool,
}

struct Interrupts {
    table: TablePage,
    used: [bool; ENTRIES],
}

static REMAPPING: Once<Remapping> = Once::new();

/// DMA remapping is on for the whole machine.
pub fn available() -> bool {
    REMAPPING.get().is_some()
}

/// Interrupt remapping is on for the whole machine.
pub fn remaps_interrupts() -> bool {
    REMAPPING.get().is_some_and(|remapping| remapping.interrupts.is_some())
}

/// The format of IOMMU tables that driver domains need; `None` without an IOMMU.
pub fn table_format() -> Option<VtdFormat> {
    REMAPPING.get().map(|remapping| VtdFormat { levels: 4, write_back: !remapping.coherent })
}

/// Turns remapping on. After `pci::init`, which quarantined every device, and `system::init`.
pub fn init(facts: &Facts) {
    match start(facts) {
        Ok(remapping) => {
            let (finding, interrupts) =
                if remapping.interrupts.is_some() { (Finding::Ok, "on") } else { (Finding::Refused, "MISSING") };
            let units = remapping.units.len();
            let what = format_args!("VT-d, {units} unit(s), DMA remapping on, interrupt remapping {interrupts}");
            fact("iommu", finding, what);
            REMAPPING.call_once(|| remapping);
        }
        Err(why) if system().policy.accepts_unprotected_dma() => {
            fact("iommu", Finding::Refused, format_args!("{why}. {UNPROTECTED}"));
        }
        Err(why) => fact("iommu", Finding::Missing, format_args!("{why}: domains with devices are refused")),
    }
}

fn start(facts: &Facts) -> Result<Remapping, Failure> {
    let dmar = facts.dmar.as_ref().filter(|dmar| !dmar.units.is_empty());
    let dmar = dmar.ok_or("no DMAR table that names a unit, so no IOMMU that we know")?;
    let page = || TablePage::new().ok_or("no memory for the IOMMU's tables");
    let root = page()?;
    let mut contexts = [None; 256];
    for bus in pci::buses() {
        let table = page()?;
        root.write(usize::from(bus), root_entry(table.address()));
        contexts[usize::from(bus)] = Some(table);
    }
    let mut units = Vec::new();
    let (mut coherent, mut interrupts) = (true, dmar.interrupt_remapping);
    for info in &dmar.units {
        let unit = Unit::new(Hpa(info.registers), page()?, page()?)?;
        coherent &= unit.extended.contains(ExtendedCapabilities::COHERENT);
        interrupts &= unit.extended.contains(ExtendedCapabilities::INTERRUPT_REMAPPING);
        units.push(unit);
    }
    let table = interrupts.then(page).transpose()?;
    for unit in &mut units {
        unit.enable(root.address(), table.map(TablePage::address))?;
    }
    let units = units.into_iter().map(Mutex::new).collect();
    let interrupts = table.map(|table| Mutex::new(Interrupts { table, used: [false; ENTRIES] }));
    Ok(Remapping { units, contexts, interrupts, coherent })
}

/// The tag of a domain's translations: its slot, counted from 1. A slot is used again only after `release` flushed it.
fn tag(domain: DomId) -> IommuDomainId {
    IommuDomainId(u16::from(domain.slot().0) + 1)
}

impl Remapping {
    /// Runs commands on every unit. A failure costs all devices their bus mastering.
    fn run_all(&self, commands: &[Command]) -> Result<(), Failure> {
        let outcomes = self.units.iter().map(|unit| unit.lock().run(commands));
        outcomes.fold(Ok(()), Result::and).inspect_err(|why| pci::silence_all(why))
    }
}

/// Lets a function's DMA through to the address space of `domain` with this root, or blocks it. `unit` as `pci` found it.
/// On return, what it began under the old entry has ended, and nothing of it is cached. On an error it is blocked, and no
/// device masters the bus.
pub fn set_context(unit: usize, bdf: Bdf, domain: DomId, root: Option<Hpa>) -> Result<(), Failure> {
    let remapping = REMAPPING.get().ok_or(NO_ENTRY)?;
    let unit = remapping.units.get(unit).ok_or(NO_ENTRY)?;
    let id = tag(domain);
    let (table, index) = (remapping.contexts[usize::from(bdf.bus())].ok_or(NO_ENTRY)?, usize::from(bdf.devfn()));
    table.write(index, root.map_or(BLOCKED, |root| context_entry(root.0, id)));
    let outcome = unit.lock().run(&[Command::context(id, bdf), Command::iotlb(id)]);
    outcome.inspect_err(|why| {
        table.write(index, BLOCKED);
        pci::silence_all(why);
    })
}

/// On return, no device uses a cached translation of this page of this domain, and DMA that used one has ended. `None`: the
/// same for all its pages.
#[inline(never)]
pub fn flush(domain: DomId, page: Option<Gfn>) {
    if let Some(remapping) = REMAPPING.get() {
        let id = tag(domain);
        let command = page.map_or(Command::iotlb(id), |page| Command::iotlb_page(id, page.base().0));
        // After a failure no device can use what is still cached: none masters the bus any more.
        let _ = remapping.run_all(&[command]);
    }
}

/// The number of an entry of the interrupt remapping table.
#[must_use = "the entry has to be given back"]
pub struct InterruptEntry(pub u16);

/// Makes an entry that delivers `vector` to `cpu`, for requests `from` a function only. `Ok(None)`: interrupts are not
/// remapped on this machine.
pub fn allocate_interrupt(vector: u8, cpu: u8, trigger: Trigger, from: Bdf) -> Result<Option<InterruptEntry>, Failure> {
    let Some((remapping, interrupts)) = interrupts() else { return Ok(None) };
    let mut interrupts = interrupts.lock();
    let index = interrupts.used.iter().position(|used| !used).ok_or(NO_ENTRY)?;
    interrupts.table.write(index, interrupt_entry(vector, cpu, trigger, from));
    // An entry that was not present may be cached as such (caching mode).
    let known = remapping.run_all(&[Command::interrupt(index as u16)]);
    known.inspect_err(|_| interrupts.table.write(index, BLOCKED))?;
    interrupts.used[index] = true;
    Ok(Some(InterruptEntry(index as u16)))
}

/// Takes an entry away: on return, requests that name it are blocked.
pub fn free_interrupt(entry: InterruptEntry) {
    let Some((remapping, interrupts)) = interrupts() else { return };
    let mut interrupts = interrupts.lock();
    interrupts.table.write(usize::from(entry.0), BLOCKED);
    // An entry that may still be cached is not used for anyone else.
    let flushed = remapping.run_all(&[Command::interrupt(entry.0)]).is_ok();
    interrupts.used[usize::from(entry.0)] = !flushed;
}

fn interrupts() -> Option<(&'static Remapping, &'static Mutex<Interrupts>)> {
    let remapping = REMAPPING.get()?;
    Some((remapping, remapping.interrupts.as_ref()?))
}

/// Has the units interrupt `cpu` with `vector` when they record a fault. (Their own interrupts are not remapped,
/// VT-d 5.1.6.)
pub fn enable_fault_interrupt(vector: u8, cpu: u8) {
    for unit in REMAPPING.get().iter().flat_map(|remapping| &remapping.units) {
        unit.lock().enable_fault_interrupt(plain_message(vector, cpu));
    }
}

/// Reports faults that were recorded, a bounded number. For the fault interrupt and the timer.
pub fn poll_faults() {
    for unit in REMAPPING.get().iter().flat_map(|remapping| &remapping.units) {
        let faults = unit.lock().take_faults();
        faults.iter().for_each(pci::record_fault);
    }
}
