//! `cargo xtask bench researchers`: our optimizer, the plain rules and Optuna on the same trials, seeds and FLOPs.
//!
//! Builds the binary, finds a Python that has Optuna, and hands both to `pawl bench researchers`, which does the rest
//! and needs neither cargo nor a network.

use crate::{Failure, peers};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is tried, unless asked otherwise: trials of a second, and a space whose effects stand out at that size.
const DEFAULTS: [&str; 8] = ["--depth", "2", "--flops", "1e11", "--trials", "64", "--final-seeds", "3"];

pub(crate) fn run(root: &Path, args: &[&str]) -> Result<(), Failure> {
    let (own, passed): (Vec<&str>, Vec<&str>) = args.iter().partition(|arg| **arg == "--install");
    let python = python(!own.is_empty())?;
    let pawl = peers::build(root)?;
    let mut command = Command::new(&pawl);
    command.args(["bench", "researchers"]);
    for (flag, value) in DEFAULTS.chunks_exact(2).map(|pair| (pair[0], pair[1])) {
        if !passed.contains(&flag) {
            command.args([flag, value]);
        }
    }
    match python {
        Some(python) => {
            let script = root.join("xtask/src/peers/optuna_search.py");
            command.arg("--peer").arg(format!("optuna={} {} tpe", python.display(), script.display()));
        }
        None => {
            eprintln!("SKIPPED: no Python with Optuna was found, so it did not compete");
            eprintln!("  hint: cargo xtask bench researchers --install");
        }
    }
    let status = command.args(passed).status();
    match status.map(|status| status.success()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new("pawl bench researchers failed")),
        Err(why) => Err(Failure::new(format!("{} cannot be started: {why}", pawl.display()))),
    }
}

/// A Python that has Optuna, in the user's cache folder.
fn python(install: bool) -> Result<Option<PathBuf>, Failure> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let Some(folder) = cache.map(|cache| cache.join("pawl/optuna")) else { return Ok(None) };
    let python = folder.join("bin/python");
    let has = || {
        let mut asked = Command::new(&python);
        asked.args(["-c", "import optuna"]).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
    };
    if install && !has() {
        println!("installing optuna, a minute");
        let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).status();
        let got = made
            .and_then(|_| Command::new(&python).args(["-m", "pip", "install", "--quiet", "optuna"]).status());
        if !got.is_ok_and(|status| status.success()) {
            return Err(Failure::new("optuna cannot be installed"));
        }
    }
    Ok(has().then_some(python))
}
