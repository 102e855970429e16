//! Kernels: from a bzImage or a vmlinux to a small ELF file with just what a loader needs.
//!
//! A bzImage holds a compressed vmlinux (Linux `Documentation/arch/x86/boot.rst`: `setup_sects`, `payload_offset`,
//! `payload_length`). It is unpacked here, on the host: neither the hypervisor nor the policy domain decompresses
//! anything.

use super::unpack::{Format, unpack};
use anyhow::{Context, Result, bail, ensure};
use elf::ElfBytes;
use elf::abi::{PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;
use image::kernel::Kernel;

const SETUP_SECTORS: usize = 0x1f1;
const BOOT_MAGIC: usize = 0x202;
const BOOT_VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_BYTES: usize = 0x24c;
const SECTOR: usize = 512;
/// The first version of the boot protocol that says where the payload is.
const VERSION_WITH_PAYLOAD: u16 = 0x208;

const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// The loadable part of a kernel file, checked as the policy domain will check it.
pub fn elf(file: &[u8]) -> Result<Vec<u8>> {
    let vmlinux = match is_bzimage(file) {
        true => unpack_bzimage(file).context("bzImage")?,
        false => unpack(file).context("neither a bzImage nor a vmlinux")?,
    };
    let small = shrink(&vmlinux)?;
    Kernel::parse(&small)?;
    Ok(small)
}

fn number(file: &[u8], at: usize, bytes: usize) -> Result<usize> {
    let bytes = file.get(at..at + bytes).context("the file is truncated")?;
    Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

fn is_bzimage(file: &[u8]) -> bool {
    file.get(BOOT_MAGIC..BOOT_MAGIC + 4) == Some(b"HdrS".as_slice())
}

fn unpack_bzimage(file: &[u8]) -> Result<Vec<u8>> {
    let version = number(file, BOOT_VERSION, 2)? as u16;
    ensure!(version >= VERSION_WITH_PAYLOAD, "its boot protocol {:#x} is too old: 2.8 or later is needed", version);
    let sectors = match number(file, SETUP_SECTORS, 1)? {
        0 => 4, // as old kernels mean it
        sectors => sectors,
    };
    let start = (sectors + 1) * SECTOR + number(file, PAYLOAD_OFFSET, 4)?;
    let payload = file.get(start..start + number(file, PAYLOAD_BYTES, 4)?).context("the file is truncated")?;
    // Linux's build appends the unpacked size, where the format does not have it at its end anyway.
    let format = Format::of(payload)?;
    let (packed, size) = payload.split_at_checked(payload.len().saturating_sub(4)).context("empty")?;
    let unpacked = match format {
        Format::Elf => return Ok(payload.to_vec()),
        Format::Gzip => unpack(payload)?,
        _ => unpack(packed)?,
    };
    let size = number(size, 0, 4)?;
    ensure!(unpacked.len() == size, "it unpacked to {} bytes, but says {size}", unpacked.len());
    Ok(unpacked)
}

/// A new ELF file with the loadable segments, without the zeros at their ends, and the notes.
fn shrink(file: &[u8]) -> Result<Vec<u8>> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).context("the kernel is no ELF file")?;
    let segments = elf.segments().context("the kernel has no program headers")?;
    let mut kept: Vec<(ProgramHeader, &[u8])> = vec![];
    for segment in segments.iter().filter(|segment| matches!(segment.p_type, PT_LOAD | PT_NOTE)) {
        let bytes = elf.segment_data(&segment).context("the kernel is truncated")?;
        kept.push((segment, if segment.p_type == PT_LOAD { without_zeros(bytes) } else { bytes }));
    }
    let mut offset = FILE_HEADER + kept.len() * PROGRAM_HEADER;
    let (Some(header), Ok(count)) = (file.get(..FILE_HEADER), u16::try_from(kept.len())) else {
        bail!("the kernel's headers make no sense");
    };
    let mut small = header.to_vec();
    let mut set = |at: usize, bytes: &[u8]| small[at..at + bytes.len()].copy_from_slice(bytes);
    set(32, &(FILE_HEADER as u64).to_le_bytes()); // e_phoff
    set(40, &[0; 8]); // e_shoff
    set(54, &(PROGRAM_HEADER as u16).to_le_bytes()); // e_phentsize
    set(56, &count.to_le_bytes()); // e_phnum
    set(58, &[0; 6]); // e_shentsize, e_shnum, e_shstrndx
    for (segment, bytes) in &kept {
        offset = offset.next_multiple_of(16);
        small.extend(segment.p_type.to_le_bytes());
        small.extend(segment.p_flags.to_le_bytes());
        let align = segment.p_align.min(4); // of notes it is the padding; to loading it does not matter
        for number in [offset as u64, segment.p_vaddr, segment.p_paddr, bytes.len() as u64, segment.p_memsz, align] {
            small.extend(number.to_le_bytes());
        }
        offset += bytes.len();
    }
    for (_, bytes) in &kept {
        small.resize(small.len().next_multiple_of(16), 0);
        small.extend(*bytes);
    }
    Ok(small)
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..end]
}

#[cfg(test)]
mod tests;
