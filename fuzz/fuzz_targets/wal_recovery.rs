//! Feeds arbitrary bytes to the reading of a whole log, from its segments.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_fuzz::wal_recovery(data));
