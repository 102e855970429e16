//! `vcpu.h`: sub-operations of `HYPERVISOR_VCPU_OP` (RDI = command, RSI = vCPU, RDX = address of its structure).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Give a vCPU its registers.
pub const VCPUOP_INITIALISE: u64 = 0;
/// Start a vCPU.
pub const VCPUOP_UP: u64 = 1;
/// Stop a vCPU.
pub const VCPUOP_DOWN: u64 = 2;
/// Returns 1 if a vCPU is up.
pub const VCPUOP_IS_UP: u64 = 3;
/// [`VcpuRunstateInfo`]: how a vCPU's time went.
pub const VCPUOP_GET_RUNSTATE_INFO: u64 = 4;
/// [`VcpuRegisterRunstateMemoryArea`]: keep that up to date in memory.
pub const VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA: u64 = 5;
/// [`VcpuSetPeriodicTimer`].
pub const VCPUOP_SET_PERIODIC_TIMER: u64 = 6;
/// No structure.
pub const VCPUOP_STOP_PERIODIC_TIMER: u64 = 7;
/// [`VcpuSetSingleshotTimer`]: raise `VIRQ_TIMER` at a time.
pub const VCPUOP_SET_SINGLESHOT_TIMER: u64 = 8;
/// No structure.
pub const VCPUOP_STOP_SINGLESHOT_TIMER: u64 = 9;
/// [`VcpuRegisterVcpuInfo`]: move the vCPU's `VcpuInfo` out of shared info.
pub const VCPUOP_REGISTER_VCPU_INFO: u64 = 10;
/// Send an NMI to a vCPU.
pub const VCPUOP_SEND_NMI: u64 = 11;
/// Physical CPU of a vCPU.
pub const VCPUOP_GET_PHYSID: u64 = 12;
/// [`VcpuRegisterTimeMemoryArea`]: a second copy of the clock.
pub const VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA: u64 = 13;

/// [`VcpuRunstateInfo::state`]: runs.
pub const RUNSTATE_RUNNING: i32 = 0;
/// [`VcpuRunstateInfo::state`]: could run.
pub const RUNSTATE_RUNNABLE: i32 = 1;
/// [`VcpuRunstateInfo::state`]: waits for an event.
pub const RUNSTATE_BLOCKED: i32 = 2;
/// [`VcpuRunstateInfo::state`]: is down or paused.
pub const RUNSTATE_OFFLINE: i32 = 3;
/// [`VcpuRunstateInfo::state_entry_time`]: set while the area is being written.
pub const XEN_RUNSTATE_UPDATE: u64 = 1 << 63;

/// `struct vcpu_runstate_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuRunstateInfo {
    /// `RUNSTATE_*`.
    pub state: i32,
    /// Zero.
    pub pad: u32,
    /// System time when it got into that state.
    pub state_entry_time: u64,
    /// Nanoseconds spent in each state.
    pub time: [u64; 4],
}
layout!(VcpuRunstateInfo, 48, state_entry_time @ 8, time @ 16);

/// `struct vcpu_register_runstate_memory_area`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuRegisterRunstateMemoryArea {
    /// In: address of a [`VcpuRunstateInfo`].
    pub addr: u64,
}
layout!(VcpuRegisterRunstateMemoryArea, 8);

/// `struct vcpu_set_periodic_timer`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuSetPeriodicTimer {
    /// In: nanoseconds.
    pub period_ns: u64,
}
layout!(VcpuSetPeriodicTimer, 8);

/// [`VcpuSetSingleshotTimer::flags`]: `-ETIME` instead of firing at once when the time has passed.
pub const VCPU_SSHOTTMR_FUTURE: u32 = 1;

/// `struct vcpu_set_singleshot_timer`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuSetSingleshotTimer {
    /// In: system time in nanoseconds.
    pub timeout_abs_ns: u64,
    /// In: [`VCPU_SSHOTTMR_FUTURE`].
    pub flags: u32,
    /// Zero.
    pub pad: u32,
}
layout!(VcpuSetSingleshotTimer, 16, flags @ 8);

/// `struct vcpu_register_vcpu_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuRegisterVcpuInfo {
    /// In: guest frame number.
    pub mfn: u64,
    /// In: offset there; the structure must not cross the page's end.
    pub offset: u32,
    /// Zero.
    pub rsvd: u32,
}
layout!(VcpuRegisterVcpuInfo, 16, offset @ 8, rsvd @ 12);

/// `struct vcpu_register_time_memory_area`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuRegisterTimeMemoryArea {
    /// In: address of a `VcpuTimeInfo`.
    pub addr: u64,
}
layout!(VcpuRegisterTimeMemoryArea, 8);
