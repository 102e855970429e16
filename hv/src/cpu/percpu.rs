//! What one CPU has for itself, found through GS while the hypervisor runs.
//!
//! Some fields are known to the assembly in `traps::entry`; keep both in step.

use super::descriptors::Descriptors;
use crate::{mm::MapError, mm::map_stack, traps::Frame};
use alloc::boxed::Box;
use hv_core::{ids::DomId, sched::RunQueue, sched::Timers};
use x86_64::VirtAddr;
use x86_64::registers::model_specific::{GsBase, KernelGsBase};

/// Pages of a CPU's stack.
const STACK_PAGES: u64 = 16;

/// [`PerCpu::direct`] while no guest is current: addresses end below the window for device registers, so that no
/// register is ever read or written for a domain. No structure has more than a page.
pub const NATIVE_DIRECT: u64 = xen_abi::native::MMIO_WINDOW - 4095;

/// In the place of a domain's id when there is none; no domain has it.
pub const NOBODY: DomId = DomId::SELF;

/// One CPU's own data.
#[repr(C)]
pub struct PerCpu {
    /// Who can run here. (First, as it is what is looked into most.)
    pub queue: RunQueue,
    /// This structure's address.
    this: *mut PerCpu,
    /// The current vCPU's registers: SYSCALL saves them there, as traps do through the TSS.
    pub frame: *mut Frame,
    /// Top of this CPU's stack; empty whenever a domain runs.
    pub stack_top: VirtAddr,
    /// Non-zero: the scheduler has work before the domain goes on.
    pub attention: u32,
    /// Non-zero while the CPU waits for interrupts in the idle loop.
    pub idle: u32,
    /// The domain that runs, or ran last: whose trap is being handled, whose page tables are loaded. [`NOBODY`]: it is gone,
    /// and the hypervisor's own are.
    pub current: DomId,
    /// The hypercall that is to be made again, with its arguments, when `attention` says so.
    pub restart: Option<(u64, [u64; 5])>,
    /// Ticks of the TSC that no domain could run, up to when that was so last.
    pub idle_ticks: u64,
    /// When the timer's interrupt comes, in ticks of the TSC.
    pub alarm: u64,
    /// Deadlines of the vCPUs of this CPU.
    pub timers: Timers,
    /// Addresses in hypercalls below this one are those of the loaded address space; 0 while a guest is current.
    pub direct: u64,
    /// Somebody holds a reference to this; kept in debug builds only.
    borrowed: bool,
    /// GDT, IDT and TSS.
    pub descriptors: &'static mut Descriptors,
}

impl PerCpu {
    /// Makes the boot CPU's data, and points GS at it.
    pub fn install() -> Result<VirtAddr, MapError> {
        let stack_top = map_stack(STACK_PAGES)?;
        let cpu = Box::leak(Box::new(Self {
            queue: RunQueue::new(),
            this: core::ptr::null_mut(),
            frame: core::ptr::null_mut(),
            stack_top,
            attention: 1,
            idle: 0,
            current: NOBODY,
            restart: None,
            idle_ticks: 0,
            alarm: u64::MAX,
            timers: Timers::new(),
            direct: NATIVE_DIRECT,
            borrowed: false,
            descriptors: Descriptors::install()?,
        }));
        cpu.this = cpu;
        GsBase::write(VirtAddr::from_ptr(cpu));
        KernelGsBase::write(VirtAddr::zero());
        Ok(stack_top)
    }
}

/// Runs `f` on this CPU's data.
///
/// The hypervisor runs with interrupts off and calls are not nested, so the reference is the only one.
#[inline(always)]
pub fn with<R>(f: impl FnOnce(&mut PerCpu) -> R) -> R {
    let this: *mut PerCpu;
    // SAFETY: GS points at this CPU's `PerCpu` from `install` on whenever the hypervisor runs; a field is its own
    // address. `f` gets the only reference: interrupts are off, and no closure calls `with` again, which the
    // assertion watches over.
    unsafe {
        core::arch::asm!(
            "mov {}, gs:[{}]",
            out(reg) this,
            const core::mem::offset_of!(PerCpu, this),
            options(nostack, preserves_flags, readonly)
        );
        if cfg!(debug_assertions) {
            assert!(!core::mem::replace(&mut (*this).borrowed, true), "nested use of per-CPU data");
        }
        let result = f(&mut *this);
        if cfg!(debug_assertions) {
            (*this).borrowed = false;
        }
        result
    }
}

/// [`PerCpu::direct`], whoever holds the rest.
#[inline(always)]
pub fn direct() -> u64 {
    let direct: u64;
    // SAFETY: GS points at this CPU's `PerCpu`, as in `with`; an aligned word is read in one step.
    unsafe {
        core::arch::asm!("mov {}, gs:[{}]", out(reg) direct, const core::mem::offset_of!(PerCpu, direct),
            options(nostack, preserves_flags, readonly));
    }
    direct
}
