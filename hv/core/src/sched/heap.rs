//! A binary heap of numbered items, smallest value first, in which any item can be found, moved and removed.

const NOWHERE: u16 = u16::MAX;

/// Items `0..N` with a value each; `N` at most 65535.
#[derive(Debug)]
pub struct IndexedHeap<const N: usize> {
    /// Items in heap order; the first `len` count.
    order: [u16; N],
    /// Where each item is in `order`.
    position: [u16; N],
    value: [u64; N],
    len: usize,
}

impl<const N: usize> Default for IndexedHeap<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> IndexedHeap<N> {
    /// No items.
    pub const fn new() -> Self {
        Self { order: [NOWHERE; N], position: [NOWHERE; N], value: [0; N], len: 0 }
    }

    /// Items in the heap.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The item of the smallest value.
    #[inline]
    pub fn peek(&self) -> Option<(usize, u64)> {
        if self.len == 0 {
            return None;
        }
        let item = usize::from(*self.order.first()?);
        Some((item, self.value_of(item)))
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
        self.position.get(item).is_some_and(|&position| position != NOWHERE)
    }

    /// Puts an item in, or changes its value.
    pub fn set(&mut self, item: usize, value: u64) {
        let Some(slot) = self.value.get_mut(item) else { return };
        *slot = value;
        let at = match self.position.get(item) {
            Some(&NOWHERE) => {
                let end = self.len;
                self.len = end.wrapping_add(1);
                self.place(item as u16, end);
                end
            }
            Some(&position) => usize::from(position),
            None => return,
        };
        self.sift_up(at);
        let at = self.position.get(item).map_or(at, |&position| usize::from(position));
        self.sift_down(at);
    }

    /// Takes an item out, if it is in.
    pub fn remove(&mut self, item: usize) {
        let Some(&position) = self.position.get(item) else {
            return;
        };
        if position == NOWHERE {
            return;
        }
        let at = usize::from(position);
        self.len = self.len.wrapping_sub(1);
        let last = self.item_at(self.len);
        if let Some(slot) = self.position.get_mut(item) {
            *slot = NOWHERE;
        }
        if usize::from(last) != item {
            self.place(last, at);
            self.sift_up(at);
            let at = self.position.get(usize::from(last)).map_or(at, |&position| usize::from(position));
            self.sift_down(at);
        }
    }

    #[inline]
    fn value_of(&self, item: usize) -> u64 {
        self.value.get(item).copied().unwrap_or(u64::MAX)
    }

    #[inline]
    fn item_at(&self, at: usize) -> u16 {
        self.order.get(at).copied().unwrap_or(NOWHERE)
    }

    /// The value at a place in heap order; beyond the end, larger than all.
    #[inline]
    fn value_at(&self, at: usize) -> u64 {
        self.value_of(usize::from(self.item_at(at)))
    }

    #[inline]
    fn place(&mut self, item: u16, at: usize) {
        if let (Some(slot), Some(position)) = (self.order.get_mut(at), self.position.get_mut(usize::from(item))) {
            *slot = item;
            *position = at as u16;
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        let (first, second) = (self.item_at(one), self.item_at(other));
        self.place(first, other);
        self.place(second, one);
    }

    fn sift_up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = at.wrapping_sub(1) / 2;
            if self.value_at(parent) <= self.value_at(at) {
                return;
            }
            self.swap(parent, at);
            at = parent;
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let left = at.wrapping_mul(2).wrapping_add(1);
            let right = left.wrapping_add(1);
            if left >= self.len {
                return;
            }
            let right_is_less = right < self.len && self.value_at(right) < self.value_at(left);
            let least = if right_is_less { right } else { left };
            if self.value_at(at) <= self.value_at(least) {
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }
}
