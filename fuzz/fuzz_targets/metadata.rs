//! See `metadata` in `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| afterhours_fuzz::metadata(data));
