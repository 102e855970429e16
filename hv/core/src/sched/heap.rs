//! A binary heap of numbered items, smallest value first, in which any item can be found, moved and removed.

const NOWHERE: u16 = u16::MAX;
/// A value and its item.
type Entry = (u64, u16);
const NONE: Entry = (0, NOWHERE);

/// Items `0..N` with a value each; `N` at most 65535.
pub struct IndexedHeap<const N: usize> {
    /// The smallest, apart from the others: what is alone, or comes and goes as the first, costs no walk.
    first: Entry,
    /// The others, in heap order.
    rest: heapless::Vec<Entry, N>,
    /// Where each item but the first is in `rest`, or [`NOWHERE`].
    position: [u16; N],
}

impl<const N: usize> IndexedHeap<N> {
    /// No items.
    pub const fn new() -> Self {
        Self { first: NONE, rest: heapless::Vec::new(), position: [NOWHERE; N] }
    }

    /// The item of the smallest value.
    pub fn peek(&self) -> Option<(usize, u64)> {
        (self.first.1 != NOWHERE).then_some((usize::from(self.first.1), self.first.0))
    }

    /// The item and its value, if there is only one.
    #[inline(always)]
    pub fn only(&self) -> Option<(usize, u64)> {
        self.peek().filter(|_| self.rest.is_empty())
    }

    /// Puts another item, or none, in the place of the only one.
    #[inline(always)]
    pub fn replace_only(&mut self, other: Option<(usize, u64)>) {
        self.first = other.map_or(NONE, |(item, value)| (value, item as u16));
    }

    /// Takes the item of the smallest value out.
    pub fn pop(&mut self) -> Option<(usize, u64)> {
        let first = self.peek()?;
        self.refill();
        Some(first)
    }

    /// Whether an item is in the heap.
    pub fn contains(&self, item: usize) -> bool {
        usize::from(self.first.1) == item || self.position_of(item) != NOWHERE
    }

    /// Puts an item in, or changes its value. Items that cannot be are ignored.
    pub fn set(&mut self, item: usize, value: u64) {
        if item < N {
            self.remove(item);
            self.insert(item, value);
        }
    }

    /// Puts an item in that is not there.
    pub fn insert(&mut self, item: usize, value: u64) {
        let entry = (value, item as u16);
        if self.first.1 == NOWHERE {
            self.first = entry;
        } else {
            let earlier = value < self.first.0;
            let later = if earlier { core::mem::replace(&mut self.first, entry) } else { entry };
            self.push(later);
        }
    }

    /// Takes an item out, if it is in.
    pub fn remove(&mut self, item: usize) {
        if usize::from(self.first.1) == item {
            self.refill();
        } else if self.position_of(item) != NOWHERE {
            let _taken = self.take(usize::from(self.position_of(item)));
        }
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.first.1 == NOWHERE
    }

    fn position_of(&self, item: usize) -> u16 {
        self.position.get(item).copied().unwrap_or(NOWHERE)
    }

    fn note(&mut self, item: u16, at: u16) {
        if let Some(position) = self.position.get_mut(usize::from(item)) {
            *position = at;
        }
    }

    /// Makes the smallest of the others the first, whose place is vacant.
    fn refill(&mut self) {
        self.first = if self.rest.is_empty() { NONE } else { self.take(0) };
    }

    #[inline(never)]
    fn push(&mut self, entry: Entry) {
        let at = self.rest.len();
        // Never full: there is room for each item, and this one was not in.
        let _never_full = self.rest.push(entry);
        self.place(entry, at);
        self.settle(at);
    }

    /// Takes one of the others out.
    #[inline(never)]
    fn take(&mut self, at: usize) -> Entry {
        let taken = self.rest.get(at).copied().unwrap_or(NONE);
        if let Some(last) = self.rest.pop() {
            self.place(last, at);
            self.settle(at);
        }
        self.note(taken.1, NOWHERE);
        taken
    }

    /// The value at a place in heap order; beyond the end, as large as any.
    fn value_at(&self, at: usize) -> u64 {
        self.rest.get(at).map_or(u64::MAX, |&(value, _)| value)
    }

    fn place(&mut self, entry: Entry, at: usize) {
        if let Some(slot) = self.rest.get_mut(at) {
            *slot = entry;
            self.note(entry.1, at as u16);
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        if let (Some(&first), Some(&second)) = (self.rest.get(one), self.rest.get(other)) {
            self.place(first, other);
            self.place(second, one);
        }
    }

    /// Moves what is at a place up or down to where it belongs.
    fn settle(&mut self, mut at: usize) {
        while at > 0 && self.value_at(at) < self.value_at(at.wrapping_sub(1) / 2) {
            let parent = at.wrapping_sub(1) / 2;
            self.swap(at, parent);
            at = parent;
        }
        loop {
            let left = at.wrapping_mul(2).wrapping_add(1);
            let right = left.wrapping_add(1);
            let least = if self.value_at(right) < self.value_at(left) { right } else { left };
            if self.value_at(at) <= self.value_at(least) {
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }
}
