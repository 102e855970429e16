//! `cargo xtask test`: everything, and one closing line that counts.

use anyhow::{Context, Result, bail};
use clap::Args;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;
use xtask::command::{run, show};
use xtask::packages::{self, C_COMPILER, MKE2FS, QEMU, XEN_HEADERS};
use xtask::{root, say, toolchain};

/// Options of `test`.
#[derive(Args)]
pub struct Options {
    /// Leave out the tests that boot QEMU.
    #[arg(long)]
    host_only: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    broken: Vec<String>,
}

/// Runs it all. Fails when anything did, but goes on to the end first.
pub fn test(options: &Options) -> Result<()> {
    let start = Instant::now();
    packages::require(&[QEMU, MKE2FS, XEN_HEADERS, C_COMPILER])?;
    let toolchain = toolchain::choose()?;
    let mut tally = Tally::default();
    if options.filter.is_none() {
        tally.step("format", host_cargo(&["fmt", "--all", "--check"]));
        tally.step("format of the hypervisor", hypervisor_format()?);
        tally.step(
            "lints",
            host_cargo(&["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        );
        tally.step("lines and unsafe sites", host_cargo(&["run", "--quiet", "--package", "xtask", "--", "loc"]));
        let mut bare = toolchain.cargo("build");
        bare.args(["--quiet", "--workspace"]);
        // What runs on the host only.
        for package in ["xtask", "bulkhead-test", "multi-domain", "policy"] {
            bare.args(["--exclude", package]);
        }
        tally.step("bare-metal build without warnings", deny_warnings(bare));
    }
    tally.tests("host tests", host_tests(options), options.filter.is_some())?;
    if !options.host_only {
        tally.tests("multi-domain tests", machine_tests(options), options.filter.is_some())?;
    }
    say("Tested", &format!("in {:.0} s", start.elapsed().as_secs_f32()));
    for name in &tally.broken {
        eprintln!("failed: {name}");
    }
    println!("tests: {} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    if tally.passed + tally.failed == 0 {
        bail!("no test's name contains that");
    }
    if tally.failed > 0 || !tally.broken.is_empty() {
        bail!("{} tests and steps failed", tally.failed.max(tally.broken.len()));
    }
    Ok(())
}

fn host_cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()).args(arguments);
    cargo
}

/// `cargo fmt` does not see modules that a macro declares.
fn hypervisor_format() -> Result<Command> {
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.current_dir(root()).args(["--check", "--edition", "2024"]);
    for entry in std::fs::read_dir(root().join("hv/src"))? {
        let path = entry?.path();
        rustfmt.arg(if path.is_dir() { path.join("mod.rs") } else { path });
    }
    Ok(rustfmt)
}

fn host_tests(options: &Options) -> Command {
    let mut cargo = host_cargo(&["test", "--locked", "--workspace", "--exclude", "multi-domain", "--no-fail-fast"]);
    cargo.args(options.filter.iter());
    cargo
}

fn machine_tests(options: &Options) -> Command {
    let mut cargo = host_cargo(&["test", "--locked", "--package", "multi-domain", "--no-fail-fast"]);
    if let Some(filter) = &options.filter {
        cargo.arg("--").arg(filter);
    }
    cargo
}

/// Warnings become errors without a change of flags, which would rebuild the standard library.
fn deny_warnings(mut cargo: Command) -> Command {
    cargo.env("CARGO_BUILD_WARNINGS", "deny");
    cargo
}

impl Tally {
    /// One check that either holds or not; it counts as one test.
    fn step(&mut self, name: &str, mut command: Command) {
        say("Checking", name);
        match run(&mut command) {
            Ok(()) => self.passed += 1,
            Err(why) => {
                eprintln!("{why:#}");
                self.failed += 1;
                self.broken.push(name.into());
            }
        }
    }

    /// A run of cargo's test runner, whose summary lines are added up.
    fn tests(&mut self, name: &str, mut command: Command, filtered: bool) -> Result<()> {
        say("Testing", name);
        let shown = show(&command);
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{shown}`"))?;
        let before = self.passed + self.failed;
        if let Some(out) = child.stdout.take() {
            for line in BufReader::new(out).lines() {
                let line = line?;
                println!("{line}");
                self.count(&line);
            }
        }
        let status = child.wait()?;
        if !status.success() {
            self.broken.push(format!("{name} (`{shown}`: {status})"));
        } else if self.passed + self.failed == before && !filtered {
            self.broken.push(format!("{name}: no test ran"));
        }
        Ok(())
    }

    /// Adds "test result: ok. 3 passed; 0 failed; 1 ignored; ..." to the sums.
    fn count(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in counts.split("; ") {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<usize>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}
