//! How answers look: data on stdout, narration on stderr, tables with fixed columns, blocks of
//! `key: value`, one JSON document with `--json`. Readable without colour.

use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

/// What a command found out, for people and for programs.
pub(crate) struct Answer {
    /// Printed as it is; empty when the command printed while it worked.
    pub(crate) text: String,
    pub(crate) json: Map<String, Value>,
    /// Whether what was asked holds; an answer that says no ends with exit code 1.
    pub(crate) holds: bool,
}

impl Answer {
    pub(crate) fn new(text: String, json: Value) -> Answer {
        let Value::Object(json) = json else { unreachable!("an answer is a JSON object, not {json}") };
        Answer { text, json, holds: true }
    }

    /// The answer to a question that has been answered with yes or no.
    pub(crate) fn of(holds: bool, text: String, json: Value) -> Answer {
        Answer { holds, ..Answer::new(text, json) }
    }

    /// Prints the answer in the form asked for.
    pub(crate) fn print(self, json: bool) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if json {
            let mut document = Map::new();
            document.insert("schema".to_string(), pawl_record::SCHEMA.into());
            document.extend(self.json);
            serde_json::to_writer(&mut stdout, &document)?;
            writeln!(stdout)?;
        } else {
            stdout.write_all(self.text.as_bytes())?;
        }
        stdout.flush()
    }
}

/// One line to whoever watches. Lost when nobody can: narration never fails a command.
pub(crate) fn narrate(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Lines of `key: value`.
#[derive(Default)]
pub(crate) struct Block(String);

impl Block {
    pub(crate) fn line(&mut self, key: &str, value: impl std::fmt::Display) -> &mut Block {
        writeln!(self.0, "{key}: {value}").expect("a string takes every write");
        self
    }

    /// The line, where there is something to say.
    pub(crate) fn maybe(&mut self, key: &str, value: Option<impl std::fmt::Display>) -> &mut Block {
        match value {
            Some(value) => self.line(key, value),
            None => self,
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

/// Where the text of a column stands.
#[derive(Clone, Copy)]
pub(crate) enum Align {
    /// Names and words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under headings that carry the units.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.columns.len(), "cells and columns of {row:?}");
        self.rows.push(row);
    }

    pub(crate) fn text(&self) -> String {
        let heading: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_string()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&heading).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for line in lines {
            let cells =
                line.iter().zip(&self.columns).zip(&widths).map(|((cell, (_, align)), width)| match align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                });
            let line = cells.collect::<Vec<_>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A live last line on a terminal; nothing at all anywhere else.
pub(crate) struct Status(indicatif::ProgressBar);

impl Status {
    /// `quiet` for answers that only a program will read.
    pub(crate) fn new(quiet: bool) -> Status {
        let bar = match io::stderr().is_terminal() && !quiet {
            true => indicatif::ProgressBar::new_spinner(),
            false => indicatif::ProgressBar::hidden(),
        };
        let style = indicatif::ProgressStyle::with_template("{wide_msg}").expect("a fixed template");
        Status(bar.with_style(style))
    }

    pub(crate) fn show(&self, line: String) {
        self.0.set_message(line);
        self.0.tick();
    }

    /// Writes a line that stays, above the live one.
    pub(crate) fn narrate(&self, line: &str) {
        self.0.suspend(|| narrate(line));
    }

    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// `[====>    ]`, `width` characters between the brackets.
pub(crate) fn bar(share: f64, width: usize) -> String {
    let full = (share.clamp(0.0, 1.0) * width as f64).floor() as usize;
    let head = if full < width { ">" } else { "" };
    let rest = width - full - head.len();
    format!("[{}{head}{}]", "=".repeat(full), " ".repeat(rest))
}

/// Three digits and a letter: 840, 12.3k, 1.24M.
pub(crate) fn count(number: f64) -> String {
    let (scaled, letter) = scale(number);
    match (letter, scaled.abs()) {
        ("", _) if scaled.fract() == 0.0 => format!("{scaled}"),
        (_, x) if x < 9.995 => format!("{scaled:.2}{letter}"),
        (_, x) if x < 99.95 => format!("{scaled:.1}{letter}"),
        (_, _) => format!("{scaled:.0}{letter}"),
    }
}

fn scale(number: f64) -> (f64, &'static str) {
    let letters = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let found = letters.iter().find(|(unit, _)| number.abs() >= *unit);
    found.map_or((number, ""), |(unit, letter)| (number / unit, letter))
}

/// 12.3 MFLOP.
pub(crate) fn flops(number: f64) -> String {
    let (_, letter) = scale(number);
    let text = count(number);
    match text.strip_suffix(letter) {
        Some(digits) if !letter.is_empty() => format!("{digits} {letter}FLOP"),
        Some(_) | None => format!("{text} FLOP"),
    }
}

/// 31.4 MB, in powers of ten.
pub(crate) fn bytes(number: u64) -> String {
    let (_, letter) = scale(number as f64);
    let text = count(number as f64);
    match text.strip_suffix(letter) {
        Some(digits) if !letter.is_empty() => format!("{digits} {letter}B"),
        Some(_) | None => format!("{text} B"),
    }
}

/// 4.2 s, 03:05, 1:02:03.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{:.1} s", seconds.max(0.0)),
        60..3600 => format!("{:02}:{:02}", whole / 60, whole % 60),
        _ => format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(count(840.0), "840");
        assert_eq!(count(12_345.0), "12.3k");
        assert_eq!(count(999_900.0), "1000k");
        assert_eq!(count(1_236_000.0), "1.24M");
        assert_eq!(flops(5.1e6), "5.10 MFLOP");
        assert_eq!(flops(12.0), "12 FLOP");
        assert_eq!(bytes(31_400_000), "31.4 MB");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(duration(4.21), "4.2 s");
        assert_eq!(duration(185.4), "03:05");
        assert_eq!(duration(3723.0), "1:02:03");
    }

    #[test]
    fn columns_line_up_and_lines_do_not_trail() {
        let mut table = Table::new(&[("id", Align::Left), ("tokens/s", Align::Right), ("end", Align::Left)]);
        table.row(vec!["abc".into(), "12".into(), "x".into()]);
        table.row(vec!["a".into(), "123456789".into(), String::new()]);
        assert_eq!(table.text(), "id    tokens/s  end\nabc         12  x\na    123456789\n");
    }

    #[test]
    fn a_bar_is_as_wide_at_every_share() {
        assert_eq!(bar(0.0, 4), "[>   ]");
        assert_eq!(bar(0.5, 4), "[==> ]");
        assert_eq!(bar(1.0, 4), "[====]");
        assert_eq!(bar(7.0, 4), "[====]");
    }
}
