//! A small initramfs: busybox, the kernel's modules for disks and networks, and a shell on the console.

use super::debian::Package;
use super::modules;
use crate::cpio::{Archive, Kind};
use anyhow::Result;

/// What a guest needs of its kernel's modules, if it is not built in. `crc32c_generic` is what ext4 and jbd2 ask the crypto
/// layer for by name, which no dependency says.
const MODULES: [&str; 4] = ["xen-blkfront", "xen-netfront", "crc32c_generic", "ext4"];

/// The first program.
const INIT: &str = include_str!("init.sh");

/// Makes the archive. Without a package of the kernel there are no modules: what the kernel has built in must do.
pub fn make(busybox: &Package, kernel: Option<&Package>) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "etc", "mnt", "modules", "proc", "root", "run", "sys", "tmp"] {
        archive.add(folder, Kind::Folder, &[])?;
    }
    // For the messages of the first program before it has mounted anything: major 5, minor 1.
    archive.add("dev/console", Kind::CharacterDevice(5, 1), &[])?;
    archive.add("bin/busybox", Kind::Program, &busybox.read("bin/busybox")?)?;
    archive.add("init", Kind::Program, INIT.as_bytes())?;
    let mut order = String::new();
    for module in kernel.map_or(Ok(vec![]), |kernel| modules::needed(kernel, &MODULES))? {
        archive.add(&format!("modules/{}", module.file), Kind::File, &module.data)?;
        order += &module.file;
        order.push('\n');
    }
    archive.add("modules/order", Kind::File, order.as_bytes())?;
    archive.finish()
}
