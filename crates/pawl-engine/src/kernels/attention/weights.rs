//! What happens to a strip of scores between two products: exponentials, masks, running sums.
//!
//! The vectors of a strip that no row sees are not touched; what a row does not see of the others is zeroed.

use super::scratch::{KEY_STRIDE, QUERY_STRIDE, ROWS_MAX};
use super::{Head, Strip, clip};
use crate::kernels::lanes::{LANES, dot, fma, fold, larger, per_isa};
use crate::kernels::math::{TO_BASE_2, exp2};
use crate::pool::SharedMut;
use std::ops::Range;

per_isa! {
    /// Turns raw scores into weights, in base 2 relative to the row's running peak.
    /// scores = (num_rows, KEY_STRIDE)   exactly 0 where hidden
    /// peaks  = (num_rows)               the running peak of each row, times log2(e)
    /// totals = (num_rows)               the running sum of weights
    /// shrink = (num_rows)               what earlier weights of the row must be multiplied by
    pub(super) fn softmax_strip(scores: &mut [f32], peaks: &mut [f32], totals: &mut [f32], shrink: &mut [f32],
        head: Head, strip: Strip) = softmax_strip_body
}

#[inline(always)]
fn softmax_strip_body<const FMA: bool>(
    scores: &mut [f32],
    peaks: &mut [f32],
    totals: &mut [f32],
    shrink: &mut [f32],
    head: Head,
    strip: Strip,
) {
    // A scale of 0 would make hidden scores NaN; one that rounds every score away does not.
    let scale = if head.scale == 0.0 { f32::MIN_POSITIVE } else { head.scale * TO_BASE_2 };
    let hidden = f32::NEG_INFINITY * scale.signum();
    // Each step takes all rows before the next one: one row would wait for its peak. Lanes go through
    // memory, or the compiler takes them apart in the loop that fills them.
    let mut lanes_of = [[0.0; LANES]; ROWS_MAX];
    for r in 0..strip.num_rows {
        let query = strip.row0 + r;
        let row = &mut scores[r * KEY_STRIDE..][..KEY_STRIDE];
        hide(row, head.keys_of(query..query + 1), strip, hidden);
        let mut lanes = [peaks[r]; LANES];
        for chunk in row[strip.vectors()].as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                lanes[lane] = larger(chunk[lane] * scale, lanes[lane]);
            }
        }
        lanes_of[r] = lanes;
    }
    for (r, lanes) in lanes_of.into_iter().enumerate().take(strip.num_rows) {
        let peak = fold(lanes, larger);
        shrink[r] = exp2::<FMA>(peaks[r] - peak);
        peaks[r] = peak;
    }
    for r in 0..strip.num_rows {
        let mut lanes = [0.0; LANES];
        for chunk in scores[r * KEY_STRIDE..][strip.vectors()].as_chunks_mut::<LANES>().0 {
            for lane in 0..LANES {
                let weight = exp2::<FMA>(fma::<FMA>(chunk[lane], scale, -peaks[r]));
                chunk[lane] = weight;
                lanes[lane] += weight;
            }
        }
        lanes_of[r] = lanes;
    }
    for (r, lanes) in lanes_of.into_iter().enumerate().take(strip.num_rows) {
        totals[r] = fma::<FMA>(totals[r], shrink[r], fold(lanes, |a, b| a + b));
    }
}

/// Writes `value` over the columns of one row of a strip that are not `seen`.
#[inline(always)]
fn hide(row: &mut [f32], seen: Range<usize>, strip: Strip, value: f32) {
    let seen = clip(seen, strip.col0, strip.end);
    let Range { start, end } = strip.vectors();
    let before = start..seen.start.next_multiple_of(LANES).clamp(start, end);
    let after = (seen.end / LANES * LANES).clamp(before.end, end)..end;
    for part in [before, after] {
        for (i, chunk) in row[part.clone()].as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let from = (part.start + i * LANES).wrapping_sub(seen.start) as u32;
            for lane in 0..LANES {
                // By bits, or the compiler makes a branch of every lane.
                let keep = u32::from(from.wrapping_add(lane as u32) < seen.len() as u32).wrapping_neg();
                chunk[lane] = f32::from_bits(chunk[lane].to_bits() & keep | value.to_bits() & !keep);
            }
        }
    }
}

per_isa! {
    /// Here rows are keys and columns queries.
    /// scores  = (num_rows, QUERY_STRIDE)   raw scores become weights, exactly 0 where hidden
    /// dscores = (num_rows, QUERY_STRIDE)   gradients of weights become gradients of raw scores, 0 in the margin
    /// peaks     (columns)                  lse * log2(e)
    /// deltas    (columns)                  sum of dout * out, times the scale
    pub(super) fn softmax_strip_backward(scores: &mut [f32], dscores: &mut [f32], peaks: &[f32], deltas: &[f32],
        head: Head, strip: Strip) = softmax_strip_backward_body
}

#[inline(always)]
fn softmax_strip_backward_body<const FMA: bool>(
    scores: &mut [f32],
    dscores: &mut [f32],
    peaks: &[f32],
    deltas: &[f32],
    head: Head,
    strip: Strip,
) {
    let scale = head.scale * TO_BASE_2;
    let (vectors, margin) = (strip.vectors(), strip.margin(QUERY_STRIDE));
    for r in 0..strip.num_rows {
        let row = &mut scores[r * QUERY_STRIDE..][..QUERY_STRIDE];
        let drow = &mut dscores[r * QUERY_STRIDE..][..QUERY_STRIDE];
        let (chunks, _) = row[vectors.clone()].as_chunks_mut::<LANES>();
        let (dchunks, _) = drow[vectors.clone()].as_chunks_mut::<LANES>();
        let (peaks, _) = peaks[vectors.clone()].as_chunks::<LANES>();
        let (deltas, _) = deltas[vectors.clone()].as_chunks::<LANES>();
        for (((chunk, dchunk), peak), delta) in chunks.iter_mut().zip(dchunks).zip(peaks).zip(deltas) {
            for lane in 0..LANES {
                let weight = exp2::<FMA>(fma::<FMA>(chunk[lane], scale, -peak[lane]));
                chunk[lane] = weight;
                dchunk[lane] = weight * fma::<FMA>(dchunk[lane], head.scale, -delta[lane]);
            }
        }
        // Afterwards, because hidden columns hold anything.
        let key = strip.row0 + r;
        let seen = clip(head.queries_of(key..key + 1), strip.col0, strip.end);
        row[vectors.start..seen.start.max(vectors.start)].fill(0.0);
        row[seen.end.max(vectors.start)..vectors.end].fill(0.0);
        drow[margin.start..seen.start.max(vectors.start)].fill(0.0);
        drow[seen.end.max(vectors.start)..margin.end].fill(0.0);
    }
}

per_isa! {
    /// deltas = (num_rows)      sum over D of dout * out, times `scale`
    /// dout     (num_rows, D)   read, rows `row` apart
    /// out      (num_rows, D)   read, rows `row` apart
    pub(super) fn row_deltas(deltas: &mut [f32], dout: &[f32], out: &[f32], row: usize, head_dim: usize,
        scale: f32) = row_deltas_body
}

#[inline(always)]
fn row_deltas_body<const FMA: bool>(
    deltas: &mut [f32],
    dout: &[f32],
    out: &[f32],
    row: usize,
    head_dim: usize,
    scale: f32,
) {
    for (r, delta) in deltas.iter_mut().enumerate() {
        *delta = scale * dot::<FMA>(&dout[r * row..][..head_dim], &out[r * row..][..head_dim]);
    }
}

per_isa! {
    /// data    *= (num_rows, D)   by the row's factor; rows start at `at`, `row` apart, and belong to the caller
    /// factors    (num_rows)      read
    pub(super) fn scale_rows(data: &SharedMut<'_, f32>, at: usize, row: usize, head_dim: usize,
        factors: &[f32]) = scale_rows_body
}

#[inline(always)]
fn scale_rows_body<const FMA: bool>(
    data: &SharedMut<'_, f32>,
    at: usize,
    row: usize,
    head_dim: usize,
    factors: &[f32],
) {
    for (r, factor) in factors.iter().enumerate() {
        if *factor == 1.0 {
            continue;
        }
        // SAFETY: the caller owns these rows.
        for x in unsafe { data.part(at + r * row, head_dim) } {
            *x *= factor;
        }
    }
}
