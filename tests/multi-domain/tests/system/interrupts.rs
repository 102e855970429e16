//! Interrupts of devices: a driver gets those of its own device, by the hypervisor's hand, and no other.

use crate::policies::{boot, probe};
use bulkhead_test::{Result, seconds};

const DEVICES: &str = r#"
[device.nic]
vendor = 0x1af4
device = 0x1041
[device.disk]
vendor = 0x1af4
device = 0x1042
"#;

#[test]
fn a_driver_can_neither_write_its_msix_table_nor_have_interrupts_of_others() -> Result<()> {
    let drivers =
        probe("table", "msix-table", "devices = [\"nic\"]") + &probe("pending", "msix-pending", "devices = [\"disk\"]");
    let mut system = boot(&(drivers + &probe("witness", "rest", "") + DEVICES)).demo_disk()?.network()?.start()?;
    for name in ["table", "pending"] {
        let touching = system.wait_for(&format!("{name}| touching "), seconds(90))?;
        let address = touching.rsplit(' ').next().unwrap_or("no address");
        system.wait_for(&format!("({name}) died: page fault: read of {address} "), seconds(30))?;
    }
    let verdicts = system.verdicts();
    let failed: Vec<_> = verdicts.iter().filter(|verdict| !verdict.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    for name in ["i3-i4-configuration-tried", "i1-i2-i5-vectors-tried", "i1-i6-lines-tried"] {
        assert_eq!(verdicts.iter().filter(|verdict| verdict.name == name).count(), 2, "{name}:\n{}", system.text());
    }
    let domains = system.shell("domains", seconds(30))?;
    assert!(domains.contains("witness"), "{domains}");
    let devices = system.shell("devices", seconds(30))?;
    for name in ["nic", "disk"] {
        let line = devices.lines().find(|line| line.contains(&format!(" {name} ")));
        assert!(line.is_some_and(|line| line.contains("quarantine")), "{devices}");
    }
    system.shutdown()
}
