//! Finding every function, once, at boot, and putting it into quarantine on the way.
//!
//! All buses that configuration space shows are scanned in order. Nothing is followed, so a bridge that claims to lead in
//! a circle leads nowhere.

use super::ecam::{self, Ecam, to_crate};
use super::{Function, Messages, MsiX, Reset};
use crate::acpi::Facts;
use crate::{iommu, start};
use alloc::vec::Vec;
use hv_core::authority::Function as Identity;
use hv_core::iommu::dmar::Dmar;
use hv_core::pci::Bdf;
use hv_core::pci::bar::{BARS, Bar, Inside, PageRange, Probe, is_64_bit, overlaps, share_a_page};
use hv_core::pci::config::{COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_MEMORY};
use hv_core::pci::group::{Buses, FUNCTIONS_MAX, Member, Node, Separation, groups};
use pci_types::capability::{MsixCapability, PciCapability};
use pci_types::{EndpointHeader, HeaderType, PciHeader};

const BAR_0: u16 = 0x10;
/// BARs of a bridge; its bus numbers lie behind.
const BRIDGE_BARS: usize = 2;
/// Class code of bridges; the host bridge and the bridge to the ISA bus have an ordinary header.
const CLASS_BRIDGE: u32 = 0x06;

/// All functions of the machine, in bus order. The answer's flag tells that there were more than
/// [`FUNCTIONS_MAX`].
pub fn enumerate(ecam: &Ecam, facts: &Facts) -> (Vec<Function>, bool) {
    let mut functions = Vec::with_capacity(FUNCTIONS_MAX);
    let mut more = false;
    for bus in ecam.buses.clone() {
        for device in 0..32 {
            let first = PciHeader::new(to_crate(Bdf::new(bus, device, 0)));
            if first.id(ecam.bounded()).0 == 0xffff {
                continue;
            }
            let last = if first.has_multiple_functions(ecam.bounded()) { 7 } else { 0 };
            for function in 0..=last {
                match probe(ecam, Bdf::new(bus, device, function)) {
                    Some(_) if functions.len() == FUNCTIONS_MAX => more = true,
                    Some(found) => functions.push(found),
                    None => {}
                }
            }
        }
    }
    let members: Vec<Member> = functions.iter().map(|function| function.member).collect();
    let unfit: Vec<_> = functions.iter().map(|function| unfit(function, &functions, &members, facts)).collect();
    for ((function, group), unfit) in functions.iter_mut().zip(groups(&members)).zip(unfit) {
        function.group = group;
        function.unfit = unfit;
        function.unit = facts.dmar.as_ref().and_then(|dmar| {
            let behind = |at, bdf| members.iter().any(|bridge| bridge.bdf == at && bridge.leads_to(bdf));
            dmar.unit_of(function.member.bdf, |at| bus_behind(&members, at), behind)
        });
    }
    (functions, more)
}

/// The bus behind a bridge.
fn bus_behind(members: &[Member], at: Bdf) -> Option<u8> {
    members.iter().find(|bridge| bridge.bdf == at)?.node.buses().map(|buses| buses.secondary)
}

/// Reads one function and quarantines it.
fn probe(ecam: &Ecam, bdf: Bdf) -> Option<Function> {
    let header = PciHeader::new(to_crate(bdf));
    let (vendor, device) = header.id(ecam.bounded());
    if vendor == 0xffff {
        return None;
    }
    let class = ecam.read(bdf, 8) >> 8;
    let (node, bars) = match header.header_type(ecam.bounded()) {
        HeaderType::Endpoint if class >> 16 != CLASS_BRIDGE => (Node::Endpoint, BARS),
        HeaderType::PciPciBridge => {
            let [_, secondary, subordinate, _] = ecam.read(bdf, 0x18).to_le_bytes();
            let buses = Buses { secondary, subordinate };
            let express = is_express_port(ecam, bdf);
            (if express { Node::Port(buses) } else { Node::ConventionalBridge(buses) }, BRIDGE_BARS)
        }
        _ => (Node::Kept, 0),
    };
    let mut function = Function {
        identity: Identity { bdf, vendor, device, class },
        member: Member { bdf, node, separation: separate(ecam, bdf, node) },
        bars: [None; BARS],
        bar_registers: [0; BARS],
        messages: Messages::None,
        express: None,
        reset: Reset::None,
        group: 0,
        unit: None,
        unfit: None,
    };
    if node != Node::Kept {
        // Quarantine: no decoding, no bus mastering, no interrupt pin. BARs are sized with decoding off.
        ecam.write(bdf, 4, COMMAND_INTX_DISABLE);
        size_bars(ecam, &mut function, bars);
    }
    if node == Node::Endpoint {
        read_capabilities(ecam, &mut function);
    } else if node != Node::Kept {
        // What is behind a bridge must be able to reach memory, by way of the IOMMU.
        ecam.write(bdf, 4, COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE);
    }
    Some(function)
}

/// Sizes the first `count` BARs.
fn size_bars(ecam: &Ecam, function: &mut Function, count: usize) {
    let bdf = function.member.bdf;
    for (slot, register) in (0..count).zip((BAR_0..).step_by(4)) {
        function.bar_registers[slot] = ecam.read(bdf, register);
    }
    let sized = |register: u16, original: u32| {
        ecam.write(bdf, register, !0);
        let ones = ecam.read(bdf, register);
        ecam.write(bdf, register, original);
        ones
    };
    let mut slot = 0;
    while slot < count {
        let register = BAR_0 + slot as u16 * 4;
        let original = function.bar_registers[slot];
        let wide = is_64_bit(original, slot) && slot + 1 < count;
        let upper = wide.then(|| function.bar_registers[slot + 1]);
        let probe = Probe {
            original,
            ones: sized(register, original),
            upper: upper.map(|upper| (upper, sized(register + 4, upper))),
        };
        // A BAR that firmware left without an address decodes nothing that could be mapped.
        function.bars[slot] = probe.decode().filter(|bar| bar.base != 0);
        slot += if wide { 2 } else { 1 };
    }
}

fn read_capabilities(ecam: &Ecam, function: &mut Function) {
    let bdf = function.member.bdf;
    let Some(header) = EndpointHeader::from_header(PciHeader::new(to_crate(bdf)), ecam.bounded()) else {
        return;
    };
    let mut power_state = None;
    for capability in header.capabilities(ecam.bounded()) {
        match capability {
            PciCapability::MsiX(mut msix) => {
                msix.set_enabled(false, ecam.bounded());
                if let Some(tables) = msix_tables(&msix, &function.bars) {
                    function.messages = Messages::MsiX(tables);
                }
            }
            PciCapability::Msi(msi) => {
                msi.set_enabled(false, ecam.bounded());
                if matches!(function.messages, Messages::None) {
                    function.messages = Messages::Msi(msi);
                }
            }
            PciCapability::PciExpress(at) => {
                let control = ecam.read(bdf, at.offset + 8) as u16 & 0x7fff;
                function.express = Some((at.offset, control));
            }
            PciCapability::PowerManagement(at) => power_state = Some(at.offset),
            _ => {}
        }
    }
    function.reset = reset_method(ecam, bdf, function.express.map(|(at, _)| at), power_state);
}

/// Where the tables are, if they are where they can be.
fn msix_tables(msix: &MsixCapability, bars: &[Option<Bar>; BARS]) -> Option<MsiX> {
    let vectors = msix.table_size();
    let table = Inside { bar: msix.table_bar(), offset: msix.table_offset(), bytes: u32::from(vectors) * 16 };
    let pending_bytes = u32::from(vectors).div_ceil(64) * 8;
    let pending = Inside { bar: msix.pba_bar(), offset: msix.pba_offset(), bytes: pending_bytes };
    let holes = [table.pages(bars)?, pending.pages(bars)?];
    let bar = (*bars.get(usize::from(table.bar))?)?;
    Some(MsiX { capability: *msix, vectors, table: bar.base + u64::from(table.offset), holes })
}

fn reset_method(ecam: &Ecam, bdf: Bdf, express: Option<u16>, power_state: Option<u16>) -> Reset {
    /// Device capabilities, function-level reset.
    const CAPABLE: u32 = 1 << 28;
    /// Power management control, no soft reset.
    const NO_SOFT_RESET: u32 = 1 << 3;
    match (express, power_state) {
        (Some(at), _) if ecam.read(bdf, at + 4) & CAPABLE != 0 => Reset::FunctionLevel(at),
        (_, Some(at)) if ecam.read(bdf, at + 4) & NO_SOFT_RESET == 0 => Reset::PowerCycle(at),
        _ => Reset::None,
    }
}

/// Whether a bridge is a PCI Express port, and not one to conventional PCI (PCI Express Base 5.0, 7.5.3.2).
fn is_express_port(ecam: &Ecam, bdf: Bdf) -> bool {
    const EXPRESS: u32 = 0x10;
    let mut at = ecam.read(bdf, 0x34) as u16 & 0xfc;
    for _ in 0..48 {
        let head = ecam.read(bdf, at);
        if at == 0 || head & 0xff == EXPRESS {
            // Root port, upstream and downstream switch port.
            return at != 0 && matches!(head >> 20 & 0xf, 4..=6);
        }
        at = (head >> 8) as u16 & 0xfc;
    }
    false
}

/// Switches Access Control Services on, where they are.
fn separate(ecam: &Ecam, bdf: Bdf, node: Node) -> Separation {
    /// Extended capability id.
    const ACS: u16 = 0x0d;
    /// Source validation, request and completion redirect, upstream forwarding: what a port needs.
    const PORT: u32 = 0b1_1101;
    /// Request and completion redirect: what a function among several needs.
    const ENDPOINT: u32 = 0b0_1100;
    let needed = if node.buses().is_some() { PORT } else { ENDPOINT };
    match ecam.extended_capability(bdf, ACS) {
        Some(at) if ecam.read(bdf, at + 4) & needed == needed => {
            ecam.change(bdf, at + 4, PORT << 16, needed << 16);
            Separation::AccessControlServices
        }
        _ => Separation::None,
    }
}

/// What stands against giving a function away, whoever wants it.
fn unfit(function: &Function, all: &[Function], members: &[Member], facts: &Facts) -> Option<&'static str> {
    let bdf = function.member.bdf;
    let reserved = |dmar: &Dmar| dmar.has_reserved_memory(bdf, |at| bus_behind(members, at));
    let mut others = all.iter().filter(|other| other.member.bdf != bdf);
    if members.iter().any(|bridge| matches!(bridge.node, Node::ConventionalBridge(_)) && bridge.leads_to(bdf)) {
        Some("a bridge to conventional PCI speaks for it, so the IOMMU cannot tell it apart")
    } else if facts.dmar.as_ref().is_some_and(reserved) {
        Some("firmware reserves memory for its DMA")
    } else if taken(facts).any(|range| overlaps(&function.bars, range)) {
        Some("its registers lie over memory, or over the chipset's or the hypervisor's registers")
    } else if others.any(|other| share_a_page(&function.bars, &other.bars)) {
        Some("its registers share a page with another function's")
    } else {
        None
    }
}

/// Where no device's registers may be: memory, and registers that the hypervisor uses itself.
fn taken(facts: &Facts) -> impl Iterator<Item = PageRange> {
    /// The first MiB; interrupt controllers, timers and firmware of every PC.
    const FIXED: [(u64, u64); 2] = [(0, 1 << 20), (0xfec0_0000, 0x140_0000)];
    let regions = start::boot_info().into_iter().flat_map(|info| &info.regions);
    let ram = regions.map(|region| (region.start, region.end - region.start));
    let io_apics = facts.io_apics.iter().map(|entry| (u64::from(entry.io_apic_address), 4096));
    let units = facts.dmar.iter().flat_map(|dmar| &dmar.units).map(|unit| (unit.registers, iommu::REGISTER_BYTES));
    let all = FIXED.into_iter().chain(ram).chain(io_apics).chain(units).chain(facts.ecam.iter().map(ecam::extent));
    all.filter_map(|(base, bytes)| PageRange::touching(base, bytes))
}
