//! A binary heap of numbered items, smallest value first, in which any item can be found, moved and removed.

const NOWHERE: u16 = u16::MAX;

/// Items `0..N` with a value each; `N` at most 65535.
#[derive(Debug)]
pub struct IndexedHeap<const N: usize> {
    /// Values with their items, in heap order.
    order: heapless::Vec<(u64, u16), N>,
    /// Where each item is in `order`.
    position: [u16; N],
}

impl<const N: usize> IndexedHeap<N> {
    /// No items.
    pub const fn new() -> Self {
        Self { order: heapless::Vec::new(), position: [NOWHERE; N] }
    }

    /// The item of the smallest value.
    #[inline]
    pub fn peek(&self) -> Option<(usize, u64)> {
        self.order.first().map(|&(value, item)| (usize::from(item), value))
    }

    /// Takes the item of the smallest value out.
    pub fn pop(&mut self) -> Option<(usize, u64)> {
        let first = self.peek()?;
        self.remove(first.0);
        Some(first)
    }

    /// Whether an item is in the heap.
    #[inline]
    pub fn contains(&self, item: usize) -> bool {
        self.position_of(item).is_some()
    }

    /// Puts an item in, or changes its value. Items that cannot be are ignored.
    pub fn set(&mut self, item: usize, value: u64) {
        if item >= N {
            return;
        }
        let at = self.position_of(item).unwrap_or(self.order.len());
        if at == self.order.len() {
            // Never full: there is room for each item, and this one was not in.
            let _never_full = self.order.push((value, item as u16));
        }
        self.place((value, item as u16), at);
        self.settle(at);
    }

    /// Takes an item out, if it is in.
    pub fn remove(&mut self, item: usize) {
        let Some(at) = self.position_of(item) else { return };
        let Some(last) = self.order.pop() else { return };
        self.place(last, at);
        if let Some(position) = self.position.get_mut(item) {
            *position = NOWHERE;
        }
        self.settle(at);
    }

    #[inline]
    fn position_of(&self, item: usize) -> Option<usize> {
        self.position.get(item).filter(|&&position| position != NOWHERE).map(|&position| usize::from(position))
    }

    /// The value at a place in heap order; beyond the end, as large as any.
    #[inline]
    fn value_at(&self, at: usize) -> u64 {
        self.order.get(at).map_or(u64::MAX, |&(value, _)| value)
    }

    #[inline]
    fn place(&mut self, entry: (u64, u16), at: usize) {
        if let (Some(slot), Some(position)) = (self.order.get_mut(at), self.position.get_mut(usize::from(entry.1))) {
            *slot = entry;
            *position = at as u16;
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        if let (Some(&first), Some(&second)) = (self.order.get(one), self.order.get(other)) {
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
