//! Several domains at random against a simple model: they write grant entries, map, unmap, copy, connect and close
//! ports, give pages back and take new ones, die in slices and are made again, and any allocation may fail.
//!
//! After each step: no frame is lost, none is freed twice, the pins of each page are those the model counts, the marks
//! in each entry say whether it is in use, each mapping shows the page it was made for, and no translation cache knows
//! a free frame.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use xen_abi::grant_table::{
    GNTCOPY_SOURCE_GREF, GNTMAP_HOST_MAP, GNTMAP_READONLY, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING,
    GnttabCopy, GnttabCopyPtr, GnttabMapGrantRef, GnttabUnmapGrantRef,
};
use xen_abi::native::GRANT_WINDOW;
use zerocopy::IntoBytes;

use crate::domain::{self, Death, Life};
use crate::grant::{self, Status};
use crate::ids::{DomId, Gfn, Gpa, GrantRef, Handle, Hpa, Mfn, PAGE_BYTES, Port};
use crate::machine::MachineMemory;
use crate::space::Rights;
use crate::testing;
use crate::testing::injection;
use crate::testing::{OWN, OWN_PAGES, World, no_devices};
use crate::{events, ids};

const LABELS: u16 = 3;
const GREFS: u32 = 4;
const WINDOW_SLOTS: u64 = 10;

#[derive(Clone, Copy, Debug)]
enum Step {
    Offer { grantor: u16, gref: u32, peer: u16, page: u64, flags: u8 },
    Map { mapper: u16, grantor: u16, gref: u32, slot: u64, read_only: bool },
    Unmap { mapping: usize, wrong: u8 },
    Copy { caller: u16, grantor: u16, gref: u32 },
    GiveBack { owner: u16, page: u64 },
    Populate { owner: u16, page: u64 },
    Die { label: u16 },
    Slice { label: u16 },
    Make { label: u16 },
    Connect { one: u16, other: u16 },
    Close { one: u16, port: u32 },
    Send { one: u16, port: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let label = 1..=LABELS;
    let page = 0..OWN_PAGES;
    let gref = 0..GREFS;
    prop_oneof![
        6 => (label.clone(), gref.clone(), label.clone(), page.clone(), 0u8..8)
            .prop_map(|(grantor, gref, peer, page, flags)| Step::Offer { grantor, gref, peer, page, flags }),
        8 => (label.clone(), label.clone(), gref.clone(), 0..WINDOW_SLOTS, any::<bool>())
            .prop_map(|(mapper, grantor, gref, slot, read_only)| Step::Map { mapper, grantor, gref, slot, read_only }),
        5 => (any::<usize>(), 0u8..8).prop_map(|(mapping, wrong)| Step::Unmap { mapping, wrong }),
        2 => (label.clone(), label.clone(), gref)
            .prop_map(|(caller, grantor, gref)| Step::Copy { caller, grantor, gref }),
        1 => (label.clone(), page.clone()).prop_map(|(owner, page)| Step::GiveBack { owner, page }),
        1 => (label.clone(), page).prop_map(|(owner, page)| Step::Populate { owner, page }),
        1 => label.clone().prop_map(|label| Step::Die { label }),
        3 => label.clone().prop_map(|label| Step::Slice { label }),
        2 => label.clone().prop_map(|label| Step::Make { label }),
        2 => (label.clone(), label.clone()).prop_map(|(one, other)| Step::Connect { one, other }),
        1 => (label.clone(), 0u32..8).prop_map(|(one, port)| Step::Close { one, port }),
        1 => (label, 0u32..8).prop_map(|(one, port)| Step::Send { one, port }),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    mapper: DomId,
    grantor: DomId,
    gref: u32,
    slot: u64,
    write: bool,
    mfn: Mfn,
    handle: Handle,
}

struct Model {
    world: World,
    /// The domain of each label, dying ones included.
    domains: BTreeMap<u16, DomId>,
    mappings: Vec<Mapping>,
    /// What each entry says, as its owner wrote it: flags, peer, page.
    entries: BTreeMap<(DomId, u32), (u16, DomId, u64)>,
}

impl Model {
    fn new() -> Self {
        let world = World::linked(usize::from(LABELS) + 1);
        let domains = (1..=LABELS).map(|label| (label, world.start(label))).collect();
        Self { world, domains, mappings: Vec::new(), entries: BTreeMap::new() }
    }

    fn id(&self, label: u16) -> Option<DomId> {
        self.domains.get(&label).copied()
    }

    fn alive(&self, label: u16) -> Option<DomId> {
        self.id(label).filter(|&id| self.world.life(id) == Some(Life::Running))
    }

    fn uses(&self, grantor: DomId, gref: u32) -> impl Iterator<Item = &Mapping> {
        self.mappings.iter().filter(move |mapping| mapping.grantor == grantor && mapping.gref == gref)
    }

    fn entry_at(&self, dom: DomId, gref: u32) -> Option<Hpa> {
        self.world.domains.with(dom, |domain| domain.grants.frame(0)).ok()?.map(|frame| frame.at(u64::from(gref) * 8))
    }

    /// What mapping should answer, by the rules; `Ok` with the page.
    fn expected(&self, mapper: DomId, grantor: DomId, gref: u32, slot: u64, write: bool) -> Result<Mfn, Status> {
        let place = Gpa(GRANT_WINDOW + slot * PAGE_BYTES).gfn();
        if self.mappings.iter().filter(|mapping| mapping.mapper == mapper).count() >= 8 {
            return Err(Status::NoSpace);
        }
        if self.world.mfn(mapper, place).is_some() {
            return Err(Status::BadVirtAddr);
        }
        let (flags, peer, page) = self.entries.get(&(grantor, gref)).copied().unwrap_or((0, DomId(0), 0));
        let grants = flags & 3 == GTF_PERMIT_ACCESS && peer == mapper && (flags & GTF_READONLY == 0 || !write);
        let active = self.uses(grantor, gref).next().copied();
        if let Some(active) = active {
            let user_differs = active.mapper != mapper;
            let needs_entry = write && !self.uses(grantor, gref).any(|mapping| mapping.write);
            // The frame is pinned again, which needs its owner to have it still; and to write it, if nobody did yet.
            let owned = self.owns(grantor, active.mfn, needs_entry);
            return match (user_differs, owned, needs_entry && !grants) {
                (true, ..) | (false, true, true) => Err(Status::GeneralError),
                (false, false, _) => Err(Status::BadPage),
                (false, true, false) => Ok(active.mfn),
            };
        }
        if !grants {
            return Err(Status::GeneralError);
        }
        let mfn = self.world.mfn(grantor, Gfn(OWN.0 + page)).ok_or(Status::BadPage)?;
        let read_only_page = page == 2;
        if write && read_only_page { Err(Status::BadPage) } else { Ok(mfn) }
    }

    fn owns(&self, dom: DomId, mfn: Mfn, writable: bool) -> bool {
        let pages = (0..OWN_PAGES).filter(|&page| !writable || page != 2);
        pages.into_iter().any(|page| self.world.mfn(dom, Gfn(OWN.0 + page)) == Some(mfn))
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Offer { grantor, gref, peer, page, flags } => self.offer(grantor, gref, peer, page, flags),
            Step::Map { mapper, grantor, gref, slot, read_only } => self.map(mapper, grantor, gref, slot, !read_only),
            Step::Unmap { mapping, wrong } => self.unmap(mapping, wrong),
            Step::Copy { caller, grantor, gref } => self.copy(caller, grantor, gref),
            Step::GiveBack { owner, page } => self.give_back(owner, page),
            Step::Populate { owner, page } => self.populate(owner, page),
            Step::Die { label } => {
                if let Some(id) = self.alive(label) {
                    self.world.touch_all(id);
                    domain::begin_destroy(&self.world.env(), id, Death::default()).unwrap();
                }
            }
            Step::Slice { label } => self.slice(label),
            Step::Make { label } => self.make(label),
            Step::Connect { one, other } => self.connect(one, other),
            Step::Close { one, port } => {
                if let Some(id) = self.alive(one) {
                    let _any = events::close(&self.world.env(), id, Port(port));
                }
            }
            Step::Send { one, port } => {
                if let Some(id) = self.alive(one) {
                    let _any = events::send(&self.world.env(), id, Port(port));
                }
            }
        }
    }

    fn offer(&mut self, grantor: u16, gref: u32, peer: u16, page: u64, choice: u8) {
        let (Some(grantor), Some(peer)) = (self.alive(grantor), self.id(peer)) else {
            return;
        };
        let flags = [1, 1, 1, 1 | GTF_READONLY, 1 | GTF_READONLY, 0, 2, 3][usize::from(choice)];
        let at = self.entry_at(grantor, gref).unwrap();
        // The marks are the hypervisor's; a guest that clears them harms itself only, but then the model cannot check.
        let marks = self.world.machine.load_u32(at) as u16 & (GTF_READING | GTF_WRITING);
        let words = [u32::from(flags | marks) | u32::from(peer.0) << 16, (OWN.0 + page) as u32];
        self.world.machine.write(at, words.as_bytes());
        self.entries.insert((grantor, gref), (flags, peer, page));
    }

    fn map(&mut self, mapper: u16, grantor: u16, gref: u32, slot: u64, write: bool) {
        let Some(mapper) = self.alive(mapper) else { return };
        let Some(grantor) = self.id(grantor) else { return };
        let expected = match self.world.life(grantor) {
            Some(Life::Running) => self.expected(mapper, grantor, gref, slot, write),
            _ => Err(Status::BadDomain),
        };
        let host_addr = GRANT_WINDOW + slot * PAGE_BYTES;
        let flags = GNTMAP_HOST_MAP | if write { 0 } else { GNTMAP_READONLY };
        let op = GnttabMapGrantRef { host_addr, flags, gref, dom: grantor.0, ..GnttabMapGrantRef::default() };
        let armed = injection::armed();
        let mapped = testing::map(&self.world.env(), mapper, &op);
        let struck = armed && !injection::armed();
        if struck && mapped == Err(Status::NoSpace) {
            return;
        }
        assert_eq!(mapped.map(drop), expected.map(drop), "{op:?}");
        let (Ok(mapped), Ok(mfn)) = (mapped, expected) else {
            return;
        };
        let gfn = Gpa(host_addr).gfn();
        self.world.machine.touch(mapper, gfn, mfn);
        self.mappings.push(Mapping { mapper, grantor, gref, slot, write, mfn, handle: mapped.handle });
    }

    fn unmap(&mut self, choice: usize, wrong: u8) {
        if self.mappings.is_empty() {
            return;
        }
        let index = choice % self.mappings.len();
        let mapping = self.mappings[index];
        if self.world.life(mapping.mapper) != Some(Life::Running) {
            return;
        }
        let host_addr = GRANT_WINDOW + mapping.slot * PAGE_BYTES;
        let good = GnttabUnmapGrantRef { host_addr, handle: mapping.handle.0, ..GnttabUnmapGrantRef::default() };
        let (op, expected) = match wrong {
            0 => (GnttabUnmapGrantRef { host_addr: host_addr ^ PAGE_BYTES, ..good }, Err(Status::BadVirtAddr)),
            1 => (GnttabUnmapGrantRef { handle: good.handle ^ 1 << 16, ..good }, Err(Status::BadHandle)),
            2 => (GnttabUnmapGrantRef { dev_bus_addr: 1, ..good }, Err(Status::BadDevAddr)),
            _ => (good, Ok(())),
        };
        assert_eq!(testing::unmap(&self.world.env(), mapping.mapper, &op), expected);
        if expected.is_ok() {
            self.mappings.swap_remove(index);
            assert_eq!(testing::unmap(&self.world.env(), mapping.mapper, &op), Err(Status::BadHandle), "twice");
        }
    }

    fn copy(&mut self, caller: u16, grantor: u16, gref: u32) {
        let (Some(caller), Some(grantor)) = (self.alive(caller), self.id(grantor)) else {
            return;
        };
        let source = GnttabCopyPtr { target: u64::from(gref), domid: grantor.0, ..GnttabCopyPtr::default() };
        let dest = GnttabCopyPtr { target: OWN.0, domid: DomId::SELF.0, ..GnttabCopyPtr::default() };
        let op = GnttabCopy { source, dest, len: 64, flags: GNTCOPY_SOURCE_GREF, ..GnttabCopy::default() };
        // Whatever it answers, the checks that follow each step find what it left behind.
        let _any = testing::copy(&self.world.env(), caller, &op);
    }

    fn give_back(&mut self, owner: u16, page: u64) {
        let Some(owner) = self.alive(owner) else { return };
        let gfn = Gfn(OWN.0 + page);
        let mfn = self.world.mfn(owner, gfn);
        if let Some(mfn) = mfn {
            self.world.machine.touch(owner, gfn, mfn);
        }
        let env = self.world.env();
        let released = self.world.domains.with(owner, |domain| domain::remove_page(&env, domain, gfn)).unwrap();
        assert_eq!(released.is_ok(), mfn.is_some());
    }

    fn populate(&mut self, owner: u16, page: u64) {
        let Some(owner) = self.alive(owner) else { return };
        let env = self.world.env();
        let rights = if page == 2 { Rights::Read } else { Rights::ReadWrite };
        let gfn = Gfn(OWN.0 + page);
        let _any = self.world.domains.with(owner, |domain| domain::populate(&env, domain, gfn, rights)).unwrap();
    }

    fn slice(&mut self, label: u16) {
        let Some(id) = self.id(label).filter(|&id| self.world.life(id) == Some(Life::Dying)) else {
            return;
        };
        let progress = domain::destroy_slice(&self.world.env(), id, no_devices).unwrap();
        // Its mappings may be gone by now, all or some: the model follows by what is still there.
        let gone = progress == crate::space::Progress::Done;
        let world = &self.world;
        self.mappings.retain(|mapping| {
            let place = Gpa(GRANT_WINDOW + mapping.slot * PAGE_BYTES).gfn();
            mapping.mapper != id || !gone && world.mfn(id, place).is_some()
        });
        if gone {
            self.domains.remove(&label);
            self.entries.retain(|(owner, _), _| *owner != id);
        }
    }

    fn make(&mut self, label: u16) {
        if self.id(label).is_some() {
            assert!(self.world.create(label).is_err(), "one domain a label");
            return;
        }
        let free = self.world.frames.free();
        if injection::armed() {
            let created = self.world.create(label);
            match created {
                Ok(id) => {
                    self.domains.insert(label, id);
                    // Bare: no memory, no table. It is destroyed by and by, or at the end.
                    domain::begin_destroy(&self.world.env(), id, Death::default()).unwrap();
                }
                Err(_) => assert_eq!(self.world.frames.free(), free, "a failed creation kept frames"),
            }
            return;
        }
        let id = self.world.start(label);
        self.domains.insert(label, id);
    }

    fn connect(&mut self, one: u16, other: u16) {
        let (Some(one), Some(other)) = (self.alive(one), self.alive(other)) else {
            return;
        };
        let env = self.world.env();
        if let Ok(port) = events::alloc_unbound(&env, one, DomId::SELF, other) {
            let _any = events::bind_interdomain(&env, other, one, port);
        }
    }

    fn check(&self) {
        self.world.check_frames();
        let mut pins: BTreeMap<Mfn, u32> = BTreeMap::new();
        for mapping in &self.mappings {
            *pins.entry(mapping.mfn).or_default() += 1;
            let place = Gpa(GRANT_WINDOW + mapping.slot * PAGE_BYTES).gfn();
            assert_eq!(self.world.mfn(mapping.mapper, place), Some(mapping.mfn), "{mapping:?}");
        }
        for mfn in (0..crate::testing::FRAMES).map(Mfn) {
            if self.world.frames.state(mfn) != crate::frames::State::Free {
                assert_eq!(self.world.frames.pins(mfn), pins.get(&mfn).copied().unwrap_or(0), "pins of {mfn:?}");
            } else {
                assert!(!pins.contains_key(&mfn), "{mfn:?} is free and mapped");
            }
        }
        for &id in self.domains.values().filter(|&&id| self.world.life(id) == Some(Life::Running)) {
            self.check_marks(id);
        }
    }

    fn check_marks(&self, grantor: DomId) {
        for gref in 0..GREFS {
            let Some(at) = self.entry_at(grantor, gref) else { return };
            let marks = self.world.machine.load_u32(at) as u16 & (GTF_READING | GTF_WRITING);
            let in_use = self.uses(grantor, gref).next().is_some();
            let written = self.uses(grantor, gref).any(|mapping| mapping.write);
            let expected = if in_use { GTF_READING } else { 0 } | if written { GTF_WRITING } else { 0 };
            assert_eq!(marks, expected, "marks of {grantor} {:?}", GrantRef(gref));
        }
        let mapped = self.mappings.iter().filter(|mapping| mapping.mapper == grantor).count();
        assert_eq!(self.world.domains.with(grantor, |domain| domain.grants.mapped()).unwrap() as usize, mapped);
    }

    fn end(self) {
        injection::disarm();
        self.world.end();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn g08_m04_random_domains_lose_no_frame_and_no_pin(
        steps in prop::collection::vec((step(), prop::option::weighted(0.2, 0u64..6)), 1..120),
    ) {
        let mut model = Model::new();
        for (step, fail) in steps {
            if let Some(after) = fail {
                injection::fail_after(after);
            }
            model.run(step);
            injection::disarm();
            model.check();
        }
        model.end();
    }
}

/// Every allocation of making, filling, wiring and mapping fails once; each time nothing is left behind.
#[test]
fn m04_a_failure_at_every_allocation_site_leaves_no_residue() {
    let world = World::linked(3);
    let free = world.frames.free();
    let mut sites = 0;
    loop {
        injection::fail_after(sites);
        let all_done = build_and_use(&world);
        let struck = !injection::disarm();
        while let Some(id) = world.domains.next(ids::DomId(0)) {
            world.destroy(id);
        }
        world.check_frames();
        assert_eq!(world.frames.free(), free, "frames are missing after failure {sites}");
        if !struck {
            assert!(all_done.is_some(), "failed without an injected failure");
            break;
        }
        assert!(all_done.is_none(), "failure {sites} went unnoticed");
        sites += 1;
    }
    assert!(sites > 25, "only {sites} sites");
}

fn build_and_use(world: &World) -> Option<()> {
    let env = world.env();
    let (one, other) = (world.create(1).ok()?, world.create(2).ok()?);
    for id in [one, other] {
        let populate = |domain: &mut domain::Domain| {
            (0..OWN_PAGES).try_for_each(|page| domain::populate(&env, domain, Gfn(OWN.0 + page), Rights::ReadWrite))
        };
        world.domains.with(id, populate).unwrap().ok()?;
        grant::setup_table(&env, id, DomId::SELF, 1).ok()?;
        domain::add_grant_frame(&env, id, 0, Gfn(0x900)).ok()?;
        world.domains.with(id, |domain| domain::add_shared_info(&env, domain, Gfn(0x901))).unwrap().ok()?;
        world.domains.with(id, |domain| domain.unpause()).unwrap().unwrap();
    }
    let port = events::alloc_unbound(&env, other, DomId::SELF, one).ok()?;
    events::bind_interdomain(&env, one, other, port).ok()?;
    let words = [u32::from(GTF_PERMIT_ACCESS) | u32::from(one.0) << 16, OWN.0 as u32];
    let at = world.domains.with(other, |domain| domain.grants.frame(0)).unwrap().unwrap();
    world.machine.write(at.base(), words.as_bytes());
    let op = GnttabMapGrantRef {
        host_addr: GRANT_WINDOW,
        flags: GNTMAP_HOST_MAP,
        gref: 0,
        dom: other.0,
        ..GnttabMapGrantRef::default()
    };
    testing::map(&env, one, &op).ok().map(drop)
}
