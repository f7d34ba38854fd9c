//! Feeds arbitrary bytes to the reading of one block of the log.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_fuzz::wal_records(data));
