//! Cuts text into the words inside which merges may happen: a GPT-4 style splitter with digits in
//! groups of one or two.
//!
//! [`PATTERN`] is what `tokenizer.json` says; [`words`] must cut exactly so. Letters are those of the
//! Unicode property `Alphabetic`, not of the category `L`: the standard library has a table of the
//! former, and it keeps the vowel signs of Indic scripts inside their words.

/// The splitter as a regular expression.
pub(crate) const PATTERN: &str = concat!(
    r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])",
    r"|[^\r\n\p{Alphabetic}\p{N}]?\p{Alphabetic}+",
    r"|\p{N}{1,2}",
    r"| ?[^\s\p{Alphabetic}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+",
    r"|\s+(?!\S)",
    r"|\s+"
);

/// The words of `text`, in order; joined they are `text`. No merge reaches over the end of a word.
pub fn words(text: &str) -> Words<'_> {
    Words { rest: text }
}

/// See [`words`].
#[derive(Clone, Debug)]
pub struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let first = self.rest.chars().next()?;
        let (word, rest) = self.rest.split_at(word_len(self.rest, first));
        self.rest = rest;
        Some(word)
    }
}

/// Length in bytes of the first word of `text`, whose first character is `first`. The order of the
/// cases is the order of the alternatives of [`PATTERN`].
fn word_len(text: &str, first: char) -> usize {
    if first == '\'' {
        let len = contraction_len(text.as_bytes());
        if len > 0 {
            return len;
        }
    }
    if is_letter(first) {
        return run_len(text, is_letter);
    }
    let tail = &text[first.len_utf8()..];
    let numeric = first.is_numeric();
    if !numeric && !is_newline(first) && tail.starts_with(is_letter) {
        return first.len_utf8() + run_len(tail, is_letter);
    }
    if numeric {
        return first.len_utf8() + tail.chars().next().filter(|c| c.is_numeric()).map_or(0, char::len_utf8);
    }
    let space = usize::from(first == ' ');
    let marks = run_len(&text[space..], is_mark);
    if marks > 0 {
        return space + marks + run_len(&text[space + marks..], is_newline);
    }
    blank_len(text)
}

/// A run of white space: up to its last newline; else, before other text, all but its last character.
fn blank_len(text: &str) -> usize {
    let len = run_len(text, char::is_whitespace);
    let run = &text[..len];
    if let Some(newline) = run.rfind(is_newline) {
        return newline + 1;
    }
    let last = run.chars().next_back().map_or(0, char::len_utf8);
    if len < text.len() && last < len { len - last } else { len }
}

fn contraction_len(bytes: &[u8]) -> usize {
    let lower = |at: usize| bytes.get(at).map_or(0, u8::to_ascii_lowercase);
    match (lower(1), lower(2)) {
        (b's' | b't' | b'm' | b'd', _) => 2,
        (b'r' | b'v', b'e') | (b'l', b'l') => 3,
        _ => 0,
    }
}

fn run_len(text: &str, holds: impl Fn(char) -> bool) -> usize {
    text.find(|c| !holds(c)).unwrap_or(text.len())
}

fn is_letter(c: char) -> bool {
    c.is_alphabetic()
}

fn is_newline(c: char) -> bool {
    c == '\r' || c == '\n'
}

fn is_mark(c: char) -> bool {
    !(c.is_whitespace() || c.is_alphabetic() || c.is_numeric())
}
