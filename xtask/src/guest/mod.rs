//! What virtual machines boot: kernels and initrds, from files or from Debian packages, as the bundle carries them.

mod debian;
mod initramfs;
mod kernel;
mod modules;
mod program;
mod unpack;

use crate::bundle::Member;
use crate::say;
use anyhow::{Context, Result, bail};
use debian::Package;
pub use modules::Module;
use policy::{Guest, Policy};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What begins the name of a Debian package in `kernel` and `initrd`.
const DEBIAN: &str = "debian:";
/// The package that an initrd can be made of.
const BUSYBOX: &str = "busybox-static";

/// Kernels and initrds of all virtual machines of a policy, each once. Files are found from `folder`.
pub fn members(policy: &Policy, folder: &Path) -> Result<Vec<Member>> {
    // Tests run side by side, and the first fetches and unpacks what all use.
    static FETCHING: Mutex<()> = Mutex::new(());
    let _fetching = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut members: Vec<Member> = vec![];
    let words = policy.guests().flat_map(|guest| [Some(guest.kernel), guest.initrd]).flatten();
    let packages: Vec<&str> = words.filter_map(|word| word.strip_prefix(DEBIAN)).collect();
    let more = packages.contains(&BUSYBOX).then_some(initramfs::E2FSPROGS);
    debian::learn(packages.into_iter().chain(more))?;
    for guest in policy.guests() {
        let of = |what: &str| format!("[domain.{}]: {what}", guest.domain);
        if !members.iter().any(|member| member.name == guest.kernel) {
            let data = kernel(guest.kernel, folder).with_context(|| of("kernel"))?;
            members.push(Member { name: guest.kernel.to_owned(), data });
        }
        if let (Some(initrd), Some(name)) = (guest.initrd, &guest.initrd_file)
            && !members.iter().any(|member| member.name == *name)
        {
            let data = self::initrd(&guest, initrd, folder).with_context(|| of("initrd"))?;
            members.push(Member { name: name.clone(), data });
        }
    }
    Ok(members)
}

/// Modules of a kernel that is named as in a policy, with those that they depend on, in the order in which they load.
pub fn modules(kernel: &str, names: &[&str]) -> Result<Vec<Module>> {
    let package = kernel.strip_prefix(DEBIAN).with_context(|| format!("{kernel} is no Debian package"))?;
    modules::needed(&Package::kernel(package)?, names)
}

/// The policy file's folder, from which its files are found.
pub fn folder(policy: &Path) -> PathBuf {
    policy.parent().map(Path::to_path_buf).unwrap_or_default()
}

fn read(file: &str, folder: &Path) -> Result<Vec<u8>> {
    let path = folder.join(file);
    fs::read(&path).with_context(|| {
        format!(
            "cannot read {} (a path is relative to the policy file; a Debian package is \"{DEBIAN}NAME\")",
            path.display()
        )
    })
}

fn kernel(name: &str, folder: &Path) -> Result<Vec<u8>> {
    let Some(package) = name.strip_prefix(DEBIAN) else {
        return kernel::elf(&read(name, folder)?).with_context(|| format!("{name}: no kernel that can be used"));
    };
    let package = Package::kernel(package)?;
    // Unpacking takes seconds: the result is kept beside the package's files.
    let cache = package.folder.join("kernel.elf");
    if let Ok(elf) = fs::read(&cache) {
        return Ok(elf);
    }
    let file = package.vmlinuz()?;
    say("Unpacking", &file.display().to_string());
    let elf = kernel::elf(&fs::read(&file)?).with_context(|| format!("{}", file.display()))?;
    debian::write_whole(&cache, &elf)?;
    Ok(elf)
}

fn initrd(guest: &Guest<'_>, name: &str, folder: &Path) -> Result<Vec<u8>> {
    match name.strip_prefix(DEBIAN) {
        None => read(name, folder),
        Some(BUSYBOX) => {
            let kernel = guest.kernel.strip_prefix(DEBIAN).map(Package::kernel).transpose()?;
            initramfs::make(&Package::get(BUSYBOX)?, kernel.as_ref())
        }
        Some(other) => bail!("an initramfs can be made of `{DEBIAN}{BUSYBOX}`, not of `{other}`; or name a file"),
    }
}
