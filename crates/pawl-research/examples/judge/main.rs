//! `judge TASK`: what the judge's error rates and power are, as tables. Run by `cargo xtask judge TASK`.

#![allow(clippy::print_stdout, clippy::print_stderr)] // its output is what it is for

mod aa;
mod aa_real;
mod cheats;
mod climb;
mod exact;
mod measured;
mod pairing;
mod parallel;
mod power;
mod real;
mod replay;
mod trained;

use std::process::ExitCode;

const USAGE: &str = "\
usage: judge aa [--campaigns N] [--measured FILE] | judge power | judge climb | judge replay
   or: judge pairing [--lab DIR] [--write FILE]
   or: judge cheats | judge aa --real | judge real, each with [--seed N] [--minutes M] [--workers W]
   or: judge real with [--seeds K] [--jobs J] too: so many campaigns at once, no cargo, no network";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["aa", "--real", ref rest @ ..] => aa_real::run(rest),
        ["aa", ref rest @ ..] => aa::run(rest),
        ["pairing", ref rest @ ..] => pairing::run(rest),
        ["cheats"] => cheats(),
        ["real", ref rest @ ..] => real::run(rest),
        ["replay"] => {
            replay::run();
            Ok(true)
        }
        ["climb"] => {
            climb::run();
            Ok(true)
        }
        ["power"] => Ok(power::run()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("error: {reason}\n  hint: {USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Plants the cheats in a folder that is gone afterwards.
fn cheats() -> Result<bool, String> {
    let folder = tempfile::tempdir().map_err(|why| why.to_string())?;
    Ok(cheats::run(&cheats::Bench::new(&trained::binary()?, folder.path())))
}
