//! The table of domains: 128 slots, ids that are not reused soon, one lock a domain.
//!
//! An id is `generation << 7 | slot`. Slots go round in a queue, so an id comes back after some thirty thousand
//! creations at the earliest; what must not mistake even then (grant mappings) remembers the domain's serial number
//! too. Slot 0 is the policy domain's alone.

use core::sync::atomic::{AtomicU32, Ordering};

use spin::mutex::TicketMutex;

use super::Domain;
use crate::error::Errno;
use crate::fallible::Boxed;
use crate::ids::{DomId, Label, SLOTS, Slot};

/// log2 of [`SLOTS`].
const SLOT_BITS: u32 = SLOTS.trailing_zeros();
const VACANT: u32 = u32::MAX;

struct Place {
    /// id | label << 16 of the domain here, or [`VACANT`]: to turn away wrong ids without the lock.
    occupant: AtomicU32,
    domain: TicketMutex<Option<Boxed<Domain>>>,
}

struct FreeSlots {
    queue: heapless::Deque<Slot, SLOTS>,
    generations: [u8; SLOTS],
    next_serial: u32,
    started: bool,
}

/// All domains.
pub struct DomainTable {
    places: [Place; SLOTS],
    free: TicketMutex<FreeSlots>,
}

/// One or two locked domains: the caller and another, or the caller and itself.
pub struct Pair<'a> {
    local: &'a mut Domain,
    remote: Option<&'a mut Domain>,
}

impl<'a> Pair<'a> {
    /// A domain with itself.
    pub(crate) fn same(domain: &'a mut Domain) -> Self {
        Self { local: domain, remote: None }
    }

    /// The caller.
    #[inline]
    pub fn local(&mut self) -> &mut Domain {
        self.local
    }

    /// The two apart; `None` when they are the same.
    #[inline]
    pub fn both(&mut self) -> (&mut Domain, Option<&mut Domain>) {
        (self.local, self.remote.as_deref_mut())
    }

    /// The other; the caller again when they are the same.
    #[inline]
    pub fn remote(&mut self) -> &mut Domain {
        match &mut self.remote {
            Some(remote) => remote,
            None => self.local,
        }
    }
}

/// A slot and id that no domain has yet.
#[derive(Debug)]
#[must_use = "the slot would be lost"]
pub(crate) struct Reservation {
    pub id: DomId,
    pub slot: Slot,
    pub serial: u32,
}

impl DomainTable {
    /// No domains.
    pub const fn new() -> Self {
        Self {
            places: [const { Place { occupant: AtomicU32::new(VACANT), domain: TicketMutex::new(None) } }; SLOTS],
            free: TicketMutex::new(FreeSlots {
                queue: heapless::Deque::new(),
                generations: [0; SLOTS],
                next_serial: 0,
                started: false,
            }),
        }
    }

    #[inline]
    fn place(&self, id: DomId) -> Option<&Place> {
        self.places.get(usize::from(id.slot()?.0))
    }

    /// The label of a living or dying domain.
    #[inline]
    pub fn label(&self, id: DomId) -> Option<Label> {
        let occupant = self.place(id)?.occupant.load(Ordering::Acquire);
        (occupant != VACANT && occupant as u16 == id.0).then_some(Label((occupant >> 16) as u16))
    }

    /// Locks a domain. No other domain may be locked by the caller.
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    #[inline]
    pub fn with<R>(&self, id: DomId, action: impl FnOnce(&mut Domain) -> R) -> Result<R, Errno> {
        let mut domain = self.place(id).ok_or(Errno::ESRCH)?.domain.lock();
        match domain.as_deref_mut() {
            Some(domain) if domain.id() == id => Ok(action(domain)),
            _ => Err(Errno::ESRCH),
        }
    }

    /// Locks two domains, or one if they are the same, in slot order: the locks are the slots', and a stale id must not
    /// turn the order round.
    ///
    /// # Errors
    /// `ESRCH`: one of them does not exist.
    #[inline]
    pub fn with_pair<R>(
        &self,
        local: DomId,
        remote: DomId,
        action: impl FnOnce(&mut Pair<'_>) -> R,
    ) -> Result<R, Errno> {
        if local == remote {
            return self.with(local, |domain| action(&mut Pair::same(domain)));
        }
        let (here, there) = (self.place(local).ok_or(Errno::ESRCH)?, self.place(remote).ok_or(Errno::ESRCH)?);
        if core::ptr::eq(here, there) {
            // Two ids, one slot: one of them is stale.
            return Err(Errno::ESRCH);
        }
        let (mut here, mut there) = if local.slot() < remote.slot() {
            let here = here.domain.lock();
            (here, there.domain.lock())
        } else {
            let there = there.domain.lock();
            (here.domain.lock(), there)
        };
        match (here.as_deref_mut(), there.as_deref_mut()) {
            (Some(here), Some(there)) if here.id() == local && there.id() == remote => {
                Ok(action(&mut Pair { local: here, remote: Some(there) }))
            }
            _ => Err(Errno::ESRCH),
        }
    }

    /// The first domain whose id is `from` or higher. Looks at each slot once.
    pub fn next(&self, from: DomId) -> Option<DomId> {
        self.places
            .iter()
            .map(|place| place.occupant.load(Ordering::Acquire))
            .filter(|&occupant| occupant != VACANT)
            .map(|occupant| DomId(occupant as u16))
            .filter(|&id| id >= from)
            .min()
    }

    /// The domain of a label, if there is one, dying ones included.
    pub fn of_label(&self, label: Label) -> Option<DomId> {
        self.places
            .iter()
            .map(|place| place.occupant.load(Ordering::Acquire))
            .find(|&occupant| occupant != VACANT && (occupant >> 16) as u16 == label.0)
            .map(|occupant| DomId(occupant as u16))
    }

    /// Takes a slot for a new domain: slot 0 for label 0, the longest unused one for others.
    pub(crate) fn reserve(&self, label: Label) -> Option<Reservation> {
        let mut free = self.free.lock();
        if !free.started {
            free.started = true;
            for slot in 1..SLOTS {
                free.queue.push_back(Slot(slot as u8)).ok()?;
            }
        }
        let slot = if label == Label(0) {
            let taken = self.places.first()?.occupant.load(Ordering::Acquire) != VACANT;
            (!taken).then_some(Slot(0))?
        } else {
            free.queue.pop_front()?
        };
        let generation = free.generations.get(usize::from(slot.0)).copied().unwrap_or(0);
        let serial = free.next_serial;
        free.next_serial = serial.wrapping_add(1);
        let id = DomId(u16::from(generation) << SLOT_BITS | u16::from(slot.0));
        Some(Reservation { id, slot, serial })
    }

    /// Gives back a slot; its next domain has another id.
    pub(crate) fn give_back(&self, slot: Slot) {
        let mut free = self.free.lock();
        if let Some(generation) = free.generations.get_mut(usize::from(slot.0)) {
            let id = (u32::from(*generation).wrapping_add(1)) << SLOT_BITS | u32::from(slot.0);
            let fits = id < u32::from(DomId::FIRST_RESERVED);
            *generation = if fits { generation.wrapping_add(1) } else { 0 };
        }
        if slot != Slot(0) {
            // Never full: each slot is in the queue once.
            let _never_full = free.queue.push_back(slot);
        }
    }

    /// Makes a domain findable.
    pub(crate) fn publish(&self, domain: Boxed<Domain>) {
        let (id, label) = (domain.id(), domain.label());
        if let Some(place) = self.place(id) {
            *place.domain.lock() = Some(domain);
            place.occupant.store(u32::from(id.0) | u32::from(label.0) << 16, Ordering::Release);
        }
    }

    /// Takes a domain out; nobody can find it any more.
    pub(crate) fn withdraw(&self, id: DomId) -> Option<Boxed<Domain>> {
        let place = self.place(id)?;
        let mut domain = place.domain.lock();
        if domain.as_ref().is_none_or(|domain| domain.id() != id) {
            return None;
        }
        place.occupant.store(VACANT, Ordering::Release);
        domain.take()
    }
}
