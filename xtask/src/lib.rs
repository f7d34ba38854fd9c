//! Project chores that cargo itself does not know. A library, so that the tests can run them too.

use std::path::{Path, PathBuf};

#[cfg(feature = "proto")]
pub mod proto;
pub mod tidy;

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
