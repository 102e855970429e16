//! `io/ring.h`: the head of a shared ring. Behind its 64 bytes lie the entries, each large enough for a request and a
//! response; there are as many as fit, rounded down to a power of two.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The head of `struct NAME_sring`. Indexes run freely; an entry's place is index modulo entries.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SringHeader {
    /// One past the newest request; the front end writes it.
    pub req_prod: u32,
    /// The back end wants an event when `req_prod` passes this.
    pub req_event: u32,
    /// One past the newest response; the back end writes it.
    pub rsp_prod: u32,
    /// The front end wants an event when `rsp_prod` passes this.
    pub rsp_event: u32,
    /// Private to a protocol.
    pub pvt: [u8; 4],
    /// Unused.
    pub pad: [u32; 11],
}
layout!(SringHeader, 64, req_event @ 4, rsp_prod @ 8, rsp_event @ 12, pvt @ 16, pad @ 20);

/// Where entries begin.
pub const SRING_ENTRIES_OFFSET: usize = size_of::<SringHeader>();

/// Entries of a ring of `bytes` bytes (all pages together) with entries of `entry_bytes` bytes: `__CONST_RING_SIZE`.
/// 0 when not even one fits.
#[must_use]
pub const fn ring_entries(bytes: usize, entry_bytes: usize) -> u32 {
    if entry_bytes == 0 || bytes < SRING_ENTRIES_OFFSET + entry_bytes {
        return 0;
    }
    let fit = (bytes - SRING_ENTRIES_OFFSET) / entry_bytes;
    1 << fit.ilog2()
}

#[cfg(test)]
mod tests {
    use super::ring_entries;

    #[test]
    fn entries_are_the_largest_power_of_two_that_fits() {
        assert_eq!(ring_entries(4096, 112), 32);
        assert_eq!(ring_entries(4096, 12), 256);
        assert_eq!(ring_entries(4096, 8), 256);
        assert_eq!(ring_entries(4 * 4096, 112), 128);
        assert_eq!(ring_entries(64 + 8, 8), 1);
        assert_eq!(ring_entries(64, 8), 0);
        assert_eq!(ring_entries(4096, 0), 0);
    }
}
