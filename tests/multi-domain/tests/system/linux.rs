//! Linux as Debian ships it, in a virtual machine: `policy/linux.toml` and variations of it.

use bulkhead_test::{Boot, Guest, Result, System, error, seconds};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::{root, target};

/// A kernel is emulated, on a machine that does other things too.
const BOOT: std::time::Duration = seconds(300);

const DISK_BYTES: u64 = 256 << 20;

/// The demo's policy with `changes` made to it.
fn policy(changes: &[(&str, &str)]) -> Result<String> {
    let mut text = fs::read_to_string(root().join("policy/linux.toml"))?;
    for (old, new) in changes {
        if !text.contains(old) {
            return Err(error(&format!("policy/linux.toml has no {old:?}")));
        }
        text = text.replace(old, new);
    }
    Ok(text)
}

/// An empty disk of a test's own, gone at its end.
struct Disk(PathBuf);

impl Disk {
    fn new(name: &str) -> Result<Self> {
        let path = target().join(format!("linux-{name}-{}.img", std::process::id()));
        fs::File::create(&path)?.set_len(DISK_BYTES)?;
        Ok(Self(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

fn boot(policy: &str, disk: &Path) -> Result<System> {
    Boot::policy(policy).demo_disk()?.disk(disk, true).network()?.start()
}

/// What a kernel says when something is wrong with it, or with us.
fn complaints(guest: &mut Guest<'_>) -> Result<String> {
    let output = guest.attempt(
        "dmesg | grep -E 'WARNING|BUG|Oops|lockup|Call Trace|stalls on|Unable to read cpu state|timeout closing'",
        seconds(60),
    )?;
    Ok(output.text)
}

/// Ends a guest by its own command, as a user would.
fn power_off(system: &mut System, domain: &str) -> Result<()> {
    let position = system.position();
    system.guest_again(domain)?.type_line("poweroff -f")?;
    system.wait_from(position, &format!("domain `{domain}` ended"), seconds(60))?;
    system.leave_guest()
}

#[test]
fn a_stock_linux_writes_its_disk_reaches_the_network_and_powers_off() -> Result<()> {
    let disk = Disk::new("whole")?;
    let mut system = boot(&policy(&[])?, &disk.0)?;
    let mut guest = system.guest("linux", BOOT)?;
    assert!(guest.run("uname -r", seconds(30))?.contains("cloud-amd64"));
    assert!(guest.run("dmesg", seconds(60))?.contains("Booting kernel on Xen PVH"));

    guest.run("mkfs.ext4 -q /dev/xvda && mount /dev/xvda /mnt", seconds(120))?;
    guest.run("dd if=/dev/urandom of=/mnt/data bs=64k count=1024 conv=fsync 2>/dev/null", seconds(300))?;
    let sum = guest.run("sha256sum < /mnt/data | cut -d' ' -f1; umount /mnt", seconds(300))?;
    for block in ["4k", "64k"] {
        let copy = format!("dd if=/dev/xvda of=/dev/null bs={block} count=64 iflag=direct 2>&1");
        guest.run(&copy, seconds(60))?;
    }

    guest.run("ping -c 3 -W 10 10.0.2.2", seconds(60))?;
    let page = guest.run("wget -q -O - http://10.0.2.15/", seconds(120))?;
    assert!(page.contains("<html"), "the web domain's page: {page}");
    assert_eq!(complaints(&mut guest)?, "");

    power_off(&mut system, "linux")?;
    assert_eq!(host_sum(&disk.0)?, sum, "what the guest wrote and what is in the image");
    system.shutdown()
}

/// The checksum of the file `data` in the ext4 file system of an image, without mounting it.
fn host_sum(image: &Path) -> Result<String> {
    let script = format!("set -o pipefail; /sbin/debugfs -R 'cat /data' '{}' 2>/dev/null | sha256sum", image.display());
    let out = Command::new("bash").args(["-c", &script]).output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.split_whitespace().next().map(str::to_owned).ok_or_else(|| error("debugfs shows nothing"))
}

#[test]
fn two_vcpus_of_the_general_kernel_come_up() -> Result<()> {
    let disk = Disk::new("general")?;
    let changes = [("debian:linux-image-cloud-amd64", "debian:linux-image-amd64"), ("vcpus = 1", "vcpus = 2")];
    let mut system = boot(&policy(&changes)?, &disk.0)?;
    let mut guest = system.guest("linux", BOOT)?;
    assert_eq!(guest.run("nproc", seconds(30))?, "2");
    // ext4 and what it needs are modules here.
    guest.run("mkfs.ext4 -q /dev/xvda && mount /dev/xvda /mnt && umount /mnt", seconds(120))?;
    guest.run("for cpu in 0 1; do taskset -c $cpu ping -c 1 -W 10 10.0.2.2 || exit 1; done", seconds(60))?;
    assert_eq!(complaints(&mut guest)?, "");
    power_off(&mut system, "linux")?;
    system.shutdown()
}

#[test]
fn a_read_only_export_refuses_a_linux_that_writes() -> Result<()> {
    let disk = Disk::new("read-only")?;
    let own = "disks = [{ from = \"block\", export = \"scratch\", device = \"xvda\" }]";
    let more = "disks = [{ from = \"block\", export = \"scratch\", device = \"xvda\" }, \
                { from = \"block\", export = \"site\", device = \"xvdb\" }]";
    let mut system = boot(&policy(&[(own, more)])?, &disk.0)?;
    let mut guest = system.guest("linux", BOOT)?;
    assert_eq!(guest.run("cat /sys/block/xvdb/ro /sys/block/xvda/ro", seconds(30))?, "1\n0");
    guest.run("mount -t ext4 -o ro /dev/xvdb /mnt && ls /mnt && umount /mnt", seconds(60))?;
    // Even a kernel that is talked out of its own check does not get through.
    guest.attempt("blockdev --setrw /dev/xvdb", seconds(30))?;
    let before = guest.run("sha256sum < /dev/xvdb", seconds(120))?;
    let written = guest.attempt("dd if=/dev/urandom of=/dev/xvdb bs=4k count=4 oflag=direct 2>&1", seconds(60))?;
    assert_ne!(written.status, 0, "{}", written.text);
    guest.run("echo 3 > /proc/sys/vm/drop_caches", seconds(30))?;
    assert_eq!(guest.run("sha256sum < /dev/xvdb", seconds(120))?, before);
    power_off(&mut system, "linux")?;
    system.shutdown()
}
