//! What the fuzz targets do. Each takes any bytes, gives them to a parser as its hostile peer would, and asserts what
//! must hold of everything that the parser lets through.
#![forbid(unsafe_code)]

mod rings;
mod tables;

pub use rings::{blkif_request, netif_request, xenstore_wire};
pub use tables::{bundle, dmar, kernel, policy_language, policy_table};

/// A target: its name, what it does, and inputs that reach deep, to start from.
pub struct Target {
    /// As `cargo fuzz run` takes it.
    pub name: &'static str,
    /// Panics on a finding.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "xenstore_wire",
        run: xenstore_wire,
        seeds: rings::xenstore_seeds,
    },
    Target {
        name: "blkif_request",
        run: blkif_request,
        seeds: rings::blkif_seeds,
    },
    Target {
        name: "netif_request",
        run: netif_request,
        seeds: rings::netif_seeds,
    },
    Target {
        name: "bundle",
        run: bundle,
        seeds: tables::bundle_seeds,
    },
    Target {
        name: "policy_table",
        run: policy_table,
        seeds: tables::policy_table_seeds,
    },
    Target {
        name: "policy_language",
        run: policy_language,
        seeds: tables::policy_language_seeds,
    },
    Target {
        name: "kernel",
        run: kernel,
        seeds: tables::kernel_seeds,
    },
    Target {
        name: "dmar",
        run: dmar,
        seeds: tables::dmar_seeds,
    },
];
