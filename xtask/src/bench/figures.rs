//! What is measured, what the peers need for it, and what we allow ourselves.
//!
//! The peers were measured with the same emulator and flags: Xen 4.17 as Debian ships it (PV guests), seL4 16 (pc99, with
//! its fast path), NOVA 8b6c28a. Same definitions: the loop around the call included, one page or one port, warm, one
//! CPU, two domains in different address spaces for the pairs.

/// A metric.
#[derive(Clone, Copy)]
pub struct Figure {
    /// Its name, which stays.
    pub name: &'static str,
    /// Xen PV.
    pub xen: Option<f64>,
    /// seL4.
    pub sel4: Option<f64>,
    /// NOVA.
    pub nova: Option<f64>,
    /// What we allow ourselves.
    pub limit: Option<Limit>,
}

/// On which side of a number a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Costs.
    AtMost(f64),
    /// What is done for a cost.
    AtLeast(f64),
}

impl Limit {
    /// The number.
    pub const fn number(self) -> f64 {
        let (Self::AtMost(number) | Self::AtLeast(number)) = self;
        number
    }

    /// Whether a figure is on the wrong side.
    pub const fn is_missed_by(self, figure: f64) -> bool {
        match self {
            Self::AtMost(limit) => figure > limit,
            Self::AtLeast(limit) => figure < limit,
        }
    }
}

impl Figure {
    /// A metric that is not in the table.
    pub const fn unknown() -> Self {
        Self { name: "", xen: None, sel4: None, nova: None, limit: None }
    }
}

/// `-` for what a peer does not have or nobody measured.
macro_rules! figures {
    (@one -) => { None };
    (@one $value:literal) => { Some($value as f64) };
    (@limit $side:ident -) => { None };
    (@limit most $value:literal) => { Some(Limit::AtMost($value as f64)) };
    (@limit least $value:literal) => { Some(Limit::AtLeast($value as f64)) };
    ($($name:literal: $xen:tt, $sel4:tt, $nova:tt, at $side:ident $limit:tt;)*) => {
        &[$(Figure {
            name: $name,
            xen: figures!(@one $xen),
            sel4: figures!(@one $sel4),
            nova: figures!(@one $nova),
            limit: figures!(@limit $side $limit),
        }),*]
    };
}

/// All of them, in the order in which they are shown.
pub const FIGURES: &[Figure] = figures! {
    "null_hypercall": 340, 89, 59, at most 59;
    "event_send_self_masked": 510, 360, 142, at most 130;
    "event_ping_pong": 9_974, 1_994, 1_669, at most 700;
    "notify_and_wait_round_trip": -, 407, 286, at most 450;
    "yield_round_trip": 8_457, -, -, at most 450;
    "grant_map_unmap_1": 2_938, -, -, at most 550;
    "grant_map_unmap_16_each": 2_095, -, -, at most 350;
    "grant_copy_4096": 2_220, -, -, at most 800;
    "grant_copy_64": 1_716, -, -, at most 250;
    "interrupt_to_driver": -, 350, -, at most 350;
    "block_read_4k_depth_1": 57_430, -, -, at most 8_000;
    "block_read_4k_depth_16_each": 26_579, -, -, at most 4_000;
    "block_read_64k_depth_16_each": 62_441, -, -, at most 10_000;
    "udp_out_1400_each": 19_800, -, -, at most 5_000;
    "pvh_null_hypercall": 727, -, -, at most 150;
    "pvh_event_send_self": 5_085, -, -, at most 600;
    "pvh_event_ping_pong": 22_110, -, -, at most 3_000;
    "pvh_to_pvh_event_ping_pong": -, -, -, at most -;
    "pvh_grant_map_unmap_1": 25_193, -, -, at most 2_500;
    "pvh_grant_copy_4096": 11_997, -, -, at most 1_500;
    "pvh_exit_length": 5_102, -, -, at most -;
    "linux_block_read_4k_depth_1": 79_419, -, -, at most 30_000;
    "linux_block_read_4k_depth_16_each": 23_547, -, -, at most 10_000;
    "linux_block_read_4k_aio_depth_16_each": -, -, -, at most -;
    "linux_tcp_out_mb_per_1e9": 417, -, -, at least 600;
    "linux_tcp_to_host_mb_per_1e9": -, -, -, at least -;
    "linux_tcp_to_linux_mb_per_1e9": -, -, -, at least -;
    "domain_create_4m": -, -, -, at most 700_000;
    "domain_destroy_4m": -, -, -, at most 170_000;
    "domain_create_64m": -, -, -, at most 11_000_000;
    "domain_destroy_64m": -, -, -, at most 1_500_000;
    "boot_to_ready": -, -, -, at most 40_000_000;
    "boot_to_policy_domain": 441_000_000, -, -, at most 40_000_000;
    "hypervisor_memory_bytes": 24_117_248, -, -, at most 4_194_304;
};
