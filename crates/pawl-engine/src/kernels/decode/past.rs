//! New positions against what earlier ones left: keys and values, the state of a scan.
//!
//! One position at a time, so a chunk of positions has the bits of its members.

use super::fetch;
use crate::kernels::lanes::{LANES, dot, fma, fold, per_isa};
use crate::kernels::math::exp;
use crate::kernels::rows::row_max;

/// Keys whose scores are worked out side by side.
const GROUP: usize = 4;
/// Channels of values summed in registers.
const STRIP: usize = 64;

per_isa! {
    /// out = (D)      values weighted by the softmax of scale q k
    /// scores (S)     overwritten
    /// q      (D)     read
    /// keys   (S, D)  read, of the positions that are seen
    /// values (S, D)  read
    /// ahead          fetched: the keys that will be read next
    pub fn attend(
        out: &mut [f32],
        scores: &mut [f32],
        q: &[f32],
        keys: &[f32],
        values: &[f32],
        scale: f32,
        ahead: &[f32],
    ) = attend_body
}

#[inline(always)]
fn attend_body<const FMA: bool>(
    out: &mut [f32],
    scores: &mut [f32],
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    scale: f32,
    ahead: &[f32],
) {
    let d = q.len();
    assert!(keys.len() == scores.len() * d && values.len() == keys.len(), "{} keys of {d}", scores.len());
    let row = |data: &'_ [f32], j: usize| -> *const f32 { data[j * d..][..d].as_ptr() };
    // SAFETY: the slice above was that long.
    let row = |data, j| unsafe { std::slice::from_raw_parts(row(data, j), d) };
    let (groups, rest) = scores.as_chunks_mut::<GROUP>();
    for (g, group) in groups.iter_mut().enumerate() {
        // What the second pass reads comes while the first one computes.
        values[g * GROUP * d..][..GROUP * d].chunks(LANES).for_each(|line| fetch(line.as_ptr().cast()));
        *group = dots::<FMA>(q, std::array::from_fn(|n| row(keys, g * GROUP + n)));
    }
    let done = groups.len() * GROUP;
    for (j, score) in rest.iter_mut().enumerate() {
        *score = dot::<FMA>(q, row(keys, done + j));
    }
    scores.iter_mut().for_each(|score| *score *= scale);
    let peak = row_max(scores);
    let sum = exp_row::<FMA>(scores, peak);
    let mut ahead = ahead.chunks(LANES);
    for (c, out) in out.chunks_mut(STRIP).enumerate() {
        let mut acc = [0.0; STRIP];
        let width = out.len();
        for (j, score) in scores.iter().enumerate() {
            let v = &row(values, j)[c * STRIP..][..width];
            ahead.by_ref().take(STRIP / LANES).for_each(|line| fetch(line.as_ptr().cast()));
            if let Ok(v) = <&[f32; STRIP]>::try_from(v) {
                for lane in 0..STRIP {
                    acc[lane] = fma::<FMA>(*score, v[lane], acc[lane]);
                }
            } else {
                acc.iter_mut().zip(v).for_each(|(acc, v)| *acc = fma::<FMA>(*score, *v, *acc));
            }
        }
        out.iter_mut().zip(acc).for_each(|(out, acc)| *out = acc / sum);
    }
}

/// Dot products of q and several keys, side by side; each has the bits of [`dot`].
#[inline(always)]
fn dots<const FMA: bool>(q: &[f32], keys: [&[f32]; GROUP]) -> [f32; GROUP] {
    let mut lanes = [[0.0_f32; LANES]; GROUP];
    let (chunks, rest) = q.as_chunks::<LANES>();
    let parts = keys.map(|key| key[..q.len()].as_chunks::<LANES>());
    for (p, q) in chunks.iter().enumerate() {
        for n in 0..GROUP {
            for lane in 0..LANES {
                lanes[n][lane] = fma::<FMA>(q[lane], parts[n].0[p][lane], lanes[n][lane]);
            }
        }
    }
    for n in 0..GROUP {
        for lane in 0..rest.len() {
            lanes[n][lane] = fma::<FMA>(rest[lane], parts[n].1[lane], lanes[n][lane]);
        }
    }
    lanes.map(|lanes| fold(lanes, |a, b| a + b))
}

/// x = e^(x - peak); returns their sum.
#[inline(always)]
fn exp_row<const FMA: bool>(x: &mut [f32], peak: f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for x in chunks {
        for lane in 0..LANES {
            x[lane] = exp::<FMA>(x[lane] - peak);
            lanes[lane] += x[lane];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *x = exp::<FMA>(*x - peak);
        *lane += *x;
    }
    fold(lanes, |a, b| a + b)
}

per_isa! {
    /// state = (C)   a state + x
    /// a, x    (C)   read
    pub fn advance_scan(state: &mut [f32], a: &[f32], x: &[f32]) = advance_scan_body
}

#[inline(always)]
fn advance_scan_body<const FMA: bool>(state: &mut [f32], a: &[f32], x: &[f32]) {
    for ((state, a), x) in state.iter_mut().zip(a).zip(x) {
        *state = fma::<FMA>(*a, *state, *x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{check_close, isas, numbers};

    /// Means of up to 20 numbers up to 1; worst seen 7.7e-8.
    const ATTEND_TOLERANCE: f32 = 2e-7;

    #[test]
    fn attention_is_the_softmax_of_its_scores() {
        for (seen, d) in [(1, 18), (13, 18), (20, 64), (9, 96)] {
            let (keys, values) = (numbers(seen * d, 1), numbers(seen * d, 2));
            let q = numbers(d, 3);
            let score =
                |j: usize| (0..d).map(|c| f64::from(q[c]) * f64::from(keys[j * d + c])).sum::<f64>() * 0.4;
            let total: f64 = (0..seen).map(|j| score(j).exp()).sum();
            let mean = |c: usize| {
                (0..seen).map(|j| score(j).exp() / total * f64::from(values[j * d + c])).sum::<f64>() as f32
            };
            let want: Vec<f32> = (0..d).map(mean).collect();
            for isa in isas() {
                let (mut out, mut scores) = (vec![9.0; d], vec![9.0; seen]);
                attend(isa, &mut out, &mut scores, &q, &keys, &values, 0.4, &keys);
                check_close(&out, &want, ATTEND_TOLERANCE, &format!("{isa:?} {seen} of {d}"));
            }
        }
    }
}
