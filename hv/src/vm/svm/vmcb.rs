//! The virtual machine control block (AMD APM volume 2, appendix B): what VMRUN loads, saves and obeys.

/// A segment register with its hidden part.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "register names")]
pub struct Segment {
    pub selector: u16,
    /// Bits 55-52 and 47-40 of a descriptor, put together.
    pub attributes: u16,
    pub limit: u32,
    pub base: u64,
}

impl Segment {
    /// A segment register.
    pub const fn new(selector: u16, attributes: u16, limit: u32) -> Self {
        Self { selector, attributes, limit, base: (selector as u64) << 4 }
    }
}

/// Intercepts in [`Vmcb::intercepts`], by word and bit.
pub mod intercept {
    /// #DB and #AC, which could be raised for ever inside the delivery of themselves; #MC, which is the machine's.
    pub const EXCEPTIONS: u32 = 1 << 1 | 1 << 17 | 1 << 18;
    /// VINTR: the guest can take an interrupt.
    pub const WINDOW: u32 = 1 << 4;
    /// INTR, NMI, INIT; RDPMC, CPUID, INVD; HLT, INVLPGA, IOIO, MSR, task switch, FERR freeze, shutdown.
    pub const FIRST: u32 =
        1 | 1 << 1 | 1 << 3 | 1 << 15 | 1 << 18 | 1 << 22 | 1 << 24 | 1 << 26 | 1 << 27 | 1 << 28 | 7 << 29;
    /// VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, (RDTSCP not), ICEBP, WBINVD, MONITOR, MWAIT twice, XSETBV, RDPRU.
    pub const SECOND: u32 = 0x7f7f;
}

/// [`Vmcb::interrupt`]: an interrupt waits to be taken.
pub const V_IRQ: u64 = 1 << 8;
/// [`Vmcb::interrupt`]: whatever the task priority is.
pub const V_IGN_TPR: u64 = 1 << 20;
/// [`Vmcb::interrupt`]: the guest's interrupt flag masks virtual interrupts only.
pub const V_INTR_MASKING: u64 = 1 << 24;
/// [`Vmcb::interrupt`]: where the vector is.
pub const V_VECTOR_SHIFT: u32 = 32;

/// [`Vmcb::inject`], [`Vmcb::exit_interrupt`]: there is something.
pub const EVENT_VALID: u64 = 1 << 31;
/// [`Vmcb::inject`]: there is an error code, in the upper half.
pub const EVENT_HAS_ERROR: u64 = 1 << 11;
/// [`Vmcb::inject`]: a non-maskable interrupt.
pub const EVENT_NMI: u64 = 2 << 8;
/// [`Vmcb::inject`]: an exception.
pub const EVENT_EXCEPTION: u64 = 3 << 8;

/// [`Vmcb::tlb_control`]: flush all; flush this guest's.
pub const FLUSH_ALL: u8 = 1;
/// [`Vmcb::tlb_control`]: flush this guest's (where the CPU can).
pub const FLUSH_OWN: u8 = 3;

/// The control block. Fields that are not used here have no names.
#[repr(C, align(4096))]
#[allow(missing_docs, reason = "names of the manual")]
pub struct Vmcb {
    pub cr_intercepts: u32,
    pub dr_intercepts: u32,
    pub exceptions: u32,
    pub intercepts: [u32; 2],
    _014: [u8; 0x2c],
    pub io_map: u64,
    pub msr_map: u64,
    pub tsc_offset: u64,
    pub asid: u32,
    pub tlb_control: u8,
    _05d: [u8; 3],
    pub interrupt: u64,
    /// Bit 0: an instruction's shadow, in which no interrupt is taken.
    pub shadow: u64,
    pub exit_code: u64,
    pub exit_info: [u64; 2],
    pub exit_interrupt: u64,
    pub nested: u64,
    _098: [u8; 0x10],
    pub inject: u64,
    pub nested_cr3: u64,
    _0b8: [u8; 8],
    /// Zero: nothing may be taken from the CPU's cache of this block.
    pub clean: u32,
    _0c4: u32,
    pub next_rip: u64,
    _0d0: [u8; 0x330],
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub gdtr: Segment,
    pub ldtr: Segment,
    pub idtr: Segment,
    pub tr: Segment,
    _4a0: [u8; 0x2b],
    pub cpl: u8,
    _4cc: u32,
    pub efer: u64,
    _4d8: [u8; 0x70],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    _580: [u8; 0x58],
    pub rsp: u64,
    _5e0: [u8; 0x18],
    pub rax: u64,
    _600: [u8; 0x40],
    pub cr2: u64,
    _648: [u8; 0x20],
    pub pat: u64,
    _670: [u8; 0x990],
}

const _: () = {
    use core::mem::offset_of as at;
    assert!(size_of::<Vmcb>() == 4096 && at!(Vmcb, io_map) == 0x40 && at!(Vmcb, asid) == 0x58);
    assert!(at!(Vmcb, interrupt) == 0x60 && at!(Vmcb, exit_code) == 0x70 && at!(Vmcb, nested) == 0x90);
    assert!(at!(Vmcb, inject) == 0xa8 && at!(Vmcb, next_rip) == 0xc8 && at!(Vmcb, es) == 0x400);
    assert!(at!(Vmcb, cr4) == 0x548 && at!(Vmcb, rip) == 0x578 && at!(Vmcb, rsp) == 0x5d8 && at!(Vmcb, rax) == 0x5f8);
    assert!(at!(Vmcb, cpl) == 0x4cb && at!(Vmcb, cr2) == 0x640 && at!(Vmcb, pat) == 0x668);
};
