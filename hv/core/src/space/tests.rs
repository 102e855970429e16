//! Address spaces: both formats against a model, guest copies, teardown.

use std::collections::BTreeMap;
use std::vec;

use proptest::prelude::*;

use super::*;
use crate::frames::{Purpose, State};
use crate::ids::Gpa;
use crate::pci::bar::{Bar, BarKind};
use crate::testing::{TestMachine, frame_table};

const SLOT: Slot = Slot(3);
const DOMAIN: DomId = DomId(3);
const FRAMES: u64 = 128;

struct Fixture {
    frames: FrameTable,
    machine: TestMachine,
    space: AddressSpace,
}

fn fixture(iommu: Option<VtdFormat>, tables_max: u32) -> Fixture {
    let frames = frame_table(FRAMES, 0..FRAMES);
    let machine = TestMachine::new(FRAMES);
    let space = AddressSpace::new(DOMAIN, SLOT, tables_max, iommu, &frames, &machine).unwrap();
    Fixture { frames, machine, space }
}

fn driver() -> Fixture {
    fixture(Some(VtdFormat { levels: 3, write_back: true }), 64)
}

impl Fixture {
    fn own_page(&mut self, gfn: u64, rights: Rights) -> Mfn {
        let mfn = self.frames.allocate(Purpose::Private(SLOT), &self.machine).unwrap();
        let page = Page { mfn, rights, kind: PageKind::Private };
        self.space.map(Gfn(gfn), page, &self.frames, &self.machine).unwrap();
        mfn
    }

    fn devices_see(&self, gfn: u64) -> Option<(Mfn, Rights)> {
        let page = self.space.iommu.as_ref()?.get(Gfn(gfn), &self.machine)?;
        Some((page.mfn, page.rights))
    }
}

#[test]
fn p09_cpu_and_devices_see_the_same_pages() {
    let mut it = driver();
    let data = it.own_page(0x200, Rights::ReadWrite);
    let code = it.own_page(0x201, Rights::ReadExecute);
    assert_eq!(it.devices_see(0x200), Some((data, Rights::ReadWrite)));
    assert_eq!(it.devices_see(0x201), Some((code, Rights::Read)), "devices never write code");
    let unmapped = it.space.unmap(Gfn(0x200), &it.machine).unwrap();
    assert_eq!(it.devices_see(0x200), None);
    assert_eq!(unmapped.page().mfn, data);
    let _flushed = unmapped.flush(&it.machine);
}

#[test]
fn device_registers_are_for_the_cpu_only() {
    let mut it = driver();
    let registers = Page { mfn: Mfn(0xfe000), rights: Rights::ReadWrite, kind: PageKind::Device };
    it.space.map(Gfn(0x500), registers, &it.frames, &it.machine).unwrap();
    assert_eq!(it.space.translate(Gfn(0x500), &it.machine), Some(registers));
    assert_eq!(it.devices_see(0x500), None);
    assert_eq!(it.space.read::<u32>(Gfn(0x500).base(), &it.machine), Err(Fault), "not memory");
}

#[test]
fn mapping_twice_is_refused_and_changes_nothing() {
    let mut it = driver();
    let first = it.own_page(0x200, Rights::Read);
    let other = Page { mfn: Mfn(99), rights: Rights::ReadWrite, kind: PageKind::Lent };
    assert_eq!(it.space.map(Gfn(0x200), other, &it.frames, &it.machine), Err(MapError::Occupied));
    assert_eq!(it.space.translate(Gfn(0x200), &it.machine).unwrap().mfn, first);
}

#[test]
fn p08_addresses_beyond_the_tables_are_refused() {
    let mut it = driver();
    let page = Page { mfn: Mfn(9), rights: Rights::Read, kind: PageKind::Lent };
    for gfn in [GFN_LIMIT.0, 1 << 36, 1 << 52, u64::MAX] {
        assert_eq!(it.space.map(Gfn(gfn), page, &it.frames, &it.machine), Err(MapError::BadAddress), "{gfn:#x}");
        assert_eq!(it.space.translate(Gfn(gfn), &it.machine), None);
    }
    // Three IOMMU levels reach 512 GiB; the CPU's four go further, but both must have the page.
    assert_eq!(it.space.map(Gfn(1 << 27), page, &it.frames, &it.machine), Err(MapError::BadAddress));
    assert_eq!(it.space.translate(Gfn(1 << 27), &it.machine), None);
    let mut cpu_only = fixture(None, 64);
    assert_eq!(cpu_only.space.map(Gfn(1 << 27), page, &cpu_only.frames, &cpu_only.machine), Ok(()));
}

#[test]
fn m07_page_tables_are_paid_from_the_domains_own_budget() {
    let mut it = fixture(None, 4);
    let page = Page { mfn: Mfn(9), rights: Rights::Read, kind: PageKind::Lent };
    assert_eq!(it.space.map(Gfn(0), page, &it.frames, &it.machine), Ok(()));
    assert_eq!(it.space.tables(), 4);
    assert_eq!(it.space.map(Gfn(1), page, &it.frames, &it.machine), Ok(()), "needs no new table");
    assert_eq!(it.space.map(Gfn(512), page, &it.frames, &it.machine), Err(MapError::NoMemory));
    assert_eq!(it.space.tables(), 4);
}

#[test]
fn registers_of_any_size_are_paid_for_beside_the_budget() {
    let mut it = fixture(None, 4);
    let registers = Bar { kind: BarKind::Memory, base: 0x4000_0000, bytes: 16 << 20 };
    let page = Page { mfn: Mfn(0x4_0000), rights: Rights::ReadWrite, kind: PageKind::Device };
    // Across the borders of tables of the last three levels.
    let pages = (0x07ff_ff00..).take(registers.bytes as usize / 4096).map(Gfn);
    let mut refused = pages.clone().map(|gfn| it.space.map(gfn, page, &it.frames, &it.machine));
    assert!(refused.any(|mapped| mapped == Err(MapError::NoMemory)));
    drop(refused);
    let mut it = fixture(None, 4);
    it.space.allow_tables(registers.tables() as u32);
    for gfn in pages {
        assert_eq!(it.space.map(gfn, page, &it.frames, &it.machine), Ok(()));
    }
}

#[test]
fn guest_copies_cross_pages_and_obey_rights() {
    let mut it = driver();
    it.own_page(0x200, Rights::ReadWrite);
    it.own_page(0x201, Rights::ReadWrite);
    it.own_page(0x202, Rights::Read);
    let across = Gpa(0x200ffd);
    it.space.copy_out(across, b"abcdef", &it.machine).unwrap();
    let mut back = [0; 6];
    it.space.copy_in(across, &mut back, &it.machine).unwrap();
    assert_eq!(&back, b"abcdef");
    assert_eq!(it.space.copy_out(Gpa(0x201ffe), b"abcd", &it.machine), Err(Fault), "into a read-only page");
    assert_eq!(it.space.check_writable(Gpa(0x201ffe), 4, &it.machine), Err(Fault));
    assert_eq!(it.space.check_writable(across, 6, &it.machine), Ok(()));
    assert_eq!(it.space.fill(Gpa(0x201ffe), b"abcd", &it.machine), Ok(()), "the builder may");
    assert_eq!(it.space.copy_in(Gpa(0x202ffe), &mut back, &it.machine), Err(Fault), "runs into nothing");
}

#[test]
fn m01_pointers_at_the_edges_of_the_address_space_fault() {
    let it = driver();
    let mut buffer = [0; 64];
    for edge in
        [0u64, 0x7fff_ffff_efff, 0x7fff_ffff_ffff, 0x8000_0000_0000, 0xffff_7fff_ffff_ffff, u64::MAX - 8, u64::MAX]
    {
        assert_eq!(it.space.copy_in(Gpa(edge), &mut buffer, &it.machine), Err(Fault), "{edge:#x}");
        assert_eq!(it.space.copy_out(Gpa(edge), &buffer, &it.machine), Err(Fault), "{edge:#x}");
        assert_eq!(it.space.check_writable(Gpa(edge), usize::MAX, &it.machine), Err(Fault), "{edge:#x}");
    }
    assert_eq!(it.space.copy_in(Gpa(u64::MAX), &mut [], &it.machine), Ok(()), "nothing is nowhere");
}

#[test]
fn copying_between_spaces_goes_page_by_page() {
    let mut source = driver();
    source.own_page(0x200, Rights::ReadWrite);
    source.own_page(0x201, Rights::ReadWrite);
    let other = DomId(4);
    let mut target = AddressSpace::new(other, Slot(4), 64, None, &source.frames, &source.machine).unwrap();
    let code = source.frames.allocate(Purpose::Private(Slot(4)), &source.machine).unwrap();
    let page = Page { mfn: code, rights: Rights::ReadExecute, kind: PageKind::Private };
    target.map(Gfn(0x300), page, &source.frames, &source.machine).unwrap();
    source.space.copy_out(Gpa(0x200ff0), &[7; 64], &source.machine).unwrap();
    target.fill_from(Gpa(0x300010), &source.space, Gpa(0x200ff0), 64, &source.machine).unwrap();
    let mut bytes = [0; 64];
    target.copy_in(Gpa(0x300010), &mut bytes, &source.machine).unwrap();
    assert_eq!(bytes, [7; 64]);
    let too_far = target.fill_from(Gpa(0x300fff), &source.space, Gpa(0x200000), 2, &source.machine);
    assert_eq!(too_far, Err(Fault));
}

#[test]
fn teardown_returns_every_page_and_table_in_bounded_slices() {
    let mut it = driver();
    for gfn in [0x200, 0x201, 0x8000, 0x40_0000, 0x600_0000] {
        it.own_page(gfn, Rights::ReadWrite);
    }
    let lent = Page { mfn: Mfn(7), rights: Rights::Read, kind: PageKind::Lent };
    it.space.map(Gfn(0x9000), lent, &it.frames, &it.machine).unwrap();
    let mut state = Teardown::default();
    let mut pages = BTreeMap::new();
    let mut slices = 0;
    loop {
        slices += 1;
        let progress = it.space.tear_down(&mut state, 700, &it.frames, &it.machine, |flushed| {
            pages.insert(flushed.gfn(), flushed.page().kind);
            if flushed.page().kind == PageKind::Private {
                it.frames.release(flushed, SLOT).unwrap();
            }
        });
        if progress == Progress::Done {
            break;
        }
        assert!(slices < 100, "teardown does not end");
    }
    assert!(slices > 10, "700 entries a slice were not kept to");
    let gfns: vec::Vec<u64> = pages.keys().map(|gfn| gfn.0).collect();
    assert_eq!(gfns, [0x200, 0x201, 0x8000, 0x9000, 0x40_0000, 0x600_0000]);
    assert_eq!(it.space.tables(), 2, "the roots");
    assert_eq!(it.space.translate(Gfn(0x200), &it.machine), None);
    let again = it.space.tear_down(&mut state, 700, &it.frames, &it.machine, |_| panic!("a page twice"));
    assert_eq!(again, Progress::Done);
    it.space.discard_empty(&it.frames);
    assert_eq!(it.frames.free(), FRAMES);
}

proptest! {
    #[test]
    fn p08_both_tables_agree_with_a_map(
        levels in 3u32..=4,
        steps in prop::collection::vec((0u64..6, 0u32..4, 0u8..4, 0u64..3), 0..60),
    ) {
        let mut it = fixture(Some(VtdFormat { levels, write_back: false }), 96);
        let mut model: BTreeMap<u64, (Mfn, Rights)> = BTreeMap::new();
        for (low, level, action, mfn) in steps {
            // Neighbours at every level of the tree, within what three levels reach.
            let gfn = low << (9 * level) & ((1 << 27) - 1);
            let page = Page { mfn: Mfn(mfn), rights: Rights::ReadWrite, kind: PageKind::Lent };
            if action == 0 {
                let unmapped = it.space.unmap(Gfn(gfn), &it.machine).map(|unmapped| {
                    unmapped.flush(&it.machine).page().mfn
                });
                prop_assert_eq!(unmapped.ok(), model.remove(&gfn).map(|(mfn, _)| mfn));
            } else {
                let mapped = it.space.map(Gfn(gfn), page, &it.frames, &it.machine);
                prop_assert_eq!(mapped.is_ok(), !model.contains_key(&gfn));
                model.entry(gfn).or_insert((page.mfn, page.rights));
            }
            for (gfn, (mfn, rights)) in &model {
                let cpu = it.space.translate(Gfn(*gfn), &it.machine).unwrap();
                prop_assert_eq!((cpu.mfn, cpu.rights, cpu.kind), (*mfn, *rights, PageKind::Lent));
                prop_assert_eq!(it.devices_see(*gfn), Some((*mfn, *rights)));
            }
        }
        let tables = (0..FRAMES).filter(|&mfn| it.frames.state(Mfn(mfn)) == State::Table).count();
        prop_assert_eq!(tables as u32, it.space.tables());
    }
}
