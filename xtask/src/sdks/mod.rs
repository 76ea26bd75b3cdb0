//! The official SDKs of two providers against the server that our client is tested with: what they talk to
//! unchanged is a faithful stand-in.

use crate::{Failure, cargo};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PACKAGES: [&str; 2] = ["anthropic", "openai"];

pub(crate) fn run(root: &Path, install: bool) -> Result<(), Failure> {
    let Some(folder) = environment() else {
        return Err(Failure::new("there is no cache folder for a Python environment: HOME is not set"));
    };
    let python = folder.join("bin/python");
    if !has_packages(&python) {
        if !install {
            eprintln!(
                "SKIPPED: the SDKs of Anthropic and OpenAI are not installed, so they did not meet our server"
            );
            eprintln!("  hint: cargo xtask interop --install");
            return Ok(());
        }
        println!("installing {}, a minute", PACKAGES.join(" and "));
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&folder), "python3 -m venv")?;
        let mut pip = Command::new(&python);
        succeed(pip.args(["-m", "pip", "install", "--quiet"]).args(PACKAGES), "pip install")?;
    }
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

fn environment() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(cache.join("pawl/sdks"))
}

fn has_packages(python: &Path) -> bool {
    let import = format!("import {}", PACKAGES.join(", "));
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
