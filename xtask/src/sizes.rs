//! `cargo xtask sizes`: what each image weighs.

use anyhow::Result;
use std::fs;
use xtask::images;

/// Builds everything and prints the sizes.
pub fn sizes() -> Result<()> {
    let programs = images::build(images::IMAGES)?;
    println!("{:<16} {:>12} {:>12}", "image", "in bundle", "file");
    for name in [images::HYPERVISOR].iter().chain(images::IMAGES) {
        let loaded = images::read(&programs, name)?.len();
        let file = fs::metadata(programs.join(name))?.len();
        println!("{name:<16} {loaded:>12} {file:>12}");
    }
    Ok(())
}
