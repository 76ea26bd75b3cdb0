//! The project's own tasks, run as `cargo xtask TASK`. Depends on none of the crates it checks: it
//! must build and speak when they do not.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod ci;
mod interop;
mod peers;
mod sanitize;
mod sdks;
mod tidy;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask TASK

  ci                    everything that must hold before a change lands: format, tidy, lints, tests, docs
  tidy                  the rules that no lint knows: layers, sizes, words, paths
  parity FILE           recipes/nano.star against a golden file, one line a check
  judge TASK            what the judge's error rates and power are, measured
      aa [--campaigns N] [--measured FILE]   campaigns of nulls: false keeps beside the stated rate
      pairing [--lab DIR [--seeds N] [--minutes M] [--study NAME]]
                                             what pairing buys, and what else would cut the noise; with a lab, trained
      aa --real [OPTION]                     the same of no-ops that are trained
      cheats                                 known cheats, each to be named, and honest look-alikes
      real [OPTION]                          defects planted in nano and the changes that mend them
          --seed N --minutes M --workers W   the same command goes on where it stopped
          --seeds K --jobs J                 campaigns on K seeds, J at a time
      power                                  planted effects, beside the rules other loops keep by
      climb                                  what a second rung takes back and lets through
      replay                                 the public log of the best-known loop through the judge
  interop [--install]   licences, advisories and sources of the dependencies (cargo-deny);
                        the SDKs of Anthropic and OpenAI against the server that our client is tested with
  interop mcp [--install]
                        the official client of the Model Context Protocol as the researcher of a lab, in both its eras
  interop models [--install] [--python PATH] [--data DIR]
                        import, export, serving and scores beside transformers, llama.cpp, the OpenAI client, lm-eval
  sanitize              the engine's tests with AddressSanitizer
  bench researchers [--install] [OPTION]
                        the optimizer, plain rules and Optuna's TPE on the same trials; options of pawl bench researchers
  bench peers [OPTION]  training steps of pawl and of PyTorch, interleaved
      --rounds N        [default: 3]
      --model M         small or big [default: small]
      --modes A,B       of eager, compile, eager-bf16, compile-bf16 [default: all]
      --threads N       [default: one a core]
      --python PATH     a Python that has PyTorch
      --install         make one in the user's cache folder, some gigabytes
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root();
    let done = match args[..] {
        ["ci"] => ci::run(&root),
        ["tidy"] => tidy::run(&root),
        ["parity", file] => parity(&root, file),
        ["judge", ..] => judge(&root, &args[1..]),
        ["interop"] => interop::run(&root, false).and_then(|()| sdks::run(&root, false)),
        ["interop", "--install"] => interop::run(&root, true).and_then(|()| sdks::run(&root, true)),
        ["interop", "mcp"] => sdks::agents(&root, false),
        ["interop", "mcp", "--install"] => sdks::agents(&root, true),
        ["interop", "models", ..] => interop::models::run(&root, &args[2..]),
        ["sanitize"] => sanitize::run(&root),
        ["bench", "researchers", ..] => peers::researchers::run(&root, &args[2..]),
        ["bench", "peers", ..] => peers::run(&root, &args[2..]),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, code }) => {
            eprintln!("error: {message}");
            ExitCode::from(code)
        }
    }
}

/// A task that did not succeed: what to print, and the exit code.
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 1 }
    }
}

/// The repository: cargo names the folder of this package when it runs it.
fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    package.parent().expect("xtask lies in the repository").to_path_buf()
}

/// The cargo that runs us, in the repository.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Set for this package by `cargo run`; build scripts and tests of the others must not see it.
    command.current_dir(root).env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_PKG_NAME");
    command
}

/// The golden file is read by an example of `pawl-model`, so that this crate stays free of ours.
fn parity(root: &Path, file: &str) -> Result<(), Failure> {
    let path = std::path::absolute(file).map_err(|why| Failure::new(format!("{file}: {why}")))?;
    example(root, "pawl-model", "parity", &[path.into_os_string()])
}

/// The judge is measured by an example of `pawl-research`, for the same reason.
fn judge(root: &Path, args: &[&str]) -> Result<(), Failure> {
    if let ["pairing", rest @ ..] = args
        && rest.contains(&"--lab")
    {
        example(root, "pawl-train", "pairs", &rest.iter().map(Into::into).collect::<Vec<_>>())?;
    }
    // What trains drives the binary.
    if matches!(args, ["aa", "--real", ..] | ["real" | "cheats", ..]) {
        let built = cargo(root).args(["build", "--release", "--quiet", "-p", "pawl"]).status();
        if !built.is_ok_and(|status| status.success()) {
            return Err(Failure::new("pawl cannot be built"));
        }
    }
    example(root, "pawl-research", "judge", &args.iter().map(Into::into).collect::<Vec<_>>())
}

/// Runs an example of one of our crates; its exit code is ours.
fn example(root: &Path, package: &str, name: &str, args: &[OsString]) -> Result<(), Failure> {
    let status = cargo(root)
        .args(["run", "--release", "--quiet", "-p", package, "--example", name, "--"])
        .args(args)
        .status()
        .map_err(|why| Failure::new(format!("cargo cannot be started: {why}")))?;
    let shown = args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ");
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => {
            Err(Failure { message: format!("{name} {shown} failed"), code: code.clamp(1, 255) as u8 })
        }
        None => Err(Failure::new(format!("{name} {shown} was ended by a signal"))),
    }
}
