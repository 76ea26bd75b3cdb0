//! `judge real`: defects planted in a shipped recipe and the changes that mend them, mixed with as many that do
//! nothing, through a whole campaign with real training. What is found, what is falsely kept, at what cost?
//!
//! Three campaigns of four or five defects that do not touch the same part. All fourteen at once would measure
//! their interplay (behind a dead attention no mend of attention shows); one at a time would hide what a campaign
//! adds: noise measured on a bad start, levels that fall with every proposal, a champion that changes.

mod defects;

use crate::exact;
use crate::trained::{Asked, How, campaign, is_over, shown, verdict_on};
use defects::{DEFECTS, NULLS, Planted, recipe};
use pawl_ledger::CampaignRecords;
use pawl_record::Decision;
use pawl_research::random::Random;

/// The rung: two blocks of width 64, some seconds on a core.
const DEPTH: u64 = 2;
const FLOPS: f64 = 2e11;

/// Runs or goes on with the campaigns; false when a no-op was kept.
pub(crate) fn run(args: &[&str]) -> Result<bool, String> {
    let how = How::read(args)?;
    let mut tally = Tally::default();
    for group in 0..DEFECTS.len() {
        let recipe = recipe(group)?;
        let asked = Asked {
            name: format!("real-{group}-seed{}", how.seed),
            recipe: &recipe,
            script: script(group, how.seed),
            depth: DEPTH,
            flops: FLOPS,
        };
        match campaign(&asked, &how)? {
            Some(records) => print(group, &records, &mut tally),
            None => tally.open = true,
        }
    }
    tally.print();
    Ok(tally.false_keeps == 0)
}

/// Mends and no-ops in an order drawn by the seed.
fn script(group: usize, seed: u64) -> Vec<String> {
    let mends = DEFECTS[group].iter().map(|it| format!("{}=False", it.name));
    let nulls = NULLS[group].iter().map(|it| format!("{}=True", it.name));
    let mut lines: Vec<String> = mends.chain(nulls).collect();
    let mut random = Random::new(&[seed, group as u64, 0x0de5]);
    for last in (1..lines.len()).rev() {
        lines.swap(last, random.below(last + 1));
    }
    lines
}

#[derive(Default)]
struct Tally {
    mends: u64,
    found: u64,
    unknown_mends: u64,
    unknown_found: u64,
    nulls: u64,
    recognised: u64,
    false_keeps: u64,
    runs: u64,
    flops: f64,
    seconds: f64,
    open: bool,
}

fn print(group: usize, records: &CampaignRecords, tally: &mut Tally) {
    println!(
        "\ncampaign {}: noise {:.4} bits per byte a pair; a negative change is better",
        group + 1,
        records.noise.as_ref().map_or(f64::NAN, |noise| noise.pair_sd)
    );
    tally.open |= !is_over(records);
    let line = |kind: &str, it: &Planted, to: &str| {
        let verdict = verdict_on(records, it.name, to).map(|(_, verdict)| verdict);
        let said = verdict.map_or_else(|| "not tried yet".to_string(), shown);
        println!("{kind:<5} {:<19} {said:<42} {}", it.name, it.what);
        verdict.map(|verdict| verdict.decision.clone())
    };
    for it in DEFECTS[group] {
        let Some(decision) = line("mend", it, "False") else { continue };
        let found = u64::from(decision == Decision::Keep);
        (tally.mends, tally.found) = (tally.mends + 1, tally.found + found);
        if !it.in_paper {
            tally.unknown_mends += 1;
            tally.unknown_found += found;
        }
    }
    for it in NULLS[group] {
        let Some(decision) = line("no-op", it, "True") else { continue };
        tally.nulls += 1;
        tally.recognised += u64::from(matches!(decision, Decision::Skipped(_)));
        tally.false_keeps += u64::from(decision == Decision::Keep);
    }
    if let Some(measured) = &records.final_measurement {
        println!(
            "all   {} fresh seeds: {:+.4} +- {:.4} on the search split",
            measured.seeds.len(),
            -measured.search.mean,
            measured.search.half_width
        );
    }
    if let Some(end) = &records.end {
        tally.runs += end.runs;
        tally.flops += end.flops;
        tally.seconds += end.run_seconds;
    }
}

impl Tally {
    fn print(&self) {
        let share = |hits: u64, n: u64| {
            let (low, high) = if n == 0 { (0.0, 1.0) } else { exact::interval(hits, n) };
            format!("{hits} of {n} ({:.0} to {:.0} %)", 100.0 * low, 100.0 * high)
        };
        println!("\nmends kept: {}", share(self.found, self.mends));
        println!("mends kept that stand in no paper: {}", share(self.unknown_found, self.unknown_mends));
        println!("no-ops kept: {}", share(self.false_keeps, self.nulls));
        println!("no-ops recognised as the same program: {}", self.recognised);
        println!(
            "cost: {} runs, {:.1} TFLOP, {:.0} core seconds",
            self.runs,
            self.flops / 1e12,
            self.seconds
        );
        if self.open {
            println!("not finished: the same command goes on");
        }
    }
}
