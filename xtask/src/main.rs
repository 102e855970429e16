//! `cargo xtask`: every command that a person types.
#![forbid(unsafe_code)]

mod bench;
mod loc;
mod policy_file;
mod run;
mod scratch;
mod sizes;
mod test;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, run, test and inspect Bulkhead", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build everything, boot it in QEMU and attach the console (leave with `shutdown` or Ctrl-C).
    Run(run::Options),
    /// Run every test: format, lints, host tests, the ABI check, multi-domain tests in QEMU.
    Test(test::Options),
    /// Measure what each primitive and each path costs, in executed instructions.
    Bench(bench::Options),
    /// Build the hypervisor and the domain images.
    Build,
    /// Look at a policy file without booting it.
    #[command(subcommand)]
    Policy(PolicyTask),
    /// Count lines of code and unsafe sites, per crate.
    Loc,
    /// Show the sizes of the hypervisor and the domain images.
    Sizes,
}

#[derive(Subcommand)]
enum PolicyTask {
    /// Check a policy file against the machine that `run` would make.
    Check {
        /// The policy file.
        file: PathBuf,
    },
    /// Say whether, and why, domain A can reach domain B.
    Explain {
        /// The policy file.
        #[arg(long, default_value = "policy/demo.toml")]
        policy: PathBuf,
        /// The domain that reaches.
        a: String,
        /// The domain that is reached.
        b: String,
    },
    /// Draw the domains, devices and links, as Graphviz DOT on standard output.
    Graph {
        /// The policy file.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Task::Run(options) => run::run(&options),
        Task::Test(options) => test::test(&options),
        Task::Bench(options) => bench::bench(&options),
        Task::Build => xtask::images::build(xtask::images::IMAGES).map(|_| ()),
        Task::Policy(PolicyTask::Check { file }) => policy_file::check(&file),
        Task::Policy(PolicyTask::Explain { policy, a, b }) => policy_file::explain(&policy, &a, &b),
        Task::Policy(PolicyTask::Graph { file }) => policy_file::graph(&file),
        Task::Loc => loc::loc(),
        Task::Sizes => sizes::sizes(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
