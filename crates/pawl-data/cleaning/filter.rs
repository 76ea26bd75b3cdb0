//! What is not worth a model's compute: generated tables, binding dumps, licence headers,
//! changelogs. Thresholds were set by reading what they removed from the dependency tree of 2026-11.
//!
//! Works on one document at a time; duplicates are the business of `dedup`.

use std::collections::HashSet;

/// Nothing shorter teaches anything.
const MIN_BYTES: usize = 200;
/// Every longer Rust file that was looked at is a table or a dump.
const MAX_BYTES: usize = 512 * 1024;

/// Whether a crate is bindings to another language: dumps of constants and foreign signatures,
/// often with vendored C beside them.
pub(crate) fn is_binding_crate(name: &str) -> bool {
    name == "libc" || name.ends_with("-sys") || name.starts_with("windows") || name.starts_with("winapi")
}

/// Whether a Markdown file is licence, changelog or project boilerplate, judged by its name.
pub(crate) fn is_boilerplate_name(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    const WORDS: &[&str] = &[
        "licen",
        "copying",
        "copyright",
        "changelog",
        "changes",
        "history",
        "release",
        "news",
        "conduct",
        "contributing",
        "security",
        "authors",
        "third",
        "notice",
        "pull_request",
        "issue_template",
    ];
    WORDS.iter().any(|word| name.contains(word))
}

/// Line ends as `\n`, no trailing blanks, no leading licence comment, at most one blank line in a row.
pub(crate) fn tidy(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    let mut blank_lines = 0;
    for line in text.lines().map(str::trim_end) {
        blank_lines = if line.is_empty() { blank_lines + 1 } else { 0 };
        if blank_lines < 2 && !(out.is_empty() && line.is_empty()) {
            out.push_str(line);
            out.push('\n');
        }
    }
    let body = out.len() - out.trim_end_matches('\n').len();
    out.truncate(out.len() - body.saturating_sub(1));
    out
}

/// Removes those of the comments at the top of a Rust file that speak of copyright or a licence.
pub(crate) fn without_licence_header(code: &str) -> String {
    let mut rest = code.trim_start();
    let mut kept = String::new();
    loop {
        let end = if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else {
            rest.split_inclusive('\n').take_while(|line| line.starts_with("//")).map(str::len).sum()
        };
        if end == 0 {
            return kept + rest;
        }
        let body = rest[end..].trim_start();
        if !speaks_of_licence(&rest[..end]) {
            kept.push_str(&rest[..rest.len() - body.len()]);
        }
        rest = body;
    }
}

fn speaks_of_licence(comment: &str) -> bool {
    let lower = comment.to_ascii_lowercase();
    ["copyright", "licen", "spdx-", "all rights reserved", "warrant"].iter().any(|word| lower.contains(word))
}

/// Removes Markdown sections headed "License", "Contribution" and the like, up to the next heading
/// of the same or a higher level.
pub(crate) fn without_licence_sections(markdown: &str) -> String {
    let mut out = String::with_capacity(markdown.len());
    let mut dropping: Option<usize> = None; // heading level of the section being dropped
    let mut fenced = false;
    for line in markdown.split_inclusive('\n') {
        fenced ^= line.trim_start().starts_with("```");
        let level = line.bytes().take_while(|&b| b == b'#').count();
        let heading = !fenced && (1..=6).contains(&level) && line[level..].starts_with(' ');
        if heading && dropping.is_none_or(|dropped| level <= dropped) {
            let title = line[level..].to_ascii_lowercase();
            let boilerplate = ["licen", "contribut", "copyright", "changelog", "acknowledg", "sponsor"];
            dropping = boilerplate.iter().any(|word| title.contains(word)).then_some(level);
        }
        if dropping.is_none() {
            out.push_str(line);
        }
    }
    out
}

/// Removes lines that only carry badges and links to them.
pub(crate) fn without_badges(markdown: &str) -> String {
    let badge = |line: &str| {
        let line = line.trim();
        (line.starts_with("[![") || line.starts_with("![") || line.starts_with("<img"))
            || (line.starts_with('[')
                && line.contains("]: http")
                && (line.contains("badge") || line.contains("shield")))
    };
    markdown.split_inclusive('\n').filter(|line| !badge(line)).collect()
}

/// Why a document is not worth carrying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// Under `MIN_BYTES`.
    Short,
    /// Over `MAX_BYTES`.
    Huge,
    /// Says that a program wrote it.
    Generated,
    /// Much of it is in very long lines.
    LongLines,
    /// Numbers, escapes and punctuation with little between.
    Table,
    /// Line after line of constants or bodiless signatures.
    Declarations,
    /// Says the same thing again and again.
    Repetitive,
}

/// Why `text` should not be carried, if it should not. For code and prose alike.
pub(crate) fn refusal(text: &str) -> Option<Refusal> {
    let cases: [(Refusal, fn(&str) -> bool); 7] = [
        (Refusal::Short, |text| text.len() < MIN_BYTES),
        (Refusal::Huge, |text| text.len() > MAX_BYTES),
        (Refusal::Generated, is_generated),
        (Refusal::LongLines, has_long_lines),
        (Refusal::Table, is_table),
        (Refusal::Declarations, is_declarations),
        (Refusal::Repetitive, is_repetitive),
    ];
    cases.iter().find(|(_, holds)| holds(text)).map(|&(refusal, _)| refusal)
}

fn is_generated(text: &str) -> bool {
    let head: String = text.lines().take(20).collect::<Vec<_>>().join("\n").to_ascii_lowercase();
    const SIGNS: &[&str] = &[
        "@generated",
        "automatically generated",
        "automatically-generated",
        "autogenerated",
        "auto-generated",
        "do not edit",
        "this file was generated",
        "this file is generated",
        "generated by:",
        "code generated by",
    ];
    SIGNS.iter().any(|sign| head.contains(sign))
}

fn has_long_lines(text: &str) -> bool {
    let long: usize = text.lines().map(str::len).filter(|&len| len > 400).sum();
    long * 10 > text.len() || text.lines().any(|line| line.len() > 8000)
}

/// Letters outside numbers and escapes are at least 45 % of any prose or code that was looked at.
fn is_table(text: &str) -> bool {
    let (mut visible, mut letters) = (0_usize, 0_usize);
    let mut in_number = false;
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        visible += 1;
        in_number = c.is_ascii_digit() || (in_number && (c.is_ascii_hexdigit() || c == 'x' || c == '_'));
        letters += usize::from(c.is_alphabetic() && !in_number);
    }
    letters * 100 < visible * 45
}

fn is_declarations(text: &str) -> bool {
    let mut lines = 0;
    let mut declarations = 0;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")) {
        lines += 1;
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let value = (line.starts_with("const ") || line.starts_with("static ")) && line.ends_with(';');
        let foreign = line.starts_with("fn ") && line.ends_with(';');
        declarations += usize::from(value || foreign);
    }
    lines >= 20 && declarations * 2 > lines
}

fn is_repetitive(text: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| line.len() > 3).collect();
    let distinct: HashSet<&str> = lines.iter().copied().collect();
    lines.len() >= 40 && distinct.len() * 100 < lines.len() * 40
}
