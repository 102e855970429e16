//! See [`bulkhead_fuzz::dmar`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::dmar(data));
