//! One word of the frame table: `state` in bits 28-31; then either owner slot (16-23) and pins (0-15, so that plus one is one pin more), or, for a free
//! frame, the next free frame's number (0-27).

use crate::ids::Slot;

/// Pins a frame can have.
pub(super) const PINS_MAX: u32 = 0xffff;
/// Frames that the free list can link: 1 TiB of memory; also the end mark of the list.
pub(super) const NEXT_MAX: u32 = 0x0fff_ffff;

const STATE_SHIFT: u32 = 28;
const SLOT_SHIFT: u32 = 16;

/// What a frame is. The legal ways are Reserved -> Free or Hypervisor at boot, Free -> Private, Shared, Table or
/// Hypervisor by allocation, Private -> Leaving or Free, and all but Reserved -> Free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not usable memory, or not told of.
    Reserved,
    /// On the free list.
    Free,
    /// Memory of a domain.
    Private,
    /// Shared info or grant table page of a domain.
    Shared,
    /// Page table.
    Table,
    /// The hypervisor's own.
    Hypervisor,
    /// Its owner let go of it; pins keep it from the free list.
    Leaving,
    /// Between two states, in the hands of the frame table itself.
    Limbo,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Entry(pub u32);

impl Entry {
    pub const RESERVED: Entry = Entry::new(State::Reserved, Slot(0), 0);
    pub const LIMBO: Entry = Entry::new(State::Limbo, Slot(0), 0);

    pub const fn new(state: State, slot: Slot, pins: u32) -> Self {
        Self((state as u32) << STATE_SHIFT | (slot.0 as u32) << SLOT_SHIFT | (pins & PINS_MAX))
    }

    pub const fn free(next: u32) -> Self {
        Self((State::Free as u32) << STATE_SHIFT | (next & NEXT_MAX))
    }

    /// Whether it is in this state.
    pub const fn is(self, state: State) -> bool {
        self.0 >> STATE_SHIFT == state as u32
    }

    /// Whether it is a domain's own memory and has not all the pins that it can. One comparison: state, owner and pins
    /// are one number.
    pub const fn can_be_pinned(self, slot: Slot) -> bool {
        self.0.wrapping_sub(Entry::new(State::Private, slot, 0).0) < PINS_MAX
    }

    /// Whether it is a domain's own memory. One comparison: state and owner are side by side.
    pub const fn is_private_to(self, slot: Slot) -> bool {
        self.0 >> SLOT_SHIFT == Entry::new(State::Private, slot, 0).0 >> SLOT_SHIFT
    }

    pub const fn pins(self) -> u32 {
        self.0 & PINS_MAX
    }

    pub const fn next(self) -> u32 {
        self.0 & NEXT_MAX
    }
}
