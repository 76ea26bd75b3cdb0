//! Numbers, choices and shapes drawn from a seed: the same on every machine.

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number of `0..n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A float32 of `lo..hi`.
    pub(super) fn real(&mut self, lo: f32, hi: f32) -> f32 {
        lo + (hi - lo) * ((self.next() >> 40) as f32 / (1 << 24) as f32)
    }

    /// A whole number of `lo..hi`.
    pub(super) fn int(&mut self, lo: i32, hi: i32) -> i32 {
        lo + self.below((hi - lo) as usize) as i32
    }

    /// Ones, sizes around those of vectors and tiles, and anything up to 70.
    pub(super) fn extent(&mut self) -> usize {
        match self.below(8) {
            0 => 1,
            1 => 2 + self.below(2),
            2..5 => self.pick(&[7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65]),
            _ => 1 + self.below(70),
        }
    }

    /// `rank` extents of at most `max_len` elements in all.
    pub(super) fn shape(&mut self, rank: usize, max_len: usize) -> Vec<usize> {
        let mut shape: Vec<usize> = (0..rank).map(|_| self.extent()).collect();
        while shape.iter().product::<usize>() > max_len {
            let widest = (0..rank).max_by_key(|axis| shape[*axis]).expect("a scalar is not too long");
            shape[widest] = shape[widest].div_ceil(2);
        }
        shape
    }

    /// A divisor of `n` of at most `max`.
    pub(super) fn divisor(&mut self, n: usize, max: usize) -> usize {
        let divisors: Vec<usize> = (1..=n.min(max)).filter(|d| n.is_multiple_of(*d)).collect();
        self.pick(&divisors)
    }
}
