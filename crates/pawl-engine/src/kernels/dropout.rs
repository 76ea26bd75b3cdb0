//! Zeros at random: whether an element survives is a function of (key, stream, element), so the gradient
//! is the same kernel and nothing is saved.

use super::Isa;
use super::lanes::per_isa;
use super::rows::TASK_LEN;
use crate::pool::{Pool, SharedMut};

/// Calls of the generator made together, one in each lane of a vector.
const CALLS: usize = 16;
/// Draws of those calls: four each.
const DRAWS: usize = 4 * CALLS;

/// y = (n)   x / (1 - rate) where the draw of the element is at least `rate`, else 0
/// x   (n)   read
pub fn dropout(pool: &Pool, isa: Isa, y: &mut [f32], x: &[f32], key: [i32; 2], rate: f32, stream: u32) {
    assert!(y.len() == x.len(), "dropout of {} elements into {}", x.len(), y.len());
    let len = x.len();
    let y = SharedMut::new(y);
    pool.run(len.div_ceil(TASK_LEN), &|task, _| {
        let start = task * TASK_LEN;
        let n = TASK_LEN.min(len - start);
        // SAFETY: tasks take disjoint parts.
        let y = unsafe { y.part(start, n) };
        drop_some(isa, y, &x[start..start + n], key, rate, stream, start as u64 / 4);
    });
}

per_isa! {
    fn drop_some(y: &mut [f32], x: &[f32], key: [i32; 2], rate: f32, stream: u32, first_call: u64) =
        drop_some_body
}

#[inline(always)]
fn drop_some_body<const FMA: bool>(
    y: &mut [f32],
    x: &[f32],
    key: [i32; 2],
    rate: f32,
    stream: u32,
    first_call: u64,
) {
    let scale = 1.0 / (1.0 - rate);
    let key = key.map(|word| word as u32);
    let calls = (first_call..).step_by(CALLS);
    for (call, (y, x)) in calls.zip(y.chunks_mut(DRAWS).zip(x.chunks(DRAWS))) {
        let words = philox_calls(key, call, stream);
        for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
            let draw = (words[i % 4][i / 4] >> 8) as f32 / 16_777_216.0;
            *y = if draw >= rate { x * scale } else { 0.0 };
        }
    }
}

/// Words 0 to 3 of [`crate::philox::philox`] for CALLS counters from `first` on, side by side.
#[inline(always)]
fn philox_calls(mut key: [u32; 2], first: u64, stream: u32) -> [[u32; CALLS]; 4] {
    let mut words = [[0; CALLS], [0; CALLS], [stream; CALLS], [0; CALLS]];
    for lane in 0..CALLS {
        let call = first + lane as u64;
        words[0][lane] = call as u32;
        words[1][lane] = (call >> 32) as u32;
    }
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9e37_79b9);
            key[1] = key[1].wrapping_add(0xbb67_ae85);
        }
        for lane in 0..CALLS {
            let p0 = u64::from(words[0][lane]) * 0xd251_1f53;
            let p1 = u64::from(words[2][lane]) * 0xcd9e_8d57;
            words[0][lane] = (p1 >> 32) as u32 ^ words[1][lane] ^ key[0];
            words[1][lane] = p1 as u32;
            words[2][lane] = (p0 >> 32) as u32 ^ words[3][lane] ^ key[1];
            words[3][lane] = p0 as u32;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{isas, numbers, same_bits};
    use crate::philox::uniform;

    #[test]
    fn survivors_are_those_of_the_generator() {
        for len in [1, 6, 40_003] {
            let x = numbers(len, 1);
            let want: Vec<f32> = (0..len)
                .map(|i| if uniform([7, u32::MAX], 3, i as u64) >= 0.25 { x[i] * (1.0 / 0.75) } else { 0.0 })
                .collect();
            for isa in isas() {
                let got = same_bits("dropout", |pool| {
                    let mut y = vec![9.0; len];
                    dropout(pool, isa, &mut y, &x, [7, -1], 0.25, 3);
                    y
                });
                assert_eq!(got, want, "{isa:?} {len}");
            }
        }
    }

    #[test]
    fn the_share_of_zeros_is_the_rate() {
        let mut y = vec![0.0; 100_000];
        dropout(&Pool::new(1), Isa::detect(), &mut y, &vec![1.0; 100_000], [1, 2], 0.1, 0);
        let zeros = y.iter().filter(|y| **y == 0.0).count();
        // Five standard deviations of 95.
        assert!((9_525..10_475).contains(&zeros), "{zeros}");
    }
}
