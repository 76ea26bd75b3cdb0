//! `judge real`: defects planted in a shipped recipe and the changes that mend them, mixed with as many that do
//! nothing, through whole campaigns with real training. What is found, what is falsely kept, at what cost?
//!
//! Three campaigns of five defects that do not touch the same part. All fifteen at once would measure
//! their interplay (behind a dead attention no mend of attention shows); one at a time would hide what a campaign
//! adds: noise measured on a bad start, levels that fall with every proposal, a champion that changes. With `--seeds K`
//! each is held K times, in another order on other seeds.
//!
//! *What a mend is worth* depends on the champion that it meets, and some are worth nothing. So each is measured
//! afterwards against that champion on fresh seeds, which had no say in the verdict, and recall is told by true effect.

mod defects;
mod truth;

use crate::exact;
use crate::parallel::on_workers;
use crate::trained::{Asked, How, campaign, is_over, shown, verdict_on};
use defects::{DEFECTS, NULLS, Planted, recipe};
use pawl_ledger::CampaignRecords;
use pawl_record::Decision;
use pawl_research::random::Random;
use truth::{Effect, Truth};

/// The rung: two blocks of width 64, some seconds on a core.
const DEPTH: u64 = 2;
const FLOPS: f64 = 2e11;

/// Runs or goes on with the campaigns; false when a no-op was kept.
pub(crate) fn run(args: &[&str]) -> Result<bool, String> {
    let how = How::read(args)?;
    let asked: Vec<(usize, u64)> = (how.seed..how.seed + how.seeds)
        .flat_map(|seed| (0..DEFECTS.len()).map(move |group| (group, seed)))
        .collect();
    let held = on_workers(how.jobs, &asked, |(group, seed)| hold(*group, *seed, &how));
    let mut tally = Tally::default();
    for ((group, seed), held) in asked.into_iter().zip(held) {
        match held? {
            Some((records, truth)) => print(group, seed, &records, &truth, &mut tally),
            None => tally.open = true,
        }
    }
    tally.print();
    Ok(tally.false_keeps == 0)
}

/// One campaign and the truth about its mends, as far as the time goes.
fn hold(group: usize, seed: u64, how: &How) -> Result<Option<(CampaignRecords, Truth)>, String> {
    let recipe = recipe(group)?;
    let asked = Asked {
        name: format!("real-{group}-seed{seed}"),
        recipe: &recipe,
        script: script(group, seed),
        depth: DEPTH,
        flops: FLOPS,
        seed,
    };
    let Some(records) = campaign(&asked, how)? else { return Ok(None) };
    let mends: Vec<&str> = DEFECTS[group].iter().map(|it| it.name).collect();
    let truth = truth::measure(&asked, &records, &mends, how)?;
    Ok(Some((records, truth)))
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

/// A mend that was decided: what it is truly worth in pair sds, where that was measured, and whether it was kept.
struct Mend {
    effect_sds: Option<f64>,
    in_paper: bool,
    found: bool,
}

#[derive(Default)]
struct Tally {
    mends: Vec<Mend>,
    nulls: u64,
    recognised: u64,
    false_keeps: u64,
    runs: u64,
    flops: f64,
    seconds: f64,
    truth_seconds: f64,
    open: bool,
}

fn print(group: usize, seed: u64, records: &CampaignRecords, truth: &Truth, tally: &mut Tally) {
    let sd = records.noise.as_ref().map_or(f64::NAN, |noise| noise.pair_sd);
    println!(
        "\ncampaign {}, seed {seed}: noise {sd:.4} bits per byte a pair; a negative change is better",
        group + 1
    );
    println!(
        "                          the verdict                                   the truth, in pair sds"
    );
    tally.open |= !is_over(records) || !truth.is_whole;
    let line = |kind: &str, it: &Planted, to: &str, effect: Option<&Effect>| {
        let verdict = verdict_on(records, it.name, to).map(|(_, verdict)| verdict);
        let mut said = verdict.map_or_else(|| "not tried yet".to_string(), shown);
        if verdict.is_some_and(|it| it.decision == Decision::Keep && !it.promoted) {
            said += ", not promoted";
        }
        let truth = effect.map_or_else(String::new, |it| {
            format!("{:+.4} +- {:.4} {:+6.1} sd", -it.mean, it.error, -it.mean / sd)
        });
        println!("{kind:<5} {:<19} {said:<42} {truth:<28} {}", it.name, it.what);
        verdict.cloned()
    };
    for it in DEFECTS[group] {
        let effect = truth.effects.get(it.name);
        let Some(verdict) = line("mend", it, "False", effect) else { continue };
        let effect_sds = effect.map(|it| it.mean / sd);
        tally.mends.push(Mend { effect_sds, in_paper: it.in_paper, found: verdict.promoted });
    }
    for it in NULLS[group] {
        let Some(verdict) = line("no-op", it, "True", None) else { continue };
        tally.nulls += 1;
        tally.recognised += u64::from(matches!(verdict.decision, Decision::Skipped(_)));
        tally.false_keeps += u64::from(verdict.promoted);
    }
    if let Some(measured) = &records.final_measurement {
        println!(
            "all   {} fresh seeds: {:+.4} +- {:.4} on the search split",
            measured.seeds.len(),
            -measured.search.mean,
            measured.search.half_width
        );
    }
    tally.truth_seconds += truth.seconds;
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
        let found = |of: &dyn Fn(&Mend) -> bool| {
            let those: Vec<&Mend> = self.mends.iter().filter(|it| of(it)).collect();
            share(those.iter().filter(|it| it.found).count() as u64, those.len() as u64)
        };
        println!("\nmends kept, of those truly worth");
        for (from, to) in [(3.0, f64::INFINITY), (2.0, 3.0), (1.0, 2.0), (0.0, 1.0), (f64::NEG_INFINITY, 0.0)]
        {
            let within = |it: &Mend| it.effect_sds.is_some_and(|sds| sds >= from && sds < to);
            let words = match (from.is_finite(), to.is_finite()) {
                (true, true) => format!("{from:.0} to {to:.0} pair sds"),
                (true, false) => format!("{from:.0} pair sds or more"),
                (false, _) => "less than nothing".to_string(),
            };
            println!("  {words:<22} {}", found(&within));
        }
        let is_worth = |it: &Mend| it.effect_sds.is_some_and(|sds| sds >= 2.0);
        println!("  2 or more, in a paper  {}", found(&|it| is_worth(it) && it.in_paper));
        println!("  2 or more, in none     {}", found(&|it| is_worth(it) && !it.in_paper));
        println!("  all that were tried    {}", found(&|_| true));
        println!("no-ops kept: {}", share(self.false_keeps, self.nulls));
        println!("no-ops recognised as the same program: {}", self.recognised);
        println!(
            "cost: {} runs, {:.1} TFLOP, {:.0} core seconds, and {:.0} for the truth",
            self.runs,
            self.flops / 1e12,
            self.seconds,
            self.truth_seconds
        );
        if self.open {
            println!("not finished: the same command goes on");
        }
    }
}
