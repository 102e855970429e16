//! The decisions that are nearly all of them, in few steps: at most two vCPUs are runnable, and none has a cap.
//!
//! Each comes to what its counterpart in the parent module would come to, or answers `None` and has done nothing: then
//! that one is called. Virtual times, the floor and who is charged for what are the same in both.

use super::{REBASE_AT, RunQueue, State, VcpuKey};

impl RunQueue {
    /// [`Self::pick`] where one vCPU is queued. `alarm` is when the next decision comes in any case.
    #[inline(always)] // in the way of each decision
    pub fn pick_of_two(&mut self, now: u64, alarm: u64) -> Option<VcpuKey> {
        let (other, first) = self.queued.only()?;
        let current = self.current?;
        let goes_on = self.current_entity()?.state == State::Running;
        let late = goes_on && alarm > now.wrapping_add(self.slice);
        if late || self.caps || self.floor >= REBASE_AT {
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

    /// [`Self::wake`] and then [`Self::pick`], where the current vCPU could go on and nobody else is queued. `alarm` as in
    /// [`Self::pick_of_two`].
    #[inline(always)] // in the way of each interrupt and event
    pub fn wake_and_pick(&mut self, key: VcpuKey, now: u64, alarm: u64) -> Option<VcpuKey> {
        let simple = self.queued.is_empty() && !self.caps && self.floor < REBASE_AT;
        let late = alarm > self.picked.wrapping_add(self.slice);
        if !simple || late || self.entities.get(key.index())?.state != State::Asleep {
            return None;
        }
        let current = self.current?;
        if self.current_entity()?.state != State::Running {
            return None;
        }
        let running = self.book(now)?;
        let (virtual_time, margin) = (running.virtual_time, running.margin);
        let floor = self.floor.max(virtual_time);
        self.floor = floor;
        let woken = self.entities.get_mut(key.index())?;
        if woken.owes != 0 {
            woken.book(0);
        }
        let first = woken.virtual_time.max(floor.saturating_sub(woken.credit));
        woken.virtual_time = first;
        if first.saturating_add(margin) >= virtual_time {
            woken.state = State::Queued;
            self.queued.replace_only(Some((key.index(), first)));
            return Some(current);
        }
        woken.state = State::Running;
        self.current_entity()?.state = State::Queued;
        self.queued.replace_only(Some((current.index(), virtual_time)));
        (self.current, self.picked) = (Some(key), now);
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
        if !self.queued.is_empty() || self.caps || next.state != State::Asleep || behind {
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
