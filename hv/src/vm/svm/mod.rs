//! AMD's secure virtual machine (APM volume 2, chapter 15), with nested paging.
//!
//! Where the CPU does not save the next instruction's address (QEMU's emulation does not), it is told from the length of the
//! instruction that every assembler makes; a guest that puts prefixes before one only harms itself.

mod switch;
mod vmcb;

pub use switch::Registers;

use super::hardware::{Event, Exit, Hardware, PortAccess, State, Tables};
use crate::{cpu::PAT_RESET, machine::Bare, machine::at, mm::frames, mm::layout::KERNEL_BASE};
use core::sync::atomic::{AtomicU16, Ordering};
use hv_core::{frames::Purpose, ids::Hpa, ids::Mfn};
use raw_cpuid::CpuId;
use vmcb::{Segment, Vmcb, intercept};
use x86_64::registers::control::{Cr0Flags, Cr4Flags, Efer, EferFlags};
use x86_64::registers::model_specific::Msr;

const VM_CR: u32 = 0xc001_0114;
const VM_CR_DISABLED: u64 = 1 << 4;
const VM_HSAVE_PA: u32 = 0xc001_0117;
const EFER_SVME: u64 = 1 << 12;
/// In a code segment's attributes: 64-bit code.
const CODE_64: u16 = 0x200;
const RFLAGS_ONE: u64 = 2;
const RFLAGS_IF: u64 = 1 << 9;
/// VMMCALL's exit code and length (0F 01 D9).
const EXIT_VMMCALL: u64 = 0x81;
const VMMCALL_BYTES: u64 = 3;

/// Address space identifiers that are used at most, and as many as every CPU has at least, but 0, which is the host's.
const ASIDS: usize = 64;

#[repr(C, align(4096))]
struct Pages<const BYTES: usize>([u8; BYTES]);

/// Every I/O port is intercepted.
static IO_MAP: Pages<0x3000> = Pages([0xff; 0x3000]);

/// Every model-specific register is intercepted, but those that the control block or VMLOAD and VMSAVE switch.
static MSR_MAP: Pages<0x2000> = {
    // Two bits a register, for reads and writes, in a part of 0x2000 registers: from 0 and from 0xc0000000.
    const HIGH: usize = 0x2000;
    let mut map = [0xff; 0x2000];
    // Time, which reads on; writes are undone by the offset that stays.
    map[0x10 / 4] &= !1;
    // SYSENTER's.
    map[0x174 / 4] &= !0b0011_1111;
    // Page attributes.
    map[0x277 / 4] &= !0b1100_0000;
    // SYSCALL's, from 0xc0000081.
    map[(HIGH + 0x80) / 4] &= !0b1111_1100;
    map[(HIGH + 0x84) / 4] &= !0b0000_0011;
    // FS, GS, the kernel's GS.
    map[(HIGH + 0x100) / 4] &= !0b0011_1111;
    Pages(map)
};

/// Which vCPU ran last with an address space identifier on this CPU: another one's translations must not be found.
static ASID_USERS: [AtomicU16; ASIDS] = [const { AtomicU16::new(0) }; ASIDS];
static ASIDS_HERE: AtomicU16 = AtomicU16::new(0);

/// What the CPU has, by CPUID.
fn features() -> Option<raw_cpuid::SvmFeatures> {
    let nested = |svm: &raw_cpuid::SvmFeatures| svm.has_nested_paging() && svm.supported_asids() > 1;
    CpuId::new().get_svm_info().filter(nested)
}

/// The physical address of a static of the image.
fn image_address<T>(place: &'static T) -> u64 {
    (&raw const *place).addr() as u64 - KERNEL_BASE
}

/// A virtual CPU on hardware of this kind.
pub struct Svm {
    /// Where its control block is.
    place: Hpa,
    /// One more than its key.
    name: u16,
    asid: u16,
    next_rip: bool,
    flush: u8,
}

// The block is in a frame of the hypervisor, which only this names.
impl Svm {
    fn block(&self) -> &Vmcb {
        // SAFETY: `new` was given the frame for this alone; a control block is integers only, and the CPU changes it in
        // `run` alone, which has it exclusively.
        unsafe { &*at(self.place) }
    }

    fn block_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { &mut *at(self.place) }
    }

    /// As after INIT, with these segments.
    fn reset(&mut self, code: Segment, data: Segment) {
        let block = self.block_mut();
        let system = |attributes| Segment::new(0, attributes, 0xffff);
        block.cs = code;
        [block.ds, block.es, block.ss, block.fs, block.gs] = [data; 5];
        (block.gdtr, block.idtr, block.ldtr, block.tr) = (system(0), system(0), system(0x82), system(0x8b));
        (block.cr0, block.rip, block.rsp, block.rflags) = (0x6000_0010, 0, 0, RFLAGS_ONE);
        (block.cr2, block.cr3, block.cr4, block.efer) = (0, 0, 0, EFER_SVME);
        (block.dr6, block.dr7, block.pat, block.cpl) = (0xffff_0ff0, 0x400, PAT_RESET, 0);
        (block.inject, block.exit_interrupt, block.shadow) = (0, 0, 0);
        self.offer(None, false);
        self.flush();
    }

    fn set_event(&mut self, event: u64) {
        self.block_mut().inject = event | vmcb::EVENT_VALID;
    }
}

impl Vmcb {
    /// Whether the guest runs 64-bit code with page tables of four levels.
    fn is_long(&self) -> bool {
        let active = self.efer & EferFlags::LONG_MODE_ACTIVE.bits() != 0;
        active && self.cs.attributes & CODE_64 != 0 && self.cr4 & Cr4Flags::L5_PAGING.bits() == 0
    }
}

impl Hardware for Svm {
    fn init() -> bool {
        // SAFETY: with SVM, these registers exist; the frames below are the hypervisor's own, for ever.
        unsafe {
            if features().is_none() || Msr::new(VM_CR).read() & VM_CR_DISABLED != 0 {
                return false;
            }
            let pages = [(); 2].map(|()| frames().allocate(Purpose::Hypervisor, &Bare));
            let [Some(state), Some(area)] = pages else { return false };
            Efer::update(|efer| efer.insert(EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE));
            Msr::new(VM_HSAVE_PA).write(area.base().0);
            core::arch::asm!("vmsave rax", in("rax") state.base().0, options(nostack, preserves_flags));
            switch::HOST.store(state.base().0, Ordering::Relaxed);
        }
        let asids = features().map_or(0, |svm| svm.supported_asids());
        ASIDS_HERE.store(asids.min(ASIDS as u32) as u16, Ordering::Relaxed);
        true
    }

    fn new(frame: Mfn, nested_root: Mfn, key: u16) -> Self {
        let features = features();
        let own = features.as_ref().is_some_and(raw_cpuid::SvmFeatures::has_flush_by_asid);
        let next_rip = features.as_ref().is_some_and(raw_cpuid::SvmFeatures::has_nrip);
        let flush = if own { vmcb::FLUSH_OWN } else { vmcb::FLUSH_ALL };
        let asid = 1 + key % (ASIDS_HERE.load(Ordering::Relaxed) - 1);
        let mut vcpu = Self { place: frame.base(), name: key + 1, asid, next_rip, flush };
        let block = vcpu.block_mut();
        (block.asid, block.tlb_control) = (asid.into(), flush);
        block.exceptions = intercept::EXCEPTIONS;
        block.intercepts = [intercept::FIRST, intercept::SECOND];
        block.io_map = image_address(&IO_MAP);
        block.msr_map = image_address(&MSR_MAP);
        block.interrupt = vmcb::V_INTR_MASKING;
        block.nested = 1;
        block.nested_cr3 = nested_root.base().0;
        vcpu
    }

    fn start_flat(&mut self, rip: u64) {
        self.reset(Segment { base: 0, ..Segment::new(8, 0xc9b, u32::MAX) }, Segment::new(0, 0xc93, u32::MAX));
        let block = self.block_mut();
        (block.cr0, block.rip) = (0x11, rip);
    }

    fn start_real(&mut self, page: u8) {
        self.reset(Segment::new(u16::from(page) << 8, 0x9b, 0xffff), Segment::new(0, 0x93, 0xffff));
    }

    fn arrive(&mut self) {
        let user = &ASID_USERS[usize::from(self.asid) % ASIDS];
        if user.swap(self.name, Ordering::Relaxed) != self.name {
            self.flush();
        }
    }

    #[inline(always)] // in the way of each exit
    fn run(&mut self, registers: &mut Registers) -> bool {
        let place = self.place;
        // SAFETY: as in `block_mut`. `init` was successful, or there would be no `Svm`; the block confines the guest: the
        // intercepts and maps of `new`, and a nested table that shows the guest its domain's memory only (what else is in it
        // has no user right, which every access of a guest needs).
        let block: &mut Vmcb = unsafe {
            let block = at::<Vmcb>(place);
            (*block).rax = registers.rax;
            switch::run(place.0, registers);
            &mut *block
        };
        registers.rax = block.rax;
        block.tlb_control = 0;
        // What was being delivered when the exit came is to be delivered again. (What was delivered, the exit takes away.)
        if block.exit_interrupt & vmcb::EVENT_VALID != 0 {
            block.inject = block.exit_interrupt;
        }
        block.exit_code == EXIT_VMMCALL && block.cpl == 0 && block.is_long()
    }

    fn exit(&self) -> Exit {
        let block = self.block();
        let [first, second] = block.exit_info;
        match block.exit_code {
            0x41 => Exit::Exception(Event { vector: 1, error: None }),
            0x51 => Exit::Exception(Event { vector: 17, error: Some(first as u32) }),
            0x52 => panic!("machine check"),
            0x60 | 0x61 | 0x63 => Exit::Interrupt,
            0x64 => Exit::Window,
            0x72 => Exit::Cpuid,
            0x76 | 0x89 => Exit::WriteBack,
            0x78 => Exit::Halt,
            0x7b => Exit::Port(PortAccess {
                port: (first >> 16) as u16,
                bytes: (first >> 4 & 7) as u8,
                reads: first & 1 != 0,
                string: first & 4 != 0,
            }),
            0x7c if first & 1 == 0 => Exit::ReadMsr,
            0x7c => Exit::WriteMsr,
            0x7f => Exit::Shutdown,
            EXIT_VMMCALL => Exit::Hypercall,
            0x6f | 0x7a | 0x80..=0x88 | 0x8a..=0x8c | 0x8e => Exit::NotThere,
            0x8d => Exit::SetXcr,
            0x400 => Exit::Page { gpa: second, error: first },
            code => Exit::Other(code),
        }
    }

    #[inline(always)] // in the way of each hypercall
    fn call_served(&mut self) {
        let saved = self.next_rip;
        let block = self.block_mut();
        block.rip = if saved { block.next_rip } else { block.rip.wrapping_add(VMMCALL_BYTES) };
        block.shadow = 0;
    }

    fn advance(&mut self) {
        let saved = self.next_rip;
        let block = self.block_mut();
        block.rip = if saved { block.next_rip } else { behind(block) };
        block.shadow = 0;
    }

    fn inject(&mut self, event: Event) {
        let error = event.error.map_or(0, |code| u64::from(code) << 32 | vmcb::EVENT_HAS_ERROR);
        self.set_event(vmcb::EVENT_EXCEPTION | u64::from(event.vector) | error);
    }

    fn inject_interrupt(&mut self, vector: u8) {
        self.set_event(vector.into());
    }

    fn inject_nmi(&mut self) {
        self.set_event(vmcb::EVENT_NMI | 2);
    }

    fn is_injecting(&self) -> bool {
        self.block().inject & vmcb::EVENT_VALID != 0
    }

    fn is_open(&self) -> bool {
        let block = self.block();
        block.rflags & RFLAGS_IF != 0 && block.shadow & 1 == 0 && !self.is_injecting()
    }

    fn offer(&mut self, upcall: Option<u8>, window: bool) {
        let vector = u64::from(upcall.unwrap_or(0));
        let waiting = if upcall.is_some() || window { vmcb::V_IRQ | vmcb::V_IGN_TPR } else { 0 };
        let block = self.block_mut();
        let kept = block.interrupt & (vmcb::V_INTR_MASKING | 0xff);
        block.interrupt = kept | waiting | vector << vmcb::V_VECTOR_SHIFT;
        block.intercepts[0] = intercept::FIRST | if window { intercept::WINDOW } else { 0 };
    }

    fn is_offering(&self) -> bool {
        self.block().interrupt & vmcb::V_IRQ != 0
    }

    fn task_priority(&self) -> u8 {
        ((self.block().interrupt & 0xf) << 4) as u8
    }

    fn set_task_priority(&mut self, priority: u8) {
        let block = self.block_mut();
        block.interrupt = block.interrupt & !0xff | u64::from(priority >> 4);
    }

    fn state(&self) -> State {
        let block = self.block();
        let (cr0, cr4) = (Cr0Flags::from_bits_truncate(block.cr0), Cr4Flags::from_bits_truncate(block.cr4));
        State {
            rip: block.rip,
            rsp: block.rsp,
            ring: block.cpl,
            long: block.is_long(),
            interrupts: block.rflags & RFLAGS_IF != 0,
            paging: cr0.contains(Cr0Flags::PAGING),
            xsave: cr4.contains(Cr4Flags::OSXSAVE),
        }
    }

    fn tables(&self) -> Tables {
        let block = self.block();
        Tables { root: block.cr3, write_protect: block.cr0 & Cr0Flags::WRITE_PROTECT.bits() != 0 }
    }

    fn efer(&self) -> u64 {
        self.block().efer & !EFER_SVME
    }

    fn set_efer(&mut self, efer: u64) {
        self.block_mut().efer = efer | EFER_SVME;
        self.flush();
    }

    fn flush(&mut self) {
        self.block_mut().tlb_control = self.flush;
    }

    fn frame(&self) -> Mfn {
        self.place.mfn()
    }
}

/// Where an exit's instruction ends, on a CPU that does not say. (A function, so that `cargo xtask bench` can count it.)
#[inline(never)]
fn behind(block: &Vmcb) -> u64 {
    let bytes = match block.exit_code {
        0x7b => return block.exit_info[1],
        0x78 => 1,
        EXIT_VMMCALL | 0x8d => VMMCALL_BYTES,
        _ => 2,
    };
    block.rip.wrapping_add(bytes)
}
