//! Numbers drawn by key: the same words and numbers give the same sequence on every machine.

/// SplitMix64 (Steele et al. 2014), begun from a hash.
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// A sequence of its own for these words and numbers.
    pub fn new(words: &[&str], numbers: &[u64]) -> Draws {
        let mut hasher = blake3::Hasher::new();
        for word in words {
            hasher.update(word.as_bytes()).update(&[0]);
        }
        for number in numbers {
            hasher.update(&number.to_le_bytes());
        }
        Draws(u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes")))
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to n - 1. The bias of the remainder is below n / 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    /// low to high, both included.
    pub fn within(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// One of them.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// Any order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
