//! GDT, TSS with the I/O permission bitmap, and IDT of one CPU (AMD APM volume 2, chapters 4, 8 and 12).
//!
//! Ring 3 has one code and one data segment, both 64-bit flat; there is no 32-bit code segment and no LDT, so a domain
//! cannot leave 64-bit mode. No gate can be called from ring 3.

use crate::{mm::map_stack, traps::entry};
use alloc::boxed::Box;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::{lgdt, lidt, load_tss};
use x86_64::structures::gdt::{DescriptorFlags, SegmentSelector};
use x86_64::structures::idt::{Entry, HandlerFunc};
use x86_64::{PrivilegeLevel, VirtAddr, structures::DescriptorTablePointer, structures::tss::TaskStateSegment};

/// Selector of the hypervisor's code.
pub const KERNEL_CODE: u16 = 0x08;
/// Selector of the hypervisor's stack.
pub const KERNEL_DATA: u16 = 0x10;
/// SYSRET takes CS from this + 16 and SS from this + 8. The slot itself stays empty: it would be 32-bit code.
pub const STAR_USER_BASE: u16 = 0x18 | 3;
/// Selector of a domain's data.
pub const USER_DATA: u16 = 0x20 | 3;
/// Selector of a domain's code.
pub const USER_CODE: u16 = 0x28 | 3;
const TSS_SELECTOR: u16 = 0x30;

/// Non-maskable interrupts, double faults and machine checks come on stacks of their own; the place in this list is the
/// slot in the interrupt stack table.
const OWN_STACK: [u8; 3] = [2, 8, 18];
/// Pages of each of these stacks.
const IST_PAGES: u64 = 4;

/// Bytes of a full I/O permission bitmap, and the byte of ones that must follow it.
const BITMAP_BYTES: usize = 65536 / 8 + 1;
/// An I/O map base beyond the segment's limit: no port is allowed.
const NO_BITMAP: u16 = u16::MAX;

/// A domain's I/O ports: a clear bit allows a port.
pub type PortBitmap = [u8; BITMAP_BYTES];

/// No port is allowed.
pub const NO_PORTS: PortBitmap = [0xff; BITMAP_BYTES];

/// The task state segment and what must follow it.
#[repr(C, align(4096))]
struct Tss {
    segment: TaskStateSegment,
    bitmap: PortBitmap,
}

/// One CPU's tables. They live as long as the CPU runs.
pub struct Descriptors {
    gdt: [u64; 8],
    tss: Tss,
    idt: [Entry<HandlerFunc>; 256],
    /// Whose bitmap is in the task state segment.
    bitmap: u64,
}

impl Descriptors {
    /// Makes the tables and loads them. Answers a handle to change the task state segment through.
    pub fn install() -> Result<&'static mut Self, crate::mm::MapError> {
        let mut segment = TaskStateSegment::new();
        for slot in 0..OWN_STACK.len() {
            segment.interrupt_stack_table[slot] = map_stack(IST_PAGES)?;
        }
        segment.iomap_base = NO_BITMAP;
        let tables = Box::leak(Box::new(Self {
            gdt: [0; 8],
            tss: Tss { segment, bitmap: NO_PORTS },
            idt: [const { Entry::missing() }; 256],
            bitmap: 0,
        }));
        tables.fill_gdt();
        tables.fill_idt();
        tables.load();
        Ok(tables)
    }

    fn fill_gdt(&mut self) {
        use DescriptorFlags as Flags;
        let all = [Flags::KERNEL_CODE64, Flags::KERNEL_DATA, Flags::USER_DATA, Flags::USER_CODE64];
        let [code, data, user_data, user_code] = all.map(|flags| flags.bits());
        // An available 64-bit TSS (type 9), present, with the bitmap inside its limit.
        let base = &raw const self.tss as u64;
        let limit = (size_of::<TaskStateSegment>() + BITMAP_BYTES - 1) as u64;
        let tss = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
        self.gdt = [0, code, data, 0, user_data, user_code, tss, base >> 32];
    }

    fn fill_idt(&mut self) {
        for (vector, gate) in (0u8..=255).zip(self.idt.iter_mut()) {
            // SAFETY: the stubs are entry points for their vectors, made for interrupt gates; the stack slots are
            // filled with stacks of their own.
            unsafe {
                let options = gate.set_handler_addr(entry::stub(vector));
                options.set_privilege_level(PrivilegeLevel::Ring0).disable_interrupts(true);
                options.set_code_selector(SegmentSelector(KERNEL_CODE));
                if let Some(slot) = OWN_STACK.iter().position(|own| *own == vector) {
                    options.set_stack_index(slot as u16);
                }
            }
        }
    }

    fn load(&self) {
        let (gdt, idt) = (pointer(&self.gdt), pointer(&self.idt));
        // SAFETY: `install` leaked the tables, so they stay, and they are complete: 64-bit code and data segments at the
        // selectors loaded, the TSS descriptor names this CPU's TSS, every gate has an entry point. FS and GS bases are
        // set later by MSR.
        unsafe {
            lgdt(&gdt);
            CS::set_reg(SegmentSelector(KERNEL_CODE));
            SS::set_reg(SegmentSelector(KERNEL_DATA));
            lidt(&idt);
            load_tss(SegmentSelector(TSS_SELECTOR));
            for null in [DS::set_reg, ES::set_reg, FS::set_reg, GS::set_reg] {
                null(SegmentSelector(0));
            }
        }
    }

    /// Sets the stack that traps from ring 3 start on.
    pub fn set_ring0_stack(&mut self, top: VirtAddr) {
        self.tss.segment.privilege_stack_table[0] = top;
    }

    /// Allows ring 3 the ports of a bitmap; 0: none. `false`: no port, since it is not here.
    #[inline(always)] // in the way of each switch
    pub fn allow_ports(&mut self, number: u64) -> bool {
        let here = number == 0 || number == self.bitmap;
        let with_bitmap = size_of::<TaskStateSegment>() as u16;
        self.tss.segment.iomap_base = if number != 0 && here { with_bitmap } else { NO_BITMAP };
        here
    }

    /// Copies a bitmap, for [`Self::allow_ports`] to find.
    pub fn set_ports(&mut self, number: u64, bitmap: &PortBitmap) {
        self.tss.bitmap = *bitmap;
        self.bitmap = number;
    }
}

fn pointer<T>(table: &T) -> DescriptorTablePointer {
    DescriptorTablePointer { base: VirtAddr::from_ptr(table), limit: (size_of::<T>() - 1) as u16 }
}
