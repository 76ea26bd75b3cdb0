//! A file as the rules see it: its text, and for Rust the same text with everything that is not code
//! blanked, so that a word in a comment or a string is not taken for an identifier.

/// A text file of the repository. Lines of `text` and `code` correspond one to one.
pub(crate) struct Source {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// For Rust: strings and comments blanked, and the tests at the end of the file. Otherwise empty.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: String) -> Source {
        let code = if path.ends_with(".rs") { blank_tests(&blank(&text)) } else { String::new() };
        Source { path: path.to_string(), text, code }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The crate's folder name, for a file of a crate.
    pub(crate) fn package(&self) -> &str {
        match self.path.strip_prefix("crates/") {
            Some(rest) => rest.split('/').next().unwrap_or(rest),
            None => self.path.split('/').next().unwrap_or(&self.path),
        }
    }

    /// Whether this is part of the product: tests, examples, benches and build scripts are not.
    pub(crate) fn is_product(&self) -> bool {
        self.is_rust()
            && self.path.contains("/src/")
            && !self.path.ends_with("/tests.rs")
            && !self.path.contains("/tests/")
    }
}

/// From `#[cfg(test)]` before a `mod NAME {` to the end: by convention tests close a file.
fn blank_tests(code: &str) -> String {
    let lines: Vec<&str> = code.lines().collect();
    let begin = (1..lines.len()).find(|&at| {
        lines[at - 1].trim() == "#[cfg(test)]" && lines[at].starts_with("mod ") && lines[at].ends_with('{')
    });
    let keep = begin.map_or(lines.len(), |begin| begin - 1);
    lines
        .iter()
        .enumerate()
        .map(|(at, line)| if at < keep { *line } else { "" })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Replaces the contents of comments and literals by spaces; line breaks stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none does.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = |by: usize| chars.get(at + by).copied();
    match (chars[at], next(1)) {
        ('/', Some('/')) => find(chars, at, |chars, i| chars[i] == '\n'),
        ('/', Some('*')) => comment_end(chars, at),
        ('"', _) => string_end(chars, at + 1),
        ('r', Some('"' | '#')) if !continues_word(chars, at) => raw_end(chars, at),
        ('\'', Some('\\')) => find(chars, at + 3, |chars, i| chars[i] == '\'') + 1,
        ('\'', Some(_)) if next(2) == Some('\'') => at + 3,
        _ => at,
    }
}

fn find(chars: &[char], from: usize, is: impl Fn(&[char], usize) -> bool) -> usize {
    (from..chars.len()).find(|&i| is(chars, i)).unwrap_or(chars.len())
}

/// `r` and `b` may end a name; only `b`, `br` and `c` may stand directly before a literal.
fn continues_word(chars: &[char], at: usize) -> bool {
    let word = |i: usize| chars[i].is_alphanumeric() || chars[i] == '_';
    match at {
        0 => false,
        1 => word(0) && chars[0] != 'b' && chars[0] != 'c',
        _ => word(at - 1) && (!matches!(chars[at - 1], 'b' | 'c') || word(at - 2)),
    }
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn comment_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn raw_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    let open = at + 1 + hashes;
    // `r#name` is an identifier.
    if chars.get(open) != Some(&'"') {
        return at;
    }
    let closes = |chars: &[char], i: usize| {
        chars[i] == '"' && chars.len() > i + hashes && chars[i + 1..=i + hashes].iter().all(|&c| c == '#')
    };
    (find(chars, open + 1, closes) + 1 + hashes).min(chars.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_blank(text: &str, kept: &str) {
        let squeezed: String = blank(text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed, kept, "of {text}");
    }

    #[test]
    fn comments_and_literals_are_blanked_and_code_is_kept() {
        check_blank("a // b\nc", "a c");
        check_blank("a /* b /* c */ d */ e", "a e");
        check_blank(r#"f("x \" y") g"#, "f( ) g");
        check_blank("f(r#\"a \" b\"#) g", "f( ) g");
        check_blank("br\"abc\" g", "b g");
        check_blank("for r in x { var\"y\" }", "for r in x { var }");
        check_blank("r#type 'a' '\\'' '\\u{41}' &'a str", "r#type &'a str");
    }

    #[test]
    fn line_numbers_survive_blanking() {
        let text = "a\n/* b\n c */ d\n\"e\nf\" g";
        assert_eq!(blank(text).lines().count(), text.lines().count());
        assert!(blank(text).lines().nth(4).is_some_and(|line| line.contains('g')));
    }

    #[test]
    fn tests_at_the_end_are_not_code() {
        let source =
            Source::new("crates/a/src/lib.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n  b();\n}\n".into());
        assert!(source.code.contains("fn a"));
        assert!(!source.code.contains('b'));
    }

    #[test]
    fn the_package_is_the_folder_below_crates() {
        assert_eq!(Source::new("crates/pawl-graph/src/op.rs", String::new()).package(), "pawl-graph");
        assert_eq!(Source::new("xtask/src/main.rs", String::new()).package(), "xtask");
    }
}
