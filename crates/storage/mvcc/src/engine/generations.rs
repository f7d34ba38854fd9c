//! Which of several whole states on disk is the present one.
//!
//! A root directory holds `state-<n>` directories and the file `CURRENT`, which names one of them
//! as `quorate-state <format> <n>`. A state is replaced by writing the next one beside it, making
//! that durable, and renaming a new `CURRENT` over the old. Invariant: at any crash `CURRENT`
//! names one whole state; directories that it does not name are leftovers.

use crate::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const CURRENT: &str = "CURRENT";
const CURRENT_NEW: &str = "CURRENT.new";
const MAGIC: &str = "quorate-state";
/// Since version 2 a database may have several trees of history.
const FORMAT: u64 = 2;
const PREFIX: &str = "state-";
const CONDEMNED: &str = "DAMAGED";

/// Says what was tried when the operating system refused, and tells a full disk from a bad one.
pub fn disk_error(doing: impl std::fmt::Display, e: &io::Error) -> Error {
    let why = format!("{doing}: {e}");
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full(why),
        _ => Error::Disk(why),
    }
}

fn failed<'a>(doing: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |e| disk_error(format_args!("{doing} {}", path.display()), &e)
}

/// The directory of a state.
pub fn directory(root: &Path, number: u64) -> PathBuf {
    root.join(format!("{PREFIX}{number}"))
}

/// The number of the present state, if there is one.
pub fn read_current(root: &Path) -> Result<Option<u64>, Error> {
    let path = root.join(CURRENT);
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("reading", &path)(e)),
    };
    let bad = || Error::Corrupt(format!("{} reads {text:?}", path.display()));
    let mut words = text.split_ascii_whitespace();
    let (magic, format, number) = (words.next(), words.next(), words.next());
    let parse = |word: Option<&str>| word.and_then(|w| w.parse::<u64>().ok()).ok_or_else(bad);
    if magic != Some(MAGIC) {
        return Err(bad());
    }
    let format = parse(format)?;
    if format > FORMAT {
        return Err(Error::NewerFormat { found: format, supported: FORMAT });
    }
    let number = parse(number)?;
    match (format, words.next()) {
        (1..=FORMAT, None) => Ok(Some(number)),
        _ => Err(bad()),
    }
}

/// Makes `number` the present state, durably. Its files must be durable already.
pub fn write_current(root: &Path, number: u64) -> Result<(), Error> {
    let (new, path) = (root.join(CURRENT_NEW), root.join(CURRENT));
    let mut file = File::create(&new).map_err(failed("creating", &new))?;
    let text = format!("{MAGIC} {FORMAT} {number}\n");
    file.write_all(text.as_bytes()).map_err(failed("writing", &new))?;
    file.sync_all().map_err(failed("syncing", &new))?;
    fs::rename(&new, &path).map_err(failed("renaming to", &path))?;
    sync_directory(root)
}

/// Makes a directory's creations, renames and removals durable.
pub fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|d| d.sync_all()).map_err(failed("syncing", path))
}

/// Makes the root directory, durably.
pub fn create_root(root: &Path) -> Result<(), Error> {
    fs::create_dir_all(root).map_err(failed("creating", root))?;
    match root.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => Ok(()),
    }
}

/// The numbers of the states that are there, present or left over.
pub fn list(root: &Path) -> Result<Vec<u64>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(failed("listing", root))? {
        let name = entry.map_err(failed("listing", root))?.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).map(str::parse::<u64>);
        if let Some(Ok(number)) = number {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Fails if what is in the root directory was found damaged.
pub fn check(root: &Path) -> Result<(), Error> {
    match root.join(CONDEMNED).exists() {
        true => Err(Error::Corrupt("a read of it failed while the node ran".into())),
        false => Ok(()),
    }
}

/// Says that it was.
pub fn condemn(root: &Path) -> Result<(), Error> {
    let path = root.join(CONDEMNED);
    File::create(&path).and_then(|f| f.sync_all()).map_err(failed("creating", &path))?;
    sync_directory(root)
}

/// Moves the root directory aside, in place of one that was moved before.
pub fn set_aside(root: &Path) -> Result<(), Error> {
    let to = root.with_extension("damaged");
    match fs::remove_dir_all(&to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("removing", &to)(e)),
        _ => {}
    }
    fs::rename(root, &to).map_err(failed("renaming", root))?;
    root.parent().map_or(Ok(()), sync_directory)
}

/// Removes a state. What is already gone is no error.
pub fn remove(root: &Path, number: u64) -> Result<(), Error> {
    let path = directory(root, number);
    match fs::remove_dir_all(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("removing", &path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condemned_state_is_set_aside_and_an_empty_one_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        for round in 0..2 {
            create_root(&root).unwrap();
            assert!(check(&root).is_ok(), "round {round}");
            condemn(&root).unwrap();
            assert!(check(&root).is_err());
            set_aside(&root).unwrap();
            assert!(!root.exists() && dir.path().join("state.damaged").exists());
        }
    }

    #[test]
    fn the_pointer_survives_a_round_trip_and_refuses_what_it_did_not_write() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(read_current(root), Ok(None));
        write_current(root, 7).unwrap();
        assert_eq!(fs::read(root.join(CURRENT)).unwrap(), b"quorate-state 2 7\n");
        assert_eq!(read_current(root), Ok(Some(7)));
        fs::write(root.join(CURRENT), "quorate-state 1 7\n").unwrap();
        assert_eq!(read_current(root), Ok(Some(7)), "of an earlier build");
        fs::write(root.join(CURRENT), "quorate-state 3 what ever").unwrap();
        assert_eq!(read_current(root), Err(Error::NewerFormat { found: 3, supported: 2 }));
        for bad in [
            "",
            "quorate-state",
            "quorate-state 0 7",
            "quorate-state 1 x",
            "other 1 7",
            "quorate-state 1 7 8",
        ] {
            fs::write(root.join(CURRENT), bad).unwrap();
            assert!(matches!(read_current(root), Err(Error::Corrupt(_))), "{bad}");
        }
    }
}
