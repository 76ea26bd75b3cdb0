//! What the tests of kernels share: numbers, instruction sets, comparisons.

use super::Isa;
use crate::pool::Pool;

/// Every instruction set of this machine, the plain one last.
pub(crate) fn isas() -> Vec<Isa> {
    [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.is_available()).collect()
}

/// `len` numbers in -1 .. 1, a function of `seed`.
pub(crate) fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            ((state >> 40) as f32) / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Whole numbers below what is asked for, a function of `seed`.
pub(crate) fn choices(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % below
    }
}

/// Panics where `got` and `want` differ by more than `tolerance` times 1 + |want|.
#[track_caller]
pub(crate) fn check_close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (got - want).abs();
        assert!(error <= tolerance * (1.0 + want.abs()), "{what}: [{i}] is {got}, not {want}");
    }
}

/// Runs `kernel` with 1, 2 and 3 threads; all must give the same bits, which are returned.
#[track_caller]
pub(crate) fn same_bits(what: &str, kernel: impl Fn(&Pool) -> Vec<f32>) -> Vec<f32> {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let one = kernel(&Pool::new(1));
    for num_threads in [2, 3] {
        let more = kernel(&Pool::new(num_threads));
        assert!(bits(&one) == bits(&more), "{what}: {num_threads} threads change the bits");
    }
    one
}
