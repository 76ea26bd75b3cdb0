//! `pawl doctor`: what this machine can do, and what would be in the way of a run.

use crate::args::Doctor;
use crate::errors::Failure;
use crate::machine::{Machine, disk_free, instruction_set, machine, peak_flops};
use crate::output::{Answer, Block, bytes, flops};
use serde_json::json;
use std::path::Path;

/// A campaign of an hour writes some hundred runs with their checkpoints.
const DISK_WANTED: u64 = 5_000_000_000;
/// What a run of the shipped recipes needs beside the system.
const MEMORY_WANTED: u64 = 1_000_000_000;

pub(crate) fn run(args: Doctor) -> Result<Answer, Failure> {
    let machine = machine();
    let disk = disk_free(&args.place.lab);
    let problems = problems(&machine, disk, &args.place.lab);
    let measured = peak_flops(machine.cores);
    let unknown = || "unknown".to_string();
    let mut block = Block::default();
    block
        .line("pawl", env!("CARGO_PKG_VERSION"))
        .line("processor", machine.processor.clone().unwrap_or_else(unknown))
        .line("cores", machine.cores)
        .line("instruction_set", instruction_set())
        .line("float32", format!("{}/s, multiply-adds in registers", flops(measured)))
        .line("memory", machine.memory_bytes.map_or_else(unknown, bytes))
        .line("memory_free", machine.memory_free_bytes.map_or_else(unknown, bytes))
        .line("kernel", machine.kernel.clone().unwrap_or_else(unknown))
        .line("lab", args.place.lab.display())
        .line("disk_free", disk.map_or_else(unknown, bytes));
    for problem in &problems {
        block.line("problem", problem);
    }
    block.line("verdict", if problems.is_empty() { "ready" } else { "not ready" });
    let json = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "processor": machine.processor,
        "cores": machine.cores,
        "instruction_set": instruction_set(),
        "float32_flops_per_sec": measured,
        "memory_bytes": machine.memory_bytes,
        "memory_free_bytes": machine.memory_free_bytes,
        "kernel": machine.kernel,
        "lab": args.place.lab,
        "disk_free_bytes": disk,
        "problems": problems,
    });
    Ok(Answer::new(block.text().to_string(), json))
}

fn problems(machine: &Machine, disk: Option<u64>, lab: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(free) = disk.filter(|free| *free < DISK_WANTED) {
        problems.push(format!("{} of disk are free, a campaign wants {}", bytes(free), bytes(DISK_WANTED)));
    }
    if let Some(free) = machine.memory_free_bytes.filter(|free| *free < MEMORY_WANTED) {
        problems.push(format!("{} of memory are free, a run wants {}", bytes(free), bytes(MEMORY_WANTED)));
    }
    if lab.exists() && !lab.is_dir() {
        problems.push(format!("{} is not a folder", lab.display()));
    }
    if let Err(why) = writable(lab) {
        problems.push(format!("{} cannot be written: {why}", lab.display()));
    }
    problems
}

/// Tries it, in the lab or where the lab would be: permissions alone do not tell.
fn writable(lab: &Path) -> std::io::Result<()> {
    let lab = std::path::absolute(lab)?;
    let Some(folder) = lab.ancestors().find(|folder| folder.is_dir()) else { return Ok(()) };
    let probe = folder.join(format!(".pawl-doctor-{}", std::process::id()));
    std::fs::write(&probe, b"pawl")?;
    std::fs::remove_file(&probe)
}
