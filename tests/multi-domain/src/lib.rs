//! The multi-domain tests; see `tests/system`. Nothing here: the harness is the crate `bulkhead-test`.
#![forbid(unsafe_code)]
