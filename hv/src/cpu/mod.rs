//! One CPU's set-up: features, descriptor tables, control registers, per-CPU data.

pub mod descriptors;
pub mod features;
pub mod percpu;

use crate::boot::report::{Finding, fact};
use features::Features;
use raw_cpuid::CpuId;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::registers::debug::{Dr7, Dr7Value};
use x86_64::registers::model_specific::{LStar, Msr, SFMask, Star};
use x86_64::{VirtAddr, registers::rflags::RFlags};

const IA32_PAT: u32 = 0x277;
/// Page attribute table: entries as after reset (AMD APM volume 2, section 7.8).
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// SYSENTER's code segment; 0 makes the instruction fault.
const IA32_SYSENTER_CS: u32 = 0x174;
/// Compatibility-mode SYSCALL target. Ring 3 has no such segment, so this is never reached.
const CSTAR: u32 = 0xc000_0083;

/// Sets this CPU's control registers, all of them absolutely: in CR4 what the CPU has of the protections, and nothing that
/// ring 3 could use to slip away.
pub fn init_control(features: &Features) {
    let mode = Cr0Flags::PROTECTED_MODE_ENABLE | Cr0Flags::PAGING | Cr0Flags::WRITE_PROTECT | Cr0Flags::ALIGNMENT_MASK;
    // Every FPU or SSE instruction faults; native domains have no FPU state.
    let no_fpu = Cr0Flags::MONITOR_COPROCESSOR | Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED;
    let cr0 = mode | no_fpu | Cr0Flags::EXTENSION_TYPE | Cr0Flags::NUMERIC_ERROR;
    let mut cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION | Cr4Flags::MACHINE_CHECK_EXCEPTION | Cr4Flags::PAGE_GLOBAL;
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, features.smep);
    cr4.insert(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION);
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, features.umip);
    // SAFETY: long mode and paging stay as they are; the added protections forbid only what the hypervisor never
    // does (executing or touching user pages, writing read-only pages); PAT has its reset value, which the page
    // tables were made for; DR7 = 0x400 has every breakpoint off.
    unsafe {
        Efer::write(EferFlags::LONG_MODE_ENABLE | EferFlags::NO_EXECUTE_ENABLE | EferFlags::SYSTEM_CALL_EXTENSIONS);
        Cr0::write_raw(cr0.bits());
        Cr4::write_raw(cr4.bits());
        Msr::new(IA32_PAT).write(PAT_RESET);
    }
    Dr7::write(Dr7Value::from_bits_truncate(0));
}

/// Arms SYSCALL: to `entry`, with interrupts, single-stepping, alignment checks and the direction flag off.
pub fn init_syscall(entry: VirtAddr) {
    use RFlags as R;
    LStar::write(entry);
    SFMask::write(R::INTERRUPT_FLAG | R::DIRECTION_FLAG | R::TRAP_FLAG | R::ALIGNMENT_CHECK | R::NESTED_TASK);
    // SAFETY: the selectors are those of `descriptors`; SYSENTER is disabled; CSTAR points at the same entry, which
    // copes with any caller.
    unsafe {
        Star::write_raw(descriptors::STAR_USER_BASE, descriptors::KERNEL_CODE);
        Msr::new(IA32_SYSENTER_CS).write(0);
        Msr::new(CSTAR).write(entry.as_u64());
    }
}

/// Reports what this CPU can do.
pub fn report(features: &Features) {
    let brand = CpuId::new().get_processor_brand_string();
    fact("cpu", Finding::Ok, format_args!("{}", brand.as_ref().map_or("unknown", |brand| brand.as_str().trim())));
    fact("nx", Finding::Ok, format_args!("data is never executable"));
    fact("smep", Finding::of(features.smep), format_args!("the hypervisor cannot execute domain memory"));
    fact("smap", Finding::Ok, format_args!("the hypervisor cannot touch domain memory by accident"));
    fact("umip", Finding::of(features.umip), format_args!("ring 3 cannot read descriptor table addresses"));
    fact("x2apic", Finding::of(features.x2apic), format_args!("else the APIC is reached through memory"));
    fact("tsc-deadline", Finding::of(features.tsc_deadline), format_args!("else the timer counts bus cycles"));
    fact("invariant-tsc", Finding::of(features.invariant_tsc), format_args!("time is the TSC's in any case"));
}
