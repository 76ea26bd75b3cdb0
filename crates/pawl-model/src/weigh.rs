//! The softmax of a row of logits, summed part by part: enough to draw from it and to know the probability of what
//! was drawn, at the cost of one exponential a logit, several at a time.
//!
//! It refuses to decide which logits take part.

use pawl_engine::Isa;
use pawl_engine::kernels::rows::{SUMMED, exp_from, exp_sums, largest};

/// Logits (V) with their sums. It depends on the logits alone, to the bit.
pub(crate) struct Weighed<'a> {
    logits: &'a [f32],
    isa: Isa,
    /// The largest logit.
    peak: f32,
    /// Multiplies distances from the peak: one over the temperature.
    scale: f32,
    /// Of the weights of [`SUMMED`] logits each, which are 1 at the peak.
    sums: Vec<f32>,
    total: f64,
}

impl<'a> Weighed<'a> {
    /// By the softmax over a temperature above zero.
    pub(crate) fn new(logits: &'a [f32], temperature: f32) -> Weighed<'a> {
        let isa = Isa::detect();
        let (mut peak, scale) = (f32::NEG_INFINITY, 1.0 / temperature);
        largest(isa, &mut peak, logits);
        let mut sums = vec![0.0; logits.len().div_ceil(SUMMED)];
        exp_sums(isa, &mut sums, logits, peak, scale);
        let total = sums.iter().map(|sum| f64::from(*sum)).sum();
        Weighed { logits, isa, peak, scale, sums, total }
    }

    /// The largest logit.
    pub(crate) fn peak(&self) -> f32 {
        self.peak
    }

    /// The sum of all weights, where the peak's is 1.
    pub(crate) fn total(&self) -> f64 {
        self.total
    }

    /// The place of the largest, the first of equals; 0 if none is a number.
    pub(crate) fn likeliest(&self) -> usize {
        self.logits.iter().position(|logit| *logit == self.peak).unwrap_or(0)
    }

    /// The place where a share `at` of the whole, from 0 to 1, lies: a part is found by its sum, then the place in it.
    pub(crate) fn pick(&self, at: f32) -> usize {
        let mut left = f64::from(at) * self.total;
        for (part, (sum, logits)) in self.sums.iter().zip(self.logits.chunks(SUMMED)).enumerate() {
            let sum = f64::from(*sum);
            if left >= sum {
                left -= sum;
                continue;
            }
            let mut weights = [0.0; SUMMED];
            let weights = &mut weights[..logits.len()];
            weights.copy_from_slice(logits);
            exp_from(self.isa, weights, self.peak, self.scale);
            for (i, weight) in weights.iter().enumerate() {
                left -= f64::from(*weight);
                if left < 0.0 {
                    return part * SUMMED + i;
                }
            }
        }
        // Rounding has left a little of the whole: it belongs to the likeliest.
        self.likeliest()
    }

    /// Natural logarithm of the probability of a place.
    pub(crate) fn log_prob(&self, place: usize) -> f32 {
        let away = f64::from(self.logits[place] - self.peak) * f64::from(self.scale);
        (away - self.total.ln()) as f32
    }
}

/// A number for each logit by which they are ranked: larger ones first, of equals the one at the lower place.
pub(crate) fn rank(place: usize, logit: f32) -> u64 {
    let bits = logit.to_bits();
    // Bits of floats in the order of `total_cmp`, the largest as the smallest number.
    let falling = if bits >> 31 == 0 { !bits & 0x7fff_ffff } else { bits };
    u64::from(falling) << 32 | place as u64
}

/// The place that a [`rank`] was made for.
pub(crate) fn place(rank: u64) -> usize {
    (rank & u64::from(u32::MAX)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a log-probability, nats: weights are float32. Worst seen 1.1e-7.
    const TOLERANCE: f64 = 5e-7;

    #[test]
    fn log_probabilities_are_those_of_the_softmax() {
        for (num, temperature) in [(1, 1.0_f32), (63, 1.0), (64, 0.7), (700, 2.0)] {
            let logits: Vec<f32> = (0..num).map(|i| ((i * i * 37 + i) % 101) as f32 * 0.11 - 5.0).collect();
            let exact = |i: usize| f64::from(logits[i]) / f64::from(temperature);
            let total: f64 = (0..num).map(|i| exact(i).exp()).sum();
            let weighed = Weighed::new(&logits, temperature);
            for i in 0..num {
                let off = (f64::from(weighed.log_prob(i)) - (exact(i) - total.ln())).abs();
                assert!(off < TOLERANCE * (1.0 + exact(i).abs()), "{i} of {num}: {off:e}");
            }
        }
    }

    #[test]
    fn a_share_lies_where_the_sum_of_those_before_it_says() {
        let logits: Vec<f32> = (0..200).map(|i| ((i % 7) as f32 + 1.0).ln()).collect();
        let weighed = Weighed::new(&logits, 1.0);
        let whole: f32 = (0..200).map(|i| (i % 7) as f32 + 1.0).sum();
        let mut before = 0.0;
        for i in 0..200 {
            let own = (i % 7) as f32 + 1.0;
            assert_eq!(weighed.pick((before + 0.5 * own) / whole), i);
            before += own;
        }
        assert_eq!(weighed.likeliest(), 6);
    }

    #[test]
    fn ranks_follow_the_order_of_logits_and_then_of_places() {
        let logits = [0.0, -1.0, 3.0, f32::NEG_INFINITY, 3.0, -0.0, 1e-40];
        let mut ranks: Vec<u64> = logits.iter().enumerate().map(|(i, x)| rank(i, *x)).collect();
        ranks.sort_unstable();
        assert_eq!(ranks.into_iter().map(place).collect::<Vec<_>>(), [2, 4, 6, 0, 5, 1, 3]);
    }
}
