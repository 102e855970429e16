//! A guest's addresses in its hypercalls: walked through its own page tables (AMD APM volume 2, 5.3), each table read by the
//! domain's own page table, so that a guest reaches what it could reach itself, and nothing else.
//!
//! While a guest is current, no address is a direct one (`PerCpu::direct`), and `mm::user` comes here.

use crate::vm::hardware::{Hardware, Tables};
use crate::{cpu::percpu, cpu::percpu::NATIVE_DIRECT, domain::next_key, mm::user};
use hv_core::{ids::Gpa, ids::PAGE_BYTES, space::Access, space::Fault};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Serves a part of a guest's hypercall whose addresses are guest-physical.
pub fn serve_direct<R>(serve: impl FnOnce() -> R) -> R {
    percpu::with(|cpu| cpu.direct = NATIVE_DIRECT);
    let result = serve();
    percpu::with(|cpu| cpu.direct = 0);
    result
}

/// Whether a guest's hypercall is being served, as long as any is.
pub fn is_served() -> bool {
    percpu::direct() == 0
}

/// The guest-physical address of a run of guest addresses that lies in one page.
#[cold]
pub fn in_one_page(start: Gpa, bytes: usize, access: Access) -> Result<u64, Fault> {
    let fits = start.offset() + bytes as u64 <= PAGE_BYTES;
    if fits { translate(&tables()?, start.0, access) } else { Err(Fault) }
}

/// Those of the vCPU whose hypercall is being served.
fn tables() -> Result<Tables, Fault> {
    let key = next_key().filter(|_| is_served()).ok_or(Fault)?;
    super::with_vcpu(key, |vcpu| vcpu.hardware.tables()).ok_or(Fault)
}

/// Hands the pieces of a run of guest addresses to `piece`, as guest-physical address, place in the run, and length; none
/// crosses a page.
pub fn pieces(
    start: Gpa,
    bytes: usize,
    access: Access,
    mut piece: impl FnMut(u64, usize, usize) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let tables = tables()?;
    let mut done = 0;
    while done < bytes {
        let at = start.0.checked_add(done as u64).ok_or(Fault)?;
        let length = (bytes - done).min((PAGE_BYTES - at % PAGE_BYTES) as usize);
        piece(translate(&tables, at, access)?, done, length)?;
        done += length;
    }
    Ok(())
}

/// The guest-physical address behind a guest-virtual one, by the rights of the guest's kernel.
fn translate(guest: &Tables, at: u64, access: Access) -> Result<u64, Fault> {
    if (at as i64) << 16 >> 16 != at as i64 {
        return Err(Fault);
    }
    let mut table = guest.root & ADDRESS;
    let mut level = 4;
    loop {
        level -= 1;
        let shift = 12 + 9 * level;
        let place = table + (at >> shift & 0x1ff) * 8;
        let entry = user::read_direct(place)?;
        if entry & PRESENT == 0 || (access == Access::Write && guest.write_protect && entry & WRITABLE == 0) {
            return Err(Fault);
        }
        let leaf = level == 0 || (level < 3 && entry & LARGE != 0);
        let marks = if leaf && access == Access::Write { ACCESSED | DIRTY } else { ACCESSED };
        if entry & marks != marks {
            user::mark_direct(place, marks)?;
        }
        if leaf {
            let within = (1 << shift) - 1;
            return user::lower_half(entry & ADDRESS & !within | at & within);
        }
        table = entry & ADDRESS;
    }
}
