//! `cargo xtask tidy`: the rules that no lint knows. Each rule is a function from the files, or from
//! cargo's view of the workspace, to findings; a finding says where, why and what to do.

mod layers;
mod sizes;
mod source;
mod words;

use crate::{Failure, cargo};
use source::Source;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::Command;

/// The ratchet table, kept as text so that a change of it is a plain line in a diff.
const SIZES: &str = "xtask/sizes.txt";

pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let sources = read_sources(root)?;
    let sizes =
        std::fs::read_to_string(root.join(SIZES)).map_err(|why| Failure::new(format!("{SIZES}: {why}")))?;
    let mut findings = layers::check(&metadata(root)?);
    for source in &sources {
        words::check(source, &mut findings);
    }
    sizes::check(&sources, &sizes, &mut findings);
    readme(&sources, &mut findings);
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {} files, nothing to say", sources.len());
            Ok(())
        }
        count => Err(Failure::new(format!("tidy has {count} findings"))),
    }
}

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// 1-based.
    line: usize,
    what: String,
    fix: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{}: {}", self.path, self.line, self.what)?;
        write!(f, "  hint: {}", self.fix)
    }
}

/// Every text file git tracks or would track: a rule broken in a file not yet added is broken all the same.
fn read_sources(root: &Path) -> Result<Vec<Source>, Failure> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(|why| Failure::new(format!("git cannot be started: {why}")))?;
    if !output.status.success() {
        return Err(Failure::new(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr))));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    let names: BTreeSet<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
    let mut sources = Vec::new();
    for name in names {
        match std::fs::read_to_string(root.join(name)) {
            Ok(text) => sources.push(Source::new(name, text)),
            // Binary, or deleted and not yet committed: no text to have a rule about.
            Err(why) if why.kind() == std::io::ErrorKind::InvalidData => {}
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
            Err(why) => return Err(Failure::new(format!("{name}: {why}"))),
        }
    }
    Ok(sources)
}

fn metadata(root: &Path) -> Result<serde_json::Value, Failure> {
    let output = cargo(root)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|why| Failure::new(format!("cargo cannot be started: {why}")))?;
    if !output.status.success() {
        return Err(Failure::new(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr))));
    }
    serde_json::from_slice(&output.stdout).map_err(|why| Failure::new(format!("cargo metadata: {why}")))
}

/// Each file of `commands/` is a subcommand, and the README shows each.
fn readme(sources: &[Source], findings: &mut Vec<Finding>) {
    let readme = sources.iter().find(|source| source.path == "README.md");
    let text = readme.map_or("", |readme| readme.text.as_str());
    for source in sources {
        let command = source
            .path
            .strip_prefix("crates/pawl/src/commands/")
            .and_then(|name| name.strip_suffix(".rs"))
            .filter(|name| *name != "mod" && !name.contains('/'));
        if let Some(command) = command
            && !text.contains(&format!("pawl {command}"))
        {
            findings.push(Finding {
                path: "README.md".to_string(),
                line: 1,
                what: format!("`pawl {command}` is not shown"),
                fix: "show the command with one example",
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_missing_from_the_readme_is_found() {
        let command = Source::new("crates/pawl/src/commands/train.rs", String::new());
        let shown = Source::new("README.md", "`pawl train tiny`".to_string());
        let silent = Source::new("README.md", "nothing".to_string());
        let mut findings = Vec::new();
        readme(&[command, shown], &mut findings);
        assert_eq!(findings, []);
        let command = Source::new("crates/pawl/src/commands/train.rs", String::new());
        readme(&[command, silent], &mut findings);
        assert_eq!(findings.len(), 1);
    }
}
