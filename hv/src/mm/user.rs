//! The running domain's memory, reached through its own page table: so by its own rights, at the cost of a few moves.
//!
//! Every access is an instruction that is allowed to fault. Each such run of instructions is in the list of `fixups`
//! (see `hv.ld`); a page fault inside one goes on behind it, with RAX set ([`fixup`]). Addresses end below the window
//! for device registers, so that no register is ever read or written here, and nothing of the hypervisor.

use crate::{cpu::percpu, vm::guest};
use core::{arch::asm, mem::MaybeUninit};
use hv_core::{ids::Gpa, ids::PAGE_BYTES, space::Access, space::Fault};
use xen_abi::native::ADDRESS_LIMIT;
use zerocopy::{FromBytes, Immutable, IntoBytes};

unsafe extern "C" {
    static fixups_start: [u64; 2];
    static fixups_end: [u64; 2];
}

/// Where to go on after a page fault at `rip`: behind the run of instructions that may fault, if it is one.
pub fn fixup(rip: u64) -> Option<u64> {
    let (start, end) = (&raw const fixups_start, &raw const fixups_end);
    let count = (end.addr() - start.addr()) / size_of::<[u64; 2]>();
    // SAFETY: the linker script puts the list between these two symbols, in read-only memory.
    let runs = unsafe { core::slice::from_raw_parts(start, count) };
    runs.iter().find(|[from, to]| (*from..*to).contains(&rip)).map(|[_, to]| *to)
}

/// Where a run of bytes, at most a page, of the domain's part of the address space is: its very address, or that behind a
/// guest's. An error too if a guest's run crosses a page, and must be gone through page by page.
#[inline(always)]
fn within(at: Gpa, bytes: usize, access: Access) -> Result<u64, Fault> {
    if at.0 < percpu::direct() { Ok(at.0) } else { guest::in_one_page(at, bytes, access) }
}

/// Instructions that reach the domain's memory, and their operands; `Err` on a page fault in them. Access to domain memory
/// is open for them alone.
macro_rules! may_fault {
    ($($instruction:literal),+; $($operands:tt)+) => {{
        let fault: u64;
        asm!(
            "xor eax, eax",
            "stac",
            "2:",
            $($instruction,)+
            "3: clac",
            ".pushsection .fixups, \"a\"",
            ".quad 2b, 3b",
            ".popsection",
            out("rax") fault,
            $($operands)+,
            options(nostack),
        );
        if fault == 0 { Ok(()) } else { Err(Fault) }
    }};
}

/// Copies a structure, whose size is a multiple of 4.
///
/// # Safety
/// The hypervisor's side belongs to the caller; the domain's is `within` its part of the address space.
#[inline(always)]
unsafe fn copy_words<const BYTES: usize>(from: *const u8, to: *mut u8) -> Result<(), Fault> {
    const { assert!(BYTES.is_multiple_of(4)) }
    // SAFETY: the caller's promise; a fault is fixed up; access to domain memory is closed again in any case.
    unsafe {
        may_fault!(
            ".set at_byte, 0",
            ".rept {words}",
            "mov {word}, [{from} + at_byte]",
            "mov [{to} + at_byte], {word}",
            ".set at_byte, at_byte + 8",
            ".endr",
            ".rept {halves}",
            "mov {word:e}, [{from} + at_byte]",
            "mov [{to} + at_byte], {word:e}",
            ".endr";
            words = const BYTES / 8, halves = const BYTES % 8 / 4,
            from = in(reg) from, to = in(reg) to, word = out(reg) _
        )
    }
}

/// Copies a structure in.
pub fn read<T: FromBytes + Copy>(from: Gpa) -> Result<T, Fault> {
    Ok(*read_into(from, &mut MaybeUninit::uninit())?)
}

/// Copies a structure to a place.
#[inline(always)]
pub fn read_into<T: FromBytes>(from: Gpa, place: &mut MaybeUninit<T>) -> Result<&mut T, Fault> {
    let ours = place.as_mut_ptr().cast();
    // SAFETY: `place` is ours; where the domain's bytes all arrived, any bytes are a `T`.
    unsafe {
        match within(from, size_of::<T>(), Access::Read) {
            Ok(from) => sized::<T>(from as *const u8, ours)?,
            Err(Fault) => by_pages(from, ours, size_of::<T>(), Access::Read)?,
        }
        Ok(place.assume_init_mut())
    }
}

/// Copies a structure out.
#[inline(always)]
pub fn write<T: IntoBytes + Immutable>(to: Gpa, value: &T) -> Result<(), Fault> {
    let ours: *const u8 = (&raw const *value).cast();
    // SAFETY: `value` is borrowed, has no padding, and the domain's side is its own.
    unsafe {
        match within(to, size_of::<T>(), Access::Write) {
            Ok(to) => sized::<T>(ours, to as *mut u8),
            Err(Fault) => by_pages(to, ours.cast_mut(), size_of::<T>(), Access::Write),
        }
    }
}

/// # Safety
/// As [`copy_words`].
#[inline(always)]
unsafe fn sized<T>(from: *const u8, to: *mut u8) -> Result<(), Fault> {
    // SAFETY: the caller's promise. The sizes are those of the structures of the hottest calls; all others go by bytes.
    unsafe {
        match size_of::<T>() {
            4 => copy_words::<4>(from, to),
            16 => copy_words::<16>(from, to),
            bytes => copy_bytes(from, to, bytes),
        }
    }
}

/// # Safety
/// As [`copy_words`].
#[inline(never)]
unsafe fn copy_bytes(from: *const u8, to: *mut u8, bytes: usize) -> Result<(), Fault> {
    // SAFETY: as in `copy_words`. The direction flag is clear.
    unsafe {
        may_fault!(
            "rep movsb";
            inout("rcx") bytes => _, inout("rsi") from => _, inout("rdi") to => _
        )
    }
}

/// Copies a structure of 3, 4 or 5 words in, has it served, and copies its words from `OUT` on out; they must be able to
/// be written, which is tried first. In registers, so that what is not looked at costs nothing. `None`: it was not
/// served.
#[inline(always)]
pub fn serve_one<T, const OUT: usize>(at: Gpa, serve: impl FnOnce(&mut T) -> Option<()>) -> Option<Result<(), Fault>>
where
    T: FromBytes + IntoBytes + Immutable,
{
    const { assert!(matches!(size_of::<T>(), 24 | 32 | 40) && matches!(size_of::<T>() / 8 - OUT, 1 | 2)) }
    if at.0 >= percpu::direct() {
        return None;
    }
    let at = at.0;
    let mut words = [0_u64; 5];
    let [w0, w1, w2, w3, w4] = &mut words;
    // SAFETY: the address is one of the loaded address space, as in `within`; a probe changes nothing, in one step; faults
    // are fixed up. Words that the structure does not have are not used.
    unsafe {
        may_fault!(
            ".set at_byte, {out} * 8",
            ".rept {words} - {out}",
            "lock or qword ptr [{at} + at_byte], 0",
            ".set at_byte, at_byte + 8",
            ".endr",
            "mov {w0}, [{at}]",
            "mov {w1}, [{at} + 8]",
            "mov {w2}, [{at} + 16]",
            ".if {words} > 3",
            "mov {w3}, [{at} + 24]",
            ".endif",
            ".if {words} > 4",
            "mov {w4}, [{at} + 32]",
            ".endif";
            words = const size_of::<T>() / 8, out = const OUT, at = in(reg) at,
            w0 = out(reg) *w0, w1 = out(reg) *w1, w2 = out(reg) *w2, w3 = out(reg) *w3, w4 = out(reg) *w4
        )
        .ok()?;
    }
    let mut op = T::read_from_bytes(&words.as_bytes()[..size_of::<T>()]).ok()?;
    serve(&mut op)?;
    words.as_mut_bytes()[..size_of::<T>()].copy_from_slice(op.as_bytes());
    // SAFETY: as above.
    Some(unsafe {
        may_fault!(
            "mov [{at} + {out} * 8], {first}",
            ".if {words} - {out} > 1",
            "mov [{at} + {out} * 8 + 8], {second}",
            ".endif";
            words = const size_of::<T>() / 8, out = const OUT, at = in(reg) at,
            first = in(reg) words[OUT], second = in(reg) words[(OUT + 1).min(4)]
        )
    })
}

/// Copies structures in, has them served, and copies them out. They are served only if the results can be written: the
/// first and the last byte are written as they are, and no page lies between those two.
#[inline(always)]
pub fn serve_slice<T, const MAX: usize>(at: Gpa, length: usize, serve: impl FnOnce(&mut [T])) -> Result<(), Fault>
where
    T: FromBytes + IntoBytes + Immutable,
{
    const { assert!(size_of::<T>().is_multiple_of(8) && size_of::<[T; MAX]>() as u64 <= PAGE_BYTES) }
    let place = &mut [const { MaybeUninit::<T>::uninit() }; MAX];
    let places = place.get_mut(..length).unwrap_or_default();
    let (ours, bytes) = (places.as_mut_ptr().cast::<u8>(), size_of_val(places));
    if bytes == 0 {
        return Ok(());
    }
    let Ok(theirs) = within(at, bytes, Access::Write) else {
        check_writable(at, bytes)?;
        // SAFETY: as below.
        unsafe {
            by_pages(at, ours, bytes, Access::Read)?;
            serve(places.assume_init_mut());
            return by_pages(at, ours, bytes, Access::Write);
        }
    };
    let theirs = theirs as *mut u8;
    // SAFETY: `places` is ours, at least one, without padding; `within` was asked about the domain's side. Where its
    // bytes all arrived, any bytes are a `T`.
    unsafe {
        copy_run::<1>(theirs, ours, bytes)?;
        serve(places.assume_init_mut());
        copy_run::<0>(ours, theirs, bytes)
    }
}

/// Copies a multiple of 8 bytes, after a try to write the first and the last of `from` if `PROBES` is 1.
///
/// # Safety
/// As [`copy_words`]; to be probed, there must be bytes at all.
#[inline(always)]
unsafe fn copy_run<const PROBES: usize>(from: *const u8, to: *mut u8, bytes: usize) -> Result<(), Fault> {
    // SAFETY: as in `copy_words`; a probe changes nothing, in one step. The direction flag is clear.
    unsafe {
        may_fault!(
            ".rept {probes}",
            "lock or byte ptr [rsi], 0",
            "lock or byte ptr [rsi + rcx * 8 - 1], 0",
            ".endr",
            "rep movsq";
            probes = const PROBES,
            inout("rcx") bytes / 8 => _, inout("rsi") from => _, inout("rdi") to => _
        )
    }
}

/// Copies bytes in. On a fault, `into` may be half filled and must not be used.
pub fn read_bytes(from: Gpa, into: &mut [u8]) -> Result<(), Fault> {
    // SAFETY: `into` is borrowed exclusively.
    unsafe { by_pages(from, into.as_mut_ptr(), into.len(), Access::Read) }
}

/// Copies bytes out. On a fault some may have been written: where the domain could write itself.
pub fn write_bytes(to: Gpa, bytes: &[u8]) -> Result<(), Fault> {
    // SAFETY: `bytes` is borrowed.
    unsafe { by_pages(to, bytes.as_ptr().cast_mut(), bytes.len(), Access::Write) }
}

/// Checks that `bytes` bytes could be written, before anything is done whose result has to be told.
#[inline(always)]
pub fn check_writable(to: Gpa, bytes: usize) -> Result<(), Fault> {
    let Ok(start) = within(to, bytes, Access::Write) else {
        return guest::pieces(to, bytes.max(1), Access::Write, |theirs, _, _| touch(theirs));
    };
    let end = start + bytes.max(1) as u64 - 1;
    touch(start)?;
    // A page each, and the last byte's.
    let mut page = start | (PAGE_BYTES - 1);
    while page < end {
        touch((page + 1).min(end))?;
        page += PAGE_BYTES;
    }
    Ok(())
}

/// Writes a byte as it is.
#[inline(always)]
fn touch(at: u64) -> Result<(), Fault> {
    // SAFETY: `within` was asked; the write changes nothing, in one step, and a fault is fixed up.
    unsafe {
        may_fault!(
            "lock or byte ptr [{at}], 0";
            at = in(reg) at
        )
    }
}

/// Copies from or to a domain's address; a guest's, page by page.
///
/// # Safety
/// `ours` is the caller's; not written if `access` is a write of the domain's memory.
#[cold]
unsafe fn by_pages(at: Gpa, ours: *mut u8, bytes: usize, access: Access) -> Result<(), Fault> {
    let piece = |theirs: u64, start: usize, length: usize| {
        // SAFETY: the caller's promise; pieces lie within the run; `theirs` is in the domain's part of the address space.
        unsafe {
            match access {
                Access::Read => copy_bytes(theirs as *const u8, ours.add(start), length),
                Access::Write => copy_bytes(ours.add(start), theirs as *mut u8, length),
            }
        }
    };
    match within(at, bytes, access) {
        Ok(theirs) => piece(theirs, 0, bytes),
        Err(Fault) => guest::pieces(at, bytes, access, piece),
    }
}

/// Reads a word of the loaded address space.
pub fn read_direct(at: u64) -> Result<u64, Fault> {
    let mut word = 0u64;
    // SAFETY: `word` is ours; an address beyond the domain's part is refused.
    unsafe { copy_words::<8>(lower_half(at)? as *const u8, (&raw mut word).cast())? };
    Ok(word)
}

/// Writes bytes into the loaded address space.
pub fn write_direct(to: u64, bytes: &[u8]) -> Result<(), Fault> {
    // SAFETY: `bytes` is borrowed; as above.
    unsafe { copy_bytes(bytes.as_ptr(), lower_half(to)? as *mut u8, bytes.len()) }
}

/// Sets bits of a word of the loaded address space, in one step.
pub fn mark_direct(at: u64, bits: u64) -> Result<(), Fault> {
    let at = lower_half(at)?;
    // SAFETY: an address of the domain's own; a fault is fixed up.
    unsafe {
        may_fault!(
            "lock or qword ptr [{at}], {bits}";
            at = in(reg) at, bits = in(reg) bits
        )
    }
}

/// An address of the domain's part of the address space; a page at it does not leave that.
pub fn lower_half(at: u64) -> Result<u64, Fault> {
    if at < ADDRESS_LIMIT - PAGE_BYTES { Ok(at) } else { Err(Fault) }
}
