//! Proportional share by virtual time.
//!
//! Time is in ticks of the CPU's counter, so that none is converted on the way. Each vCPU's virtual time grows, while it runs, by the time divided by its weight; the runnable vCPU with the least
//! runs next. One that slept is put no further back than one slice behind the others: that little credit is the
//! wake-up boost. It makes a driver domain, which mostly sleeps, run at once when its interrupt comes; and it cannot be
//! farmed, because virtual time never goes back: what a vCPU used up by running it does not get again by sleeping.
//!
//! A cap gives a vCPU a budget each period; when it is used up, the vCPU is parked until the next period.

mod two;

use super::{VCPU_KEYS, VcpuKey, heap::IndexedHeap};

/// Microseconds that a vCPU runs before another runnable one gets its turn.
pub const SLICE_US: u64 = 5_000;
/// A woken vCPU preempts when it is ahead by this much: switching for less costs more than it helps.
const PREEMPT_MARGIN_US: u64 = 200;
/// Period of a cap.
const CAP_PERIOD_US: u64 = 20_000;
/// Virtual ticks a tick, at weight [`UNIT_WEIGHT`].
const UNIT_WEIGHT: u64 = 1024;
/// Bits behind the point of a rate.
const RATE_BITS: u32 = 20;
/// When virtual times get this large, all are moved back.
const REBASE_AT: u64 = 1 << 62;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Absent,
    Asleep,
    Queued,
    Running,
    Parked,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entity {
    state: State,
    cap: u16,
    /// Ticks that it ran and that are not in its virtual time yet: less than the margin.
    owes: u32,
    /// Virtual ticks a tick, in units of 2^-[`RATE_BITS`], rounded up.
    rate: u64,
    /// What it may be behind the others when it wakes, and what it must be ahead to preempt, in virtual ticks.
    credit: u64,
    margin: u64,
    virtual_time: u64,
    /// Ticks that it ran, all told.
    ran: u64,
    /// What is left of this period's budget, if capped.
    budget: u64,
    period_end: u64,
}

impl Entity {
    /// Brings its virtual time up to what it ran, after a run of so many ticks more.
    #[inline(always)]
    fn book(&mut self, ran: u64) {
        self.ran = self.ran.wrapping_add(ran);
        let ticks = ran.wrapping_add(u64::from(core::mem::take(&mut self.owes)));
        // Both are below 2^62, by the rebase.
        self.virtual_time = self.virtual_time.wrapping_add(self.in_virtual(ticks));
    }

    /// Rounded up: no run is free. Right for runs below 2^54 ticks, half a year.
    fn in_virtual(&self, ticks: u64) -> u64 {
        let product = u128::from(ticks).wrapping_mul(u128::from(self.rate));
        ((product >> RATE_BITS) as u64).wrapping_add(1)
    }
}

/// The vCPUs of one CPU.
pub struct RunQueue {
    entities: [Entity; VCPU_KEYS],
    queued: IndexedHeap<VCPU_KEYS>,
    parked: IndexedHeap<VCPU_KEYS>,
    /// The vCPU that was picked last; it may be asleep by now, and is charged for all time until the next pick.
    current: Option<VcpuKey>,
    /// Whether any vCPU has or had a cap: else nothing is ever parked, and budgets are of no interest.
    caps: bool,
    /// When the current vCPU was picked.
    picked: u64,
    /// Since when it has run without being charged.
    since: u64,
    /// Virtual time that no runnable vCPU is behind; never goes back.
    floor: u64,
    /// The constants above in ticks.
    slice: u64,
    margin: u64,
    period: u64,
}

impl RunQueue {
    /// No vCPUs. [`Self::set_clock`] follows.
    pub fn new() -> Self {
        Self {
            entities: [Entity::default(); VCPU_KEYS],
            queued: IndexedHeap::new(),
            parked: IndexedHeap::new(),
            current: None,
            caps: false,
            picked: 0,
            since: 0,
            floor: 0,
            slice: SLICE_US,
            margin: PREEMPT_MARGIN_US,
            period: CAP_PERIOD_US,
        }
    }

    /// Says how long a tick is. Before any vCPU is there.
    pub fn set_clock(&mut self, ticks_per_us: u64) {
        let ticks = |us: u64| us.saturating_mul(ticks_per_us.max(1));
        (self.slice, self.margin, self.period) = (ticks(SLICE_US), ticks(PREEMPT_MARGIN_US), ticks(CAP_PERIOD_US));
    }

    #[inline(always)]
    fn current_entity(&mut self) -> Option<&mut Entity> {
        self.entities.get_mut(self.current?.index())
    }

    /// Makes a vCPU known, asleep. `weight` 1 to 65535; `cap_percent` of the CPU, 0 for none.
    pub fn add(&mut self, key: VcpuKey, weight: u32, cap_percent: u32) {
        let rate = (UNIT_WEIGHT << RATE_BITS).div_ceil(u64::from(weight.max(1)));
        let cap = cap_percent.min(100) as u16;
        let mut new = Entity { state: State::Asleep, cap, rate, virtual_time: self.floor, ..Entity::default() };
        new.credit = new.in_virtual(self.slice);
        new.margin = new.in_virtual(self.margin);
        self.caps |= cap_percent != 0;
        if let Some(entity) = self.entities.get_mut(key.index()) {
            *entity = new;
        }
    }

    /// Forgets a vCPU, in whatever state; answers how long it ran, all told.
    pub fn remove(&mut self, key: VcpuKey, now: u64) -> u64 {
        self.sleep(key);
        if self.current == Some(key) {
            self.charge(now);
            self.current = None;
        }
        self.entities.get_mut(key.index()).map_or(0, |entity| core::mem::take(entity).ran)
    }

    /// Whether the vCPU that was picked last can go on.
    pub fn is_running(&mut self) -> bool {
        self.current_entity().is_some_and(|entity| entity.state == State::Running)
    }

    /// The vCPU that was picked last.
    pub const fn current(&self) -> Option<VcpuKey> {
        self.current
    }

    /// Ticks that a vCPU has run, up to the last charge.
    pub fn ran(&self, key: VcpuKey) -> u64 {
        self.entities.get(key.index()).map_or(0, |entity| entity.ran)
    }

    /// Makes a vCPU runnable. `true`: it may have to run now, so call [`Self::pick`]. [`Self::until`] may be earlier then, even if it does not preempt.
    #[must_use = "a vCPU may be waiting that should run now"]
    pub fn wake(&mut self, key: VcpuKey, now: u64) -> bool {
        self.charge(now);
        let floor = self.floor;
        let Some(entity) = self.entities.get_mut(key.index()) else { return false };
        if entity.state != State::Asleep {
            return false;
        }
        entity.book(0);
        entity.virtual_time = entity.virtual_time.max(floor.saturating_sub(entity.credit));
        let virtual_time = entity.virtual_time;
        if self.current == Some(key) {
            // It has just gone to sleep, and goes on.
            entity.state = State::Running;
            return true;
        }
        entity.state = State::Queued;
        if entity.cap != 0 && self.is_parked(key, now) {
            return false;
        }
        self.queued.insert(key.index(), virtual_time);
        match self.current_entity() {
            Some(current) if current.state == State::Running => {
                virtual_time.saturating_add(current.margin) < current.virtual_time
            }
            _ => true,
        }
    }

    /// Parks a capped vCPU until its next period if it has used up its budget, and says whether.
    #[cold]
    fn is_parked(&mut self, key: VcpuKey, now: u64) -> bool {
        let Some(entity) = self.entities.get_mut(key.index()) else { return false };
        if now >= entity.period_end {
            entity.period_end = now.saturating_add(self.period);
            entity.budget = (self.period / 100).saturating_mul(u64::from(entity.cap));
        }
        if entity.budget != 0 {
            return false;
        }
        entity.state = State::Parked;
        self.parked.insert(key.index(), entity.period_end);
        true
    }

    /// A vCPU waits or is paused: it is not runnable any more. If it is the current one, [`Self::pick`] follows.
    pub fn sleep(&mut self, key: VcpuKey) {
        if let Some(entity) = self.entities.get_mut(key.index()).filter(|entity| entity.state != State::Absent) {
            entity.state = State::Asleep;
            self.queued.remove(key.index());
            self.parked.remove(key.index());
        }
    }

    /// [`Self::sleep`] of the current vCPU.
    pub fn current_sleeps(&mut self) {
        if let Some(current) = self.current_entity() {
            current.state = State::Asleep;
        }
    }

    /// The current vCPU lets the others go first, once. [`Self::pick`] follows.
    pub fn yield_now(&mut self) {
        if let Some((_, first)) = self.queued.peek()
            && let Some(entity) = self.current_entity()
        {
            entity.virtual_time = entity.virtual_time.max(first.saturating_add(1));
        }
    }

    /// Books the time since the last charge to the current vCPU.
    pub fn charge(&mut self, now: u64) {
        if now == self.since {
            return;
        }
        let since = self.since;
        let Some(entity) = self.book(now) else { return };
        let virtual_time = entity.virtual_time;
        if entity.cap != 0 {
            entity.budget = entity.budget.saturating_sub(now.wrapping_sub(since));
        }
        let least = self.queued.peek().map_or(virtual_time, |(_, first)| first.min(virtual_time));
        self.floor = self.floor.max(least);
        if virtual_time >= REBASE_AT {
            self.rebase();
        }
    }

    #[inline(always)]
    fn book(&mut self, now: u64) -> Option<&mut Entity> {
        // Time does not go back; should the counter, a very long run would be booked, and the next rebase forgets it.
        let ran = now.wrapping_sub(self.since);
        self.since = now;
        let entity = self.entities.get_mut(self.current?.index())?;
        entity.book(ran);
        Some(entity)
    }

    /// Moves all virtual times back by as much as the least of them allows. Once in years.
    #[cold]
    fn rebase(&mut self) {
        let by = self.floor;
        self.floor = 0;
        for (item, entity) in self.entities.iter_mut().enumerate() {
            entity.virtual_time = entity.virtual_time.saturating_sub(by);
            if self.queued.contains(item) {
                self.queued.set(item, entity.virtual_time);
            }
        }
    }

    #[cold]
    fn release_parked(&mut self, now: u64) {
        while let Some((item, _)) = self.parked.peek().filter(|&(_, until)| until <= now) {
            self.parked.remove(item);
            let Some(entity) = self.entities.get_mut(item) else { return };
            // Parked is not asleep: no credit.
            entity.virtual_time = entity.virtual_time.max(self.floor);
            entity.state = State::Queued;
            let virtual_time = entity.virtual_time;
            if !self.is_parked(VcpuKey::of_index(item), now) {
                self.queued.insert(item, virtual_time);
            }
        }
    }

    /// Decides who runs from now on; `None`: nobody can. The current vCPU, unless it sleeps, goes back into the queue
    /// first.
    pub fn pick(&mut self, now: u64) -> Option<VcpuKey> {
        self.charge(now);
        if !self.parked.is_empty() {
            self.release_parked(now);
        }
        self.line_up(now);
        let next = self.queued.pop().map(|(item, _)| VcpuKey::of_index(item));
        (self.current, self.picked) = (next, now);
        self.current_entity()?.state = State::Running;
        next
    }

    /// Queues the current vCPU, or parks it, if it is runnable.
    fn line_up(&mut self, now: u64) {
        if let Some(current) = self.current
            && let Some(entity) = self.current_entity().filter(|entity| entity.state == State::Running)
        {
            entity.state = State::Queued;
            let (cap, virtual_time) = (entity.cap, entity.virtual_time);
            if cap == 0 || !self.is_parked(current, now) {
                self.queued.insert(current.index(), virtual_time);
            }
        }
    }

    /// When [`Self::pick`] is due at the latest, as things are now; `u64::MAX`: never, by this queue. A wake may bring
    /// it forward: a vCPU that runs alone has no end of slice.
    pub fn until(&self) -> u64 {
        let unpark = self.parked.peek().map_or(u64::MAX, |(_, until)| until);
        let Some(entity) = self.current.and_then(|current| self.entities.get(current.index())) else { return unpark };
        let budget = if entity.cap == 0 { u64::MAX } else { self.since.saturating_add(entity.budget) };
        let slice = if self.queued.is_empty() { u64::MAX } else { self.picked.wrapping_add(self.slice) };
        slice.min(budget).min(unpark)
    }
}
