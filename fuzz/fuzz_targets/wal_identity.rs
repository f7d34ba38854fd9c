//! Feeds arbitrary bytes to the reading of the node's identity file.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_fuzz::wal_identity(data));
