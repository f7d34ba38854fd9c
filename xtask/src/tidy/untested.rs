//! What cargo is told not to test has no tests, which would never run.

use super::{Finding, Tree};
use toml::{Table, Value};

const TEST: &str = "#[test]";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.packages().into_iter().flat_map(|folder| of_package(tree, folder)).collect()
}

fn of_package(tree: &Tree, folder: &str) -> Vec<Finding> {
    let manifest = tree.get(&format!("{folder}/Cargo.toml"));
    let manifest: Table = manifest.and_then(|it| it.text.parse().ok()).unwrap_or_default();
    let programs = manifest.get("bin").and_then(Value::as_array);
    let programs: Vec<(String, bool)> =
        programs.into_iter().flatten().map(|it| (path(folder, it), untested(it))).collect();
    let library = manifest.get("lib").is_some_and(untested);
    let inside = format!("{folder}/src/");
    let mut findings = Vec::new();
    for file in tree.files().into_iter().filter(|file| file.path.starts_with(&inside)) {
        let program = programs.iter().find(|(path, _)| *path == file.path);
        let is_untested = program.map_or(library, |(_, untested)| *untested);
        let test = file.text.lines().position(|line| line.trim_start() == TEST);
        if let (true, Some(line)) = (is_untested, test) {
            let what = "cargo is told that there are no tests here: `test = false`";
            findings.push(Finding::new(&file.path, line + 1, what));
        }
    }
    findings
}

fn path(folder: &str, program: &Value) -> String {
    let path = program.get("path").and_then(Value::as_str).unwrap_or("src/main.rs");
    format!("{folder}/{path}")
}

fn untested(target: &Value) -> bool {
    target.get("test").and_then(Value::as_bool) == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_never_run_are_told() {
        let package = "[package]\nname = \"a\"\n";
        let library = format!("{package}[lib]\ntest = false\n");
        let program = format!("{package}[[bin]]\npath = \"src/main.rs\"\ntest = false\n");
        let file = format!("fn f() {{}}\n{TEST}\nfn g() {{}}\n");
        let findings = |manifest: &str, path: &str| {
            check(&Tree::of([("a/Cargo.toml", manifest), (path, &*file)])).len()
        };
        assert_eq!((findings(package, "a/src/lib.rs"), findings(&library, "a/src/b/c.rs")), (0, 1));
        assert_eq!((findings(&library, "a/tests/b.rs"), findings(&program, "a/src/b.rs")), (0, 0));
        assert_eq!(findings(&program, "a/src/main.rs"), 1);
    }
}
