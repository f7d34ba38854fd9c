//! The documents a reader starts from exist, and the two languages say the same.

use super::{Finding, Tree};

const ENGLISH: &str = "README.md";
const CHINESE: &str = "README.zh-CN.md";
const REQUIRED: [&str; 6] =
    [ENGLISH, CHINESE, "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/operations.md"];

/// What a reader must be able to copy from either README.
const COMMANDS: [&str; 2] = ["cargo run --release -- up", "cargo test --workspace"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in REQUIRED {
        if tree.get(path).is_none() {
            findings.push(Finding::new(path, 0, "is missing"));
        }
    }
    let outlines = [ENGLISH, CHINESE].map(|path| tree.get(path).map(|f| Outline::of(&f.text)));
    for (path, outline) in [ENGLISH, CHINESE].iter().zip(&outlines) {
        let Some(outline) = outline else { continue };
        for command in COMMANDS {
            if !outline.commands.iter().any(|line| line.starts_with(command)) {
                let what = format!("no code block has the command `{command}`");
                findings.push(Finding::new(path, 0, what));
            }
        }
    }
    if let [Some(english), Some(chinese)] = outlines {
        if english.headings != chinese.headings {
            let what = format!(
                "headings of levels {:?}, where {ENGLISH} has {:?}",
                chinese.headings, english.headings
            );
            findings.push(Finding::new(CHINESE, 0, what));
        }
        if english.commands != chinese.commands {
            let what = format!("its code blocks do not have the commands of {ENGLISH}");
            findings.push(Finding::new(CHINESE, 0, what));
        }
    }
    findings.extend(links(tree));
    findings
}

/// What must be the same in every language.
#[derive(PartialEq, Eq)]
struct Outline {
    headings: Vec<usize>,
    /// The lines of the shell blocks, without comments.
    commands: Vec<String>,
}

impl Outline {
    fn of(text: &str) -> Outline {
        let mut outline = Outline { headings: Vec::new(), commands: Vec::new() };
        let mut fence: Option<&str> = None;
        for line in text.lines() {
            match (fence, line.strip_prefix("```")) {
                (None, Some(language)) => fence = Some(language.trim()),
                (Some(_), Some(_)) => fence = None,
                (Some("sh" | "bash" | "console"), None) => {
                    let command = line.split(" #").next().unwrap_or_default().trim();
                    if !command.is_empty() && !command.starts_with('#') {
                        outline.commands.push(command.trim_start_matches("$ ").to_owned());
                    }
                }
                (Some(_), None) => {}
                (None, None) => {
                    let level = line.chars().take_while(|c| *c == '#').count();
                    if level > 0 && line.chars().nth(level) == Some(' ') {
                        outline.headings.push(level);
                    }
                }
            }
        }
        outline
    }
}

/// Links from one page to another of ours lead somewhere.
fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files().into_iter().filter(|f| f.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in file.text.lines().enumerate() {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let path = link.split('#').next().unwrap_or_default();
                let known = [".md", ".rs", ".toml"].iter().any(|end| path.ends_with(end));
                if !known || path.contains("://") {
                    continue;
                }
                if tree.get(&joined(folder, path)).is_none() {
                    let what = format!("the link to `{path}` leads nowhere");
                    findings.push(Finding::new(&file.path, number + 1, what));
                }
            }
        }
    }
    findings
}

fn joined(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "# A\n```sh\ncargo run --release -- up # go\ncargo test --workspace --locked\n```\n## B\n";

    fn complaints(english: &str, chinese: &str) -> Vec<String> {
        let mut files: Vec<(&str, &str)> = REQUIRED.iter().map(|path| (*path, "")).collect();
        files.extend([(ENGLISH, english), (CHINESE, chinese)]);
        check(&Tree::of(files)).into_iter().map(|f| f.to_string()).collect()
    }

    #[test]
    fn both_languages_have_the_same_outline_and_commands() {
        assert_eq!(complaints(GOOD, &GOOD.replace("# go", "# 走")), Vec::<String>::new());
        assert_eq!(complaints(GOOD, &GOOD.replace("## B", "")).len(), 1);
        assert_eq!(complaints(GOOD, &GOOD.replace("-- up", "-- up --nodes 5")).len(), 1);
        assert_eq!(complaints("# A\n## B\n", "# A\n## B\n").len(), 4, "both lack both commands");
    }

    #[test]
    fn missing_documents_and_broken_links_are_found() {
        assert_eq!(check(&Tree::default()).len(), REQUIRED.len());
        let linked = format!("{GOOD}[x](docs/none.md) [y](docs/operations.md#a) [z](https://a.md)");
        let found = complaints(&linked, GOOD);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("docs/none.md"));
    }
}
