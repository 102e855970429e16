//! Links the kernel as `guest.ld` lays it out, when it is built for the bare machine.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=guest.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{}/guest.ld", env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    }
}
