//! Debian packages that the build and the tests need: installed where root or sudo allows it, else the command to type.

use crate::command::{exists, output, show};
use crate::say;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};

/// Something that must be on the machine, and the packages that bring it.
pub struct Need {
    /// A program on the path, or an absolute path of a file.
    pub thing: &'static str,
    /// Debian packages.
    pub packages: &'static [&'static str],
}

/// The emulator.
pub const QEMU: Need = Need { thing: "qemu-system-x86_64", packages: &["qemu-system-x86"] };
/// Makes ext4 images.
pub const MKE2FS: Need = Need { thing: "/sbin/mke2fs", packages: &["e2fsprogs"] };
/// Xen's public headers, which the ABI is checked against.
pub const XEN_HEADERS: Need = Need { thing: "/usr/include/xen/xen.h", packages: &["libxen-dev"] };
/// The C compiler for that check, and the linker of host programs.
pub const C_COMPILER: Need = Need { thing: "cc", packages: &["gcc", "libc6-dev"] };

impl Need {
    fn is_met(&self) -> bool {
        if self.thing.starts_with('/') { Path::new(self.thing).exists() } else { exists(self.thing) }
    }
}

/// Installs what is missing of `needs`.
pub fn require(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages.iter().copied()).collect();
    install(&packages)?;
    match missing.iter().find(|need| !need.is_met()) {
        Some(need) => bail!("{} is still missing after installing {}", need.thing, need.packages.join(" ")),
        None => Ok(()),
    }
}

/// Installs packages by apt.
pub fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("sudo apt-get update && sudo apt-get install --no-install-recommends {}", packages.join(" "));
    if !exists("apt-get") {
        bail!("missing: {}. This is no Debian system; install the like of these packages", packages.join(", "));
    }
    let Some(prefix) = privilege() else {
        bail!("missing: {}. Type:\n    {by_hand}", packages.join(", "));
    };
    say("Installing", &format!("{} (apt)", packages.join(" ")));
    apt(prefix, &["update"])?;
    let wanted: Vec<String> = packages.iter().map(|package| (*package).to_owned()).collect();
    if try_install(prefix, &wanted).is_ok() {
        return Ok(());
    }
    // Tools of a newer QEMU (from backports, say) forbid the release's emulator: bring them to the same version.
    if packages.contains(&"qemu-system-x86")
        && let Some(version) = candidate("qemu-system-x86")
    {
        say("Installing", &format!("qemu-utils at the same version ({version})"));
        let mut aligned = wanted;
        aligned.push(format!("qemu-utils={version}"));
        if try_install(prefix, &aligned).is_ok() {
            return Ok(());
        }
    }
    bail!("apt could not install {}. Try:\n    {by_hand}", packages.join(" "))
}

/// Renews what apt knows of packages, where root or sudo allows it; else it stays as it is.
pub fn refresh() {
    if let Some(prefix) = privilege() {
        say("Refreshing", "the list of packages (apt)");
        if let Err(why) = apt(prefix, &["update"]) {
            eprintln!("note: {why:#}");
        }
    }
}

fn try_install(prefix: &[&str], packages: &[String]) -> Result<()> {
    let mut arguments = vec!["install", "-y", "--no-install-recommends", "--allow-downgrades"];
    arguments.extend(packages.iter().map(String::as_str));
    apt(prefix, &arguments)
}

fn apt(prefix: &[&str], arguments: &[&str]) -> Result<()> {
    let words: Vec<&str> = prefix.iter().copied().chain(["apt-get", "-q"]).chain(arguments.iter().copied()).collect();
    let (program, rest) = words.split_first().unwrap_or((&"apt-get", &[]));
    let mut command = Command::new(program);
    command.args(rest).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    let out = command.output()?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        eprintln!("{}", text.trim_end());
        bail!("`{}` failed ({})", show(&command), out.status);
    }
    Ok(())
}

/// How to become root: not at all, by sudo without a password, or impossible.
fn privilege() -> Option<&'static [&'static str]> {
    if output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0") {
        return Some(&[]);
    }
    output(Command::new("sudo").args(["-n", "true"])).is_ok().then_some(&[
        "sudo",
        "-n",
        "DEBIAN_FRONTEND=noninteractive",
    ])
}

fn candidate(package: &str) -> Option<String> {
    let text = output(Command::new("apt-cache").args(["policy", package])).ok()?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?;
    Some(line.trim().to_owned())
}
