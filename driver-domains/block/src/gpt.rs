//! Reads a GUID partition table (UEFI specification, section 5.3) from a disk that may be broken or hostile.
//!
//! Nothing is believed that a checksum or a bound does not support: header checksum, own position, usable range inside
//! the disk, entry array of bounded size with its checksum, each partition inside the usable range and overlapping no
//! other. When the primary table does not pass, the backup in the last block is tried in the same way.

use crate::export::Extent;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use crc::Crc;
use gpt_disk_types::{BlockSize, Crc32, GptHeader, GptPartitionEntry, GptPartitionEntryArray, U32Le};

/// Reads logical blocks of a disk.
pub trait Blocks {
    /// What a failed read tells.
    type Error;
    /// Bytes of a logical block.
    fn block_size(&self) -> BlockSize;
    /// Logical blocks of the disk.
    fn count(&self) -> u64;
    /// Reads the blocks from `first` on into `into`, a whole number of blocks.
    fn read(&mut self, first: u64, into: &mut [u8]) -> Result<(), Self::Error>;
}

/// What is wrong with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault<E> {
    /// The disk is too small for a table.
    TooSmall,
    /// A block could not be read.
    Read(E),
    /// No GPT signature: the disk has no such table.
    NoSignature,
    /// A header field has a value that the specification or reason excludes.
    BadHeader,
    /// The header's checksum is wrong.
    BadHeaderChecksum,
    /// The entry array's checksum is wrong.
    BadEntriesChecksum,
    /// A partition leaves the usable range or ends before it starts.
    BadExtent {
        /// Its number, from 1.
        number: u32,
    },
    /// Two partitions overlap.
    Overlap {
        /// The number of one.
        first: u32,
        /// The number of the other.
        second: u32,
    },
}

impl<E: fmt::Debug> fmt::Display for Fault<E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall => out.write_str("the disk is too small for a partition table"),
            Self::Read(error) => write!(out, "cannot be read: {error:?}"),
            Self::NoSignature => out.write_str("no GPT signature"),
            Self::BadHeader => out.write_str("the header makes no sense"),
            Self::BadHeaderChecksum => out.write_str("the header's checksum is wrong"),
            Self::BadEntriesChecksum => out.write_str("the entries' checksum is wrong"),
            Self::BadExtent { number } => write!(out, "partition {number} leaves the usable range"),
            Self::Overlap { first, second } => write!(out, "partitions {first} and {second} overlap"),
        }
    }
}

/// Neither copy of the table is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTable<E> {
    /// What is wrong with the primary one.
    pub primary: Fault<E>,
    /// What is wrong with the backup.
    pub backup: Fault<E>,
}

/// Which copy was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// The one in block 1.
    Primary,
    /// The one in the last block: the primary is damaged.
    Backup,
}

/// A checked partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Number (from 1) and place of each partition in use.
    partitions: Vec<(u32, Extent)>,
    /// Where it was found.
    pub copy: Copy,
}

impl Table {
    /// Where partition `number` (from 1) is, in 512-byte sectors.
    pub fn partition(&self, number: u32) -> Option<Extent> {
        self.partitions.iter().find(|(own, _)| *own == number).map(|&(_, extent)| extent)
    }

    /// Numbers and places of all partitions.
    pub fn partitions(&self) -> &[(u32, Extent)] {
        &self.partitions
    }
}

/// Bytes of an entry array at most: four times what is usual.
const ENTRIES_BYTES_MAX: u64 = 64 * 1024;
const HEADER_BYTES: usize = size_of::<GptHeader>();
const ENTRY_BYTES: usize = size_of::<GptPartitionEntry>();
const CRC: Crc<u32> = Crc::<u32>::new(&Crc32::ALGORITHM);

/// Reads the partition table of a disk.
pub fn read<B: Blocks>(disk: &mut B) -> Result<Table, NoTable<B::Error>> {
    let primary = match read_copy(disk, 1) {
        Ok(partitions) => {
            return Ok(Table { partitions, copy: Copy::Primary });
        }
        Err(fault) => fault,
    };
    match read_copy(disk, disk.count().saturating_sub(1)) {
        Ok(partitions) => Ok(Table { partitions, copy: Copy::Backup }),
        Err(backup) => Err(NoTable { primary, backup }),
    }
}

/// Reads and checks the copy whose header is in block `at`.
fn read_copy<B: Blocks>(disk: &mut B, at: u64) -> Result<Vec<(u32, Extent)>, Fault<B::Error>> {
    let size = disk.block_size();
    let block_bytes = size.to_usize().filter(|&bytes| bytes >= 512 && bytes.is_multiple_of(512));
    let block_bytes = block_bytes.ok_or(Fault::BadHeader)?;
    if disk.count() < 4 || at == 0 {
        return Err(Fault::TooSmall);
    }
    let mut block = vec![0; block_bytes];
    disk.read(at, &mut block).map_err(Fault::Read)?;
    let header = check_header(&block, at, disk.count())?;
    let layout = header.get_partition_entry_array_layout().map_err(|_| Fault::BadHeader)?;
    let bytes = layout.num_bytes_rounded_to_block(size).filter(|&bytes| bytes <= ENTRIES_BYTES_MAX && bytes != 0);
    let bytes = bytes.ok_or(Fault::BadHeader)?;
    let start = layout.start_lba.0;
    let end = start.checked_add(bytes / size.to_u64()).filter(|&end| end <= disk.count()).ok_or(Fault::BadHeader)?;
    let usable = header.first_usable_lba.to_u64()..=header.last_usable_lba.to_u64();
    if start < 2 || !(end <= *usable.start() || start > *usable.end()) {
        return Err(Fault::BadHeader);
    }
    let mut storage = vec![0; bytes as usize];
    disk.read(start, &mut storage).map_err(Fault::Read)?;
    let entries = GptPartitionEntryArray::new(layout, size, &mut storage).map_err(|_| Fault::BadHeader)?;
    if entries.calculate_crc32() != { header.partition_entry_array_crc32 } {
        return Err(Fault::BadEntriesChecksum);
    }
    collect(&entries, layout.num_entries, usable, size.to_u64() / 512)
}

/// The header in a block, if it is one for the block's place `at`.
fn check_header<E>(block: &[u8], at: u64, blocks: u64) -> Result<GptHeader, Fault<E>> {
    let bytes = block.get(..HEADER_BYTES).ok_or(Fault::BadHeader)?;
    let header: GptHeader = bytemuck::pod_read_unaligned(bytes);
    if !header.is_signature_valid() {
        return Err(Fault::NoSignature);
    }
    let header_bytes = header.header_size.to_u32() as usize;
    let covered = block.get(..header_bytes).filter(|_| header_bytes >= HEADER_BYTES).ok_or(Fault::BadHeader)?;
    if checksum(covered) != { header.header_crc32 } {
        return Err(Fault::BadHeaderChecksum);
    }
    let (first, last) = (header.first_usable_lba.to_u64(), header.last_usable_lba.to_u64());
    let sensible = header.my_lba.to_u64() == at
        && header.alternate_lba.to_u64() < blocks
        && header.size_of_partition_entry.to_u32() as usize >= ENTRY_BYTES
        && first >= 2
        && first <= last
        && last < blocks;
    if sensible { Ok(header) } else { Err(Fault::BadHeader) }
}

/// The checksum of a header: over all its bytes, its own field taken as zero.
fn checksum(header: &[u8]) -> Crc32 {
    let mut digest = CRC.digest();
    let (before, rest) = header.split_at(header.len().min(16));
    digest.update(before);
    digest.update(&[0; 4]);
    digest.update(rest.get(4..).unwrap_or(&[]));
    Crc32(U32Le::from_u32(digest.finalize()))
}

/// The used entries, each inside the usable range, none over another.
fn collect<E>(
    entries: &GptPartitionEntryArray<'_>,
    count: u32,
    usable: core::ops::RangeInclusive<u64>,
    sectors_per_block: u64,
) -> Result<Vec<(u32, Extent)>, Fault<E>> {
    let mut found: Vec<(u32, Extent)> = Vec::new();
    for index in 0..count {
        let entry = entries.get_partition_entry(index).ok_or(Fault::BadHeader)?;
        if !entry.is_used() {
            continue;
        }
        let number = index + 1;
        let range = entry.lba_range().ok_or(bad_extent(number))?;
        let (first, last) = (range.start().0, range.end().0);
        if !usable.contains(&first) || !usable.contains(&last) {
            return Err(bad_extent(number));
        }
        let first = first.checked_mul(sectors_per_block).ok_or(bad_extent(number))?;
        let count = range.num_blocks().checked_mul(sectors_per_block).ok_or(bad_extent(number))?;
        found.push((number, Extent { first, count }));
    }
    let mut order = found.clone();
    order.sort_by_key(|(_, extent)| extent.first);
    for pair in order.windows(2) {
        if let [(first, before), (second, after)] = pair
            && before.first + before.count > after.first
        {
            return Err(Fault::Overlap { first: *first, second: *second });
        }
    }
    Ok(found)
}

fn bad_extent<E>(number: u32) -> Fault<E> {
    Fault::BadExtent { number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt_disk_types::{GptPartitionType, LbaLe, guid};
    use proptest::prelude::*;

    const BLOCKS: u64 = 200;

    struct Image(Vec<u8>, BlockSize);

    impl Blocks for Image {
        type Error = ();
        fn block_size(&self) -> BlockSize {
            self.1
        }
        fn count(&self) -> u64 {
            self.0.len() as u64 / self.1.to_u64()
        }
        fn read(&mut self, first: u64, into: &mut [u8]) -> Result<(), ()> {
            let at = (first * self.1.to_u64()) as usize;
            into.copy_from_slice(self.0.get(at..at + into.len()).ok_or(())?);
            Ok(())
        }
    }

    /// A disk with these partitions (first and last block), entries of 128 bytes, primary and backup table.
    fn image(size: BlockSize, partitions: &[(u64, u64)]) -> Image {
        let mut image = Image(vec![0; (BLOCKS * size.to_u64()) as usize], size);
        let array_blocks = 16384 / size.to_u64();
        let mut array = vec![0; 16384];
        for (slot, &(first, last)) in array.chunks_mut(ENTRY_BYTES).zip(partitions) {
            let entry = GptPartitionEntry {
                partition_type_guid: GptPartitionType::BASIC_DATA,
                unique_partition_guid: guid!("11111111-2222-3333-4444-555555555555"),
                starting_lba: LbaLe::from_u64(first),
                ending_lba: LbaLe::from_u64(last),
                ..Default::default()
            };
            slot.copy_from_slice(bytemuck::bytes_of(&entry));
        }
        for (own, other, entries) in [(1, BLOCKS - 1, 2), (BLOCKS - 1, 1, BLOCKS - 1 - array_blocks)] {
            let mut header = GptHeader {
                my_lba: LbaLe::from_u64(own),
                alternate_lba: LbaLe::from_u64(other),
                first_usable_lba: LbaLe::from_u64(2 + array_blocks),
                last_usable_lba: LbaLe::from_u64(BLOCKS - 2 - array_blocks),
                partition_entry_lba: LbaLe::from_u64(entries),
                number_of_partition_entries: U32Le::from_u32(128),
                partition_entry_array_crc32: Crc32(U32Le::from_u32(CRC.checksum(&array))),
                ..Default::default()
            };
            header.update_header_crc32();
            image.put(own, bytemuck::bytes_of(&header));
            image.put(entries, &array);
        }
        image
    }

    impl Image {
        fn put(&mut self, block: u64, bytes: &[u8]) {
            let at = (block * self.1.to_u64()) as usize;
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
        }

        /// Changes the primary header, checksum included, and spoils the backup.
        fn change(&mut self, change: impl FnOnce(&mut GptHeader)) {
            let at = self.1.to_usize().unwrap();
            let mut header: GptHeader = bytemuck::pod_read_unaligned(&self.0[at..at + HEADER_BYTES]);
            change(&mut header);
            header.update_header_crc32();
            self.put(1, bytemuck::bytes_of(&header));
            self.put(BLOCKS - 1, &[0; 8]);
        }

        fn primary_fault(&mut self) -> Fault<()> {
            read(self).unwrap_err().primary
        }
    }

    #[test]
    fn partitions_are_found_in_sectors_whatever_the_block_size() {
        let table = read(&mut image(BlockSize::BS_512, &[(34, 50), (0, 0), (60, 60)][..1])).unwrap();
        assert_eq!(table.partition(1), Some(Extent { first: 34, count: 17 }));
        assert_eq!(table.partition(2), None);
        assert_eq!(table.copy, Copy::Primary);
        let table = read(&mut image(BlockSize::BS_4096, &[(10, 19), (20, 20)])).unwrap();
        assert_eq!(table.partition(1), Some(Extent { first: 80, count: 80 }));
        assert_eq!(table.partition(2), Some(Extent { first: 160, count: 8 }));
        assert_eq!(table.partitions().len(), 2);
    }

    #[test]
    fn a_damaged_primary_is_replaced_by_the_backup() {
        for (block, offset) in [(1, 0), (1, 16), (1, 40), (2, 33)] {
            let mut image = image(BlockSize::BS_512, &[(34, 50)]);
            image.0[block * 512 + offset] ^= 1;
            let table = read(&mut image).unwrap();
            assert_eq!((table.copy, table.partition(1).is_some()), (Copy::Backup, true));
        }
    }

    #[test]
    fn a_disk_without_a_table_says_so() {
        let mut image = Image(vec![0; 512 * 100], BlockSize::BS_512);
        assert_eq!(read(&mut image), Err(NoTable { primary: Fault::NoSignature, backup: Fault::NoSignature }));
        let mut image = Image(vec![0; 512 * 2], BlockSize::BS_512);
        assert_eq!(image.primary_fault(), Fault::TooSmall);
        let mut image = Image(Vec::new(), BlockSize::BS_512);
        assert_eq!(image.primary_fault(), Fault::TooSmall);
    }

    #[test]
    fn a_partition_must_lie_in_the_usable_range() {
        for (first, last) in [(33, 40), (34, BLOCKS), (50, 49), (34, u64::MAX), (u64::MAX, u64::MAX), (0, 0)] {
            let mut image = image(BlockSize::BS_512, &[(34, 34), (first, last)]);
            assert_eq!(image.primary_fault(), Fault::BadExtent { number: 2 }, "{first}..={last}");
        }
    }

    #[test]
    fn partitions_must_not_overlap() {
        let mut image = image(BlockSize::BS_512, &[(50, 60), (34, 50)]);
        assert_eq!(image.primary_fault(), Fault::Overlap { first: 2, second: 1 });
    }

    #[test]
    fn a_header_that_makes_no_sense_is_refused_though_its_checksum_is_right() {
        let changes: [fn(&mut GptHeader); 10] = [
            |header| header.my_lba = LbaLe::from_u64(2),
            |header| header.alternate_lba = LbaLe::from_u64(BLOCKS),
            |header| header.first_usable_lba = LbaLe::from_u64(1),
            |header| header.first_usable_lba = LbaLe::from_u64(199),
            |header| header.last_usable_lba = LbaLe::from_u64(u64::MAX),
            |header| header.size_of_partition_entry = U32Le::from_u32(0),
            |header| header.size_of_partition_entry = U32Le::from_u32(u32::MAX),
            |header| header.number_of_partition_entries = U32Le::from_u32(u32::MAX),
            |header| header.partition_entry_lba = LbaLe::from_u64(u64::MAX),
            |header| header.partition_entry_lba = LbaLe::from_u64(40),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut image = image(BlockSize::BS_512, &[(34, 50)]);
            image.change(change);
            assert_eq!(image.primary_fault(), Fault::BadHeader, "change {number}");
        }
    }

    #[test]
    fn the_checksum_covers_as_much_as_the_header_says_it_is_long() {
        let mut image = image(BlockSize::BS_512, &[(34, 50)]);
        image.0[512 + 12..512 + 16].copy_from_slice(&200u32.to_le_bytes());
        let sum = checksum(&image.0[512..512 + 200]);
        image.0[512 + 16..512 + 20].copy_from_slice(&sum.0.0);
        assert_eq!(read(&mut image).unwrap().copy, Copy::Primary);
        image.0[512 + 199] = 1;
        assert_eq!(read(&mut image).unwrap().copy, Copy::Backup);
    }

    proptest! {
        /// Flips bytes anywhere in the tables, with the checksums made right again: no panic, no partition outside.
        #[test]
        fn whatever_the_table_says_partitions_lie_on_the_disk_and_apart(
            flips in proptest::collection::vec((0usize..92, any::<u8>()), 0..6),
            entry_flips in proptest::collection::vec((0usize..512, any::<u8>()), 0..6),
        ) {
            let mut image = image(BlockSize::BS_512, &[(34, 50), (51, 60), (80, 100)]);
            for (at, value) in entry_flips {
                image.0[1024 + at] = value;
            }
            let sum = CRC.checksum(&image.0[1024..1024 + 16384]);
            image.change(|header| header.partition_entry_array_crc32 = Crc32(U32Le::from_u32(sum)));
            for (at, value) in flips {
                image.0[512 + at] = value;
            }
            let length = u32::from_le_bytes(image.0[524..528].try_into().unwrap()).clamp(92, 512) as usize;
            let sum = checksum(&image.0[512..512 + length]);
            image.0[528..532].copy_from_slice(&sum.0.0);
            if let Ok(table) = read(&mut image) {
                let mut extents: Vec<_> = table.partitions().iter().map(|&(_, extent)| extent).collect();
                extents.sort_by_key(|extent| extent.first);
                let mut end = 34;
                for extent in extents {
                    prop_assert!(extent.first >= end.min(2) && extent.first + extent.count <= BLOCKS);
                    prop_assert!(extent.first >= end || end == 34);
                    end = extent.first + extent.count;
                }
            }
        }
    }
}
