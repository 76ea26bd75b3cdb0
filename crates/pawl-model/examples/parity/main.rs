//! `parity FILE`: nano.star against golden numbers, one line a check, non-zero exit on a miss.
//!
//! Numbers come from the plain-loop reference in float64, then from the engine.

#![allow(clippy::print_stdout, clippy::print_stderr)] // its output is what it is for

mod check;
mod inputs;
mod machine;

use check::Machine;
use pawl_engine::{Engine, reference};
use std::process::ExitCode;

fn main() -> ExitCode {
    let [_, path] = &std::env::args().collect::<Vec<_>>()[..] else {
        eprintln!("usage: parity FILE");
        return ExitCode::from(2);
    };
    let file = match read(path) {
        Ok(file) => file,
        Err(reason) => {
            eprintln!("error: {path} cannot be read\n  because {reason}");
            return ExitCode::from(2);
        }
    };
    let engine = Engine::new(2);
    let mut float64 = |graph: &_, leaves: &_, outputs: &[_]| reference::run(graph, leaves, outputs, |x| x);
    let mut float32 = |graph: &_, leaves: &_, outputs: &[_]| machine::run(&engine, graph, leaves, outputs);
    let machines: [(&str, &mut Machine<'_>); 2] =
        [("reference, float64", &mut float64), ("engine, float32", &mut float32)];
    let mut holds = true;
    for (name, machine) in machines {
        println!("{name}");
        match check::run(&file, machine) {
            Ok(report) => {
                print(&report);
                holds &= report.holds();
            }
            Err(error) => {
                eprintln!("error: {error}\n  hint: {}", error.hint.as_deref().unwrap_or("none"));
                return ExitCode::FAILURE;
            }
        }
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(path: &str) -> Result<serde_json::Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

fn print(report: &check::Report) {
    for line in &report.lines {
        let verdict = if line.holds() { "ok  " } else { "MISS" };
        println!("  {verdict}  {:<44} {:>9.1e}  of {:.0e}", line.name, line.worst, line.tolerance);
    }
    if !report.skipped.is_empty() {
        println!("  skipped: {}", report.skipped.join(", "));
    }
}
