//! `judge power`: planted effects of known size. How often are they kept, after how many pairs, and how much
//! true improvement does a run buy, beside the rules that other loops keep by?

use crate::{exact, in_parallel};
use pawl_research::options::judge_settings;
use pawl_research::random::Random;
use pawl_research::simulate::rivals::{self, Rival};
use pawl_research::simulate::{self, Law, Outcome, Outcomes, Plan, Planted};

const EFFECTS: [f64; 5] = [0.5, 1.0, 1.5, 2.0, 3.0];
const DUELS: u64 = 10_000;
const CAMPAIGNS: u64 = 400;
const PROPOSALS: u64 = 100;
/// Training runs of a campaign at equal compute.
const RUNS: u64 = 600;

type Propose<'a> = &'a dyn Fn(&mut Random, &[f64]) -> Planted;

/// Returns whether the goals that are stated beside the numbers are met.
pub(crate) fn run() -> bool {
    let within_six = one_test();
    let (kept, pairs) = in_a_campaign();
    at_equal_compute();
    println!("\ngoals: +2 sd kept within 6 pairs at level 0.01      {:5.1} %   of 90", 100.0 * within_six);
    println!("       +2 sd kept within 12 pairs in a campaign     {:5.1} %   of 95", 100.0 * kept);
    println!("       pairs a proposal in that campaign            {pairs:5.2}     at most 5");
    within_six >= 0.9 && kept >= 0.95 && pairs <= 5.0
}

fn plan<'a>(max_runs: Option<u64>, propose: Propose<'a>) -> Plan<'a> {
    let num_proposals = if max_runs.is_some() { u64::MAX } else { PROPOSALS };
    Plan {
        settings: judge_settings(),
        law: &Law::Normal,
        workers: 1,
        num_proposals,
        max_runs,
        above: None,
        propose,
    }
}

/// Share kept within six pairs of an effect of two sds at level 0.01.
fn one_test() -> f64 {
    println!(
        "One test of a change whose pairs scatter `noise` times as much as A/A pairs; effects in A/A pair sds"
    );
    println!("level   noise  effect    kept   within 6 pairs    pairs: mean  median of keeps");
    let mut goal = 0.0;
    for level in [0.01, 0.001] {
        for (noise_ratio, effects) in [(1.0, &EFFECTS[..]), (0.5, &[0.5, 1.0]), (0.3, &[0.3, 0.5, 1.0])] {
            for &effect in effects {
                let ends = in_parallel(DUELS, |i| {
                    simulate::duel(&plan(None, &|_, _| Planted { effect, noise_ratio }), level, i)
                });
                let kept: Vec<&Outcome> = ends.iter().filter(|end| end.kept).collect();
                let six = kept.iter().filter(|end| end.pairs <= 6).count() as f64 / DUELS as f64;
                println!(
                    "{level:<7} {noise_ratio:>5}  {effect:>6} {:>6.1} %  {:>14.1} %  {:>11.1}  {:>15}",
                    100.0 * kept.len() as f64 / DUELS as f64,
                    100.0 * six,
                    mean_pairs(ends.iter()),
                    median_pairs(&kept),
                );
                if (level, noise_ratio, effect) == (0.01, 1.0, 2.0) {
                    goal = six;
                }
            }
        }
    }
    goal
}

fn mean_pairs<'a>(ends: impl Iterator<Item = &'a Outcome>) -> f64 {
    let pairs: Vec<u64> = ends.map(|end| end.pairs).collect();
    pairs.iter().sum::<u64>() as f64 / pairs.len() as f64
}

fn median_pairs(kept: &[&Outcome]) -> String {
    let mut pairs: Vec<u64> = kept.iter().map(|end| end.pairs).collect();
    pairs.sort_unstable();
    pairs.get(pairs.len() / 2).map_or_else(|| "-".to_string(), u64::to_string)
}

/// Share kept of effects of two sds, and pairs a proposal.
fn in_a_campaign() -> (f64, f64) {
    println!(
        "\n{CAMPAIGNS} campaigns of {PROPOSALS} proposals under the online rule, a fifth real, the rest null"
    );
    println!("effect    kept  (95 %)            pairs a proposal  median of keeps  runs a campaign");
    let mut goal = (0.0, 0.0);
    for effect in EFFECTS {
        let propose = |random: &mut Random, _: &[f64]| mixed(random, effect, 0.2, 0.0);
        let outcomes = in_parallel(CAMPAIGNS, |seed| simulate::campaign(&plan(None, &propose), seed));
        let all: Vec<&Outcome> = outcomes.iter().flat_map(|o| &o.proposals).collect();
        let real = all.iter().filter(|end| end.planted.effect > 0.0).count() as u64;
        let kept: Vec<&Outcome> =
            all.iter().copied().filter(|end| end.kept && end.planted.effect > 0.0).collect();
        let share = kept.len() as f64 / real as f64;
        let (low, high) = exact::interval(kept.len() as u64, real);
        let pairs = mean_pairs(all.iter().copied());
        println!(
            "{effect:>6} {:>6.1} %  {:4.1} to {:4.1} %  {pairs:>18.2}  {:>15}  {:>15.0}",
            100.0 * share,
            100.0 * low,
            100.0 * high,
            median_pairs(&kept),
            outcomes.iter().map(|o| o.runs).sum::<u64>() as f64 / CAMPAIGNS as f64,
        );
        if effect == 2.0 {
            goal = (share, pairs);
        }
    }
    goal
}

/// A change that gains `effect` with probability `real`, loses as much with probability `harmful`, or is null.
fn mixed(random: &mut Random, effect: f64, real: f64, harmful: f64) -> Planted {
    let u = random.uniform();
    let effect = match u {
        u if u < real => effect,
        u if u < real + harmful => -effect,
        _ => 0.0,
    };
    Planted { effect, noise_ratio: 1.0 }
}

fn at_equal_compute() {
    println!(
        "\nEqual compute: {RUNS} runs each, as many proposals as they last for; half of all proposals harm as"
    );
    println!(
        "much as the real ones gain. True gain per 100 runs, A/A pair sds; share of keeps that is no gain"
    );
    println!("real  effect          pawl    keep if lower     lower by MAD   t-test, 5 pairs");
    for real in [0.2, 0.05, 0.01] {
        for effect in EFFECTS {
            let propose = |random: &mut Random, _: &[f64]| mixed(random, effect, real, 0.5);
            let ours = in_parallel(CAMPAIGNS, |seed| simulate::campaign(&plan(Some(RUNS), &propose), seed));
            let mut row = summary(&ours);
            for rival in [Rival::Lower, Rival::LowerByMad, Rival::TTest { pairs: 5 }] {
                let theirs =
                    in_parallel(CAMPAIGNS, |seed| rivals::campaign(&plan(Some(RUNS), &propose), rival, seed));
                row += &summary(&theirs);
            }
            println!("{real:>4}  {effect:>6} {row}");
        }
    }
}

fn summary(outcomes: &[Outcomes]) -> String {
    let runs: u64 = outcomes.iter().map(|o| o.runs).sum();
    let gain: f64 = outcomes.iter().map(Outcomes::gain).sum();
    let kept: u64 = outcomes.iter().map(Outcomes::num_kept).sum();
    let wrong: u64 = outcomes.iter().map(Outcomes::num_false).sum();
    let share = 100.0 * wrong as f64 / kept.max(1) as f64;
    format!("  {:>7.2} {share:>4.0} %", 100.0 * gain / runs as f64).replacen("  ", "   ", 1)
}
