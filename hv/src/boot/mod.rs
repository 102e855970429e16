//! From the boot loader to the first domain.

pub mod entry;
pub mod info;
mod multiboot2;
mod pvh;
pub mod report;
