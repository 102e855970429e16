//! The table of domains: 128 slots, ids that are not reused by chance, one lock a domain.
//!
//! An id is `generation << 7 | slot`. The slot that was free longest comes first, so an id passes to another label after some
//! thirty thousand creations at the earliest. A domain's *successor*, of the same label, may have its id at once: what others
//! wrote down for that id (grants, unbound ports) is for the role that the sealed policy gives the label, and everything
//! that the hypervisor did for the old domain has been undone when the new one is made. What must tell the two apart all the
//! same (grant mappings) remembers the domain's serial number. Slot 0 is the policy domain's alone.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Acquire, Release};
use core::{cmp::Ordering, hint::cold_path, sync::atomic::AtomicU32};

use spin::mutex::{TicketMutex, TicketMutexGuard};

use super::Domain;
use crate::error::Errno;
use crate::ids::{DomId, Label, SLOTS, Slot};

const VACANT: u32 = u32::MAX;

#[repr(align(64))] // a cache line each
struct Place {
    /// id | label << 16 of the domain here, or [`VACANT`]: to turn away wrong ids without the lock.
    occupant: AtomicU32,
    /// At most one: on the heap, where its place can be reserved before anything else is taken.
    domain: TicketMutex<Vec<Domain>>,
}

/// A place while it is locked; one domain or none.
type LockedPlace<'a> = TicketMutexGuard<'a, Vec<Domain>>;

/// What the next domains are called.
struct Names {
    /// The policy domain's next id, unless it has one.
    policy: Option<DomId>,
    /// The other free slots, the longest unused one first: the next id, and who was there last.
    others: heapless::Vec<(DomId, u32), SLOTS>,
    serial: u32,
}

fn join(id: DomId, label: Label) -> u32 {
    u32::from(id.0) | u32::from(label.0) << 16
}

fn split(occupant: u32) -> (DomId, Label) {
    (DomId(occupant as u16), Label((occupant >> 16) as u16))
}

/// All domains.
pub struct DomainTable {
    places: [Place; SLOTS],
    names: TicketMutex<Names>,
}

/// One or two locked domains: the caller and another, or the caller and itself.
pub struct Pair<'a> {
    local: &'a mut Domain,
    remote: Option<&'a mut Domain>,
}

impl Pair<'_> {
    /// The caller.
    pub fn local(&mut self) -> &mut Domain {
        self.local
    }

    /// The two apart; `None` when they are the same.
    pub fn both(&mut self) -> (&mut Domain, Option<&mut Domain>) {
        (self.local, self.remote.as_deref_mut())
    }

    /// The other; the caller again when they are the same.
    pub fn remote(&mut self) -> &mut Domain {
        match &mut self.remote {
            Some(remote) => remote,
            None => self.local,
        }
    }
}

/// Two locked slots: [`Pair`] without the case of one domain, for the shortest paths.
pub(crate) struct Two<'a>(TicketMutexGuard<'a, Vec<Domain>>, TicketMutexGuard<'a, Vec<Domain>>);

impl Two<'_> {
    /// The domains, if those there have these ids.
    #[inline(always)]
    pub fn domains(&mut self, local: DomId, remote: DomId) -> Option<(&mut Domain, &mut Domain)> {
        let near = self.0.first_mut().filter(|domain| domain.id == local)?;
        Some((near, self.1.first_mut().filter(|domain| domain.id == remote)?))
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
    pub fn new() -> Self {
        let others = (1..SLOTS as u16).map(|slot| (DomId(slot), VACANT)).collect();
        Self {
            places: [const { Place { occupant: AtomicU32::new(VACANT), domain: TicketMutex::new(Vec::new()) } }; SLOTS],
            names: TicketMutex::new(Names { policy: Some(DomId::POLICY), others, serial: 0 }),
        }
    }

    fn place(&self, id: DomId) -> Option<&Place> {
        self.places.get(id.0 as usize % SLOTS)
    }

    /// The label of a living or dying domain.
    pub fn label(&self, id: DomId) -> Option<Label> {
        let occupant = self.place(id)?.occupant.load(Acquire);
        (occupant != VACANT && occupant as u16 == id.0).then_some(split(occupant).1)
    }

    /// Locks a domain. No other domain may be locked by the caller.
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    #[inline(always)] // in the way of each hypercall
    pub fn with<R>(&self, id: DomId, action: impl FnOnce(&mut Domain) -> R) -> Result<R, Errno> {
        Ok(action(Self::named(&mut self.lock(id)?, id)?))
    }

    /// Locks a place, in which [`Self::named`] finds the domain: [`Self::with`] for paths where a closure would be a call.
    #[inline(always)]
    pub(crate) fn lock(&self, id: DomId) -> Result<LockedPlace<'_>, Errno> {
        Ok(self.place(id).ok_or(Errno::ESRCH)?.domain.lock())
    }

    /// [`Self::lock`], if nobody has it locked.
    #[inline(always)]
    pub(crate) fn try_lock(&self, id: DomId) -> Option<LockedPlace<'_>> {
        self.place(id)?.domain.try_lock()
    }

    /// The domain of this id, if it is in this place.
    #[inline(always)]
    pub(crate) fn named(place: &mut [Domain], id: DomId) -> Result<&mut Domain, Errno> {
        match place.first_mut() {
            Some(domain) if domain.id() == id => Ok(domain),
            _ => {
                cold_path();
                Err(Errno::ESRCH)
            }
        }
    }

    /// Locks two domains, or one if they are the same, in slot order: the locks are the slots', and a stale id must not
    /// turn the order round.
    ///
    /// # Errors
    /// `ESRCH`: one of them does not exist.
    #[inline(always)] // in the way of each hypercall about grants
    pub fn with_pair<R>(
        &self,
        local: DomId,
        remote: DomId,
        action: impl FnOnce(&mut Pair<'_>) -> R,
    ) -> Result<R, Errno> {
        let (here, there) = (self.place(local).ok_or(Errno::ESRCH)?, self.place(remote).ok_or(Errno::ESRCH)?);
        // Without closures: those would be calls.
        let early = if remote.slot() < local.slot() { Some(there.domain.lock()) } else { None };
        let mut here = here.domain.lock();
        let mut there = match early {
            None if local.slot() != remote.slot() => Some(there.domain.lock()),
            early => early,
        };
        let near = Self::named(&mut here, local)?;
        let far = match &mut there {
            Some(there) => Some(Self::named(there, remote)?),
            // Two ids, one slot: one of them is stale.
            None if local != remote => return Err(Errno::ESRCH),
            None => None,
        };
        Ok(action(&mut Pair { local: near, remote: far }))
    }

    /// Locks the slots of two domains, in order. `None`: it is one slot.
    #[inline(always)] // in the way of each hypercall about a grant
    pub(crate) fn lock_two(&self, local: DomId, remote: DomId) -> Option<Two<'_>> {
        let (here, there) = (self.place(local)?, self.place(remote)?);
        // Places lie in the order of their slots.
        match core::ptr::from_ref(here).cmp(&core::ptr::from_ref(there)) {
            Ordering::Less => {
                let near = here.domain.lock();
                Some(Two(near, there.domain.lock()))
            }
            Ordering::Greater => {
                let far = there.domain.lock();
                Some(Two(here.domain.lock(), far))
            }
            Ordering::Equal => None,
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
        let occupants = self.places.iter().map(|place| place.occupant.load(Acquire));
        occupants.filter(|&occupant| occupant != VACANT).map(split)
    }

    /// Takes a slot for a new domain: slot 0 for label 0, the longest unused one for others. With the id of a `predecessor`,
    /// its slot and id, if nobody was there after it and it was of this label.
    pub(crate) fn reserve(&self, label: Label, predecessor: Option<DomId>) -> Result<Reservation, Errno> {
        let mut names = self.names.lock();
        let id = match predecessor {
            Some(id) => {
                let last = join(id, label);
                let at = names.others.iter().position(|&(_, occupant)| occupant == last).ok_or(Errno::EINVAL)?;
                names.others.remove(at);
                id
            }
            None if label == Label(0) => names.policy.take().ok_or(Errno::ENOSPC)?,
            None if names.others.is_empty() => return Err(Errno::ENOSPC),
            None => names.others.remove(0).0,
        };
        let serial = names.serial;
        names.serial = serial.wrapping_add(1);
        Ok(Reservation { id, slot: id.slot(), serial })
    }

    /// Gives back an id and its slot, whose next domain has another id unless it is of the same label and asks for it.
    pub(crate) fn give_back(&self, id: DomId, label: Label) {
        let next = DomId(id.0.wrapping_add(SLOTS as u16));
        let next = if next.0 < DomId::FIRST_RESERVED { next } else { DomId(id.0 % SLOTS as u16) };
        let mut names = self.names.lock();
        if next.slot() == DomId::POLICY.slot() {
            names.policy = Some(next);
        } else {
            // There is room for every slot.
            let _ = names.others.push((next, join(id, label)));
        }
    }

    /// Makes a domain findable, the only element of `domain`.
    pub(crate) fn publish(&self, id: DomId, label: Label, domain: Vec<Domain>) {
        if let Some(place) = self.place(id) {
            *place.domain.lock() = domain;
            place.occupant.store(join(id, label), Release);
        }
    }

    /// Takes a domain out; nobody can find it any more.
    pub(crate) fn withdraw(&self, id: DomId) -> Option<Domain> {
        let place = self.place(id)?;
        let mut domain = place.domain.lock();
        domain.first().filter(|domain| domain.id() == id)?;
        place.occupant.store(VACANT, Release);
        core::mem::take(&mut *domain).pop()
    }
}
