//! The generator of CPython's `random`, as far as published item selections depend on it: MT19937 seeded with a
//! whole number (Matsumoto and Nishimura 1998), `shuffle` and `sample`.

const N: usize = 624;
const M: usize = 397;

/// `random.Random(seed)`.
pub(crate) struct PythonRandom {
    state: [u32; N],
    next: usize,
}

impl PythonRandom {
    pub(crate) fn new(seed: u32) -> PythonRandom {
        // init_by_array([seed]): first the plain seeding with a constant, then the key stirred in.
        let mut state = [0_u32; N];
        state[0] = 19_650_218;
        for i in 1..N {
            let before = state[i - 1];
            state[i] = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        let mut i = 1;
        let mut advance = |state: &mut [u32; N], factor: u32, change: &dyn Fn(u32, usize) -> u32| {
            let before = state[i - 1];
            state[i] = change(state[i] ^ (before ^ (before >> 30)).wrapping_mul(factor), i);
            i += 1;
            if i >= N {
                state[0] = state[N - 1];
                i = 1;
            }
        };
        for _ in 0..N {
            advance(&mut state, 1_664_525, &|x, _| x.wrapping_add(seed));
        }
        for _ in 0..N - 1 {
            advance(&mut state, 1_566_083_941, &|x, i| x.wrapping_sub(i as u32));
        }
        state[0] = 0x8000_0000;
        PythonRandom { state, next: N }
    }

    fn word(&mut self) -> u32 {
        if self.next == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Uniform below `n`, which is above 0 and below 2^32.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let drawn = (self.word() >> (32 - bits)) as usize;
            if drawn < n {
                return drawn;
            }
        }
    }

    /// `random.shuffle`.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// Places of `random.sample(population, k)` in a population of `n`; `k` is at most `n`.
    pub(crate) fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut set_size = 21;
        if k > 5 {
            set_size += 4_usize.pow((k as f64 * 3.0).log(4.0).ceil() as u32);
        }
        if n <= set_size {
            let mut pool: Vec<usize> = (0..n).collect();
            let draw = |i| {
                let drawn = self.below(n - i);
                let place = pool[drawn];
                pool[drawn] = pool[n - i - 1];
                place
            };
            return (0..k).map(draw).collect();
        }
        let mut taken: Vec<usize> = Vec::with_capacity(k);
        while taken.len() < k {
            let j = self.below(n);
            if !taken.contains(&j) {
                taken.push(j);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of CPython 3.11.
    #[test]
    fn draws_are_those_of_cpython() {
        let mut random = PythonRandom::new(5);
        assert_eq!(
            [random.word(), random.word(), random.word()],
            [2_675_342_405, 1_097_127_993, 3_185_950_873]
        );
        let mut list: Vec<usize> = (0..20).collect();
        PythonRandom::new(1337).shuffle(&mut list);
        assert_eq!(list, [13, 1, 2, 9, 7, 8, 0, 18, 3, 14, 4, 16, 12, 15, 6, 10, 5, 11, 17, 19]);
        assert_eq!(PythonRandom::new(1234).sample(1000, 10), [989, 796, 451, 119, 7, 92, 932, 965, 961, 826]);
        assert_eq!(PythonRandom::new(1240).sample(31, 10), [20, 14, 11, 18, 16, 26, 1, 12, 13, 8]);
        assert_eq!(PythonRandom::new(1235).sample(229, 3), [176, 108, 137]);
    }
}
