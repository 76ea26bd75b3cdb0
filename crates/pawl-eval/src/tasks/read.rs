//! The formats of items: JSON lines as in the DCLM bundle, and the text form of HellaSwag.

use super::{Item, Kind, TaskData, TaskError, files};
use serde_json::Value;
use std::path::Path;

/// Items as they are read, and the hash of every file so far.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) items: Vec<Item>,
    hash: blake3::Hasher,
}

impl Reading {
    /// The text of a file, which joins the hash.
    pub(super) fn open(&mut self, path: &Path) -> Result<String, TaskError> {
        let text = files::text(path)?;
        self.hash.update(blake3::hash(text.as_bytes()).as_bytes());
        Ok(text)
    }

    pub(super) fn finish(self) -> TaskData {
        TaskData { items: self.items, hash: self.hash.finalize().to_hex().to_string() }
    }
}

pub(super) fn malformed(path: &Path, line: usize, missing: &str) -> TaskError {
    TaskError::Malformed { path: path.to_path_buf(), line, because: format!("no {missing}") }
}

/// The rows of JSON lines with their numbers.
pub(super) fn rows(path: &Path, text: &str) -> Result<Vec<(usize, Value)>, TaskError> {
    let mut rows = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row = serde_json::from_str(line).map_err(|error| TaskError::Malformed {
            path: path.to_path_buf(),
            line: at + 1,
            because: error.to_string(),
        })?;
        rows.push((at + 1, row));
    }
    Ok(rows)
}

/// A field that is a text.
pub(super) fn text(row: &Value, name: &str) -> Option<String> {
    row[name].as_str().map(str::to_string)
}

fn texts(row: &Value, name: &str) -> Option<Vec<String>> {
    row[name].as_array()?.iter().map(|text| text.as_str().map(str::to_string)).collect()
}

/// `query`, `choices`, `gold`; `context_options`, `continuation`, `gold`; or `context`, `continuation`.
pub(super) fn json_lines(folder: &Path, file: &str, kind: Kind) -> Result<TaskData, TaskError> {
    let path = folder.join(file);
    let mut data = Reading::default();
    let text = data.open(&path)?;
    for (line, row) in rows(&path, &text)? {
        let item = item(&row, kind).ok_or_else(|| malformed(&path, line, "item of this task"))?;
        data.items.push(item);
    }
    Ok(data.finish())
}

fn item(row: &Value, kind: Kind) -> Option<Item> {
    let (asked, continuations) = match kind {
        Kind::Choice => (vec![text(row, "query")?], texts(row, "choices")?),
        Kind::Schema => (texts(row, "context_options")?, vec![text(row, "continuation")?]),
        Kind::Completion => (vec![text(row, "context")?], vec![text(row, "continuation")?]),
        Kind::Pair => return None,
    };
    let gold = match kind {
        Kind::Completion => 0,
        Kind::Choice | Kind::Schema | Kind::Pair => row["gold"].as_u64()? as usize,
    };
    let num_options = asked.len().max(continuations.len());
    (gold < num_options).then_some(Item { asked, continuations, gold, part: None })
}

/// Six lines an item: context, place of the right ending, four endings. A bundle's `core/hellaswag.jsonl` where it is.
pub(super) fn hellaswag(folder: &Path) -> Result<TaskData, TaskError> {
    if folder.join("core/hellaswag.jsonl").exists() {
        return json_lines(folder, "core/hellaswag.jsonl", Kind::Choice);
    }
    let path = folder.join("hellaswag/hellaswag_val_full.txt");
    let mut data = Reading::default();
    let text = data.open(&path)?;
    let lines: Vec<&str> = text.lines().collect();
    for (at, item) in lines.chunks(6).enumerate() {
        let [context, gold, endings @ ..] = item else { break };
        let gold = gold.trim().parse().ok().filter(|gold| *gold < endings.len() && endings.len() == 4);
        data.items.push(Item {
            asked: vec![(*context).to_string()],
            continuations: endings.iter().map(|ending| (*ending).to_string()).collect(),
            gold: gold.ok_or_else(|| malformed(&path, 6 * at + 1, "item of six lines"))?,
            part: None,
        });
    }
    Ok(data.finish())
}
