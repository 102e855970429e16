//! `physdev_op`: interrupts of own devices, as numbers that [`crate::event::Channel::pirq`] binds.

use xen_abi::physdev as abi;
use xen_abi::xen::{DOMID_SELF, HYPERVISOR_PHYSDEV_OP};

use super::with;
use crate::errno::Result;

fn map(mut structure: abi::PhysdevMapPirq) -> Result<u32> {
    // SAFETY: the hypervisor touches the structure only.
    unsafe { with(HYPERVISOR_PHYSDEV_OP, abi::PHYSDEVOP_MAP_PIRQ, &mut structure) }?;
    Ok(structure.pirq as u32)
}

/// Maps an interrupt line that the policy gives to this domain.
pub fn map_line(gsi: u32) -> Result<u32> {
    map(abi::PhysdevMapPirq {
        domid: DOMID_SELF,
        kind: abi::MAP_PIRQ_TYPE_GSI,
        index: gsi as i32,
        pirq: -1,
        ..Default::default()
    })
}

/// Maps MSI-X vector `entry` of an own device; `bdf` is bus << 8 | device << 3 | function.
pub fn map_msix(bdf: u32, entry: u16) -> Result<u32> {
    map(abi::PhysdevMapPirq {
        domid: DOMID_SELF,
        kind: abi::MAP_PIRQ_TYPE_MSI,
        index: -1,
        pirq: -1,
        bus: (bdf >> 8) as i32,
        devfn: (bdf & 0xff) as i32,
        entry_nr: i32::from(entry),
        ..Default::default()
    })
}

/// Undoes a mapping.
pub fn unmap(pirq: u32) -> Result<()> {
    let mut structure = abi::PhysdevUnmapPirq { domid: DOMID_SELF, pirq: pirq as i32, ..Default::default() };
    // SAFETY: the hypervisor touches the structure only.
    unsafe { with(HYPERVISOR_PHYSDEV_OP, abi::PHYSDEVOP_UNMAP_PIRQ, &mut structure) }.map(drop)
}

/// Ends the handling of a level-triggered interrupt, so that it may fire again.
pub fn eoi(pirq: u32) -> Result<()> {
    let mut structure = abi::PhysdevEoi { irq: pirq };
    // SAFETY: the hypervisor touches the structure only.
    unsafe { with(HYPERVISOR_PHYSDEV_OP, abi::PHYSDEVOP_EOI, &mut structure) }.map(drop)
}
