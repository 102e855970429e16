//! What the hypervisor keeps for each domain's vCPU beside the logic's part: registers and I/O ports.
//!
//! A frame is touched by the CPU that runs the vCPU (through SYSCALL and traps), or, while it does not run, by whoever
//! changes its domain's state. Native domains have one vCPU, so a frame goes by its domain's slot.

use crate::cpu::descriptors::{NO_PORTS, PortBitmap};
use crate::{cpu::percpu::PerCpu, traps::Frame};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use core::{cell::UnsafeCell, mem::offset_of};
use hv_core::ids::{DomId, Hpa, SLOTS, Slot};
use hv_core::{authority::table::Range, fallible, fallible::OutOfMemory};
use spin::Mutex;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::{PhysAddr, VirtAddr, structures::paging::PhysFrame};

/// The assembly in `traps::entry` knows where the first two are.
#[repr(C, align(256))] // no domain's is in another's cache line
pub struct Place {
    frame: UnsafeCell<Frame>,
    /// Hypercalls that the domain has made. (Only the CPU that it runs on counts.)
    pub hypercalls: AtomicU64,
    root: AtomicU64,
    /// No other bitmap since boot has this number; 0: no ports.
    bitmap: AtomicU64,
    domain: AtomicU16,
    /// One, or none for a domain without ports.
    ports: Mutex<Vec<PortBitmap>>,
    /// How far a multicall has come.
    pub progress: AtomicU32,
    /// Ticks that the domain ran before it was paused last: what the run queue has forgotten.
    pub ran: AtomicU64,
}

/// Where a domain's hypercalls are counted, from its frame.
pub const HYPERCALLS: usize = offset_of!(Place, hypercalls);
const _: () = assert!(offset_of!(Place, frame) == 0);

// SAFETY: the cell is only handed out as a raw pointer, under the rule in the module's description; the rest is locked.
unsafe impl Sync for Place {}

static PLACES: [Place; SLOTS] = [const {
    Place {
        frame: UnsafeCell::new(Frame::start(0, 0, 0)),
        hypercalls: AtomicU64::new(0),
        root: AtomicU64::new(0),
        bitmap: AtomicU64::new(0),
        domain: AtomicU16::new(0),
        ports: Mutex::new(Vec::new()),
        progress: AtomicU32::new(0),
        ran: AtomicU64::new(0),
    }
}; SLOTS];

/// What is kept for a slot.
pub fn place(slot: Slot) -> &'static Place {
    &PLACES[usize::from(slot.0) % SLOTS]
}

/// A vCPU's registers.
fn frame(slot: Slot) -> *mut Frame {
    place(slot).frame.get()
}

/// Sets the registers of a vCPU that has not run yet.
pub fn set_frame(slot: Slot, registers: Frame) {
    // SAFETY: the domain is being built: no CPU runs it, and its builder, our caller, is the only one who changes it.
    unsafe { frame(slot).write(registers) }
}

/// Whether a vCPU was given an entry point.
pub fn has_entry(slot: Slot) -> bool {
    // SAFETY: as in `set_frame`.
    unsafe { (*frame(slot)).rip != 0 }
}

/// Sets the I/O ports of a new domain. `Err`: no memory.
pub fn set_ports(slot: Slot, ranges: &[Range]) -> Result<(), OutOfMemory> {
    let mut bitmaps = fallible::filled(ranges.len().min(1), NO_PORTS)?;
    for port in ranges.iter().flat_map(|range| range.first..=range.last) {
        let bitmap = bitmaps.first_mut().filter(|_| port <= 0xffff);
        if let Some(byte) = bitmap.and_then(|bitmap| bitmap.get_mut(port as usize / 8)) {
            *byte &= !(1 << (port % 8));
        }
    }
    static LAST: AtomicU64 = AtomicU64::new(0);
    if !bitmaps.is_empty() {
        place(slot).bitmap.store(LAST.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
    *place(slot).ports.lock() = bitmaps;
    Ok(())
}

impl Place {
    /// Which domain's it is.
    pub fn domain(&self) -> DomId {
        DomId(self.domain.load(Ordering::Relaxed))
    }

    /// Makes this vCPU the one that the CPU runs: registers, page tables, I/O ports. Answers its frame.
    #[inline(always)] // in the way of each switch
    pub fn load(&'static self, cpu: &mut PerCpu) -> *mut Frame {
        cpu.current = self.domain();
        cpu.frame = self.frame.get();
        // SAFETY: an address is canonical; `root` is the domain's top-level table, in whose upper half the hypervisor has
        // the mappings that it has everywhere.
        unsafe {
            cpu.descriptors.set_ring0_stack(VirtAddr::new_unsafe(cpu.frame.wrapping_add(1).addr() as u64));
            let root = PhysAddr::new_unsafe(self.root.load(Ordering::Relaxed));
            Cr3::write(PhysFrame::from_start_address_unchecked(root), Cr3Flags::empty());
        }
        if cpu.descriptors.allow_ports(self.bitmap.load(Ordering::Relaxed)) { cpu.frame } else { self.load_ports(cpu) }
    }

    #[inline(never)]
    fn load_ports(&self, cpu: &mut PerCpu) -> *mut Frame {
        let number = self.bitmap.load(Ordering::Relaxed);
        cpu.descriptors.set_ports(number, self.ports.lock().first().unwrap_or(&NO_PORTS));
        cpu.descriptors.allow_ports(number);
        cpu.frame
    }
}

/// Forgets what an earlier domain left in a slot.
pub fn clear(slot: Slot) {
    place(slot).bitmap.store(0, Ordering::Relaxed);
    *place(slot).ports.lock() = Vec::new();
    place(slot).progress.store(0, Ordering::Relaxed);
}

/// Which domain a slot's vCPU is.
pub fn domain(slot: Slot) -> DomId {
    place(slot).domain()
}

/// The top-level page table of a slot's domain.
pub fn root(slot: Slot) -> Hpa {
    Hpa(place(slot).root.load(Ordering::Relaxed))
}

/// Gives a slot to a new domain.
pub fn occupy(slot: Slot, domain: DomId, root: Hpa) {
    let place = place(slot);
    set_frame(slot, Frame::start(0, 0, 0));
    place.domain.store(domain.0, Ordering::Relaxed);
    place.root.store(root.0, Ordering::Relaxed);
    place.hypercalls.store(0, Ordering::Relaxed);
    place.ran.store(0, Ordering::Relaxed);
    clear(slot);
}
