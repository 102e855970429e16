//! Links the domain as `domain.ld` lays it out, when it is built for the bare machine.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let script =
            format!("{}/../../../domains/runtime/domain.ld", env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
        println!("cargo:rerun-if-changed={script}");
        // In this order: the script looks whether the symbol is defined when it is read. Elsewhere than others, so that a trace of
        // instructions tells them apart.
        println!("cargo:rustc-link-arg-bins=--defsym=IMAGE_START=0x6000000");
        println!("cargo:rustc-link-arg-bins=-T{script}");
    }
}
