//! Takes the doc comments out of a Rust file: what is left is the `code` document, what came out
//! the `prose` document.
//!
//! A lexer for comments, strings and character literals, nothing more: it must never mistake
//! `"// text"` for a comment, and it never changes a character of what it keeps.

/// A Rust file in two parts.
pub(crate) struct Separated {
    /// The file without its doc comments.
    pub(crate) code: String,
    /// The text of its doc comments, one paragraph break between two of them.
    pub(crate) prose: String,
}

/// Separates `source` into code and prose.
pub(crate) fn separate(source: &str) -> Separated {
    let bytes = source.as_bytes();
    let (mut code, mut prose) = (String::with_capacity(source.len()), String::new());
    let (mut at, mut kept_from) = (0, 0);
    let mut after_doc = usize::MAX; // where the code after the last one goes on
    while at < bytes.len() {
        let end = item_end(bytes, at);
        if let Some(text) = doc_text(&source[at..end]) {
            code.push_str(source[kept_from..at].trim_end_matches([' ', '\t']));
            let next_line = (end + 1).min(bytes.len()); // the newline goes with its comment
            kept_from =
                if bytes.get(end) == Some(&b'\n') && starts_line(bytes, at) { next_line } else { end };
            let continues =
                after_doc != usize::MAX && source[after_doc..at].bytes().all(|b| b == b' ' || b == b'\t');
            if !continues && !prose.is_empty() {
                prose.push('\n');
            }
            prose.push_str(&text);
            prose.push('\n');
            at = kept_from;
            after_doc = at;
        } else {
            at = end;
        }
    }
    code.push_str(&source[kept_from..]);
    Separated { code, prose }
}

/// Whether only blanks precede `at` on its line.
fn starts_line(bytes: &[u8], at: usize) -> bool {
    bytes[..at].iter().rev().take_while(|&&b| b != b'\n').all(|&b| b == b' ' || b == b'\t')
}

/// End of the comment, literal or single character that starts at `at`. Line comments end before
/// their newline. Every end is a character boundary.
fn item_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    match rest[0] {
        b'/' if rest.starts_with(b"//") => at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()),
        b'/' if rest.starts_with(b"/*") => at + block_comment_len(rest),
        b'"' => at + string_len(rest),
        b'\'' => at + quote_len(rest),
        b'r' | b'b' | b'c' if !continues_word(bytes, at) => at + raw_string_len(rest).unwrap_or(1),
        _ => {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] & 0xC0 == 0x80 {
                end += 1;
            }
            end
        }
    }
}

fn continues_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

/// Block comments nest in Rust.
fn block_comment_len(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string_len(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character literal, or one byte when the quote opens a lifetime.
fn quote_len(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        let close = rest.iter().skip(3).position(|&b| b == b'\'');
        return close.map_or(1, |found| found + 4);
    }
    let character = rest.get(1..).and_then(|tail| {
        std::str::from_utf8(&tail[..tail.len().min(4)]).map_or_else(
            |error| std::str::from_utf8(&tail[..error.valid_up_to()]).ok().and_then(|s| s.chars().next()),
            |s| s.chars().next(),
        )
    });
    match character {
        Some(c) if rest.get(1 + c.len_utf8()) == Some(&b'\'') => 2 + c.len_utf8(),
        Some(_) | None => 1,
    }
}

/// `r"…"`, `r#"…"#`, `br#"…"#`, `cr"…"`; `None` when it is only a name that starts so.
fn raw_string_len(rest: &[u8]) -> Option<usize> {
    let prefix = rest.iter().take_while(|b| b"rbc".contains(b)).count();
    let raw = rest[..prefix].contains(&b'r');
    if prefix > 2 || !raw {
        return None;
    }
    let hashes = rest[prefix..].iter().take_while(|&&b| b == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let body = prefix + hashes + 1;
    let close = [b"\"".as_slice(), &rest[prefix..prefix + hashes]].concat();
    let found = rest[body..].windows(close.len()).position(|window| window == close);
    Some(found.map_or(rest.len(), |found| body + found + close.len()))
}

/// The text of a doc comment; `None` for every other item.
fn doc_text(item: &str) -> Option<String> {
    if let Some(text) = item.strip_prefix("//!") {
        return Some(line_text(text));
    }
    if let Some(text) = item.strip_prefix("///") {
        return (!text.starts_with('/')).then(|| line_text(text));
    }
    let body = item
        .strip_prefix("/*!")
        .or_else(|| item.strip_prefix("/**").filter(|b| !b.starts_with(['*', '/'])))?;
    let body = body.strip_suffix("*/").unwrap_or(body);
    let line = |line: &str| {
        let text = line.trim();
        line_text(text.strip_prefix('*').unwrap_or(text))
    };
    Some(body.lines().map(line).collect::<Vec<_>>().join("\n").trim().to_owned())
}

fn line_text(text: &str) -> String {
    text.strip_prefix(' ').unwrap_or(text).trim_end().to_owned()
}
