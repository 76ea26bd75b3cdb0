//! Inputs of golden numbers made from integers alone, so that no weight file has to be shared: element i of
//! stream p is a hash of (p, i), and every number that a golden file needs is a hash spread over a range.

/// Element `i` of a stream of 32-bit hashes (the finaliser of Wellons' lowbias32).
pub(crate) fn hash(stream: u32, i: u32) -> u32 {
    let mut h = i.wrapping_mul(0x9E37_79B1).wrapping_add(stream.wrapping_add(1).wrapping_mul(0x85EB_CA77));
    h ^= h >> 16;
    h = h.wrapping_mul(0x7FEB_352D);
    h ^= h >> 15;
    h = h.wrapping_mul(0x846C_A68B);
    h ^ (h >> 16)
}

/// The first `len` uniform draws of a stream with that mean and standard deviation, rounded to float32.
pub(crate) fn uniform(stream: u32, len: usize, mean: f64, std: f64) -> Vec<f64> {
    let value = |i: usize| {
        let u = (f64::from(hash(stream, i as u32)) + 0.5) / 2f64.powi(32) - 0.5;
        f64::from((mean + std * 2.0 * 3f64.sqrt() * u) as f32)
    };
    (0..len).map(value).collect()
}

/// The first `len` hashes of a stream modulo `below`.
pub(crate) fn tokens(stream: u32, len: usize, below: usize) -> Vec<i32> {
    (0..len).map(|i| (hash(stream, i as u32) as usize % below) as i32).collect()
}
