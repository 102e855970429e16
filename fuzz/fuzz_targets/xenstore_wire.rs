//! See [`bulkhead_fuzz::xenstore_wire`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::xenstore_wire(data));
