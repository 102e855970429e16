//! `sched.h`: sub-operations of `HYPERVISOR_SCHED_OP` (RDI = command, RSI = address of its structure).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Let others run; no structure.
pub const SCHEDOP_YIELD: u64 = 0;
/// Wait for an event; no structure.
pub const SCHEDOP_BLOCK: u64 = 1;
/// [`SchedShutdown`]: end this domain.
pub const SCHEDOP_SHUTDOWN: u64 = 2;
/// [`SchedPoll`]: wait for one of some ports, or a time.
pub const SCHEDOP_POLL: u64 = 3;
/// [`SchedRemoteShutdown`]: end another domain, not provided.
pub const SCHEDOP_REMOTE_SHUTDOWN: u64 = 4;
/// [`SchedShutdown`]: name the reason of a later end.
pub const SCHEDOP_SHUTDOWN_CODE: u64 = 5;
/// [`SchedWatchdog`]: end this domain unless it calls again in time.
pub const SCHEDOP_WATCHDOG: u64 = 6;
/// Pin to a CPU, not provided.
pub const SCHEDOP_PIN_OVERRIDE: u64 = 7;

/// `struct sched_shutdown`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SchedShutdown {
    /// In: `SHUTDOWN_*`.
    pub reason: u32,
}
layout!(SchedShutdown, 4);

/// `struct sched_poll`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SchedPoll {
    /// In: address of `nr_ports` u32.
    pub ports: u64,
    /// In: how many, at most 128.
    pub nr_ports: u32,
    /// Zero.
    pub pad: u32,
    /// In: system time in nanoseconds to wake at, 0 = never.
    pub timeout: u64,
}
layout!(SchedPoll, 24, nr_ports @ 8, timeout @ 16);

/// `struct sched_remote_shutdown`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SchedRemoteShutdown {
    /// In: domain.
    pub domain_id: u16,
    /// Zero.
    pub pad: u16,
    /// In: `SHUTDOWN_*`.
    pub reason: u32,
}
layout!(SchedRemoteShutdown, 8, reason @ 4);

/// `struct sched_watchdog`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SchedWatchdog {
    /// In: 0 = a new timer; else one that was returned.
    pub id: u32,
    /// In: seconds, 0 = stop.
    pub timeout: u32,
}
layout!(SchedWatchdog, 8, timeout @ 4);

/// Ended as planned.
pub const SHUTDOWN_POWEROFF: u32 = 0;
/// Wants to be started again.
pub const SHUTDOWN_REBOOT: u32 = 1;
/// Suspended.
pub const SHUTDOWN_SUSPEND: u32 = 2;
/// Crashed.
pub const SHUTDOWN_CRASH: u32 = 3;
/// Its watchdog fired.
pub const SHUTDOWN_WATCHDOG: u32 = 4;
/// Wants a soft reset.
pub const SHUTDOWN_SOFT_RESET: u32 = 5;
/// Highest reason.
pub const SHUTDOWN_MAX: u32 = 5;
