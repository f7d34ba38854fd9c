//! The files under check, read once.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// One text file.
#[derive(Clone, Debug)]
pub struct File {
    /// From the root of the repository, with `/`.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl File {
    /// Whether a machine wrote it: exempt from every rule about size and style.
    pub fn is_generated(&self) -> bool {
        self.path.contains("/generated/")
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// All checked files, by path.
#[derive(Clone, Default, Debug)]
pub struct Tree(BTreeMap<String, File>);

const SKIPPED: [&str; 5] = ["target", ".git", "node_modules", "corpus", "artifacts"];
const KINDS: [&str; 4] = ["rs", "toml", "md", "txt"];

impl Tree {
    /// A tree of these files: path and content.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Tree {
        let file = |(path, text): (&str, &str)| {
            (path.to_owned(), File { path: path.to_owned(), text: text.to_owned() })
        };
        Tree(files.into_iter().map(file).collect())
    }

    /// The files below `root` that a check could care about.
    pub fn read(root: &Path) -> Result<Tree> {
        let mut tree = Tree::default();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder)
                .with_context(|| format!("cannot list {}", folder.display()))?;
            for entry in entries {
                let entry = entry?;
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                let kind = entry.file_type()?;
                if kind.is_dir() && !SKIPPED.contains(&name.as_str()) && !name.ends_with("-data") {
                    folders.push(path);
                } else if kind.is_file()
                    && path.extension().is_some_and(|e| KINDS.iter().any(|k| e == *k))
                {
                    let relative = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
                    let text = std::fs::read_to_string(&path)
                        .with_context(|| format!("cannot read {relative}"))?;
                    tree.0.insert(relative.clone(), File { path: relative, text });
                }
            }
        }
        Ok(tree)
    }

    /// All files, by path.
    pub fn files(&self) -> Vec<&File> {
        self.0.values().collect()
    }

    /// All Rust files a person wrote.
    pub fn written_rust(&self) -> impl Iterator<Item = &File> {
        self.0.values().filter(|f| f.is_rust() && !f.is_generated())
    }

    /// One file.
    pub fn get(&self, path: &str) -> Option<&File> {
        self.0.get(path)
    }

    /// The folders that hold a package: those with a `Cargo.toml` that has a `[package]`.
    pub fn packages(&self) -> Vec<&str> {
        self.0
            .values()
            .filter_map(|f| {
                let folder = f.path.strip_suffix("/Cargo.toml")?;
                f.text.contains("[package]").then_some(folder)
            })
            .collect()
    }
}
