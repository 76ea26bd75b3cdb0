//! pass@k: the chance that one of k completions solves a problem, and how sure that is.

use pawl_record::PassRate;

/// The unbiased estimate (Chen et al. 2021, arXiv 2107.03374) of pass@k from `n` completions, `c` of them right.
pub fn pass_at(n: u64, c: u64, k: u64) -> f64 {
    assert!(k >= 1 && k <= n && c <= n, "pass@{k} of {c} in {n}");
    // 1 - C(n - c, k) / C(n, k), as a product.
    let miss: f64 = (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    if n - c < k { 1.0 } else { 1.0 - miss }
}

/// Mean over problems, each with `n` completions of which some were right, with a 95 % interval over problems:
/// problems are the sample, the completions of one are not independent. The interval is that of Wilson for as many
/// trials as the problems are worth, so that it stays within 0 and 1 and has a width where all agree.
pub fn pass_rate(right: &[u64], n: u64, k: u64) -> PassRate {
    let rates: Vec<f64> = right.iter().map(|c| pass_at(n, *c, k)).collect();
    let m = rates.len() as f64;
    if rates.is_empty() {
        return PassRate { k, rate: 0.0, low: 0.0, high: 1.0 };
    }
    let rate = rates.iter().sum::<f64>() / m;
    let variance = rates.iter().map(|r| (r - rate).powi(2)).sum::<f64>() / (m - 1.0).max(1.0);
    // Trials of a coin whose mean would be as sure as that of these problems.
    let trials = if variance > 0.0 { (rate * (1.0 - rate) / (variance / m)).max(1.0) } else { m };
    let z = 1.959_963_985;
    let center = (rate + z * z / (2.0 * trials)) / (1.0 + z * z / trials);
    let half = z / (1.0 + z * z / trials)
        * (rate * (1.0 - rate) / trials + z * z / (4.0 * trials * trials)).max(0.0).sqrt();
    PassRate { k, rate, low: (center - half).max(0.0), high: (center + half).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_is_the_share_of_choices_that_hold_a_right_one() {
        // All choices of 2 of 4, one right: 3 of 6 hold it.
        assert!((pass_at(4, 1, 2) - 0.5).abs() < 1e-12);
        assert!((pass_at(4, 2, 2) - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!((pass_at(4, 0, 4), pass_at(4, 1, 4), pass_at(4, 3, 2)), (0.0, 1.0, 1.0));
        assert!((pass_at(16, 4, 1) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn the_interval_covers_as_often_as_it_says() {
        // Problems solved with chances of 0.2 and 0.8 alike often, 4 completions: mean 0.5.
        let mut state = 7u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut covered = 0;
        for _ in 0..2000 {
            let right: Vec<u64> = (0..100)
                .map(|_| {
                    let p = if uniform() < 0.5 { 0.2 } else { 0.8 };
                    (0..4).filter(|_| uniform() < p).count() as u64
                })
                .collect();
            let pass = pass_rate(&right, 4, 1);
            covered += usize::from((pass.low..=pass.high).contains(&0.5));
        }
        assert!((1860..1940).contains(&covered), "{covered} of 2000");
        let none = pass_rate(&[0; 50], 4, 1);
        assert!(none.low == 0.0 && none.high > 0.02 && none.high < 0.12, "{none:?}");
    }
}
