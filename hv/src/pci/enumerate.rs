//! Finding every function, once, at boot, and putting it into quarantine on the way.
//!
//! All buses that configuration space shows are scanned in order. Nothing is followed, so a bridge that claims to lead in
//! a circle leads nowhere.

use super::messages::{ENTRY_BYTES, MSI_ENABLE, MSIX_ENABLE};
use super::{BARS, Bars, Bdf, Command, Facts, Faults, Finding, Function, Member, Messages, MsiX, Node, PageRange};
use super::{Instant, Mutex, Once, Owner, Registers, Reset, State, Vec, ecam, ecam::Config, ecam::Ecam, fact, iommu};
use crate::start;
use hv_core::ids::Hpa;
use hv_core::pci::bar::{decode, inside, overlaps, share_a_page, touching};
use hv_core::pci::group::{FUNCTIONS_MAX, groups};
use xen_abi::native::MMIO_WINDOW;

const BAR_0: u16 = 0x10;
/// BARs of a bridge; its bus numbers lie behind.
const BRIDGE_BARS: usize = 2;
/// Class code of bridges; the host bridge and the bridge to the ISA bus have an ordinary header.
const CLASS_BRIDGE: u32 = 0x06;
/// Bytes of the MMIO window that each function of the machine has for itself.
const WINDOW_BYTES: u64 = 1 << 36;

/// Ids of capabilities (PCI Code and ID Assignment 1.11, 2).
const POWER_MANAGEMENT: u8 = 0x01;
const MSI: u8 = 0x05;
const EXPRESS: u8 = 0x10;
const MSI_X: u8 = 0x11;

/// All functions of the machine, in bus order.
pub fn enumerate(ecam: &Ecam, facts: &Facts) -> Vec<Function> {
    /// Header type, the device has several functions.
    const SEVERAL: u32 = 1 << 23;
    let mut functions = Vec::with_capacity(FUNCTIONS_MAX);
    let mut more = false;
    for bus in ecam.buses.clone() {
        for device in 0..32 {
            let first = ecam.function(Bdf::new(bus, device, 0));
            let several = first.read(0) as u16 != 0xffff && first.read(0x0c) & SEVERAL != 0;
            for function in 0..=if several { 7 } else { 0 } {
                let bdf = Bdf::new(bus, device, function);
                match probe(ecam.function(bdf), bdf) {
                    Some(_) if functions.len() == FUNCTIONS_MAX => more = true,
                    found => functions.extend(found),
                }
            }
        }
    }
    if more {
        fact("pci", Finding::Refused, format_args!("more functions than supported: the rest is left alone"));
    }
    let members: Vec<Member> = functions.iter().map(|function| function.found).collect();
    let unfit: Vec<_> = functions.iter().map(|function| unfit(function, &functions, &members, facts)).collect();
    for (index, ((function, unfit), group)) in functions.iter_mut().zip(unfit).zip(groups(&members)).enumerate() {
        let addresses = lay_out(index as u64, &function.bars);
        function.addresses = addresses.unwrap_or_default();
        function.unfit = unfit.or(addresses.is_none().then_some("its registers are too large"));
        function.group = group;
        function.unit = facts.dmar.as_ref().and_then(|dmar| dmar.unit_of(function.found.bdf, &members));
        if function.is_endpoint() {
            read_capabilities(function);
        }
    }
    functions
}

/// Where the BARs of function number `index` appear in its owner's address space. `None`: they do not fit in the
/// function's part of the window.
fn lay_out(index: u64, bars: &Bars) -> Option<[u64; BARS]> {
    let mut addresses = [0; BARS];
    let mut next = MMIO_WINDOW + index * WINDOW_BYTES;
    let end = next + WINDOW_BYTES;
    for (address, bar) in addresses.iter_mut().zip(bars) {
        let Some(bar) = bar else { continue };
        let bytes = (bar.pages().end - bar.pages().start) * 4096;
        let start = next.checked_next_multiple_of(bytes.next_power_of_two().min(2 << 20))?;
        next = start.checked_add(bytes).filter(|next| *next <= end)?;
        *address = start + bar.base % 4096;
    }
    Some(addresses)
}

/// Reads one function and quarantines it.
fn probe(config: Config, bdf: Bdf) -> Option<Function> {
    let id = config.read(0);
    let (vendor, device) = (id as u16, (id >> 16) as u16);
    if vendor == 0xffff {
        return None;
    }
    let class = config.read(8) >> 8;
    let (node, bars) = match config.read(0x0c) >> 16 & 0x7f {
        0 if class >> 16 != CLASS_BRIDGE => (Node::Endpoint, BARS),
        1 => {
            let [_, secondary, subordinate, _] = config.read(0x18).to_le_bytes();
            // Root port, upstream and downstream switch port, not a bridge to conventional PCI (PCI Express Base 5.0,
            // 7.5.3.2).
            let is_port = |head: u32| head as u8 == EXPRESS && matches!(head >> 20 & 0xf, 4..=6);
            let express = config.capabilities().any(|(_, head)| is_port(head));
            (Node::Bridge { secondary, subordinate, express }, BRIDGE_BARS)
        }
        _ => (Node::Kept, 0),
    };
    let owner = if node == Node::Endpoint { Owner::Quarantine } else { Owner::Hypervisor };
    let state = State { owner, faults: 0, faults_of_owner: Faults::NONE, ready_at: Instant(0) };
    let mut function = Function {
        config,
        found: Member { bdf, vendor, device, class, node, access_control: separate(config, node) },
        bars: [None; BARS],
        bar_registers: [0; BARS],
        addresses: [0; BARS],
        messages: Messages::None,
        express: None,
        reset: Reset::None,
        group: 0,
        unit: None,
        unfit: None,
        driver: Once::new(),
        state: Mutex::new(state),
    };
    if node != Node::Kept {
        // Quarantine: no decoding, no bus mastering, no interrupt pin. BARs are sized with decoding off.
        config.command(Command::INTERRUPT_DISABLE);
        size_bars(&mut function, bars);
    }
    if matches!(node, Node::Bridge { .. }) {
        // What is behind a bridge must be able to reach memory, by way of the IOMMU.
        config.command(Command::MEMORY_ENABLE | Command::BUS_MASTER_ENABLE | Command::INTERRUPT_DISABLE);
    }
    Some(function)
}

/// Sizes the first `count` BARs.
fn size_bars(function: &mut Function, count: usize) {
    let config = function.config;
    let mut sized = [(0, 0); BARS];
    for (slot, (original, ones)) in sized.iter_mut().enumerate().take(count) {
        let register = BAR_0 + slot as u16 * 4;
        *original = config.read(register);
        config.write(register, !0);
        *ones = config.read(register);
        config.write(register, *original);
        function.bar_registers[slot] = *original;
    }
    function.bars = decode(&sized[..count]);
}

/// Switches messages off (until now it had none to send: it does not master the bus), and remembers how the function
/// signals interrupts and how it can be reset.
fn read_capabilities(function: &mut Function) {
    /// Device capabilities, function-level reset.
    const FUNCTION_LEVEL: u32 = 1 << 28;
    /// Power management control, no soft reset.
    const NO_SOFT_RESET: u32 = 1 << 3;
    let config = function.config;
    for (at, head) in config.capabilities() {
        match head as u8 {
            MSI_X => {
                config.change(at, MSIX_ENABLE, 0);
                // Once, should the list lead in a circle.
                if !matches!(function.messages, Messages::MsiX(_))
                    && let Some(tables) = msix_tables(function, at, head)
                {
                    function.messages = Messages::MsiX(tables);
                }
            }
            MSI => {
                config.change(at, MSI_ENABLE, 0);
                if matches!(function.messages, Messages::None) {
                    function.messages = Messages::Msi(at);
                }
            }
            EXPRESS => {
                function.express = Some((at, config.read(at + 8) as u16 & 0x7fff));
                if config.read(at + 4) & FUNCTION_LEVEL != 0 {
                    function.reset = Reset::FunctionLevel(at);
                }
            }
            POWER_MANAGEMENT if function.reset == Reset::None && config.read(at + 4) & NO_SOFT_RESET == 0 => {
                function.reset = Reset::PowerCycle(at);
            }
            _ => {}
        }
    }
}

/// The MSI-X tables, if they are where they can be. `at` and `head`: the capability.
fn msix_tables(function: &mut Function, at: u16, head: u32) -> Option<MsiX> {
    let vectors = (head >> 16) as u16 % 0x800 + 1;
    let find = |register, bytes: u64| {
        let place = function.config.read(register);
        let base = inside(&function.bars, place as u8 & 7, place & !7, bytes as u32)?;
        Some((base, touching(base, bytes)))
    };
    let table_bytes = u64::from(vectors) * ENTRY_BYTES;
    let (base, table_pages) = find(at + 4, table_bytes)?;
    let (_, pending_pages) = find(at + 8, u64::from(vectors).div_ceil(64) * 8)?;
    if function.unfit.is_some() {
        return None;
    }
    // SAFETY: the range lies inside a BAR as sized above, which is not over memory: else the function is unfit.
    let Ok(table) = (unsafe { Registers::map(Hpa(base), table_bytes) }) else {
        function.unfit = Some("its MSI-X table cannot be mapped");
        return None;
    };
    Some(MsiX { at, vectors, table, holes: [table_pages, pending_pages] })
}

/// Switches Access Control Services on; answers whether they are there.
fn separate(config: Config, node: Node) -> bool {
    /// Extended capability id.
    const ACS: u16 = 0x0d;
    /// Source validation, request and completion redirect, upstream forwarding: what a port needs.
    const PORT: u32 = 0b1_1101;
    /// Request and completion redirect: what a function among several needs.
    const ENDPOINT: u32 = 0b0_1100;
    let needed = if matches!(node, Node::Bridge { .. }) { PORT } else { ENDPOINT };
    let found = config.extended_capability(ACS).filter(|at| config.read(at + 4) & needed == needed);
    if let Some(at) = found {
        config.change(at + 4, PORT << 16, needed << 16);
    }
    found.is_some()
}

/// What stands against giving a function away, whoever wants it.
fn unfit(function: &Function, all: &[Function], members: &[Member], facts: &Facts) -> Option<&'static str> {
    let bdf = function.found.bdf;
    let mut others = all.iter().filter(|other| other.found.bdf != bdf);
    let conventional = |bridge: &Member| matches!(bridge.node, Node::Bridge { express: false, .. });
    if members.iter().any(|bridge| conventional(bridge) && bridge.leads_to(bdf)) {
        Some("a bridge to conventional PCI speaks for it, so the IOMMU cannot tell it apart")
    } else if facts.dmar.as_ref().is_some_and(|dmar| dmar.has_reserved_memory(bdf, members)) {
        Some("firmware reserves memory for its DMA")
    } else if taken(facts).any(|range| overlaps(&function.bars, &range)) {
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
    all.map(|(base, bytes)| touching(base, bytes))
}
