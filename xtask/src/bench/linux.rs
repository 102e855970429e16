//! A stock Linux that is measured: Debian's cloud kernel, in which a program of ours (`tests/domains/load`) reads the disk and
//! sends by TCP, to a native domain, to the host and to a second Linux, and a native domain that watches.

use anyhow::{Context, Result};
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xtask::bundle::Member;
use xtask::cpio::{Archive, Kind};
use xtask::guest;

/// The program.
pub const PROGRAM: &str = "load";

const KERNEL: &str = "debian:linux-image-cloud-amd64";
/// What the initramfs is called in the bundle ends so.
const INITRD: &str = "+debian:busybox-static";
/// Linux's driver of event channels for programs.
const MODULE: &str = "xen-evtchn";

/// Block is domain 3, net 4, Linux 5, who watches 6.
pub const POLICY: &str = r#"
[device.disk]
vendor = 0x1af4
device = 0x1042
[device.nic]
vendor = 0x1af4
device = 0x1041
[domain.block]
image = "block"
memory = "16M"
devices = ["disk"]
[domain.block.export.all]
disk = "disk"
partition = "whole"
[domain.net]
image = "net"
memory = "16M"
devices = ["nic"]
[domain.linux]
kind = "pvh"
kernel = "debian:linux-image-cloud-amd64"
initrd = "debian:busybox-static"
memory = "256M"
cmdline = "console=hvc0 ip=10.0.2.15::10.0.2.2:255.255.255.0::eth0:off measured-by=6"
disks = [{ from = "block", export = "all", device = "xvda" }]
nics = [{ from = "net", mac = "00:16:3e:00:00:01", ip = "10.0.2.15" }]
[domain.measure]
image = "bench"
memory = "4M"
arguments = "do=watch-linux block=3 net=4 guest=5"
observe = true
channels = ["linux"]
[domain.sink]
kind = "pvh"
kernel = "debian:linux-image-cloud-amd64"
initrd = "debian:busybox-static"
memory = "192M"
cmdline = "console=hvc0 ip=10.0.2.16::10.0.2.2:255.255.255.0::eth0:off sink=10.0.2.15"
nics = [{ from = "net", mac = "00:16:3e:00:00:02", ip = "10.0.2.16" }]
[domain.taker]
image = "client"
memory = "8M"
arguments = "do=tcp-sink content=any"
nics = [{ from = "net", mac = "00:16:3e:00:00:03", ip = "10.0.2.17" }]
"#;

/// What the initramfs runs first. For a trace, the kernel's symbols go to the disk, where [`symbols`] finds them.
const START: &str = r#"#!/bin/busybox sh
insmod /modules/evtchn.ko
for word in $(cat /proc/cmdline); do
    case $word in
        measured-by=*) watcher=${word#*=} ;;
        forever=*) metric=${word#*=} ;;
        sink=*) /bin/load sink "${word#*=}" ;;
    esac
done
[ -n "$metric" ] && cat /proc/kallsyms > /dev/xvda && sync
/bin/load "$watcher" $metric
"#;

/// Adds the program to the initramfs: a second archive behind the first, which Linux unpacks too.
pub fn add_program(files: &mut [Member], programs: &Path) -> Result<()> {
    let mut archive = Archive::default();
    archive.add("start", Kind::Program, START.as_bytes())?;
    archive.add("bin/load", Kind::Program, &fs::read(programs.join(PROGRAM))?)?;
    for module in guest::modules(KERNEL, &[MODULE])? {
        archive.add("modules/evtchn.ko", Kind::File, &module.data)?;
    }
    let initrd = files.iter_mut().find(|file| file.name.ends_with(INITRD)).context("no initramfs")?;
    initrd.data.extend(archive.finish()?);
    Ok(())
}

/// Takes what Linux sends, through a port of the host, as long as there is the system's folder.
pub fn drain(port: u16, folder: PathBuf) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while folder.exists() {
            // Until Linux listens, the connection ends at once.
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
                while stream.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}

/// The kernel's symbols, as it wrote them to the disk: address, kind, name, and perhaps a module, a line each.
pub fn symbols(folder: &Path) -> Result<Vec<(u64, String)>> {
    let disk = fs::read(folder.join("disk.img"))?;
    let text = String::from_utf8_lossy(disk.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let symbol = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let name = words.nth(1)?;
        Some((address, name.to_owned()))
    };
    Ok(text.lines().filter_map(symbol).collect())
}
