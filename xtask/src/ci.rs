//! `cargo xtask ci`: every check in order, the first failure ends it.

use crate::{Failure, cargo, tidy};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let start = Instant::now();
    let mut tests = Tally::default();
    // Tests print last but for the documentation, so that a reader of the end of the log sees them.
    step("format", || command(cargo(root).args(["fmt", "--all", "--check"])))?;
    step("tidy", || tidy::run(root))?;
    step("lints", || {
        command(cargo(root).args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--release",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("documentation", || {
        command(cargo(root).env("RUSTDOCFLAGS", "-D warnings").args([
            "doc",
            "--workspace",
            "--no-deps",
            "--release",
            "--locked",
            "--quiet",
        ]))
    })?;
    step("tests", || {
        counted(
            cargo(root).args(["test", "--workspace", "--release", "--locked", "--no-fail-fast"]),
            &mut tests,
        )
    })
    .inspect_err(|_| println!("{tests}"))?;
    println!("\nci: everything holds, {:.0} s", start.elapsed().as_secs_f64());
    println!("{tests}");
    Ok(())
}

fn step(name: &str, run: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    println!("\n== {name}");
    // Cargo writes to stderr: keep the headings where they belong when both end in one file.
    std::io::stdout().flush().expect("stdout is open");
    let start = Instant::now();
    let done = run();
    let verdict = if done.is_ok() { "ok" } else { "FAILED" };
    println!("== {name}: {verdict}, {:.0} s", start.elapsed().as_secs_f64());
    done.map_err(|failure| Failure {
        message: format!("ci stopped at {name}: {}", failure.message),
        ..failure
    })
}

fn command(command: &mut Command) -> Result<(), Failure> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("{status}"))),
        Err(why) => Err(Failure::new(format!("{why}"))),
    }
}

/// Runs tests, passes their output on line by line, and adds up the result lines.
pub(crate) fn counted(command: &mut Command, tally: &mut Tally) -> Result<(), Failure> {
    let cannot = |why: std::io::Error| Failure::new(format!("{why}"));
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(cannot)?;
    let output = child.stdout.take().expect("stdout is piped");
    for line in BufReader::new(output).lines() {
        let line = line.map_err(cannot)?;
        tally.add(&line);
        println!("{line}");
    }
    let status = child.wait().map_err(cannot)?;
    match (status.success(), tally.passed) {
        (true, 0) => Err(Failure::new("no test ran: the result lines of the test runner have changed")),
        (true, _) => Ok(()),
        (false, _) => Err(Failure::new(format!("{status}"))),
    }
}

/// Sum of the `test result:` lines of every test binary.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        let counts = rest.split_once(". ").map_or("", |(_, counts)| counts);
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse::<u64>().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse::<u64>().unwrap_or(0),
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_of_all_binaries_are_added() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
        ] {
            tally.add(line);
        }
        assert_eq!(tally, Tally { passed: 15, failed: 2 });
        assert_eq!(tally.to_string(), "15 passed, 2 failed");
    }
}
