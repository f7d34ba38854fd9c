//! The repository is tidy: the same checks as `cargo xtask tidy`, so that they cannot be forgotten.

#[test]
fn the_repository_is_tidy() {
    let tree = xtask::tidy::Tree::read(&xtask::root()).unwrap();
    assert!(tree.files().len() > 50, "the repository was not found");
    let findings: Vec<String> = xtask::tidy::check(&tree).iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "untidy:\n{}", findings.join("\n"));
}
