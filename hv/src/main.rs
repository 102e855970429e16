//! Bulkhead's hypervisor: the bare-metal binary around `hv-core`.
//!
//! `boot` brings the machine up and reports what it found, `cpu`, `mm`, `traps`, `time` and `apic` are the mechanics,
//! `domain` connects `hv-core`'s domains with them, `hypercall` is what domains ask for, `pci`, `iommu` and `irq` give
//! devices to domains. `docs/` describes the interfaces.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("hv runs on bare metal: build it with `cargo xtask build`");
}

#[cfg(target_os = "none")]
extern crate alloc;

macro_rules! bare_modules {
    ($($name:ident)*) => { $(#[cfg(target_os = "none")] mod $name;)* };
}
bare_modules!(acpi apic boot cpu domain hypercall iommu irq legacy logging machine mm mmio pci power serial start system time traps vm);
