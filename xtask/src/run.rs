//! `cargo xtask run`: build, boot in QEMU, attach the console.

use crate::policy_file;
use crate::scratch::Scratch;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;
use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use xtask::bundle;
use xtask::command::run as run_command;
use xtask::machine::{Disk, MIB, Machine, Network, Serial};
use xtask::{disk, guest, images, root, say};

/// Options of `run`.
#[derive(Args)]
pub struct Options {
    /// The policy file.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A raw disk image; again for further disks. The first has an ext4 file system for the web domain to serve [default: a
    /// demo site, and for each further disk that the policy describes an empty one, kept in target/]
    #[arg(long, value_name = "IMG")]
    disk: Vec<PathBuf>,
    /// Port on 127.0.0.1 that reaches the web domain.
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// The machine's memory, such as 512M or 2G [default: 512M, or more if the policy needs more]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// QEMU's CPU model.
    #[arg(long, value_name = "MODEL", default_value = "max,la57=off")]
    cpu: String,
    /// Console output only: nothing is read from the terminal.
    #[arg(long)]
    headless: bool,
    /// Leave out the IOMMU. Driver domains are then refused unless the policy accepts unprotected DMA.
    #[arg(long)]
    no_iommu: bool,
    /// Wait for a debugger: `gdb target/bare/x86_64-unknown-none/release/hv -ex 'target remote :1234'`.
    #[arg(long)]
    gdb: bool,
    /// Further words for QEMU.
    #[arg(last = true, value_name = "QEMU ARGS")]
    more: Vec<String>,
}

fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "M" | "MiB" => MIB,
        "G" | "GiB" => 1024 * MIB,
        _ => return Err("write a number and M or G, such as 512M".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "write a number and M or G, such as 512M".to_owned())?;
    match number.checked_mul(unit) {
        Some(bytes) if (64 * MIB..=1024 * 1024 * MIB).contains(&bytes) => Ok(bytes),
        _ => Err("between 64M and 1024G".into()),
    }
}

/// Builds and runs the system until QEMU ends.
pub fn run(options: &Options) -> Result<()> {
    let file = options.policy.clone().unwrap_or_else(|| root().join("policy/demo.toml"));
    let policy = policy_file::load(&file)?;
    let mut machine = machine(options, &policy)?;
    policy.check(&machine.for_policy(), &policy_file::shipped_images()).map_err(policy_file::refused)?;

    let programs = images::build(images::IMAGES)?;
    let members = bundle::members(&policy, &programs, &guest::folder(&file))?;
    let sizes: Vec<_> = members
        .iter()
        .map(|member| policy::ImageInfo { name: member.name.clone(), bytes: member.data.len() as u64 })
        .collect();
    if options.memory.is_none() {
        machine.grow_to(policy.memory_needed(&sizes));
    }
    policy.check(&machine.for_policy(), &sizes).map_err(policy_file::refused)?;

    let folder = Scratch::new()?;
    let bundle_file = folder.path.join("bundle.cpio");
    fs::write(&bundle_file, bundle::write(&members)?)?;
    let mut qemu = machine.qemu(&programs.join(images::HYPERVISOR), &bundle_file)?;
    say("Booting", &format!("http://127.0.0.1:{}/ — leave with `shutdown` or Ctrl-C", options.port));
    attach(&mut qemu, options.headless)
}

fn machine(options: &Options, policy: &policy::Policy) -> Result<Machine> {
    if let Err(why) = TcpListener::bind(("127.0.0.1", options.port)) {
        bail!("port {} on 127.0.0.1 cannot be used ({why}): choose another with --port", options.port);
    }
    let mut disks = options.disk.iter().map(|image| user_disk(image)).collect::<Result<Vec<_>>>()?;
    if disks.is_empty() {
        disks.push(Disk { image: disk::demo()?, keep_writes: false });
    }
    for number in disks.len()..policy_file::disks(policy) {
        disks.push(Disk { image: disk::empty(number + 1)?, keep_writes: true });
    }
    let usual = Machine::default();
    Ok(Machine {
        memory: options.memory.unwrap_or_else(|| policy.memory_needed(&[]).max(usual.memory)),
        cpu: options.cpu.clone(),
        iommu: !options.no_iommu,
        disks,
        network: Some(Network::User { port: options.port }),
        serial: if options.headless { Serial::Output } else { Serial::Terminal },
        debugger: options.gdb,
        more: options.more.clone(),
        ..usual
    })
}

/// A user's image: what the policy lets a domain write is kept, if the file can be written at all.
fn user_disk(image: &Path) -> Result<Disk> {
    let meta = fs::metadata(image).with_context(|| format!("cannot use the disk image {}", image.display()))?;
    if !meta.is_file() {
        bail!("{} is not a regular file: --disk takes a raw image", image.display());
    }
    if meta.len() == 0 || meta.len() % 512 != 0 {
        bail!("{} has {} bytes, but a raw disk image is a multiple of 512", image.display(), meta.len());
    }
    let writable = fs::OpenOptions::new().write(true).open(image).is_ok();
    if !writable {
        say("Note", &format!("{} is read-only: writes will be forgotten", image.display()));
    }
    Ok(Disk { image: image.to_path_buf(), keep_writes: writable })
}

/// Runs QEMU with our terminal until it ends, and ends it when we are told to end.
fn attach(qemu: &mut Command, headless: bool) -> Result<()> {
    if headless {
        qemu.stdin(Stdio::null());
    }
    let terminal = Terminal::save();
    let child = Arc::new(Mutex::new(qemu.spawn().context("cannot start QEMU")?));
    let asked = Arc::new(AtomicBool::new(false));
    let (victim, flag) = (Arc::clone(&child), Arc::clone(&asked));
    ctrlc::set_handler(move || {
        flag.store(true, Ordering::Relaxed);
        terminate(&victim);
    })?;
    let status = loop {
        // A short sleep, not a blocking wait: the signal handler needs the lock to end QEMU.
        let done = child.lock().map_err(|_| anyhow::anyhow!("QEMU's handle is lost"))?.try_wait()?;
        match done {
            Some(status) => break status,
            None => std::thread::sleep(std::time::Duration::from_millis(30)),
        }
    };
    terminal.restore();
    if asked.load(Ordering::Relaxed) {
        eprintln!();
        say("Ended", "by Ctrl-C");
        return Ok(());
    }
    if !status.success() {
        bail!("QEMU ended with {status}");
    }
    Ok(())
}

/// Asks QEMU to end (SIGTERM: it closes its files), and makes it end if it does not.
fn terminate(child: &Mutex<Child>) {
    let Ok(id) = child.lock().map(|child| child.id()) else {
        return;
    };
    if Command::new("kill").args(["-TERM", &id.to_string()]).status().is_err()
        && let Ok(mut child) = child.lock()
        && let Err(why) = child.kill()
    {
        eprintln!("error: QEMU (process {id}) could not be ended: {why}");
    }
}

/// The terminal's settings, which QEMU changes and, if it is killed, leaves changed.
struct Terminal(Option<String>);

impl Terminal {
    fn save() -> Self {
        let settings = std::io::stdin()
            .is_terminal()
            .then(|| Command::new("stty").arg("-g").stderr(Stdio::null()).output().ok())
            .flatten()
            .map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
        Self(settings.filter(|text| !text.is_empty()))
    }

    fn restore(&self) {
        if let Some(settings) = &self.0
            && let Err(why) = run_command(Command::new("stty").arg(settings))
        {
            eprintln!("note: terminal settings not restored ({why}): type `reset`");
        }
    }
}
