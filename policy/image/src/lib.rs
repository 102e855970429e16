//! Domain images: an ELF file checked as a native domain's, and listed as pages to populate and bytes to copy.
//!
//! Used by the hypervisor for the policy domain's image and by the policy domain for all others. What it demands:
//! ELF64, little-endian, x86-64, statically linked at fixed addresses (`ET_EXEC`); loadable segments that begin on
//! pages, lie between `native::IMAGE_BASE` and `IMAGE_LIMIT`, do not share a page and are never writable and executable
//! at once; an entry point in an executable segment. Kernels of virtual machines follow other rules: [`kernel`].
#![no_std]
#![forbid(unsafe_code)]

pub mod kernel;

use core::ops::Range;

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;
use xen_abi::native::{IMAGE_BASE, IMAGE_LIMIT, PAGE_SIZE};

/// Loadable segments at most.
pub const SEGMENTS_MAX: usize = 16;

/// Why a file is no image. Numbers are those of program headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageError {
    /// It does not begin like an ELF file.
    NotElf,
    /// The file ends within a header or a segment.
    Truncated,
    /// ELF, but not 64-bit little-endian x86-64.
    WrongMachine,
    /// Position-independent, dynamically linked, or an object file.
    NotStatic,
    /// No loadable segment, or more than [`SEGMENTS_MAX`].
    Segments,
    /// A segment is writable and executable.
    WritableCode(usize),
    /// A segment does not begin on a page.
    Unaligned(usize),
    /// A segment lies outside the addresses for images.
    OutOfRange(usize),
    /// A segment has more bytes in the file than in memory.
    TooLong(usize),
    /// Two segments share a page.
    Overlap(usize),
    /// The entry point is in no executable segment.
    Entry,
}

impl core::fmt::Display for ImageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotElf => f.write_str("not an ELF file"),
            Self::Truncated => f.write_str("the file is truncated"),
            Self::WrongMachine => f.write_str("not for 64-bit x86-64"),
            Self::NotStatic => f.write_str("not statically linked at fixed addresses"),
            Self::Segments => write!(f, "no segment to load, or more than {SEGMENTS_MAX}"),
            Self::WritableCode(index) => write!(f, "segment {index} is writable and executable"),
            Self::Unaligned(index) => write!(f, "segment {index} does not begin on a page"),
            Self::OutOfRange(index) => write!(f, "segment {index} lies outside {IMAGE_BASE:#x}..{IMAGE_LIMIT:#x}"),
            Self::TooLong(index) => write!(f, "segment {index} is longer in the file than in memory"),
            Self::Overlap(index) => write!(f, "segment {index} shares a page with an earlier one"),
            Self::Entry => f.write_str("the entry point is in no executable segment"),
        }
    }
}

impl core::error::Error for ImageError {}

/// What a segment's pages allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// Constants.
    Read,
    /// Data.
    ReadWrite,
    /// Code.
    ReadExecute,
}

impl Rights {
    /// `platform::RIGHTS_*`, as `Populate` takes them.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Read => xen_abi::platform::RIGHTS_READ,
            Self::ReadWrite => xen_abi::platform::RIGHTS_WRITE,
            Self::ReadExecute => xen_abi::platform::RIGHTS_EXECUTE,
        }
    }
}

/// A run of pages with its contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    /// First byte, on a page.
    pub gpa: u64,
    /// Pages; what `bytes` leave of them is zero.
    pub pages: u64,
    /// Contents, from the file.
    pub bytes: &'a [u8],
    /// Where `bytes` begin in the file.
    pub file_offset: usize,
    /// What the pages allow.
    pub rights: Rights,
}

impl Segment<'_> {
    /// Its pages' guest frame numbers.
    pub fn gfns(&self) -> Range<u64> {
        let first = self.gpa / PAGE_SIZE;
        first..first.saturating_add(self.pages)
    }
}

/// A checked image.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// First instruction.
    pub entry: u64,
    /// What to load.
    pub segments: heapless::Vec<Segment<'a>, SEGMENTS_MAX>,
}

impl<'a> Image<'a> {
    /// Checks a file.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn parse(file: &'a [u8]) -> Result<Self, ImageError> {
        if !file.starts_with(b"\x7fELF") {
            return Err(ImageError::NotElf);
        }
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(unreadable)?;
        if elf.ehdr.class != Class::ELF64 || elf.ehdr.e_machine != EM_X86_64 {
            return Err(ImageError::WrongMachine);
        }
        if elf.ehdr.e_type != ET_EXEC {
            return Err(ImageError::NotStatic);
        }
        let mut image = Image { entry: elf.ehdr.e_entry, segments: heapless::Vec::new() };
        for (index, header) in elf.segments().ok_or(ImageError::Segments)?.iter().enumerate() {
            match header.p_type {
                PT_INTERP | PT_DYNAMIC => return Err(ImageError::NotStatic),
                PT_LOAD if header.p_memsz > 0 => image.add(segment(file, index, &header)?, index)?,
                _ => {}
            }
        }
        image.check_entry()?;
        Ok(image)
    }

    /// Pages of all segments.
    pub fn pages(&self) -> u64 {
        self.segments.iter().map(|segment| segment.pages).sum()
    }

    fn add(&mut self, segment: Segment<'a>, index: usize) -> Result<(), ImageError> {
        let new = segment.gfns();
        let shares_page = |earlier: &Segment<'_>| {
            let old = earlier.gfns();
            new.start < old.end && old.start < new.end
        };
        if self.segments.iter().any(shares_page) {
            return Err(ImageError::Overlap(index));
        }
        self.segments.push(segment).map_err(|_| ImageError::Segments)
    }

    fn check_entry(&self) -> Result<(), ImageError> {
        if self.segments.is_empty() {
            return Err(ImageError::Segments);
        }
        let page = self.entry / PAGE_SIZE;
        let in_code = |segment: &Segment<'_>| segment.rights == Rights::ReadExecute && segment.gfns().contains(&page);
        if self.segments.iter().any(in_code) { Ok(()) } else { Err(ImageError::Entry) }
    }
}

fn unreadable(error: elf::ParseError) -> ImageError {
    match error {
        elf::ParseError::BadMagic(_) => ImageError::NotElf,
        elf::ParseError::UnsupportedElfClass(_)
        | elf::ParseError::UnsupportedElfEndianness(_)
        | elf::ParseError::UnsupportedVersion(_) => ImageError::WrongMachine,
        _ => ImageError::Truncated,
    }
}

fn segment<'a>(file: &'a [u8], index: usize, header: &ProgramHeader) -> Result<Segment<'a>, ImageError> {
    let rights = match (header.p_flags & PF_W != 0, header.p_flags & PF_X != 0) {
        (true, true) => return Err(ImageError::WritableCode(index)),
        (true, false) => Rights::ReadWrite,
        (false, true) => Rights::ReadExecute,
        (false, false) => Rights::Read,
    };
    if !header.p_vaddr.is_multiple_of(PAGE_SIZE) {
        return Err(ImageError::Unaligned(index));
    }
    let end = header.p_vaddr.checked_add(header.p_memsz).ok_or(ImageError::OutOfRange(index))?;
    if header.p_vaddr < IMAGE_BASE || end > IMAGE_LIMIT {
        return Err(ImageError::OutOfRange(index));
    }
    if header.p_filesz > header.p_memsz {
        return Err(ImageError::TooLong(index));
    }
    let file_offset = usize::try_from(header.p_offset).map_err(|_| ImageError::Truncated)?;
    let bytes = usize::try_from(header.p_filesz).map_err(|_| ImageError::Truncated)?;
    let file_end = file_offset.checked_add(bytes).ok_or(ImageError::Truncated)?;
    let bytes = file.get(file_offset..file_end).ok_or(ImageError::Truncated)?;
    Ok(Segment { gpa: header.p_vaddr, pages: header.p_memsz.div_ceil(PAGE_SIZE), bytes, file_offset, rights })
}

#[cfg(test)]
mod tests;
