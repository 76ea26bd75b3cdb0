//! The exact interval of a proportion.

use statrs::distribution::{Beta, ContinuousCDF};

/// Clopper and Pearson's 95 % interval of a probability of which `hits` in `n` independent trials were seen
/// ("The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 1934).
pub(crate) fn interval(hits: u64, n: u64) -> (f64, f64) {
    assert!(hits <= n && n > 0, "{hits} of {n}");
    let quantile = |a: u64, b: u64, p: f64| {
        Beta::new(a as f64, b as f64).expect("both shapes are positive").inverse_cdf(p)
    };
    let low = if hits == 0 { 0.0 } else { quantile(hits, n - hits + 1, 0.025) };
    let high = if hits == n { 1.0 } else { quantile(hits + 1, n - hits, 0.975) };
    (low, high)
}
