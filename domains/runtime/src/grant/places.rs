//! Peers' pages for devices: mapped and unmapped in batches of one hypercall, and not looked at by this domain.
//!
//! A driver that moves data between its device and its clients' pages maps and unmaps all the time. Its addresses, its
//! lists of operations and its books are made once here and used over and over. What is mapped in a [`Place`] can be
//! named to a device by address; there is no way to it for the domain's own code, so unmapping needs no proof that
//! nobody looks.

use alloc::vec::Vec;

use xen_abi::grant_table as abi;
use xen_abi::native::PAGE_SIZE;

use super::GrantError;
use super::map::{MapError, WINDOW, flags};
use crate::hypercall::grant_table;
use crate::ids::{Access, DomId, GrantRef};

/// Stands in the books for a page that is not mapped.
const NOT_MAPPED: u32 = u32::MAX;

/// A run of addresses for the pages of one request. Give it back with [`Places::unmap_later`].
#[derive(Debug)]
#[must_use = "a place that is dropped is lost, with what is mapped there"]
pub struct Place {
    /// Which of the sizes.
    size: u8,
    /// Which of that size.
    number: u16,
    /// Pages that are, or are to be, mapped from its start on.
    pages: u16,
    /// Its first operation in the batch that maps it.
    first: u32,
}

impl Place {
    /// Pages that it was given.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages.into()
    }
}

/// Operations of a batch: room that is kept, and how much of it is used.
#[derive(Debug, Default)]
struct Operations<T> {
    room: Vec<T>,
    used: usize,
}

impl<T: Clone + Default> Operations<T> {
    /// `count` more. They hold what they held before: set every field.
    fn add(&mut self, count: usize) -> &mut [T] {
        let end = self.used + count;
        if end > self.room.len() {
            self.room.resize(end, T::default());
        }
        let start = core::mem::replace(&mut self.used, end);
        self.room.get_mut(start..end).unwrap_or_default()
    }

    fn all(&mut self) -> &mut [T] {
        self.room.get_mut(..self.used).unwrap_or_default()
    }
}

/// Places of one size, one behind the other.
#[derive(Debug)]
struct Size {
    base: u64,
    pages_each: u16,
    /// Where the handles of the first one begin.
    handles: usize,
    free: Vec<u16>,
}

/// Small places, which come first: as many as one page table has room for, so that the hypervisor's shortest path, which
/// remembers the last table, serves all of them.
const SMALL: (u16, u16) = (32, 16);

/// A fixed number of places, and the batches in preparation.
#[derive(Debug)]
pub struct Places {
    sizes: [Size; 2],
    /// By place and page.
    handles: Vec<u32>,
    mapping: Operations<abi::GnttabMapGrantRef>,
    unmapping: Operations<abi::GnttabUnmapGrantRef>,
    /// Places whose pages the batch unmaps, by as many of its operations as they have pages now.
    leaving: Vec<Place>,
}

impl Places {
    /// `count` places of `pages_each` pages, and some small ones. `None`: there are not so many addresses.
    #[must_use]
    pub fn new(count: u16, pages_each: u16) -> Option<Self> {
        let pages = |(count, each)| usize::from(count) * usize::from(each);
        let mut window = WINDOW.borrow();
        let (small, large) = (window.take(pages(SMALL))?, window.take(pages((count, pages_each)))?);
        Some(Self::at([(small, SMALL), (large, (count, pages_each))]))
    }

    fn at(sizes: [(u64, (u16, u16)); 2]) -> Self {
        let (mut handles, mut places) = (0, 0);
        let sizes = sizes.map(|(base, (count, pages_each))| {
            let size = Size { base, pages_each, handles, free: (0..count).rev().collect() };
            handles += usize::from(count) * usize::from(pages_each);
            places += usize::from(count);
            size
        });
        Self {
            sizes,
            handles: alloc::vec![NOT_MAPPED; handles],
            mapping: Operations::default(),
            unmapping: Operations::default(),
            leaving: Vec::with_capacity(places),
        }
    }

    fn size(&self, place: &Place) -> &Size {
        let [small, large] = &self.sizes;
        if place.size == 0 { small } else { large }
    }

    /// The handles of a place's pages.
    fn handles(&self, place: &Place) -> core::ops::Range<usize> {
        let size = self.size(place);
        let start = size.handles + usize::from(place.number) * usize::from(size.pages_each);
        start..start + usize::from(place.pages)
    }

    /// An empty place for so many pages; `None`: all such are taken.
    pub fn take(&mut self, pages: usize) -> Option<Place> {
        let fitting = self.sizes.iter_mut().zip(0..).filter(|(size, _)| pages <= usize::from(size.pages_each));
        fitting
            .into_iter()
            .find_map(|(size, index)| Some(Place { size: index, number: size.free.pop()?, pages: 0, first: 0 }))
    }

    /// How many [`Places::take`] would find, of whatever number of pages.
    #[must_use]
    pub fn free(&self) -> usize {
        self.sizes[1].free.len()
    }

    /// The address of its first page, for the device.
    #[must_use]
    pub fn address(&self, place: &Place) -> u64 {
        let size = self.size(place);
        size.base + u64::from(place.number) * u64::from(size.pages_each) * PAGE_SIZE
    }

    /// Adds to the batch: map these grants of `peer` in an empty place taken for this batch. `false`: too many.
    #[must_use]
    pub fn map_later(
        &mut self,
        place: &mut Place,
        peer: DomId,
        references: impl ExactSizeIterator<Item = GrantRef>,
        access: Access,
    ) -> bool {
        if references.len() > usize::from(self.size(place).pages_each) || place.pages != 0 {
            return false;
        }
        (place.pages, place.first) = (references.len() as u16, self.mapping.used as u32);
        let (first, flags) = (self.address(place), flags(access));
        let operations = self.mapping.add(references.len()).iter_mut();
        for ((operation, reference), page) in operations.zip(references).zip(0..) {
            *operation = abi::GnttabMapGrantRef {
                host_addr: first + page * PAGE_SIZE,
                flags,
                gref: reference.0,
                dom: peer.0,
                // What the hypervisor does not get to counts as refused.
                status: abi::GNTST_GENERAL_ERROR,
                ..Default::default()
            };
        }
        true
    }

    /// Maps all that was added. [`Places::mapped`] tells how it went, for each place, before the next batch begins.
    pub fn map(&mut self) {
        if self.mapping.used != 0 {
            // SAFETY: each address lies in a run of the window that is this value's alone, in a place that was empty:
            // it is taken, so nothing is mapped there and nobody else gets it. An error of the call as a whole leaves
            // the preset status of what was not done.
            let _ = unsafe { grant_table::map(self.mapping.all()) };
        }
    }

    /// Whether all pages of a place were mapped, and if not, which was refused first. The others then are mapped all the
    /// same: [`Places::unmap_later`] in both cases.
    pub fn mapped(&mut self, place: &Place) -> Result<(), MapError> {
        let pages = usize::from(place.pages);
        let refused = MapError { index: 0, error: GrantError::Other(abi::GNTST_GENERAL_ERROR) };
        let range = self.handles(place);
        let operations = self.mapping.all().get(place.first as usize..).and_then(|rest| rest.get(..pages));
        let handles = self.handles.get_mut(range).ok_or(refused)?;
        let mut outcome = Ok(());
        for (index, (operation, handle)) in operations.ok_or(refused)?.iter().zip(handles).enumerate() {
            if operation.status == abi::GNTST_OKAY {
                *handle = operation.handle;
                continue;
            }
            *handle = NOT_MAPPED;
            if outcome.is_ok() {
                outcome = GrantError::check(operation.status).map_err(|error| MapError { index, error });
            }
        }
        outcome
    }

    /// Begins the next batch.
    pub fn clear(&mut self) {
        self.mapping.used = 0;
    }

    /// Adds to the other batch: unmap a place that [`Places::mapped`] was asked about, or that nothing was mapped in.
    /// It may be taken again after [`Places::unmap`].
    pub fn unmap_later(&mut self, mut place: Place) {
        let mut host_addr = self.address(&place);
        let handles = self.handles.get(self.handles(&place)).unwrap_or_default();
        let before = self.unmapping.used;
        let mut operations = self.unmapping.add(handles.len()).iter_mut();
        for &handle in handles {
            if handle != NOT_MAPPED
                && let Some(operation) = operations.next()
            {
                let status = abi::GNTST_GENERAL_ERROR;
                *operation = abi::GnttabUnmapGrantRef { host_addr, handle, status, ..Default::default() };
            }
            host_addr += PAGE_SIZE;
        }
        let mapped = handles.len() - operations.len();
        self.unmapping.used = before + mapped;
        place.pages = mapped as u16;
        self.leaving.push(place);
    }

    /// Unmaps all that was added. A place that does not come free is never used again.
    pub fn unmap(&mut self) {
        if self.unmapping.used != 0 {
            // SAFETY: nothing in this domain refers to the pages: this type gives out their addresses only. An
            // error of the call as a whole leaves the preset status of what was not done.
            let _ = unsafe { grant_table::unmap(self.unmapping.all()) };
        }
        let mut operations = &*self.unmapping.all();
        let [small, large] = &mut self.sizes;
        for Place { size, number, pages, .. } in self.leaving.drain(..) {
            let (own, rest) = operations.split_at_checked(pages.into()).unwrap_or_default();
            operations = rest;
            if own.len() == usize::from(pages) && own.iter().all(|operation| operation.status == abi::GNTST_OKAY) {
                if size == 0 { small.free.push(number) } else { large.free.push(number) }
            }
        }
        self.unmapping.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The window itself is a domain's, which has one thread; tests have many.
    const BASE: u64 = xen_abi::native::GRANT_WINDOW;

    /// So many of four pages, and none that are smaller.
    fn places(count: u16) -> Places {
        Places::at([(BASE, (0, 2)), (BASE, (count, 4))])
    }

    fn references(count: u32) -> impl ExactSizeIterator<Item = GrantRef> {
        (0..count).map(GrantRef)
    }

    #[test]
    fn places_run_out_and_do_not_overlap() {
        let mut places = places(3);
        let taken: Vec<_> = core::iter::from_fn(|| places.take(4)).collect();
        let mut addresses: Vec<_> = taken.iter().map(|place| places.address(place)).collect();
        addresses.sort_unstable();
        assert_eq!(addresses.len(), 3);
        assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] == 4 * PAGE_SIZE));
        assert_eq!(places.free(), 0);
    }

    #[test]
    fn a_small_place_is_taken_for_few_pages_and_a_larger_one_when_there_is_none() {
        let mut places = Places::at([(BASE, (1, 2)), (BASE + 2 * PAGE_SIZE, (3, 4))]);
        let taken: Vec<_> = [2, 3, 1, 5].into_iter().map(|pages| places.take(pages)).collect();
        let addresses: Vec<_> = taken.iter().map(|place| place.as_ref().map(|place| places.address(place))).collect();
        assert_eq!(addresses, [Some(BASE), Some(BASE + 2 * PAGE_SIZE), Some(BASE + 6 * PAGE_SIZE), None]);
        let mut small = taken.into_iter().next().flatten().unwrap();
        assert!(!places.map_later(&mut small, DomId(2), references(3), Access::ReadOnly), "it has two");
        places.unmap_later(small);
        places.unmap();
        assert_eq!(places.take(1).map(|place| places.address(&place)), Some(BASE));
    }

    #[test]
    fn a_place_takes_its_pages_once_and_no_more_than_it_has() {
        let mut places = places(1);
        let mut place = places.take(4).unwrap();
        assert!(!places.map_later(&mut place, DomId(2), references(5), Access::ReadWrite));
        assert!(places.map_later(&mut place, DomId(2), references(4), Access::ReadWrite));
        assert!(!places.map_later(&mut place, DomId(2), references(1), Access::ReadWrite));
        assert_eq!((place.pages(), places.mapping.used), (4, 4));
    }

    /// On the host no hypervisor answers, which is a refusal of everything.
    #[test]
    fn what_the_hypervisor_did_not_map_is_refused_and_not_unmapped() {
        let mut places = places(2);
        let mut place = places.take(4).unwrap();
        assert!(places.map_later(&mut place, DomId(2), references(2), Access::ReadOnly));
        places.map();
        assert_eq!(places.mapped(&place).unwrap_err().index, 0);
        places.clear();
        places.unmap_later(place);
        assert_eq!(places.unmapping.used, 0);
        places.unmap();
        assert_eq!(places.free(), 2);
    }

    #[test]
    fn exactly_what_was_mapped_is_unmapped() {
        let mut places = places(2);
        let mut place = places.take(4).unwrap();
        assert!(places.map_later(&mut place, DomId(2), references(3), Access::ReadWrite));
        let outcomes = [(abi::GNTST_OKAY, 7), (abi::GNTST_BAD_GNTREF, 0), (abi::GNTST_OKAY, 9)];
        for (operation, (status, handle)) in places.mapping.all().iter_mut().zip(outcomes) {
            (operation.status, operation.handle) = (status, handle);
        }
        assert_eq!(places.mapped(&place), Err(MapError { index: 1, error: GrantError::BadReference }));
        let first = places.address(&place);
        places.unmap_later(place);
        let unmapped: Vec<_> = places.unmapping.all().iter().map(|op| (op.host_addr, op.handle)).collect();
        assert_eq!(unmapped, [(first, 7), (first + 2 * PAGE_SIZE, 9)]);
        places.unmap();
        assert_eq!(places.free(), 1, "nobody unmapped it, so the place is lost");
    }
}
