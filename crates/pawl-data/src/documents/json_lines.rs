//! One JSON object per line, its field `text` a document. Blank lines and empty texts are passed over.

use super::{Each, Source};
use crate::DataError;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// A longer line is not a document but a file of another kind.
const MAX_LINE_BYTES: usize = 256 << 20;
const READ_BYTES: usize = 1 << 18;

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
}

pub(super) fn read(mut source: Source<'_>, each: Each<'_>) -> Result<(), DataError> {
    let mut pending = Vec::new();
    let mut chunk = vec![0; READ_BYTES];
    let mut line = 0;
    let mut empty = true;
    loop {
        let len = source.fill(&mut chunk)?;
        let mut rest = &chunk[..len];
        while let Some(newline) = rest.iter().position(|&byte| byte == b'\n') {
            pending.extend_from_slice(&rest[..newline]);
            line += 1;
            empty &= give(&source, &pending, line, each)?;
            pending.clear();
            rest = &rest[newline + 1..];
        }
        pending.extend_from_slice(rest);
        if pending.len() > MAX_LINE_BYTES {
            return Err(DataError::LongLine { path: source.path.to_path_buf(), line: line + 1 });
        }
        if len == 0 {
            empty &= give(&source, &pending, line + 1, each)?;
            return if empty { Err(DataError::Empty { path: source.path.to_path_buf() }) } else { Ok(()) };
        }
    }
}

/// Hands on the text of one line; says whether there was none.
fn give(source: &Source<'_>, bytes: &[u8], line: u64, each: Each<'_>) -> Result<bool, DataError> {
    let bytes = bytes.trim_ascii();
    if bytes.is_empty() {
        return Ok(true);
    }
    // The derived reader would also take an array, in the order of the fields.
    let row = if bytes[0] == b'{' { serde_json::from_slice::<Row<'_>>(bytes).ok() } else { None };
    let row = row.ok_or_else(|| explain(source, bytes, line))?;
    if !row.text.is_empty() {
        each(&row.text)?;
    }
    Ok(row.text.is_empty())
}

/// Distinguishes a line that is not a JSON object from one that has no text.
fn explain(source: &Source<'_>, bytes: &[u8], line: u64) -> DataError {
    let path = source.path.to_path_buf();
    match serde_json::from_slice::<Map<String, Value>>(bytes) {
        Ok(fields) => {
            let found: Vec<&str> = fields.keys().map(String::as_str).collect();
            DataError::NoTextField { path, line, found: found.join(", ") }
        }
        Err(source) => DataError::Json { path, line, source },
    }
}
