//! Kernels of one row at a time: normalisation, softmax, the largest of a row.
//!
//! A task takes a block of rows, so a row is always one thread's work and its sums have one order.

use super::Isa;
use super::lanes::{LANES, dot, fma, fold, larger, per_isa};
use super::math::exp;
use crate::pool::{Pool, SharedMut};
use pawl_graph::Mask;
use std::ops::Range;

/// Elements that make a task worth claiming.
pub(crate) const TASK_LEN: usize = 1 << 14;

/// Runs `task` on blocks of rows that cover `0 .. rows`, by the width of a row.
pub(crate) fn for_rows(pool: &Pool, rows: usize, width: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
    let step = (TASK_LEN / width.max(1)).max(1);
    pool.run(rows.div_ceil(step), &|idx, _| task(idx * step..rows.min((idx + 1) * step)));
}

/// Rows of `c` elements in `len`.
#[track_caller]
pub(crate) fn num_rows(len: usize, c: usize) -> usize {
    assert!(c > 0 && len.is_multiple_of(c), "{len} elements are not rows of {c}");
    len / c
}

/// y    = (N, C)   x * rstd
/// rstd = (N)      1 / sqrt(mean(x^2) + eps)
/// x      (N, C)   read
pub fn rmsnorm_forward(
    pool: &Pool,
    isa: Isa,
    y: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    c: usize,
    eps: f32,
) {
    let n = num_rows(x.len(), c);
    assert!(y.len() == x.len() && rstd.len() == n, "rmsnorm of {n} rows of {c}");
    let (y, rstd) = (SharedMut::new(y), SharedMut::new(rstd));
    for_rows(pool, n, c, &|rows| {
        // SAFETY: tasks take disjoint rows.
        let (y, rstd) =
            unsafe { (y.part(rows.start * c, rows.len() * c), rstd.part(rows.start, rows.len())) };
        rmsnorm_rows(isa, y, rstd, &x[rows.start * c..rows.end * c], c, eps);
    });
}

per_isa! {
    pub(super) fn rmsnorm_rows(y: &mut [f32], rstd: &mut [f32], x: &[f32], c: usize, eps: f32) = rmsnorm_rows_body
}

#[inline(always)]
fn rmsnorm_rows_body<const FMA: bool>(y: &mut [f32], rstd: &mut [f32], x: &[f32], c: usize, eps: f32) {
    for ((y, x), rstd) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(rstd) {
        let scale = 1.0 / (dot::<FMA>(x, x) / c as f32 + eps).sqrt();
        for (y, x) in y.iter_mut().zip(x) {
            *y = x * scale;
        }
        *rstd = scale;
    }
}

/// dx = (N, C)   rstd (dy - x rstd^2 mean(dy x))
/// dy   (N, C)   read
/// x    (N, C)   read
/// rstd (N)      read, saved by the forward pass
pub fn rmsnorm_backward(
    pool: &Pool,
    isa: Isa,
    dx: &mut [f32],
    dy: &[f32],
    x: &[f32],
    rstd: &[f32],
    c: usize,
) {
    let n = num_rows(x.len(), c);
    assert!(dx.len() == x.len() && dy.len() == x.len() && rstd.len() == n, "rmsnorm of {n} rows of {c}");
    let dx = SharedMut::new(dx);
    for_rows(pool, n, c, &|rows| {
        // SAFETY: tasks take disjoint rows.
        let dx = unsafe { dx.part(rows.start * c, rows.len() * c) };
        let all = rows.start * c..rows.end * c;
        rmsnorm_rows_backward(isa, dx, &dy[all.clone()], &x[all], &rstd[rows], c);
    });
}

per_isa! {
    pub(super) fn rmsnorm_rows_backward(dx: &mut [f32], dy: &[f32], x: &[f32], rstd: &[f32], c: usize) =
        rmsnorm_rows_backward_body
}

#[inline(always)]
fn rmsnorm_rows_backward_body<const FMA: bool>(
    dx: &mut [f32],
    dy: &[f32],
    x: &[f32],
    rstd: &[f32],
    c: usize,
) {
    let rows = dx.chunks_exact_mut(c).zip(dy.chunks_exact(c)).zip(x.chunks_exact(c)).zip(rstd);
    for (((dx, dy), x), rstd) in rows {
        let pull = dot::<FMA>(dy, x) / c as f32 * rstd * rstd;
        for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
            *dx = rstd * fma::<FMA>(-pull, *x, *dy);
        }
    }
}

/// y = (.., C)   softmax of each row of C over what `mask` shows, 0 elsewhere
/// x   (.., C)   read; with a causal mask the last two axes are (query, key), both C long
pub fn softmax_forward(pool: &Pool, isa: Isa, y: &mut [f32], x: &[f32], c: usize, mask: Mask) {
    let n = num_rows(x.len(), c);
    assert!(y.len() == x.len(), "softmax of {n} rows of {c}");
    assert!(mask == Mask::Full || n.is_multiple_of(c), "{n} rows of {c} are not (query, key)");
    let y = SharedMut::new(y);
    for_rows(pool, n, c, &|rows| {
        // SAFETY: tasks take disjoint rows.
        let y = unsafe { y.part(rows.start * c, rows.len() * c) };
        softmax_rows(isa, y, &x[rows.start * c..rows.end * c], c, mask, rows.start);
    });
}

per_isa! {
    fn softmax_rows(y: &mut [f32], x: &[f32], c: usize, mask: Mask, first_row: usize) = softmax_rows_body
}

#[inline(always)]
fn softmax_rows_body<const FMA: bool>(y: &mut [f32], x: &[f32], c: usize, mask: Mask, first_row: usize) {
    for (r, (y, x)) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)).enumerate() {
        let query = (first_row + r) % c;
        let seen = match mask {
            Mask::Full => 0..c,
            Mask::Causal { window } => query.saturating_sub(window)..query + 1,
        };
        y[..seen.start].fill(0.0);
        y[seen.end..].fill(0.0);
        let (y, x) = (&mut y[seen.clone()], &x[seen]);
        let peak = row_max(x);
        let scale = 1.0 / exp_row::<FMA>(y, x, peak);
        for y in y {
            *y *= scale;
        }
    }
}

/// The largest element; a NaN is passed over.
#[inline(always)]
pub(crate) fn row_max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(chunk[lane], lanes[lane]);
        }
    }
    for lane in 0..rest.len() {
        lanes[lane] = larger(rest[lane], lanes[lane]);
    }
    fold(lanes, larger)
}

/// y = e^(x - peak); returns their sum.
#[inline(always)]
fn exp_row<const FMA: bool>(y: &mut [f32], x: &[f32], peak: f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (y_chunks, y_rest) = y.as_chunks_mut::<LANES>();
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    for (y, x) in y_chunks.iter_mut().zip(x_chunks) {
        for lane in 0..LANES {
            y[lane] = exp::<FMA>(x[lane] - peak);
            lanes[lane] += y[lane];
        }
    }
    for lane in 0..x_rest.len() {
        y_rest[lane] = exp::<FMA>(x_rest[lane] - peak);
        lanes[lane] += y_rest[lane];
    }
    fold(lanes, |a, b| a + b)
}

/// The sum of e^(x - peak).
#[inline(always)]
pub(crate) fn exp_sum<const FMA: bool>(x: &[f32], peak: f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += exp::<FMA>(chunk[lane] - peak);
        }
    }
    for lane in 0..rest.len() {
        lanes[lane] += exp::<FMA>(rest[lane] - peak);
    }
    fold(lanes, |a, b| a + b)
}

per_isa! {
    /// x = (n)   e^(scale (x - peak))
    pub fn exp_from(x: &mut [f32], peak: f32, scale: f32) = exp_from_body
}

#[inline(always)]
fn exp_from_body<const FMA: bool>(x: &mut [f32], peak: f32, scale: f32) {
    x.iter_mut().for_each(|x| *x = exp::<FMA>(scale * (*x - peak)));
}

/// Logits of which [`exp_sums`] gives one sum.
pub const SUMMED: usize = 64;

per_isa! {
    /// sums = (N / 64, rounded up)   of e^(scale (x - peak)) over 64 elements each
    /// x      (N)                    read
    pub fn exp_sums(sums: &mut [f32], x: &[f32], peak: f32, scale: f32) = exp_sums_body
}

#[inline(always)]
fn exp_sums_body<const FMA: bool>(sums: &mut [f32], x: &[f32], peak: f32, scale: f32) {
    assert_eq!(sums.len(), x.len().div_ceil(SUMMED), "sums of {} numbers", x.len());
    for (sum, x) in sums.iter_mut().zip(x.chunks(SUMMED)) {
        let mut lanes = [0.0_f32; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for x in whole {
            for lane in 0..LANES {
                lanes[lane] += exp::<FMA>(scale * (x[lane] - peak));
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += exp::<FMA>(scale * (*x - peak));
        }
        *sum = fold(lanes, |a, b| a + b);
    }
}

per_isa! {
    /// peak = ()    the largest of x, and of nothing less than any number
    /// x      (N)   read
    pub fn largest(peak: &mut f32, x: &[f32]) = largest_body
}

#[inline(always)]
fn largest_body<const FMA: bool>(peak: &mut f32, x: &[f32]) {
    *peak = row_max(x);
}

/// dx = (.., C)   y (dy - sum(dy y))
/// dy   (.., C)   read
/// y    (.., C)   read, of the forward pass; hidden entries are 0 and stay 0
pub fn softmax_backward(pool: &Pool, isa: Isa, dx: &mut [f32], dy: &[f32], y: &[f32], c: usize) {
    let n = num_rows(y.len(), c);
    assert!(dx.len() == y.len() && dy.len() == y.len(), "softmax of {n} rows of {c}");
    let dx = SharedMut::new(dx);
    for_rows(pool, n, c, &|rows| {
        // SAFETY: tasks take disjoint rows.
        let dx = unsafe { dx.part(rows.start * c, rows.len() * c) };
        let all = rows.start * c..rows.end * c;
        softmax_rows_backward(isa, dx, &dy[all.clone()], &y[all], c);
    });
}

per_isa! {
    fn softmax_rows_backward(dx: &mut [f32], dy: &[f32], y: &[f32], c: usize) = softmax_rows_backward_body
}

#[inline(always)]
fn softmax_rows_backward_body<const FMA: bool>(dx: &mut [f32], dy: &[f32], y: &[f32], c: usize) {
    for ((dx, dy), y) in dx.chunks_exact_mut(c).zip(dy.chunks_exact(c)).zip(y.chunks_exact(c)) {
        let pull = dot::<FMA>(dy, y);
        for ((dx, dy), y) in dx.iter_mut().zip(dy).zip(y) {
            *dx = y * (dy - pull);
        }
    }
}

/// y = (.., C)   1 for the k largest of a row, ties to the lowest index, else 0
/// x   (.., C)   read
pub fn top_k(pool: &Pool, y: &mut [f32], x: &[f32], c: usize, k: usize) {
    let n = num_rows(x.len(), c);
    assert!(y.len() == x.len() && k <= c, "the {k} largest of {n} rows of {c}");
    let y = SharedMut::new(y);
    for_rows(pool, n, c, &|rows| {
        // SAFETY: tasks take disjoint rows.
        let y = unsafe { y.part(rows.start * c, rows.len() * c) };
        for (y, x) in y.chunks_exact_mut(c).zip(x[rows.start * c..].chunks_exact(c)) {
            y.fill(0.0);
            for _ in 0..k {
                let free = (0..c).filter(|&i| y[i] == 0.0);
                let best = free.reduce(|best, i| if x[i] > x[best] { i } else { best });
                y[best.expect("k is at most c")] = 1.0;
            }
        }
    });
}

#[cfg(test)]
mod tests;
