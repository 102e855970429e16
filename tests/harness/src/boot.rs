//! What to boot.

use crate::System;
use anyhow::{Context, Result, anyhow};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use xtask::bundle;
use xtask::machine::{Disk, Machine, Network};
use xtask::{disk, images, root, target};

/// A system that is not started yet.
pub struct Boot {
    machine: Machine,
    policy_name: String,
    policy_text: String,
    extra: Vec<String>,
    replaced: BTreeMap<String, Vec<u8>>,
    bundle: Option<Vec<u8>>,
    port: Option<u16>,
    injectable: bool,
}

impl Boot {
    /// Boots a policy given as text.
    pub fn policy(text: &str) -> Self {
        Self {
            machine: Machine { command_line: "debug-exit".into(), ..Machine::default() },
            policy_name: "test.toml".into(),
            policy_text: text.into(),
            extra: vec![],
            replaced: BTreeMap::new(),
            bundle: None,
            port: None,
            injectable: false,
        }
    }

    /// Faults are going to be put into its domains: see [`System::injector`].
    #[must_use]
    pub fn injectable(mut self) -> Self {
        self.injectable = true;
        self
    }

    /// Boots a policy file, named from the workspace's root.
    pub fn policy_file(file: &str) -> Result<Self> {
        let text = fs::read_to_string(root().join(file)).with_context(|| format!("cannot read {file}"))?;
        Ok(Self { policy_name: file.into(), ..Self::policy(&text) })
    }

    /// Names a package whose binary a policy uses as an image, beyond those that ship.
    #[must_use]
    pub fn image(mut self, package: &str) -> Self {
        self.extra.push(package.into());
        self
    }

    /// Puts other bytes into the bundle under an image's (or `policy.table`'s) name.
    #[must_use]
    pub fn replace(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.replaced.insert(name.into(), bytes);
        self
    }

    /// Boots these bytes as the bundle, whatever the policy says.
    #[must_use]
    pub fn bundle(mut self, bytes: Vec<u8>) -> Self {
        self.bundle = Some(bytes);
        self
    }

    /// Adds the demo disk; writes are forgotten.
    pub fn demo_disk(self) -> Result<Self> {
        // Tests run side by side, and the first makes the image.
        static MAKING: Mutex<()> = Mutex::new(());
        let _making = MAKING.lock().map_err(|_| anyhow!("another test failed while it made the disk"))?;
        let image = disk::demo()?;
        Ok(self.disk(&image, false))
    }

    /// Adds a disk.
    #[must_use]
    pub fn disk(mut self, image: &Path, keep_writes: bool) -> Self {
        self.machine.disks.push(Disk { image: image.into(), keep_writes });
        self
    }

    /// Adds the network card, its port 80 forwarded from a free port of the loopback.
    pub fn network(mut self) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        self.machine.network = Some(Network::User { port });
        self.port = Some(port);
        Ok(self)
    }

    /// Changes the machine in any other way.
    #[must_use]
    pub fn machine(mut self, change: impl FnOnce(&mut Machine)) -> Self {
        change(&mut self.machine);
        self
    }

    /// Checks the policy, builds, makes the bundle and starts QEMU.
    pub fn start(self) -> Result<System> {
        let programs = build(&self.extra)?;
        let bundle = match self.bundle {
            Some(bytes) => bytes,
            None => {
                let policy =
                    policy::load(&self.policy_name, &self.policy_text).map_err(|errors| anyhow!("{errors}"))?;
                let mut members = bundle::members(&policy, &programs, &root().join("policy"))?;
                for member in &mut members {
                    if let Some(bytes) = self.replaced.get(&member.name) {
                        member.data.clone_from(bytes);
                    }
                }
                bundle::write(&members)?
            }
        };
        let folder = scratch()?;
        let file = folder.join("bundle.cpio");
        fs::write(&file, bundle)?;
        let mut machine = self.machine;
        machine.qmp = Some(folder.join("qmp"));
        if self.injectable {
            let stub = folder.join("gdb");
            machine.more.extend(["-gdb".into(), format!("unix:{},server=on,wait=off", stub.display())]);
        }
        let qemu = machine.qemu(&programs.join(images::HYPERVISOR), &file)?;
        System::start(qemu, folder, self.port)
    }
}

/// Builds everything once per process, then returns the programs' folder.
fn build(extra: &[String]) -> Result<PathBuf> {
    static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    let mut built = BUILT.lock().map_err(|_| anyhow!("another test's build failed"))?;
    let missing: Vec<String> = extra.iter().filter(|name| !built.contains(name)).cloned().collect();
    match PROGRAMS.get() {
        Some(programs) if missing.is_empty() => Ok(programs.clone()),
        _ => {
            let mut packages: Vec<&str> = images::IMAGES.to_vec();
            packages.extend(missing.iter().map(String::as_str));
            let programs = images::build(&packages)?;
            built.extend(missing);
            Ok(PROGRAMS.get_or_init(|| programs).clone())
        }
    }
}

/// A folder of this process and this system, removed with the [`System`]. Its path is short: sockets live in it.
fn scratch() -> Result<PathBuf> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = target().join(format!("t{}-{number}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
