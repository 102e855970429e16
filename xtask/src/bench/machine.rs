//! The systems that are booted to be measured, and what they print.

use super::{Measured, Results, linux, trace};
use crate::scratch::Scratch;
use anyhow::{Context, Result, anyhow, bail};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use xtask::bundle::{self, Member};
use xtask::machine::{Clock, Disk, MIB, Machine, Network};
use xtask::{images, root, say};

/// The hypervisor's function that finds the end of an exit's instruction where the CPU does not save it.
const EXIT_LENGTH: &str = "vm::svm::behind";

const BASE: &str = r#"
[domain.policy]
role = "policy"
memory = "16M"
[domain.xenstore]
role = "xenstore"
memory = "128M"
[domain.console]
role = "console"
memory = "16M"
io-ports = ["0x3f8-0x3ff"]
irqs = [4]
"#;

/// In place of [`BASE`]: the measuring domain is the policy domain, and makes and ends the others itself.
const LIFECYCLE: &str = r#"
[system]
without = ["xenstore", "console"]
[domain.policy]
role = "policy"
image = "bench"
memory = "16M"
arguments = "do=lifecycle"
[domain.small]
image = "bench"
memory = "4M"
[domain.large]
image = "bench"
memory = "64M"
"#;

const PRIMITIVES: &str = r#"
[domain.measure]
image = "bench"
memory = "4M"
arguments = "do=primitives"
observe = true
[domain.peer]
image = "bench"
memory = "4M"
arguments = "do=peer"
channels = ["measure"]
"#;

const INTERRUPTS: &str = r#"
[domain.measure]
image = "bench"
memory = "4M"
arguments = "do=interrupts"
io-ports = ["0x70-0x71"]
irqs = [8]
[domain.peer]
image = "bench"
memory = "4M"
arguments = "do=peer"
channels = ["measure"]
"#;

const DISK: &str = r#"
[device.disk]
vendor = 0x1af4
device = 0x1042
[domain.block]
image = "block"
memory = "16M"
devices = ["disk"]
[domain.block.export.all]
disk = "disk"
partition = "whole"
[domain.measure]
image = "bench"
memory = "8M"
arguments = "do=disk"
observe = true
disks = [{ from = "block", export = "all", device = "xvda" }]
"#;

const NIC: &str = r#"
[device.nic]
vendor = 0x1af4
device = 0x1041
[domain.net]
image = "net"
memory = "16M"
devices = ["nic"]
[domain.measure]
image = "bench"
memory = "8M"
arguments = "do=nic"
observe = true
nics = [
    { from = "net", mac = "00:16:3e:00:00:01", ip = "10.0.2.15" },
    { from = "net", mac = "00:16:3e:00:00:02", ip = "10.0.2.16" },
]
"#;

/// A virtual machine, whose kernel measures (as domain 3), a native domain that serves it (domain 4), and another virtual
/// machine that does (domain 5).
const GUESTS: &str = r#"
[domain.measure]
kind = "pvh"
kernel = "KERNEL"
memory = "64M"
cmdline = "do=bench peer=4 echo=5"
channels = ["peer", "echo"]
[domain.peer]
image = "bench"
memory = "4M"
arguments = "do=serve-guest guest=3"
[domain.echo]
kind = "pvh"
kernel = "KERNEL"
memory = "64M"
cmdline = "do=echo peer=3 port=4"
"#;

/// A disk whose domain is restarted, and a client of it.
const RESTART: &str = r#"
[device.disk]
vendor = 0x1af4
device = 0x1042
[domain.block]
image = "block"
memory = "8M"
devices = ["disk"]
restart = "always"
[domain.block.export.all]
disk = "disk"
partition = "whole"
[domain.measure]
image = "bench"
memory = "8M"
arguments = "do=restart long=LONG"
disks = [{ from = "block", export = "all", device = "xvda" }]
"#;

/// Something to boot and measure.
struct Setup {
    name: &'static str,
    /// The policy's services: [`BASE`], or what stands in its place.
    base: &'static str,
    /// What the policy has beside them.
    domains: &'static str,
    /// What the machine has beside the usual.
    machine: fn(&mut Machine, &Path) -> Result<()>,
    /// What is done to the files of the bundle; the folder is that of the programs.
    files: fn(&mut [Member], &Path) -> Result<()>,
    /// How long it may take.
    patience: Duration,
}

/// Of which each system differs in something.
const USUAL: Setup = Setup {
    name: "",
    base: BASE,
    domains: "",
    machine: |_, _| Ok(()),
    files: |_, _| Ok(()),
    patience: Duration::from_secs(60),
};

const SETUPS: &[Setup] = &[
    Setup { name: "primitives", domains: PRIMITIVES, ..USUAL },
    Setup { name: "lifecycle", base: LIFECYCLE, ..USUAL },
    Setup {
        name: "interrupts",
        domains: INTERRUPTS,
        machine: |machine, _| {
            // The PC's clock goes by instructions too.
            machine.more.extend(["-rtc".to_owned(), "clock=vm".to_owned()]);
            Ok(())
        },
        ..USUAL
    },
    Setup { name: "guests", domains: GUESTS, ..USUAL },
    Setup { name: "disk", domains: DISK, machine: with_disk, ..USUAL },
    Setup { name: "nic", domains: NIC, machine: |machine, _| with_network(machine).map(drop), ..USUAL },
    Setup {
        name: "linux",
        domains: linux::POLICY,
        machine: |machine, folder| {
            with_disk(machine, folder)?;
            // For a trace, Linux writes down where its functions are.
            machine.disks.iter_mut().for_each(|disk| disk.keep_writes = true);
            linux::drain(with_network(machine)?, folder.to_owned());
            Ok(())
        },
        files: linux::add_program,
        // A kernel boots, by emulation.
        patience: Duration::from_secs(400),
        ..USUAL
    },
];

/// Answers the port of the host that leads to the domain with the address 10.0.2.15.
fn with_network(machine: &mut Machine) -> Result<u16> {
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    machine.clock = Clock::InstructionsAndSleep;
    machine.network = Some(Network::User { port });
    Ok(port)
}

fn with_disk(machine: &mut Machine, folder: &Path) -> Result<()> {
    let image = folder.join("disk.img");
    fs::File::create(&image)?.set_len(64 * MIB)?;
    machine.clock = Clock::InstructionsAndSleep;
    machine.disks.push(Disk { image, keep_writes: false });
    Ok(())
}

/// Boots the system whose disk's domain is to be restarted.
pub fn restart_system(programs: &Path, clock: Clock) -> Result<System> {
    let machine: fn(&mut Machine, &Path) -> Result<()> = match clock {
        Clock::Host => |machine, folder| {
            with_disk(machine, folder)?;
            machine.clock = Clock::Host;
            Ok(())
        },
        _ => with_disk,
    };
    // In microseconds: what no page takes while nobody is restarted. The host may do something else meanwhile.
    let long = if clock == Clock::Host { "1500" } else { "200" };
    let policy = format!("{BASE}{RESTART}").replace("LONG", long);
    System::boot(programs, &Setup { name: "restart", domains: RESTART, machine, ..USUAL }, &policy)
}

/// Boots each system whose name contains `filter`, with `idle` more domains, and collects what they measure.
pub fn measure(filter: &str, idle: u16) -> Result<Results> {
    let chosen: Vec<&Setup> = SETUPS.iter().filter(|setup| setup.name.contains(filter)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = SETUPS.iter().map(|setup| setup.name).collect();
        bail!("no system has {filter} in its name; there are {}", names.join(", "));
    }
    let programs = build()?;
    let mut results = Results::new();
    let idle: String =
        (0..idle).map(|number| format!("[domain.idle{number}]\nimage = \"bench\"\nmemory = \"4M\"\n")).collect();
    // Before anything is measured: what is missing shows here.
    let mut bundles = vec![];
    for setup in &chosen {
        bundles.push(bundle(&programs, setup, &format!("{}{}{idle}", setup.base, setup.domains))?);
    }
    for (setup, bundle) in chosen.into_iter().zip(bundles) {
        let start = Instant::now();
        let mut system = System::start(&programs, setup, &bundle)?;
        while let Some(line) = system.next_line().with_context(|| format!("measuring {}", setup.name))? {
            let ready = || (setup.name == "primitives").then(|| parse_ready(&line)).flatten();
            results.extend(parse(&line).or_else(ready));
        }
        // The next one's files are where its are.
        drop(system);
        if setup.name == "guests" {
            // Counted, not timed: nothing on this emulator can be measured without it.
            let length = trace::count_in(&programs, "pvh_cpuid_exit", EXIT_LENGTH)?;
            results.insert("pvh_exit_length".into(), Measured::of(length));
        }
        say("Measured", &format!("{} in {:.1} s", setup.name, start.elapsed().as_secs_f32()));
    }
    Ok(results)
}

/// Builds everything; answers the folder of the programs.
pub fn build() -> Result<PathBuf> {
    let packages: Vec<&str> =
        images::IMAGES.iter().copied().chain(["bench", "client", "guest", linux::PROGRAM]).collect();
    images::build(&packages)
}

/// The bundle of a system with this policy.
fn bundle(programs: &Path, setup: &Setup, policy: &str) -> Result<Vec<u8>> {
    let policy = policy.replace("KERNEL", &programs.join("guest").display().to_string());
    let policy = policy::load("bench.toml", &policy).map_err(|errors| anyhow!("{errors}"))?;
    let members = bundle::members(&policy, programs, &root().join("policy"));
    let mut members = members.with_context(|| {
        format!("the system `{}` cannot be measured; `cargo xtask bench NAME` measures another alone", setup.name)
    })?;
    (setup.files)(&mut members, programs)?;
    bundle::write(&members)
}

/// Boots the system that measures a metric, told to do nothing else for ever.
pub fn boot_for(programs: &Path, metric: &str) -> Result<System> {
    let name = match metric {
        name if name.starts_with("block_") => "disk",
        name if name.starts_with("udp_") => "nic",
        name if name.starts_with("interrupt") => "interrupts",
        name if name.starts_with("pvh_") => "guests",
        name if name.starts_with("linux_") => "linux",
        name if name.starts_with("domain_") => "lifecycle",
        _ => "primitives",
    };
    let setup = SETUPS.iter().find(|setup| setup.name == name).with_context(|| format!("nothing measures {metric}"))?;
    let policy = format!("{}{}", setup.base, setup.domains);
    let policy = policy.replacen("\"do=", &format!("\"forever={metric} do="), 1);
    System::boot(programs, setup, &policy.replace("measured-by", &format!("forever={metric} measured-by")))
}

/// A booted system, ended with us.
pub struct System {
    qemu: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    patience: Duration,
    end: Instant,
    seen: Vec<String>,
    /// For files that live as long as the system.
    pub folder: Scratch,
}

impl Drop for System {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}

impl System {
    fn boot(programs: &Path, setup: &Setup, policy: &str) -> Result<Self> {
        Self::start(programs, setup, &bundle(programs, setup, policy)?)
    }

    fn start(programs: &Path, setup: &Setup, bundle: &[u8]) -> Result<Self> {
        let folder = Scratch::new()?;
        let file = folder.path.join("bundle.cpio");
        fs::write(&file, bundle)?;
        let mut machine = Machine { memory: 2048 * MIB, clock: Clock::Instructions, ..Machine::default() };
        machine.qmp = Some(folder.path.join("qmp"));
        (setup.machine)(&mut machine, &folder.path)?;
        let mut command = machine.qemu(&programs.join(images::HYPERVISOR), &file)?;
        let mut qemu = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start QEMU")?;
        let output = qemu.stdout.take().context("QEMU has no output")?;
        let input = qemu.stdin.take().context("QEMU has no input")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        let patience = setup.patience;
        Ok(Self { qemu, input, lines, patience, end: Instant::now() + patience, seen: vec![], folder })
    }

    /// Types a line at the shell.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        write!(self.input, "{line}\r").and_then(|()| self.input.flush()).context("QEMU takes no input")
    }

    /// The next line of the console; `None`: all is measured.
    pub fn next_line(&mut self) -> Result<Option<String>> {
        match self.lines.recv_timeout(self.end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains("BENCH-END") => Ok(None),
            Ok(line) if line.contains("BENCH-FAILED") => bail!("{line}"),
            Ok(line) => {
                self.seen.push(line.clone());
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Timeout) => bail!("no end within {:?}:\n{}", self.patience, tail(&self.seen)),
            Err(RecvTimeoutError::Disconnected) => bail!("QEMU ended early:\n{}", tail(&self.seen)),
        }
    }
}

fn tail(lines: &[String]) -> String {
    lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
}

/// Reads `ready in 0.123 s`, which the policy domain says once. Its clock counts an instruction as a nanosecond.
fn parse_ready(line: &str) -> Option<(String, Measured)> {
    let seconds = line.split_once("ready in ")?.1.split_whitespace().next()?.parse::<f64>().ok()?;
    Some(("boot_to_ready".into(), Measured::of((seconds * 1e9).round())))
}

/// Reads `... BENCH name min median p99 mean n`.
fn parse(line: &str) -> Option<(String, Measured)> {
    let (_, text) = line.split_once("BENCH ")?;
    let mut words = text.split_whitespace();
    let name = words.next()?.to_owned();
    let mut number = || words.next()?.parse::<f64>().ok();
    let (min, median, p99, mean) = (number()?, number()?, number()?, number()?);
    Some((name, Measured { min, median, p99, mean, n: number()? as u64 }))
}
