//! Grants: every status, the marks in the entries, and what outlives what.

use proptest::prelude::*;
use xen_abi::grant_table as abi;
use xen_abi::grant_table::{
    GNTMAP_APPLICATION_MAP, GNTMAP_CONTAINS_PTE, GNTMAP_DEVICE_MAP, GNTMAP_HOST_MAP, GNTMAP_READONLY, GTF_READING,
    GTF_READONLY, GTF_SUB_PAGE, GTF_WRITING, GnttabCopy, GnttabCopyPtr, GnttabMapGrantRef, GnttabUnmapGrantRef,
};
use xen_abi::native::{GRANT_WINDOW, GRANT_WINDOW_END};

use super::*;
use crate::authority::table;
use crate::domain::{self, Domain};
use crate::error::Errno;
use crate::frames::State;
use crate::ids::{DomId, Gfn, Gpa, GrantRef, Handle, Hpa, Mfn, PAGE_BYTES};
use crate::machine::MachineMemory;
use crate::space::{PageKind, Progress, Rights};
use crate::testing::{Mapped, OWN, TableBuilder, World, copy, link, map, unmap};

const GRANTED: u16 = abi::GTF_PERMIT_ACCESS;
const HOST: u32 = GNTMAP_HOST_MAP;

/// A grantor (label 2), a driver domain (label 1) and a third (label 3).
struct It {
    world: World,
    grantor: DomId,
    driver: DomId,
    third: DomId,
}

fn it() -> It {
    let world = World::linked(4);
    let (driver, grantor, third) = (world.start(1), world.start(2), world.start(3));
    It { world, grantor, driver, third }
}

fn map_op(dom: DomId, gref: u32, slot: u64, flags: u32) -> GnttabMapGrantRef {
    let host_addr = GRANT_WINDOW + slot * PAGE_BYTES;
    GnttabMapGrantRef { host_addr, flags, gref, dom: dom.0, ..GnttabMapGrantRef::default() }
}

fn unmap_op(slot: u64, handle: Handle) -> GnttabUnmapGrantRef {
    let host_addr = GRANT_WINDOW + slot * PAGE_BYTES;
    GnttabUnmapGrantRef { host_addr, handle: handle.0, ..GnttabUnmapGrantRef::default() }
}

impl It {
    fn entry(&self, dom: DomId, gref: u32) -> Hpa {
        self.world.domains.with(dom, |domain| domain.grants.entry(GrantRef(gref)).unwrap().0).unwrap()
    }

    fn offer(&self, dom: DomId, gref: u32, flags: u16, peer: DomId, gfn: u64) {
        let entry = abi::GrantEntryV1 { flags, domid: peer.0, frame: gfn as u32 };
        self.world.machine.write(self.entry(dom, gref), zerocopy::IntoBytes::as_bytes(&entry));
    }

    fn marks(&self, gref: u32) -> u16 {
        self.world.machine.load_u32(self.entry(self.grantor, gref)) as u16 & (GTF_READING | GTF_WRITING)
    }

    fn map(&self, op: &GnttabMapGrantRef) -> Result<Mapped, Status> {
        map(&self.world.env(), self.driver, op)
    }

    fn unmap(&self, op: &GnttabUnmapGrantRef) -> Result<(), Status> {
        unmap(&self.world.env(), self.driver, op)
    }

    fn page(&self, number: u64) -> Mfn {
        self.world.mfn(self.grantor, Gfn(OWN.0 + number)).unwrap()
    }

    fn pins(&self, number: u64) -> u32 {
        self.world.frames.pins(self.page(number))
    }

    fn with<R>(&self, dom: DomId, action: impl FnOnce(&mut Domain) -> R) -> R {
        self.world.domains.with(dom, action).unwrap()
    }

    fn nothing_is_mapped(&self) {
        assert_eq!(self.with(self.driver, |domain| domain.grants.mapped()), 0);
        assert_eq!(self.world.mfn(self.driver, Gpa(GRANT_WINDOW).gfn()), None);
        assert!((0..4).all(|page| self.pins(page) == 0));
        assert!((0..8).all(|gref| self.marks(gref) == 0));
    }
}

#[test]
fn g01_every_operation_is_safe_before_the_table_is_set_up() {
    let world = World::linked(3);
    let (a, b) = (world.create(1).unwrap(), world.create(2).unwrap());
    let env = world.env();
    for gref in [0, 1, 511, 512, u32::MAX] {
        assert_eq!(map(&env, a, &map_op(b, gref, 0, HOST)), Err(Status::BadGntref));
        let source = GnttabCopyPtr { target: u64::from(gref), domid: b.0, ..GnttabCopyPtr::default() };
        let op = GnttabCopy { source, flags: abi::GNTCOPY_SOURCE_GREF, ..GnttabCopy::default() };
        assert_eq!(copy(&env, a, &op), Err(Status::BadGntref));
    }
    assert_eq!(unmap(&env, a, &unmap_op(0, Handle(0))), Err(Status::BadHandle));
    assert_eq!(query_size(&env, a, DomId::SELF), Ok((0, 2)));
    world.end();
}

#[test]
fn g02_version_one_is_the_only_one() {
    assert_eq!(set_version(1), Ok(()));
    assert_eq!(set_version(2), Err(Errno::ENOSYS));
    for version in [0, 3, u32::MAX] {
        assert_eq!(set_version(version), Err(Errno::EINVAL));
    }
}

#[test]
fn g02_a_table_grows_and_never_shrinks() {
    let it = it();
    let env = it.world.env();
    assert_eq!(query_size(&env, it.grantor, DomId::SELF), Ok((1, 2)));
    assert_eq!(setup_table(&env, it.grantor, DomId::SELF, 3), Err(Status::GeneralError));
    assert_eq!(setup_table(&env, it.grantor, it.driver, 1), Err(Status::PermissionDenied));
    assert_eq!(query_size(&env, it.grantor, it.driver), Err(Status::PermissionDenied));
    assert_eq!(setup_table(&env, it.grantor, it.grantor, 2), Ok(()));
    assert_eq!(setup_table(&env, it.grantor, DomId::SELF, 0), Ok(()));
    assert_eq!(query_size(&env, it.grantor, DomId::SELF), Ok((2, 2)));
    it.world.end();
}

#[test]
fn a_mapped_page_is_the_granted_one_for_cpu_and_devices() {
    let it = it();
    it.offer(it.grantor, 7, GRANTED, it.driver, OWN.0);
    let mapped = it.map(&map_op(it.grantor, 7, 0, HOST | GNTMAP_DEVICE_MAP)).unwrap();
    assert_eq!(mapped.dev_bus_addr, GRANT_WINDOW);
    let page = it.with(it.driver, |domain| domain.space.translate(Gpa(GRANT_WINDOW).gfn(), &it.world.machine)).unwrap();
    assert_eq!((page.mfn, page.rights, page.kind), (it.page(0), Rights::ReadWrite, PageKind::Foreign));
    assert_eq!((it.pins(0), it.marks(7)), (1, GTF_READING | GTF_WRITING));
    assert_eq!(it.unmap(&unmap_op(0, mapped.handle)), Ok(()));
    it.nothing_is_mapped();
    it.world.end();
}

#[test]
fn a_read_only_mapping_cannot_be_written() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED | GTF_READONLY, it.driver, OWN.0 + 2);
    assert_eq!(it.map(&map_op(it.grantor, 1, 0, HOST)), Err(Status::GeneralError));
    let mapped = it.map(&map_op(it.grantor, 1, 0, HOST | GNTMAP_READONLY)).unwrap();
    assert_eq!(it.marks(1), GTF_READING);
    let written = it.with(it.driver, |domain| domain.space.copy_out(Gpa(GRANT_WINDOW), b"x", &it.world.machine));
    assert!(written.is_err());
    it.unmap(&unmap_op(0, mapped.handle)).unwrap();
    it.nothing_is_mapped();
}

#[test]
fn a_page_that_its_owner_cannot_write_is_granted_to_read_only() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0 + 2);
    assert_eq!(it.map(&map_op(it.grantor, 1, 0, HOST)), Err(Status::BadPage));
    it.nothing_is_mapped();
    assert!(it.map(&map_op(it.grantor, 1, 0, HOST | GNTMAP_READONLY)).is_ok());
    // Nor does a mapping for reading open the way to one for writing.
    assert_eq!(it.map(&map_op(it.grantor, 1, 1, HOST)), Err(Status::BadPage));
}

#[test]
fn g15_every_refusal_has_its_negative_status_and_leaves_nothing() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    it.offer(it.grantor, 2, GRANTED, it.third, OWN.0);
    it.offer(it.grantor, 3, GRANTED, it.driver, 0x9999);
    let good = map_op(it.grantor, 1, 0, HOST);
    let cases = [
        (GnttabMapGrantRef { dom: 99, ..good }, Status::BadDomain),
        (GnttabMapGrantRef { dom: 0x7ff4, ..good }, Status::BadDomain),
        (GnttabMapGrantRef { gref: 512, ..good }, Status::BadGntref),
        (GnttabMapGrantRef { gref: u32::MAX, ..good }, Status::BadGntref),
        (GnttabMapGrantRef { gref: 0, ..good }, Status::GeneralError),
        (GnttabMapGrantRef { gref: 2, ..good }, Status::GeneralError),
        (GnttabMapGrantRef { gref: 3, ..good }, Status::BadPage),
        (GnttabMapGrantRef { host_addr: GRANT_WINDOW + 8, ..good }, Status::BadVirtAddr),
        (GnttabMapGrantRef { host_addr: GRANT_WINDOW - PAGE_BYTES, ..good }, Status::BadVirtAddr),
        (GnttabMapGrantRef { host_addr: GRANT_WINDOW_END, ..good }, Status::BadVirtAddr),
        (GnttabMapGrantRef { host_addr: OWN.base().0, ..good }, Status::BadVirtAddr),
        (GnttabMapGrantRef { host_addr: !0xfff, ..good }, Status::BadVirtAddr),
        (GnttabMapGrantRef { flags: 0, ..good }, Status::BadGntref),
    ];
    for (op, expected) in cases {
        let result = it.map(&op);
        assert_eq!(result, Err(expected), "{op:?}");
        assert!(Status::of(&result) < 0);
        it.nothing_is_mapped();
    }
    assert_eq!(Status::of(&it.map(&good)), 0);
}

#[test]
fn g03_g04_entries_that_are_no_plain_grants_are_refused() {
    let it = it();
    for flags in [0, 2, 3, GRANTED | GTF_SUB_PAGE, 3 | GTF_SUB_PAGE, 2 | abi::GTF_TRANSFER_COMMITTED] {
        it.offer(it.grantor, 1, flags, it.driver, OWN.0);
        assert_eq!(it.map(&map_op(it.grantor, 1, 0, HOST)), Err(Status::GeneralError), "{flags:#x}");
        it.nothing_is_mapped();
    }
}

#[test]
fn g07_g08_flag_combinations() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    for flags in 0..32u32 {
        let wants = flags & (GNTMAP_HOST_MAP | GNTMAP_DEVICE_MAP);
        let refused = flags & (GNTMAP_APPLICATION_MAP | GNTMAP_CONTAINS_PTE) != 0 || flags & HOST == 0;
        let expected = match (wants, refused) {
            (0, _) => Some(Status::BadGntref),
            (_, true) => Some(Status::GeneralError),
            (_, false) => None,
        };
        let mapped = it.map(&map_op(it.grantor, 1, 0, flags));
        assert_eq!(mapped.err(), expected, "{flags:#x}");
        if let Ok(mapped) = mapped {
            assert_eq!(it.pins(0), 1, "one mapping, one pin, whatever the flags");
            it.unmap(&unmap_op(0, mapped.handle)).unwrap();
        }
        it.nothing_is_mapped();
    }
    assert!(it.map(&map_op(it.grantor, 1, 0, HOST | 0x8000_0000)).is_ok(), "the guest's own bits");
    assert_eq!(it.map(&map_op(it.grantor, 1, 1, HOST | 1 << 5)), Err(Status::GeneralError));
}

#[test]
fn device_maps_are_for_domains_that_drive_devices() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.third, OWN.0);
    let op = map_op(it.grantor, 1, 0, HOST | GNTMAP_DEVICE_MAP);
    assert_eq!(map(&it.world.env(), it.third, &op), Err(Status::GeneralError));
}

#[test]
fn g09_an_unmap_works_once_and_whole() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    let first = it.map(&map_op(it.grantor, 1, 0, HOST | GNTMAP_DEVICE_MAP)).unwrap().handle;
    let second = it.map(&map_op(it.grantor, 1, 1, HOST)).unwrap().handle;
    assert_eq!(it.pins(0), 2);
    assert_eq!(it.unmap(&unmap_op(1, first)), Err(Status::BadVirtAddr), "another mapping's address");
    assert_eq!(it.unmap(&GnttabUnmapGrantRef { host_addr: 0, ..unmap_op(0, first) }), Err(Status::BadVirtAddr));
    let elsewhere = GnttabUnmapGrantRef { dev_bus_addr: GRANT_WINDOW + PAGE_BYTES, ..unmap_op(0, first) };
    assert_eq!(it.unmap(&elsewhere), Err(Status::BadDevAddr));
    let both = GnttabUnmapGrantRef { dev_bus_addr: GRANT_WINDOW, ..unmap_op(0, first) };
    assert_eq!(it.unmap(&both), Ok(()));
    for _ in 0..3 {
        assert_eq!(it.unmap(&both), Err(Status::BadHandle));
        assert_eq!(it.pins(0), 1);
    }
    assert_eq!(it.marks(1), GTF_READING | GTF_WRITING);
    it.unmap(&unmap_op(1, second)).unwrap();
    it.nothing_is_mapped();
}

#[test]
fn g09_a_stale_handle_fits_no_later_mapping() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    let old = it.map(&map_op(it.grantor, 1, 0, HOST)).unwrap().handle;
    it.unmap(&unmap_op(0, old)).unwrap();
    let new = it.map(&map_op(it.grantor, 1, 0, HOST)).unwrap().handle;
    assert_ne!(old, new);
    assert_eq!(it.unmap(&unmap_op(0, old)), Err(Status::BadHandle));
    for handle in [1 << 16 | 7, 0x7fff_ffff, abi::INVALID_GRANT_HANDLE] {
        assert_eq!(it.unmap(&unmap_op(0, Handle(handle))), Err(Status::BadHandle));
    }
    assert_eq!(it.pins(0), 1);
}

#[test]
fn g10_the_mapper_cannot_reach_the_page_when_the_grantor_sees_it_unused() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    let handle = it.map(&map_op(it.grantor, 1, 0, HOST)).unwrap().handle;
    let gfn = Gpa(GRANT_WINDOW).gfn();
    it.world.machine.touch(it.driver, gfn, it.page(0));
    let env = it.world.env();
    let mut run = crate::space::UnmappedRun::new(it.driver);
    let mut ops = [unmap_op(0, handle)];
    it.with(it.driver, |domain| super::unmap::begin(&env, domain, &mut ops, &mut run));
    assert_eq!(ops[0].status, abi::GNTST_OKAY);
    assert_ne!(it.marks(1), 0, "not flushed yet");
    assert_eq!(it.unmap(&unmap_op(0, handle)), Err(Status::BadHandle), "by another CPU meanwhile");
    let flushed = run.flush(&it.world.machine);
    assert!(!it.world.machine.cached().contains_key(&(it.driver, gfn)));
    assert_eq!(it.pins(0), 1);
    super::active::end_uses(&env, flushed.what());
    it.nothing_is_mapped();
}

#[test]
fn g12_marks_stay_until_the_last_user() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    let writer = it.map(&map_op(it.grantor, 1, 0, HOST)).unwrap().handle;
    let reader = it.map(&map_op(it.grantor, 1, 1, HOST | GNTMAP_READONLY)).unwrap().handle;
    let source = GnttabCopyPtr { target: 1, domid: it.grantor.0, ..GnttabCopyPtr::default() };
    let dest = GnttabCopyPtr { target: OWN.0, domid: DomId::SELF.0, ..GnttabCopyPtr::default() };
    let op = GnttabCopy { source, dest, len: 16, flags: abi::GNTCOPY_SOURCE_GREF, ..GnttabCopy::default() };
    copy(&it.world.env(), it.driver, &op).unwrap();
    assert_eq!(it.marks(1), GTF_READING | GTF_WRITING);
    it.unmap(&unmap_op(0, writer)).unwrap();
    assert_eq!(it.marks(1), GTF_READING, "a reader is left");
    it.unmap(&unmap_op(1, reader)).unwrap();
    it.nothing_is_mapped();
}

#[test]
fn g14_an_active_entry_is_used_by_its_snapshot() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    it.map(&map_op(it.grantor, 1, 0, HOST)).unwrap();
    // The grantor rewrites the frame, and even the peer, of an entry in use.
    it.offer(it.grantor, 1, GRANTED, it.third, OWN.0 + 1);
    it.map(&map_op(it.grantor, 1, 1, HOST)).unwrap();
    assert_eq!(it.world.mfn(it.driver, Gpa(GRANT_WINDOW + PAGE_BYTES).gfn()), Some(it.page(0)), "the first page again");
    assert_eq!((it.pins(0), it.pins(1)), (2, 0));
    assert_eq!(map(&it.world.env(), it.third, &map_op(it.grantor, 1, 0, HOST)), Err(Status::GeneralError));
    let source = GnttabCopyPtr { target: 1, domid: it.grantor.0, ..GnttabCopyPtr::default() };
    let dest = GnttabCopyPtr { target: OWN.0, domid: DomId::SELF.0, ..GnttabCopyPtr::default() };
    let op = GnttabCopy { source, dest, len: 4, flags: abi::GNTCOPY_SOURCE_GREF, ..GnttabCopy::default() };
    it.world.machine.write(it.page(0).base(), b"old!");
    it.world.machine.write(it.page(1).base(), b"new!");
    copy(&it.world.env(), it.driver, &op).unwrap();
    let mut copied = [0; 4];
    it.with(it.driver, |domain| domain.space.copy_in(OWN.base(), &mut copied, &it.world.machine)).unwrap();
    assert_eq!(&copied, b"old!");
}

#[test]
fn a_reader_that_turns_writer_is_judged_by_the_entry_as_it_is() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED | GTF_READONLY, it.driver, OWN.0);
    it.map(&map_op(it.grantor, 1, 0, HOST | GNTMAP_READONLY)).unwrap();
    assert_eq!(it.map(&map_op(it.grantor, 1, 1, HOST)), Err(Status::GeneralError));
    assert_eq!((it.pins(0), it.marks(1)), (1, GTF_READING));
}

#[test]
fn the_policy_decides_who_maps_whom() {
    let mut builder = TableBuilder::new(3);
    builder.links.push(table::Link { kind: table::LINK_BLOCK, ..link(1, 2) });
    let world = World::new(builder.policy());
    let (front, back) = (world.start(1), world.start(2));
    let it = It { world, grantor: front, driver: back, third: back };
    it.offer(front, 1, GRANTED, back, OWN.0);
    assert!(it.map(&map_op(front, 1, 0, HOST)).is_ok());
    it.offer(back, 1, GRANTED, front, OWN.0);
    let env = it.world.env();
    assert_eq!(map(&env, front, &map_op(back, 1, 0, HOST)), Err(Status::PermissionDenied), "a back end is not mapped");
    let source = GnttabCopyPtr { target: 1, domid: back.0, ..GnttabCopyPtr::default() };
    let op = GnttabCopy { source, flags: abi::GNTCOPY_SOURCE_GREF, ..GnttabCopy::default() };
    assert_eq!(copy(&env, front, &op), Err(Status::PermissionDenied));
}

#[test]
fn mappings_are_limited_by_the_policy() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    for slot in 0..8 {
        it.map(&map_op(it.grantor, 1, slot, HOST)).unwrap();
    }
    assert_eq!(it.map(&map_op(it.grantor, 1, 8, HOST)), Err(Status::NoSpace));
    assert_eq!(it.pins(0), 8);
}

#[test]
fn a_domain_may_map_its_own_grant() {
    let it = it();
    it.offer(it.driver, 1, GRANTED, it.driver, OWN.0);
    let mapped = it.map(&map_op(DomId::SELF, 1, 0, HOST)).unwrap();
    assert_eq!(it.unmap(&unmap_op(0, mapped.handle)), Ok(()));
    it.world.end();
}

#[test]
fn g20_a_mapped_page_that_is_given_back_stays_until_it_is_unmapped() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    let handle = it.map(&map_op(it.grantor, 1, 0, HOST)).unwrap().handle;
    let mfn = it.page(0);
    let env = it.world.env();
    it.with(it.grantor, |domain| domain::remove_page(&env, domain, OWN)).unwrap();
    assert_eq!(it.world.frames.state(mfn), State::Leaving);
    it.offer(it.grantor, 2, GRANTED, it.driver, OWN.0);
    assert_eq!(it.map(&map_op(it.grantor, 2, 1, HOST)), Err(Status::BadPage), "not the grantor's any more");
    it.unmap(&unmap_op(0, handle)).unwrap();
    assert_eq!(it.world.frames.state(mfn), State::Free);
    it.world.end();
}

#[test]
fn mapped_pages_and_shared_pages_cannot_be_granted_on() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    it.map(&map_op(it.grantor, 1, 0, HOST)).unwrap();
    let env = it.world.env();
    it.offer(it.driver, 1, GRANTED, it.third, Gpa(GRANT_WINDOW).gfn().0);
    assert_eq!(map(&env, it.third, &map_op(it.driver, 1, 0, HOST)), Err(Status::BadPage));
    domain::add_grant_frame(&env, it.driver, 0, Gfn(0x900)).unwrap();
    it.offer(it.driver, 2, GRANTED, it.third, 0x900);
    assert_eq!(map(&env, it.third, &map_op(it.driver, 2, 0, HOST)), Err(Status::BadPage));
    let released = it.with(it.driver, |domain| domain::remove_page(&env, domain, Gpa(GRANT_WINDOW).gfn()));
    assert_eq!(released, Err(Errno::EPERM), "nor given back");
    it.world.end();
}

#[test]
fn g17_a_mapper_with_all_its_handles_ends_in_bounded_slices() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    for slot in 0..8 {
        it.map(&map_op(it.grantor, 1, slot, HOST)).unwrap();
    }
    let env = it.world.env();
    domain::begin_destroy(&env, it.driver, domain::Death::default()).unwrap();
    let mut next = 0;
    assert_eq!(unmap_slice(&env, it.driver, &mut next, 3), Ok(Progress::More));
    assert_eq!(it.pins(0), 5, "three a slice");
    it.world.finish_destroy(it.driver);
    assert_eq!((it.pins(0), it.marks(1)), (0, 0));
    it.world.end();
}

#[test]
fn a_page_outlives_its_dead_owner_while_it_is_mapped() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    let handle = it.map(&map_op(it.grantor, 1, 0, HOST)).unwrap().handle;
    let mfn = it.page(0);
    it.world.destroy(it.grantor);
    assert_eq!(it.world.life(it.grantor), None, "the mapper cannot keep it from ending");
    assert_eq!((it.world.frames.state(mfn), it.world.frames.pins(mfn)), (State::Leaving, 1));
    let copied = it.with(it.driver, |domain| domain.space.copy_out(Gpa(GRANT_WINDOW), b"still", &it.world.machine));
    assert_eq!(copied, Ok(()));
    // A new domain in the same place gets none of the blame.
    let reborn = it.world.start(2);
    it.offer(reborn, 1, GRANTED, it.driver, OWN.0);
    it.map(&map_op(reborn, 1, 1, HOST)).unwrap();
    it.unmap(&unmap_op(0, handle)).unwrap();
    assert_eq!(it.world.frames.state(mfn), State::Free);
    assert_eq!(it.world.frames.pins(it.world.mfn(reborn, OWN).unwrap()), 1);
    assert_eq!(it.map(&map_op(it.grantor, 1, 2, HOST)), Err(Status::BadDomain));
    it.world.end();
}

#[test]
fn what_was_granted_to_a_domain_is_granted_to_its_successor_once_the_domain_is_gone() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    let mapped = it.map(&map_op(it.grantor, 1, 0, HOST)).unwrap();
    it.world.destroy(it.driver);
    assert_eq!((it.marks(1), it.pins(0)), (0, 0), "nothing of the dead is left before there is another");
    it.world.start_as(1, Some(it.driver));
    it.nothing_is_mapped();
    assert_eq!(it.unmap(&unmap_op(0, mapped.handle)), Err(Status::BadHandle), "a handle is not inherited");
    let mapped = it.map(&map_op(it.grantor, 1, 0, HOST)).unwrap();
    assert_eq!((it.marks(1), it.pins(0)), (GTF_READING | GTF_WRITING, 1));
    it.unmap(&unmap_op(0, mapped.handle)).unwrap();
    it.nothing_is_mapped();
    it.world.end();
}

#[test]
fn a_mapping_of_a_dead_grantor_is_no_mapping_of_its_successor_of_the_same_id() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    let old = it.map(&map_op(it.grantor, 1, 0, HOST)).unwrap();
    let mfn = it.page(0);
    it.world.destroy(it.grantor);
    assert_eq!(it.world.start_as(2, Some(it.grantor)), it.grantor);
    assert_eq!(it.world.frames.state(mfn), State::Leaving, "the frame is nobody's while it is mapped");
    assert_ne!(it.page(0), mfn);
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    let new = it.map(&map_op(it.grantor, 1, 1, HOST)).unwrap();
    it.unmap(&unmap_op(0, old.handle)).unwrap();
    assert_eq!(it.world.frames.state(mfn), State::Free);
    assert_eq!((it.marks(1), it.pins(0)), (GTF_READING | GTF_WRITING, 1), "the successor's grant is in use still");
    it.unmap(&unmap_op(1, new.handle)).unwrap();
    it.nothing_is_mapped();
    it.world.end();
}

#[test]
fn a_dying_domain_is_no_grantor() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    domain::begin_destroy(&it.world.env(), it.grantor, domain::Death::default()).unwrap();
    assert_eq!(it.map(&map_op(it.grantor, 1, 0, HOST)), Err(Status::BadDomain));
    it.world.end();
}

fn copy_op(source: (DomId, u64, u16), dest: (DomId, u64, u16), len: u16, flags: u16) -> GnttabCopy {
    let side = |(domid, target, offset): (DomId, u64, u16)| GnttabCopyPtr { target, domid: domid.0, offset, pad: 0 };
    GnttabCopy { source: side(source), dest: side(dest), len, flags, ..GnttabCopy::default() }
}

#[test]
fn copies_go_between_any_two_sides() {
    let it = it();
    let env = it.world.env();
    let (from, to) = (abi::GNTCOPY_SOURCE_GREF, abi::GNTCOPY_DEST_GREF);
    it.world.machine.write(it.page(0).at(100), b"grant");
    it.offer(it.grantor, 1, GRANTED | GTF_READONLY, it.driver, OWN.0);
    it.offer(it.third, 1, GRANTED, it.driver, OWN.0 + 1);
    let copied = |dom, gfn, offset| {
        let mut bytes = [0; 5];
        it.with(dom, |domain| domain.space.copy_in(Gpa(Gfn(gfn).base().0 + offset), &mut bytes, &it.world.machine))
            .unwrap();
        bytes
    };
    // Grant to own frame, own frame to grant, grant to grant: three domains, one lock at a time.
    copy(&env, it.driver, &copy_op((it.grantor, 1, 100), (DomId::SELF, OWN.0, 4091), 5, from)).unwrap();
    assert_eq!(&copied(it.driver, OWN.0, 4091), b"grant");
    copy(&env, it.driver, &copy_op((it.driver, OWN.0, 4091), (it.third, 1, 0), 5, to)).unwrap();
    assert_eq!(&copied(it.third, OWN.0 + 1, 0), b"grant");
    copy(&env, it.driver, &copy_op((it.grantor, 1, 100), (it.third, 1, 50), 5, from | to)).unwrap();
    assert_eq!(&copied(it.third, OWN.0 + 1, 50), b"grant");
    copy(&env, it.driver, &copy_op((DomId::SELF, OWN.0, 4091), (DomId::SELF, OWN.0, 0), 5, 0)).unwrap();
    assert_eq!(&copied(it.driver, OWN.0, 0), b"grant");
    it.nothing_is_mapped();
}

#[test]
fn copies_check_every_argument_first() {
    let it = it();
    let env = it.world.env();
    let (from, to) = (abi::GNTCOPY_SOURCE_GREF, abi::GNTCOPY_DEST_GREF);
    it.offer(it.grantor, 1, GRANTED | GTF_READONLY, it.driver, OWN.0);
    let own = (DomId::SELF, OWN.0, 0);
    let grant = |offset| (it.grantor, 1, offset);
    let cases = [
        (copy_op(grant(4095), own, 2, from), Status::BadCopyArg),
        (copy_op(grant(u16::MAX), own, 0, from), Status::BadCopyArg),
        (copy_op(grant(0), (DomId::SELF, OWN.0, 4000), 97, from), Status::BadCopyArg),
        (copy_op(grant(0), own, 4097, from), Status::BadCopyArg),
        (copy_op(grant(0), own, 1, from | 4), Status::GeneralError),
        (copy_op(own, grant(0), 1, to), Status::GeneralError),
        (copy_op((it.grantor, OWN.0, 0), own, 1, 0), Status::PermissionDenied),
        (copy_op(own, (it.grantor, OWN.0, 0), 1, 0), Status::PermissionDenied),
        (copy_op((DomId(99), 1, 0), own, 1, from), Status::BadDomain),
        (copy_op((it.grantor, 600, 0), own, 1, from), Status::BadGntref),
        (copy_op(grant(0), (DomId::SELF, OWN.0 + 2, 0), 1, from), Status::BadPage),
        (copy_op(grant(0), (DomId::SELF, 0x9999, 0), 1, from), Status::BadPage),
        (copy_op((DomId::SELF, u64::MAX, 0), own, 1, 0), Status::BadPage),
    ];
    for (op, expected) in cases {
        assert_eq!(copy(&env, it.driver, &op), Err(expected), "{op:?}");
        it.nothing_is_mapped();
    }
    assert_eq!(copy(&env, it.driver, &copy_op(grant(0), own, 4096, from)), Ok(()));
    assert_eq!(copy(&env, it.driver, &copy_op(grant(4096), own, 0, from)), Ok(()), "nothing, at the very end");
}

#[test]
fn g18_an_entry_that_never_holds_still_is_given_up() {
    use crate::testing::injection;
    // The test machine has one thread; a changing entry is played by a machine whose exchange always fails.
    struct Restless<'a>(&'a World, core::cell::Cell<u32>);
    impl MachineMemory for Restless<'_> {
        fn read(&self, from: Hpa, into: &mut [u8]) {
            self.0.machine.read(from, into);
        }
        fn write(&self, to: Hpa, bytes: &[u8]) {
            self.0.machine.write(to, bytes);
        }
        fn copy(&self, from: Hpa, to: Hpa, bytes: usize) {
            self.0.machine.copy(from, to, bytes);
        }
        fn zero(&self, frame: Mfn) {
            self.0.machine.zero(frame);
        }
        fn load_u32(&self, at: Hpa) -> u32 {
            self.0.machine.load_u32(at)
        }
        fn load_u64(&self, at: Hpa) -> u64 {
            self.0.machine.load_u64(at)
        }
        fn store_u8(&self, at: Hpa, value: u8) {
            self.0.machine.store_u8(at, value);
        }
        fn store_u64(&self, at: Hpa, value: u64) {
            self.0.machine.store_u64(at, value);
        }
        fn fetch_or_u64(&self, at: Hpa, bits: u64) -> u64 {
            self.0.machine.fetch_or_u64(at, bits)
        }
        fn fetch_and_u64(&self, at: Hpa, bits: u64) -> u64 {
            self.0.machine.fetch_and_u64(at, bits)
        }
        fn fetch_and_u16(&self, at: Hpa, bits: u16) -> u16 {
            self.0.machine.fetch_and_u16(at, bits)
        }
        fn compare_exchange_u32(&self, _: Hpa, current: u32, _: u32) -> Result<u32, u32> {
            self.1.set(self.1.get() + 1);
            Err(current)
        }
    }
    impl crate::machine::Machine for Restless<'_> {
        fn flush_pages(
            &self,
            domain: DomId,
            pages: impl ExactSizeIterator<Item = Gfn>,
            scope: crate::machine::FlushScope,
        ) {
            crate::machine::Machine::flush_pages(&self.0.machine, domain, pages, scope);
        }
        fn flush_all(&self, domain: DomId, scope: crate::machine::FlushScope) {
            crate::machine::Machine::flush_all(&self.0.machine, domain, scope);
        }
    }
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    let restless = Restless(&it.world, core::cell::Cell::new(0));
    let env = crate::domain::Env {
        machine: &restless,
        frames: &it.world.frames,
        domains: &it.world.domains,
        policy: &it.world.policy,
    };
    assert_eq!(map(&env, it.driver, &map_op(it.grantor, 1, 0, HOST)), Err(Status::GeneralError));
    assert!((1..=8).contains(&restless.1.get()), "tried {} times", restless.1.get());
    it.nothing_is_mapped();
    assert!(!injection::disarm());
}

#[test]
fn g16_a_batch_goes_on_where_it_was_interrupted() {
    let call = [20, 5, 0x1000, 8];
    let begun = Continuation::resume(None, call);
    assert_eq!(begun.done, 0);
    for done in 0..8 {
        let interrupted = Continuation { done, ..begun };
        assert_eq!(Continuation::resume(Some(interrupted), call).done, done);
        assert_eq!(Continuation::resume(Some(interrupted), [20, 5, 0x2000, 8]).done, 0, "another call");
    }
}

#[test]
fn the_builder_seeds_entries_that_work() {
    let world = World::linked(4);
    let (driver, third) = (world.start(1), world.start(3));
    let grantor = world.create(2).unwrap();
    let env = world.env();
    let seed_it = |gref, gfn| {
        let seeded =
            world.domains.with(grantor, |domain| seed(&env, domain, GrantRef(gref), Gfn(gfn), driver, Access::Write));
        seeded.unwrap()
    };
    assert_eq!(seed_it(1, OWN.0), Err(Errno::ENOENT));
    world.domains.with(grantor, |domain| domain::populate(&env, domain, OWN, Rights::ReadWrite)).unwrap().unwrap();
    assert_eq!(seed_it(1, OWN.0), Ok(()));
    assert_eq!(seed_it(1024, OWN.0), Err(Errno::EINVAL), "beyond the frames allowed");
    assert_eq!(seed_it(1, 1 << 33), Err(Errno::ENOENT));
    let it = It { world, grantor, driver, third };
    let handle = it.map(&map_op(grantor, 1, 0, HOST)).unwrap().handle;
    let env = it.world.env();
    let again = it.with(grantor, |domain| seed(&env, domain, GrantRef(1), OWN, driver, Access::Read));
    assert_eq!(again, Err(Errno::EBUSY));
    let found = it.with(grantor, |domain| info(domain, GrantRef(0), &it.world.machine)).unwrap();
    assert_eq!((found.gref, found.gfn, found.peer, found.mappings), (GrantRef(1), OWN, driver, 1));
    assert_eq!(it.with(grantor, |domain| info(domain, GrantRef(2), &it.world.machine)), None);
    it.unmap(&unmap_op(0, handle)).unwrap();
    it.world.end();
}

proptest! {
    /// Any structure at all: no panic, and a status that is an error or a mapping that can be undone.
    #[test]
    fn m08_any_arguments_are_answered(
        host_addr: u64, flags: u32, gref: u32, dom: u16, handle: u32, dev_bus_addr: u64, target: u64, offset: u16, len: u16,
    ) {
        let it = it();
        let env = it.world.env();
        if let Ok(mapped) = it.map(&GnttabMapGrantRef { host_addr, flags, gref, dom, ..GnttabMapGrantRef::default() }) {
            let op = GnttabUnmapGrantRef { host_addr, handle: mapped.handle.0, ..GnttabUnmapGrantRef::default() };
            prop_assert_eq!(it.unmap(&op), Ok(()));
        }
        let op = GnttabUnmapGrantRef { host_addr, dev_bus_addr, handle, ..GnttabUnmapGrantRef::default() };
        prop_assert_eq!(it.unmap(&op), Err(Status::BadHandle));
        let side = GnttabCopyPtr { target, domid: dom, offset, pad: gref };
        let op = GnttabCopy { source: side, dest: side, len, flags: flags as u16, ..GnttabCopy::default() };
        let _any_status = copy(&env, it.driver, &op);
        it.nothing_is_mapped();
        it.world.end();
    }
}

#[test]
fn each_of_a_batch_has_its_own_status() {
    let it = it();
    it.offer(it.grantor, 1, GRANTED, it.driver, OWN.0);
    it.offer(it.grantor, 2, GRANTED, it.driver, OWN.0 + 1);
    let env = it.world.env();
    let nobody = DomId(it.grantor.0 + 128);
    let op = |dom, gref, slot| map_op(dom, gref, slot, HOST);
    let mut maps =
        [op(it.grantor, 1, 0), op(nobody, 1, 1), op(nobody, 1, 2), op(it.grantor, 7, 3), op(it.grantor, 2, 4)];
    super::map(&env, it.driver, &mut maps);
    let bad = abi::GNTST_BAD_DOMAIN;
    assert_eq!(maps.map(|op| op.status), [0, bad, bad, abi::GNTST_GENERAL_ERROR, 0]);
    assert_eq!(it.with(it.driver, |domain| domain.grants.mapped()), 2);
    let copy = |gref| GnttabCopy {
        source: GnttabCopyPtr { target: gref, domid: it.grantor.0, ..GnttabCopyPtr::default() },
        dest: GnttabCopyPtr { target: OWN.0, domid: DomId::SELF.0, ..GnttabCopyPtr::default() },
        flags: abi::GNTCOPY_SOURCE_GREF,
        len: 16,
        ..GnttabCopy::default()
    };
    let mut copies = [copy(1), copy(7), copy(2)];
    super::copy(&env, it.driver, &mut copies);
    assert_eq!(copies.map(|op| op.status), [0, abi::GNTST_GENERAL_ERROR, 0]);
    // More than fit one run.
    let mut unmaps = [unmap_op(5, Handle(abi::INVALID_GRANT_HANDLE)); 20];
    unmaps[1] = unmap_op(0, Handle(maps[0].handle));
    unmaps[19] = unmap_op(4, Handle(maps[4].handle));
    super::unmap(&env, it.driver, &mut unmaps);
    for (index, op) in unmaps.iter().enumerate() {
        assert_eq!(op.status, if index % 18 == 1 { 0 } else { abi::GNTST_BAD_HANDLE }, "{index}");
    }
    it.nothing_is_mapped();
}
