//! A small initramfs: busybox, `mkfs.ext4`, the kernel's modules for disks and networks, and a shell on the console.

use super::debian::Package;
use super::{modules, program};
use crate::cpio::{Archive, Kind};
use anyhow::{Context, Result};

/// What a guest needs of its kernel's modules, if it is not built in. `crc32c_generic` is what ext4 and jbd2 ask the crypto
/// layer for by name, which no dependency says.
const MODULES: [&str; 4] = ["xen-blkfront", "xen-netfront", "crc32c_generic", "ext4"];

/// The first program.
const INIT: &str = include_str!("init.sh");

/// The package that `mkfs.ext4` is in; busybox makes ext2 only.
pub const E2FSPROGS: &str = "e2fsprogs";

const FOLDERS: [&str; 14] = [
    "bin",
    "dev",
    "etc",
    "lib",
    "lib/x86_64-linux-gnu",
    "lib64",
    "mnt",
    "modules",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
];

/// Makes the archive. Without a package of the kernel there are no modules: what the kernel has built in must do.
pub fn make(busybox: &Package, kernel: Option<&Package>) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.add(folder, Kind::Folder, &[])?;
    }
    for file in mkfs()? {
        archive.add(&file.path, Kind::Program, &file.data)?;
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

/// `mkfs.ext4` with its settings and libraries. It goes by the name that it is called by.
fn mkfs() -> Result<Vec<program::File>> {
    let packages = Package::with_dependencies(E2FSPROGS)?;
    let own = packages.first().context("no package")?;
    let program = own.read("sbin/mke2fs").or_else(|_| own.read("usr/sbin/mke2fs"))?;
    let settings = program::File { path: "etc/mke2fs.conf".to_owned(), data: own.read("etc/mke2fs.conf")? };
    let mut files = program::with_libraries("sbin/mkfs.ext4", program, &packages)?;
    files.push(settings);
    Ok(files)
}
