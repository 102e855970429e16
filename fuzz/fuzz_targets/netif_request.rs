//! See [`bulkhead_fuzz::netif_request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::netif_request(data));
