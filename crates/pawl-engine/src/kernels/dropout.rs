//! Zeros at random: whether an element survives is a function of (key, stream, element), so the gradient
//! is the same kernel and nothing is saved.

use super::Isa;
use super::rows::TASK_LEN;
use crate::philox::philox;
use crate::pool::{Pool, SharedMut};

/// Draws of one call of the generator.
const WORDS: usize = 4;

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
        drop_some(isa, y, &x[start..start + n], key, rate, stream, (start / WORDS) as u64);
    });
}

super::lanes::per_isa! {
    fn drop_some(y: &mut [f32], x: &[f32], key: [i32; 2], rate: f32, stream: u32, first_block: u64) =
        drop_some_body
}

#[inline(always)]
fn drop_some_body<const FMA: bool>(
    y: &mut [f32],
    x: &[f32],
    key: [i32; 2],
    rate: f32,
    stream: u32,
    first_block: u64,
) {
    let scale = 1.0 / (1.0 - rate);
    let key = key.map(|word| word as u32);
    for (block, (y, x)) in (first_block..).zip(y.chunks_mut(WORDS).zip(x.chunks(WORDS))) {
        let words = philox(key, [block as u32, (block >> 32) as u32, stream, 0]);
        for ((y, x), word) in y.iter_mut().zip(x).zip(words) {
            let draw = (word >> 8) as f32 / 16_777_216.0;
            *y = if draw >= rate { x * scale } else { 0.0 };
        }
    }
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
