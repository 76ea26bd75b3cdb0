//! Kernels along the time axis: rotary positions and linear scans.

use super::Isa;
use super::lanes::{fma, per_isa};
use super::rows::for_rows;
use crate::pool::{Pool, SharedMut};

/// Channels that a task of a scan carries through time.
const CHANNELS: usize = 128;

/// Pairs of a rotation turned together.
const PAIRS: usize = 8;

/// Cosine and sine tables of one rotary embedding.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// T
    pub t: usize,
    /// D
    pub d: usize,
    /// Of the angles.
    pub base: f32,
    /// (T, D / 2)
    pub cos: Vec<f32>,
    /// (T, D / 2)
    pub sin: Vec<f32>,
}

/// cos, sin = (T, D/2)   of position * base^(-2c/D), in float64, then rounded
pub fn rope_table(cos: &mut [f32], sin: &mut [f32], t: usize, d: usize, base: f32) {
    assert!(d.is_multiple_of(2), "rotary pairs need an even width, got {d}");
    assert!(cos.len() == t * d / 2 && sin.len() == t * d / 2, "a table of {t} positions of width {d}");
    for position in 0..t {
        for c in 0..d / 2 {
            let angle = position as f64 * f64::from(base).powf(-2.0 * c as f64 / d as f64);
            cos[position * d / 2 + c] = angle.cos() as f32;
            sin[position * d / 2 + c] = angle.sin() as f32;
        }
    }
}

/// y      = (B, T, H, D)   y1 = x1 cos + x2 sin, y2 = x2 cos - x1 sin for the halves of D; `inverse` turns back
/// x        (B, T, H, D)   read
/// cos, sin (T, D/2)       read, of `rope_table`
pub fn rope(
    pool: &Pool,
    isa: Isa,
    y: &mut [f32],
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
    shape: [usize; 4],
    inverse: bool,
) {
    let [b, t, h, d] = shape;
    assert!(y.len() == b * t * h * d && x.len() == y.len(), "rope of {shape:?}");
    assert!(d.is_multiple_of(2) && cos.len() >= t * d / 2 && sin.len() >= t * d / 2, "tables of {shape:?}");
    let y = SharedMut::new(y);
    for_rows(pool, b * t * h, d, &|rows| {
        // SAFETY: tasks take disjoint rows.
        let y = unsafe { y.part(rows.start * d, rows.len() * d) };
        let x = &x[rows.start * d..rows.end * d];
        turn(isa, y, x, cos, sin, rows.start, [t, h, d], inverse);
    });
}

per_isa! {
    /// Rows of D from row `first` of (B, T, H) on.
    pub(super) fn turn(y: &mut [f32], x: &[f32], cos: &[f32], sin: &[f32], first: usize, shape: [usize; 3],
        inverse: bool) = turn_body
}

#[inline(always)]
fn turn_body<const FMA: bool>(
    y: &mut [f32],
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
    first: usize,
    shape: [usize; 3],
    inverse: bool,
) {
    let [t, h, d] = shape;
    let half = d / 2;
    let sign = if inverse { -1.0 } else { 1.0 };
    for (row, (y, x)) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).enumerate() {
        let at = (first + row) / h % t * half;
        let (cos, sin) = (&cos[at..][..half], &sin[at..][..half]);
        let (y1, y2) = y.split_at_mut(half);
        let (x1, x2) = x.split_at(half);
        let mut c = 0;
        while c + PAIRS <= half {
            turn_pairs::<FMA, PAIRS>(y1, y2, x1, x2, cos, sin, c, sign);
            c += PAIRS;
        }
        while c < half {
            turn_pairs::<FMA, 1>(y1, y2, x1, x2, cos, sin, c, sign);
            c += 1;
        }
    }
}

/// Pairs from `c` on. By value: with six slices the compiler gives up proving that they do not overlap.
#[inline(always)]
fn turn_pairs<const FMA: bool, const N: usize>(
    y1: &mut [f32],
    y2: &mut [f32],
    x1: &[f32],
    x2: &[f32],
    cos: &[f32],
    sin: &[f32],
    c: usize,
    sign: f32,
) {
    let load = |x: &[f32]| -> [f32; N] { std::array::from_fn(|lane| x[c..c + N][lane]) };
    let (x1, x2, cos, sin) = (load(x1), load(x2), load(cos), load(sin));
    for lane in 0..N {
        let sin = sign * sin[lane];
        y1[c..c + N][lane] = fma::<FMA>(x1[lane], cos[lane], x2[lane] * sin);
        y2[c..c + N][lane] = fma::<FMA>(x2[lane], cos[lane], -(x1[lane] * sin));
    }
}

/// h = (B, T, C)   h_t = a_t h_(t-1) + x_t from 0; `reverse`: h_t = a_t h_(t+1) + x_t from the end
/// a   (B, T, C)   read
/// x   (B, T, C)   read
pub fn scan(pool: &Pool, isa: Isa, h: &mut [f32], a: &[f32], x: &[f32], shape: [usize; 3], reverse: bool) {
    let [b, t, c] = shape;
    assert!(h.len() == b * t * c && a.len() == h.len() && x.len() == h.len(), "scan of {shape:?}");
    let h = SharedMut::new(h);
    let num_blocks = c.div_ceil(CHANNELS);
    pool.run(b * num_blocks, &|task, _| {
        let (seq, first) = (task / num_blocks, task % num_blocks * CHANNELS);
        scan_channels(isa, &h, a, x, shape, seq, first, reverse);
    });
}

per_isa! {
    /// Channels from `first` on of one sequence, which belong to this task.
    fn scan_channels(h: &SharedMut<'_, f32>, a: &[f32], x: &[f32], shape: [usize; 3], seq: usize,
        first: usize, reverse: bool) = scan_channels_body
}

#[inline(always)]
fn scan_channels_body<const FMA: bool>(
    h: &SharedMut<'_, f32>,
    a: &[f32],
    x: &[f32],
    shape: [usize; 3],
    seq: usize,
    first: usize,
    reverse: bool,
) {
    let [_, t, c] = shape;
    let mut state = [0.0; CHANNELS];
    let state = &mut state[..CHANNELS.min(c - first)];
    for step in 0..t {
        let position = if reverse { t - 1 - step } else { step };
        let at = (seq * t + position) * c + first;
        // SAFETY: tasks take disjoint sequences and channels.
        let h = unsafe { h.part(at, state.len()) };
        let (a, x) = (&a[at..][..h.len()], &x[at..][..h.len()]);
        for (((h, state), a), x) in h.iter_mut().zip(state.iter_mut()).zip(a).zip(x) {
            *state = fma::<FMA>(*a, *state, *x);
            *h = *state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{check_close, isas, numbers, same_bits};

    /// A rotation of unit numbers; worst seen 9.3e-8.
    const ROPE_TOLERANCE: f32 = 2e-7;
    /// 300 steps with |a| < 1; worst seen 1.5e-7.
    const SCAN_TOLERANCE: f32 = 5e-7;

    #[test]
    fn rope_agrees_with_the_definition_and_its_inverse_undoes_it() {
        for shape in [[1, 1, 1, 2], [2, 5, 3, 6], [1, 40, 2, 64], [2, 300, 1, 34]] {
            let [b, t, h, d] = shape;
            let x = numbers(b * t * h * d, 1);
            let (mut cos, mut sin) = (vec![0.0; t * d / 2], vec![0.0; t * d / 2]);
            rope_table(&mut cos, &mut sin, t, d, 10_000.0);
            let mut want = x.clone();
            for row in 0..b * t * h {
                for c in 0..d / 2 {
                    let angle = (row / h % t) as f64 * 10_000_f64.powf(-2.0 * c as f64 / d as f64);
                    let (x1, x2) = (f64::from(x[row * d + c]), f64::from(x[row * d + c + d / 2]));
                    want[row * d + c] = (x1 * angle.cos() + x2 * angle.sin()) as f32;
                    want[row * d + c + d / 2] = (x2 * angle.cos() - x1 * angle.sin()) as f32;
                }
            }
            for isa in isas() {
                let got = same_bits("rope", |pool| {
                    let mut y = vec![9.0; x.len()];
                    rope(pool, isa, &mut y, &x, &cos, &sin, shape, false);
                    y
                });
                check_close(&got, &want, ROPE_TOLERANCE, &format!("{isa:?} rope {shape:?}"));
                let mut back = vec![9.0; x.len()];
                rope(&Pool::new(1), isa, &mut back, &got, &cos, &sin, shape, true);
                check_close(&back, &x, 2.0 * ROPE_TOLERANCE, &format!("{isa:?} inverse {shape:?}"));
            }
        }
    }

    #[test]
    fn scans_run_forward_and_back() {
        for shape in [[1, 1, 1], [2, 7, 3], [3, 300, 130]] {
            let [b, t, c] = shape;
            let (a, x) = (numbers(b * t * c, 1), numbers(b * t * c, 2));
            for reverse in [false, true] {
                let mut want = vec![0.0; b * t * c];
                for (s, k) in (0..b).flat_map(|s| (0..c).map(move |k| (s, k))) {
                    let mut state = 0.0_f64;
                    for step in 0..t {
                        let i = (s * t + if reverse { t - 1 - step } else { step }) * c + k;
                        state = f64::from(a[i]) * state + f64::from(x[i]);
                        want[i] = state as f32;
                    }
                }
                for isa in isas() {
                    let what = format!("{isa:?} scan {shape:?} {reverse}");
                    let got = same_bits(&what, |pool| {
                        let mut h = vec![9.0; b * t * c];
                        scan(pool, isa, &mut h, &a, &x, shape, reverse);
                        h
                    });
                    check_close(&got, &want, SCAN_TOLERANCE, &what);
                }
            }
        }
    }
}
