//! A machine for the tests: memory in a vector, a TLB that remembers until it is flushed, and a world of domains.

use std::boxed::Box;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::vec::Vec;

use xen_abi::grant_table::{GnttabCopy, GnttabMapGrantRef, GnttabUnmapGrantRef};
use zerocopy::IntoBytes;

use crate::authority::{SealedPolicy, parse::CHECKSUM, table};
use crate::domain::{self, Death, DomainTable, Env, Life};
use crate::frames::{FrameTable, State};
use crate::grant::{self, Status};
use crate::ids::{DomId, Gfn, Gpa, Handle, Hpa, Label, Mfn, PAGE_BYTES};
use crate::machine::{FlushScope, Machine, MachineMemory};
use crate::space::guest::Use;
use crate::space::{AddressSpace, Fault, Progress, Rights, VtdFormat};

/// Memory, and what the translation caches may still hold.
pub struct TestMachine {
    words: Vec<AtomicU64>,
    cached: Mutex<HashMap<(DomId, Gfn), Mfn>>,
}

impl TestMachine {
    pub fn new(frames: u64) -> Self {
        let words = (0..frames * PAGE_BYTES / 8).map(|_| AtomicU64::new(!0)).collect();
        Self { words, cached: Mutex::new(HashMap::new()) }
    }

    fn word(&self, at: Hpa) -> &AtomicU64 {
        &self.words[usize::try_from(at.0 / 8).unwrap()]
    }

    fn byte(&self, at: Hpa) -> u8 {
        (self.word(at).load(Ordering::SeqCst) >> (at.0 % 8 * 8)) as u8
    }

    fn replace(&self, at: Hpa, bytes: u64, change: impl Fn(u64) -> u64) -> u64 {
        assert!(at.0.is_multiple_of(bytes), "misaligned word at {at:?}");
        let shift = at.0 % 8 * 8;
        let mask = if bytes == 8 { !0 } else { (1 << (bytes * 8)) - 1 };
        let insert = |old: u64| Some(old & !(mask << shift) | (change(old >> shift & mask) & mask) << shift);
        let old = self.word(at).fetch_update(Ordering::SeqCst, Ordering::SeqCst, insert).unwrap();
        old >> shift & mask
    }

    /// A domain uses a page: its translation is cached from now on.
    pub fn touch(&self, domain: DomId, gfn: Gfn, mfn: Mfn) {
        self.cached().insert((domain, gfn), mfn);
    }

    pub fn cached(&self) -> MutexGuard<'_, HashMap<(DomId, Gfn), Mfn>> {
        self.cached.lock().unwrap()
    }
}

impl MachineMemory for TestMachine {
    fn read(&self, from: Hpa, into: &mut [u8]) {
        assert!(from.0 % PAGE_BYTES + into.len() as u64 <= PAGE_BYTES, "read leaves its frame");
        for (byte, at) in into.iter_mut().zip(from.0..) {
            *byte = self.byte(Hpa(at));
        }
    }

    fn write(&self, to: Hpa, bytes: &[u8]) {
        assert!(to.0 % PAGE_BYTES + bytes.len() as u64 <= PAGE_BYTES, "write leaves its frame");
        for (byte, at) in bytes.iter().zip(to.0..) {
            self.replace(Hpa(at), 1, |_| u64::from(*byte));
        }
    }

    fn copy(&self, from: Hpa, to: Hpa, bytes: usize) {
        let mut buffer = std::vec![0; bytes];
        self.read(from, &mut buffer);
        self.write(to, &buffer);
    }

    fn zero(&self, frame: Mfn) {
        for offset in (0..PAGE_BYTES).step_by(8) {
            self.word(frame.at(offset)).store(0, Ordering::SeqCst);
        }
    }

    fn load_u32(&self, at: Hpa) -> u32 {
        self.replace(at, 4, |old| old) as u32
    }

    fn load_u64(&self, at: Hpa) -> u64 {
        self.replace(at, 8, |old| old)
    }

    fn store_u8(&self, at: Hpa, value: u8) {
        self.replace(at, 1, |_| u64::from(value));
    }

    fn store_u64(&self, at: Hpa, value: u64) {
        self.replace(at, 8, |_| value);
    }

    fn fetch_or_u64(&self, at: Hpa, bits: u64) -> u64 {
        self.replace(at, 8, |old| old | bits)
    }

    fn fetch_and_u64(&self, at: Hpa, bits: u64) -> u64 {
        self.replace(at, 8, |old| old & bits)
    }

    fn fetch_and_u16(&self, at: Hpa, bits: u16) -> u16 {
        self.replace(at, 2, |old| old & u64::from(bits)) as u16
    }

    fn compare_exchange_u32(&self, at: Hpa, current: u32, new: u32) -> Result<u32, u32> {
        let old = self.replace(at, 4, |old| if old == u64::from(current) { u64::from(new) } else { old }) as u32;
        if old == current { Ok(old) } else { Err(old) }
    }
}

impl Machine for TestMachine {
    fn flush_pages(&self, domain: DomId, pages: impl ExactSizeIterator<Item = Gfn>, _: FlushScope) {
        let pages: Vec<_> = pages.collect();
        self.cached().retain(|(cached, page), _| *cached != domain || !pages.contains(page));
    }

    fn flush_all(&self, domain: DomId, _: FlushScope) {
        self.cached().retain(|(cached, _), _| *cached != domain);
    }
}

/// A frame table over `count` frames, `free` of which are free.
pub fn frame_table(count: u64, free: core::ops::Range<u64>) -> FrameTable {
    let entries: &'static [AtomicU32] = Box::leak((0..count).map(|_| AtomicU32::new(0)).collect());
    let table = FrameTable::new(entries);
    table.add_free(Mfn(free.start)..Mfn(free.end));
    table
}

/// A domain's entry that passes all checks; named after its number.
pub fn label(index: usize) -> table::Domain {
    let mut name = [0; 32];
    let text = std::format!("d{index}");
    name[..text.len()].copy_from_slice(text.as_bytes());
    table::Domain {
        name,
        flags: if index == 0 { table::FLAG_CONTROL } else { 0 },
        memory_pages: 16,
        vcpus: 1,
        weight: 256,
        ports_max: 64,
        grant_frames_max: 2,
        grant_maps_max: 8,
        ..table::Domain::default()
    }
}

/// A channel link.
pub fn link(front: u32, back: u32) -> table::Link {
    table::Link { front, back, kind: table::LINK_CHANNEL, ..table::Link::default() }
}

/// A table as the compiler would make it.
pub struct TableBuilder {
    pub header: table::Header,
    pub domains: Vec<table::Domain>,
    pub devices: Vec<table::Device>,
    pub links: Vec<table::Link>,
    pub ranges: Vec<table::Range>,
    pub text: Vec<u8>,
}

impl TableBuilder {
    pub fn new(labels: usize) -> Self {
        Self {
            header: table::Header { magic: table::MAGIC, version: table::VERSION, ..table::Header::default() },
            domains: (0..labels).map(label).collect(),
            devices: Vec::new(),
            links: Vec::new(),
            ranges: Vec::new(),
            text: Vec::new(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(self.domains.as_bytes());
        body.extend_from_slice(self.devices.as_bytes());
        body.extend_from_slice(self.links.as_bytes());
        body.extend_from_slice(self.ranges.as_bytes());
        body.extend_from_slice(&self.text);
        let mut header = self.header;
        header.domains = self.domains.len() as u32;
        header.devices = self.devices.len() as u32;
        header.links = self.links.len() as u32;
        header.ranges = self.ranges.len() as u32;
        header.text_bytes = self.text.len() as u32;
        header.table_bytes = (size_of::<table::Header>() + body.len()) as u32;
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(&body);
        seal(&mut bytes);
        bytes
    }

    pub fn policy(&self) -> SealedPolicy {
        SealedPolicy::parse(&self.bytes()).unwrap()
    }
}

/// Sets a table's checksum right.
pub fn seal(bytes: &mut [u8]) {
    let crc = CHECKSUM.checksum(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// No devices to release.
pub fn no_devices(_: DomId) {}

/// Everything that operations need.
pub struct World {
    pub machine: TestMachine,
    pub frames: FrameTable,
    pub domains: DomainTable,
    pub policy: SealedPolicy,
}

pub const FRAMES: u64 = 512;
const RESERVED: u64 = 8;
/// Where the domains' own pages are.
pub const OWN: Gfn = Gfn(0x200);
/// Pages each domain is given.
pub const OWN_PAGES: u64 = 4;

impl World {
    /// A world with this policy and no domain.
    pub fn new(policy: SealedPolicy) -> Self {
        Self {
            machine: TestMachine::new(FRAMES),
            frames: frame_table(FRAMES, RESERVED..FRAMES),
            domains: DomainTable::new(),
            policy,
        }
    }

    /// `labels` labels, all linked with all, label 1 a driver domain.
    pub fn linked(labels: usize) -> Self {
        let mut table = TableBuilder::new(labels);
        if let Some(driver) = table.domains.get_mut(1) {
            driver.flags |= table::FLAG_DRIVER;
        }
        for front in 0..labels as u32 {
            table.links.extend((0..front).map(|back| link(front, back)));
        }
        Self::new(table.policy())
    }

    pub fn env(&self) -> Env<'_, TestMachine> {
        Env { machine: &self.machine, frames: &self.frames, domains: &self.domains, policy: &self.policy }
    }

    /// Makes an empty domain.
    pub fn create(&self, label: u16) -> Result<DomId, crate::error::Errno> {
        self.create_as(label, None)
    }

    /// Makes an empty domain, with the id of its predecessor if one is named.
    pub fn create_as(&self, label: u16, predecessor: Option<DomId>) -> Result<DomId, crate::error::Errno> {
        let driver = self.policy.has_flag(Label(label), table::FLAG_DRIVER);
        let iommu = driver.then_some(VtdFormat { levels: 3, write_back: true });
        domain::create(&self.env(), Label(label), predecessor, iommu)
    }

    /// Makes a running domain with [`OWN_PAGES`] pages, the third of them read-only, and one grant table frame.
    pub fn start(&self, label: u16) -> DomId {
        self.start_as(label, None)
    }

    /// The same, with the id of its predecessor if one is named.
    pub fn start_as(&self, label: u16, predecessor: Option<DomId>) -> DomId {
        let id = self.create_as(label, predecessor).unwrap();
        self.domains
            .with(id, |domain| {
                for page in 0..OWN_PAGES {
                    let rights = if page == 2 { Rights::Read } else { Rights::ReadWrite };
                    domain::populate(&self.env(), domain, Gfn(OWN.0 + page), rights).unwrap();
                }
                domain.unpause().unwrap();
            })
            .unwrap();
        crate::grant::setup_table(&self.env(), id, DomId::SELF, 1).unwrap();
        id
    }

    /// A domain has used all its pages: the translation caches know them.
    pub fn touch_all(&self, id: DomId) {
        for gfn in (OWN.0..OWN.0 + OWN_PAGES).map(Gfn) {
            if let Some(mfn) = self.mfn(id, gfn) {
                self.machine.touch(id, gfn, mfn);
            }
        }
    }

    /// Destroys a domain to the end; returns how many slices that took.
    pub fn destroy(&self, id: DomId) -> u32 {
        self.touch_all(id);
        domain::begin_destroy(&self.env(), id, Death::default()).unwrap();
        self.finish_destroy(id)
    }

    pub fn finish_destroy(&self, id: DomId) -> u32 {
        for slices in 1..10_000 {
            if domain::destroy_slice(&self.env(), id, no_devices).unwrap() == Progress::Done {
                return slices;
            }
        }
        panic!("a domain does not end");
    }

    pub fn mfn(&self, id: DomId, gfn: Gfn) -> Option<Mfn> {
        self.domains.with(id, |domain| domain.space.translate(gfn, &self.machine).map(|page| page.mfn)).unwrap()
    }

    pub fn life(&self, id: DomId) -> Option<Life> {
        self.domains.with(id, |domain| domain.life()).ok()
    }

    /// Checks what must hold at any time: the free list has just the free frames, and no translation cache knows one.
    pub fn check_frames(&self) {
        let count = |state| (0..FRAMES).filter(|&mfn| self.frames.state(Mfn(mfn)) == state).count() as u64;
        assert_eq!(self.frames.free(), count(State::Free), "the free list is not the free frames");
        assert_eq!(count(State::Limbo), 0, "a frame is lost between two states");
        assert_eq!(count(State::Reserved), RESERVED, "a frame was lost or made");
        for ((domain, gfn), mfn) in self.machine.cached().iter() {
            assert_ne!(self.frames.state(*mfn), State::Free, "{domain} still reaches a free frame at {gfn:?}");
        }
    }

    /// Destroys what lives, then checks that every frame is back.
    pub fn end(&self) {
        while let Some(id) = self.domains.next(DomId(0)) {
            let dying = self.life(id) == Some(Life::Dying);
            if dying {
                self.finish_destroy(id)
            } else {
                self.destroy(id)
            };
            self.check_frames();
        }
        assert_eq!(self.frames.free(), FRAMES - RESERVED, "frames are missing");
    }
}

/// Makes allocations of this thread fail.
pub mod injection {
    use crate::fallible::OutOfMemory;

    std::thread_local! {
        static COUNTDOWN: core::cell::Cell<Option<u64>> = const { core::cell::Cell::new(None) };
    }

    /// Fails when [`fail_after`] has run down.
    pub fn check() -> Result<(), OutOfMemory> {
        COUNTDOWN.with(|countdown| {
            let left = countdown.get();
            countdown.set(left.and_then(|left| left.checked_sub(1)));
            if left == Some(0) { Err(OutOfMemory) } else { Ok(()) }
        })
    }

    /// Lets `allocations` of this thread succeed and the next one fail, once.
    pub fn fail_after(allocations: u64) {
        COUNTDOWN.with(|countdown| countdown.set(Some(allocations)));
    }

    /// Whether the failure is still to come.
    pub fn armed() -> bool {
        COUNTDOWN.with(|countdown| countdown.get().is_some())
    }

    /// Ends injection; tells whether it had not struck yet.
    pub fn disarm() -> bool {
        COUNTDOWN.with(|countdown| countdown.take().is_some())
    }
}

/// A guest's view of its memory, by its own rights.
impl AddressSpace {
    /// Reads as the guest would.
    pub fn copy_in(&mut self, from: Gpa, into: &mut [u8], memory: &impl MachineMemory) -> Result<(), Fault> {
        self.pieces(from, into.len(), Use::Read, memory, |hpa, range| {
            memory.read(hpa, into.get_mut(range).ok_or(Fault)?);
            Ok(())
        })
    }

    /// Writes as the guest would.
    pub fn copy_out(&mut self, to: Gpa, bytes: &[u8], memory: &impl MachineMemory) -> Result<(), Fault> {
        self.pieces(to, bytes.len(), Use::Write, memory, |hpa, range| {
            memory.write(hpa, bytes.get(range).ok_or(Fault)?);
            Ok(())
        })
    }
}

/// A mapping that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapped {
    pub handle: Handle,
    pub dev_bus_addr: u64,
}

fn status(number: i16) -> Result<(), Status> {
    let all = [
        Status::GeneralError,
        Status::BadDomain,
        Status::BadGntref,
        Status::BadHandle,
        Status::BadVirtAddr,
        Status::BadDevAddr,
        Status::PermissionDenied,
        Status::BadPage,
        Status::BadCopyArg,
        Status::NoSpace,
    ];
    if number == 0 { Ok(()) } else { Err(*all.iter().find(|status| **status as i16 == number).unwrap()) }
}

/// `grant::map` of one.
pub fn map<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &GnttabMapGrantRef) -> Result<Mapped, Status> {
    let mut ops = [*op];
    let [op] = &mut ops;
    if grant::map_near(env, caller, op).is_none() {
        grant::map(env, caller, std::slice::from_mut(op));
    }
    status(ops[0].status)?;
    Ok(Mapped { handle: Handle(ops[0].handle), dev_bus_addr: ops[0].dev_bus_addr })
}

/// `grant::unmap` of one.
pub fn unmap<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &GnttabUnmapGrantRef) -> Result<(), Status> {
    let mut ops = [*op];
    let [op] = &mut ops;
    if grant::unmap_near(env, caller, op).is_none() {
        grant::unmap(env, caller, std::slice::from_mut(op));
    }
    status(ops[0].status)
}

/// `grant::copy` of one.
pub fn copy<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &GnttabCopy) -> Result<(), Status> {
    let mut ops = [*op];
    let [op] = &mut ops;
    if grant::copy_near(env, caller, op).is_none() {
        grant::copy(env, caller, std::slice::from_mut(op));
    }
    status(ops[0].status)
}
