//! The judge of one challenger: an anytime-valid test on paired differences, and when to stop.
//!
//! It sees numbers only: the A/A differences of the campaign, the challenger's differences
//! `d_i = champion_bpb - challenger_bpb` (positive is better), and the level it may spend. It decides
//! nothing about the campaign and has no state: the same numbers give the same verdict.
//!
//! # The test
//!
//! *Null*: `E[d_i] <= m`, the minimum worthwhile effect. *Assumptions*: A/A differences are independent
//! N(0, s^2) (zero mean by symmetry: the two draws of initialisation are exchangeable), the `d_i` are
//! independent N(mu, s_d^2) with `s_d <= s`: an A/A pair redraws every initial value, which is as much as
//! an honest change can. `s` is unknown.
//!
//! *Statistic*. With A the sum of squares of n A/A differences, `x_i = d_i - m`, `S = sum x_i`,
//! `Q = sum x_i^2` over k pairs, N = n + k, take the likelihood ratio of the scale-free data under
//! `mu - m = delta s`, delta half-normal with spread tau, against delta = 0, `s` integrated out under its
//! right Haar measure `ds / s` in both. It has a closed form:
//!
//! ```text
//! B = A + Q - w S^2 / k,   w = k tau^2 / (1 + k tau^2)
//! E = (1 + k tau^2)^(-1/2) ((A + Q) / B)^(N/2) * 2 T_N( S sqrt(w N / (k B)) )
//! ```
//!
//! with `T_N` the distribution function of Student's t. This is the mixture of Robbins (1970) in its
//! t-test form (Lai, "On confidence sequences", 1976; Wang and Ramdas, "Anytime-valid t-tests and
//! confidence sequences for Gaussian means with unknown variance", 2024), with the A/A pairs as k = 0
//! data that know the scale but not the mean. Nothing is plugged in: not knowing `s` costs what it must.
//!
//! *Validity*: `P(E ever reaches h) <= 1/h` for every h > 1 under the null. At mu = m and s_d = s, E is a
//! non-negative martingale from 1 in the filtration of the scale-free data (Perez-Ortiz, Lardy, de Heide
//! and Gruenwald, "E-statistics, group invariance and anytime-valid testing", 2024), and Ville's
//! inequality holds. E increases in `T = S / sqrt(A + Q)`. A lower mean shifts every `x_i` down by the
//! same c, and `dT/dc` has the sign of `S^2 - k(A + Q) <= 0`: every path lies below the path at mu = m. A
//! smaller s_d shrinks every `x_i` about zero and with it |T|: a path above 1 has S > 0 and falls. So in
//! both cases the crossings are a subset of those at mu = m, s_d = s. Stopping earlier for any reason
//! (futility, pair limit, budget) only removes crossings; `h E{crossed}` is the e-value that
//! [`crate::levels`] spends.
//!
//! *When the assumption fails*. A challenger noisier than A/A pairs would be flattered by A, and such
//! challengers exist: on a real recipe a change of initial values scattered four times as much as A/A
//! pairs. Three guards, none of which can add a keep, so that validity above is untouched: no keep before
//! `min_pairs`; A is scaled up to the challenger's own variance when that is larger; and the challenger's
//! pairs alone, A set aside (n = 0, the t-test proper, valid for any `s_d`), must at some look give
//! [`OWN_E`], so that a null of any noise is kept with probability at most `1 / OWN_E` even where the first
//! two guards fail. What remains is measured in the tests: two to four times the A/A noise, and heavy tails.

use pawl_record::{Evidence, JudgeSettings};
use statrs::distribution::{ChiSquared, ContinuousCDF, Normal, StudentsT};

/// What the A/A pairs say about the noise of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseScale {
    /// Number of A/A pairs n.
    pub num_pairs: u64,
    /// Sum A of their squared differences, (bits per byte)^2.
    pub sum_squares: f64,
}

/// Differences below this are rounding, not noise: bits per byte. Keeps A positive.
const ROUNDING_BPB: f64 = 1e-6;

impl NoiseScale {
    /// From A/A differences, bits per byte.
    pub fn new(differences: &[f64]) -> NoiseScale {
        let sum_squares = differences.iter().map(|d| d * d).sum::<f64>();
        let num_pairs = differences.len() as u64;
        NoiseScale { num_pairs, sum_squares: sum_squares.max(num_pairs as f64 * ROUNDING_BPB.powi(2)) }
    }

    /// Standard deviation of a pair about zero, bits per byte.
    pub fn sd(&self) -> f64 {
        (self.sum_squares / self.num_pairs as f64).sqrt()
    }

    /// Upper confidence limit of [`Self::sd`], by the chi-square law with as many degrees of freedom as
    /// pairs (the mean is known to be zero).
    pub fn sd_upper(&self, confidence: f64) -> f64 {
        let law = ChiSquared::new(self.num_pairs as f64).expect("a campaign has A/A pairs");
        (self.sum_squares / law.inverse_cdf(1.0 - confidence)).sqrt()
    }

    /// The same pairs scaled up to the scatter of `differences` about their mean, when that is larger.
    fn guarded(&self, differences: &[f64]) -> NoiseScale {
        let k = differences.len() as f64;
        if k < 2.0 {
            return *self;
        }
        let mean = differences.iter().sum::<f64>() / k;
        let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (k - 1.0);
        NoiseScale { sum_squares: self.sum_squares.max(variance * self.num_pairs as f64), ..*self }
    }
}

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

/// Rules on a challenger after the pairs in `differences`, at `level` (see [`crate::levels::level`]).
pub fn rule(
    settings: &JudgeSettings,
    noise: &NoiseScale,
    differences: &[f64],
    level: f64,
    test_index: u64,
) -> (Ruling, Evidence) {
    assert!(!differences.is_empty(), "a ruling needs a pair");
    let k = differences.len() as f64;
    let guarded = noise.guarded(differences);
    let mean = differences.iter().sum::<f64>() / k;
    let evidence = Evidence {
        mean,
        half_width: half_width(&guarded, differences),
        e_value: e_value(&guarded, differences, settings.min_effect_bpb, settings.mixture_sds),
        threshold: 1.0 / level,
        level,
        test_index,
        sd: guarded.sd(),
    };
    (ruling(settings, &guarded, differences, &evidence), evidence)
}

/// One minus the coverage of the intervals that are shown.
const DISPLAY_LEVEL: f64 = 0.05;

/// Mixture spread of the intervals that are shown, in pair sds: wide enough that three A/A pairs already
/// bound the interval after one pair.
const DISPLAY_SDS: f64 = 3.0;

fn ruling(settings: &JudgeSettings, noise: &NoiseScale, differences: &[f64], evidence: &Evidence) -> Ruling {
    let num_pairs = differences.len() as u64;
    let k = num_pairs as f64;
    let crossed = evidence.e_value >= evidence.threshold;
    if num_pairs >= settings.min_pairs && crossed && own_e_value(settings, differences) >= OWN_E {
        return Ruling::Keep;
    }
    // Screening after one pair and futility after more are the same rule: the mean lies where an effect of
    // the target size would put it with probability below 1 - target_power. A choice about power, not
    // validity: it can only lose keeps.
    let z = Normal::standard().inverse_cdf(settings.target_power);
    let gain_sds = (evidence.mean - settings.min_effect_bpb) / noise.sd();
    let least_sds = settings.target_effect_sds - z / k.sqrt();
    if gain_sds < least_sds {
        return Ruling::Reject(format!("mean below {least_sds:+.2} pair sds after {num_pairs}"));
    }
    if num_pairs >= settings.max_pairs {
        return Ruling::Undecided(format!("limit of {num_pairs} pairs"));
    }
    if !can_still_cross(settings, noise, differences, evidence, z) {
        return Ruling::Undecided("the pairs left cannot decide".to_string());
    }
    Ruling::Continue
}

/// What the challenger's own pairs must say without the A/A pairs' word on the noise.
pub const OWN_E: f64 = 20.0;

/// The e-process of the challenger's pairs alone: their own scatter is all that is known of the noise.
fn own_e_value(settings: &JudgeSettings, differences: &[f64]) -> f64 {
    let nothing = NoiseScale { num_pairs: 0, sum_squares: ROUNDING_BPB.powi(2) };
    e_value(&nothing, differences, settings.min_effect_bpb, settings.mixture_sds)
}

/// Whether the threshold is reached at the pair limit if the pairs to come are as good as the present mean
/// plus `z` of its standard errors.
fn can_still_cross(
    settings: &JudgeSettings,
    noise: &NoiseScale,
    differences: &[f64],
    evidence: &Evidence,
    z: f64,
) -> bool {
    let hoped = evidence.mean + z * noise.sd() / (differences.len() as f64).sqrt();
    let mut future = differences.to_vec();
    future.resize(settings.max_pairs as usize, hoped);
    e_value(&noise.guarded(&future), &future, settings.min_effect_bpb, settings.mixture_sds)
        >= evidence.threshold
}

/// The e-process at the end of `differences`; formula in the module's text. 1 without pairs.
pub fn e_value(noise: &NoiseScale, differences: &[f64], min_effect_bpb: f64, mixture_sds: f64) -> f64 {
    let k = differences.len() as f64;
    if k == 0.0 {
        return 1.0;
    }
    let sum = differences.iter().map(|d| d - min_effect_bpb).sum::<f64>();
    let squares = differences.iter().map(|d| (d - min_effect_bpb).powi(2)).sum::<f64>();
    let spread = 1.0 + k * mixture_sds.powi(2);
    let n = noise.num_pairs as f64 + k;
    let total = noise.sum_squares + squares;
    let w = 1.0 - 1.0 / spread;
    let left = total - w * sum * sum / k;
    let t = sum * (w * n / (k * left)).sqrt();
    let law = StudentsT::new(0.0, 1.0, n).expect("n is positive");
    let log_e = -0.5 * spread.ln() + 0.5 * n * (total / left).ln() + (2.0 * law.cdf(t)).ln();
    // A record holds finite numbers only; nobody needs more evidence than this.
    log_e.exp().min(1e12)
}

/// Half-width of the 95 % confidence sequence around the mean: the means m at which the two-sided form of
/// the e-process, `spread^(-1/2) ((R + y) / (R + y / spread))^(N/2)` with `y = k (mean - m)^2`, stays
/// below 20. Covers the true mean after all numbers of pairs at once; `noise` is guarded.
fn half_width(noise: &NoiseScale, differences: &[f64]) -> f64 {
    let k = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / k;
    let rest = noise.sum_squares + differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>();
    let n = noise.num_pairs as f64 + k;
    let spread = 1.0 + k * DISPLAY_SDS.powi(2);
    let c = (spread.sqrt() / DISPLAY_LEVEL).powf(2.0 / n);
    assert!(c < spread, "check_settings admits only settings with bounded intervals");
    ((c - 1.0) * rest / (1.0 - c / spread) / k).sqrt()
}

/// Names what is wrong with settings that cannot judge.
pub fn check_settings(settings: &JudgeSettings) -> Result<(), String> {
    let rules = [
        (settings.alpha > 0.0 && settings.alpha < 1.0, "alpha lies between 0 and 1"),
        (settings.min_effect_bpb >= 0.0, "the minimum worthwhile effect is not negative"),
        (settings.mixture_sds > 0.0 && settings.mixture_sds.is_finite(), "the mixture has a positive spread"),
        (settings.noise_pairs >= 3, "the noise takes at least three A/A pairs to learn"),
        (settings.min_pairs >= 2, "a keep needs at least two pairs: one has no scatter"),
        (settings.max_pairs >= settings.min_pairs, "the pair limit is at least the pairs a keep needs"),
        (settings.target_effect_sds > 0.0, "the target effect is positive"),
        (settings.target_power > 0.5 && settings.target_power < 1.0, "power lies between one half and one"),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, rule)) => Err((*rule).to_string()),
        None => Ok(()),
    }
}

/// Half-width of the 95 % t interval of a mean, for a fixed number of differences (the final measurement,
/// where nobody peeks).
pub fn t_half_width(differences: &[f64]) -> f64 {
    let k = differences.len() as f64;
    assert!(k >= 2.0, "an interval needs two differences");
    let mean = differences.iter().sum::<f64>() / k;
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (k - 1.0);
    let law = StudentsT::new(0.0, 1.0, k - 1.0).expect("k is at least 2");
    law.inverse_cdf(0.975) * (variance / k).sqrt()
}
