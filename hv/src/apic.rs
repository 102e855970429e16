//! The local APIC (AMD APM volume 2, chapter 16; Intel SDM volume 3, chapter 11): interrupts in, the one-shot timer.
//! Reached through MSRs (x2APIC) where the CPU has that, else through its page of registers.

use crate::{cpu::features::Features, mmio::Registers, time};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use hv_core::{ids::Hpa, space::MapError};
use spin::Once;
use x86_64::registers::model_specific::{ApicBase, ApicBaseFlags, Msr};

/// Vector of the timer.
pub const TIMER_VECTOR: u8 = 0xef;
/// Vector of spurious interrupts; needs no end-of-interrupt.
pub const SPURIOUS_VECTOR: u8 = 0xff;

const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// MSR of register 0 in x2APIC mode; registers are 16 bytes apart in memory, one MSR each.
const X2APIC_FIRST: u32 = 0x800;

const ID: u32 = 0x020;
const TASK_PRIORITY: u32 = 0x080;
const END_OF_INTERRUPT: u32 = 0x0b0;
const SPURIOUS: u32 = 0x0f0;
const ERROR_STATUS: u32 = 0x280;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const MODE_TSC_DEADLINE: u32 = 2 << 17;
/// Divide by 16.
const DIVIDE_16: u32 = 3;

/// How registers are reached.
enum Access {
    Memory(Registers),
    Msr,
}

static ACCESS: Once<Access> = Once::new();
/// The register that ends an interrupt, if it is in memory.
static END_REGISTER: AtomicPtr<u32> = AtomicPtr::new(core::ptr::null_mut());
/// The timer's frequency; 0 if it takes TSC values instead.
static TIMER_KHZ: AtomicU64 = AtomicU64::new(0);

fn read(register: u32) -> u32 {
    match ACCESS.get() {
        Some(Access::Memory(page)) => page.read32(register.into()),
        // SAFETY: in x2APIC mode these MSRs exist; reading has no effect on memory.
        Some(Access::Msr) => unsafe { Msr::new(X2APIC_FIRST + register / 16).read() as u32 },
        None => 0,
    }
}

fn write(register: u32, value: u32) {
    match ACCESS.get() {
        Some(Access::Memory(page)) => page.write32(register.into(), value),
        // SAFETY: as in `read`; what the registers do is limited to interrupts, for which there are handlers.
        Some(Access::Msr) => unsafe { Msr::new(X2APIC_FIRST + register / 16).write(u64::from(value)) },
        None => {}
    }
}

/// Switches this CPU's APIC on. All local sources stay masked.
pub fn init(features: &Features) -> Result<(), MapError> {
    let (page, flags) = ApicBase::read();
    let (access, mode) = if features.x2apic {
        (Access::Msr, ApicBaseFlags::LAPIC_ENABLE | ApicBaseFlags::X2APIC_ENABLE)
    } else {
        // SAFETY: the APIC's registers are there, as it says itself.
        let registers = unsafe { Registers::map(Hpa(page.start_address().as_u64()), page.size()) }?;
        let end = registers.pointer(END_OF_INTERRUPT.into()).unwrap_or(core::ptr::null_mut());
        END_REGISTER.store(end, Ordering::Relaxed);
        (Access::Memory(registers), ApicBaseFlags::LAPIC_ENABLE)
    };
    // SAFETY: enables the APIC where it is, in the mode that CPUID says it has.
    unsafe { ApicBase::write(page, flags | mode) };
    ACCESS.call_once(|| access);
    for entry in [LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR] {
        write(entry, MASKED | u32::from(SPURIOUS_VECTOR));
    }
    write(TASK_PRIORITY, 0);
    write(ERROR_STATUS, 0);
    write(TIMER_DIVIDE, DIVIDE_16);
    write(SPURIOUS, SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR));
    Ok(())
}

/// This CPU's APIC id, as interrupt messages name it.
pub fn id() -> u32 {
    let shift = if let Some(Access::Memory(_)) = ACCESS.get() { 24 } else { 0 };
    read(ID) >> shift
}

/// Ends the interrupt in service.
#[inline(always)] // in the way of each interrupt
pub fn end_of_interrupt() {
    match core::ptr::NonNull::new(END_REGISTER.load(Ordering::Relaxed)) {
        // SAFETY: a register of the mapping that `init` made for good.
        Some(register) => unsafe { register.write_volatile(0) },
        None => write(END_OF_INTERRUPT, 0),
    }
}

/// Lets the timer count down from its maximum, without an interrupt.
pub fn start_counting() {
    write(LVT_TIMER, MASKED | u32::from(TIMER_VECTOR));
    write(TIMER_INITIAL, u32::MAX);
}

/// Stops the count; answers how far it came.
pub fn stop_counting() -> u32 {
    let count = u32::MAX - read(TIMER_CURRENT);
    write(TIMER_INITIAL, 0);
    count
}

/// Arms the timer's interrupt: by TSC values where the CPU can, else by a count at `timer_khz`.
pub fn enable_timer(features: &Features, timer_khz: u64) {
    let (khz, mode) = if features.tsc_deadline { (0, MODE_TSC_DEADLINE) } else { (timer_khz, 0) };
    TIMER_KHZ.store(khz, Ordering::Relaxed);
    write(LVT_TIMER, mode | u32::from(TIMER_VECTOR));
}

/// Asks for one timer interrupt when the TSC is at `deadline` (at once if it is past; possibly early if it is far away).
pub fn set_timer(deadline: u64) {
    let khz = TIMER_KHZ.load(Ordering::Relaxed);
    if khz == 0 {
        // SAFETY: the MSR exists, as CPUID says; it causes the timer's interrupt and nothing else.
        unsafe { Msr::new(IA32_TSC_DEADLINE).write(deadline.max(1)) };
    } else {
        let nanos = time::nanos(deadline.saturating_sub(time::tsc()));
        let ticks = u128::from(nanos) * u128::from(khz) / 1_000_000;
        write(TIMER_INITIAL, u32::try_from(ticks).unwrap_or(u32::MAX).max(1));
    }
}
