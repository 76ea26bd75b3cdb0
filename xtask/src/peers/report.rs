//! Medians, ratios of each round, and the file with everything.

use super::torch::Torch;
use super::{Contender, Speed};
use crate::Failure;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One turn of every contender.
pub(crate) struct Round {
    pub(crate) speeds: Vec<(Contender, Speed)>,
}

impl Round {
    fn of(&self, contender: Contender) -> Option<&Speed> {
        self.speeds.iter().find(|(known, _)| *known == contender).map(|(_, speed)| speed)
    }
}

/// Least, median and greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

fn spread(numbers: impl Iterator<Item = f64>) -> Option<Spread> {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let (low, high) = (*numbers.first()?, *numbers.last()?);
    let middle = numbers.len() / 2;
    let median = if numbers.len().is_multiple_of(2) {
        (numbers[middle - 1] + numbers[middle]) / 2.0
    } else {
        numbers[middle]
    };
    Some(Spread { low, median, high })
}

fn speed(contender: Contender, rounds: &[Round]) -> Option<Spread> {
    spread(rounds.iter().filter_map(|round| Some(round.of(contender)?.tokens_per_sec)))
}

fn memory(contender: Contender, rounds: &[Round]) -> Option<Spread> {
    spread(rounds.iter().filter_map(|round| round.of(contender)?.peak_memory_bytes))
}

/// Cores that other programs kept busy in the middle of all runs.
pub(crate) fn disturbance(rounds: &[Round]) -> Option<f64> {
    let others = rounds.iter().flat_map(|round| round.speeds.iter().filter_map(|(_, speed)| speed.others));
    spread(others).map(|spread| spread.median)
}

/// Of pawl in the same precision to the peer, within each round.
fn ratio(peer: Contender, rounds: &[Round]) -> Option<Spread> {
    let ours = Contender::Pawl { bf16: peer.bf16() };
    spread(
        rounds
            .iter()
            .filter_map(|round| Some(round.of(ours)?.tokens_per_sec / round.of(peer)?.tokens_per_sec)),
    )
}

pub(crate) fn text(contenders: &[Contender], rounds: &[Round]) -> String {
    let mut text = format!(
        "{:<13} {:>9}  {:>17}  {:>8}  {:>9}  {:>13}\n",
        "", "tokens/s", "least .. most", "memory", "pawl/peer", "least .. most"
    );
    for contender in contenders {
        let Some(speed) = speed(*contender, rounds) else { continue };
        let range = format!("{:.0} .. {:.0}", speed.low, speed.high);
        let memory = memory(*contender, rounds).map_or("-".into(), |m| format!("{:.2} GB", m.high / 1e9));
        write!(text, "{:<13} {:>9.0}  {range:>17}  {memory:>8}", contender.name(), speed.median)
            .expect("a string takes every write");
        if let (Contender::Torch { .. }, Some(ratio)) = (contender, ratio(*contender, rounds)) {
            let range = format!("{:.2} .. {:.2}", ratio.low, ratio.high);
            write!(text, "  {:>9.2}  {range:>13}", ratio.median).expect("a string takes every write");
        }
        text.push('\n');
    }
    text
}

/// Writes every round beside the build's other products; returns where.
pub(crate) fn write(
    root: &Path,
    model: &str,
    threads: usize,
    torch: &Torch,
    rounds: &[Round],
) -> Result<PathBuf, Failure> {
    let folder = root.join("target/bench");
    let seconds =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let file = folder.join(format!("peers-{model}-{seconds}.json"));
    let peers: Vec<Contender> =
        rounds.first().into_iter().flat_map(|r| r.speeds.iter().map(|s| s.0)).collect();
    let summary: Vec<Value> = peers.iter().filter_map(|contender| summary(*contender, rounds)).collect();
    let document = json!({
        "schema": 1,
        "unix_seconds": seconds,
        "commit": said(Command::new("git").current_dir(root).args(["rev-parse", "--short", "HEAD"])),
        "machine": { "processor": processor(), "system": said(Command::new("uname").arg("-sr")), "threads": threads },
        "peer": { "torch": torch.version, "allocator": torch.allocator_name() },
        "model": model,
        "summary": summary,
        "rounds": rounds.iter().map(round_json).collect::<Vec<_>>(),
    });
    let text = serde_json::to_string_pretty(&document).expect("numbers and strings");
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, text));
    written.map_err(|why| Failure::new(format!("{}: {why}", file.display())))?;
    Ok(file)
}

fn summary(contender: Contender, rounds: &[Round]) -> Option<Value> {
    let json = |spread: Spread| json!({ "low": spread.low, "median": spread.median, "high": spread.high });
    let ratio = match contender {
        Contender::Pawl { .. } => None,
        Contender::Torch { .. } => ratio(contender, rounds).map(json),
    };
    let speed = json(speed(contender, rounds)?);
    Some(json!({ "name": contender.name(), "tokens_per_sec": speed, "pawl_to_peer": ratio }))
}

fn round_json(round: &Round) -> Value {
    let speed = |(contender, speed): &(Contender, Speed)| {
        json!({
            "name": contender.name(),
            "tokens_per_sec": speed.tokens_per_sec,
            "peak_memory_bytes": speed.peak_memory_bytes,
            "cores_of_others": speed.others,
        })
    };
    json!({ "speeds": round.speeds.iter().map(speed).collect::<Vec<_>>() })
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_string())
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_within_each_round_and_precision() {
        let speed = |tokens_per_sec| Speed {
            tokens_per_sec,
            peak_memory_bytes: Some(2e9),
            num_params: 1,
            others: None,
        };
        let peer = Contender::Torch { compile: false, bf16: false };
        let (ours, bf16) = (Contender::Pawl { bf16: false }, Contender::Pawl { bf16: true });
        let round = |a, b| Round { speeds: vec![(ours, speed(a)), (bf16, speed(900.0)), (peer, speed(b))] };
        let rounds = [round(200.0, 100.0), round(100.0, 25.0), round(90.0, 90.0)];
        assert_eq!(ratio(peer, &rounds), Some(Spread { low: 1.0, median: 2.0, high: 4.0 }));
        let text = text(&[ours, bf16, peer], &rounds);
        assert!(
            text.lines().nth(3).is_some_and(|line| line.contains("2.00") && line.contains("1.00 .. 4.00")),
            "{text}"
        );
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(spread([4.0, 1.0].into_iter()), Some(Spread { low: 1.0, median: 2.5, high: 4.0 }));
        assert_eq!(spread(std::iter::empty()), None);
    }
}
