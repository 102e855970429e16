//! What the hypervisor and the policy read before anything runs: bundle, policy table, policy file, ACPI table.

use crc::{CRC_32_ISO_HDLC, Crc};
use hv_core::authority::SealedPolicy;
use hv_core::bundle::Bundle;
use hv_core::iommu::dmar::Dmar;
use policy::{ImageInfo, Machine, PciFunction};
use xen_abi::policy_table::{Header, MAGIC, VERSION};

/// A boot bundle.
pub fn bundle(data: &[u8]) {
    let Ok(bundle) = Bundle::new(data) else { return };
    for file in bundle.files() {
        assert!(data.as_ptr_range().contains(&file.bytes.as_ptr()) || file.bytes.is_empty());
        assert_eq!(bundle.find(file.name).map(|found| found.offset), Some(file.offset));
    }
}

/// An archive of two files, the second empty.
pub(crate) fn bundle_seeds() -> Vec<Vec<u8>> {
    let file = |name: &str, content: &str| {
        let mut entry = format!("070701{:08x}{:08x}", 1, 0o100644);
        let fields = [0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        entry.extend(fields.map(|field| format!("{field:08x}")));
        entry += &format!("{name}\0");
        entry += &"\0".repeat(entry.len().next_multiple_of(4) - entry.len());
        entry += content;
        entry += &"\0".repeat(entry.len().next_multiple_of(4) - entry.len());
        entry
    };
    vec![(file("policy.table", "BULKPOL1") + &file("web", "") + &file("TRAILER!!!", "")).into_bytes()]
}

/// A compiled policy: as it is, and with magic, version, size and checksum put right so that the rest is reached. The
/// policy domain reads what the hypervisor has sealed; it may still refuse it, as settings are its business alone.
pub fn policy_table(data: &[u8]) {
    read_table(data);
    let mut table = data.to_vec();
    if table.len() >= size_of::<Header>() {
        table[0..8].copy_from_slice(&MAGIC);
        table[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let bytes = table.len() as u32;
        table[16..20].copy_from_slice(&bytes.to_le_bytes());
        let crc = Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&table[16..]);
        table[12..16].copy_from_slice(&crc.to_le_bytes());
        read_table(&table);
    }
}

fn read_table(table: &[u8]) {
    let decoded = policy::Table::decode(table);
    let Ok(sealed) = SealedPolicy::parse(table) else { return };
    if let Ok(decoded) = decoded {
        assert_eq!(decoded.domains.len(), sealed.labels());
    }
    for link in sealed.links() {
        assert!((link.front.max(link.back) as usize) < sealed.labels());
        let _ = sealed.text(link.parameters);
    }
    for device in sealed.devices() {
        assert!((device.label as usize) < sealed.labels());
    }
}

const DEMO: &str = include_str!("../../policy/demo.toml");

pub(crate) fn policy_table_seeds() -> Vec<Vec<u8>> {
    policy::load("demo.toml", DEMO)
        .map(|policy| policy.compile())
        .into_iter()
        .collect()
}

/// A policy file. What is accepted, and fits a machine made for it, compiles to a table that the hypervisor seals.
pub fn policy_language(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let policy = match policy::load("fuzz.toml", text) {
        Ok(policy) => policy,
        Err(errors) => return assert!(!errors.to_string().is_empty()),
    };
    let images: Vec<_> = policy
        .images()
        .map(|name| ImageInfo {
            name: name.to_owned(),
            bytes: 0,
        })
        .collect();
    let fits = policy.check(&machine_for(policy.table()), &images).is_ok();
    let refused = SealedPolicy::parse(&policy.compile()).err();
    if let Some(refused) = refused.filter(|_| fits) {
        panic!("compiled, but not sealed: {refused}");
    }
}

/// A machine with much memory and a function for each selector.
fn machine_for(table: &policy::Table) -> Machine {
    let function = |(index, device): (u16, &policy::table::Device)| PciFunction {
        bdf: device.bdf.map_or(0x100 + index, |bdf| bdf.0),
        vendor: device.vendor.unwrap_or(0xfff0),
        device: device.device.unwrap_or(index),
        class: device.class.map_or(0xff_00_00, |class| class.value & class.mask),
    };
    Machine {
        memory: 1 << 40,
        devices: (0..).zip(&table.devices).map(function).collect(),
    }
}

pub(crate) fn policy_language_seeds() -> Vec<Vec<u8>> {
    vec![DEMO.as_bytes().to_vec()]
}

/// The ACPI table of the IOMMU.
pub fn dmar(data: &[u8]) {
    let _ = Dmar::parse(data);
    let mut table = data.to_vec();
    if let Some(length) = table.get_mut(4..8) {
        length.copy_from_slice(&(data.len() as u32).to_le_bytes());
        table[..4].copy_from_slice(b"DMAR");
        if let Some(sum) = table.get(9).copied() {
            let total = table.iter().fold(0u8, |total, byte| total.wrapping_add(*byte));
            table[9] = sum.wrapping_sub(total);
        }
        let _ = Dmar::parse(&table);
    }
}

/// One remapping unit with the I/O APIC in its scope.
pub(crate) fn dmar_seeds() -> Vec<Vec<u8>> {
    let mut table = vec![0; 48];
    table[..4].copy_from_slice(b"DMAR");
    table[8] = 1;
    table[36] = 38;
    table.extend([0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0]);
    table.extend([3, 8, 0, 0, 0, 0xff, 0, 0]);
    vec![table]
}
