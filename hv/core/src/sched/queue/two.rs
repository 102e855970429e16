//! The decisions that are nearly all of them, in few steps: at most two vCPUs are runnable, and none has a cap.
//!
//! Each comes to what its counterpart in the parent module would come to, or answers `None` and has done nothing: then
//! that one is called. Virtual times, the floor and who is charged for what are the same in both.

use super::{REBASE_AT, RunQueue, State, VcpuKey};

impl RunQueue {
    /// [`Self::wake`] where nobody else is queued. `alarm` is when the next decision comes in any case.
    #[inline(always)] // in the way of each event
    pub fn wake_second(&mut self, key: VcpuKey, now: u64, alarm: u64) -> Option<bool> {
        // What is little can wait for the next decision.
        let little = now.wrapping_sub(self.since) <= self.margin;
        if !little || !self.queued.is_empty() || self.capped != 0 || self.current == Some(key) {
            return None;
        }
        let current = self.entities.get(self.current?.index())?;
        let (goes_on, margin, limit) = (current.state == State::Running, current.margin, current.virtual_time);
        let floor = self.floor;
        let woken = self.entities.get_mut(key.index()).filter(|woken| woken.state == State::Asleep)?;
        if woken.owes != 0 {
            woken.book(0);
        }
        let virtual_time = woken.virtual_time.max(floor.saturating_sub(woken.credit));
        let preempts = !goes_on || virtual_time.saturating_add(margin) < limit;
        if !preempts && alarm > self.picked.wrapping_add(self.slice) {
            return None;
        }
        woken.virtual_time = virtual_time;
        woken.state = State::Queued;
        self.queued.replace_only(Some((key.index(), virtual_time)));
        Some(preempts)
    }

    /// [`Self::pick`] where one vCPU is queued, or, if the current one sleeps, one at most.
    #[inline(always)] // in the way of each decision
    pub fn pick_of_two(&mut self, now: u64, alarm: u64) -> Option<VcpuKey> {
        let (other, first) = self.queued.only()?;
        let current = self.current?;
        let goes_on = self.current_entity()?.state == State::Running;
        let late = goes_on && alarm > now.wrapping_add(self.slice);
        if late || self.capped != 0 || self.floor >= REBASE_AT {
            return None;
        }
        self.picked = now;
        let entity = self.book(now)?;
        let virtual_time = entity.virtual_time;
        if goes_on && virtual_time < first {
            self.floor = self.floor.max(virtual_time);
            return Some(current);
        }
        if goes_on {
            entity.state = State::Queued;
        }
        self.queued.replace_only(goes_on.then_some((current.index(), virtual_time)));
        self.floor = self.floor.max(first.min(virtual_time));
        self.current = Some(VcpuKey::of_index(other));
        self.current_entity()?.state = State::Running;
        self.current
    }

    /// [`Self::wake`] and then [`Self::pick`], where nobody else is queued.
    #[inline(always)] // in the way of each interrupt
    pub fn wake_and_pick(&mut self, key: VcpuKey, now: u64, alarm: u64) -> Option<VcpuKey> {
        let simple = self.queued.is_empty() && self.capped == 0 && self.floor < REBASE_AT;
        let current = self.current?;
        let goes_on = self.current_entity()?.state == State::Running;
        let asleep = self.entities.get(key.index())?.state == State::Asleep;
        if !simple || !goes_on || !asleep || alarm > now.wrapping_add(self.slice) {
            return None;
        }
        let floor = self.floor;
        self.picked = now;
        let entity = self.book(now)?;
        let (virtual_time, margin) = (entity.virtual_time, entity.margin);
        entity.state = State::Queued;
        let woken = self.entities.get_mut(key.index())?;
        woken.book(0);
        woken.virtual_time = woken.virtual_time.max(floor.saturating_sub(woken.credit));
        let first = woken.virtual_time;
        let preempts = first.saturating_add(margin) < virtual_time;
        let (next, queued) = if preempts { (key, (current, virtual_time)) } else { (current, (key, first)) };
        woken.state = State::Queued;
        self.queued.replace_only(Some((queued.0.index(), queued.1)));
        self.floor = floor.max(first.min(virtual_time));
        self.current = Some(next);
        self.current_entity()?.state = State::Running;
        self.current
    }

    /// The current vCPU waits, and one that waited runs in its place, where that is what [`Self::wake`],
    /// [`Self::current_sleeps`] and [`Self::pick`] would come to: nobody else is runnable, neither has a claim to more. What is left of the slice is the
    /// other's, should somebody else come. What is little is booked later.
    #[inline(always)] // in the way of each request and its answer
    pub fn hand_over(&mut self, key: VcpuKey, now: u64) -> Option<VcpuKey> {
        let (since, floor, margin) = (self.since, self.floor, self.margin);
        let next = self.entities.get(key.index())?;
        let behind = next.virtual_time.wrapping_add(next.credit) < floor;
        if !self.queued.is_empty() || self.capped != 0 || next.state != State::Asleep || behind {
            return None;
        }
        let current = self.current_entity()?;
        let ran = now.wrapping_sub(since);
        let owes = ran.wrapping_add(u64::from(current.owes));
        if owes > margin {
            return None;
        }
        current.ran = current.ran.wrapping_add(ran);
        current.owes = owes as u32;
        current.state = State::Asleep;
        (self.current, self.since) = (Some(key), now);
        self.current_entity()?.state = State::Running;
        self.current
    }
}
