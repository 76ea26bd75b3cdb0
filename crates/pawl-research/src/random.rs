//! The campaign's own random numbers: small, seeded, the same on every machine.
//!
//! Not for training (the engine keys its own generator) and not for secrets.

/// SplitMix64 (Steele, Lea and Flood, 2014): a counter and a mixer, so that a stream is one number.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

/// The finaliser of SplitMix64: a bijection that spreads every bit of its input.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Distance between two states of a stream: the golden ratio in 64 bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number that depends on every one of `key`, in order.
pub fn hash(key: &[u64]) -> u64 {
    key.iter().fold(STEP, |state, &word| mix(state.wrapping_add(STEP) ^ mix(word.wrapping_add(STEP))))
}

impl Random {
    /// The stream that belongs to `key`.
    pub fn new(key: &[u64]) -> Random {
        Random { state: hash(key) }
    }

    /// 64 fresh bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// Uniform on [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform on 0, ..., `n - 1`. The bias of the product method is below `n / 2^64`.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "a draw from nothing");
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Standard normal (Box and Muller, 1958; the second value is not kept).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let mut random = Random::new(&[7]);
        let draws: Vec<f64> = (0..20_000).map(|_| random.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.04, "{variance}");
    }

    #[test]
    fn streams_of_neighbouring_keys_do_not_overlap() {
        let first: Vec<u64> = (0..64).map(|i| hash(&[1, i])).collect();
        let second: Vec<u64> = (0..64).map(|i| hash(&[2, i])).collect();
        assert!(first.iter().all(|x| !second.contains(x)));
        assert_ne!(hash(&[1, 2]), hash(&[2, 1]));
    }

    #[test]
    fn below_reaches_both_ends() {
        let mut random = Random::new(&[3]);
        let draws: Vec<usize> = (0..200).map(|_| random.below(5)).collect();
        assert_eq!((draws.iter().min(), draws.iter().max()), (Some(&0), Some(&4)));
    }
}
