//! `policy check | explain | graph`: the policy language's own tools, on the machine that `run` makes.

use anyhow::{Context, Result, anyhow};
use policy::Policy;
use std::fs;
use std::path::Path;
use xtask::images;
use xtask::machine::{DISK_IDS, Disk, Machine, Network};

/// Reads and parses a policy file.
pub fn load(file: &Path) -> Result<Policy> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read the policy {}", file.display()))?;
    policy::load(&file.display().to_string(), &text).map_err(refused)
}

/// An error list as it stands: it has its own layout.
pub fn refused(errors: policy::Errors) -> anyhow::Error {
    anyhow!("the policy is not accepted\n\n{errors}")
}

/// The disks that a policy describes: as many as the machine that runs it has, and one at least.
pub fn disks(policy: &Policy) -> usize {
    let (vendor, device) = DISK_IDS;
    let is_disk = |entry: &&policy::table::Device| entry.vendor == Some(vendor) && entry.device == Some(device);
    policy.table().devices.iter().filter(is_disk).count().max(1)
}

/// The machine of `cargo xtask run` without options.
fn usual_machine(policy: &Policy) -> Machine {
    let usual = Machine::default();
    let disk = Disk { image: "disk.img".into(), keep_writes: false };
    Machine {
        memory: policy.memory_needed(&[]).max(usual.memory),
        disks: vec![disk; disks(policy)],
        network: Some(Network::User { port: 8080 }),
        ..usual
    }
}

/// The images that ship, for the checker; their sizes are known only once built, so 0.
pub fn shipped_images() -> Vec<policy::ImageInfo> {
    images::IMAGES.iter().map(|name| policy::ImageInfo { name: (*name).into(), bytes: 0 }).collect()
}

/// `policy check FILE`.
pub fn check(file: &Path) -> Result<()> {
    let policy = load(file)?;
    policy.check(&usual_machine(&policy).for_policy(), &shipped_images()).map_err(refused)?;
    println!("{}: accepted, {} bytes compiled", file.display(), policy.compile().len());
    Ok(())
}

/// `policy explain A B`.
pub fn explain(file: &Path, a: &str, b: &str) -> Result<()> {
    let text = load(file)?.explain(a, b).map_err(refused)?;
    println!("{}", text.trim_end());
    Ok(())
}

/// `policy graph FILE`.
pub fn graph(file: &Path) -> Result<()> {
    print!("{}", load(file)?.graph());
    Ok(())
}
