//! Many virtual disks over a few disks: the dance with the front ends, turns, completions.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use block_domain::export::{Extent, Part};
use block_domain::gpt::{self, Copy, Table};
use core::fmt;
use core::time::Duration;
use runtime::event::{Channel, Courtesy};
use runtime::grant::Mapping;
use runtime::grant::places::Places;
use runtime::time::{Instant, now};
use runtime::xenbus::{BackendBus, BackendEvent, DeviceId};
use runtime::{Access as PageAccess, Errno, GrantRef, Port, store};
use virtio::DeviceType;
use virtio::queue::Token;
use xen_abi::io::blkif::{VDISK_READONLY, XEN_IO_PROTO_ABI_X86_64};
use xen_rings::blkif::{Access, BlkBack, Discard, DiskLimits, Outcome, Ticket};
use xen_rings::ring::RingError;

use crate::batch::Batch;
use crate::disk::{self, Disk, QUEUE};
use crate::vbd::{Connection, Ending, GATHER_FROM, GATHER_PAGES, InFlight, Plan, SEGMENTS_MAX, Turn, Vbd, Work};

/// Pages of a ring: 2 to this power at most.
const RING_ORDER_MAX: u32 = 2;
/// The node in which a back end tells its successor what it has shown.
const SHOWN: &str = "shown";
/// Rounds over all virtual disks before the store and the clock are looked at again.
const ROUNDS: usize = 32;
/// Requests of all disks that can have pages mapped: more than one disk's queue takes.
const PLACES: u16 = 128;

/// A disk, its partitions and what it works on.
struct Unit {
    disk: Disk,
    table: Result<Table, String>,
    in_flight: Vec<Option<InFlight>>,
    /// Requests that the device has finished.
    finished: u64,
    /// How many they were when it was last looked at and working.
    suspected: Option<u64>,
}

/// How long requests wait in a ring, at most, while the device works on others of the same virtual disk, and what it has done
/// waits, while it has [`GATHER_FROM`] more to do. Who has many to make would else be interrupted at each of them, and again
/// at each answer; so they are taken, and answered, together. One at a time is never kept waiting.
const GATHER: Duration = Duration::from_micros(20);
/// How long the same may last while others use the CPU, who may be making more: a front end that has got answers. It ends when
/// nobody can run any more. Only where no other front end waits meanwhile.
const GIVE_WAY: Duration = Duration::from_micros(200);
/// Others have run, if it took so long until it was our turn again.
const RAN: Duration = Duration::from_micros(2);

/// Whether everything is done that can be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Wait for an event.
    Idle,
    /// There is more to do.
    Busy,
}

/// The block domain.
pub struct Service {
    units: Vec<Unit>,
    bus: BackendBus,
    events: VecDeque<BackendEvent>,
    plans: BTreeMap<DeviceId, Plan>,
    vbds: Vec<Vbd>,
    /// Where pages of requests are mapped.
    places: Places,
    /// Pages mapped for requests in flight.
    mapped: usize,
    /// Used in each turn.
    batch: Batch,
    /// Requests whose pages are about to be unmapped: connection, answer.
    finished: Vec<(u64, Ticket, Outcome)>,
    /// Until when requests or answers are gathered, if some are.
    gather: Option<Instant>,
    /// Whether others have been let run since that began.
    gave_way: bool,
    courtesy: Courtesy,
    /// Whose turn is first.
    first: usize,
    connections: u64,
}

impl Service {
    /// Opens the disks and starts to look for front ends.
    pub fn new() -> Result<Self, Errno> {
        let mut units = Vec::new();
        for device in virtio::find(DeviceType::Block) {
            match Disk::open(&device) {
                Ok(disk) => units.push(Unit::new(disk)),
                Err(error) => log::error!("disk {}: {error}", virtio::DeviceId::of(&device)),
            }
        }
        if units.is_empty() {
            log::error!("there is no disk that could be used");
        }
        Ok(Self {
            units,
            bus: BackendBus::new("vbd")?,
            events: VecDeque::new(),
            plans: BTreeMap::new(),
            vbds: Vec::new(),
            places: Places::new(PLACES, SEGMENTS_MAX as u16).ok_or(Errno::ENOMEM)?,
            mapped: 0,
            batch: Batch::new().ok_or(Errno::ENOMEM)?,
            finished: Vec::with_capacity(QUEUE),
            gather: None,
            gave_way: false,
            courtesy: Courtesy::default(),
            first: 0,
            connections: 0,
        })
    }

    /// Notes what an event is about. [`Service::run`] does the work.
    pub fn on_event(&mut self, port: Port) {
        if let Some(vbd) = self.vbds.iter_mut().find(|vbd| vbd.channel().port() == port) {
            if self.mapped < vbd.in_flight() * GATHER_PAGES && vbd.may_gather() {
                self.gather.get_or_insert_with(|| now() + GATHER);
            } else {
                vbd.wake();
            }
        } else if let Some(unit) = self.units.iter_mut().find(|unit| unit.disk.port() == port) {
            let unfinished = unit.disk.unfinished();
            if unfinished >= GATHER_FROM && self.mapped < unfinished * GATHER_PAGES {
                unit.disk.suppress_interrupts();
                self.gather.get_or_insert_with(|| now() + GATHER);
            }
        } else if store::port() == Some(port) {
            while let Some(event) = store::next_event() {
                self.events.extend(self.bus.on_watch(&event));
            }
        }
    }

    /// Does what there is to do.
    pub fn run(&mut self) -> Progress {
        while let Some(event) = self.events.pop_front() {
            self.on_bus_event(event);
        }
        if let Some(until) = self.gather {
            if !self.vbds.iter().any(|vbd| vbd.ready) && !self.let_others_run() && now() < until {
                return Progress::Idle;
            }
            (self.gather, self.gave_way) = (None, false);
            self.vbds.iter_mut().filter(|vbd| vbd.gathers()).for_each(Vbd::wake);
        }
        for _ in 0..ROUNDS {
            self.complete();
            let mut busy = self.turns();
            for unit in &mut self.units {
                unit.disk.flush();
            }
            let mut gathers = false;
            for vbd in &mut self.vbds {
                vbd.publish();
                gathers |= vbd.end_look();
            }
            busy |= self.bury();
            if !busy {
                return if gathers { self.gather_more() } else { Progress::Idle };
            }
        }
        Progress::Busy
    }

    /// Where something gathers, whoever can run goes first, once. `true`: somebody did, and there will be no more for now.
    fn let_others_run(&mut self) -> bool {
        if core::mem::replace(&mut self.gave_way, true) {
            return false;
        }
        self.courtesy.give_way(if self.vbds.len() == 1 { GIVE_WAY } else { GATHER }) > RAN
    }

    /// Requests were left to gather: there will be another look, and until then nobody needs to tell of anything.
    #[cold]
    fn gather_more(&mut self) -> Progress {
        self.gather.get_or_insert_with(|| now() + GATHER);
        self.units.iter_mut().for_each(|unit| unit.disk.suppress_interrupts());
        Progress::Busy
    }

    /// Until when requests or answers wait for more, if some do.
    pub fn gathers_until(&self) -> Option<Instant> {
        self.gather
    }

    /// Whether a device has something to do.
    pub fn is_busy(&self) -> bool {
        self.units.iter().any(|unit| unit.disk.is_busy())
    }

    /// Ends the domain if a device has given up, or works on something and has finished nothing since the last time,
    /// when it worked too. Whoever drives it next gets it reset.
    pub fn check_devices(&mut self) {
        for unit in &mut self.units {
            let working = unit.disk.is_busy().then_some(unit.finished);
            let why = match working {
                _ if unit.disk.needs_reset() => "has failed and needs a reset",
                Some(_) if working == unit.suspected => "does not answer",
                _ => {
                    unit.suspected = working;
                    continue;
                }
            };
            log::error!("disk {}: the device {why}", unit.disk.id());
            runtime::crash();
        }
    }

    /// Prints what was done so far.
    pub fn print_counters(&self) {
        for vbd in &self.vbds {
            log::info!("vbd {}: {}", vbd.connection.id, vbd.counters);
        }
        let (used, free) = runtime::heap::usage();
        log::info!("heap: {} KiB used, {} KiB free", used / 1024, free / 1024);
    }

    /// Takes what the devices have finished: unmaps the pages of all these requests, and only then answers them, for
    /// after the answer the front end may take its pages back.
    fn complete(&mut self) {
        for number in 0..self.units.len() {
            while let Some((request, outcome)) = self.next_finished(number) {
                self.finished.push((request.connection, request.ticket, outcome));
                if let Some(place) = request.place {
                    self.mapped = self.mapped.saturating_sub(place.pages());
                    self.places.unmap_later(place);
                }
            }
        }
        if self.finished.is_empty() {
            return;
        }
        self.places.unmap();
        for (connection, ticket, outcome) in self.finished.drain(..) {
            if let Some(vbd) = self.vbds.iter_mut().find(|vbd| vbd.connection.number == connection) {
                vbd.finished(ticket, outcome);
            }
        }
        // There is room again for those who found none.
        self.vbds.iter_mut().filter(|vbd| vbd.waits_for_room).for_each(Vbd::wake);
    }

    /// The next request that a disk is done with.
    fn next_finished(&mut self, unit: usize) -> Option<(InFlight, Outcome)> {
        let unit = self.units.get_mut(unit)?;
        loop {
            let (token, outcome) = unit.disk.next_done().unwrap_or_else(|fault| {
                log::error!("disk {}: broke the virtio protocol: {fault:?}", unit.disk.id());
                runtime::crash();
            })?;
            let outcome = match outcome {
                disk::Outcome::Done => Outcome::Done,
                disk::Outcome::Failed(_) => Outcome::Failed,
            };
            unit.finished += 1;
            let Some(request) = unit.in_flight.get_mut(token.index()).and_then(Option::take) else { continue };
            // What has no pages may be a discard that is not done in full.
            if request.place.is_some() {
                return Some((request, outcome));
            }
            match unit.discard_rest(token, request, outcome, &self.vbds) {
                Some(done) => return Some(done),
                None => continue,
            }
        }
    }

    /// One turn for each virtual disk that has something to do, another one first each time.
    fn turns(&mut self) -> bool {
        let count = self.vbds.len();
        let mut busy = false;
        for step in 0..count {
            let Some(vbd) = self.vbds.get_mut((self.first + step) % count).filter(|vbd| vbd.ready) else {
                continue;
            };
            let Some(unit) = self.units.get_mut(vbd.plan.disk) else {
                continue;
            };
            let work = &mut Work {
                disk: &mut unit.disk,
                in_flight: &mut unit.in_flight,
                places: &mut self.places,
                mapped: &mut self.mapped,
                batch: &mut self.batch,
            };
            let turn = vbd.turn(work);
            vbd.ready = turn == Turn::More;
            vbd.waits_for_room = turn == Turn::NoRoom;
            busy |= turn == Turn::More;
        }
        self.first = if count == 0 { 0 } else { (self.first + 1) % count };
        busy
    }

    /// Lets go of connections that have ended.
    fn bury(&mut self) -> bool {
        let mut buried = false;
        while let Some(at) = self.vbds.iter().position(|vbd| vbd.ended().is_some()) {
            let vbd = self.vbds.swap_remove(at);
            let (id, ending) = (vbd.connection.id, vbd.ended());
            log::info!("vbd {id}: closed after {}", vbd.counters);
            drop(vbd);
            match ending {
                Some(Ending::BrokenRing(error)) => self.bus.refuse(id, &format!("closed: {error}")),
                _ => self.events.extend(self.bus.closed(id)),
            }
            buried = true;
        }
        while let Some(event) = self.events.pop_front() {
            self.on_bus_event(event);
            buried = true;
        }
        buried
    }

    fn on_bus_event(&mut self, event: BackendEvent) {
        match event {
            BackendEvent::Found(id) => match self.plan(id).and_then(|plan| self.announce(id, &plan).map(|()| plan)) {
                Ok(plan) => {
                    self.plans.insert(id, plan);
                    self.events.extend(self.bus.announce(id));
                }
                Err(why) => self.bus.refuse(id, &why),
            },
            BackendEvent::Adopt(id) => match self.adopt(id) {
                Ok(vbd) => {
                    // Of answers that the dead one gave it may have told nobody.
                    vbd.channel().notify();
                    self.vbds.push(vbd);
                }
                Err(why) => self.bus.refuse(id, &format!("cannot go on where the last one died: {why}")),
            },
            BackendEvent::Ready(id) => {
                if self.vbds.iter().any(|vbd| vbd.connection.id == id) {
                    return;
                }
                match self.connect(id) {
                    Ok(vbd) => {
                        self.vbds.push(vbd);
                        self.events.extend(self.bus.connected(id));
                    }
                    Err(why) => self.bus.refuse(id, &why),
                }
            }
            BackendEvent::Closing(id) => match self.vbds.iter_mut().find(|vbd| vbd.connection.id == id) {
                Some(vbd) => vbd.end(Ending::Asked), // closed when nothing is in flight
                None => self.events.extend(self.bus.closed(id)),
            },
            BackendEvent::Gone(id) => {
                self.plans.remove(&id);
                // What is in flight keeps its own pages mapped until the device is done.
                if let Some(at) = self.vbds.iter().position(|vbd| vbd.connection.id == id) {
                    let vbd = self.vbds.swap_remove(at);
                    log::info!("vbd {id}: front end is gone after {}", vbd.counters);
                }
            }
        }
    }

    /// What the policy says of a virtual disk, by its nodes in our own directory.
    fn plan(&self, id: DeviceId) -> Result<Plan, String> {
        let device = self.bus.device(id).ok_or("it is gone")?;
        let disk = match device.config::<u32>("selector") {
            Ok(selector) => self.units.iter().position(|unit| unit.disk.id().selector == selector),
            Err(_) if self.units.len() == 1 => Some(0),
            Err(_) => return Err(String::from("`selector` names no disk, and there is not exactly one")),
        };
        let disk = disk.ok_or("its disk is missing or cannot be used")?;
        let unit = self.units.get(disk).ok_or("its disk is missing")?;
        let part = device.config::<String>("partition").unwrap_or_default();
        let extent = unit.extent(Part::parse(&part).map_err(|error| format!("{error}"))?)?;
        let writable = device.config::<String>("mode").is_ok_and(|mode| mode.starts_with('w'));
        Ok(Plan { disk, extent, read_only: !writable || unit.disk.facts.read_only })
    }

    /// Tells the front end what it may ask for.
    fn announce(&self, id: DeviceId, plan: &Plan) -> Result<(), String> {
        let device = self.bus.device(id).ok_or("it is gone")?;
        let unit = self.units.get(plan.disk).ok_or("its disk is missing")?;
        let segments = unit.disk.facts.chunks_max.min(SEGMENTS_MAX);
        let flush = u32::from(unit.disk.facts.flush && !plan.read_only);
        let discards = unit.disk.facts.discard.filter(|_| !plan.read_only);
        let discard = u32::from(discards.is_some());
        let granularity = discards.map_or(0, |discards| discards.granularity);
        let features: [(&str, &dyn fmt::Display); 9] = [
            ("feature-max-indirect-segments", &segments),
            ("feature-flush-cache", &flush),
            ("feature-barrier", &0),
            ("feature-persistent", &0),
            ("feature-discard", &discard),
            ("discard-granularity", &granularity),
            ("discard-alignment", &plan.extent.offset_of_unit(granularity)),
            ("discard-secure", &0),
            ("max-ring-page-order", &RING_ORDER_MAX),
        ];
        device.write_all(&features).map_err(|error| format!("cannot write features: {error:?}"))
    }

    /// Maps the front end's ring, binds its channel, publishes the disk.
    fn connect(&mut self, id: DeviceId) -> Result<Vbd, String> {
        let plan = self.plans.get(&id).ok_or("it was not announced")?.clone();
        let device = self.bus.device(id).ok_or("it is gone")?;
        let unit = self.units.get(plan.disk).ok_or("its disk is missing")?;
        if let Ok(protocol) = device.frontend_value::<String>("protocol")
            && protocol != XEN_IO_PROTO_ABI_X86_64
        {
            return Err(format!("protocol `{protocol}` is not served, only {XEN_IO_PROTO_ABI_X86_64}"));
        }
        let info = if plan.read_only { VDISK_READONLY } else { 0 };
        let block_bytes = unit.disk.facts.block_size.to_u64();
        let facts: [(&str, &dyn fmt::Display); 5] = [
            ("sectors", &plan.extent.count),
            ("sector-size", &512.max(block_bytes)),
            ("physical-sector-size", &block_bytes),
            ("info", &info),
            (SHOWN, &unit.shown(&plan)),
        ];
        device.write_all(&facts).map_err(|error| format!("cannot write facts: {error:?}"))?;
        let vbd = self.attach(id, plan, BlkBack::attach)?;
        let (extent, access) = (vbd.plan.extent, if vbd.plan.read_only { "read-only" } else { "read-write" });
        log::info!("vbd {id}: connected, {} sectors from {}, {access}", extent.count, extent.first);
        Ok(vbd)
    }

    /// Takes the place of a predecessor that died: its front end has been told of the same disk.
    fn adopt(&mut self, id: DeviceId) -> Result<Vbd, String> {
        let plan = self.plan(id)?;
        let device = self.bus.device(id).ok_or("it is gone")?;
        let unit = self.units.get(plan.disk).ok_or("its disk is missing")?;
        if device.config::<String>(SHOWN) != Ok(unit.shown(&plan)) {
            return Err(String::from("it showed another disk"));
        }
        let vbd = self.attach(id, plan, BlkBack::adopt)?;
        log::info!("vbd {id}, {} us after boot: goes on", now().0 / 1000);
        Ok(vbd)
    }

    fn attach(
        &mut self,
        id: DeviceId,
        plan: Plan,
        attach: impl FnOnce(Mapping, DiskLimits) -> Result<BlkBack<Mapping>, RingError>,
    ) -> Result<Vbd, String> {
        let device = self.bus.device(id).ok_or("it is gone")?;
        let unit = self.units.get(plan.disk).ok_or("its disk is missing")?;
        let references = ring_references(device)?;
        let pages = Mapping::new(id.frontend, &references, PageAccess::ReadWrite)
            .map_err(|error| format!("its ring cannot be mapped: {error}"))?;
        let limits = DiskLimits {
            sectors: plan.extent.count,
            access: if plan.read_only { Access::ReadOnly } else { Access::ReadWrite },
            discard: match unit.disk.facts.discard {
                Some(_) if !plan.read_only => Discard::Plain,
                _ => Discard::None,
            },
            indirect_segments: unit.disk.facts.chunks_max.min(SEGMENTS_MAX) as u16,
        };
        let ring = attach(pages, limits).map_err(|error| format!("its ring: {error}"))?;
        let port = device.frontend_value::<u32>("event-channel").map_err(|_| "it names no event channel")?;
        let channel = Channel::connect(id.frontend, Port(port))
            .map_err(|error| format!("its event channel cannot be bound: {error:?}"))?;
        self.connections += 1;
        Ok(Vbd::new(Connection { id, number: self.connections }, plan, ring, channel))
    }
}

/// The grants of a ring: `ring-ref`, or with `ring-page-order` several `ring-refN`.
fn ring_references(device: &runtime::xenbus::BackendDevice) -> Result<Vec<GrantRef>, String> {
    let reference = |key: &str| {
        let number = device.frontend_value::<u32>(key);
        number.map(GrantRef).map_err(|_| format!("it names no `{key}`"))
    };
    match device.frontend_value::<u32>("ring-page-order") {
        Ok(order) if order > RING_ORDER_MAX => Err(format!("a ring of 2^{order} pages is not served")),
        Ok(order) if order > 0 => (0..1 << order).map(|index| reference(&format!("ring-ref{index}"))).collect(),
        _ => Ok(alloc::vec![reference("ring-ref").or_else(|_| reference("ring-ref0"))?]),
    }
}

impl Unit {
    fn new(mut disk: Disk) -> Self {
        let facts = disk.facts;
        log::info!(
            "disk {}: {} sectors, {} MiB, blocks of {} bytes, {}, {}, {}; reset in {} us",
            disk.id(),
            facts.sectors,
            facts.sectors / 2048,
            facts.block_size,
            if facts.read_only { "read-only" } else { "read-write" },
            if facts.flush { "with flush" } else { "without flush" },
            if facts.discard.is_some() { "with discard" } else { "without discard" },
            disk.reset_took.as_micros(),
        );
        let table = gpt::read(&mut disk).map_err(|bad| format!("{}; backup: {}", bad.primary, bad.backup));
        if let Ok(table) = &table {
            let copy = if table.copy == Copy::Backup { " (from the backup: the primary is damaged)" } else { "" };
            log::info!("disk {}: {} partitions{copy}", disk.id(), table.partitions().len());
        }
        let in_flight = (0..QUEUE).map(|_| None).collect();
        Self { disk, table, in_flight, finished: 0, suspected: None }
    }

    /// What a front end relies on, in a line: a successor that cannot show the same must not go on.
    fn shown(&self, plan: &Plan) -> String {
        let disk::Facts { chunks_max, block_size, flush, discard, .. } = self.disk.facts;
        let discard = discard.map_or(0, |discards| discards.granularity);
        let Plan { extent: Extent { first, count }, read_only, .. } = plan;
        format!(
            "{count} sectors from {first}, read-only {read_only}, {block_size}, {chunks_max} segments, flush {flush}, \
             discard {discard}"
        )
    }

    /// Gives the disk what a discard has left to do. If there is nothing, or the disk takes none, the request is done.
    #[cold]
    fn discard_rest(
        &mut self,
        token: Token,
        request: InFlight,
        outcome: Outcome,
        vbds: &[Vbd],
    ) -> Option<(InFlight, Outcome)> {
        // Nobody's sectors are discarded once whoever asked is gone: they may be another's by now.
        let wanted = |_: &Extent| outcome == Outcome::Done && vbds.iter().any(|vbd| vbd.is(request.connection));
        let Some(rest) = self.disk.rest_of_discard(token).filter(wanted) else {
            return Some((request, outcome));
        };
        let Ok(token) = self.disk.discard(rest) else { return Some((request, Outcome::Failed)) };
        if let Some(place) = self.in_flight.get_mut(token.index()) {
            *place = Some(request);
        }
        None
    }

    fn extent(&self, part: Part) -> Result<Extent, String> {
        match (part, &self.table) {
            (Part::Whole, _) => Ok(Extent { first: 0, count: self.disk.facts.sectors }),
            (Part::Partition(number), Ok(table)) => {
                table.partition(number).ok_or_else(|| format!("the disk has no partition {number}"))
            }
            (Part::Partition(_), Err(error)) => Err(format!("the disk has no partition table: {error}")),
        }
    }
}
