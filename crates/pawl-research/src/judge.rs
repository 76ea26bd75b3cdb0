//! The judge of one challenger: what to do after each pair.
//!
//! It sees numbers only: the noise of the campaign, the challenger's pairs, and the level it may spend. It
//! decides nothing about the campaign and has no state: the same numbers give the same ruling.
//!
//! A keep needs the e-process of [`crate::evidence`] to reach `1 / level`: under the null that happens with
//! probability at most `level`, at whatever pair and for whatever reason the duel ends.
//!
//! *When an assumption fails*. A challenger noisier than A/A pairs would be flattered by their scale. Such
//! challengers exist: on a real recipe a change of initial values scattered four times as much. Two guards, which
//! cannot add a keep: no keep before `min_pairs`; and the challenger's own runs, or its pairs, must reach
//! [`OWN_SHARE`] of the threshold without the campaign's word on the noise (the mean of the two e-values), so that a
//! normal null of whatever noise is kept with probability at most `level / OWN_SHARE`. What remains is measured
//! (`cargo xtask judge aa`): twice the noise, heavy tails, and skewness.
//!
//! Futility is about power per FLOP, not validity: after one pair a challenger stops when an effect of the
//! target size would rarely look this bad, later when the pairs that are left would rarely decide.

pub use crate::evidence::{Known, NoiseScale};
use crate::evidence::{Scores, Stats, by_own_runs, by_scatter, differences, e_value, half_width};
use pawl_record::{Evidence, JudgeSettings};
use statrs::distribution::{ContinuousCDF, Normal};

/// What to do after a pair.
#[derive(Clone, Debug, PartialEq)]
pub enum Ruling {
    /// The e-process crossed its threshold.
    Keep,
    /// Not decided: more pairs are worth their cost.
    Continue,
    /// An effect of the target size would rarely look this bad.
    Reject(String),
    /// The pair limit is reached, or what is left cannot decide.
    Undecided(String),
}

/// Share of the threshold that the challenger's own pairs must reach without the campaign's word on the noise.
/// Tuned by simulation: at a sixteenth, a false keep comes to one in twenty campaigns of nulls that are all twice
/// as noisy as A/A pairs, and a
/// change of two pair sds still needs six pairs at a level of 0.01.
pub const OWN_SHARE: f64 = 1.0 / 16.0;

/// Degrees of freedom that the noise of the campaign counts for in hope. One costs quiet changes their power: of
/// those a third as noisy as A/A pairs and an A/A sd better 79 % were kept at a level of 0.001, with a quarter 91 %,
/// for a tenth of a pair more; less than that buys little.
const CAMPAIGN_DOF: f64 = 0.25;

/// Rules on a challenger after `pairs`, at `level` (see [`crate::levels::level`]).
pub fn rule(
    settings: &JudgeSettings,
    known: &Known,
    pairs: &[Scores],
    level: f64,
    test_index: u64,
) -> (Ruling, Evidence) {
    assert!(!pairs.is_empty(), "a ruling needs a pair");
    let case = Case {
        scale: known.scale,
        arms: Stats::of_arms(known, pairs, settings.min_effect_bpb),
        pairs: Stats::of_pairs(&differences(pairs), settings.min_effect_bpb),
        worth_at_limit: known.worth(settings.max_pairs as usize),
    };
    let evidence = Evidence {
        mean: case.pairs.mean() + settings.min_effect_bpb,
        half_width: half_width(&case.scale, &case.pairs),
        e_value: e_value(&case.scale, &case.arms, &case.pairs, settings.mixture_sds),
        threshold: 1.0 / level,
        level,
        test_index,
        sd: case.scale.sd(),
    };
    (case.ruling(settings, &evidence), evidence)
}

/// What a ruling goes by.
struct Case {
    scale: NoiseScale,
    /// The challenger's runs against all of the champion's.
    arms: Stats,
    pairs: Stats,
    /// What the arms will be worth at the pair limit.
    worth_at_limit: f64,
}

impl Case {
    fn ruling(&self, settings: &JudgeSettings, evidence: &Evidence) -> Ruling {
        let num_pairs = self.pairs.k as u64;
        let crossed = evidence.e_value >= evidence.threshold;
        if num_pairs >= settings.min_pairs && crossed && self.own() >= OWN_SHARE * evidence.threshold {
            return Ruling::Keep;
        }
        let z = Normal::standard().inverse_cdf(settings.target_power);
        let least_sds = settings.target_effect_sds - z / self.arms.worth.sqrt();
        let is_hopeless = self.arms.mean() / self.scale.sd() < least_sds;
        let limit = num_pairs >= settings.max_pairs;
        match (is_hopeless, limit) {
            (true, _) if num_pairs == 1 || limit || !self.can_still_cross(settings, evidence, z) => {
                Ruling::Reject(format!("mean below {least_sds:+.2} pair sds after {num_pairs}"))
            }
            (false, true) => Ruling::Undecided(format!("limit of {num_pairs} pairs")),
            (false, false) if !self.can_still_cross(settings, evidence, z) => {
                Ruling::Undecided("the pairs left cannot decide".to_string())
            }
            (true | false, _) => Ruling::Continue,
        }
    }

    /// The evidence that takes no word of the campaign on the noise.
    fn own(&self) -> f64 {
        0.5 * (by_own_runs(&self.scale, &self.arms) + by_scatter(&self.scale, &self.pairs))
    }

    /// Whether the threshold is reached at the pair limit if the pairs to come are as good as the present mean
    /// plus `z` of its standard errors, and scatter as the pairs so far do.
    fn can_still_cross(&self, settings: &JudgeSettings, evidence: &Evidence, z: f64) -> bool {
        let k = settings.max_pairs as f64;
        let later = |stats: &Stats, worth: f64| {
            // The challenger's own variance, the campaign's with a little weight beside it: few pairs may lie close
            // together by chance, and a change that does nothing scatters not at all.
            let own = (stats.k - 1.0) + CAMPAIGN_DOF;
            let variance = (stats.scatter() + CAMPAIGN_DOF * self.scale.sd().powi(2)) / own;
            let hoped = stats.mean() + (1.0 - stats.k / k) * z * (variance / stats.worth).sqrt();
            Stats::of(k, worth, hoped, (k - 1.0) * variance)
        };
        let (arms, pairs) = (later(&self.arms, self.worth_at_limit), later(&self.pairs, k));
        e_value(&self.scale, &arms, &pairs, settings.mixture_sds) >= evidence.threshold
    }
}

/// Names what is wrong with settings that cannot judge.
pub fn check_settings(settings: &JudgeSettings) -> Result<(), String> {
    let rules = [
        (settings.alpha > 0.0 && settings.alpha < 1.0, "alpha lies between 0 and 1"),
        (settings.min_effect_bpb >= 0.0, "the minimum worthwhile effect is not negative"),
        (
            settings.mixture_sds > 0.0 && settings.mixture_sds.is_finite(),
            "the effect that is tuned for is positive",
        ),
        (settings.noise_pairs >= 3, "the noise takes at least three A/A pairs to learn"),
        (settings.champion_runs >= 1, "a new champion is run at least once"),
        (
            settings.fresh_slack_sds.is_none_or(|slack| slack > 0.0 && slack.is_finite()),
            "how far a fresh run may fall short is positive",
        ),
        (settings.min_pairs >= 2, "a keep needs at least two pairs: one has no scatter"),
        (settings.max_pairs >= settings.min_pairs, "the pair limit is at least the pairs a keep needs"),
        (settings.target_effect_sds > 0.0, "the target effect is positive"),
        (settings.target_power > 0.5 && settings.target_power < 1.0, "power lies between one half and one"),
        (
            settings.climb_level > 0.0 && settings.climb_level < 1.0,
            "the level of a climb lies between 0 and 1",
        ),
        (settings.climb_min_pairs >= 2, "a keep holds after two pairs at least: one has no scatter"),
        (
            settings.climb_max_pairs >= settings.climb_min_pairs,
            "the pair limit of a climb is at least the pairs it needs",
        ),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, rule)) => Err((*rule).to_string()),
        None => Ok(()),
    }
}
