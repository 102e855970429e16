//! What a person or a broken file can get wrong before the first domain runs. Each is refused with its reason.

use bulkhead_test::{Boot, Ending, Result, System, seconds};

/// Boots, expects the hypervisor to say `why` and to stop with a failure.
fn refused(boot: Boot, why: &str) -> Result<()> {
    let mut system: System = boot.start()?;
    system.wait_for(why, seconds(30))?;
    assert!(matches!(system.wait_end(seconds(30))?, Ending::Code(code) if code != 0));
    Ok(())
}

fn demo() -> Result<Boot> {
    Boot::policy_file("policy/demo.toml")?.demo_disk()?.network()
}

#[test]
fn a_truncated_bundle_is_refused() -> Result<()> {
    refused(demo()?.bundle(b"070701".to_vec()), "bundle")
}

#[test]
fn a_bundle_that_is_no_archive_is_refused() -> Result<()> {
    refused(demo()?.bundle(vec![0x5a; 8192]), "bundle")
}

#[test]
fn a_corrupt_policy_table_is_refused() -> Result<()> {
    refused(demo()?.replace("policy.table", vec![0xff; 4096]), "policy table")
}

#[test]
fn a_policy_domain_that_is_no_elf_is_refused() -> Result<()> {
    refused(demo()?.replace("policy-domain", b"#!/bin/sh\n".repeat(100)), "policy-domain")
}

#[test]
fn a_driver_that_is_no_elf_is_reported_and_the_others_run() -> Result<()> {
    let mut system = demo()?.replace("block", b"#!/bin/sh\n".repeat(100)).start()?;
    system.wait_for("block", seconds(60))?;
    system.wait_for("ELF", seconds(60))?;
    let domains = system.shell("domains", seconds(60))?;
    assert!(domains.contains("net") && domains.contains("xenstore"), "{domains}");
    Ok(())
}

#[test]
fn without_an_iommu_driver_domains_are_refused_and_the_boot_report_says_why() -> Result<()> {
    let mut system = demo()?.machine(|machine| machine.iommu = false).start()?;
    system.wait_for("IOMMU", seconds(30))?;
    system.wait_for("unprotected-dma", seconds(60))?;
    assert!(system.shell("domains", seconds(60))?.contains("xenstore"));
    Ok(())
}

#[test]
fn a_machine_without_the_disk_that_the_policy_names_still_serves_its_console() -> Result<()> {
    let mut system = Boot::policy_file("policy/demo.toml")?.network()?.start()?;
    system.wait_for("disk", seconds(60))?;
    assert!(system.shell("devices", seconds(60))?.contains("missing"));
    Ok(())
}
