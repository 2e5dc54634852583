//! See `archive` in `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| afterhours_fuzz::archive(data));
