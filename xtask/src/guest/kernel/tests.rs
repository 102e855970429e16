//! Kernels made by hand, packed as Linux's build packs them.

use super::*;
use std::io::Write;

const TEXT: u64 = 0x100_0000;

fn note() -> Vec<u8> {
    let mut note = vec![];
    for number in [4u32, 8, 18] {
        note.extend(number.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend((TEXT + 16).to_le_bytes());
    note
}

/// A vmlinux: text, data that ends with zeros, a note, and a tail of sections that nobody loads.
fn vmlinux() -> Vec<u8> {
    let text: Vec<u8> = (0..5000u32).map(|n| n as u8 | 1).collect();
    let mut data = vec![7; 1000];
    data.resize(200_000, 0);
    let segments =
        [(PT_LOAD, TEXT, 5000, text, 5), (PT_LOAD, TEXT + 8192, 300_000, data, 7), (PT_NOTE, 0, 24, note(), 4)];
    let mut file = vec![0; FILE_HEADER + segments.len() * PROGRAM_HEADER];
    let mut set = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, b"\x7fELF\x02\x01\x01");
    set(16, &[2, 0, 62, 0, 1]);
    set(32, &[64]);
    set(40, &0x7777u64.to_le_bytes());
    set(52, &[64, 0, 56, 0, 3, 0, 64, 0, 30, 0, 29, 0]);
    let mut offset = 4096;
    for (index, (kind, address, memory, bytes, flags)) in segments.iter().enumerate() {
        let at = FILE_HEADER + index * PROGRAM_HEADER;
        set(at, &kind.to_le_bytes());
        set(at + 4, &u32::to_le_bytes(*flags));
        for (field, number) in
            [offset as u64, address | 0xffff_ffff_8000_0000, *address, bytes.len() as u64, *memory, 4]
                .into_iter()
                .enumerate()
        {
            set(at + 8 + field * 8, &number.to_le_bytes());
        }
        offset += bytes.len();
    }
    file.resize(4096, 0);
    segments.iter().for_each(|(_, _, _, bytes, _)| file.extend(bytes));
    file.extend([0xcc; 50_000]);
    file
}

/// A bzImage around a payload.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 3 * SECTOR + 100];
    file[SETUP_SECTORS] = 2;
    file[BOOT_MAGIC..BOOT_MAGIC + 4].copy_from_slice(b"HdrS");
    file[BOOT_VERSION..BOOT_VERSION + 2].copy_from_slice(&0x20f_u16.to_le_bytes());
    file[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&100u32.to_le_bytes());
    file[PAYLOAD_BYTES..PAYLOAD_BYTES + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file.extend(payload);
    file.extend([0x55; 3000]);
    file
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// LZ4 in old frames (a magic number, then blocks with their packed sizes), and the size of it all behind them.
fn lz4(data: &[u8]) -> Vec<u8> {
    let mut packed = b"\x02\x21\x4c\x18".to_vec();
    for block in data.chunks(8 << 20) {
        let block = lz4_flex::block::compress(block);
        packed.extend((block.len() as u32).to_le_bytes());
        packed.extend(block);
    }
    packed.extend((data.len() as u32).to_le_bytes());
    packed
}

#[test]
fn every_form_of_a_kernel_becomes_the_same_small_file() {
    let vmlinux = vmlinux();
    let small = elf(&vmlinux).unwrap();
    assert!(small.len() < 7000, "{} bytes: zeros and sections are still there", small.len());
    let kernel = Kernel::parse(&small).unwrap();
    assert_eq!(u64::from(kernel.entry), TEXT + 16);
    let loads: Vec<(u64, u64, usize)> =
        kernel.loads.iter().map(|load| (load.gpa, load.memory_bytes, load.bytes.len())).collect();
    assert_eq!(loads, [(TEXT, 5000, 5000), (TEXT + 8192, 300_000, 1000)]);
    for packed in [gzip(&vmlinux), bzimage(&vmlinux), bzimage(&gzip(&vmlinux)), bzimage(&lz4(&vmlinux))] {
        assert!(elf(&packed).unwrap() == small);
    }
}

#[test]
fn what_is_no_kernel_is_refused_with_a_reason() {
    let vmlinux = vmlinux();
    let why = |file: &[u8]| format!("{:#}", elf(file).unwrap_err());
    assert!(why(b"#!/bin/sh").contains("neither a bzImage nor a vmlinux"));
    assert!(why(&bzimage(b"BZh91AY")).contains("bzip2"));
    let mut no_note = vmlinux.clone();
    let note = no_note.windows(4).position(|window| window == b"Xen\0").unwrap();
    no_note[note] = b'x';
    assert!(why(&no_note).contains("PVH entry point"));
    let mut wrong_size = lz4(&vmlinux);
    *wrong_size.last_mut().unwrap() = 9;
    assert!(why(&bzimage(&wrong_size)).contains("but says"));
    let old = {
        let mut old = bzimage(&vmlinux);
        old[BOOT_VERSION] = 7;
        old
    };
    assert!(why(&old).contains("too old"));
    let whole = bzimage(&gzip(&vmlinux));
    for end in [0, 100, 0x204, 0x208, 0x24d, 1600, 2000, whole.len() - 3010] {
        assert!(elf(&whole[..end]).is_err(), "cut at {end}");
    }
}

proptest::proptest! {
    #[test]
    fn damage_never_panics(at in 0..3000_usize, value: u8) {
        let mut file = bzimage(&gzip(&vmlinux()));
        file[at] = value;
        let _ = elf(&file);
        let mut file = vmlinux();
        file[at] = value;
        let _ = elf(&file);
    }
}
