//! `judge TASK`: what the judge's error rates and power are, as tables. Run by `cargo xtask judge TASK`.

#![allow(clippy::print_stdout, clippy::print_stderr)] // its output is what it is for

mod aa;
mod climb;
mod exact;
mod measured;
mod power;
mod replay;

use std::process::ExitCode;

const USAGE: &str =
    "usage: judge aa [--campaigns N] [--measured FILE] | judge power | judge climb | judge replay";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["aa", ref rest @ ..] => aa::run(rest),
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

/// Runs `work` for 0, ..., `n - 1` on all cores; results come in order, whatever the number of cores.
fn in_parallel<T: Send>(n: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let mut parts: Vec<(u64, T)> = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..cores)
            .map(|core| {
                scope.spawn(move || {
                    (core..n).step_by(cores as usize).map(|i| (i, work(i))).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no work panics")).collect()
    });
    parts.sort_by_key(|(i, _)| *i);
    parts.into_iter().map(|(_, part)| part).collect()
}
