//! Requests that a front end waits for. Each has a slot and a generation, and both travel in the request's id: a back
//! end that answers twice, or answers what nobody asked, is noticed even after the slot has been used again.

/// At most `N` things in flight.
#[derive(Debug)]
pub struct Slots<T: Copy, const N: usize> {
    slots: [Slot<T>; N],
    free: [u16; N],
    free_count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot<T> {
    generation: u32,
    content: Option<T>,
}

/// A slot and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId {
    /// Below `N`.
    pub index: u16,
    /// Changes with every use of the slot.
    pub generation: u32,
}

impl<T: Copy, const N: usize> Default for Slots<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy, const N: usize> Slots<T, N> {
    /// All free.
    #[must_use]
    pub fn new() -> Self {
        const { assert!(N <= u16::MAX as usize) };
        Self {
            slots: [Slot { generation: 0, content: None }; N],
            free: core::array::from_fn(|index| index as u16),
            free_count: N,
        }
    }

    /// Slots in use.
    #[must_use]
    pub fn used(&self) -> usize {
        N - self.free_count
    }

    /// Slots that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free_count
    }

    /// Takes a slot for `content`; `None` when all are in use.
    pub fn insert(&mut self, content: T) -> Option<SlotId> {
        let last = self.free_count.checked_sub(1)?;
        let index = *self.free.get(last)?;
        let slot = self.slots.get_mut(index as usize)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.content = Some(content);
        self.free_count = last;
        Some(SlotId { index, generation: slot.generation })
    }

    /// What is in a slot. `mask` says which bits of the generation the id carries.
    #[must_use]
    pub fn get(&self, id: SlotId, mask: u32) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation & mask == id.generation & mask { slot.content.as_ref() } else { None }
    }

    /// Whether something is in a slot.
    #[must_use]
    pub fn is_used(&self, index: usize) -> bool {
        self.slots.get(index).is_some_and(|slot| slot.content.is_some())
    }

    /// Empties a slot.
    pub fn remove(&mut self, id: SlotId, mask: u32) -> Option<T> {
        self.get(id, mask)?;
        let content = self.slots.get_mut(id.index as usize)?.content.take()?;
        *self.free.get_mut(self.free_count)? = id.index;
        self.free_count += 1;
        Some(content)
    }

    /// Empties the next used slot, in no order: for what is left when a connection ends.
    pub fn pop(&mut self) -> Option<T> {
        let index = self.slots.iter().position(|slot| slot.content.is_some())?;
        let id = SlotId { index: index as u16, generation: self.slots[index].generation };
        self.remove(id, u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_answer_is_noticed_even_when_the_slot_is_in_use_again() {
        let mut slots = Slots::<u8, 4>::new();
        let first = slots.insert(1).unwrap();
        assert_eq!(slots.remove(first, u32::MAX), Some(1));
        assert_eq!(slots.remove(first, u32::MAX), None);
        let second = slots.insert(2).unwrap();
        assert_eq!(second.index, first.index);
        assert_eq!(slots.remove(first, u32::MAX), None);
        assert_eq!(slots.remove(second, u32::MAX), Some(2));
    }

    #[test]
    fn slots_run_out_and_come_back() {
        let mut slots = Slots::<u8, 4>::new();
        for content in 0..4 {
            assert!(slots.insert(content).is_some());
        }
        assert!(slots.insert(9).is_none());
        for _ in 0..4 {
            assert!(slots.pop().is_some());
        }
        assert!(slots.pop().is_none());
        assert_eq!(slots.free(), 4);
    }
}
