//! Base address registers: decoded once at boot, then only ever read from here.
//!
//! A device's owner cannot move a BAR (configuration writes to it are refused), and nothing in `hv` reads one again
//! after boot, so what is mapped is what was checked.

/// Bytes in a page.
const PAGE: u64 = 4096;

/// BARs of a function with a type 0 header.
pub const BARS: usize = 6;

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Memory, 32- or 64-bit.
    Memory,
    /// I/O ports. Never mapped into a domain.
    Ports,
}

/// One base address register as the firmware left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// What it decodes.
    pub kind: BarKind,
    /// First address or port.
    pub base: u64,
    /// Bytes, a power of two.
    pub bytes: u64,
}

/// What a BAR register says when all ones were written to it (PCI 3.0, 6.2.5.1).
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The register before.
    pub original: u32,
    /// The register after all ones were written.
    pub ones: u32,
    /// The next register, before and after, for a 64-bit BAR.
    pub upper: Option<(u32, u32)>,
}

/// Whether a BAR register says that the next one is its upper half. `slot` 5 has none.
pub fn is_64_bit(register: u32, slot: usize) -> bool {
    register & 0b111 == 0b100 && slot + 1 < BARS
}

impl Probe {
    /// The BAR, or `None` when it is not implemented or does not make sense.
    pub fn decode(self) -> Option<Bar> {
        // The upper half of an I/O BAR may be hard-wired to zero.
        let (kind, flags, hard_wired) =
            if self.original & 1 != 0 { (BarKind::Ports, 0b11, 0xffff_0000) } else { (BarKind::Memory, 0xf, 0) };
        if self.ones & !flags == 0 && self.upper.is_none() {
            return None;
        }
        let (upper, upper_ones) = self.upper.unwrap_or((0, !0));
        let base = u64::from(upper) << 32 | u64::from(self.original & !flags);
        let size_mask = u64::from(upper_ones) << 32 | u64::from(self.ones & !flags | hard_wired);
        let bytes = (!size_mask).checked_add(1)?;
        let sound = size_mask != 0 && bytes.is_power_of_two() && base.checked_add(bytes).is_some();
        sound.then_some(Bar { kind, base, bytes })
    }
}

/// A half-open range of machine pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// First page number.
    pub first: u64,
    /// One past the last.
    pub end: u64,
}

impl PageRange {
    /// The pages that `bytes` bytes from `base` touch. `None` when that runs past the end of the address space.
    pub fn touching(base: u64, bytes: u64) -> Option<Self> {
        Some(Self { first: base / PAGE, end: base.checked_add(bytes)?.div_ceil(PAGE) })
    }

    /// Whether a page is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first < other.end && other.first < self.end
    }

    /// Whether the page is in the range.
    pub fn contains(self, page: u64) -> bool {
        (self.first..self.end).contains(&page)
    }
}

impl Bar {
    /// The pages that a memory BAR touches.
    pub fn pages(&self) -> Option<PageRange> {
        (self.kind == BarKind::Memory).then(|| PageRange::touching(self.base, self.bytes)).flatten()
    }

    /// Page tables that mapping it takes at most, wherever it is mapped.
    pub fn tables(&self) -> u64 {
        let pages = self.pages().map_or(0, |pages| pages.end.saturating_sub(pages.first));
        [1 << 9, 1 << 18, 1 << 27].iter().map(|reach| pages.div_ceil(*reach).saturating_add(1)).sum()
    }
}

/// A table inside a BAR: the MSI-X vector table or its pending bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// BAR number.
    pub bar: u8,
    /// Byte offset in the BAR.
    pub offset: u32,
    /// Bytes.
    pub bytes: u32,
}

impl Inside {
    /// The machine pages it touches, if it lies wholly inside its BAR.
    pub fn pages(&self, bars: &[Option<Bar>; BARS]) -> Option<PageRange> {
        let bar = (*bars.get(usize::from(self.bar))?)?;
        let end = u64::from(self.offset).checked_add(u64::from(self.bytes))?;
        if bar.kind != BarKind::Memory || end > bar.bytes {
            return None;
        }
        PageRange::touching(bar.base.checked_add(u64::from(self.offset))?, u64::from(self.bytes))
    }
}

/// Whether a memory BAR touches a page of `taken`.
pub fn overlaps(bars: &[Option<Bar>; BARS], taken: PageRange) -> bool {
    bars.iter().flatten().filter_map(Bar::pages).any(|pages| pages.overlaps(taken))
}

/// Whether memory BARs of two functions touch the same page.
pub fn share_a_page(one: &[Option<Bar>; BARS], other: &[Option<Bar>; BARS]) -> bool {
    other.iter().flatten().filter_map(Bar::pages).any(|taken| overlaps(one, taken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn memory(base: u64, bytes: u64) -> Option<Bar> {
        Some(Bar { kind: BarKind::Memory, base, bytes })
    }

    #[test]
    fn memory_bars_are_sized_by_their_zero_bits() {
        let bar = Probe { original: 0xfe00_0000, ones: 0xfff0_0000, upper: None }.decode();
        assert_eq!(bar, memory(0xfe00_0000, 1 << 20));
        let bar = Probe { original: 0x0000_000c, ones: 0x0000_000c, upper: Some((0x8, 0xffff_fff8)) }.decode();
        assert_eq!(bar, memory(8 << 32, 8 << 32));
        let bar = Probe { original: 0xfebf_c004, ones: 0xffff_c004, upper: Some((0, 0xffff_ffff)) }.decode();
        assert_eq!(bar, memory(0xfebf_c000, 0x4000));
    }

    #[test]
    fn port_bars_are_sized_with_16_or_32_bits() {
        for ones in [0xffe1, 0xffff_ffe1] {
            let bar = Probe { original: 0xc041, ones, upper: None }.decode();
            assert_eq!(bar, Some(Bar { kind: BarKind::Ports, base: 0xc040, bytes: 32 }));
        }
    }

    #[test]
    fn bars_that_are_not_there_or_mad_decode_to_nothing() {
        assert_eq!(Probe { original: 0, ones: 0, upper: None }.decode(), None);
        assert_eq!(Probe { original: 1, ones: 1, upper: None }.decode(), None);
        assert_eq!(Probe { original: 4, ones: 4, upper: Some((0, 0)) }.decode(), None);
        // Size bits with a gap are no power of two.
        assert_eq!(Probe { original: 0, ones: 0xf0f0_0000, upper: None }.decode(), None);
        // All of the address space.
        assert_eq!(Probe { original: 0xffff_fff4, ones: 0xffff_fff4, upper: Some((!0, !0)) }.decode(), None);
    }

    #[test]
    fn the_last_register_is_never_64_bit() {
        assert!(is_64_bit(0b1100, 4));
        assert!(!is_64_bit(0b0100, 5));
        assert!(!is_64_bit(0b0001, 0));
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
        other[4] = Some(Bar { kind: BarKind::Ports, base: 0xfebf_1000, bytes: 4 });
        assert!(!share_a_page(&one, &other));
    }

    #[test]
    fn a_bar_over_memory_or_registers_of_others_is_seen() {
        let mut bars = [None; BARS];
        bars[2] = memory(0x3fff_f000, 0x1000);
        bars[4] = memory(0xfebf_0000, 0x10_0000);
        let taken = |base, bytes| overlaps(&bars, PageRange::touching(base, bytes).unwrap());
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
        assert_eq!(Bar { kind: BarKind::Ports, base: 0xc000, bytes: 64 }.tables(), 3);
    }

    #[test]
    fn a_table_that_sticks_out_of_its_bar_is_nowhere() {
        let mut bars = [None; BARS];
        bars[1] = memory(0x1000, 0x1000);
        let table = |bar, offset, bytes| Inside { bar, offset, bytes }.pages(&bars);
        assert_eq!(table(1, 0x800, 0x800), Some(PageRange { first: 1, end: 2 }));
        assert_eq!(table(1, 0x800, 0x801), None);
        assert_eq!(table(1, u32::MAX, 16), None);
        assert_eq!(table(0, 0, 16), None);
        assert_eq!(table(7, 0, 16), None);
    }

    proptest! {
        #[test]
        fn decode_never_panics_and_never_overflows(original: u32, ones: u32, upper: Option<(u32, u32)>) {
            if let Some(bar) = (Probe { original, ones, upper }).decode() {
                prop_assert!(bar.bytes.is_power_of_two());
                prop_assert!(bar.base.checked_add(bar.bytes).is_some());
                let _ = bar.pages();
            }
        }
    }
}
