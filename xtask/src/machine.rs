//! The virtual machine: what QEMU is told, and what the policy checker is told QEMU will have.

use crate::packages;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One MiB.
pub const MIB: u64 = 1 << 20;

/// A disk of the machine.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Raw image.
    pub image: PathBuf,
    /// Whether writes reach the image; else they are forgotten at the end.
    pub keep_writes: bool,
}

/// What the network card is connected to.
#[derive(Clone, Debug)]
pub enum Network {
    /// QEMU's user network, closed to the outside, with one port of the host's loopback forwarded to 10.0.2.15:80.
    User {
        /// Port on 127.0.0.1.
        port: u16,
    },
    /// Ethernet frames as datagrams over unix sockets, for a test that plays the network.
    Datagram {
        /// Where QEMU binds.
        local: PathBuf,
        /// Where QEMU sends.
        remote: PathBuf,
    },
}

/// What virtual time, and with it the time stamp counter, goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's clock.
    Host,
    /// A nanosecond an instruction; an idle CPU jumps to the next deadline. Deterministic, without devices that answer
    /// in their own time.
    Instructions,
    /// A nanosecond an instruction, and the host's time while the CPU is idle: for machines whose devices do.
    InstructionsAndSleep,
}

/// Where the first serial line goes.
#[derive(Clone, Debug)]
pub enum Serial {
    /// Standard input and output; Ctrl-C ends QEMU.
    Terminal,
    /// Standard output only.
    Output,
    /// A unix socket that QEMU connects to.
    Socket(PathBuf),
}

/// A machine to start. Slots on bus 0 are fixed: see [`Machine::functions`].
#[derive(Clone, Debug)]
pub struct Machine {
    /// Bytes of memory.
    pub memory: u64,
    /// `-cpu`.
    pub cpu: String,
    /// Whether there is a DMA and interrupt remapping unit.
    pub iommu: bool,
    /// virtio-blk devices, from slot 3 up; at most 4.
    pub disks: Vec<Disk>,
    /// virtio-net device at slot 8.
    pub network: Option<Network>,
    /// QEMU's `edu` device at slot 10: does DMA to any address that its driver names.
    pub edu: bool,
    /// The serial line.
    pub serial: Serial,
    /// QEMU's machine protocol on this unix socket (server).
    pub qmp: Option<PathBuf>,
    /// What virtual time goes by.
    pub clock: Clock,
    /// Wait for a debugger on TCP port 1234 of the loopback.
    pub debugger: bool,
    /// Words for the hypervisor.
    pub command_line: String,
    /// Further arguments to QEMU, last.
    pub more: Vec<String>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            memory: 512 * MIB,
            cpu: "max,la57=off".into(),
            iommu: true,
            disks: vec![],
            network: None,
            edu: false,
            serial: Serial::Output,
            qmp: None,
            clock: Clock::Host,
            debugger: false,
            command_line: String::new(),
            more: vec![],
        }
    }
}

/// PCI ids of the machine's disks.
pub const DISK_IDS: (u16, u16) = (0x1af4, 0x1042);
const FIRST_DISK_SLOT: u32 = 3;
const NETWORK_SLOT: u32 = 8;
const EDU_SLOT: u32 = 10;
/// Disks at most: the slots between the first and the network card's, less one spare.
const DISKS_MAX: usize = 4;

impl Machine {
    /// Gives it memory of `bytes` at least, in steps that do not change with every change of an image.
    pub fn grow_to(&mut self, bytes: u64) {
        self.memory = self.memory.max(bytes.next_multiple_of(128 * MIB));
    }

    /// The machine as the policy checker sees it.
    pub fn for_policy(&self) -> policy::Machine {
        let function =
            |slot: u32, vendor, device, class| policy::PciFunction { bdf: (slot << 3) as u16, vendor, device, class };
        let mut devices = vec![];
        for slot in (FIRST_DISK_SLOT..).take(self.disks.len()) {
            devices.push(function(slot, DISK_IDS.0, DISK_IDS.1, 0x01_00_00));
        }
        if self.network.is_some() {
            devices.push(function(NETWORK_SLOT, 0x1af4, 0x1041, 0x02_00_00));
        }
        if self.edu {
            devices.push(function(EDU_SLOT, 0x1234, 0x11e8, 0x00_ff_00));
        }
        policy::Machine { memory: self.memory, devices }
    }

    /// The QEMU command that boots `hypervisor` with `bundle`.
    pub fn qemu(&self, hypervisor: &Path, bundle: &Path) -> Result<Command> {
        packages::require(&[packages::QEMU])?;
        let mut qemu = Command::new(packages::QEMU.thing);
        let memory = format!("{}M", self.memory / MIB);
        qemu.args(["-name", "bulkhead", "-accel", "tcg", "-machine", "q35", "-cpu", &self.cpu, "-m", &memory]);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        match self.clock {
            Clock::Host => {}
            Clock::Instructions => drop(qemu.args(["-icount", "shift=0,sleep=off"])),
            Clock::InstructionsAndSleep => drop(qemu.args(["-icount", "shift=0,sleep=on"])),
        }
        qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        self.add_serial(&mut qemu)?;
        if let Some(path) = &self.qmp {
            qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", option_text(path)?));
        }
        if self.iommu {
            qemu.args(["-device", "intel-iommu,intremap=on,aw-bits=48"]);
        }
        self.add_devices(&mut qemu)?;
        if self.debugger {
            qemu.args(["-gdb", "tcp:127.0.0.1:1234", "-S"]);
        }
        qemu.arg("-kernel").arg(hypervisor).arg("-initrd").arg(bundle);
        if !self.command_line.is_empty() {
            qemu.args(["-append", &self.command_line]);
        }
        qemu.args(&self.more);
        Ok(qemu)
    }

    fn add_serial(&self, qemu: &mut Command) -> Result<()> {
        let back_end = match &self.serial {
            Serial::Terminal | Serial::Output => "stdio,id=serial0,signal=on".to_owned(),
            Serial::Socket(path) => format!("socket,id=serial0,path={}", option_text(path)?),
        };
        qemu.args(["-chardev", &back_end, "-serial", "chardev:serial0"]);
        Ok(())
    }

    fn add_devices(&self, qemu: &mut Command) -> Result<()> {
        // Behind a remapping unit a virtio device must be told to use it; without one the flag changes nothing, but
        // our driver insists on it.
        if self.disks.len() > DISKS_MAX {
            bail!("{} disks, but the machine has slots for {DISKS_MAX}", self.disks.len());
        }
        for (number, (disk, slot)) in self.disks.iter().zip(FIRST_DISK_SLOT..).enumerate() {
            let image = option_text(&disk.image)?;
            let snapshot = if disk.keep_writes { "off" } else { "on" };
            // Errors of the image go to the driver; else QEMU would stop the machine when the host's file system is full.
            qemu.arg("-drive").arg(format!(
                "if=none,id=disk{number},file={image},format=raw,snapshot={snapshot},werror=report,rerror=report,discard=unmap"
            ));
            qemu.arg("-device")
                .arg(format!("virtio-blk-pci,drive=disk{number},addr={slot:#x},disable-legacy=on,iommu_platform=on"));
        }
        match &self.network {
            None => return self.add_edu(qemu),
            Some(Network::User { port }) => {
                qemu.arg("-netdev").arg(format!("user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:80"))
            }
            Some(Network::Datagram { local, remote }) => qemu.arg("-netdev").arg(format!(
                "dgram,id=net0,local.type=unix,local.path={},remote.type=unix,remote.path={}",
                option_text(local)?,
                option_text(remote)?
            )),
        };
        qemu.arg("-device").arg(format!(
            "virtio-net-pci,netdev=net0,addr={NETWORK_SLOT:#x},disable-legacy=on,iommu_platform=on,romfile="
        ));
        self.add_edu(qemu)
    }

    fn add_edu(&self, qemu: &mut Command) -> Result<()> {
        if self.edu {
            qemu.arg("-device").arg(format!("edu,addr={EDU_SLOT:#x},dma_mask=0xffffffffffff"));
        }
        Ok(())
    }
}

/// A path inside one of QEMU's option lists, where a comma must be doubled.
fn option_text(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not valid UTF-8", path.display()))?;
    Ok(text.replace(',', ",,"))
}
