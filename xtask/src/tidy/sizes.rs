//! A ratchet on sizes: a file or function over its limit must be listed in `sizes.txt` with the size
//! it has, and a listed size may only go down.
//!
//! Functions are found by their indentation: rustfmt closes each with a brace at its own depth.

use super::source::Source;
use super::{Finding, SIZES};
use std::collections::BTreeMap;

/// Lines of a Rust file, its tests included.
const MAX_FILE: usize = 600;
/// Lines of a function, from its name to its brace.
const MAX_FUNCTION: usize = 100;

pub(crate) fn check(sources: &[Source], table: &str, findings: &mut Vec<Finding>) {
    let mut listed = parse(table, findings);
    for source in sources.iter().filter(|source| source.is_rust()) {
        let lines = source.text.lines().count();
        judge(&source.path, 0, &source.path, lines, MAX_FILE, &mut listed, findings);
        for function in functions(&source.text) {
            let name = format!("{}::{}", source.path, function.name);
            judge(&source.path, function.line, &name, function.lines, MAX_FUNCTION, &mut listed, findings);
        }
    }
    for (name, (line, _)) in listed {
        findings.push(Finding {
            path: SIZES.to_string(),
            line: line + 1,
            what: format!("{name} is within its limit, or gone"),
            fix: "delete the line",
        });
    }
}

/// Lines of the table: `SIZE NAME`, where a name is a path or `path::function`.
fn parse<'a>(table: &'a str, findings: &mut Vec<Finding>) -> BTreeMap<&'a str, (usize, usize)> {
    let mut listed = BTreeMap::new();
    for (at, line) in table.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once(' ').map(|(size, name)| (size.parse::<usize>(), name)) {
            Some((Ok(size), name)) => {
                listed.insert(name, (at, size));
            }
            Some((Err(_), _)) | None => findings.push(Finding {
                path: SIZES.to_string(),
                line: at + 1,
                what: format!("`{line}` is not `SIZE NAME`"),
                fix: "write the number of lines, a space and the name",
            }),
        }
    }
    listed
}

fn judge(
    path: &str,
    line: usize,
    name: &str,
    lines: usize,
    limit: usize,
    listed: &mut BTreeMap<&str, (usize, usize)>,
    findings: &mut Vec<Finding>,
) {
    if lines <= limit {
        return;
    }
    let found = |what: String, fix| Finding { path: path.to_string(), line: line + 1, what, fix };
    match listed.remove(name) {
        None => findings.push(found(
            format!("{name} has {lines} lines, the limit is {limit}"),
            "divide it by ideas; if it is one flat table, list it in xtask/sizes.txt",
        )),
        Some((_, size)) if lines > size => findings.push(found(
            format!("{name} grew from {size} lines to {lines}"),
            "what is over the limit may only shrink: divide it",
        )),
        // A tenth of slack, so that deleting one line elsewhere is not a change here.
        Some((at, size)) if lines * 10 < size * 9 => findings.push(Finding {
            path: SIZES.to_string(),
            line: at + 1,
            what: format!("{name} shrank from {size} lines to {lines}"),
            fix: "write the new number, so that it stays",
        }),
        Some(_) => {}
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Function<'a> {
    name: &'a str,
    /// 0-based.
    line: usize,
    lines: usize,
}

fn functions(text: &str) -> Vec<Function<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        // The functions in a module of builtins are measured, the function that stands for the module is not.
        if at > 0 && lines[at - 1].trim() == "#[starlark_module]" {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let ends = |line: &str| {
            let closed = line.strip_prefix(indent);
            closed == Some("}") || closed.is_some_and(|rest| rest.starts_with(')') && rest.ends_with(';'))
        };
        let one_line = line.ends_with('}') || line.ends_with(';');
        let last = if one_line { Some(at) } else { (at + 1..lines.len()).find(|&i| ends(lines[i])) };
        // Without an end it was not a function but text that looks like one.
        if let Some(last) = last {
            functions.push(Function { name, line: at, lines: last - at + 1 });
        }
    }
    functions
}

/// `name` of a line that begins a function.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let qualifiers = ["pub", "pub(crate)", "pub(super)", "const", "unsafe", "extern", "\"C\"", "async"];
    if !before.split_whitespace().all(|word| qualifiers.contains(&word)) {
        return None;
    }
    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    (end > 0).then(|| &after[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured_from_name_to_brace() {
        let text = "impl A {\n    pub fn one(&self) -> u8 {\n        1\n    }\n\n    fn two() {}\n}\n\nconst fn three(\n    a: u8,\n) -> u8 {\n    a\n}\n";
        let sizes: Vec<_> = functions(text).iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(sizes, [("one", 1, 3), ("two", 5, 1), ("three", 8, 5)]);
    }

    #[test]
    fn a_module_of_builtins_is_measured_by_its_functions() {
        let text = "#[starlark_module]\nfn all(builder: &mut B) {\n    fn one() {\n    }\n}\n";
        let names: Vec<_> = functions(text).iter().map(|f| (f.name, f.lines)).collect();
        assert_eq!(names, [("one", 2)]);
    }

    fn check_file(lines: usize, table: &str, expected: &str) {
        let source = Source::new("crates/a/src/b.rs", "//! x\n".repeat(lines));
        let mut findings = Vec::new();
        check(&[source], table, &mut findings);
        let whats: Vec<&str> = findings.iter().map(|finding| finding.what.as_str()).collect();
        match expected {
            "" => assert!(whats.is_empty(), "{whats:?}"),
            part => assert!(whats.len() == 1 && whats[0].contains(part), "{whats:?} for {part}"),
        }
    }

    #[test]
    fn the_ratchet_turns_one_way() {
        check_file(600, "", "");
        check_file(601, "", "limit is 600");
        check_file(700, "700 crates/a/src/b.rs\n", "");
        check_file(701, "700 crates/a/src/b.rs\n", "grew");
        check_file(620, "# why\n700 crates/a/src/b.rs\n", "shrank");
        check_file(500, "700 crates/a/src/b.rs\n", "within its limit");
        check_file(10, "x y\n", "is not");
    }
}
