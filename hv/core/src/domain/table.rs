//! The table of domains: 128 slots, ids that are not reused soon, one lock a domain.
//!
//! An id is `generation << 7 | slot`. The slot that was free longest comes first, so an id comes back after some thirty thousand
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

/// A slot's past, and whether it is in use.
#[derive(Clone, Copy)]
struct SlotUse {
    taken: bool,
    /// Upper part of its next domain's id.
    generation: u8,
    /// The serial number that was due when the slot was given back.
    free_since: u32,
}

struct Slots {
    uses: [SlotUse; SLOTS],
    next_serial: u32,
}

#[inline]
fn split(occupant: u32) -> (DomId, Label) {
    (DomId(occupant as u16), Label((occupant >> 16) as u16))
}

/// All domains.
pub struct DomainTable {
    places: [Place; SLOTS],
    slots: TicketMutex<Slots>,
}

/// One or two locked domains: the caller and another, or the caller and itself.
pub struct Pair<'a> {
    local: &'a mut Domain,
    remote: Option<&'a mut Domain>,
}

impl Pair<'_> {
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
            slots: TicketMutex::new(Slots {
                uses: [SlotUse { taken: false, generation: 0, free_since: 0 }; SLOTS],
                next_serial: 0,
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
        (occupant != VACANT && occupant as u16 == id.0).then_some(split(occupant).1)
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
            return self.with(local, |domain| action(&mut Pair { local: domain, remote: None }));
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
        self.occupants().map(|(id, _)| id).filter(|&id| id >= from).min()
    }

    /// The domain of a label, if there is one, dying ones included.
    pub fn of_label(&self, label: Label) -> Option<DomId> {
        self.occupants().find(|&(_, occupant)| occupant == label).map(|(id, _)| id)
    }

    fn occupants(&self) -> impl Iterator<Item = (DomId, Label)> {
        let occupants = self.places.iter().map(|place| place.occupant.load(Ordering::Acquire));
        occupants.filter(|&occupant| occupant != VACANT).map(split)
    }

    /// Takes a slot for a new domain: slot 0 for label 0, the longest unused one for others.
    pub(crate) fn reserve(&self, label: Label) -> Option<Reservation> {
        let mut slots = self.slots.lock();
        let serial = slots.next_serial;
        let allowed = if label == Label(0) { 0..1 } else { 1..SLOTS };
        let free = slots.uses.get_mut(allowed.clone())?.iter_mut().zip(allowed).filter(|(slot, _)| !slot.taken);
        let (slot, index) = free.min_by_key(|(slot, _)| slot.free_since)?;
        slot.taken = true;
        let id = DomId(u16::from(slot.generation) << SLOT_BITS | index as u16);
        slots.next_serial = serial.wrapping_add(1);
        Some(Reservation { id, slot: Slot(index as u8), serial })
    }

    /// Gives back a slot; its next domain has another id.
    pub(crate) fn give_back(&self, slot: Slot) {
        let mut slots = self.slots.lock();
        let free_since = slots.next_serial;
        if let Some(slot_use) = slots.uses.get_mut(usize::from(slot.0)) {
            let next = slot_use.generation.wrapping_add(1);
            let id = u32::from(next) << SLOT_BITS | u32::from(slot.0);
            let generation = if id < u32::from(DomId::FIRST_RESERVED) { next } else { 0 };
            *slot_use = SlotUse { taken: false, generation, free_since };
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
