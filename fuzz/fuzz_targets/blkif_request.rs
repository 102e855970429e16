//! See [`bulkhead_fuzz::blkif_request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::blkif_request(data));
