//! The registers of one structure of a device: inside its part of the BAR, or not at all.

use crate::caps::Structure;
use runtime::device::Registers;

/// A part of a BAR. Accesses outside it are not made: the device chose its bounds.
#[derive(Debug)]
pub(crate) struct Window {
    bar: Registers,
    start: usize,
    bytes: usize,
}

macro_rules! accessors {
    ($($get:ident $set:ident $read:ident $write:ident $word:ty;)*) => {
        $(
            /// The register at `offset`. Outside the window or unaligned: `None`.
            pub(crate) fn $get(&self, offset: usize) -> Option<$word> {
                Some(self.bar.$read(self.place(offset, size_of::<$word>())?))
            }

            /// Sets the register at `offset`. Outside the window or unaligned: nothing happens, `None`.
            pub(crate) fn $set(&self, offset: usize, value: $word) -> Option<()> {
                self.bar.$write(self.place(offset, size_of::<$word>())?, value);
                Some(())
            }
        )*
    };
}

impl Window {
    /// The part of `bar` that a structure takes. `None`: it is not inside.
    pub(crate) fn new(bar: Registers, structure: Structure) -> Option<Self> {
        let (start, bytes) = (structure.offset as usize, structure.bytes as usize);
        (start.checked_add(bytes)? <= bar.bytes()).then_some(Self { bar, start, bytes })
    }

    /// Where in the BAR `width` bytes at `offset` are, if they are inside and aligned.
    pub(crate) fn place(&self, offset: usize, width: usize) -> Option<usize> {
        let inside = offset.checked_add(width)? <= self.bytes && (self.start + offset).is_multiple_of(width);
        inside.then_some(self.start + offset)
    }

    accessors! {
        get_u8 set_u8 read_u8 write_u8 u8;
        get_u16 set_u16 read_u16 write_u16 u16;
        get_u32 set_u32 read_u32 write_u32 u32;
    }
}
