//! What a policy file says, word for word and each with its place; names are not resolved yet.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::diagnostics::{At, Span};
use crate::restart::Restart;
use crate::table::{self, Bdf, Class, Settings};

/// The file.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// `[system]`.
    pub system: System,
    /// `[device.NAME]`, in the order of the file.
    pub devices: Vec<Device>,
    /// `[domain.NAME]`, in the order of the file.
    pub domains: Vec<Domain>,
}

/// `[system]`.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// `unprotected-dma = "accept"`.
    pub accept_unprotected_dma: bool,
    /// `without`: services that this system does not have.
    pub without: Vec<At<Role>>,
}

/// What a domain is for, when it is for more than itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Builds the others.
    Policy,
    /// Serves xenstore.
    Xenstore,
    /// Owns the console.
    Console,
}

impl Role {
    /// All of them, with the words for them.
    pub const WORDS: [(&'static str, Role); 3] =
        [("policy", Role::Policy), ("xenstore", Role::Xenstore), ("console", Role::Console)];

    /// The image that does it when the policy names none.
    pub fn image(self) -> &'static str {
        match self {
            Role::Policy => "policy-domain",
            Role::Xenstore => "xenstore",
            Role::Console => "console",
        }
    }
}

/// `[device.NAME]`.
#[derive(Clone, Debug)]
pub struct Device {
    /// NAME.
    pub name: At<String>,
    /// `vendor`.
    pub vendor: Option<u16>,
    /// `device`.
    pub device: Option<u16>,
    /// `class`.
    pub class: Option<Class>,
    /// `slot`.
    pub slot: Option<At<Bdf>>,
    /// `optional`.
    pub optional: bool,
}

/// `[domain.NAME]`.
#[derive(Clone, Debug)]
pub struct Domain {
    /// NAME.
    pub name: At<String>,
    /// `kind`: what runs its code.
    pub kind: table::Kind,
    /// `role`.
    pub role: Option<At<Role>>,
    /// `image`, or the role's; of a virtual machine, `kernel`.
    pub image: At<String>,
    /// `replacements`.
    pub replacements: Vec<At<String>>,
    /// `initrd`.
    pub initrd: Option<At<String>>,
    /// `vcpus`.
    pub vcpus: u32,
    /// `memory` in bytes.
    pub memory: At<u64>,
    /// `weight`.
    pub weight: u32,
    /// `cap`.
    pub cap: u32,
    /// `autostart`.
    pub autostart: bool,
    /// `observe`.
    pub observe: bool,
    /// `ready = "announced"`.
    pub announces_ready: bool,
    /// `restart`.
    pub restart: Option<At<Restart>>,
    /// `watchdog`.
    pub watchdog: Option<At<core::time::Duration>>,
    /// `event-channels`.
    pub event_channels: Option<u32>,
    /// `grant-frames`.
    pub grant_frames: Option<u32>,
    /// `grant-maps`.
    pub grant_maps: Option<u32>,
    /// `devices`.
    pub devices: Vec<At<String>>,
    /// `io-ports`.
    pub io_ports: Vec<At<table::Span>>,
    /// `irqs`.
    pub irqs: Vec<At<u32>>,
    /// `arguments`; of a virtual machine, `cmdline`.
    pub arguments: String,
    /// `config`.
    pub config: Settings,
    /// `[domain.NAME.export.EXPORT]`.
    pub exports: Vec<Export>,
    /// `disks`.
    pub disks: Vec<Disk>,
    /// `nics`.
    pub nics: Vec<Nic>,
    /// `channels`.
    pub channels: Vec<Channel>,
}

impl Domain {
    /// The programs that it may run: its image, and those that may replace it. Of a virtual machine, its kernel.
    pub fn programs(&self) -> impl Iterator<Item = &At<String>> {
        [&self.image].into_iter().chain(&self.replacements)
    }

    /// What the initrd is called in the bundle. An initrd may be made for its kernel, with the modules of that, so the
    /// same word can stand for another file in another domain.
    pub fn initrd_file(&self) -> Option<String> {
        self.initrd.as_ref().map(|initrd| format!("{}+{}", self.image.value, initrd.value))
    }
}

/// `[domain.NAME.export.EXPORT]`: what a block domain offers.
#[derive(Clone, Debug)]
pub struct Export {
    /// EXPORT.
    pub name: At<String>,
    /// `disk`: one of the domain's devices.
    pub disk: At<String>,
    /// `partition`: its number, or `None` for the whole disk.
    pub partition: Option<u32>,
    /// `read-only`.
    pub read_only: bool,
}

/// An entry of `disks`.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The entry's place.
    pub span: Span,
    /// `from`.
    pub from: At<String>,
    /// `export`.
    pub export: At<String>,
    /// `device`: its name as written, and the virtual device number.
    pub device: At<(String, u32)>,
    /// `read-only`, when said.
    pub read_only: Option<At<bool>>,
}

/// An entry of `nics`.
#[derive(Clone, Debug)]
pub struct Nic {
    /// `from`.
    pub from: At<String>,
    /// `mac`.
    pub mac: At<[u8; 6]>,
    /// `ip`.
    pub ip: Option<At<core::net::Ipv4Addr>>,
    /// `isolated`.
    pub isolated: bool,
}

/// An entry of `channels`.
#[derive(Clone, Debug)]
pub struct Channel {
    /// `to`.
    pub to: At<String>,
    /// `name`.
    pub name: At<String>,
}
