//! The rules that other loops keep by, on the same lab: same runs, same luck, same budget. They are given what
//! they would have to learn: no A/A pairs are charged to them.

use super::{Outcome, Outcomes, Plan, Planted};
use crate::random::Random;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// How others decide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rival {
    /// One run on the one seed of the loop; kept if its score is lower than the champion's. The champion keeps
    /// the luck it won by.
    Lower,
    /// The same, if lower by more than the median absolute deviation of the noise of a pair.
    LowerByMad,
    /// So many pairs on fresh seeds of each champion, one-sided t-test at the 5 % level.
    TTest {
        /// Pairs of every proposal.
        pairs: u64,
    },
}

/// Median of |z|, z standard normal: the median absolute deviation over the standard deviation.
const MAD_OVER_SD: f64 = 0.6745;

/// A campaign decided by a rival, keyed by `seed`; settings of the judge are not read.
pub fn campaign(plan: &Plan<'_>, rival: Rival, seed: u64) -> Outcomes {
    let mut random = Random::new(&[seed, 0x52]);
    match rival {
        Rival::Lower => single_runs(plan, 0.0, &mut random),
        Rival::LowerByMad => single_runs(plan, MAD_OVER_SD, &mut random),
        Rival::TTest { pairs } => t_tests(plan, pairs, &mut random),
    }
}

fn goes_on(plan: &Plan<'_>, outcomes: &Outcomes) -> bool {
    let proposals = (outcomes.proposals.len() as u64) < plan.num_proposals;
    proposals && plan.max_runs.is_none_or(|runs| outcomes.runs < runs)
}

fn outcome(planted: Planted, kept: bool, pairs: u64) -> Outcome {
    Outcome { planted, kept, stayed: false, faded: false, pairs, cut_short: false }
}

fn single_runs(plan: &Plan<'_>, margin: f64, random: &mut Random) -> Outcomes {
    let mut outcomes = Outcomes { runs: 1, ..Outcomes::default() };
    let mut champion = plan.law.luck(random, false);
    while goes_on(plan, &outcomes) {
        let planted = (plan.propose)(random, &[champion; 3]);
        let luck = plan.law.luck(random, true);
        let difference = planted.effect + planted.noise_ratio * (champion - luck) * 0.5f64.sqrt();
        let kept = difference > margin;
        if kept {
            champion = luck;
        }
        outcomes.proposals.push(outcome(planted, kept, 1));
        outcomes.runs += 1;
    }
    outcomes
}

fn t_tests(plan: &Plan<'_>, pairs: u64, random: &mut Random) -> Outcomes {
    let law = StudentsT::new(0.0, 1.0, pairs as f64 - 1.0).expect("a t-test has two pairs or more");
    let needed = law.inverse_cdf(0.95);
    let mut outcomes = Outcomes { runs: pairs, ..Outcomes::default() };
    let draw = |random: &mut Random| (0..pairs).map(|_| plan.law.luck(random, false)).collect::<Vec<_>>();
    let mut champion = draw(random);
    while goes_on(plan, &outcomes) {
        let planted = (plan.propose)(random, &champion);
        let differences: Vec<f64> = champion
            .iter()
            .map(|shared| {
                let noise = (shared - plan.law.luck(random, true)) * 0.5f64.sqrt();
                planted.effect + planted.noise_ratio * noise
            })
            .collect();
        let k = pairs as f64;
        let mean = differences.iter().sum::<f64>() / k;
        let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (k - 1.0);
        let kept = mean > needed * (variance / k).sqrt();
        outcomes.proposals.push(outcome(planted, kept, pairs));
        outcomes.runs += pairs;
        if kept {
            champion = draw(random);
            outcomes.runs += pairs;
        }
    }
    outcomes
}
