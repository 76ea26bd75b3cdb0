//! The official SDKs of two providers against the server that our client is tested with: what they talk to
//! unchanged is a faithful stand-in. And the official client of the Model Context Protocol as the researcher of a lab.

use crate::{Failure, cargo};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PACKAGES: [&str; 2] = ["anthropic", "openai"];
const AGENTS: [&str; 1] = ["mcp"];

pub(crate) fn run(root: &Path, install: bool) -> Result<(), Failure> {
    let Some(python) = python_with(&PACKAGES, install)? else {
        eprintln!("  hint: cargo xtask interop --install");
        return Ok(());
    };
    let mut server = cargo(root)
        .args(["run", "--release", "--quiet", "-p", "pawl-research", "--example", "model_server"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| Failure::new(format!("cargo cannot be started: {why}")))?;
    let mut address = String::new();
    let stdout = server.stdout.take().expect("it is piped");
    let heard = BufReader::new(stdout).read_line(&mut address);
    let met = match heard {
        Ok(bytes) if bytes > 0 => {
            let mut script = Command::new(&python);
            succeed(script.arg(root.join("xtask/src/sdks/sdks.py")).arg(address.trim()), "the SDKs")
        }
        Ok(_) | Err(_) => Err(Failure::new("the scripted server did not start")),
    };
    // It ends when its input does.
    drop(server.stdin.take());
    let _ = server.wait();
    met
}

/// The official MCP client drives `pawl mcp` in a lab whose campaign is its own.
pub(crate) fn agents(root: &Path, install: bool) -> Result<(), Failure> {
    let Some(python) = python_with(&AGENTS, install)? else {
        eprintln!("  hint: cargo xtask interop mcp --install");
        return Ok(());
    };
    succeed(cargo(root).args(["build", "--release", "-p", "pawl"]), "building pawl")?;
    let work = std::env::temp_dir().join(format!("pawl-agents-{}", std::process::id()));
    let mut script = Command::new(python);
    script.arg(root.join("xtask/src/sdks/agents.py")).arg(root.join("target/release/pawl")).arg(&work);
    let met = succeed(&mut script, "the MCP client");
    // If the lab stays, the system clears it.
    let _ = std::fs::remove_dir_all(&work);
    met
}

/// A Python that has these packages; `None`, with a word on it, when it has not and none is to be installed.
fn python_with(packages: &[&str], install: bool) -> Result<Option<PathBuf>, Failure> {
    let Some(folder) = environment() else {
        return Err(Failure::new("there is no cache folder for a Python environment: HOME is not set"));
    };
    let python = folder.join("bin/python");
    if has_packages(&python, packages) {
        return Ok(Some(python));
    }
    if !install {
        eprintln!("SKIPPED: {} not installed, so nothing of it was tried", packages.join(" and "));
        return Ok(None);
    }
    println!("installing {}, a minute", packages.join(" and "));
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&folder), "python3 -m venv")?;
    let mut pip = Command::new(&python);
    succeed(pip.args(["-m", "pip", "install", "--quiet"]).args(packages), "pip install")?;
    Ok(Some(python))
}

fn environment() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(cache.join("pawl/sdks"))
}

fn has_packages(python: &Path, packages: &[&str]) -> bool {
    let import = format!("import {}", packages.join(", "));
    Command::new(python)
        .args(["-c", &import])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn succeed(command: &mut Command, what: &str) -> Result<(), Failure> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Failure::new(format!("{what} failed"))),
        Err(why) => Err(Failure::new(format!("{what}: {why}"))),
    }
}
