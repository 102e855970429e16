//! Finding every function, once, at boot, and putting it into quarantine on the way.
//!
//! All buses that configuration space shows are scanned in order. Nothing is followed, so a bridge that claims to lead in
//! a circle leads nowhere.

use super::ecam::{Bounded, Ecam, to_crate};
use super::{Function, Messages, MsiX, Reset, Role};
use crate::acpi::Facts;
use alloc::vec::Vec;
use hv_core::authority::Function as Identity;
use hv_core::pci::Bdf;
use hv_core::pci::bar::{BARS, Bar, Inside, Probe, is_64_bit};
use hv_core::pci::config::{COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_MEMORY};
use hv_core::pci::group::{FUNCTIONS_MAX, Member, Node, Separation, groups};
use pci_types::capability::PciCapability;
use pci_types::{CommandRegister, EndpointHeader, HeaderType, PciHeader, PciPciBridgeHeader};

const BAR_0: u16 = 0x10;
/// Class code of bridges; the host bridge and the bridge to the ISA bus have an ordinary header.
const CLASS_BRIDGE: u8 = 0x06;

/// All functions of the machine, in bus order. The answer's flag tells that there were more than
/// [`FUNCTIONS_MAX`].
pub fn enumerate(ecam: &Ecam, facts: &Facts) -> (Vec<Function>, bool) {
    let mut functions = Vec::with_capacity(FUNCTIONS_MAX);
    let mut more = false;
    for bus in ecam.first_bus..=ecam.last_bus {
        for device in 0..32 {
            let first = PciHeader::new(to_crate(Bdf::new(bus, device, 0)));
            if first.id(ecam).0 == 0xffff {
                continue;
            }
            let last = if first.has_multiple_functions(ecam) { 7 } else { 0 };
            for function in 0..=last {
                match probe(ecam, Bdf::new(bus, device, function)) {
                    Some(_) if functions.len() == FUNCTIONS_MAX => more = true,
                    Some(found) => functions.push(found),
                    None => {}
                }
            }
        }
    }
    let members: Vec<Member> = functions.iter().map(|function| member(ecam, function)).collect();
    let leaders = groups(&members);
    for (index, function) in functions.iter_mut().enumerate() {
        function.group = leaders[index];
    }
    place(&mut functions, facts);
    (functions, more)
}

/// Reads one function and quarantines it.
fn probe(ecam: &Ecam, bdf: Bdf) -> Option<Function> {
    let mut header = PciHeader::new(to_crate(bdf));
    let (vendor, device) = header.id(ecam);
    if vendor == 0xffff {
        return None;
    }
    let (_, class, subclass, interface) = header.revision_and_class(ecam);
    let identity = Identity { bdf, vendor, device, class: u32::from_be_bytes([0, class, subclass, interface]) };
    let mut function = Function {
        identity,
        role: Role::Fixed,
        bars: [None; BARS],
        bar_registers: [0; BARS],
        messages: Messages::None,
        express: None,
        reset: Reset::None,
        group: 0,
        unit: None,
        reserved_memory: false,
        aliased: false,
    };
    match header.header_type(ecam) {
        HeaderType::Endpoint if class != CLASS_BRIDGE => {
            function.role = Role::Endpoint;
            // Quarantine: no decoding, no bus mastering, no interrupt pin. BARs are sized with decoding off.
            header.update_command(ecam, |_| CommandRegister::INTERRUPT_DISABLE);
            size_bars(ecam, &mut function);
            read_capabilities(ecam, &mut function);
        }
        HeaderType::PciPciBridge => {
            let bridge = PciPciBridgeHeader::from_header(PciHeader::new(to_crate(bdf)), ecam)?;
            let secondary = bridge.secondary_bus_number(ecam);
            let subordinate = bridge.subordinate_bus_number(ecam);
            function.role = Role::Bridge { secondary, subordinate, express: is_express_port(ecam, bdf) };
            // What is behind it must be able to reach memory, by way of the IOMMU.
            ecam.change(bdf, 4, !0, COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE);
        }
        _ => {}
    }
    Some(function)
}

fn size_bars(ecam: &Ecam, function: &mut Function) {
    let bdf = function.identity.bdf;
    for (slot, register) in (0..BARS).zip((BAR_0..).step_by(4)) {
        function.bar_registers[slot] = ecam.read(bdf, register);
    }
    let sized = |register: u16, original: u32| {
        ecam.write(bdf, register, !0);
        let ones = ecam.read(bdf, register);
        ecam.write(bdf, register, original);
        ones
    };
    let mut slot = 0;
    while slot < BARS {
        let register = BAR_0 + slot as u16 * 4;
        let original = function.bar_registers[slot];
        let wide = is_64_bit(original, slot);
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
    let bdf = function.identity.bdf;
    let Some(header) = EndpointHeader::from_header(PciHeader::new(to_crate(bdf)), ecam) else {
        return;
    };
    let mut power_state = None;
    for capability in header.capabilities(Bounded::new(ecam)) {
        match capability {
            PciCapability::MsiX(mut msix) => {
                msix.set_enabled(false, ecam);
                if let Some(tables) = msix_tables(&msix, &function.bars) {
                    function.messages = Messages::MsiX(tables);
                }
            }
            PciCapability::Msi(msi) => {
                msi.set_enabled(false, ecam);
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
fn msix_tables(msix: &pci_types::capability::MsixCapability, bars: &[Option<Bar>; BARS]) -> Option<MsiX> {
    let vectors = msix.table_size();
    let table = Inside { bar: msix.table_bar(), offset: msix.table_offset(), bytes: u32::from(vectors) * 16 };
    let pending_bytes = u32::from(vectors).div_ceil(64) * 8;
    let pending = Inside { bar: msix.pba_bar(), offset: msix.pba_offset(), bytes: pending_bytes };
    (table.pages(bars).is_some() && pending.pages(bars).is_some()).then_some(MsiX {
        capability: *msix,
        vectors,
        table,
        pending,
    })
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

/// A function for grouping. Access Control Services are switched on where they are.
fn member(ecam: &Ecam, function: &Function) -> Member {
    /// Extended capability id.
    const ACS: u16 = 0x0d;
    /// Source validation, request and completion redirect, upstream forwarding: what a port needs.
    const PORT: u32 = 0b1_1101;
    /// Request and completion redirect: what a function among several needs.
    const ENDPOINT: u32 = 0b0_1100;
    let bdf = function.identity.bdf;
    let (node, needed) = match function.role {
        Role::Bridge { secondary, subordinate, express: true } => (Node::Port { secondary, subordinate }, PORT),
        Role::Bridge { secondary, subordinate, express: false } => {
            (Node::ConventionalBridge { secondary, subordinate }, PORT)
        }
        _ => (Node::Endpoint, ENDPOINT),
    };
    let separation = match ecam.extended_capability(bdf, ACS) {
        Some(at) if ecam.read(bdf, at + 4) & needed == needed => {
            ecam.change(bdf, at + 4, PORT << 16, needed << 16);
            Separation::AccessControlServices
        }
        _ => Separation::None,
    };
    Member { bdf, node, separation }
}

/// Finds each function's IOMMU, and what stands against giving it away.
fn place(functions: &mut [Function], facts: &Facts) {
    let bridges: Vec<(Bdf, u8, u8, bool)> = functions
        .iter()
        .filter_map(|function| match function.role {
            Role::Bridge { secondary, subordinate, express } => {
                Some((function.identity.bdf, secondary, subordinate, express))
            }
            _ => None,
        })
        .collect();
    let secondary = |bdf: Bdf| bridges.iter().find(|bridge| bridge.0 == bdf).map(|bridge| bridge.1);
    let leads_to = |bridge: &(Bdf, u8, u8, bool), bdf: Bdf| {
        bridge.1 > bridge.0.bus() && (bridge.1..=bridge.2).contains(&bdf.bus())
    };
    for function in functions.iter_mut() {
        let bdf = function.identity.bdf;
        function.aliased = bridges.iter().any(|bridge| !bridge.3 && leads_to(bridge, bdf));
        if let Some(dmar) = &facts.dmar {
            let behind = |at: Bdf, bdf: Bdf| bridges.iter().any(|bridge| bridge.0 == at && leads_to(bridge, bdf));
            function.unit = dmar.unit_of(bdf, secondary, behind);
            function.reserved_memory = dmar.has_reserved_memory(bdf, secondary);
        }
    }
}
