//! Address spaces: both formats against a model, guest copies, teardown.

use std::collections::BTreeMap;
use std::vec;

use proptest::prelude::*;

use super::*;
use crate::frames::{Purpose, State};
use crate::ids::Gpa;
use crate::pci::bar::Bar;
use crate::testing::{FRAMES, World};

const SLOT: Slot = Slot(3);
const DOMAIN: DomId = DomId(3);

struct Fixture {
    world: World,
    space: AddressSpace,
}

fn fixture(iommu: Option<VtdFormat>, tables_max: u32) -> Fixture {
    let world = World::linked(1);
    let space = AddressSpace::new(&world.env(), DOMAIN, SLOT, tables_max, iommu).unwrap();
    Fixture { world, space }
}

fn driver() -> Fixture {
    fixture(Some(VtdFormat { levels: 3, write_back: true }), 64)
}

impl Fixture {
    fn own_page(&mut self, gfn: u64, rights: Rights) -> Mfn {
        let mfn = self.world.frames.allocate(Purpose::Private(SLOT), &self.world.machine).unwrap();
        let page = Page { mfn, rights, kind: PageKind::Private };
        self.space.map(&self.world.env(), Gfn(gfn), page).unwrap();
        mfn
    }

    fn devices_see(&mut self, gfn: u64) -> Option<(Mfn, Rights)> {
        let (iommu, memory) = (self.space.iommu.as_mut()?, &self.world.machine);
        let page = iommu.find(Gfn(gfn), memory).and_then(|place| iommu.get(place, memory))?;
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
    let unmapped = it.space.unmap(Gfn(0x200), &it.world.machine).unwrap();
    assert_eq!(it.devices_see(0x200), None);
    assert_eq!(unmapped.page.mfn, data);
    let _flushed = unmapped.flush(&it.world.machine);
}

#[test]
fn device_registers_are_for_the_cpu_only() {
    let mut it = driver();
    let registers = Page { mfn: Mfn(0xfe000), rights: Rights::ReadWrite, kind: PageKind::Device };
    it.space.map(&it.world.env(), Gfn(0x500), registers).unwrap();
    assert_eq!(it.space.translate(Gfn(0x500), &it.world.machine), Some(registers));
    assert_eq!(it.devices_see(0x500), None);
    assert_eq!(it.space.copy_in(Gfn(0x500).base(), &mut [0; 4], &it.world.machine), Err(Fault), "not memory");
}

#[test]
fn mapping_twice_is_refused_and_changes_nothing() {
    let mut it = driver();
    let first = it.own_page(0x200, Rights::Read);
    let other = Page { mfn: Mfn(99), rights: Rights::ReadWrite, kind: PageKind::Lent };
    assert_eq!(it.space.map(&it.world.env(), Gfn(0x200), other), Err(MapError::Occupied));
    assert_eq!(it.space.translate(Gfn(0x200), &it.world.machine).unwrap().mfn, first);
}

#[test]
fn p08_addresses_beyond_the_tables_are_refused() {
    let mut it = driver();
    let page = Page { mfn: Mfn(9), rights: Rights::Read, kind: PageKind::Lent };
    for gfn in [GFN_LIMIT.0, 1 << 36, 1 << 52, u64::MAX] {
        assert_eq!(it.space.map(&it.world.env(), Gfn(gfn), page), Err(MapError::BadAddress), "{gfn:#x}");
        assert_eq!(it.space.translate(Gfn(gfn), &it.world.machine), None);
    }
    // Three IOMMU levels reach 512 GiB; the CPU's four go further, but both must have the page.
    assert_eq!(it.space.map(&it.world.env(), Gfn(1 << 27), page), Err(MapError::BadAddress));
    assert_eq!(it.space.translate(Gfn(1 << 27), &it.world.machine), None);
    let mut cpu_only = fixture(None, 64);
    assert_eq!(cpu_only.space.map(&cpu_only.world.env(), Gfn(1 << 27), page), Ok(()));
}

#[test]
fn m07_page_tables_are_paid_from_the_domains_own_budget() {
    let mut it = fixture(None, 4);
    let page = Page { mfn: Mfn(9), rights: Rights::Read, kind: PageKind::Lent };
    assert_eq!(it.space.map(&it.world.env(), Gfn(0), page), Ok(()));
    assert_eq!(it.space.tables(), 4);
    assert_eq!(it.space.map(&it.world.env(), Gfn(1), page), Ok(()), "needs no new table");
    assert_eq!(it.space.map(&it.world.env(), Gfn(512), page), Err(MapError::NoMemory));
    assert_eq!(it.space.tables(), 4);
}

#[test]
fn registers_of_any_size_are_paid_for_beside_the_budget() {
    let mut it = fixture(None, 4);
    let registers = Bar { base: 0x4000_0000, bytes: 16 << 20 };
    let page = Page { mfn: Mfn(0x4_0000), rights: Rights::ReadWrite, kind: PageKind::Device };
    // Across the borders of tables of the last three levels.
    let pages = (0x07ff_ff00..).take(registers.bytes as usize / 4096).map(Gfn);
    let mut refused = pages.clone().map(|gfn| it.space.map(&it.world.env(), gfn, page));
    assert!(refused.any(|mapped| mapped == Err(MapError::NoMemory)));
    drop(refused);
    let mut it = fixture(None, 4);
    it.space.allow_tables(registers.tables() as u32);
    for gfn in pages {
        assert_eq!(it.space.map(&it.world.env(), gfn, page), Ok(()));
    }
}

#[test]
fn guest_copies_cross_pages_and_obey_rights() {
    let mut it = driver();
    it.own_page(0x200, Rights::ReadWrite);
    it.own_page(0x201, Rights::ReadWrite);
    it.own_page(0x202, Rights::Read);
    let across = Gpa(0x200ffd);
    it.space.copy_out(across, b"abcdef", &it.world.machine).unwrap();
    let mut back = [0; 6];
    it.space.copy_in(across, &mut back, &it.world.machine).unwrap();
    assert_eq!(&back, b"abcdef");
    assert_eq!(it.space.copy_out(Gpa(0x201ffe), b"abcd", &it.world.machine), Err(Fault), "into a read-only page");
    assert_eq!(it.space.fill(Gpa(0x201ffe), b"abcd", &it.world.machine), Ok(()), "the builder may");
    assert_eq!(it.space.copy_in(Gpa(0x202ffe), &mut back, &it.world.machine), Err(Fault), "runs into nothing");
}

#[test]
fn m01_pointers_at_the_edges_of_the_address_space_fault() {
    let mut it = driver();
    let mut buffer = [0; 64];
    for edge in
        [0u64, 0x7fff_ffff_efff, 0x7fff_ffff_ffff, 0x8000_0000_0000, 0xffff_7fff_ffff_ffff, u64::MAX - 8, u64::MAX]
    {
        assert_eq!(it.space.copy_in(Gpa(edge), &mut buffer, &it.world.machine), Err(Fault), "{edge:#x}");
        assert_eq!(it.space.copy_out(Gpa(edge), &buffer, &it.world.machine), Err(Fault), "{edge:#x}");
    }
    assert_eq!(it.space.copy_in(Gpa(u64::MAX), &mut [], &it.world.machine), Ok(()), "nothing is nowhere");
}

#[test]
fn copying_between_spaces_goes_page_by_page() {
    let mut source = driver();
    source.own_page(0x200, Rights::ReadWrite);
    source.own_page(0x201, Rights::ReadWrite);
    let other = DomId(4);
    let mut target = AddressSpace::new(&source.world.env(), other, Slot(4), 64, None).unwrap();
    let code = source.world.frames.allocate(Purpose::Private(Slot(4)), &source.world.machine).unwrap();
    let page = Page { mfn: code, rights: Rights::ReadExecute, kind: PageKind::Private };
    target.map(&source.world.env(), Gfn(0x300), page).unwrap();
    source.space.copy_out(Gpa(0x200ff0), &[7; 64], &source.world.machine).unwrap();
    target.fill_from(Gpa(0x300010), &mut source.space, Gpa(0x200ff0), 64, &source.world.machine).unwrap();
    let mut bytes = [0; 64];
    target.copy_in(Gpa(0x300010), &mut bytes, &source.world.machine).unwrap();
    assert_eq!(bytes, [7; 64]);
    let too_far = target.fill_from(Gpa(0x300fff), &mut source.space, Gpa(0x200000), 2, &source.world.machine);
    assert_eq!(too_far, Err(Fault));
}

#[test]
fn teardown_returns_every_page_and_table_in_bounded_slices() {
    let mut it = driver();
    let free = it.world.frames.free() + it.space.tables() as u64;
    let own = [0x200, 0x201, 0x8000, 0x40_0000, 0x600_0000].map(|gfn| it.own_page(gfn, Rights::ReadWrite));
    let lent = Page { mfn: Mfn(7), rights: Rights::Read, kind: PageKind::Lent };
    it.space.map(&it.world.env(), Gfn(0x9000), lent).unwrap();
    let mut state = Teardown::default();
    let mut pages = vec![];
    let mut slices = 0;
    loop {
        slices += 1;
        let progress = it.space.tear_down(&it.world.env(), &mut state, 700, |flushed| {
            pages.push((flushed.0.mfn, flushed.0.kind));
            if flushed.0.kind == PageKind::Private {
                it.world.frames.release(flushed, SLOT).unwrap();
            }
        });
        if progress == Progress::Done {
            break;
        }
        assert!(slices < 100, "teardown does not end");
    }
    assert!(slices > 10, "700 entries a slice were not kept to");
    let mut expected: vec::Vec<_> = own.map(|mfn| (mfn, PageKind::Private)).into();
    expected.insert(3, (lent.mfn, PageKind::Lent));
    assert_eq!(pages, expected, "each page once");
    assert_eq!(it.space.tables(), 2, "the roots");
    assert_eq!(it.space.translate(Gfn(0x200), &it.world.machine), None);
    let again = it.space.tear_down(&it.world.env(), &mut state, 700, |_| panic!("a page twice"));
    assert_eq!(again, Progress::Done);
    it.space.discard_empty(&it.world.frames);
    assert_eq!(it.world.frames.free(), free);
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
                let unmapped = it.space.unmap(Gfn(gfn), &it.world.machine).map(|unmapped| {
                    unmapped.flush(&it.world.machine).into_page().mfn
                });
                prop_assert_eq!(unmapped.ok(), model.remove(&gfn).map(|(mfn, _)| mfn));
            } else {
                let mapped = it.space.map(&it.world.env(), Gfn(gfn), page);
                prop_assert_eq!(mapped.is_ok(), !model.contains_key(&gfn));
                model.entry(gfn).or_insert((page.mfn, page.rights));
            }
            for (gfn, (mfn, rights)) in &model {
                let cpu = it.space.translate(Gfn(*gfn), &it.world.machine).unwrap();
                prop_assert_eq!((cpu.mfn, cpu.rights, cpu.kind), (*mfn, *rights, PageKind::Lent));
                prop_assert_eq!(it.devices_see(*gfn), Some((*mfn, *rights)));
            }
        }
        let tables = (0..FRAMES).filter(|&mfn| it.world.frames.state(Mfn(mfn)) == State::Table).count();
        prop_assert_eq!(tables as u32, it.space.tables());
    }
}
