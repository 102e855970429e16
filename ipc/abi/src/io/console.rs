//! `io/console.h`: two byte rings in one page. "in" and "out" are seen from the domain whose console it is.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the input ring.
pub const XENCONS_IN_BYTES: usize = 1024;
/// Bytes of the output ring.
pub const XENCONS_OUT_BYTES: usize = 2048;

/// `struct xencons_interface`. Indexes run freely; a byte's place is index modulo ring size.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenconsInterface {
    /// Input bytes; `in` in C.
    pub input: [u8; XENCONS_IN_BYTES],
    /// Output bytes; `out` in C.
    pub output: [u8; XENCONS_OUT_BYTES],
    /// The domain writes it.
    pub in_cons: u32,
    /// The console server writes it.
    pub in_prod: u32,
    /// The console server writes it.
    pub out_cons: u32,
    /// The domain writes it.
    pub out_prod: u32,
}
layout!(XenconsInterface, 3088, output @ 1024, in_cons @ 3072, in_prod @ 3076, out_cons @ 3080, out_prod @ 3084);
