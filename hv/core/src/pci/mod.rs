//! PCI without the hardware: names, address ranges, isolation groups and what a driver domain may write.
//!
//! `hv` reads configuration space; the decisions that isolation rests on are made here, where a host test can reach
//! them. Source: PCI Local Bus 3.0 chapter 6, PCI Express Base 5.0 chapters 6.12 (ACS) and 7.

pub mod bar;
pub mod config;
pub mod faults;
pub mod group;

pub use crate::ids::Bdf;

use core::fmt;

impl Bdf {
    /// The function at `bus:device.function`; device above 31 and function above 7 are cut off.
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | ((device & 31) as u16) << 3 | (function & 7) as u16)
    }

    /// From `bus << 8 | device << 3 | function` as `platform_op` has it; `None` when other bits are set.
    pub fn from_abi(raw: u32) -> Option<Self> {
        u16::try_from(raw).ok().map(Self)
    }

    /// Device and function in one byte, the index into a VT-d context table.
    pub const fn devfn(self) -> u8 {
        self.0 as u8
    }

    /// Whether both are functions of one device.
    pub const fn same_device(self, other: Self) -> bool {
        self.0 >> 3 == other.0 >> 3
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.devfn() >> 3, self.devfn() & 7)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn bdf_has_the_parts_that_it_was_made_of() {
        let bdf = Bdf::new(0x3a, 0x1f, 6);
        assert_eq!((bdf.bus(), bdf.devfn()), (0x3a, 0xfe));
        assert_eq!(bdf.to_string(), "3a:1f.6");
        assert_eq!(Bdf::from_abi(u32::from(bdf.0)), Some(bdf));
    }

    #[test]
    fn bdf_outside_segment_0_is_refused() {
        assert_eq!(Bdf::from_abi(0x1_0000), None);
        assert_eq!(Bdf::from_abi(u32::MAX), None);
    }
}
