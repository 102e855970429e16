//! Linux as Debian ships it, in a virtual machine: `policy/linux.toml` and variations of it.

use bulkhead_test::{Boot, Guest, Result, System, error, seconds};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use xtask::{root, target};

/// A kernel is emulated, on a machine that does other things too.
pub const BOOT: Duration = seconds(300);

const DISK_BYTES: u64 = 256 << 20;

/// The demo's policy with `changes` made to it.
pub fn policy(changes: &[(&str, &str)]) -> Result<String> {
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
pub struct Disk(pub PathBuf);

impl Disk {
    pub fn new(name: &str) -> Result<Self> {
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

pub fn boot(policy: &str, disk: &Path) -> Result<System> {
    Boot::policy(policy).demo_disk()?.disk(disk, true).network()?.start()
}

/// Lines of the levels from emergency to warning that a sound kernel has here, and why. Each of them was seen in PVH guests of
/// Xen 4.17 with the same kernels and the same initramfs, on the same emulator; those guests had more of such lines (docs/guests.md).
const EXPECTED: &[&str] = &[
    // There is no I/O APIC.
    "ACPI: No IOAPIC entries present",
    // Which follows from it: Linux sets the trigger of ACPI's interrupt, 9, in a register that is not there (it reads ones).
    "ACPI: setting ELCR to 0200 (from ffff)",
    // There is no PCI.
    "PCI: Fatal: No config space access function found",
    "PCI: System does not support PCI",
    // No complaints: printed without a level, which counts as a warning. The second for each of several vCPUs.
    "Grant table initialized",
    " spinlock event irq ",
    // A busy host takes the CPU away from its emulator, and so from everybody in it. Under Xen as here, when the emulator is stopped
    // for moments.
    "clocksource: Long readout interval, skipping watchdog check",
    "hrtimer: interrupt took ",
];

/// What a kernel says when something is wrong with it, or with us: lines of the levels from emergency to warning that are not
/// [`EXPECTED`], and some others whatever their level.
pub fn complaints(guest: &mut Guest<'_>) -> Result<String> {
    const BAD: &[&str] =
        &["WARNING", "BUG", "Oops", "lockup", "Call Trace", "stalls on", "Unable to read cpu state", "timeout closing"];
    // `<LEVEL>[TIME] TEXT`
    let log = guest.run("dmesg -r", seconds(60))?;
    let complains = |line: &&str| {
        let level = line.strip_prefix('<').and_then(|rest| rest.split_once('>')?.0.parse::<u32>().ok());
        let severe = level.is_some_and(|level| level & 7 <= 4);
        BAD.iter().any(|bad| line.contains(bad)) || severe && !EXPECTED.iter().any(|text| line.contains(text))
    };
    Ok(log.lines().filter(complains).collect::<Vec<_>>().join("\n"))
}

/// Ends a guest by its own command, as a user would. Its devices close, and nobody waits for a back end in vain.
pub fn power_off(system: &mut System, domain: &str) -> Result<()> {
    let position = system.position();
    let mut guest = system.guest_again(domain)?;
    guest.run("dmesg -n 8", seconds(30))?;
    guest.type_line("poweroff -f")?;
    system.wait_from(position, &format!("domain `{domain}` ended"), seconds(60))?;
    let said = system.text().split_off(position);
    assert!(said.contains("reboot: Power down") && !said.contains("timeout closing"), "{said}");
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

/// Boots a kernel with so many vCPUs and looks around.
fn short_boot(package: &str, vcpus: u32, act: impl FnOnce(&mut Guest<'_>) -> Result<()>) -> Result<()> {
    let disk = Disk::new(&format!("{package}-{vcpus}"))?;
    let count = format!("vcpus = {vcpus}");
    let changes = [("linux-image-cloud-amd64", package), ("vcpus = 1", count.as_str())];
    let mut system = boot(&policy(&changes)?, &disk.0)?;
    let mut guest = system.guest("linux", BOOT)?;
    assert_eq!(guest.run("nproc", seconds(30))?, vcpus.to_string());
    assert_eq!(guest.run("uname -r", seconds(30))?.contains("cloud"), package.contains("cloud"));
    act(&mut guest)?;
    assert_eq!(complaints(&mut guest)?, "");
    power_off(&mut system, "linux")?;
    system.shutdown()
}

#[test]
fn one_vcpu_of_the_general_kernel_comes_up() -> Result<()> {
    short_boot("linux-image-amd64", 1, |guest| guest.run("ping -c 1 -W 10 10.0.2.2", seconds(60)).map(drop))
}

#[test]
fn two_vcpus_of_the_cloud_kernel_come_up() -> Result<()> {
    short_boot("linux-image-cloud-amd64", 2, |guest| guest.run("ping -c 1 -W 10 10.0.2.2", seconds(60)).map(drop))
}

#[test]
fn what_a_linux_discards_is_gone_from_the_image_and_nothing_else_is() -> Result<()> {
    const MIB: u64 = 1 << 20;
    let disk = Disk::new("discard")?;
    let blocks = || -> Result<u64> { Ok(fs::metadata(&disk.0)?.blocks() * 512) };
    let more = "disks = [{ from = \"block\", export = \"scratch\", device = \"xvda\" }, \
                { from = \"block\", export = \"site\", device = \"xvdb\" }]";
    let own = "disks = [{ from = \"block\", export = \"scratch\", device = \"xvda\" }]";
    let mut system = boot(&policy(&[(own, more)])?, &disk.0)?;
    let mut guest = system.guest("linux", BOOT)?;
    // Only where it may be written.
    let most = guest
        .run("cat /sys/block/xvda/queue/discard_max_bytes /sys/block/xvdb/queue/discard_max_bytes", seconds(30))?;
    assert!(most.ends_with("\n0") && !most.starts_with('0'), "{most}");

    let fill = "dd if=/dev/urandom of=/dev/xvda bs=1M count=48 seek=16 oflag=direct 2>/dev/null";
    guest.run(fill, seconds(120))?;
    let kept = "dd if=/dev/xvda bs=1M skip=16 count=8 iflag=direct 2>/dev/null | sha256sum";
    let before = guest.run(kept, seconds(60))?;
    let full = blocks()?;
    assert!(full >= 48 * MIB, "{full} bytes of 48 MiB");
    // Megabytes 24 to 55; what is on either side stays.
    guest.run(&format!("blkdiscard -o {} -l {} /dev/xvda", 24 * MIB, 32 * MIB), seconds(60))?;
    let hole = blocks()?;
    assert!(hole + 32 * MIB <= full, "{full} bytes before, {hole} after");
    let zeros = "dd if=/dev/xvda bs=1M skip=24 count=32 iflag=direct 2>/dev/null | tr -d '\\0' | wc -c";
    assert_eq!(guest.run(zeros, seconds(120))?, "0");
    assert_eq!(guest.run(kept, seconds(60))?, before);
    let mut rest = vec![0; 8 << 20];
    let file = fs::File::open(&disk.0)?;
    file.read_exact_at(&mut rest, 56 * MIB)?;
    assert!(rest.chunks(4096).all(|block| block.iter().any(|byte| *byte != 0)), "what is behind was discarded too");

    // A whole file system, as people do it: what it has freed goes.
    guest.run("mkfs.ext4 -q /dev/xvda && mount /dev/xvda /mnt", seconds(120))?;
    guest.run("dd if=/dev/urandom of=/mnt/data bs=1M count=32 conv=fsync 2>/dev/null", seconds(120))?;
    let full = blocks()?;
    guest.run("rm /mnt/data && sync && fstrim /mnt && umount /mnt", seconds(120))?;
    let trimmed = blocks()?;
    assert!(trimmed + 24 * MIB < full, "{full} bytes before, {trimmed} after");
    assert_eq!(complaints(&mut guest)?, "");
    power_off(&mut system, "linux")?;
    system.shutdown()
}

/// MiB that the shell's `domains` shows of a domain, and frames that nobody has.
fn memory_shown(system: &mut System, domain: &str) -> Result<(u64, u64)> {
    let text = system.shell("domains", seconds(30))?;
    // Name, id, state, number, unit.
    let row = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let shown = row.filter(|words| words.first() == Some(&domain)).find_map(|words| words.get(3)?.parse().ok());
    // "... frames free of ..., ... used by the hypervisor, ... promised to domains"
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let free = text.lines().find_map(|line| {
        let (free, rest) = line.split_once(" frames free")?;
        let kept = rest.split_once(" promised")?.0.rsplit(' ').next()?;
        Some(number(free)? + number(kept)?)
    });
    shown.zip(free).ok_or_else(|| error(&text))
}

#[test]
fn a_linux_does_with_less_memory_when_it_is_asked_to_and_takes_it_back() -> Result<()> {
    const HELD_FRAMES: u64 = (100 << 20) / 4096;
    let disk = Disk::new("balloon")?;
    let mut system = boot(&policy(&[])?, &disk.0)?;
    let mut guest = system.guest("linux", BOOT)?;
    let sum = "dd if=/dev/urandom of=/data bs=1M count=16 2>/dev/null; sha256sum < /data";
    let sum = guest.run(sum, seconds(120))?;
    system.leave_guest()?;

    for (words, answer) in [
        ("block 8M", "no virtual machine"),
        ("linux 300M", "between 16 MiB and 256 MiB"),
        ("linux 1M", "between"),
        ("linux 128", "no unit"),
        ("nobody 128M", "no domain"),
    ] {
        let said = system.shell(&format!("memory {words}"), seconds(30))?;
        assert!(said.contains(answer), "{words}: {said}");
    }
    let (all, free) = memory_shown(&mut system, "linux")?;
    for (target, reached) in [(128, 0..=140), (256, all..=all), (144, 0..=156), (256, all..=all)] {
        system.shell(&format!("memory linux {target}M"), seconds(30))?;
        let end = Instant::now() + seconds(120);
        loop {
            let (now, free_now) = memory_shown(&mut system, "linux")?;
            let given = free_now.saturating_sub(free);
            if reached.contains(&now) && (given >= HELD_FRAMES) == (target != 256) {
                break;
            }
            assert!(Instant::now() < end, "asked for {target} MiB, it has {now}, {given} more frames are free");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    // A frame more or less is a page table.
    let (_, free_again) = memory_shown(&mut system, "linux")?;
    assert!(free.abs_diff(free_again) < 64, "{free} frames were free before, {free_again} after");

    let mut guest = system.guest_again("linux")?;
    assert_eq!(guest.run("sha256sum < /data", seconds(60))?, sum, "what it kept meanwhile");
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

/// Lets the host reach a port of the guest, by a free port of its own.
pub fn forward(system: &System, protocol: &str, guest: u16) -> Result<u16> {
    let host = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let rule = format!("hostfwd_add net0 {protocol}:127.0.0.1:{host}-10.0.2.16:{guest}");
    let answer = system.qmp()?.monitor(&rule)?;
    if answer.contains("could not") || answer.contains("invalid") {
        return Err(error(&answer));
    }
    Ok(host)
}

/// Bytes that look like nothing, the same each time.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect()
}

fn sum(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_linux_receives_and_sends_64_mib_unchanged() -> Result<()> {
    const BYTES: usize = 64 << 20;
    let disk = Disk::new("transfer")?;
    let mut system = boot(&policy(&[])?, &disk.0)?;
    let port = forward(&system, "tcp", 5000)?;
    let mut guest = system.guest("linux", BOOT)?;
    guest.run("mkfs.ext4 -q /dev/xvda && mount /dev/xvda /mnt", seconds(120))?;

    let data = noise(BYTES);
    guest.run("nc -l -p 5000 > /mnt/data & sleep 1", seconds(30))?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(&data)?;
    drop(stream);
    assert_eq!(guest.run("wait; sha256sum < /mnt/data | cut -d' ' -f1", seconds(300))?, sum(&data), "to the guest");

    guest.run("nc -l -p 5000 < /mnt/data & sleep 1", seconds(30))?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(seconds(60)))?;
    let mut back = vec![0; BYTES];
    stream.read_exact(&mut back)?;
    assert_eq!(sum(&back), sum(&data), "from the guest");
    drop(stream);
    assert_eq!(complaints(&mut guest)?, "");
    power_off(&mut system, "linux")?;
    system.shutdown()
}

#[test]
fn half_a_minute_of_udp_as_fast_as_it_goes_harms_no_linux() -> Result<()> {
    let disk = Disk::new("udp")?;
    let mut system = boot(&policy(&[])?, &disk.0)?;
    let port = forward(&system, "udp", 9)?;
    let mut guest = system.guest("linux", BOOT)?;
    // From the guest: every line that the logger is given goes out as a datagram, to a port where nobody listens.
    guest.run("syslogd -n -R 10.0.2.15:9 -O /dev/null & sleep 1; yes datagram | logger & sleep 0", seconds(30))?;
    let sent = "cat /sys/class/net/eth0/statistics/tx_packets";
    let before: u64 = guest.run(sent, seconds(60))?.parse()?;
    // To the guest, at the same time.
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    let end = Instant::now() + seconds(30);
    while Instant::now() < end {
        for _ in 0..100 {
            socket.send_to(&[7; 1400], ("127.0.0.1", port)).ok(); // nothing has to arrive
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let after: u64 = guest.run(&format!("killall yes logger syslogd; {sent}"), seconds(120))?.parse()?;
    assert!(after - before > 1000, "{} datagrams in half a minute", after - before);
    guest.run("ping -c 3 -W 10 10.0.2.2", seconds(60))?;
    assert_eq!(complaints(&mut guest)?, "");
    assert_eq!(system.http().get("/")?.status, 200);
    power_off(&mut system, "linux")?;
    system.shutdown()
}

/// A second virtual machine on the same network.
const SECOND: &str = r#"
[domain.second]
kind = "pvh"
memory = "192M"
kernel = "debian:linux-image-cloud-amd64"
initrd = "debian:busybox-static"
cmdline = "console=hvc0 ip=10.0.2.17::10.0.2.2:255.255.255.0::eth0:off"
nics = [{ from = "net", mac = "52:54:00:b1:6b:03", ip = "10.0.2.17" }]
"#;

#[test]
fn two_linuxes_talk_to_each_other_and_to_web() -> Result<()> {
    let disk = Disk::new("two")?;
    let text = policy(&[])? + SECOND;
    let machine = |machine: &mut xtask::machine::Machine| machine.grow_to(1 << 30);
    let mut system = Boot::policy(&text).demo_disk()?.disk(&disk.0, true).network()?.machine(machine).start()?;
    let mut first = system.guest("linux", BOOT)?;
    first.run("dd if=/dev/urandom of=/tmp/data bs=64k count=256 2>/dev/null", seconds(120))?;
    let sum = first.run("sha256sum < /tmp/data; nc -l -p 7000 < /tmp/data & sleep 1", seconds(120))?;
    let mut second = system.guest("second", BOOT)?;
    second.run("ping -c 3 -W 10 10.0.2.16", seconds(60))?;
    // An end of its input would end the other side; a pipe that it holds open itself has none.
    let fetch = "mkfifo /tmp/pipe; nc 10.0.2.16 7000 <> /tmp/pipe | sha256sum";
    assert_eq!(second.run(fetch, seconds(300))?, sum);
    for domain in ["second", "linux"] {
        let mut guest = system.guest_again(domain)?;
        assert!(guest.run("wget -q -O - http://10.0.2.15/", seconds(120))?.contains("<html"));
        assert_eq!(complaints(&mut guest)?, "");
        power_off(&mut system, domain)?;
    }
    system.shutdown()
}

/// A native domain that takes packets larger than frames, and looks at each byte.
const TAKER: &str = r#"
[domain.taker]
image = "client"
memory = "8M"
arguments = "do=tcp-sink"
nics = [{ from = "net", mac = "52:54:00:b1:6b:03", ip = "10.0.2.17" }]
"#;

#[test]
fn what_a_linux_sends_in_large_packets_reaches_a_native_domain_unchanged() -> Result<()> {
    const BYTES: usize = 16 << 20;
    let disk = Disk::new("taker")?;
    let boot = Boot::policy(&(policy(&[])? + TAKER)).image("client");
    let mut system = boot.demo_disk()?.disk(&disk.0, true).network()?.start()?;
    let port = forward(&system, "tcp", 5000)?;
    let position = system.position();
    let mut guest = system.guest("linux", BOOT)?;
    guest.run("nc -l -p 5000 > /tmp/data & sleep 1", seconds(30))?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(&(0..BYTES as u64).map(crate::restart::byte).collect::<Vec<_>>())?;
    drop(stream);
    let sent = "cat /sys/class/net/eth0/statistics/tx_packets";
    let before: usize = guest.run(&format!("wait; {sent}"), seconds(120))?.parse()?;
    // Written in large pieces, which `nc` itself would not do.
    let send = "echo 'dd if=/tmp/data bs=64k 2>/dev/null' > /tmp/send; nc 10.0.2.17 80 -e sh /tmp/send";
    guest.run(send, seconds(120))?;
    system.wait_from(position, &format!("took {BYTES}, all good"), seconds(30))?;
    let mut guest = system.guest_again("linux")?;
    let packets = guest.run(sent, seconds(30))?.parse::<usize>()? - before;
    assert!(packets < BYTES / 1448 / 4, "{packets} packets: they were not large");
    assert_eq!(complaints(&mut guest)?, "");
    power_off(&mut system, "linux")?;
    system.shutdown()
}

#[test]
fn front_ends_may_have_large_rings_and_leave_and_come_back() -> Result<()> {
    let disk = Disk::new("again")?;
    let wishes = "console=hvc0 xen_blkfront.max_ring_page_order=2 xen_blkfront.max_indirect_segments=256 ip=";
    let mut system = boot(&policy(&[("console=hvc0 ip=", wishes)])?, &disk.0)?;
    let mut guest = system.guest("linux", BOOT)?;
    assert_eq!(guest.run("cat /sys/module/xen_blkfront/parameters/max_ring_page_order", seconds(30))?, "2");
    guest.run("dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null", seconds(60))?;
    guest.run("dd if=/tmp/data of=/dev/xvda bs=1M oflag=direct 2>/dev/null", seconds(120))?;
    guest.run("echo 3 > /proc/sys/vm/drop_caches; head -c 4194304 /dev/xvda | cmp - /tmp/data", seconds(120))?;
    // The driver waits for the back end to be closing, and then for it to be closed, and so would this command.
    for _ in 0..3 {
        let again = "cd /sys/bus/xen/drivers/vif && echo vif-0 > unbind && echo vif-0 > bind; cd";
        guest.run(again, seconds(60))?;
        guest.run("until ifconfig eth0 10.0.2.16 2>/dev/null; do usleep 100000; done", seconds(60))?;
        guest.run("ping -c 3 -W 10 10.0.2.2", seconds(60))?;
    }
    assert_eq!(complaints(&mut guest)?, "");
    power_off(&mut system, "linux")?;
    system.shutdown()
}

/// Kills of xenstore while a guest boots; `BULKHEAD_KILLS` says otherwise.
const KILLS: u64 = 8;

/// A stock kernel asks xenstore for its devices while xenstore dies under it, and notices nothing but that it takes longer.
#[test]
fn xenstore_is_killed_while_a_linux_boots_and_it_finds_its_devices() -> Result<()> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (kills, seed) = (number("BULKHEAD_KILLS").unwrap_or(KILLS), number("BULKHEAD_SEED").unwrap_or(1));
    let disk = Disk::new("xenstore")?;
    let changes = [("restart = { max = 5, within = \"60s\" }", "restart = \"always\"")];
    let mut system = boot(&policy(&changes)?, &disk.0)?;
    let mut moment = seed;
    for _ in 0..kills {
        let position = system.position();
        system.shell("restart xenstore", seconds(60))?;
        system.wait_from(position, "domain `xenstore` runs again", seconds(60))?;
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((moment >> 33) % 1500));
    }
    let mut guest = system.guest("linux", BOOT)?;
    guest.run("mkfs.ext4 -q /dev/xvda && mount /dev/xvda /mnt", seconds(120))?;
    guest.run("echo kept > /mnt/data && umount /mnt && mount /dev/xvda /mnt", seconds(60))?;
    assert_eq!(guest.run("cat /mnt/data; umount /mnt", seconds(60))?, "kept");
    let page = guest.run("wget -q -O - http://10.0.2.15/", seconds(120))?;
    assert!(page.contains("<html"), "the web domain's page: {page}");
    assert_eq!(complaints(&mut guest)?, "");
    // It is heard at its end too: its devices close.
    power_off(&mut system, "linux")?;
    assert!(!system.text().contains("is served no more"), "{}", system.text());
    system.shutdown()
}
