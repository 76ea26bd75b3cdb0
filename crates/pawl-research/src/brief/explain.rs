//! The whole campaign as it would run: a TOML file that can be read back, with a line on what each key means and a
//! word on who said it.

use super::{Brief, Key, RUNG, Source, TABLES, Value, path, rung_path};
use serde::Serialize;
use std::fmt::Write;

/// A key of a settled brief.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// As `judge.alpha` or `rung[0].depth`.
    pub key: String,
    /// `None` where it is not set.
    pub value: Option<Value>,
    /// `default`, `the lab's campaign`, `campaign.toml:3` or a flag.
    pub source: String,
    /// What it means.
    pub meaning: &'static str,
}

impl Brief {
    /// Every key, in the order of the tables.
    pub fn entries(&self) -> Vec<Entry> {
        let mut brief = self.clone();
        let mut entries = Vec::new();
        for (table, keys) in TABLES {
            for key in *keys {
                let source = self.source(table, key.name);
                entries.push(entry(key, &mut brief, path(table, key.name), &source));
            }
        }
        for idx in 0..self.rungs.len() {
            for key in RUNG {
                let place = rung_path(idx, key.name);
                let source = self.sources.get(&place).cloned().unwrap_or_default();
                entries.push(entry(key, &mut brief.rungs[idx], place, &source));
            }
        }
        entries
    }

    /// The same as a commented file.
    pub fn explain(&self) -> String {
        let mut entries = self.entries().into_iter();
        let mut out =
            String::from("# The campaign as it would run. A campaign.toml may hold any of these keys.\n");
        for (table, keys) in TABLES {
            if !table.is_empty() {
                let _ = write!(out, "\n[{table}]");
            }
            out.push('\n');
            entries.by_ref().take(keys.len()).for_each(|entry| lines(&mut out, &entry));
        }
        for idx in 0..self.rungs.len() {
            let role = if idx == 0 { "where proposals are tried" } else { "where a keep must hold" };
            let _ = writeln!(out, "\n# {role}\n[[rung]]");
            entries.by_ref().take(RUNG.len()).for_each(|entry| lines(&mut out, &entry));
        }
        out
    }
}

fn entry<T>(key: &Key<T>, target: &mut T, place: String, source: &Source) -> Entry {
    let value = key.get(target);
    let source = match (&value, source) {
        (None, _) => "not set".to_string(),
        (_, Source::Default) => "default".to_string(),
        (_, Source::Lab) => "the lab's campaign".to_string(),
        (_, Source::File { file, line }) => format!("{file}:{line}"),
        (_, Source::Flag(flag)) => (*flag).to_string(),
    };
    Entry { key: place, value, source, meaning: key.meaning }
}

/// Column of the sources.
const SOURCE: usize = 28;

fn lines(out: &mut String, entry: &Entry) {
    let name = entry.key.rsplit('.').next().unwrap_or(&entry.key);
    let said = match &entry.value {
        Some(value) => format!("{name} = {}", literal(value)),
        None => format!("# {name} ="),
    };
    // A file's name may hold what would end a comment.
    let source: String = entry.source.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let _ = writeln!(out, "# {}\n{said:<SOURCE$}  # {source}", entry.meaning);
}

fn literal(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Whole(whole) => whole.to_string(),
        Value::Number(number) if number.abs() >= 1e6 || (number.abs() < 1e-4 && *number != 0.0) => {
            format!("{number:e}")
        }
        Value::Number(number) => format!("{number:?}"),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
