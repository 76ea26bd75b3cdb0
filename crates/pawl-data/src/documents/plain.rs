//! Plain text: a file is a document, unless [`SEPARATOR`] divides it into several, or it is so large
//! that it is cut at blank lines.

use super::{Each, Source};
use crate::DataError;

/// What many public sets of plain text put between two documents.
const SEPARATOR: &str = "<|endoftext|>";
/// A larger file becomes several documents, ...
const MAX_WHOLE_BYTES: usize = 4 << 20;
/// ... each of at most this many bytes.
const PIECE_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 1 << 18;

pub(super) fn read(mut source: Source<'_>, each: Each<'_>) -> Result<(), DataError> {
    let mut text = Vec::new();
    let mut chunk = vec![0; READ_BYTES];
    let mut line = 1;
    let mut limit = MAX_WHOLE_BYTES;
    let mut empty = true;
    loop {
        let len = source.fill(&mut chunk)?;
        text.extend_from_slice(&chunk[..len]);
        while text.len() > limit {
            limit = PIECE_BYTES; // from here on the file is in pieces
            let rest = text.split_off(cut(&text[..PIECE_BYTES]));
            empty &= give(&source, &text, &mut line, each)?;
            text = rest;
        }
        if len == 0 {
            empty &= give(&source, &text, &mut line, each)?;
            return if empty { Err(DataError::Empty { path: source.path.to_path_buf() }) } else { Ok(()) };
        }
    }
}

/// Where to end a piece: after the last separator, else after the last blank line, else after the last
/// line, else at a character.
fn cut(bytes: &[u8]) -> usize {
    let len = SEPARATOR.len();
    let separator = bytes.windows(len).rposition(|window| window == SEPARATOR.as_bytes()).map(|at| at + len);
    let blank_line = || bytes.windows(2).rposition(|pair| pair == b"\n\n").map(|at| at + 2);
    let line = || bytes.iter().rposition(|&byte| byte == b'\n').map(|at| at + 1);
    let character = || bytes.iter().rposition(|&byte| byte & 0xC0 != 0x80).filter(|&at| at > 0);
    separator.or_else(blank_line).or_else(line).or_else(character).unwrap_or(bytes.len())
}

/// Hands on the documents of a piece of text; says whether it was blank.
fn give(source: &Source<'_>, bytes: &[u8], line: &mut u64, each: Each<'_>) -> Result<bool, DataError> {
    let newlines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
    let text = std::str::from_utf8(bytes).map_err(|error| DataError::NotUtf8 {
        path: source.path.to_path_buf(),
        line: *line + newlines(&bytes[..error.valid_up_to()]),
    })?;
    *line += newlines(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut blank = true;
    for document in text.split(SEPARATOR) {
        let whole = document.len() == text.len();
        let document = if whole { text } else { document.trim_matches(['\r', '\n']) };
        if !document.trim().is_empty() {
            blank = false;
            each(document)?;
        }
    }
    Ok(blank)
}
