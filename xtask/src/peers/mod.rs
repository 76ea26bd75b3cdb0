//! `cargo xtask bench peers`: the models `small` and `big` of `pawl bench` beside the same in PyTorch, round by
//! round in one run, since only ratios of one run mean anything on a shared machine.
//!
//! A peer is never needed to build or to test: where it is missing, that is said loudly, and nothing passes.

mod others;
mod report;
pub(crate) mod researchers;
mod torch;

use crate::{Failure, cargo};
use report::Round;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use torch::Torch;

/// What a round runs: us or the peer, in one precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    Pawl { bf16: bool },
    Torch { compile: bool, bf16: bool },
}

/// Cores of other programs up to which a run counts as undisturbed.
const QUIET: f64 = 0.2;

const MODES: [&str; 4] = ["eager", "compile", "eager-bf16", "compile-bf16"];

impl Contender {
    fn torch(mode: &str) -> Option<Contender> {
        let (how, precision) = mode.split_once('-').unwrap_or((mode, "f32"));
        MODES
            .contains(&mode)
            .then_some(Contender::Torch { compile: how == "compile", bf16: precision == "bf16" })
    }

    pub(crate) fn bf16(self) -> bool {
        match self {
            Contender::Pawl { bf16 } | Contender::Torch { bf16, .. } => bf16,
        }
    }

    pub(crate) fn name(self) -> String {
        let suffix = if self.bf16() { "-bf16" } else { "" };
        match self {
            Contender::Pawl { .. } => format!("pawl{suffix}"),
            Contender::Torch { compile: true, .. } => format!("compile{suffix}"),
            Contender::Torch { compile: false, .. } => format!("eager{suffix}"),
        }
    }
}

/// What one contender did in one round.
#[derive(Clone, Debug)]
pub(crate) struct Speed {
    pub(crate) tokens_per_sec: f64,
    pub(crate) peak_memory_bytes: Option<f64>,
    pub(crate) num_params: u64,
    /// Cores that other programs kept busy meanwhile.
    pub(crate) others: Option<f64>,
}

#[derive(Debug, PartialEq)]
struct Options {
    rounds: usize,
    model: String,
    modes: Vec<Contender>,
    python: Option<PathBuf>,
    install: bool,
    threads: usize,
}

pub(crate) fn run(root: &Path, args: &[&str]) -> Result<(), Failure> {
    let options = options(args)?;
    let Some(torch) = Torch::find(options.python.as_deref(), options.install)? else {
        eprintln!("SKIPPED: no Python with PyTorch was found, so nothing was compared");
        eprintln!("  hint: --python PATH names one, --install makes one in the user's cache folder");
        return Ok(());
    };
    println!("building pawl");
    let pawl = build(root)?;
    let script = root.join("xtask/src/peers/torch_gpt.py");
    let contenders = contenders(&options.modes);
    println!(
        "peer      PyTorch {}, {} threads, allocator {}",
        torch.version,
        options.threads,
        torch.allocator_name()
    );
    let mut rounds = Vec::new();
    for idx in 0..options.rounds {
        let mut round = Round { speeds: Vec::new() };
        // In turn from either end: what comes first is not always the same.
        let order: Vec<&Contender> = match idx % 2 {
            0 => contenders.iter().collect(),
            _ => contenders.iter().rev().collect(),
        };
        for contender in order {
            let (speed, others) = others::beside(|| match contender {
                Contender::Pawl { bf16 } => ours(&pawl, &options, *bf16),
                Contender::Torch { .. } => {
                    torch.run(&script, &options.model, &contender.name(), options.threads)
                }
            });
            let speed = Speed { others, ..speed? };
            let beside = others.map_or(String::new(), |cores| format!("   others: {cores:.1} cores"));
            println!(
                "round {}   {:<13} {:>9.0} tokens/s{beside}",
                idx + 1,
                contender.name(),
                speed.tokens_per_sec
            );
            round.speeds.push((*contender, speed));
        }
        rounds.push(round);
    }
    same_model(&rounds)?;
    print!("\n{}", report::text(&contenders, &rounds));
    let file = report::write(root, &options.model, options.threads, &torch, &rounds)?;
    println!("rounds: {}", file.display());
    if let Some(cores) = report::disturbance(&rounds).filter(|cores| *cores > QUIET) {
        eprintln!("DISTURBED: other programs kept {cores:.1} cores busy; ratios of such rounds say little");
    }
    Ok(())
}

fn options(args: &[&str]) -> Result<Options, Failure> {
    let wrong = |message: String| Failure { message, code: 2 };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut options = Options {
        rounds: 3,
        model: "small".into(),
        modes: MODES.iter().filter_map(|mode| Contender::torch(mode)).collect(),
        python: None,
        install: false,
        threads,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if *arg == "--install" {
            options.install = true;
            continue;
        }
        let value = *args.next().ok_or_else(|| wrong(format!("{arg} is not known, or wants a value")))?;
        let number = || value.parse::<usize>().ok().filter(|n| (1..=1024).contains(n));
        let counted = || number().ok_or_else(|| wrong(format!("{arg} {value}: a number from 1 to 1024")));
        match *arg {
            "--rounds" => options.rounds = counted()?,
            "--threads" => options.threads = counted()?,
            "--model" if ["small", "big"].contains(&value) => options.model = value.to_string(),
            "--model" => return Err(wrong(format!("there is no model {value}: small, big"))),
            "--python" => options.python = Some(value.into()),
            "--modes" => {
                let mode = |mode| {
                    Contender::torch(mode)
                        .ok_or_else(|| wrong(format!("no mode {mode}: {}", MODES.join(", "))))
                };
                options.modes = value.split(',').map(mode).collect::<Result<_, _>>()?;
            }
            _ => return Err(wrong(format!("there is no option {arg}"))),
        }
    }
    Ok(options)
}

/// Ours in each precision that a mode has, then the modes.
fn contenders(modes: &[Contender]) -> Vec<Contender> {
    let ours = [false, true].into_iter().filter(|bf16| modes.iter().any(|mode| mode.bf16() == *bf16));
    ours.map(|bf16| Contender::Pawl { bf16 }).chain(modes.iter().copied()).collect()
}

/// Builds the binary and returns where cargo put it.
pub(crate) fn build(root: &Path) -> Result<PathBuf, Failure> {
    let output = cargo(root)
        .args(["build", "--release", "--package", "pawl", "--message-format", "json-render-diagnostics"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|why| Failure::new(format!("cargo cannot be started: {why}")))?;
    let lines = String::from_utf8_lossy(&output.stdout);
    let binary =
        lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
            let of_pawl = message["target"]["name"] == "pawl";
            message["executable"].as_str().filter(|_| of_pawl).map(PathBuf::from)
        });
    binary.filter(|_| output.status.success()).ok_or_else(|| Failure::new("pawl cannot be built"))
}

fn ours(pawl: &Path, options: &Options, bf16: bool) -> Result<Speed, Failure> {
    let mut command = Command::new(pawl);
    let precision = if bf16 { "bf16" } else { "f32" };
    command.args(["bench", &options.model, "--only", "steps", "--precision", precision, "--json"]);
    command.args(["--threads", &options.threads.to_string()]);
    let found = answer(&mut command, "pawl bench")?;
    let step = &found["steps"][0];
    Ok(Speed {
        tokens_per_sec: step["tokens_per_sec"]
            .as_f64()
            .ok_or_else(|| Failure::new("pawl bench gave no speed"))?,
        peak_memory_bytes: step["peak_memory_bytes"].as_f64(),
        num_params: step["num_params"].as_u64().unwrap_or(0),
        others: None,
    })
}

/// The JSON document on the last line of a command's stdout.
fn answer(command: &mut Command, what: &str) -> Result<Value, Failure> {
    let output = command.output().map_err(|why| Failure::new(format!("{what} cannot be started: {why}")))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().unwrap_or_default();
    match serde_json::from_str(last) {
        Ok(value) if output.status.success() => Ok(value),
        Ok(_) | Err(_) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = stderr.lines().collect();
            let end = lines[lines.len().saturating_sub(15)..].join("\n");
            Err(Failure::new(format!("{what} failed: {}\n{end}", output.status)))
        }
    }
}

/// A comparison of two models would compare nothing.
fn same_model(rounds: &[Round]) -> Result<(), Failure> {
    let mut counts: Vec<u64> =
        rounds.iter().flat_map(|round| round.speeds.iter().map(|s| s.1.num_params)).collect();
    counts.dedup();
    match counts[..] {
        [_] => Ok(()),
        _ => Err(Failure::new(format!("the contenders differ in their number of parameters: {counts:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(args: &[&str], said: &str) {
        let failure = options(args).err().map(|failure| (failure.code, failure.message));
        assert!(
            failure.as_ref().is_some_and(|(code, text)| *code == 2 && text.contains(said)),
            "{failure:?}"
        );
    }

    #[test]
    fn options_are_read_and_mistakes_refused() {
        let read =
            options(&["--rounds", "2", "--modes", "eager,compile-bf16", "--model", "big"]).ok().unwrap();
        assert_eq!((read.rounds, read.model.as_str()), (2, "big"));
        let names: Vec<String> = contenders(&read.modes).into_iter().map(Contender::name).collect();
        assert_eq!(names, ["pawl", "pawl-bf16", "eager", "compile-bf16"]);
        check_refused(&["--modes", "eager-f16"], "no mode eager-f16");
        check_refused(&["--rounds", "0"], "1 to 1024");
        check_refused(&["--rounds"], "wants a value");
        check_refused(&["--model", "huge"], "small, big");
        check_refused(&["--speed", "9"], "no option --speed");
    }
}
