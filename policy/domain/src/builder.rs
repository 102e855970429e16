//! One domain from its image: memory, rings, devices, start info, first instruction.
//!
//! The domain does not run while this happens, and when it first does, nothing here can reach it any more.

use alloc::format;
use alloc::string::{String, ToString};

use core::time::Duration;

use image::Image;
use policy::table::{Domain, Kind, Label, Table};
use policy_domain::bundle::Bundle;
use policy_domain::layout::{self, Layout, Lent, Region};
use policy_domain::nodes::{Ports, RingPages};
use policy_domain::supervision::Watchdog;
use runtime::hypercall::{event_channel, platform};
use runtime::time::now;
use runtime::{Access, DomId, Errno, GrantRef};
use xen_abi::native::{
    ARGUMENTS_MAX, GRANT_REF_CONSOLE, GRANT_REF_XENSTORE, PAGE_SIZE, STACK_TOP, START_INFO, START_MAGIC, START_VERSION,
    StartInfo,
};
use xen_abi::platform::STATE_DYING;
use xen_abi::policy_table::FLAG_AUTOSTART;
use zerocopy::{FromZeros, IntoBytes};

use crate::rescue;
use crate::system::{Status, System};

/// Pages that are left for what the hypervisor takes for itself while domains run.
const HYPERVISOR_PAGES: u64 = 256;

/// Why a domain cannot be built, as a sentence.
pub type Reason = String;

/// A step failed in the hypervisor.
pub fn step(what: &str) -> impl Fn(Errno) -> Reason + '_ {
    move |error| match error {
        Errno::ENOMEM => format!("{what}: out of memory"),
        Errno::EPERM => format!("{what}: the hypervisor refuses it"),
        error => format!("{what}: {error}"),
    }
}

/// What a domain is built from, and into.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The sealed policy.
    pub table: &'static Table,
    /// The images.
    pub bundle: Bundle<'static>,
    /// The domain that serves xenstore.
    pub store: Option<DomId>,
    /// The domain that serves the console.
    pub console: Option<DomId>,
}

impl System {
    /// What the next domain is built from.
    pub fn site(&self) -> Site {
        Site { table: self.table, bundle: self.bundle, store: self.store(), console: self.console() }
    }

    /// Makes an empty domain for every label that starts at boot, so that all ids are known before the first is built.
    pub fn create_all(&mut self) {
        let starts = |(_, domain): &(Label, &policy::table::Domain)| domain.flags.has(FLAG_AUTOSTART);
        let labels = self.table.labels().skip(1).filter(starts).map(|(label, _)| label);
        for label in labels.collect::<alloc::vec::Vec<_>>() {
            self.create(label);
        }
    }

    /// Makes an empty domain for a label. Whoever had it before is gone, and its id is the new one's: what others granted
    /// to it, and the ports that wait for it, are for the role that the policy gives the label.
    pub fn create(&mut self, label: Label) {
        let created = match self.member(label).and_then(|member| member.last) {
            Some(predecessor) => platform::create_successor(label.0, predecessor),
            None => platform::create_domain(label.0),
        };
        match created {
            Ok(id) => {
                if let Some(member) = self.member_mut(label) {
                    (member.id, member.last) = (Some(id), Some(id));
                    member.status = Status::Building;
                }
            }
            Err(error) => self.failed(label, step("it cannot be created")(error)),
        }
    }

    /// Builds the domain of a label. `more_arguments` are appended to those of the policy. What goes wrong is reported,
    /// and the others go on. Tells how long its devices took, whose reset is waited for.
    pub fn build(&mut self, label: Label, more_arguments: &str) -> Duration {
        let Some(id) = self.alive(label) else { return Duration::ZERO };
        let image = self.image_of(label).to_string();
        let (site, mut devices) = (self.site(), Duration::ZERO);
        let built = site.fill(label, id, &image, more_arguments).and_then(|ports| {
            let begun = now();
            site.devices(label, id)?;
            devices = now().since(begun);
            Ok(ports)
        });
        match built {
            Ok(ports) => {
                if let Some(member) = self.member_mut(label) {
                    member.ports = ports;
                }
            }
            Err(why) => self.failed(label, why),
        }
        devices
    }

    /// Lets a domain run.
    pub fn start(&mut self, label: Label) {
        let Some(id) = self.alive(label) else { return };
        match platform::unpause(id) {
            Ok(()) => {
                if let Some(member) = self.member_mut(label) {
                    member.status = Status::Running;
                    member.program.started(now());
                    member.watchdog = member.record.watchdog.map(|bound| Watchdog::new(bound, now()));
                }
            }
            Err(error) => self.failed(label, step("it cannot run")(error)),
        }
    }
}

impl Site {
    /// Makes everything of the domain `id` of a label but its devices. A native one runs the program `image`.
    pub fn fill(&self, label: Label, id: DomId, image: &str, more_arguments: &str) -> Result<Ports, Reason> {
        let entry = self.table.domain(label).ok_or("it is not in the policy")?;
        self.check_room(entry)?;
        if entry.kind == Kind::Pvh {
            return self.fill_guest(entry, id);
        }
        let (image, layout) = self.image(entry, image)?;
        for Region { gfn, pages, rights } in layout.regions {
            platform::populate(id, gfn, pages, rights.bits()).map_err(step("its memory"))?;
        }
        for Lent { region: Region { gfn, pages, rights }, page } in layout.lent {
            platform::lend(id, gfn, page, pages, rights.bits()).map_err(step("its image"))?;
        }
        for segment in layout.copied {
            platform::copy_in(id, segment.gpa, segment.bytes).map_err(step("its image"))?;
        }
        let ports = self.rings(id, RingPages::default()).map_err(step("its rings"))?;
        let arguments = [entry.arguments.as_str(), more_arguments].join(" ");
        let heap = (layout.heap_pages, layout.heap_bytes);
        let start = self.start_info(label, id, &ports, heap, arguments.trim());
        platform::copy_in(id, START_INFO, start.as_bytes()).map_err(step("its start info"))?;
        platform::set_entry(id, image.entry, STACK_TOP, START_INFO).map_err(step("its entry point"))?;
        Ok(ports)
    }

    /// Fails unless the machine has the memory that a domain may get, beside what others may get yet: so whoever runs gets
    /// all that the policy gives it, whenever it wants it.
    fn check_room(&self, entry: &Domain) -> Result<(), Reason> {
        let free = platform::machine_info().map_err(step("its memory"))?.frames_free;
        let wanted = self.promised() + layout::promised(entry.memory_pages) + HYPERVISOR_PAGES;
        match wanted.saturating_sub(free) {
            0 => Ok(()),
            missing => Err(format!("its memory: the machine lacks {} KiB of it", missing * PAGE_SIZE / 1024)),
        }
    }

    /// Frames that domains have not got yet and may get. One that has none is not being filled yet.
    pub fn promised(&self) -> u64 {
        let filled = platform::domains().filter(|info| info.state != STATE_DYING && info.pages != 0);
        let memory = |label| self.table.domain(Label(label)).map_or(0, |entry| entry.memory_pages);
        filled.map(|info| layout::promised(memory(info.label).saturating_sub(info.pages))).sum()
    }

    /// A program of the bundle, and how it would lie in a domain's memory.
    pub fn image(&self, entry: &Domain, name: &str) -> Result<(Image<'static>, Layout<'static>), Reason> {
        let image = Image::parse(self.file(name)?).map_err(|error| format!("its image `{name}`: {error}"))?;
        let layout =
            layout::plan(&image, self.bundle.archive(), entry.memory_pages).map_err(|error| error.to_string())?;
        Ok((image, layout))
    }

    /// A file of the bundle.
    pub fn file(&self, name: &str) -> Result<&'static [u8], Reason> {
        self.bundle.find(name).ok_or_else(|| format!("the bundle has no file `{name}`"))
    }

    /// Makes the ports and grants of its xenstore and console rings.
    pub fn rings(&self, id: DomId, pages: RingPages) -> Result<Ports, Errno> {
        let ring = |server: DomId, reference: u32, page: u64| {
            platform::seed_grant(id, GrantRef(reference), page, server, Access::ReadWrite)?;
            event_channel::alloc_unbound(id, server).map(|port| Some(port.0))
        };
        let store = self.store.filter(|store| *store != id).map_or(Ok(None), |store| {
            rescue::settle();
            match ring(store, GRANT_REF_XENSTORE, pages.store) {
                // It has died since.
                Err(Errno::ESRCH) if rescue::settle() => ring(store, GRANT_REF_XENSTORE, pages.store),
                made => made,
            }
        })?;
        let console = self.console.filter(|console| *console != id);
        let console = console.map_or(Ok(None), |console| match ring(console, GRANT_REF_CONSOLE, pages.console) {
            // It is dead, and cannot be waited for by xenstore, without which it cannot come again.
            Err(Errno::ESRCH) if self.store == Some(id) => Ok(None),
            made => made,
        })?;
        Ok(Ports { store, console, pages })
    }

    /// Assigns the devices that the policy gives it.
    pub fn devices(&self, label: Label, id: DomId) -> Result<(), Reason> {
        let wanted = (0..).zip(&self.table.devices).filter(|(_, device)| device.label == label);
        for (selector, device) in wanted {
            let name = &device.name;
            match platform::devices().find(|function| function.selector == selector) {
                Some(function) => platform::assign_device(id, function.bdf).map_err(|error| match error {
                    Errno::EPERM => format!(
                        "its device `{name}`: refused; without an IOMMU only a policy with unprotected-dma = \"accept\" \
                         starts driver domains"
                    ),
                    error => step(&format!("its device `{name}`"))(error),
                })?,
                None if device.optional => log::warn!("`{}` goes without `{name}`, which is not there", self.name(label)),
                None => {
                    let selector = policy::reach::selector(device);
                    return Err(format!("its device `{name}` ({selector}) is missing, or the machine has several of it"));
                }
            }
        }
        Ok(())
    }

    fn start_info(&self, label: Label, id: DomId, ports: &Ports, heap: (u64, u64), arguments: &str) -> StartInfo {
        let domid = |id: Option<DomId>| id.map_or(u32::MAX, |id| u32::from(id.0));
        StartInfo {
            magic: START_MAGIC,
            version: START_VERSION,
            domid: u32::from(id.0),
            label: label.0,
            store_domid: domid(self.store),
            store_port: ports.store.unwrap_or(0),
            console_domid: domid(self.console),
            console_port: ports.console.unwrap_or(0),
            heap_pages: heap.0 as u32,
            heap_bytes: heap.1,
            name: padded(self.name(label)),
            arguments: padded::<ARGUMENTS_MAX>(arguments),
            ..StartInfo::new_zeroed()
        }
    }

    fn name(&self, label: Label) -> &str {
        self.table.domain(label).map_or("?", |domain| domain.name.as_str())
    }
}

/// Text in a field of fixed size, cut where it does not fit (the policy's checks keep it from that).
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    field.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    field
}
