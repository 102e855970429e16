//! Base address registers: decoded once at boot, then only ever read from here.
//!
//! A device's owner cannot move a BAR (configuration writes to it are refused), and nothing in `hv` reads one again
//! after boot, so what is mapped is what was checked.

use core::ops::Range;
pub use pci_types::MAX_BARS as BARS;

/// Bytes in a page.
const PAGE: u64 = 4096;

/// A base address register that decodes memory, as the firmware left it. Those that decode I/O ports are not kept: no
/// domain reaches them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// First address; not 0.
    pub base: u64,
    /// Bytes, a power of two.
    pub bytes: u64,
}

/// The memory BARs of a function by register; a 64-bit one is at its lower half.
pub type Bars = [Option<Bar>; BARS];

/// Decodes BARs. `sized` has each register as it was, and as it read after all ones were written (PCI 3.0, 6.2.5.1).
pub fn decode(sized: &[(u32, u32)]) -> Bars {
    const KIND: u32 = 0b111;
    const PORTS: u32 = 0b001;
    const MEMORY_64_BIT: u32 = 0b100;
    let mut bars = [None; BARS];
    let mut slots = bars.iter_mut().zip(sized);
    while let Some((bar, &(original, ones))) = slots.next() {
        // The last register has no upper half.
        let upper = if original & KIND == MEMORY_64_BIT { slots.next().map(|(_, upper)| *upper) } else { None };
        *bar = if original & PORTS == 0 { memory(original, ones, upper) } else { None };
    }
    bars
}

/// The BAR, or `None` when it is not implemented, has no address, or does not make sense.
fn memory(original: u32, ones: u32, upper: Option<(u32, u32)>) -> Option<Bar> {
    const FLAGS: u32 = 0xf;
    if ones & !FLAGS == 0 && upper.is_none() {
        return None;
    }
    let (upper, upper_ones) = upper.unwrap_or((0, !0));
    let base = u64::from(upper) << 32 | u64::from(original & !FLAGS);
    let size_mask = u64::from(upper_ones) << 32 | u64::from(ones & !FLAGS);
    let bytes = (!size_mask).checked_add(1)?;
    let sound = size_mask != 0 && bytes.is_power_of_two() && base.checked_add(bytes).is_some();
    (sound && base != 0).then_some(Bar { base, bytes })
}

/// Numbers of machine pages.
pub type PageRange = Range<u64>;

/// The pages that `bytes` bytes from `base` touch, as far as there are addresses.
pub fn touching(base: u64, bytes: u64) -> PageRange {
    base / PAGE..base.saturating_add(bytes).div_ceil(PAGE)
}

/// Whether a page is in both.
pub fn overlap(one: &PageRange, other: &PageRange) -> bool {
    one.start < other.end && other.start < one.end
}

impl Bar {
    /// The pages that it touches.
    pub fn pages(&self) -> PageRange {
        touching(self.base, self.bytes)
    }

    /// Page tables that mapping it takes at most, wherever it is mapped.
    pub fn tables(&self) -> u64 {
        let Range { start, end } = self.pages();
        let pages = end.saturating_sub(start);
        [1 << 9, 1 << 18, 1 << 27].iter().map(|reach| pages.div_ceil(*reach).saturating_add(1)).sum()
    }
}

/// The machine address of `bytes` bytes at `offset` in BAR number `bar`, if they lie wholly inside it.
pub fn inside(bars: &Bars, bar: u8, offset: u32, bytes: u32) -> Option<u64> {
    let bar = (*bars.get(usize::from(bar))?)?;
    let end = u64::from(offset).checked_add(u64::from(bytes))?;
    bar.base.checked_add(u64::from(offset)).filter(|_| end <= bar.bytes)
}

/// Whether a BAR touches a page of `taken`.
pub fn overlaps(bars: &Bars, taken: &PageRange) -> bool {
    bars.iter().flatten().any(|bar| overlap(&bar.pages(), taken))
}

/// Whether BARs of two functions touch the same page.
pub fn share_a_page(one: &Bars, other: &Bars) -> bool {
    other.iter().flatten().any(|bar| overlaps(one, &bar.pages()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn memory(base: u64, bytes: u64) -> Option<Bar> {
        Some(Bar { base, bytes })
    }

    /// The first BAR of a function that has these registers.
    fn first(sized: &[(u32, u32)]) -> Option<Bar> {
        decode(sized)[0]
    }

    #[test]
    fn memory_bars_are_sized_by_their_zero_bits() {
        assert_eq!(first(&[(0xfe00_0000, 0xfff0_0000)]), memory(0xfe00_0000, 1 << 20));
        assert_eq!(first(&[(0x0000_000c, 0x0000_000c), (0x8, 0xffff_fff8)]), memory(8 << 32, 8 << 32));
        assert_eq!(first(&[(0xfebf_c004, 0xffff_c004), (0, 0xffff_ffff)]), memory(0xfebf_c000, 0x4000));
    }

    #[test]
    fn port_bars_are_not_kept() {
        for ones in [0xffe1, 0xffff_ffe1] {
            let bars = decode(&[(0xc041, ones), (0xfe00_0000, 0xfff0_0000)]);
            assert_eq!(bars[..3], [None, memory(0xfe00_0000, 1 << 20), None]);
        }
    }

    #[test]
    fn bars_that_are_not_there_or_mad_decode_to_nothing() {
        assert_eq!(first(&[(0, 0)]), None);
        assert_eq!(first(&[(1, 1)]), None);
        assert_eq!(first(&[(4, 4), (0, 0)]), None);
        // Firmware gave it no address.
        assert_eq!(first(&[(0, 0xfff0_0000)]), None);
        // Size bits with a gap are no power of two.
        assert_eq!(first(&[(0x1000_0000, 0xf0f0_0000)]), None);
        // All of the address space.
        assert_eq!(first(&[(0xffff_fff4, 0xffff_fff4), (!0, !0)]), None);
    }

    #[test]
    fn an_upper_half_is_no_bar_and_the_last_register_has_none() {
        let mut sized = [(0, 0); BARS];
        sized[4] = (0xfe00_000c, 0xfff0_000c);
        sized[5] = (0x1000, 0xffff_f000);
        assert_eq!(decode(&sized)[4..], [None, None], "bits of its size are missing between the halves");
        sized[5] = (0, !0);
        assert_eq!(decode(&sized)[4..], [memory(0xfe00_0000, 1 << 20), None]);
        sized[4] = (0, 0);
        sized[5] = (0xfe00_0004, 0xfff0_0004);
        assert_eq!(decode(&sized)[4..], [None, memory(0xfe00_0000, 1 << 20)]);
    }

    #[test]
    fn small_bars_in_one_page_share_it() {
        let mut one = [None; BARS];
        let mut other = [None; BARS];
        one[0] = memory(0xfebf_1000, 256);
        other[5] = memory(0xfebf_1100, 256);
        assert!(share_a_page(&one, &other));
        other[5] = memory(0xfebf_2000, 256);
        assert!(!share_a_page(&one, &other));
    }

    #[test]
    fn a_bar_over_memory_or_registers_of_others_is_seen() {
        let mut bars = [None; BARS];
        bars[2] = memory(0x3fff_f000, 0x1000);
        bars[4] = memory(0xfebf_0000, 0x10_0000);
        let taken = |base, bytes| overlaps(&bars, &touching(base, bytes));
        assert!(taken(0x10_0000, 0x4000_0000 - 0x10_0000), "RAM up to 1 GiB");
        assert!(!taken(0x4000_0000, 0x1000));
        assert!(taken(0xfec0_0000, 0x20), "an I/O APIC in the middle");
        assert!(!taken(0xfecf_0000, 0x1000));
        assert!(taken(0xfebe_ffff, 2), "one byte of its first page");
    }

    #[test]
    fn page_tables_for_a_bar_are_enough_for_any_place() {
        let tables = |bytes| memory(0, bytes).unwrap().tables();
        assert_eq!(tables(0x1000), 2 + 2 + 2);
        assert_eq!(tables(2 << 20), 2 + 2 + 2);
        assert_eq!(tables(16 << 30), 8193 + 17 + 2);
    }

    #[test]
    fn a_table_that_sticks_out_of_its_bar_is_nowhere() {
        let mut bars = [None; BARS];
        bars[1] = memory(0x1000, 0x1000);
        let table = |bar, offset, bytes| inside(&bars, bar, offset, bytes);
        assert_eq!(table(1, 0x800, 0x800), Some(0x1800));
        assert_eq!(table(1, 0x800, 0x801), None);
        assert_eq!(table(1, u32::MAX, 16), None);
        assert_eq!(table(0, 0, 16), None);
        assert_eq!(table(7, 0, 16), None);
    }

    proptest! {
        #[test]
        fn decode_never_panics_and_never_overflows(sized: [(u32, u32); BARS]) {
            for bar in decode(&sized).iter().flatten() {
                prop_assert!(bar.bytes.is_power_of_two());
                prop_assert!(bar.base.checked_add(bar.bytes).is_some());
                let _ = bar.pages();
            }
        }
    }
}
