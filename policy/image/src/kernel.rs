//! Kernels of virtual machines: an ELF file checked for the PVH boot protocol, and listed as bytes to copy.
//!
//! What it demands: ELF64, little-endian, x86-64; loadable segments at physical addresses (`p_paddr`) below 4 GiB that do
//! not overlap; an ELF note of type `XEN_ELFNOTE_PHYS32_ENTRY` (Xen public `elfnote.h`) whose 32-bit entry point lies in
//! one of them. Virtual addresses and rights do not matter: the kernel starts without paging, in memory that it may use
//! as it likes.

use core::ops::Range;

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::note::{Note, NoteAny};
use elf::segment::ProgramHeader;
use xen_abi::elfnote::{XEN_ELFNOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY};

use crate::SEGMENTS_MAX;

/// Where segments end at the latest: what a CPU without paging reaches.
const ADDRESS_LIMIT: u64 = 1 << 32;

/// Why a file is no kernel that can be started. Numbers are those of program headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelError {
    /// It does not begin like an ELF file.
    NotElf,
    /// The file ends within a header, a segment or a note.
    Truncated,
    /// ELF, but not a 64-bit little-endian x86-64 program.
    WrongMachine,
    /// No loadable segment, or more than [`SEGMENTS_MAX`].
    Segments,
    /// A segment reaches beyond 4 GiB.
    OutOfRange(usize),
    /// A segment has more bytes in the file than in memory.
    TooLong(usize),
    /// Two segments share an address.
    Overlap(usize),
    /// It has no PVH entry point.
    NoEntry,
    /// Its PVH entry point lies in no segment.
    Entry,
}

impl core::fmt::Display for KernelError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotElf => f.write_str("not an ELF file"),
            Self::Truncated => f.write_str("the file is truncated"),
            Self::WrongMachine => f.write_str("not for 64-bit x86-64"),
            Self::Segments => write!(f, "no segment to load, or more than {SEGMENTS_MAX}"),
            Self::OutOfRange(index) => write!(f, "segment {index} reaches beyond 4 GiB"),
            Self::TooLong(index) => write!(f, "segment {index} is longer in the file than in memory"),
            Self::Overlap(index) => write!(f, "segment {index} overlaps an earlier one"),
            Self::NoEntry => f.write_str("it has no PVH entry point (Linux has one with CONFIG_PVH)"),
            Self::Entry => f.write_str("its PVH entry point is in no segment"),
        }
    }
}

impl core::error::Error for KernelError {}

/// Memory of a kernel with its contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load<'a> {
    /// First byte, a guest-physical address.
    pub gpa: u64,
    /// Bytes of memory; what `bytes` leave of them is zero.
    pub memory_bytes: u64,
    /// Contents, from the file.
    pub bytes: &'a [u8],
}

impl Load<'_> {
    /// Its addresses.
    pub fn addresses(&self) -> Range<u64> {
        self.gpa..self.gpa.saturating_add(self.memory_bytes)
    }
}

/// A checked kernel.
#[derive(Clone, Debug)]
pub struct Kernel<'a> {
    /// The PVH entry point, a physical address.
    pub entry: u32,
    /// What to load; at least one.
    pub loads: heapless::Vec<Load<'a>, SEGMENTS_MAX>,
}

impl<'a> Kernel<'a> {
    /// Checks a file.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn parse(file: &'a [u8]) -> Result<Self, KernelError> {
        if !file.starts_with(b"\x7fELF") {
            return Err(KernelError::NotElf);
        }
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(unreadable)?;
        let program = elf.ehdr.e_type == ET_EXEC || elf.ehdr.e_type == ET_DYN;
        if elf.ehdr.class != Class::ELF64 || elf.ehdr.e_machine != EM_X86_64 || !program {
            return Err(KernelError::WrongMachine);
        }
        let mut kernel = Kernel { entry: 0, loads: heapless::Vec::new() };
        let mut entry = None;
        for (index, header) in elf.segments().ok_or(KernelError::Segments)?.iter().enumerate() {
            match header.p_type {
                PT_LOAD if header.p_memsz > 0 => kernel.add(load(file, index, &header)?, index)?,
                PT_NOTE => entry = entry.or(entry_note(&elf, &header)?),
                _ => {}
            }
        }
        if kernel.loads.is_empty() {
            return Err(KernelError::Segments);
        }
        kernel.entry = entry.ok_or(KernelError::NoEntry)?;
        let inside = |load: &Load<'_>| load.addresses().contains(&kernel.entry.into());
        if kernel.loads.iter().any(inside) { Ok(kernel) } else { Err(KernelError::Entry) }
    }

    /// The addresses from its first byte to its last.
    pub fn addresses(&self) -> Range<u64> {
        let first = self.loads.iter().map(|load| load.gpa).min().unwrap_or(0);
        let end = self.loads.iter().map(|load| load.addresses().end).max().unwrap_or(0);
        first..end
    }

    fn add(&mut self, new: Load<'a>, index: usize) -> Result<(), KernelError> {
        let (start, end) = (new.gpa, new.addresses().end);
        if self.loads.iter().any(|old| start < old.addresses().end && old.gpa < end) {
            return Err(KernelError::Overlap(index));
        }
        self.loads.push(new).map_err(|_| KernelError::Segments)
    }
}

fn unreadable(error: elf::ParseError) -> KernelError {
    match error {
        elf::ParseError::BadMagic(_) => KernelError::NotElf,
        elf::ParseError::UnsupportedElfClass(_)
        | elf::ParseError::UnsupportedElfEndianness(_)
        | elf::ParseError::UnsupportedVersion(_) => KernelError::WrongMachine,
        _ => KernelError::Truncated,
    }
}

fn load<'a>(file: &'a [u8], index: usize, header: &ProgramHeader) -> Result<Load<'a>, KernelError> {
    let end = header.p_paddr.checked_add(header.p_memsz).filter(|end| *end <= ADDRESS_LIMIT);
    end.ok_or(KernelError::OutOfRange(index))?;
    if header.p_filesz > header.p_memsz {
        return Err(KernelError::TooLong(index));
    }
    let offset = usize::try_from(header.p_offset).map_err(|_| KernelError::Truncated)?;
    let bytes = usize::try_from(header.p_filesz).map_err(|_| KernelError::Truncated)?;
    let end = offset.checked_add(bytes).ok_or(KernelError::Truncated)?;
    let bytes = file.get(offset..end).ok_or(KernelError::Truncated)?;
    Ok(Load { gpa: header.p_paddr, memory_bytes: header.p_memsz, bytes })
}

/// The PVH entry point among the notes of a segment. Each note has 12 bytes at least, so the walk ends.
fn entry_note(elf: &ElfBytes<'_, LittleEndian>, header: &ProgramHeader) -> Result<Option<u32>, KernelError> {
    let mut notes = elf.segment_data_as_notes(header).map_err(|_| KernelError::Truncated)?;
    Ok(notes.find_map(|note| match note {
        Note::Unknown(NoteAny { n_type, name, desc })
            if u32::try_from(n_type) == Ok(XEN_ELFNOTE_PHYS32_ENTRY) && name == XEN_ELFNOTE_NAME =>
        {
            number(desc)
        }
        _ => None,
    }))
}

/// A descriptor of 4 or 8 bytes.
fn number(descriptor: &[u8]) -> Option<u32> {
    match descriptor.len() {
        4 => Some(u32::from_le_bytes(descriptor.try_into().ok()?)),
        8 => u32::try_from(u64::from_le_bytes(descriptor.try_into().ok()?)).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
