//! `testdata/*.txt`, replayed. `UPDATE=1` writes what is printed now into the files: read the
//! difference before believing it.

use quorate_replicated_log::conformance::transcripts::{difference, replay};
use std::path::PathBuf;

/// The files, in order of name.
pub fn files() -> Vec<PathBuf> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
    let entries = std::fs::read_dir(dir).expect("testdata is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    files.sort();
    files
}

#[test]
fn transcripts_say_what_happens() {
    let update = std::env::var_os("UPDATE").is_some();
    let files = files();
    assert!(files.len() >= 10, "the transcripts are there");
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let now = replay(crate::raft, &text);
        if update {
            std::fs::write(&path, &now).unwrap();
        } else if let Some(difference) = difference(&now, &text) {
            panic!("{}, {difference}", path.display());
        }
    }
}
