//! Building the hypervisor and the domain images.

use crate::command::run;
use crate::say;
use crate::toolchain::{self, TARGET};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// Packages whose binaries run on the bare machine: the hypervisor, and the images that a policy can name.
pub const HYPERVISOR: &str = "hv";
/// The images that ship.
pub const IMAGES: &[&str] = &["policy-domain", "xenstore", "console", "block", "net", "web", "hello"];

/// Builds the hypervisor and the named packages (`IMAGES`, or a test's own), and returns the folder of the programs.
pub fn build(packages: &[&str]) -> Result<PathBuf> {
    let toolchain = toolchain::choose()?;
    say("Building", &format!("{HYPERVISOR} {} for {TARGET}", packages.join(" ")));
    let start = Instant::now();
    let mut cargo = toolchain.cargo("build");
    cargo.arg("--quiet");
    for package in [&HYPERVISOR].into_iter().chain(packages) {
        cargo.args(["--package", package]);
    }
    run(&mut cargo)?;
    say("Built", &format!("in {:.1} s", start.elapsed().as_secs_f32()));
    Ok(toolchain.programs())
}

/// Reads an image made by [`build`], without the debugging sections, which no loader needs.
pub fn read(programs: &std::path::Path, name: &str) -> Result<Vec<u8>> {
    let path = programs.join(name);
    let elf = fs::read(&path).with_context(|| format!("no image {}", path.display()))?;
    strip(elf).with_context(|| format!("image {}", path.display()))
}

/// Cuts an ELF64 file behind the last byte that a segment loads and clears the section table.
fn strip(mut elf: Vec<u8>) -> Result<Vec<u8>> {
    if elf.len() < 64 || &elf[..4] != b"\x7fELF" {
        bail!("not an ELF file");
    }
    let u64_at = |at: usize| elf.get(at..at + 8).map(|b| u64::from_le_bytes(b.try_into().unwrap_or_default()));
    let u16_at = |at: usize| elf.get(at..at + 2).map(|b| u16::from_le_bytes(b.try_into().unwrap_or_default()));
    let (Some(table), Some(size), Some(count)) = (u64_at(32), u16_at(54), u16_at(56)) else { bail!("truncated") };
    let mut end = table as usize + usize::from(size) * usize::from(count);
    for number in 0..usize::from(count) {
        let entry = table as usize + number * usize::from(size);
        let (Some(offset), Some(bytes)) = (u64_at(entry + 8), u64_at(entry + 32)) else { bail!("truncated") };
        end = end.max(offset as usize + bytes as usize);
    }
    elf.truncate(end);
    elf[40..48].fill(0); // e_shoff
    elf[58..64].fill(0); // e_shentsize, e_shnum, e_shstrndx
    Ok(elf)
}
