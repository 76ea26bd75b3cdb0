//! What paired scores say: the scale of the noise, and an e-process against "no better than the minimum
//! worthwhile effect". Numbers in, numbers out; [`crate::judge`] decides on them.
//!
//! # Data and assumptions
//!
//! A pair is the champion's and the challenger's score on one seed: its difference `d_i`, champion minus
//! challenger so that positive is better, and its sum `u_i`. *Null*: `E[d_i] <= m`, the minimum worthwhile
//! effect. *Assumed* under the null: scores are normal; an A/A difference has variance s^2, unknown; the `d_i`
//! have variance at most s^2, because an A/A pair redraws every initial value, which is as much as an honest
//! change can; sums vary at least as much as differences, because arms that share a seed are not negatively
//! correlated; and differences are independent of sums, because arms that differ in nothing are exchangeable.
//!
//! # Two e-processes
//!
//! **By the scale of the campaign**, [`by_scale`]. The scale is known from a sum of squares A with n degrees
//! of freedom: A/A differences (mean zero, by symmetry) and the scatter of sums, of the A/A pairs and of the
//! challenger's own (unknown mean, one degree less each). With `x_i = d_i - m`, `S = sum x_i`, `Q = sum x_i^2`
//! over k pairs and N = n + k, take the likelihood ratio of the scale-free data under `mu - m = delta s`, delta
//! normal about the tuned effect and cut off at zero, against delta = 0, `s` integrated out under its right
//! Haar measure `ds / s` in both. Given s it is
//!
//! ```text
//! e(y) = exp(b^2 / 2a - c^2 / 2t^2) Phi(b / sqrt a) / (t sqrt a Phi(c / t)),
//! a = k + 1 / t^2,  b = y + c / t^2,  y = S / s
//! ```
//!
//! and `E = E[e(S chi / sqrt(A + Q))]` over chi, the root of a chi-square with N degrees of freedom: an
//! integral of one dimension. This is the mixture of Robbins (1970) in its t-test form (Lai, "On confidence
//! sequences", 1976; Wang and Ramdas, "Anytime-valid t-tests and confidence sequences for Gaussian means with
//! unknown variance", 2024), with the campaign's noise as data that know the scale but not the mean, and a
//! mixture that spends nothing on effects too small to be decided. Not knowing `s` costs what it must.
//!
//! **By the pairs alone**, [`by_scatter`]. n = 0: the challenger's own scatter is all that is known, so that it
//! is valid whatever that scatter is. Paired changes scatter from 0.03 to 0.9 of A/A pairs (LOG.md), and the
//! scale of the campaign would ask of a quiet change that it be as large as the noise it does not have. The
//! mixture is half-normal; it has a closed form, with T_N the distribution function of Student's t:
//!
//! ```text
//! B = Q - w S^2 / k,   w = k tau^2 / (1 + k tau^2)
//! E = (1 + k tau^2)^(-1/2) (Q / B)^(k/2) * 2 T_k( S sqrt(w / B) )
//! ```
//!
//! To Q a floor is added, a tenth of an A/A variance, which lowers E and so keeps it valid.
//!
//! **Together**, [`e_value`]: their convex combination, which is an e-process for what both are e-processes for.
//!
//! # Validity
//!
//! At mu = m and s_d = s both are non-negative martingales from 1 in the filtration of the data that neither
//! unit nor origin of the sums changes (Perez-Ortiz, Lardy, de Heide and Gruenwald, "E-statistics, group
//! invariance and anytime-valid testing", 2024), so `P(E ever reaches h) <= 1/h` (Ville), whatever stops the
//! duel. Each increases in `T = S / sqrt(A + Q)`, A = 0 for the second: a noncentral t has monotone likelihood
//! ratios. A lower mean shifts every `x_i` down by the same c, and `dT/dc` has the sign of
//! `S^2 - k(A + Q) <= 0`: every path lies below the path at mu = m. A smaller s_d, or a larger variance of the
//! sums, shrinks |T| in the first and leaves the second as it is, and where S < 0 both are below 1: paths that
//! matter only fall. `h E{crossed}` is the e-value that [`crate::levels`] spends.
//!
//! Stopping early for any reason only removes crossings.

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
        let dof = pairs.len() as f64;
        let sum_squares = pairs.iter().map(|pair| pair.difference().powi(2)).sum::<f64>();
        NoiseScale { dof, sum_squares: sum_squares.max(dof * ROUNDING_BPB.powi(2)) }.with_sums(pairs)
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
        let scatter = Stats::new(&sums, 0.0).scatter();
        let dof = self.dof + (pairs.len() as f64 - 1.0).max(0.0);
        NoiseScale { dof, sum_squares: self.sum_squares + scatter }
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

/// What the e-processes read of the differences less the minimum effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stats {
    /// Number of pairs k.
    pub k: f64,
    /// Sum S.
    pub sum: f64,
    /// Sum of squares Q.
    pub squares: f64,
}

impl Stats {
    /// Of `differences` less `min_effect`.
    pub fn new(differences: &[f64], min_effect: f64) -> Stats {
        Stats {
            k: differences.len() as f64,
            sum: differences.iter().map(|d| d - min_effect).sum(),
            squares: differences.iter().map(|d| (d - min_effect).powi(2)).sum(),
        }
    }

    /// Mean gain above the minimum effect.
    pub fn mean(&self) -> f64 {
        self.sum / self.k
    }

    /// Sum of squares about the mean.
    pub fn scatter(&self) -> f64 {
        if self.k < 2.0 { 0.0 } else { (self.squares - self.sum * self.sum / self.k).max(0.0) }
    }
}

/// Share of the combination that goes by the pairs alone: a fifth costs a noisy change a quarter of a nat.
const SCATTER_SHARE: f64 = 0.2;

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
pub fn e_value(scale: &NoiseScale, stats: &Stats, tuned_sds: f64) -> f64 {
    (1.0 - SCATTER_SHARE) * by_scale(scale, stats, tuned_sds) + SCATTER_SHARE * by_scatter(scale, stats)
}

/// The e-process that knows the noise from the campaign; formula in the module's text. 1 without pairs.
pub fn by_scale(scale: &NoiseScale, stats: &Stats, tuned_sds: f64) -> f64 {
    if stats.k == 0.0 {
        return 1.0;
    }
    let (c, t) = (tuned_sds, TUNED_SPREAD * tuned_sds);
    let n = scale.dof + stats.k;
    let total = scale.sum_squares + stats.squares;
    let slope = stats.sum / total.sqrt();
    let a = stats.k + 1.0 / (t * t);
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
pub fn by_scatter(scale: &NoiseScale, stats: &Stats) -> f64 {
    if stats.k == 0.0 {
        return 1.0;
    }
    let spread = 1.0 + stats.k * SCATTER_SPREAD.powi(2);
    let total = stats.squares + ROUNDING_BPB.powi(2) + SCATTER_FLOOR * scale.sd().powi(2);
    let w = 1.0 - 1.0 / spread;
    let left = total - w * stats.sum * stats.sum / stats.k;
    let t = stats.sum * (w / left).sqrt();
    let law = StudentsT::new(0.0, 1.0, stats.k).expect("there is a pair");
    let log_e = -0.5 * spread.ln() + 0.5 * stats.k * (total / left).ln() + (2.0 * law.cdf(t)).ln();
    log_e.exp().min(MOST)
}

/// One minus the coverage of the intervals that are shown.
const DISPLAY_LEVEL: f64 = 0.05;

/// Mixture spread of the intervals that are shown, in pair sds: wide enough that three A/A pairs already
/// bound the interval after one pair.
const DISPLAY_SDS: f64 = 3.0;

/// Half-width of the 95 % confidence sequence around the mean: the means m at which the two-sided form of
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
    let stats = Stats::new(differences, 0.0);
    assert!(stats.k >= 2.0, "an interval needs two differences");
    let law = StudentsT::new(0.0, 1.0, stats.k - 1.0).expect("k is at least 2");
    law.inverse_cdf(0.975) * (stats.scatter() / (stats.k - 1.0) / stats.k).sqrt()
}
