//! The rungs of a campaign, what a keep must pass before it is champion, and what a change is worth in compute.

use crate::{Decision, Evidence, Measured, PairRecord, Precision};
use serde::{Deserialize, Serialize};

/// The scale at which trials are run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// The scale dial.
    pub depth: u64,
    /// Budget of one trial, floating-point operations.
    pub flops: f64,
    /// Number format of the products of a trial.
    #[serde(default)]
    pub precision: Precision,
}

/// The rungs of a campaign, at least one, each with more FLOPs than the one before. Proposals are tried on the
/// first; what is kept there must hold on the others, in order, before it becomes champion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Rung>", into = "Vec<Rung>")]
pub struct Ladder(Vec<Rung>);

impl Ladder {
    /// A ladder of these rungs, or what is wrong with them.
    pub fn new(rungs: Vec<Rung>) -> Result<Ladder, String> {
        if rungs.is_empty() {
            return Err("a ladder has at least one rung".to_string());
        }
        if rungs.iter().any(|rung| !(rung.flops > 0.0 && rung.flops.is_finite())) {
            return Err("the FLOPs of a rung are a positive number".to_string());
        }
        if rungs.iter().any(|rung| rung.depth == 0) {
            return Err("the depth of a rung is at least 1".to_string());
        }
        match rungs.windows(2).find(|pair| pair[1].flops <= pair[0].flops) {
            Some(pair) => Err(format!(
                "each rung has more FLOPs than the one before, and {:e} comes after {:e}",
                pair[1].flops, pair[0].flops
            )),
            None => Ok(Ladder(rungs)),
        }
    }

    /// Where proposals are tried.
    pub fn first(&self) -> Rung {
        self.0[0]
    }

    /// All of them, the first one first.
    pub fn all(&self) -> &[Rung] {
        &self.0
    }
}

impl TryFrom<Vec<Rung>> for Ladder {
    type Error = String;

    fn try_from(rungs: Vec<Rung>) -> Result<Ladder, String> {
        Ladder::new(rungs)
    }
}

impl From<Ladder> for Vec<Rung> {
    fn from(ladder: Ladder) -> Vec<Rung> {
        ladder.0
    }
}

/// A keep on a rung above the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Climb {
    /// Place of the rung in the ladder; the first is 0.
    pub rung: u64,
    /// Fingerprint of the champion there.
    pub champion_fingerprint: String,
    /// Fingerprint of the challenger there, when it compiled.
    pub fingerprint: Option<String>,
    /// The pairs, in the order run, on seeds of their own.
    pub pairs: Vec<PairRecord>,
    /// The test, when a pair gave a difference.
    pub evidence: Option<Evidence>,
    /// [`Decision::Keep`] when it holds there.
    pub decision: Decision,
}

impl Climb {
    /// Whether the change is better there too.
    pub fn held(&self) -> bool {
        self.decision == Decision::Keep
    }
}

/// Whether a keep still wins when the champion is given as many seconds as the challenger took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EqualTime {
    /// The challenger's seconds over the champion's at equal FLOPs, the smallest over the pairs.
    pub seconds_ratio: f64,
    /// Champion runs with its budget multiplied by that ratio, on the pairs' seeds.
    pub champion_runs: Vec<String>,
    /// Mean gain against those runs, bits per byte.
    pub mean: f64,
}

/// A champion to be on the first of its own pair seeds, before it may be champion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fresh {
    /// Its runs, in the order of the seeds.
    pub runs: Vec<String>,
    /// Their scores, bits per byte; `None` where one diverged.
    pub bpb: Vec<Option<f64>>,
    /// Whether it shows there what it was kept for.
    pub holds: bool,
}

/// A factor with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Factor {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end; `None` where the data set no limit.
    pub high: Option<f64>,
}

impl Factor {
    /// Factors of compute beyond this are not told as numbers: the champion's own law is measured over budgets a
    /// factor of 4 to 8 apart, and far beyond them it is a guess.
    pub const MOST: f64 = 16.0;

    /// A factor with that many decimals, or that it is beyond what was measured.
    pub fn words(value: f64, decimals: usize) -> String {
        match value > Factor::MOST {
            true => format!("over {:.0}", Factor::MOST),
            false => format!("{value:.decimals$}"),
        }
    }
}

/// Scores of one program at one budget, on the search split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LawPoint {
    /// The scale dial.
    pub depth: u64,
    /// Budget, FLOPs.
    pub flops: f64,
    /// Run ids of those that have a score.
    pub runs: Vec<String>,
    /// Their scores, bits per byte.
    pub bpb: Vec<f64>,
}

/// The gain on one rung in compute.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RungWorth {
    /// Place of the rung in the ladder; the first is 0.
    pub rung: u64,
    /// Mean gain there, bits per byte.
    pub gain_bpb: f64,
    /// How much more compute the champion would need to match it.
    pub compute: Factor,
}

/// What a change is worth in compute: how many times the FLOPs the champion would need to score as the challenger
/// does, by a power law `L = b C^-c` through the champion's own scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worth {
    /// The champion's scores by budget, smallest first.
    pub points: Vec<LawPoint>,
    /// The exponent c.
    pub exponent: f64,
    /// By rung.
    pub rungs: Vec<RungWorth>,
    /// The factor on the last rung over that on the first, where there are two.
    pub trend: Option<Factor>,
}

/// Two arms on fresh seeds of a rung above the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RungMeasured {
    /// Place of the rung in the ladder.
    pub rung: u64,
    /// The fresh seeds.
    pub seeds: Vec<u64>,
    /// Run ids of the starting recipe, by seed.
    pub start_runs: Vec<String>,
    /// Run ids of the champion, by seed.
    pub champion_runs: Vec<String>,
    /// Search split.
    pub search: Measured,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung(depth: u64, flops: f64) -> Rung {
        Rung { depth, flops, precision: Precision::F32 }
    }

    #[test]
    fn far_beyond_what_was_measured_no_number_is_told() {
        assert_eq!((Factor::words(2.512, 2), Factor::words(16.0, 1)), ("2.51".into(), "16.0".into()));
        assert_eq!(Factor::words(144.7, 1), "over 16");
    }

    #[test]
    fn a_ladder_has_rungs_that_grow() {
        assert!(Ladder::new(vec![rung(3, 5e11), rung(4, 2e12)]).is_ok());
        let wrong = [vec![], vec![rung(3, 5e11), rung(4, 5e11)], vec![rung(3, f64::NAN)], vec![rung(0, 1e9)]];
        for rungs in wrong {
            assert!(Ladder::new(rungs.clone()).is_err(), "{rungs:?}");
        }
    }

    #[test]
    fn a_file_cannot_hold_an_empty_ladder() {
        assert!(serde_json::from_str::<Ladder>("[]").is_err());
        let ladder = Ladder::new(vec![rung(3, 5e11)]).unwrap();
        let text = serde_json::to_string(&ladder).unwrap();
        assert_eq!(serde_json::from_str::<Ladder>(&text).unwrap(), ladder);
    }
}
