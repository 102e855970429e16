//! What a person types, as a library: finding the toolchain, building the images, making bundles and disks, starting
//! QEMU. The multi-domain tests use the same code, so that what they boot is what `cargo xtask run` boots.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod command;
pub mod cpio;
pub mod disk;
pub mod guest;
pub mod images;
pub mod machine;
pub mod packages;
pub mod toolchain;

use std::path::{Path, PathBuf};

/// The workspace's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// Where everything that we make goes: the host's target folder.
pub fn target() -> PathBuf {
    root().join("target")
}

/// One line of progress for a person, on standard error.
pub fn say(what: &str, detail: &str) {
    eprintln!("{what:>12} {detail}");
}
