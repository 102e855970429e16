//! Which compiler builds for the bare machine.
//!
//! With rustup's `x86_64-unknown-none` standard library, plain cargo. Where rustup may not fetch it, Debian's `rustc-web`
//! builds the standard library from source (`-Zbuild-std`). One function decides, and says why.

use crate::command::output;
use crate::packages;
use crate::{root, say, target};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The bare-metal target triple.
pub const TARGET: &str = "x86_64-unknown-none";

/// The minor version that `rust-version` asks for.
const MINOR_MINIMUM: u32 = 95;

const DEBIAN_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/core/Cargo.toml";

/// Where the bare-metal standard library comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// rustup has the target.
    Rustup,
    /// Debian's packages, standard library from source.
    Debian,
}

/// Finds (or installs) a toolchain for [`TARGET`]. Says once which, and why.
pub fn choose() -> Result<Toolchain> {
    static CHOSEN: OnceLock<Toolchain> = OnceLock::new();
    if let Some(chosen) = CHOSEN.get() {
        return Ok(*chosen);
    }
    let (chosen, why) = decide()?;
    say("Toolchain", &why);
    Ok(*CHOSEN.get_or_init(|| chosen))
}

fn decide() -> Result<(Toolchain, String)> {
    if rustup_has_target() {
        return Ok((Toolchain::Rustup, format!("rustup's, which has {TARGET}")));
    }
    let may_install = std::env::var_os("RUSTUP_AUTO_INSTALL").is_none_or(|value| value != "0");
    if may_install && output(Command::new("rustup").current_dir(root()).args(["target", "add", TARGET])).is_ok() {
        return Ok((Toolchain::Rustup, format!("rustup's, {TARGET} added")));
    }
    if !debian_is_usable() {
        packages::install(&["rustc-web", "cargo-web", "rust-web-src", "binutils"]).with_context(|| {
            format!("no standard library for {TARGET}: `rustup target add {TARGET}` would do as well")
        })?;
    }
    Ok((
        Toolchain::Debian,
        format!("Debian's rustc-web, as rustup has no {TARGET} (standard library built from source)"),
    ))
}

fn rustup_has_target() -> bool {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(root()).args(["--print", "target-libdir", "--target", TARGET]);
    output(&mut rustc).is_ok_and(|dir| {
        std::fs::read_dir(dir.trim())
            .is_ok_and(|files| files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
    })
}

fn debian_is_usable() -> bool {
    let minor = output(Command::new("/usr/bin/rustc").arg("--version"))
        .ok()
        .and_then(|text| text.split('.').nth(1)?.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= MINOR_MINIMUM)
        && Path::new("/usr/bin/cargo").exists()
        && Path::new(DEBIAN_SOURCE).exists()
}

impl Toolchain {
    /// Folder of the built bare-metal programs.
    pub fn programs(self) -> PathBuf {
        self.target_dir().join(TARGET).join("release")
    }

    fn target_dir(self) -> PathBuf {
        match self {
            Self::Rustup => target().join("bare-rustup"),
            Self::Debian => target().join("bare"),
        }
    }

    /// A cargo command (`build`, `clippy`) for [`TARGET`].
    pub fn cargo(self, subcommand: &str) -> Command {
        let mut command = match self {
            Self::Rustup => Command::new("cargo"),
            Self::Debian => Command::new("/usr/bin/cargo"),
        };
        command.current_dir(root()).args([subcommand, "--release", "--locked", "--target", TARGET]);
        command.env("CARGO_TARGET_DIR", self.target_dir());
        // What an enclosing `cargo run` (rustup's) left in the environment is not for this cargo.
        for name in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS"] {
            command.env_remove(name);
        }
        if self == Self::Debian {
            command.args(["-Zbuild-std=core,alloc,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"]);
            command.env("RUSTC", "/usr/bin/rustc").env("RUSTDOC", "/usr/bin/rustdoc").env("RUSTC_BOOTSTRAP", "1");
            command.env("CARGO", "/usr/bin/cargo");
        }
        command.env("RUSTFLAGS", self.flags());
        command
    }

    fn flags(self) -> &'static str {
        match self {
            Self::Rustup => r#"-Crelocation-model=static --cfg curve25519_dalek_backend="serial""#,
            Self::Debian => {
                r#"-Clinker=ld -Clinker-flavor=ld -Crelocation-model=static --cfg curve25519_dalek_backend="serial""#
            }
        }
    }
}
