//! What must not be written, line by line. Rust is searched with comments, strings and tests blanked
//! unless the rule is about text as such.

use super::Finding;
use super::source::Source;

/// Text that no file may hold, wherever it stands. Written in pieces: this file is a file too.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    (concat!("TO", "DO"), "an unfinished thought", "do it, or put it in LOG.md"),
    (concat!("FIX", "ME"), "an unfinished thought", "do it, or put it in LOG.md"),
    (concat!("/ro", "ot/"), "a path of one machine", "make it relative, or an argument"),
    (concat!("/ho", "me/"), "a path of one machine", "make it relative, or an argument"),
    (concat!("/wo", "rk/"), "a path of one machine", "make it relative, or an argument"),
    (concat!("crates", ".io"), "the host of a registry", "name the package alone"),
    (concat!("pypi", ".org"), "the host of a registry", "name the package alone"),
    (concat!("pythonhosted", ".org"), "the host of a registry", "name the package alone"),
    (concat!("npmjs", ".org"), "the host of a registry", "name the package alone"),
    (concat!("debian", ".org"), "the host of a registry", "name the package alone"),
];

/// Identifiers of Rust and recipes that our words replace.
const WORDS: &[(&str, &str)] = &[
    ("n_embd", "call it width"),
    ("block_size", "call it seq_len"),
    ("todo!", "write it, or leave it out"),
    ("unimplemented!", "write it, or leave it out"),
    ("dbg!", "delete it"),
];

const VAGUE: &[&str] = &["utils", "util", "helpers", "helper", "common", "manager", "misc", "core"];

/// What a recipe or a graph must not reach: they are to give the same answer everywhere, always.
const WORLD: &[&str] = &["fs", "thread", "time", "env", "net", "process"];

const PRINTS: &[&str] = &["println!", "print!", "eprintln!", "eprint!"];

pub(crate) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let mut found = |line: usize, what: String, fix: &'static str| {
        findings.push(Finding { path: source.path.clone(), line: line + 1, what, fix });
    };
    // Cargo writes the registry's name into the lock file.
    if source.path != "Cargo.lock" {
        for (at, line) in source.text.lines().enumerate() {
            for (text, what, fix) in FORBIDDEN.iter().filter(|(text, _, _)| line.contains(text)) {
                found(at, format!("`{text}` is {what}"), fix);
            }
        }
    }
    if let Some(part) = source.path.trim_end_matches(".rs").split('/').find(|part| VAGUE.contains(part)) {
        found(
            0,
            format!("`{part}` says nothing of what is inside"),
            "name the file for the one idea it holds",
        );
    }
    if source.path.ends_with(".star") {
        for (at, line) in source.text.lines().enumerate() {
            for (word, fix) in WORDS.iter().filter(|(word, _)| has_word(line, word)) {
                found(at, format!("`{word}` is not one of our words"), fix);
            }
        }
    }
    if source.is_rust() {
        rust(source, &mut found);
    }
}

fn rust(source: &Source, found: &mut impl FnMut(usize, String, &'static str)) {
    if !source.text.starts_with("//!") {
        found(0, "the file does not open with `//!`".into(), "say what it is for and what it refuses to do");
    }
    let package = source.package();
    let pure = source.is_product() && matches!(package, "pawl-graph" | "pawl-recipe");
    let silent = source.is_product() && !matches!(package, "pawl" | "xtask");
    for (at, line) in source.code.lines().enumerate() {
        for (word, fix) in WORDS.iter().filter(|(word, _)| has_word(line, word)) {
            found(at, format!("`{word}` is not one of our words"), fix);
        }
        if let Some(module) = VAGUE.iter().find(|module| has_word(line, &format!("mod {module}"))) {
            found(at, format!("`mod {module}` says nothing"), "name the module for the one idea it holds");
        }
        if let Some(name) = WORLD.iter().find(|name| pure && reaches(line, name)) {
            found(
                at,
                format!("{package} reaches `std::{name}`"),
                "take what is needed as a function's argument",
            );
        }
        if let Some(print) = PRINTS.iter().find(|print| silent && has_word(line, print)) {
            found(at, format!("`{print}` outside the binary"), "return it; crates/pawl prints");
        }
        if package != "pawl-engine" && has_word(line, "unsafe") {
            found(
                at,
                "unsafe code outside the engine".into(),
                "find a safe way, or give the engine the function",
            );
        }
    }
}

/// Whether `word` stands in `line` by itself and not as a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(name) && (word.ends_with('!') || !after.is_some_and(name))
    })
}

/// `std::name` or `std::{.., name, ..}` on one line, as rustfmt writes them.
fn reaches(line: &str, name: &str) -> bool {
    has_word(line, &format!("std::{name}"))
        || line.split_once("std::{").is_some_and(|(_, group)| has_word(group, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_lines(path: &str, text: &str, expected: &[usize]) {
        let mut findings = Vec::new();
        check(&Source::new(path, text.to_string()), &mut findings);
        let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, expected, "{path}: {findings:?}");
    }

    #[test]
    fn a_world_reached_from_recipe_or_graph_is_found() {
        let path = "crates/pawl-recipe/src/lib.rs";
        check_lines(path, "//! x\nuse std::fs;\nuse std::{fmt, time::Instant};\n", &[2, 3]);
        check_lines(path, "//! std::fs\nlet s = \"std::env\";\n", &[]);
        check_lines(path, "//! x\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n", &[]);
        check_lines("crates/pawl-data/src/lib.rs", "//! x\nuse std::fs;\n", &[]);
    }

    #[test]
    fn a_print_outside_the_binary_is_found() {
        check_lines("crates/pawl-train/src/lib.rs", "//! x\nprintln!();\neprint!();\n", &[2, 3]);
        check_lines("crates/pawl/src/output.rs", "//! x\nprintln!();\n", &[]);
        check_lines("crates/pawl-model/examples/parity.rs", "//! x\nprintln!();\n", &[]);
    }

    #[test]
    fn words_are_whole_words() {
        check_lines("crates/pawl-model/src/a.rs", "//! x\nlet n_embd = 1;\nlet block_sizes = 2;\n", &[2]);
        check_lines("recipes/tiny.star", "block_size = 3\n", &[1]);
    }

    #[test]
    fn paths_and_hosts_are_found_in_any_file() {
        check_lines("README.md", concat!("a\nsee /wo", "rk/shared\n"), &[2]);
        check_lines("notes.txt", concat!("https://crates", ".io/x\n"), &[1]);
        check_lines("Cargo.lock", concat!("https://crates", ".io/x\n"), &[]);
    }

    #[test]
    fn vague_names_and_headless_files_are_found() {
        check_lines("crates/pawl-data/src/utils.rs", "//! x\n", &[1]);
        check_lines("crates/pawl-data/src/lib.rs", "//! x\nmod helpers;\n", &[2]);
        check_lines("crates/pawl-data/src/lib.rs", "use std::fmt;\n", &[1]);
    }

    #[test]
    fn unsafe_outside_the_engine_is_found() {
        check_lines("crates/pawl-data/src/a.rs", "//! x\nlet a = unsafe { b() };\n", &[2]);
        check_lines("crates/pawl-engine/src/a.rs", "//! x\nunsafe fn a() {}\n", &[]);
        // Derives of other crates write unsafe code, which the lint must then be told to let through.
        check_lines("crates/pawl-recipe/src/a.rs", "//! unsafe\n#![allow(unsafe_code)]\n", &[]);
    }
}
