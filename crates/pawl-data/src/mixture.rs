//! Which domain supplies each row: a fixed pattern of [`PERIOD`] rows that gives every domain its
//! share of every stretch of rows as evenly as whole rows allow.
//!
//! Weights are rounded to 1/1024, and a positive one to at least that.

use crate::DataError;
use std::collections::BTreeMap;

const PERIOD: usize = 1024;

/// The pattern. Domains are numbered in the order of their names.
#[derive(Clone, Debug)]
pub(crate) struct Mixture {
    /// (domain, how many rows of that domain came before in this period) for each slot.
    slots: Vec<(u32, u32)>,
    /// Rows of each domain in a period.
    quotas: Vec<u32>,
}

impl Mixture {
    /// `weights` of the domains in order; at least one is positive.
    pub(crate) fn new(weights: &[f64]) -> Self {
        let quotas = quotas(weights);
        let mut credits = vec![0_i64; quotas.len()];
        let mut used = vec![0; quotas.len()];
        let mut slots = Vec::with_capacity(PERIOD);
        for _ in 0..PERIOD {
            credits.iter_mut().zip(&quotas).for_each(|(credit, &quota)| *credit += i64::from(quota));
            // Of equal credits the first domain: max_by_key would give the last.
            let (domain, _) =
                credits.iter().enumerate().rev().max_by_key(|(_, credit)| **credit).expect("a domain");
            credits[domain] -= PERIOD as i64;
            slots.push((domain as u32, used[domain]));
            used[domain] += 1;
        }
        assert_eq!(used, quotas, "every domain gets its quota");
        Self { slots, quotas }
    }

    /// The domain of a row, and its number among the rows of that domain.
    pub(crate) fn row(&self, row: u64) -> (usize, u64) {
        let (domain, before) = self.slots[(row % PERIOD as u64) as usize];
        let earlier = row / PERIOD as u64 * u64::from(self.quotas[domain as usize]);
        (domain as usize, earlier + u64::from(before))
    }
}

/// Rows of each domain in a period: rounded down, the rest to the largest fractions.
fn quotas(weights: &[f64]) -> Vec<u32> {
    let total: f64 = weights.iter().sum();
    assert!(total > 0.0 && total.is_finite(), "weights {weights:?}");
    let exact: Vec<f64> = weights.iter().map(|weight| weight / total * PERIOD as f64).collect();
    let mut quotas: Vec<u32> =
        exact.iter().map(|&share| if share > 0.0 { (share as u32).max(1) } else { 0 }).collect();
    let fraction = |idx: usize, quotas: &[u32]| exact[idx] - f64::from(quotas[idx]);
    while quotas.iter().sum::<u32>() != PERIOD as u32 {
        let by_fraction = |&a: &usize, &b: &usize| fraction(a, &quotas).total_cmp(&fraction(b, &quotas));
        let idxs = (0..quotas.len()).filter(|&idx| exact[idx] > 0.0);
        if quotas.iter().sum::<u32>() < PERIOD as u32 {
            let idx = idxs.rev().max_by(by_fraction).expect("a positive weight");
            quotas[idx] += 1;
        } else {
            let idx = idxs.filter(|&idx| quotas[idx] > 1).min_by(by_fraction).expect("a quota above one");
            quotas[idx] -= 1;
        }
    }
    quotas
}

/// The weight of each of `domains`, (name, size); an empty mixture weighs by size.
pub(crate) fn weights(
    mixture: &BTreeMap<String, f64>,
    domains: &[(&str, u64)],
) -> Result<Vec<f64>, DataError> {
    for (name, &weight) in mixture {
        if !domains.iter().any(|(domain, _)| domain == name) {
            let known: Vec<&str> = domains.iter().map(|(domain, _)| *domain).collect();
            return Err(DataError::UnknownDomain { name: name.clone(), known: known.join(", ") });
        }
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(DataError::BadWeight { name: name.clone(), weight });
        }
    }
    let weight = |&(name, size): &(&str, u64)| {
        if mixture.is_empty() { size as f64 } else { mixture.get(name).copied().unwrap_or(0.0) }
    };
    let weights: Vec<f64> = domains.iter().map(weight).collect();
    if weights.iter().sum::<f64>() > 0.0 {
        return Ok(weights);
    }
    Err(DataError::BadWeight { name: "every domain".to_owned(), weight: 0.0 })
}
