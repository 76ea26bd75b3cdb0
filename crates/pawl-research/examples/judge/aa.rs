//! `judge aa`: campaigns of proposals that change nothing, and of a few real ones among them. How often is
//! anything false kept, and what share of the keeps is false?

use crate::{exact, in_parallel, measured};
use pawl_research::options::judge_settings;
use pawl_research::random::Random;
use pawl_research::simulate::{Law, NULL, Outcomes, Plan, Planted, campaign};

const CAMPAIGNS: u64 = 2000;
const PROPOSALS: u64 = 100;

/// Draws a proposal, knowing the champion's luck.
type Proposer = dyn Fn(&mut Random, &[f64]) -> Planted + Sync;

/// Returns whether every rate is at most the stated one.
pub(crate) fn run(args: &[&str]) -> Result<bool, String> {
    let (mut num_campaigns, mut pairs) = (CAMPAIGNS, measured::no_ops());
    for pair in args.chunks(2) {
        match *pair {
            ["--campaigns", n] => num_campaigns = n.parse().map_err(|_| format!("{n} is no number"))?,
            ["--measured", path] => pairs = measured::read(path)?,
            _ => return Err(format!("{} is not understood", pair.join(" "))),
        }
    }
    if num_campaigns == 0 {
        return Err("no campaigns show nothing".to_string());
    }
    let alpha = judge_settings().alpha;
    println!("{num_campaigns} campaigns of {PROPOSALS} proposals, stated rate {:.1} %", 100.0 * alpha);
    println!(
        "noise         proposals          campaigns with a false keep    false-discovery rate      pairs a proposal"
    );
    let laws = [
        ("normal", Law::Normal),
        ("heavy (t3)", Law::HeavyTailed),
        ("skewed", Law::Skewed),
        ("measured", Law::Measured(pairs)),
    ];
    let noisier = |_: &mut Random, _: &[f64]| Planted { noise_ratio: 2.0, ..NULL };
    let quieter = |_: &mut Random, _: &[f64]| Planted { noise_ratio: 0.2, ..NULL };
    let nulls = |_: &mut Random, _: &[f64]| NULL;
    let mixed = |random: &mut Random, _: &[f64]| {
        let effect = if random.uniform() < 0.2 { 2.0 } else { 0.0 };
        Planted { effect, ..NULL }
    };
    let lucky = |_: &mut Random, shared: &[f64]| {
        let effect = if shared[..3].iter().sum::<f64>() < 1.5 { 3.0 } else { 0.0 };
        Planted { effect, ..NULL }
    };
    println!("              (2x noise is beyond what the judge assumes: shown, not held to the rate)");
    let mut holds = true;
    for (name, law) in &laws {
        let proposers: [(&str, bool, &Proposer); 5] = [
            ("all null", true, &nulls),
            ("null, 2x noise", false, &noisier),
            ("null, 0.2x noise", true, &quieter),
            ("a fifth +2 sd", true, &mixed),
            ("null when lucky", true, &lucky),
        ];
        for (what, counts, propose) in proposers {
            // Measured pairs have the scatter they have.
            if matches!(law, Law::Measured(_)) && what.contains("x noise") {
                continue;
            }
            let plan = |seed| {
                let plan = Plan {
                    settings: judge_settings(),
                    law,
                    workers: 2,
                    num_proposals: PROPOSALS,
                    max_runs: None,
                    above: None,
                    propose: &|random: &mut Random, shared: &[f64]| propose(random, shared),
                };
                campaign(&plan, seed)
            };
            let outcomes = in_parallel(num_campaigns, plan);
            let rate = print(name, what, &outcomes);
            holds &= rate <= alpha || !counts;
        }
    }
    println!(
        "{}",
        if holds {
            "every rate is within the stated one; rows beyond the assumptions do not count"
        } else {
            "A RATE IS ABOVE THE STATED ONE"
        }
    );
    Ok(holds)
}

/// Prints a line and returns the false-discovery rate.
fn print(noise: &str, what: &str, outcomes: &[Outcomes]) -> f64 {
    let n = outcomes.len() as u64;
    let any = outcomes.iter().filter(|o| o.num_false() > 0).count() as u64;
    // A coin for each campaign that falls on heads with the share of its keeps that is false: the number of
    // heads is binomial with the false-discovery rate, and its interval exact.
    let heads = (0u64..).zip(outcomes).filter(|(i, o)| Random::new(&[*i, 0xc0]).uniform() < o.false_share());
    let heads = heads.count() as u64;
    let rate = outcomes.iter().map(Outcomes::false_share).sum::<f64>() / n as f64;
    let pairs: u64 = outcomes.iter().flat_map(|o| &o.proposals).map(|p| p.pairs).sum();
    let proposals: usize = outcomes.iter().map(|o| o.proposals.len()).sum();
    let percent = |(low, high): (f64, f64)| format!("{:5.2} to {:5.2} %", 100.0 * low, 100.0 * high);
    println!(
        "{noise:<12}  {what:<17}  {any:>5}  {:5.2} %  {}   {:5.2} %  {}   {:4.2}",
        100.0 * any as f64 / n as f64,
        percent(exact::interval(any, n)),
        100.0 * rate,
        percent(exact::interval(heads, n)),
        pairs as f64 / proposals as f64,
    );
    rate
}
