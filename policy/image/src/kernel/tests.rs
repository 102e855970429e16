//! Kernels made by hand, each wrong in one way.

extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const EHDR: usize = 64;
const PHDR: usize = 56;
/// Where contents and notes begin in the file.
const CONTENTS: usize = 4096;
const NOTES: usize = 6000;

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A program header: type, physical address, offset and bytes in the file, bytes in memory.
type Header = (u32, u64, usize, u64, u64);

const TEXT: Header = (PT_LOAD, 0x100_0000, CONTENTS, 1000, 1000);
/// As Linux's: begins in the page in which the text ends.
const DATA: Header = (PT_LOAD, 0x100_03e8, CONTENTS + 1000, 8, 0x5000);

fn note(name: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for number in [name.len() as u32, descriptor.len() as u32, kind] {
        note.extend(number.to_le_bytes());
    }
    for part in [name, descriptor] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

/// Notes as a kernel has them: others first.
fn notes(entry: &[u8]) -> Vec<u8> {
    [note(b"Xen\0", 6, b"linux\0"), note(b"GNU\0", 3, &[7; 20]), note(b"Xen\0", XEN_ELFNOTE_PHYS32_ENTRY, entry)]
        .concat()
}

fn file(headers: &[Header], notes: &[u8]) -> Vec<u8> {
    let mut file = std::vec![0u8; 8192];
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &2u16.to_le_bytes());
    put(&mut file, 18, &62u16.to_le_bytes());
    put(&mut file, 20, &1u32.to_le_bytes());
    put(&mut file, 32, &(EHDR as u64).to_le_bytes());
    put(&mut file, 52, &(EHDR as u16).to_le_bytes());
    put(&mut file, 54, &(PHDR as u16).to_le_bytes());
    let own = (PT_NOTE, 0, NOTES, notes.len() as u64, notes.len() as u64);
    let all: Vec<Header> = headers.iter().copied().chain((!notes.is_empty()).then_some(own)).collect();
    put(&mut file, 56, &(all.len() as u16).to_le_bytes());
    for (index, (kind, paddr, offset, filesz, memsz)) in all.into_iter().enumerate() {
        let at = EHDR + index * PHDR;
        put(&mut file, at, &kind.to_le_bytes());
        put(&mut file, at + 8, &(offset as u64).to_le_bytes());
        put(&mut file, at + 24, &paddr.to_le_bytes());
        put(&mut file, at + 32, &filesz.to_le_bytes());
        put(&mut file, at + 40, &memsz.to_le_bytes());
        put(&mut file, at + 48, &4u64.to_le_bytes());
    }
    put(&mut file, NOTES, notes);
    file
}

fn error(headers: &[Header], notes: &[u8]) -> KernelError {
    Kernel::parse(&file(headers, notes)).unwrap_err()
}

#[test]
fn a_kernel_lists_what_to_load_and_where_it_starts() {
    for entry in [0x100_0010u32.to_le_bytes().to_vec(), 0x100_0010u64.to_le_bytes().to_vec()] {
        let file = file(&[TEXT, DATA], &notes(&entry));
        let kernel = Kernel::parse(&file).unwrap();
        assert_eq!(kernel.entry, 0x100_0010);
        assert_eq!(kernel.addresses(), 0x100_0000..0x100_03e8 + 0x5000);
        let [text, data] = &kernel.loads[..] else { panic!("two segments") };
        assert_eq!((text.gpa, text.memory_bytes, text.bytes.len()), (0x100_0000, 1000, 1000));
        assert_eq!((data.gpa, data.memory_bytes, data.bytes.len()), (0x100_03e8, 0x5000, 8));
    }
}

#[test]
fn each_fault_has_its_error() {
    let entry = notes(&0x100_0010u64.to_le_bytes());
    let good = file(&[TEXT], &entry);
    let broken = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        put(&mut file, at, bytes);
        Kernel::parse(&file).unwrap_err()
    };
    assert_eq!(Kernel::parse(b"MZ").unwrap_err(), KernelError::NotElf);
    assert_eq!(Kernel::parse(&good[..100]).unwrap_err(), KernelError::Truncated);
    assert_eq!(Kernel::parse(&good[..5000]).unwrap_err(), KernelError::Truncated);
    assert_eq!(broken(18, &[183]), KernelError::WrongMachine);
    assert_eq!(broken(4, &[9]), KernelError::WrongMachine);
    assert_eq!(broken(16, &[1]), KernelError::WrongMachine);
    assert_eq!(error(&[], &entry), KernelError::Segments);
    assert_eq!(error(&[(PT_LOAD, 0xffff_f000, CONTENTS, 8, 0x2000), TEXT], &entry), KernelError::OutOfRange(0));
    assert_eq!(error(&[(PT_LOAD, u64::MAX, CONTENTS, 8, 0x2000), TEXT], &entry), KernelError::OutOfRange(0));
    assert_eq!(error(&[(PT_LOAD, 0x1000, CONTENTS, 9, 8), TEXT], &entry), KernelError::TooLong(0));
    assert_eq!(error(&[TEXT, (PT_LOAD, 0x100_03e7, CONTENTS, 8, 8)], &entry), KernelError::Overlap(1));
    assert_eq!(error(&[TEXT], &[]), KernelError::NoEntry);
    assert_eq!(error(&[TEXT], &note(b"GNU\0", XEN_ELFNOTE_PHYS32_ENTRY, &[0, 0, 0, 1])), KernelError::NoEntry);
    assert_eq!(error(&[TEXT], &notes(&[0; 5])), KernelError::NoEntry);
    assert_eq!(error(&[TEXT], &notes(&0x1_0100_0010u64.to_le_bytes())), KernelError::NoEntry);
    assert_eq!(error(&[TEXT], &notes(&0x100_03e8u64.to_le_bytes())), KernelError::Entry);
    assert_eq!(error(&[TEXT; SEGMENTS_MAX + 1], &entry), KernelError::Overlap(1));
}

proptest! {
    #[test]
    fn no_file_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Kernel::parse(&bytes);
    }

    #[test]
    fn a_damaged_kernel_is_refused_or_still_obeys_the_rules(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in 0..8192_usize,
    ) {
        let mut bytes = file(&[TEXT, DATA], &notes(&0x100_0010u64.to_le_bytes()));
        // Where it hurts: headers and notes.
        for (at, value) in damage {
            let at = at.index(EHDR + 3 * PHDR + 100);
            let at = if at < EHDR + 3 * PHDR { at } else { NOTES + at - EHDR - 3 * PHDR };
            bytes[at] = value;
        }
        bytes.truncate(8192 - cut);
        if let Ok(kernel) = Kernel::parse(&bytes) {
            prop_assert!(kernel.loads.iter().any(|load| load.addresses().contains(&u64::from(kernel.entry))));
            let mut loads: Vec<_> = kernel.loads.iter().collect();
            loads.sort_by_key(|load| load.gpa);
            prop_assert!(loads.windows(2).all(|pair| pair[0].addresses().end <= pair[1].gpa));
            prop_assert!(loads.iter().all(|load| load.bytes.len() as u64 <= load.memory_bytes));
            prop_assert!(kernel.addresses().end <= ADDRESS_LIMIT);
        }
    }
}
