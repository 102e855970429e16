//! Proportional share by virtual time.
//!
//! Each vCPU's virtual time grows, while it runs, by the time divided by its weight; the runnable vCPU with the least
//! runs next. One that slept is put no further back than one slice behind the others: that little credit is the
//! wake-up boost. It makes a driver domain, which mostly sleeps, run at once when its interrupt comes; and it cannot be
//! farmed, because virtual time never goes back: what a vCPU used up by running it does not get again by sleeping.
//!
//! A cap gives a vCPU a budget each period; when it is used up, the vCPU is parked until the next period.

use super::heap::IndexedHeap;
use super::{VCPU_KEYS, VcpuKey};

/// Time that a vCPU runs before another runnable one gets its turn.
pub const SLICE_NS: u64 = 5_000_000;
/// A woken vCPU preempts when it is ahead by this much: switching for less costs more than it helps.
const PREEMPT_MARGIN_NS: u64 = 200_000;
/// Period of a cap.
const CAP_PERIOD_NS: u64 = 20_000_000;
/// Virtual nanoseconds a nanosecond, at weight [`UNIT_WEIGHT`].
const UNIT_WEIGHT: u64 = 1024;
/// When virtual times get this large, all are moved back.
const REBASE_AT: u64 = 1 << 62;

/// Whether the CPU should look for a better vCPU to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a vCPU may be waiting that should run now"]
pub enum Preempt {
    /// Go on.
    No,
    /// Call [`RunQueue::pick`].
    Yes,
}

/// What to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whom; `None`: nobody is runnable.
    pub run: Option<VcpuKey>,
    /// When to ask again at the latest, in system time; `u64::MAX`: never, by this queue.
    pub until_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Absent,
    Asleep,
    Queued,
    Running,
    Parked,
}

#[derive(Clone, Copy, Debug)]
struct Entity {
    state: State,
    weight: u32,
    cap: u32,
    virtual_ns: u64,
    /// Time it ran, all told.
    run_ns: u64,
    /// What is left of this period's budget, if capped.
    budget_ns: u64,
    period_end_ns: u64,
}

const ABSENT: Entity =
    Entity { state: State::Absent, weight: 256, cap: 0, virtual_ns: 0, run_ns: 0, budget_ns: 0, period_end_ns: 0 };

impl Entity {
    fn in_virtual(&self, ns: u64) -> u64 {
        // Rounded up: no run is free.
        ns.saturating_mul(UNIT_WEIGHT).div_ceil(u64::from(self.weight.max(1)))
    }

    fn refill(&mut self, now: u64) {
        if self.cap != 0 && now >= self.period_end_ns {
            self.period_end_ns = now.saturating_add(CAP_PERIOD_NS);
            self.budget_ns = (CAP_PERIOD_NS / 100).saturating_mul(u64::from(self.cap));
        }
    }
}

/// The vCPUs of one CPU.
#[derive(Debug)]
pub struct RunQueue {
    entities: [Entity; VCPU_KEYS],
    queued: IndexedHeap<VCPU_KEYS>,
    parked: IndexedHeap<VCPU_KEYS>,
    current: Option<VcpuKey>,
    /// When the current vCPU was picked.
    picked_ns: u64,
    /// Since when it has run without being charged.
    since_ns: u64,
    /// Virtual time that no runnable vCPU is behind; never goes back.
    floor: u64,
}

impl RunQueue {
    /// No vCPUs.
    pub const fn new() -> Self {
        Self {
            entities: [ABSENT; VCPU_KEYS],
            queued: IndexedHeap::new(),
            parked: IndexedHeap::new(),
            current: None,
            picked_ns: 0,
            since_ns: 0,
            floor: 0,
        }
    }

    fn entity(&self, key: VcpuKey) -> Entity {
        self.entities.get(key.index()).copied().unwrap_or(ABSENT)
    }

    fn entity_mut(&mut self, key: VcpuKey) -> Option<&mut Entity> {
        self.entities.get_mut(key.index())
    }

    fn set_state(&mut self, key: VcpuKey, state: State) {
        if let Some(entity) = self.entity_mut(key) {
            entity.state = state;
        }
    }

    /// Makes a vCPU known, asleep. `weight` 1 to 65535; `cap_percent` of the CPU, 0 for none.
    pub fn add(&mut self, key: VcpuKey, weight: u32, cap_percent: u32) {
        let virtual_ns = self.floor;
        if let Some(entity) = self.entity_mut(key) {
            *entity = Entity { state: State::Asleep, weight: weight.max(1), cap: cap_percent, virtual_ns, ..ABSENT };
        }
    }

    /// Forgets a vCPU, in whatever state.
    pub fn remove(&mut self, key: VcpuKey, now: u64) {
        self.sleep(key, now);
        if let Some(entity) = self.entity_mut(key) {
            *entity = ABSENT;
        }
    }

    /// The vCPU that was picked last and has not been put to sleep since.
    #[inline]
    pub fn current(&self) -> Option<VcpuKey> {
        self.current
    }

    /// Nanoseconds that a vCPU has run, up to the last charge.
    pub fn run_ns(&self, key: VcpuKey) -> u64 {
        self.entity(key).run_ns
    }

    /// Makes a vCPU runnable. [`Self::until_ns`] may be earlier then, even if it does not preempt.
    #[inline]
    pub fn wake(&mut self, key: VcpuKey, now: u64) -> Preempt {
        let mut entity = self.entity(key);
        if entity.state != State::Asleep {
            return Preempt::No;
        }
        let credit = entity.in_virtual(SLICE_NS);
        entity.virtual_ns = entity.virtual_ns.max(self.floor.saturating_sub(credit));
        match self.line_up(key, entity, now) {
            State::Queued => self.preempts(entity, now),
            _ => Preempt::No,
        }
    }

    /// Queues a runnable vCPU, or parks it until its next period when it has used up its budget.
    fn line_up(&mut self, key: VcpuKey, mut entity: Entity, now: u64) -> State {
        entity.refill(now);
        if entity.cap != 0 && entity.budget_ns == 0 {
            entity.state = State::Parked;
            self.parked.set(key.index(), entity.period_end_ns);
        } else {
            entity.state = State::Queued;
            self.queued.set(key.index(), entity.virtual_ns);
        }
        if let Some(slot) = self.entity_mut(key) {
            *slot = entity;
        }
        entity.state
    }

    /// Whether a queued vCPU is so far ahead of the current one that it should run now.
    fn preempts(&mut self, woken: Entity, now: u64) -> Preempt {
        self.charge(now);
        let Some(current) = self.current else {
            return Preempt::Yes;
        };
        let current = self.entity(current);
        let margin = current.in_virtual(PREEMPT_MARGIN_NS);
        if woken.virtual_ns.saturating_add(margin) < current.virtual_ns { Preempt::Yes } else { Preempt::No }
    }

    /// A vCPU waits or is paused: it is not runnable any more.
    pub fn sleep(&mut self, key: VcpuKey, now: u64) {
        match self.entity(key).state {
            State::Absent | State::Asleep => return,
            State::Queued => self.queued.remove(key.index()),
            State::Parked => self.parked.remove(key.index()),
            State::Running => {
                self.charge(now);
                self.current = None;
            }
        }
        self.set_state(key, State::Asleep);
    }

    /// The current vCPU lets the others go first, once. [`Self::pick`] follows.
    pub fn yield_now(&mut self, now: u64) {
        self.charge(now);
        let Some(current) = self.current else { return };
        if let Some((_, first)) = self.queued.peek()
            && let Some(entity) = self.entity_mut(current)
        {
            entity.virtual_ns = entity.virtual_ns.max(first.saturating_add(1));
        }
    }

    /// Books the time since the last charge to the current vCPU.
    pub fn charge(&mut self, now: u64) {
        let ran = now.saturating_sub(self.since_ns);
        self.since_ns = now;
        let Some(current) = self.current else { return };
        let first_queued = self.queued.peek().map(|(_, virtual_ns)| virtual_ns);
        let Some(entity) = self.entity_mut(current) else { return };
        entity.run_ns = entity.run_ns.saturating_add(ran);
        entity.budget_ns = entity.budget_ns.saturating_sub(ran);
        entity.virtual_ns = entity.virtual_ns.saturating_add(entity.in_virtual(ran));
        let virtual_ns = entity.virtual_ns;
        let least = first_queued.map_or(virtual_ns, |first| first.min(virtual_ns));
        self.floor = self.floor.max(least);
        if virtual_ns >= REBASE_AT {
            self.rebase();
        }
    }

    /// Moves all virtual times back by as much as the least of them allows. Once in years.
    fn rebase(&mut self) {
        let by = self.floor;
        self.floor = 0;
        for (item, entity) in self.entities.iter_mut().enumerate() {
            entity.virtual_ns = entity.virtual_ns.saturating_sub(by);
            if self.queued.contains(item) {
                self.queued.set(item, entity.virtual_ns);
            }
        }
    }

    fn release_parked(&mut self, now: u64) {
        while let Some((item, _)) = self.parked.peek().filter(|&(_, until)| until <= now) {
            self.parked.remove(item);
            let key = VcpuKey(item as u16);
            let mut entity = self.entity(key);
            // Parked is not asleep: no credit.
            entity.virtual_ns = entity.virtual_ns.max(self.floor);
            self.line_up(key, entity, now);
        }
    }

    /// Decides who runs from now on. The current vCPU goes back into the queue first.
    pub fn pick(&mut self, now: u64) -> Decision {
        self.charge(now);
        if let Some(current) = self.current.take() {
            self.line_up(current, self.entity(current), now);
        }
        self.release_parked(now);
        let Some((item, _)) = self.queued.pop() else {
            return Decision { run: None, until_ns: self.until_ns() };
        };
        let key = VcpuKey(item as u16);
        self.current = Some(key);
        self.picked_ns = now;
        self.set_state(key, State::Running);
        Decision { run: Some(key), until_ns: self.until_ns() }
    }

    /// When [`Self::pick`] is due at the latest, as things are now. A wake may bring it forward: a vCPU that runs alone
    /// has no end of slice.
    pub fn until_ns(&self) -> u64 {
        let unpark = self.parked.peek().map_or(u64::MAX, |(_, until)| until);
        let Some(current) = self.current else { return unpark };
        let entity = self.entity(current);
        let slice = if self.queued.peek().is_none() { u64::MAX } else { self.picked_ns.saturating_add(SLICE_NS) };
        let budget = if entity.cap == 0 { u64::MAX } else { self.since_ns.saturating_add(entity.budget_ns) };
        slice.min(budget).min(unpark)
    }
}
