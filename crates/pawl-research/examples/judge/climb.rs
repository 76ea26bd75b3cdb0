//! `judge climb`: what a second rung takes back and lets through, by how much of an effect is left there and how
//! noisy that rung is.

use crate::{exact, in_parallel};
use pawl_research::options::judge_settings;
use pawl_research::random::Random;
use pawl_research::simulate::{self, Above, Law, NULL, Outcome, Plan, Planted};

const CAMPAIGNS: u64 = 400;
const PROPOSALS: u64 = 100;
/// FLOPs of a run on the second rung over one on the first, as in the ladder by default.
const COST: u64 = 4;

/// What is left of an effect on the second rung, and its noise over that of the first.
const ABOVE: [Option<(f64, f64)>; 9] = [
    None,
    Some((1.0, 0.5)),
    Some((1.0, 0.7)),
    Some((1.0, 1.0)),
    Some((1.0, 1.5)),
    Some((0.5, 0.5)),
    Some((0.5, 0.7)),
    Some((0.0, 0.7)),
    Some((0.0, 1.5)),
];

pub(crate) fn run() {
    println!(
        "{CAMPAIGNS} campaigns of {PROPOSALS} proposals, a fifth real, the rest null; effects in A/A pair sds of the first \
         rung;\nruns of the second rung count as {COST}"
    );
    println!(
        "effect  left  noise   kept below  of those promoted  (95 %)          false promotions  runs a campaign"
    );
    for effect in [1.5, 2.0, 3.0] {
        for above in ABOVE {
            row(effect, above);
        }
    }
}

fn row(effect: f64, above: Option<(f64, f64)>) {
    let propose = |random: &mut Random, _: &[f64]| match random.uniform() < 0.2 {
        true => Planted { effect, noise_ratio: 1.0 },
        false => NULL,
    };
    let outcomes = in_parallel(CAMPAIGNS, |seed| {
        let plan = Plan {
            settings: judge_settings(),
            law: &Law::Normal,
            workers: 1,
            num_proposals: PROPOSALS,
            max_runs: None,
            above: above.map(|(effect, noise)| Above { effect, noise, cost: COST }),
            propose: &propose,
        };
        simulate::campaign(&plan, seed)
    });
    let real = || outcomes.iter().flat_map(|it| &it.proposals).filter(|it| it.planted.effect > 0.0);
    let count = |of: fn(&Outcome) -> bool| real().filter(|it| of(it)).count() as u64;
    let (promoted, stayed) = (count(|it| it.kept), count(|it| it.stayed));
    let below = promoted + stayed;
    let (low, high) = exact::interval(promoted, below.max(1));
    let wrong: u64 = outcomes.iter().map(simulate::Outcomes::num_false).sum();
    let runs: u64 = outcomes.iter().map(|it| it.runs).sum();
    let (left, noise) = above.map_or(("-".to_string(), "-".to_string()), |(effect, noise)| {
        (effect.to_string(), noise.to_string())
    });
    println!(
        "{effect:>6}  {left:>4}  {noise:>5}  {:>9.1} %  {:>15.1} %  {:>5.1} to {:>5.1} %  {:>16}  {:>15.0}",
        100.0 * below as f64 / count(|_| true) as f64,
        100.0 * promoted as f64 / below.max(1) as f64,
        100.0 * low,
        100.0 * high,
        wrong,
        runs as f64 / CAMPAIGNS as f64,
    );
}
