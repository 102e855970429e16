//! What the hypervisor and the policy read before anything runs: bundle, policy table, policy file, kernels, ACPI table.

use crc::{CRC_32_ISO_HDLC, Crc};
use hv_core::authority::SealedPolicy;
use hv_core::bundle::Bundle;
use hv_core::iommu::dmar::Dmar;
use image::kernel::Kernel;
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
const LINUX: &str = include_str!("../../policy/linux.toml");

pub(crate) fn policy_table_seeds() -> Vec<Vec<u8>> {
    let compiled = |text| policy::load("seed.toml", text).map(|policy| policy.compile());
    [DEMO, LINUX].into_iter().filter_map(|text| compiled(text).ok()).collect()
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

/// A virtual machine's kernel: what the policy domain copies lies where it says, apart from all else, below 4 GiB.
pub fn kernel(data: &[u8]) {
    let Ok(kernel) = Kernel::parse(data) else { return };
    let mut loads: Vec<_> = kernel.loads.iter().collect();
    assert!(loads.iter().any(|load| load.addresses().contains(&u64::from(kernel.entry))));
    assert!(loads.iter().all(|load| load.bytes.len() as u64 <= load.memory_bytes));
    loads.sort_by_key(|load| load.gpa);
    assert!(loads.windows(2).all(|pair| pair[0].addresses().end <= pair[1].gpa));
    assert!(kernel.addresses().end <= 1 << 32);
}

/// Text, data and a note.
pub(crate) fn kernel_seeds() -> Vec<Vec<u8>> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    let words = |file: &mut Vec<u8>, words: &[u64]| words.iter().for_each(|word| file.extend(word.to_le_bytes()));
    words(&mut file, &[0, 64, 0]);
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    // Type and flags, then offset, virtual and physical address, bytes in the file and in memory, alignment.
    words(&mut file, &[5 << 32 | 1, 256, 0, 0x10_0000, 64, 64, 4096]);
    words(&mut file, &[6 << 32 | 1, 320, 0, 0x10_1000, 16, 8192, 4096]);
    words(&mut file, &[4 << 32 | 4, 336, 0, 0, 24, 24, 4]);
    file.resize(336, 0x90);
    file.extend([4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0]);
    file.extend(b"Xen\0");
    words(&mut file, &[0x10_0010]);
    vec![file]
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
    [DEMO, LINUX].map(|text| text.as_bytes().to_vec()).into()
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
