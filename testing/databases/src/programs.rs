//! Where Debian, and others, put the servers' programs.

use std::path::PathBuf;

/// Where the programs are that no search path has: Debian keeps PostgreSQL's apart by version.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    folders.extend(["/usr/sbin", "/usr/local/sbin", "/usr/local/pgsql/bin"].map(PathBuf::from));
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    folders
}

/// The program of this name, if it is installed.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    folders().into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// A set of programs that belong together.
///
/// # Errors
/// Which of them are missing, and the package that has them.
pub(crate) fn find_all<const N: usize>(
    names: [&str; N],
    package: &str,
) -> Result<[PathBuf; N], String> {
    let found = names.map(find);
    let missing: Vec<&str> = names
        .iter()
        .zip(&found)
        .filter(|(_, path)| path.is_none())
        .map(|(name, _)| *name)
        .collect();
    match missing.is_empty() {
        true => Ok(found.map(Option::unwrap_or_default)),
        false => Err(format!("no {} (Debian: {package})", missing.join(", no "))),
    }
}
