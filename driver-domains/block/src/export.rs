//! An export: the part of a disk that one virtual disk shows.

use core::fmt;

/// A run of 512-byte sectors of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First sector on the disk.
    pub first: u64,
    /// Sectors.
    pub count: u64,
}

/// A request that leaves its export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastTheEnd;

impl Extent {
    /// The disk's sectors for `count` sectors from `sector` of the export.
    pub fn part(&self, sector: u64, count: u64) -> Result<Extent, PastTheEnd> {
        let end = sector.checked_add(count).filter(|&end| end <= self.count).ok_or(PastTheEnd)?;
        let first = self.first.checked_add(sector).ok_or(PastTheEnd)?;
        self.first.checked_add(end).ok_or(PastTheEnd)?;
        Ok(Extent { first, count })
    }

    /// The first `most` sectors at most, and what is left behind them.
    pub fn split(&self, most: u64) -> (Extent, Option<Extent>) {
        let count = self.count.min(most.max(1));
        let left = self.count - count;
        let rest = Extent { first: self.first.saturating_add(count), count: left };
        (Extent { first: self.first, count }, (left != 0).then_some(rest))
    }

    /// Bytes from its start to where the disk's first unit of `granularity` bytes begins in it (`discard-alignment`).
    pub fn offset_of_unit(&self, granularity: u64) -> u64 {
        let start = self.first.wrapping_mul(512) % granularity.max(1);
        if start == 0 { 0 } else { granularity - start }
    }
}

/// Which part of a disk the policy exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The GPT partition of this number, from 1.
    Partition(u32),
}

/// Text that names no part of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPart;

impl fmt::Display for BadPart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("`partition` is neither a number from 1 up nor \"whole\"")
    }
}

impl Part {
    /// Reads the policy's `partition` parameter; 0 and nothing mean the whole disk too.
    pub fn parse(text: &str) -> Result<Self, BadPart> {
        match text.trim() {
            "" | "0" | "whole" => Ok(Self::Whole),
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                number.parse().ok().filter(|&number| number != 0).map(Self::Partition).ok_or(BadPart)
            }
            _ => Err(BadPart),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXPORT: Extent = Extent { first: 2048, count: 100 };

    #[test]
    fn a_request_inside_is_moved_to_its_place_on_the_disk() {
        assert_eq!(EXPORT.part(0, 100), Ok(EXPORT));
        assert_eq!(EXPORT.part(99, 1), Ok(Extent { first: 2147, count: 1 }));
        assert_eq!(EXPORT.part(100, 0), Ok(Extent { first: 2148, count: 0 }));
    }

    #[test]
    fn an_extent_is_cut_into_pieces_that_make_it_up() {
        let (piece, rest) = EXPORT.split(64);
        assert_eq!((piece, rest), (Extent { first: 2048, count: 64 }, Some(Extent { first: 2112, count: 36 })));
        assert_eq!(rest.unwrap().split(36), (Extent { first: 2112, count: 36 }, None));
        assert_eq!(EXPORT.split(u64::MAX), (EXPORT, None));
        // A device that says it takes none does not make this go on for ever.
        assert_eq!(EXPORT.split(0).0.count, 1);
    }

    #[test]
    fn the_first_whole_unit_of_a_partition_is_found() {
        assert_eq!(EXPORT.offset_of_unit(4096), 0);
        assert_eq!(Extent { first: 63, count: 100 }.offset_of_unit(4096), 512);
        assert_eq!(Extent { first: 1, count: 100 }.offset_of_unit(512), 0);
        assert_eq!(EXPORT.offset_of_unit(0), 0);
    }

    #[test]
    fn a_request_past_the_end_is_refused() {
        assert_eq!(EXPORT.part(99, 2), Err(PastTheEnd));
        assert_eq!(EXPORT.part(100, 1), Err(PastTheEnd));
        assert_eq!(EXPORT.part(u64::MAX, 1), Err(PastTheEnd));
        assert_eq!(EXPORT.part(1, u64::MAX), Err(PastTheEnd));
    }

    #[test]
    fn parts_are_read_as_the_policy_writes_them() {
        assert_eq!(Part::parse("whole"), Ok(Part::Whole));
        assert_eq!((Part::parse(""), Part::parse("0")), (Ok(Part::Whole), Ok(Part::Whole)));
        assert_eq!(Part::parse("12"), Ok(Part::Partition(12)));
        for bad in ["00", "-1", "+1", "one", "4294967296", "1 2"] {
            assert_eq!(Part::parse(bad), Err(BadPart), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_request_leaves_its_export(first: u64, count: u64, sector: u64, length: u64) {
            let export = Extent { first, count };
            if let Ok(part) = export.part(sector, length) {
                let (start, end) = (u128::from(part.first), u128::from(part.first) + u128::from(part.count));
                prop_assert!(start >= u128::from(first) && end <= u128::from(first) + u128::from(count));
            }
        }
    }
}
