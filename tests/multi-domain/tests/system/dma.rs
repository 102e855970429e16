//! A device that is told to reach outside its domain's memory.

use crate::policies::{boot, probe};
use bulkhead_test::{Boot, Result, seconds};

const EDU: &str = "[device.edu]\nvendor = 0x1234\ndevice = 0x11e8\n";

fn driver() -> Boot {
    boot(&(probe("driver", "device", "devices = [\"edu\"]") + EDU)).machine(|machine| machine.edu = true)
}

/// Machine memory at 1 MiB, where the hypervisor is loaded, as QEMU's monitor prints it.
fn hypervisor_memory(system: &bulkhead_test::System) -> Result<String> {
    system.qmp()?.monitor("xp /4gx 0x100000")
}

#[test]
fn dma_inside_the_domain_arrives_and_outside_is_blocked_and_reported() -> Result<()> {
    let mut system = driver().start()?;
    system.wait_for("about to device", seconds(60))?;
    let before = hypervisor_memory(&system)?;
    system.wait_for("driver| done with", seconds(90))?;
    assert_eq!(hypervisor_memory(&system)?, before);
    let failed: Vec<_> = system.verdicts().into_iter().filter(|verdict| !verdict.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    for verdict in ["dma-inside-arrives", "dma-outside-tried", "dma-to-own-code-blocked", "configuration-done"] {
        system.expect_verdict(verdict, seconds(1))?;
    }
    let fault = system.wait_for("DMA fault", seconds(30))?;
    assert!(fault.contains("00:0a.0") && fault.contains("driver"), "{fault}");
    system.wait_ready()?;
    let at = system.position();
    system.shell("destroy driver", seconds(20))?;
    system.wait_from(at, "driver", seconds(20))?;
    let devices = system.shell("devices", seconds(20))?;
    assert!(devices.contains("quarantine"), "{devices}");
    system.shutdown()
}

#[test]
fn without_an_iommu_a_policy_may_accept_devices_the_boot_report_shouts_it_and_they_do_no_dma() -> Result<()> {
    let policy = format!(
        "[system]\nunprotected-dma = \"accept\"\n{}{}{EDU}",
        crate::policies::BASE,
        probe("driver", "unconfined", "devices = [\"edu\"]")
    );
    let boot = Boot::policy(&policy).image("probe").machine(|machine| {
        machine.edu = true;
        machine.iommu = false;
    });
    let mut system = boot.start()?;
    system.wait_for("UNPROTECTED DMA", seconds(30))?;
    system.wait_for("00:0a.0: UNPROTECTED", seconds(60))?;
    for verdict in ["device-registers", "bus-mastering-refused", "no-dma"] {
        system.expect_verdict(verdict, seconds(60))?;
    }
    Ok(())
}
