//! Images made by hand, each wrong in one way.

extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const EHDR: usize = 64;
const PHDR: usize = 56;

#[derive(Clone, Copy)]
struct Load {
    flags: u32,
    vaddr: u64,
    filesz: u64,
    memsz: u64,
}

const CODE: Load = Load { flags: 5, vaddr: IMAGE_BASE, filesz: 64, memsz: 64 };
const DATA: Load = Load { flags: 6, vaddr: IMAGE_BASE + PAGE_SIZE, filesz: 8, memsz: 3 * PAGE_SIZE };

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A file with these segments, its contents at offset 4096.
fn file(loads: &[Load]) -> Vec<u8> {
    let mut file = std::vec![0u8; 8192];
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &2u16.to_le_bytes());
    put(&mut file, 18, &62u16.to_le_bytes());
    put(&mut file, 20, &1u32.to_le_bytes());
    put(&mut file, 24, &(IMAGE_BASE + 16).to_le_bytes());
    put(&mut file, 32, &(EHDR as u64).to_le_bytes());
    put(&mut file, 52, &(EHDR as u16).to_le_bytes());
    put(&mut file, 54, &(PHDR as u16).to_le_bytes());
    put(&mut file, 56, &(loads.len() as u16).to_le_bytes());
    for (index, load) in loads.iter().enumerate() {
        let at = EHDR + index * PHDR;
        put(&mut file, at, &1u32.to_le_bytes());
        put(&mut file, at + 4, &load.flags.to_le_bytes());
        put(&mut file, at + 8, &4096u64.to_le_bytes());
        put(&mut file, at + 16, &load.vaddr.to_le_bytes());
        put(&mut file, at + 32, &load.filesz.to_le_bytes());
        put(&mut file, at + 40, &load.memsz.to_le_bytes());
    }
    file
}

fn error(file: &[u8]) -> ImageError {
    Image::parse(file).unwrap_err()
}

#[test]
fn a_good_image_lists_its_segments() {
    let file = file(&[CODE, DATA]);
    let image = Image::parse(&file).unwrap();
    assert_eq!(image.entry, IMAGE_BASE + 16);
    assert_eq!(image.pages(), 4);
    let [code, data] = &image.segments[..] else { panic!("two segments") };
    assert_eq!((code.rights, code.pages, code.bytes.len()), (Rights::ReadExecute, 1, 64));
    assert_eq!((data.rights, data.pages, data.bytes.len(), data.file_offset), (Rights::ReadWrite, 3, 8, 4096));
}

#[test]
fn each_fault_has_its_error() {
    let good = file(&[CODE]);
    assert_eq!(error(b""), ImageError::NotElf);
    assert_eq!(error(b"#!/bin/sh\n"), ImageError::NotElf);
    assert_eq!(error(&good[..20]), ImageError::Truncated);
    assert_eq!(error(&good[..80]), ImageError::Truncated);
    assert_eq!(error(&good[..4100]), ImageError::Truncated);
    let mut other_machine = good.clone();
    put(&mut other_machine, 18, &183u16.to_le_bytes());
    assert_eq!(error(&other_machine), ImageError::WrongMachine);
    let mut shared_object = good;
    put(&mut shared_object, 16, &3u16.to_le_bytes());
    assert_eq!(error(&shared_object), ImageError::NotStatic);
    assert_eq!(error(&file(&[Load { flags: 7, ..CODE }])), ImageError::WritableCode(0));
    assert_eq!(error(&file(&[CODE, Load { vaddr: DATA.vaddr + 8, ..DATA }])), ImageError::Unaligned(1));
    assert_eq!(error(&file(&[CODE, Load { vaddr: 0x1000, ..DATA }])), ImageError::OutOfRange(1));
    assert_eq!(error(&file(&[CODE, Load { memsz: IMAGE_LIMIT, ..DATA }])), ImageError::OutOfRange(1));
    assert_eq!(error(&file(&[CODE, Load { memsz: u64::MAX, ..DATA }])), ImageError::OutOfRange(1));
    assert_eq!(error(&file(&[Load { filesz: 65, ..CODE }])), ImageError::TooLong(0));
    assert_eq!(error(&file(&[CODE, Load { vaddr: IMAGE_BASE, ..DATA }])), ImageError::Overlap(1));
    assert_eq!(error(&file(&[DATA])), ImageError::Entry);
    assert_eq!(error(&file(&[])), ImageError::Segments);
}

proptest! {
    #[test]
    fn damaged_files_never_panic(position in 0usize..200, value: u8, length in 0usize..8192) {
        let mut file = file(&[CODE, DATA]);
        file[position] = value;
        file.truncate(length);
        if let Ok(image) = Image::parse(&file) {
            for segment in &image.segments {
                prop_assert!(segment.bytes.len() as u64 <= segment.pages * PAGE_SIZE);
                prop_assert!(segment.gpa >= IMAGE_BASE && segment.gfns().end * PAGE_SIZE <= IMAGE_LIMIT);
            }
        }
    }
}
