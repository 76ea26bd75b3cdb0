//! What paired scores say: the scale of the noise, and an e-process against "no better than the minimum
//! worthwhile effect". Numbers in, numbers out; [`crate::judge`] decides on them.
//!
//! # Data and assumptions
//!
//! The champion has scores `x_1 .. x_M`, the challenger `y_1 .. y_k` on the seeds of the first k of them, and of
//! each further run of the champion more is known of it: [`Known`]. A *pair* is `d_i = x_i - y_i`, champion minus
//! challenger so that positive is better. *Null*: the mean of x less that of y is at most m, the minimum worthwhile
//! effect. *Assumed* under the null: scores are normal, with a variance of s^2 / 2 a run, unknown; a challenger's is
//! no larger, because an A/A pair redraws every initial value, which is as much as an honest change can; and runs
//! that share a seed are not negatively correlated. Runs of a seed also share the order of the data. What that adds
//! to both of the champion's, it adds to the challenger's, or the challenger is so much quieter: either makes up for
//! it, up to as many pairs as there are A/A runs.
//!
//! # Three e-processes
//!
//! **By the scale of the campaign**, [`by_scale`] of [`Stats::of_arms`]. Every challenger of a champion meets the
//! same champion, so its mean is known from more runs than the challenger has: `z = mean(x) - mean(y) - m` has
//! variance `s^2 / W` if all runs are unrelated, `W = 2 k M / (M + k)`, where the mean of k pairs has `s^2 / k` if arms of a pair are
//! unrelated. Three runs against eleven are worth 4.7 pairs. Correlation of the arms only takes from the variance
//! of z (it is `s^2 / W - rho s^2 / M`). The scale is known from a sum of squares A with n degrees of freedom: A/A
//! differences (mean zero, by symmetry), the scatter of their sums, and of the runs of a later champion (unknown
//! mean, one degree less each). With `S = W z`, `Q = 2 sum (y_i - mean(y))^2 + W z^2` and N = n + k, take the
//! likelihood ratio of the data that neither unit nor origin of the scores changes, under `mean = m + delta s`,
//! delta normal about the tuned effect and cut off at zero, against delta = 0, `s` integrated out under its right
//! Haar measure `ds / s` in both. Given s it is
//!
//! ```text
//! e(y) = exp(b^2 / 2a - c^2 / 2t^2) Phi(b / sqrt a) / (t sqrt a Phi(c / t)),
//! a = W + 1 / t^2,  b = y + c / t^2,  y = S / s
//! ```
//!
//! and `E = E[e(S chi / sqrt(A + Q))]` over chi, the root of a chi-square with N degrees of freedom: an
//! integral of one dimension. This is the mixture of Robbins (1970) in its t-test form (Lai, "On confidence
//! sequences", 1976; Wang and Ramdas, "Anytime-valid t-tests and confidence sequences for Gaussian means with
//! unknown variance", 2024), with the campaign's noise as data that know the scale but not the mean, and a
//! mixture that spends nothing on effects too small to be decided. Not knowing `s` costs what it must.
//!
//! **By the pairs alone**, [`by_scatter`] of [`Stats::of_pairs`]. n = 0 and W = k: the scatter of the pairs is all
//! that is known, so that it is valid whatever that scatter is. Paired changes scatter from 0.03 to 0.9 of A/A pairs
//! (LOG.md), and the scale of the campaign would ask of a quiet change that it be as large as the noise it does not
//! have. The mixture is half-normal; it has a closed form, with T_k the distribution function of Student's t:
//!
//! ```text
//! B = Q - w S^2 / W,   w = W tau^2 / (1 + W tau^2)
//! E = (1 + W tau^2)^(-1/2) (Q / B)^(k/2) * 2 T_k( S sqrt(w k / (W B)) )
//! ```
//!
//! To Q a floor is added, a tenth of an A/A variance, which lowers E and so keeps it valid.
//!
//! **By the challenger's own runs**, [`by_own_runs`], the same of [`Stats::of_arms`] with a floor of a whole A/A
//! variance: valid for a challenger noisier than the
//! champion, whatever its noise, since it takes the champion's mean to be as uncertain as if the champion were as
//! noisy. No e-value for a keep on its own: [`crate::judge`] guards with it.
//!
//! **Together**, [`e_value`]: the convex combination of the first two, an e-process for what both are.
//!
//! # Validity
//!
//! At mu = m, unrelated arms and equal variances all are non-negative martingales from 1 in the filtration of the
//! data that neither unit nor origin changes (Perez-Ortiz, Lardy, de Heide and Gruenwald, "E-statistics, group
//! invariance and anytime-valid testing", 2024), in whatever order runs of either arm come, so
//! `P(E ever reaches h) <= 1/h` (Ville), whatever stops the duel. Each increases in `T = S / sqrt(A + Q)`: a
//! noncentral t has monotone likelihood ratios. A lower mean lowers z, and T with it: every path lies below the path
//! at mu = m. Known s: with correlation rho, S has the covariance `W_k (1 - rho W_l / M)` for k < l where it
//! had `W_k`; it is Gaussian and Markov, pulls back to zero and has smaller increments, so the convex, increasing e
//! is a supermartingale where S > 0, and where S < 0 all are below 1. Unknown s is simulated, for correlations from 0
//! to 1 (`optional_stopping_does_not_inflate_the_error`). `h E{crossed}` is the e-value that [`crate::levels`]
//! spends; that all challengers of a champion share its luck is what e-LOND allows.
//!
//! How many runs of a champion are known is set before a duel (A/A runs, fresh runs of a promotion) and grows with
//! its pairs, never with what other challengers scored. Stopping early for any reason only removes crossings.

use statrs::distribution::{ChiSquared, ContinuousCDF, StudentsT};
use statrs::function::erf::erfc;
use statrs::function::gamma::ln_gamma;

/// Both arms on one seed, bits per byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// The champion's, or the first of an A/A pair.
    pub champion: f64,
    /// The challenger's, or the second.
    pub challenger: f64,
}

impl Scores {
    /// How much better the challenger is.
    pub fn difference(&self) -> f64 {
        self.champion - self.challenger
    }
}

/// Differences of pairs, in order.
pub fn differences(pairs: &[Scores]) -> Vec<f64> {
    pairs.iter().map(Scores::difference).collect()
}

/// What is known of the variance of an A/A difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseScale {
    /// Degrees of freedom n.
    pub dof: f64,
    /// Sum of squares A, (bits per byte)^2.
    pub sum_squares: f64,
}

/// Differences below this are rounding, not noise: bits per byte. Keeps A positive.
const ROUNDING_BPB: f64 = 1e-6;

impl NoiseScale {
    /// From A/A pairs: their differences, and the scatter of their sums.
    pub fn new(pairs: &[Scores]) -> NoiseScale {
        NoiseScale::of_differences(&differences(pairs)).with_sums(pairs)
    }

    /// From differences alone.
    pub fn of_differences(differences: &[f64]) -> NoiseScale {
        let dof = differences.len() as f64;
        let sum_squares = differences.iter().map(|d| d * d).sum::<f64>();
        NoiseScale { dof, sum_squares: sum_squares.max(dof * ROUNDING_BPB.powi(2)) }
    }

    /// With the scatter of the sums of `pairs` beside what was known.
    pub fn with_sums(&self, pairs: &[Scores]) -> NoiseScale {
        let sums: Vec<f64> = pairs.iter().map(|pair| pair.champion + pair.challenger).collect();
        self.with_scatter(&sums, 1.0)
    }

    /// With the scatter of unrelated runs beside what was known.
    pub fn with_runs(&self, runs: &[f64]) -> NoiseScale {
        self.with_scatter(runs, 2.0)
    }

    /// With values of an unknown mean, of which `weight` times the variance is that of an A/A difference.
    fn with_scatter(&self, values: &[f64], weight: f64) -> NoiseScale {
        let dof = self.dof + (values.len() as f64 - 1.0).max(0.0);
        NoiseScale { dof, sum_squares: self.sum_squares + weight * scatter(values) }
    }

    /// Standard deviation of an A/A difference, bits per byte.
    pub fn sd(&self) -> f64 {
        (self.sum_squares / self.dof).sqrt()
    }

    /// Upper confidence limit of [`Self::sd`], by the chi-square law.
    pub fn sd_upper(&self, confidence: f64) -> f64 {
        let law = ChiSquared::new(self.dof).expect("a campaign has A/A pairs");
        (self.sum_squares / law.inverse_cdf(1.0 - confidence)).sqrt()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sum of squares about the mean.
fn scatter(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    values.iter().map(|x| (x - mean).powi(2)).sum()
}

/// What is known of the noise and of the champion before a duel.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Of an A/A difference.
    pub scale: NoiseScale,
    /// Runs of the champion on the seeds of pairs, in their order, from the first on: those that are known already.
    pub fresh: Vec<f64>,
    /// Runs of the champion that will be of no pair.
    pub spare: Vec<f64>,
}

impl Known {
    /// Of the starting recipe: the first run of an A/A pair has the seed of a pair, the second is drawn anew.
    pub fn of_start(pairs: &[Scores]) -> Known {
        Known {
            scale: NoiseScale::new(pairs),
            fresh: pairs.iter().map(|pair| pair.champion).collect(),
            spare: pairs.iter().map(|pair| pair.challenger).collect(),
        }
    }

    /// Of a later champion, run on the seeds of its first pairs before any challenger.
    pub fn of_champion(start: &NoiseScale, fresh: &[f64]) -> Known {
        Known { scale: start.with_runs(fresh), fresh: fresh.to_vec(), spare: Vec::new() }
    }

    /// Of the noise only.
    pub fn of_noise(scale: NoiseScale) -> Known {
        Known { scale, fresh: Vec::new(), spare: Vec::new() }
    }

    /// Before a duel that begins at a later seed, because earlier ones had a say in what is tried: without the
    /// champion's runs that they may have been chosen by.
    pub fn starting_at(self, first_pair: u64) -> Known {
        match first_pair {
            0 => self,
            _ => Known {
                fresh: self.fresh.into_iter().skip(first_pair as usize).collect(),
                spare: Vec::new(),
                ..self
            },
        }
    }

    /// What the mean of `k` runs against the champion's is worth in pairs, the champion run on every seed of a pair.
    pub fn worth(&self, k: usize) -> f64 {
        let (m, k) = ((self.fresh.len().max(k) + self.spare.len()) as f64, k as f64);
        2.0 * k * m / (m + k)
    }

    /// The champion's mean score over all its runs.
    pub fn mean(&self, pairs: &[Scores]) -> f64 {
        mean(&self.champion(pairs))
    }

    /// All runs of the champion: those of the pairs, and what is known beside.
    fn champion(&self, pairs: &[Scores]) -> Vec<f64> {
        let ahead = self.fresh.iter().skip(pairs.len());
        pairs
            .iter()
            .map(|pair| pair.champion)
            .chain(ahead.copied())
            .chain(self.spare.iter().copied())
            .collect()
    }
}

/// What the e-processes read of gains less the minimum effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stats {
    /// Challenger's runs k.
    pub k: f64,
    /// What they are worth, W: the variance of the mean is that of an A/A difference over this.
    pub worth: f64,
    /// W times the mean gain above the minimum effect, S.
    pub sum: f64,
    /// Sum of squares Q, k degrees of freedom, variance of an A/A difference each.
    pub squares: f64,
}

impl Stats {
    /// Of pairs alone.
    pub fn of_pairs(differences: &[f64], min_effect: f64) -> Stats {
        let k = differences.len() as f64;
        Stats::of(k, k, mean(differences) - min_effect, scatter(differences))
    }

    /// Of the challenger's runs against all that is known of the champion.
    pub fn of_arms(known: &Known, pairs: &[Scores], min_effect: f64) -> Stats {
        let challenger: Vec<f64> = pairs.iter().map(|pair| pair.challenger).collect();
        let gain = known.mean(pairs) - mean(&challenger) - min_effect;
        let worth = known.worth(pairs.len());
        Stats::of(pairs.len() as f64, worth, gain, 2.0 * scatter(&challenger))
    }

    /// Of `k` runs worth `worth` pairs with this mean, and this sum of squares about it.
    pub fn of(k: f64, worth: f64, mean: f64, scatter: f64) -> Stats {
        Stats { k, worth, sum: worth * mean, squares: scatter + worth * mean * mean }
    }

    /// Mean gain above the minimum effect.
    pub fn mean(&self) -> f64 {
        self.sum / self.worth
    }

    /// Sum of squares about the mean.
    pub fn scatter(&self) -> f64 {
        if self.k < 2.0 { 0.0 } else { (self.squares - self.sum * self.sum / self.worth).max(0.0) }
    }
}

/// Share of the combination that goes by the pairs alone: costs a noisy change 0.4 of a nat, where an eighth more
/// of the changes a third as noisy as an A/A pair and half an A/A sd better are kept than at a fifth.
const SCATTER_SHARE: f64 = 0.35;

/// Spread of the mixture about the tuned effect, as a share of it: narrow enough to decide the tuned effect in
/// six pairs, wide enough that an effect of any size above it is decided sooner.
const TUNED_SPREAD: f64 = 0.3;

/// Spread, in the challenger's own pair sds, of the effects that the e-process of the pairs alone expects.
const SCATTER_SPREAD: f64 = 3.0;

/// Added to the sum of squares of the pairs alone, in A/A variances: a few skewed differences may lie close
/// together by chance, and nothing smaller than a tenth of the noise is worth deciding by that. It can only
/// lower the e-value.
const SCATTER_FLOOR: f64 = 0.1;

/// A record holds finite numbers only; nobody needs more evidence than this.
const MOST: f64 = 1e12;

/// The e-process: both ways of knowing the noise. `tuned_sds` is the effect it is tuned for.
pub fn e_value(scale: &NoiseScale, arms: &Stats, pairs: &Stats, tuned_sds: f64) -> f64 {
    (1.0 - SCATTER_SHARE) * by_scale(scale, arms, tuned_sds) + SCATTER_SHARE * by_scatter(scale, pairs)
}

/// The e-process that knows the noise from the campaign; formula in the module's text. 1 without pairs.
pub fn by_scale(scale: &NoiseScale, stats: &Stats, tuned_sds: f64) -> f64 {
    by_mixture(scale, stats, tuned_sds, TUNED_SPREAD * tuned_sds)
}

/// The same for a normal about `c` with standard deviation `t`, cut off at zero.
pub fn by_mixture(scale: &NoiseScale, stats: &Stats, c: f64, t: f64) -> f64 {
    if stats.k == 0.0 {
        return 1.0;
    }
    let n = scale.dof + stats.k;
    let total = scale.sum_squares + stats.squares;
    let slope = stats.sum / total.sqrt();
    let a = stats.worth + 1.0 / (t * t);
    // The integrand in ln chi is near normal about the maximum of its two largest terms, with a width of at
    // most 1 / sqrt(2 n): the midpoint rule over eight widths either way is exact to rounding.
    let tilt = (slope.max(0.0).powi(2) / a).min(1.0 - 1e-12);
    let center = 0.5 * (n / (1.0 - tilt)).ln();
    let step = 12.0 / (2.0 * n).sqrt() / NODES as f64;
    let mut terms = [0.0; NODES];
    for (i, term) in terms.iter_mut().enumerate() {
        let log_chi = center + step * (i as f64 + 0.5 - 0.5 * NODES as f64);
        let chi = log_chi.exp();
        let b = chi * slope + c / (t * t);
        *term = n * log_chi - 0.5 * chi * chi + 0.5 * b * b / a + log_phi(b / a.sqrt());
    }
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = terms.iter().map(|term| (term - largest).exp()).sum::<f64>();
    let log_norm = (0.5 * n - 1.0) * 2f64.ln() + ln_gamma(0.5 * n);
    let log_prior = 0.5 * (c / t).powi(2) + t.ln() + 0.5 * a.ln() + log_phi(c / t);
    (largest + sum.ln() + step.ln() - log_norm - log_prior).exp().min(MOST)
}

/// Points of the integral over chi.
const NODES: usize = 24;

/// Logarithm of the standard normal distribution function; from -37 on it is below every float that matters.
fn log_phi(x: f64) -> f64 {
    if x > 9.0 { 0.0 } else { (0.5 * erfc(-x / std::f64::consts::SQRT_2)).max(1e-300).ln() }
}

/// The e-process of the pairs alone; formula in the module's text. 1 without pairs.
pub fn by_scatter(scale: &NoiseScale, pairs: &Stats) -> f64 {
    by_own_noise(pairs, SCATTER_FLOOR * scale.sd().powi(2))
}

/// That of the challenger's own runs.
pub fn by_own_runs(scale: &NoiseScale, arms: &Stats) -> f64 {
    by_own_noise(arms, scale.sd().powi(2))
}

/// The e-process that knows no noise but that of `stats`, with `floor` beside their sum of squares.
fn by_own_noise(stats: &Stats, floor: f64) -> f64 {
    if stats.k == 0.0 {
        return 1.0;
    }
    let spread = 1.0 + stats.worth * SCATTER_SPREAD.powi(2);
    let total = stats.squares + ROUNDING_BPB.powi(2) + floor;
    let w = 1.0 - 1.0 / spread;
    let left = total - w * stats.sum * stats.sum / stats.worth;
    let t = stats.sum * (w / left * stats.k / stats.worth).sqrt();
    let law = StudentsT::new(0.0, 1.0, stats.k).expect("there is a pair");
    let log_e = -0.5 * spread.ln() + 0.5 * stats.k * (total / left).ln() + (2.0 * law.cdf(t)).ln();
    log_e.exp().min(MOST)
}

/// One minus the coverage of the intervals that are shown.
const DISPLAY_LEVEL: f64 = 0.05;

/// Mixture spread of the intervals that are shown, in pair sds: wide enough that three A/A pairs already
/// bound the interval after one pair.
const DISPLAY_SDS: f64 = 3.0;

/// Half-width of the 95 % confidence sequence around the mean of pairs: the means m at which the two-sided form of
/// the e-process, `spread^(-1/2) ((R + y) / (R + y / spread))^(N/2)` with `y = k (mean - m)^2`, stays
/// below 20. Covers the true mean after all numbers of pairs at once.
pub fn half_width(scale: &NoiseScale, stats: &Stats) -> f64 {
    let rest = scale.sum_squares + stats.scatter();
    let n = scale.dof + stats.k;
    let spread = 1.0 + stats.k * DISPLAY_SDS.powi(2);
    let c = (spread.sqrt() / DISPLAY_LEVEL).powf(2.0 / n);
    assert!(c < spread, "check_settings admits only settings with bounded intervals");
    ((c - 1.0) * rest / (1.0 - c / spread) / stats.k).sqrt()
}

/// Half-width of the 95 % t interval of a mean, for a fixed number of differences (the final measurement,
/// where nobody peeks).
pub fn t_half_width(differences: &[f64]) -> f64 {
    let stats = Stats::of_pairs(differences, 0.0);
    assert!(stats.k >= 2.0, "an interval needs two differences");
    let law = StudentsT::new(0.0, 1.0, stats.k - 1.0).expect("k is at least 2");
    law.inverse_cdf(0.975) * (stats.scatter() / (stats.k - 1.0) / stats.k).sqrt()
}
