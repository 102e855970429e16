//! See [`bulkhead_fuzz::policy_table`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_fuzz::policy_table(data));
