//! Just enough of Rust's lexical grammar to tell code from comments and literals.
//!
//! Invariant: [`code_only`] keeps every line where it was, so that positions stay true.

/// The source with the content of comments, strings and character literals blanked out.
pub fn code_only(source: &str) -> String {
    let mut scanner = Scanner { chars: source.chars().collect(), at: 0, out: String::new() };
    while scanner.at < scanner.chars.len() {
        scanner.token();
    }
    scanner.out
}

struct Scanner {
    chars: Vec<char>,
    at: usize,
    out: String,
}

impl Scanner {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn keep(&mut self, n: usize) {
        for _ in 0..n {
            let c = self.peek(0);
            if self.at < self.chars.len() {
                self.out.push(c);
            }
            self.at += 1;
        }
    }

    fn blank(&mut self) {
        let c = self.peek(0);
        if self.at < self.chars.len() {
            self.out.push(if c == '\n' { '\n' } else { ' ' });
        }
        self.at += 1;
    }

    fn token(&mut self) {
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => {
                while self.at < self.chars.len() && self.peek(0) != '\n' {
                    self.blank();
                }
            }
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('r', '"' | '#') if !self.within_word() => self.raw_string(),
            ('b' | 'c', 'r') if !self.within_word() && matches!(self.peek(2), '"' | '#') => {
                self.keep(1);
                self.raw_string();
            }
            ('\'', _) => self.quote(),
            _ => self.keep(1),
        }
    }

    fn within_word(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|i| self.chars.get(i)).copied();
        before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    self.blank();
                    continue;
                }
            }
            self.blank();
            self.blank();
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.keep(1);
        while self.at < self.chars.len() && self.peek(0) != '"' {
            if self.peek(0) == '\\' {
                self.blank();
            }
            self.blank();
        }
        self.keep(1);
    }

    /// At the `r` of `r"…"` or `r#"…"#`; `r#name` is a word and is kept.
    fn raw_string(&mut self) {
        let mut hashes = 0;
        while self.peek(1 + hashes) == '#' {
            hashes += 1;
        }
        if self.peek(1 + hashes) != '"' {
            return self.keep(1 + hashes);
        }
        self.keep(hashes + 2);
        while self.at < self.chars.len() {
            let closes = self.peek(0) == '"' && (1..=hashes).all(|i| self.peek(i) == '#');
            if closes {
                return self.keep(hashes + 1);
            }
            self.blank();
        }
    }

    /// A character literal, or the tick of a lifetime.
    fn quote(&mut self) {
        if self.peek(1) == '\\' {
            self.keep(1);
            self.blank();
            self.blank();
            while self.at < self.chars.len() && self.peek(0) != '\'' {
                self.blank();
            }
            self.keep(1);
        } else if self.peek(2) == '\'' {
            self.keep(1);
            self.blank();
            self.keep(1);
        } else {
            self.keep(1);
        }
    }
}

/// The code without what is only compiled for tests: items under `#[cfg(test)]` are blanked.
pub fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    let mut from = 0;
    while let Some(found) = out.get(from..).and_then(|rest| rest.find(MARK)) {
        let start = from + found;
        let end = item_end(&out, start + MARK.len());
        let blank: String =
            out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
        from = start + blank.len();
    }
    out
}

/// Where the item that begins at `start` ends: after its braces, or after its semicolon.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0usize;
    for (i, c) in code[start..].char_indices() {
        match c {
            ';' if depth == 0 => return start + i + 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return start + i + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Whether `word` stands alone somewhere in `line`: no identifier character on either side.
pub fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(i, _)| {
        let before = line[..i].chars().next_back();
        let after = line[i + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// A function: its name, and the lines (from 1) of its `fn` and of its closing brace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub first: usize,
    /// Where it ends.
    pub last: usize,
}

/// The functions with a body in code that went through [`code_only`], nested ones included.
pub fn functions(code: &str) -> Vec<Function> {
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue; // A function pointer's type.
        }
        if let Some(end) = body_end(code, at) {
            found.push(Function { name, first: line_of(at), last: line_of(end) });
        }
    }
    found
}

/// Where the body of the function whose `fn` is at `at` closes; nothing for a declaration.
fn body_end(code: &str, at: usize) -> Option<usize> {
    let mut brackets = 0i32;
    let mut braces = 0i32;
    for (i, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 && brackets == 0 {
                    return Some(at + i);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_blanked_and_lines_kept() {
        let source =
            "let a = \"x // {\\\" y\"; // tail {\nlet b = 'c'; /* one\n/* two */ */ fn f<'a>()";
        let code = code_only(source);
        assert_eq!(code.lines().count(), source.lines().count());
        assert!(!code.contains('{') && !code.contains("tail") && !code.contains("two"));
        assert!(code.contains("fn f<'a>()") && code.contains("let b = ' ';"));
    }

    #[test]
    fn raw_strings_and_escaped_characters_are_blanked() {
        let code = code_only("r#\"a \" { b\"# '\\'' '\\u{7b}' b\"{\" br\"{\" r#type '{'");
        assert!(!code.contains('{'), "{code}");
        assert!(code.contains("r#type"));
    }

    #[test]
    fn functions_are_measured() {
        let code = "fn a() {\n  {\n  }\n}\ntrait T {\n  fn decl(&self) -> [u8; 3];\n}\n\
                    fn b(f: fn (u8)) {}";
        let names: Vec<_> =
            functions(code).into_iter().map(|f| (f.name, f.first, f.last)).collect();
        assert_eq!(names, [("a".to_owned(), 1, 4), ("b".to_owned(), 8, 8)]);
    }

    #[test]
    fn test_items_are_left_out() {
        let code = "use a;\n#[cfg(test)]\nmod tests {\n  HashMap\n}\nfn real() {}";
        let left = without_tests(code);
        assert!(!left.contains("HashMap") && left.contains("fn real"));
        assert_eq!(left.lines().count(), code.lines().count());
    }

    #[test]
    fn words_stand_alone() {
        assert!(has_word("use x::HashMap;", "HashMap"));
        assert!(!has_word("MyHashMapLike", "HashMap"));
    }
}
