//! The compiler of proposals as a child process: a text written by nobody one knows is evaluated under limits of
//! its own, and what they do not bound (a value that takes forever to hash, a stack) costs a moment and not the
//! campaign.
//!
//! Beside what the compiler refuses, two things belong to a campaign: a program that no trial could hold in memory,
//! and a recipe whose scale dial does nothing, so that every rung would be the same.

use crate::world::{Checked, SettingKind, SettingSpec};
use pawl_record::{SettingValue, Settings, from_json};
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time that compiling may take; the largest shipped recipe takes some hundredths of a second.
pub const LIMIT: Duration = Duration::from_secs(20);

/// How often the child is looked at.
const POLL: Duration = Duration::from_millis(2);

/// Compiles with `pawl check`.
pub struct ChildCompiler {
    /// The binary.
    pub executable: PathBuf,
    /// Bytes that a trial may take; `None` where the machine does not say.
    pub most_memory: Option<u64>,
    /// Time that compiling may take, [`LIMIT`] for a campaign.
    pub limit: Duration,
}

/// What `pawl check --json` prints, as far as a campaign reads it.
#[derive(Deserialize)]
struct Printed {
    fingerprint: String,
    flops_per_step: f64,
    num_params: u64,
    memory_bytes: u64,
    settings: Vec<PrintedSetting>,
}

#[derive(Deserialize)]
struct PrintedSetting {
    name: String,
    kind: String,
    default: SettingValue,
    value: SettingValue,
    low: Option<f64>,
    high: Option<f64>,
    log: Option<bool>,
    options: Option<Vec<SettingValue>>,
}

impl ChildCompiler {
    /// Compiles the recipe of a file at a depth under settings, or says why it is not tried.
    pub fn check(&self, recipe: &Path, depth: u64, settings: &Settings) -> Result<Checked, String> {
        let printed = self.compile(recipe, depth, settings)?;
        if let Some(most) = self.most_memory.filter(|most| printed.memory_bytes > *most) {
            let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
            return Err(format!(
                "it takes about {:.1} GiB of memory, and a trial has {:.1}",
                gib(printed.memory_bytes),
                gib(most)
            ));
        }
        // Whatever a deeper one fails of, it is another one.
        let deeper = self.compile(recipe, depth + 1, settings);
        if deeper.is_ok_and(|deeper| deeper.fingerprint == printed.fingerprint) {
            return Err("its dial `depth` changes nothing: every rung would be the same".to_string());
        }
        let settings = printed.settings.into_iter().map(spec).collect::<Result<_, String>>()?;
        Ok(Checked {
            fingerprint: printed.fingerprint,
            flops_per_step: printed.flops_per_step,
            num_params: printed.num_params,
            settings,
        })
    }

    fn compile(&self, recipe: &Path, depth: u64, settings: &Settings) -> Result<Printed, String> {
        let mut command = Command::new(&self.executable);
        command.arg("check").arg(recipe).args(["--depth", &depth.to_string(), "--json"]);
        for variable in crate::child::KEY_VARIABLES {
            command.env_remove(variable);
        }
        for (name, value) in settings {
            command.args(["--set", &format!("{name}={value}")]);
        }
        let (stdout, stderr) = within_limit(command, self.limit)?;
        match stdout {
            Some(stdout) => {
                from_json(&stdout).map_err(|why| format!("the compiler printed no answer: {why}"))
            }
            None => Err(said(&String::from_utf8_lossy(&stderr))),
        }
    }
}

/// What a process printed on stdout, if it succeeded, and on stderr.
fn within_limit(mut command: Command, limit: Duration) -> Result<(Option<Vec<u8>>, Vec<u8>), String> {
    let cannot = |why: std::io::Error| format!("the compiler cannot be started: {why}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(cannot)?;
    let drain = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read before an error is still the best account there is.
            let _ = pipe.read_to_end(&mut bytes);
            bytes
        })
    };
    let stdout = drain(Box::new(child.stdout.take().expect("stdout is piped")));
    let stderr = drain(Box::new(child.stderr.take().expect("stderr is piped")));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(cannot)? {
            break Some(status);
        }
        if start.elapsed() > limit {
            // It fails only if the child has ended by itself, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(POLL);
    };
    let (stdout, stderr) =
        (stdout.join().expect("a reader does not panic"), stderr.join().expect("a reader does not panic"));
    match status {
        Some(status) => Ok((status.success().then_some(stdout), stderr)),
        None => Err(format!("the recipe does not come to an end: compiling was given up after {limit:?}")),
    }
}

/// The reason and the hint of an error as the command line says them.
fn said(stderr: &str) -> String {
    let line = |start: &str| {
        let line = stderr.lines().map(str::trim).find(|line| line.starts_with(start))?;
        Some(line[start.len()..].trim().to_string())
    };
    match (line("because"), line("hint:"), line("error:")) {
        (Some(because), Some(hint), _) => format!("{because}; {hint}"),
        (Some(said), None, _) | (None, _, Some(said)) => said,
        (None, _, None) => "the compiler ended without a word".to_string(),
    }
}

fn spec(setting: PrintedSetting) -> Result<SettingSpec, String> {
    let PrintedSetting { name, kind, default, value, low, high, log, options } = setting;
    let kind = match (kind.as_str(), low, high, log, options) {
        ("dial", ..) => SettingKind::Dial,
        ("knob", Some(low), Some(high), Some(log), _) => SettingKind::Knob { low, high, log },
        ("choice", _, _, _, Some(options)) => SettingKind::Choice { options },
        (other, ..) => return Err(format!("the compiler calls {name} a {other}")),
    };
    Ok(SettingSpec { name, kind, default, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_without_its_dress() {
        let text = "error: recipe x cannot be built\n  because x:3: no\n  hint: yes\n";
        assert_eq!(said(text), "x:3: no; yes");
        assert_eq!(said("error: recipe x cannot be read\n"), "recipe x cannot be read");
        assert_eq!(said(""), "the compiler ended without a word");
    }

    #[test]
    fn a_compiler_that_does_not_end_is_given_up() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let error = within_limit(command, Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("does not come to an end"), "{error}");
    }
}
