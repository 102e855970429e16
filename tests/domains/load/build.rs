//! Links the program where no native domain has its image, so that a trace of instructions tells them apart.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-Ttext-segment=0x10000000");
    }
}
