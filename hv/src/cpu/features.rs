//! What the CPU has, by CPUID, never by probing.

use raw_cpuid::CpuId;

/// The features that the hypervisor chooses by.
pub struct Features {
    /// Supervisor mode execution prevention.
    pub smep: bool,
    /// User mode instruction prevention.
    pub umip: bool,
    /// The APIC has MSR access.
    pub x2apic: bool,
    /// The APIC timer takes an absolute TSC value.
    pub tsc_deadline: bool,
    /// The TSC runs at one rate in all power states.
    pub invariant_tsc: bool,
    /// TSC frequency, where CPUID tells it.
    pub tsc_khz: Option<u64>,
}

impl Features {
    /// Reads CPUID. `None`: the CPU lacks no-execute pages, SYSCALL in long mode or SMAP (every
    /// access to a domain's memory opens it and closes it again), which are required.
    pub fn read() -> Option<Self> {
        let cpuid = CpuId::new();
        let basic = cpuid.get_feature_info();
        let structured = cpuid.get_extended_feature_info();
        let extended = cpuid.get_extended_processor_and_feature_identifiers()?;
        let smap = structured.as_ref().is_some_and(|leaf| leaf.has_smap());
        let sufficient = extended.has_execute_disable() && extended.has_syscall_sysret() && smap;
        sufficient.then(|| Self {
            smep: structured.as_ref().is_some_and(|leaf| leaf.has_smep()),
            umip: structured.as_ref().is_some_and(|leaf| leaf.has_umip()),
            x2apic: basic.as_ref().is_some_and(|leaf| leaf.has_x2apic()),
            tsc_deadline: basic.as_ref().is_some_and(|leaf| leaf.has_tsc_deadline()),
            invariant_tsc: cpuid.get_advanced_power_mgmt_info().is_some_and(|leaf| leaf.has_invariant_tsc()),
            tsc_khz: cpuid.get_tsc_info().and_then(|leaf| leaf.tsc_frequency()).map(|hertz| hertz / 1000),
        })
    }
}
