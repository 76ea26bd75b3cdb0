//! `pawl bench researchers`: campaigns that differ in who proposes, and what each came to.
//!
//! Each campaign is a `pawl research` of its own, in a lab below this lab that shares its data and its training runs,
//! so that what two campaigns both need is trained once. A finished campaign is found, not repeated.

use crate::args::BenchResearchers;
use crate::errors::Failure;
use crate::lab::from_ledger;
use crate::output::{Align, Answer, Block, Table, narrate};
use pawl_ledger::read_campaign;
use pawl_record::{CampaignBudget, EndReason};
use pawl_research::contest::{Entry, Estimate, Standing, standings};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) fn run(args: &BenchResearchers) -> Result<Answer, Failure> {
    let mut entries = Vec::new();
    for seed in 0..args.seeds {
        for researcher in &args.researchers {
            let lab = lab(&args.place.lab, researcher, seed)?;
            narrate(&format!("{researcher}, seed {seed}: {}", lab.display()));
            campaign(args, &lab, researcher, seed)?;
            let records = read_campaign(&lab).map_err(from_ledger)?;
            let records = records.expect("a campaign that ran has left its files");
            entries.push(Entry { researcher: researcher.clone(), seed, records });
        }
    }
    let standings = standings(&entries);
    let text = format!("{}\n{}", table(&standings), block(args, &standings).text());
    Ok(Answer::new(text, json!({ "trials": args.trials, "seeds": args.seeds, "standings": standings })))
}

/// The lab of one campaign: its own records, the data and the runs of all.
fn lab(of: &Path, researcher: &str, seed: u64) -> Result<PathBuf, Failure> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' };
    let name: String = researcher.chars().map(plain).collect();
    let lab = of.join("bench").join(format!("{name}-{seed}"));
    let cannot = |why: std::io::Error| Failure::new(format!("cannot make {}", lab.display())).caused_by(&why);
    fs::create_dir_all(&lab).map_err(cannot)?;
    for shared in ["data", "runs"] {
        let (here, there) = (lab.join(shared), of.join(shared));
        fs::create_dir_all(&there).map_err(cannot)?;
        if fs::symlink_metadata(&here).is_err() {
            let there = fs::canonicalize(&there).map_err(cannot)?;
            std::os::unix::fs::symlink(there, &here).map_err(cannot)?;
        }
    }
    Ok(lab)
}

/// Runs a campaign to the end of its budget, or finds that it is there.
fn campaign(args: &BenchResearchers, lab: &Path, researcher: &str, seed: u64) -> Result<(), Failure> {
    if is_done(args, lab)? {
        return Ok(());
    }
    let program =
        std::env::current_exe().map_err(|why| Failure::new("pawl cannot find itself").caused_by(&why))?;
    let mut command = Command::new(program);
    command.arg("research").arg("--lab").arg(lab).arg("--recipe").arg(&args.recipe);
    command.args(["--researcher", researcher, "--seed", &seed.to_string()]);
    command.args(["--trials", &args.trials.to_string()]);
    if let Some(flops) = args.flops {
        command.args(["--flops", &flops.to_string()]);
    }
    let failed = || Failure::new(format!("the campaign of {researcher}, seed {seed}, did not end well"));
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.map_err(|why| failed().caused_by(&why))?;
    if !status.success() {
        return Err(failed().because("its last lines, above, say why").hint("the same command goes on"));
    }
    match is_done(args, lab)? {
        true => Ok(()),
        false => {
            Err(failed().because("it stopped before its trials were used").hint("the same command goes on"))
        }
    }
}

/// Whether the campaign of a lab has used up these trials, or had nothing left to propose.
fn is_done(args: &BenchResearchers, lab: &Path) -> Result<bool, Failure> {
    let records = read_campaign(lab).map_err(from_ledger)?;
    let end = records.and_then(|records| records.end.map(|end| (end, records.manifest.budget)));
    Ok(end.is_some_and(|(end, budget)| match (end.reason, budget) {
        (EndReason::Exhausted, _) => true,
        (EndReason::Budget, CampaignBudget::Trials(_)) => end.runs >= args.trials,
        (EndReason::Budget, CampaignBudget::Minutes(_)) => false,
        (EndReason::Interrupted | EndReason::Paused, _) => false,
    }))
}

fn table(standings: &[Standing]) -> String {
    let mut table = Table::new(&[
        ("researcher", Align::Left),
        ("sealed val_bpb", Align::Right),
        ("beside the first", Align::Right),
        ("per PFLOP", Align::Right),
        ("per $", Align::Right),
        ("tried", Align::Right),
        ("kept", Align::Right),
        ("wrong", Align::Right),
        ("unconfirmed", Align::Right),
        ("breadth", Align::Right),
        ("Brier", Align::Right),
    ]);
    for it in standings {
        table.row(vec![
            it.researcher.clone(),
            change(&it.sealed_gain),
            it.beyond_first.as_ref().map_or(String::new(), change),
            format!("{:+.4}", 0.0 - it.gain_per_petaflop),
            it.gain_per_usd.map_or(String::new(), |gain| format!("{:+.4}", 0.0 - gain)),
            it.tried.to_string(),
            it.kept.to_string(),
            format!("{} of {}", it.false_keeps, it.measured_again),
            it.unconfirmed_keeps.to_string(),
            it.breadth.to_string(),
            it.brier.map_or(String::new(), |brier| format!("{brier:.3}")),
        ]);
    }
    table.text()
}

/// A change in bits per byte: negative is better.
fn change(gain: &Estimate) -> String {
    match gain.half_width.is_finite() {
        true => format!("{:+.4} +- {:.4}", 0.0 - gain.mean, gain.half_width),
        false => format!("{:+.4}", 0.0 - gain.mean),
    }
}

fn block(args: &BenchResearchers, standings: &[Standing]) -> Block {
    let mut block = Block::default();
    block
        .line("campaigns", standings.iter().map(|it| it.campaigns).sum::<usize>())
        .line("each", format!("{} trials of {}, the same seeds", args.trials, args.recipe))
        .line("labs", args.place.lab.join("bench").display());
    block
}
