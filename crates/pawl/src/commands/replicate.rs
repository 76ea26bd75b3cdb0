//! `pawl replicate ID --seeds N`: a keep run again from its row alone. The first seed is trained in a folder of its
//! own, a lab that shares nothing but the data, so that no earlier run is found in place of a new one.

use crate::args::Replicate;
use crate::commands::research::check;
use crate::commands::retract::{from_keep, lines};
use crate::errors::Failure;
use crate::interrupt::interrupt;
use crate::machine::cores;
use crate::output::{Align, Answer, Block, Table, narrate};
use pawl_record::{PairRecord, Reproduced};
use pawl_research::child::ChildWorld;
use pawl_research::replicate::{Replicated, plan};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

pub(crate) fn run(args: Replicate) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let stop = interrupt()?;
    let plan = plan(lab, &args.id).map_err(from_keep)?;
    let (proposal, data) = (plan.proposal, plan.data().name.clone());
    share_data(lab, &plan.scratch)?;
    let executable =
        std::env::current_exe().map_err(|why| Failure::new("pawl cannot find itself").caused_by(&why))?;
    let interrupted = || stop.load(Ordering::Relaxed);
    let world = |lab: PathBuf| ChildWorld {
        executable: executable.clone(),
        lab,
        data: data.clone(),
        check: &check,
        interrupted: &interrupted,
        start: Instant::now(),
    };
    let (anew, known) = (world(plan.scratch.clone()), world(lab.clone()));
    let workers = args.workers.map_or_else(cores, |workers| workers as usize);
    let quiet = args.place.json;
    let mut tell = |what: &str| {
        if !quiet {
            narrate(&format!("#{proposal}  {what}"));
        }
    };
    let done = plan.run(args.seeds, workers, &anew, &known, &mut tell).map_err(from_keep)?;
    let holds = done.replication.reproduced.iter().all(|it| it.same) && !done.replication.contradicts;
    Ok(Answer::of(holds, text(&done), json!({ "replicated": done })))
}

/// A fresh scratch lab beside the data of the real one.
fn share_data(lab: &Path, scratch: &Path) -> Result<(), Failure> {
    let cannot = |why: std::io::Error| {
        Failure::new(format!("cannot make {} to train in", scratch.display())).caused_by(&why)
    };
    if scratch.exists() {
        // What an interrupted replication left: nothing in it is on any record.
        fs::remove_dir_all(scratch).map_err(cannot)?;
    }
    fs::create_dir_all(scratch).map_err(cannot)?;
    let data = fs::canonicalize(lab.join("data")).map_err(cannot)?;
    std::os::unix::fs::symlink(data, scratch.join("data")).map_err(cannot)
}

fn text(done: &Replicated) -> String {
    let replication = &done.replication;
    let mut text = pairs(&replication.pairs);
    let mut block = Block::default();
    block.line("replicated", format!("#{}, replication {}", replication.proposal, replication.number));
    for (arm, it) in ["champion", "challenger"].iter().zip(&replication.reproduced) {
        block.line(arm, reproduced(it));
    }
    block.maybe(
        "claimed",
        done.claimed
            .map(|it| format!("{:+.4} +- {:.4} bits per byte when it was kept", -it.mean, it.half_width)),
    );
    if let Some(mean) = replication.mean {
        let half = replication.half_width.map_or_else(String::new, |half| format!(" +- {half:.4}"));
        block.line(
            "again",
            format!("{:+.4}{half} bits per byte on {} fresh seeds", -mean, replication.pairs.len()),
        );
    }
    block.maybe(
        "against",
        replication.against.map(|it| {
            format!("e-value {:.2} that it is no gain, {:.0} would retract it", it.e_value, it.threshold)
        }),
    );
    block.line("verdict", verdict(done));
    if let Some(withdrawn) = &done.withdrawn {
        lines(&mut block, withdrawn);
    }
    text.push_str(block.text());
    text
}

fn verdict(done: &Replicated) -> String {
    let replication = &done.replication;
    let same = replication.reproduced.iter().all(|it| it.same);
    let fell_short = match (done.claimed, replication.mean, replication.half_width) {
        (Some(claimed), Some(mean), Some(half)) => mean + half < claimed.mean - claimed.half_width,
        _ => false,
    };
    match (same, replication.contradicts, fell_short) {
        (_, true, _) => "contradicted: the fresh seeds show that it is no gain".to_string(),
        (false, false, _) => {
            "NOT REPRODUCED: the same inputs gave other bits; program, data or machine changed".to_string()
        }
        (true, false, true) => {
            "reproduced, and worth less than was claimed; `pawl retract` is for a person to say".to_string()
        }
        (true, false, false) => "reproduced to the last bit, not contradicted".to_string(),
    }
}

fn reproduced(it: &Reproduced) -> String {
    let score = |bpb: Option<f64>| bpb.map_or_else(|| "diverged".to_string(), |bpb| format!("{bpb:?}"));
    match it.same {
        true => format!("run {} again: {} val_bpb, the same to the last bit", it.run, score(it.bpb)),
        false => format!(
            "run {} DIFFERS: {} val_bpb on file, {} now, as run {}",
            it.run,
            score(it.bpb),
            score(it.again_bpb),
            it.again
        ),
    }
}

fn pairs(pairs: &[PairRecord]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("seed", Align::Right),
        ("champion", Align::Left),
        ("bpb", Align::Right),
        ("challenger", Align::Left),
        ("bpb", Align::Right),
        ("change", Align::Right),
    ]);
    for pair in pairs {
        table.row(vec![
            pair.seed.to_string(),
            pair.champion_run.clone(),
            format!("{:.4}", pair.champion_bpb),
            pair.challenger_run.clone(),
            pair.challenger_bpb.map_or_else(|| "diverged".into(), |bpb| format!("{bpb:.4}")),
            pair.difference.map_or_else(String::new, |gain| format!("{:+.4}", -gain)),
        ]);
    }
    table.text() + "\n"
}
