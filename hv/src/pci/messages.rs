//! Interrupts by message: MSI-X tables and MSI capabilities, which only the hypervisor writes
//! (PCI Local Bus 3.0, 6.8.1 and 6.8.2).
//!
//! A device with MSI-X uses that; one with MSI alone has a single vector. The table's page is mapped in the hypervisor
//! and in no domain.

use super::{Bdf, Command, DomId, Function, Messages, access::with_owned};
use crate::irq::Gate;
use hv_core::error::Errno;

/// Bits of control, in the upper half of the first double word of either capability.
pub(super) const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_MASK_ALL: u32 = 1 << 30;
pub(super) const MSI_ENABLE: u32 = 1 << 16;
const MSI_SEVERAL: u32 = 0b111 << 20;
const MSI_64_BIT: u32 = 1 << 23;

/// Bytes of an entry of the MSI-X table.
pub(super) const ENTRY_BYTES: u64 = 16;
const ENTRY_ADDRESS: u64 = 0;
const ENTRY_DATA: u64 = 8;
const ENTRY_CONTROL: u64 = 12;
const ENTRY_MASKED: u32 = 1;

/// Masks every vector and switches MSI-X on. The function must be in quarantine with its BARs in place.
pub(super) fn prepare(function: &Function) {
    let Messages::MsiX(msix) = &function.messages else { return };
    function.config.command(Command::MEMORY_ENABLE | Command::INTERRUPT_DISABLE);
    for entry in 0..u64::from(msix.vectors) {
        msix.table.write32(entry * ENTRY_BYTES + ENTRY_CONTROL, ENTRY_MASKED);
    }
    function.config.change(msix.at, MSIX_MASK_ALL | MSIX_ENABLE, MSIX_ENABLE);
}

/// Switches all messages off.
pub(super) fn disable(function: &Function) {
    match &function.messages {
        Messages::MsiX(msix) => function.config.change(msix.at, MSIX_ENABLE, 0),
        Messages::Msi(at) => function.config.change(*at, MSI_ENABLE, 0),
        Messages::None => {}
    }
}

/// How many messages a device of `domain` can send.
pub fn messages_of(domain: DomId, bdf: Bdf) -> Result<u16, Errno> {
    with_owned(domain, bdf, |function, _| Ok(function.messages.count()))
}

/// Whether a message that a device wants to send while it is masked is sent later.
pub fn keeps_masked_messages(bdf: Bdf) -> bool {
    super::find(bdf).is_some_and(|function| matches!(function.messages, Messages::MsiX(_)))
}

/// An interrupt message: address and data.
pub type Message = (u64, u32);

/// Sets where message `entry` of a device of `domain` goes (`None`: leaves it), and whether it is sent. One that is masked
/// waits (MSI-X keeps it pending; MSI loses it).
pub fn set_message(domain: DomId, bdf: Bdf, entry: u16, to: Option<Message>, gate: Gate) -> Result<(), Errno> {
    with_owned(domain, bdf, |function, _| match &function.messages {
        Messages::MsiX(msix) if entry < msix.vectors => {
            let table = msix.table;
            let at = u64::from(entry) * ENTRY_BYTES;
            if let Some((address, data)) = to {
                // Masked while it is neither the old nor the new.
                table.write32(at + ENTRY_CONTROL, ENTRY_MASKED);
                table.write32(at + ENTRY_ADDRESS, address as u32);
                table.write32(at + ENTRY_ADDRESS + 4, (address >> 32) as u32);
                table.write32(at + ENTRY_DATA, data);
            }
            table.write32(at + ENTRY_CONTROL, if gate == Gate::Masked { ENTRY_MASKED } else { 0 });
            Ok(())
        }
        Messages::Msi(at) if entry == 0 => {
            let config = function.config;
            if let Some((address, data)) = to {
                config.change(*at, MSI_ENABLE | MSI_SEVERAL, 0);
                config.write(at + 4, address as u32);
                // Without the upper half of the address, its place is that of the data.
                config.write(at + 8, (address >> 32) as u32);
                config.write(if config.read(*at) & MSI_64_BIT != 0 { at + 12 } else { at + 8 }, data);
            }
            config.change(*at, MSI_ENABLE, if gate == Gate::Masked { 0 } else { MSI_ENABLE });
            Ok(())
        }
        _ => Err(Errno::EINVAL),
    })
}
