//! What happens to a block of scores between two products: exponentials, masks, running sums.
//!
//! Only the vectors that hold visible keys are touched; the rest of a block is zeroed.

use super::{Block, Head, KEY_BLOCK};
use crate::kernels::lanes::{LANES, dot, fma, fold, larger, per_isa};
use crate::kernels::math::{TO_BASE_2, exp2};
use std::ops::Range;

per_isa! {
    /// Turns a block of raw scores into weights, in base 2 relative to the row's running peak.
    /// scores = (rows, KEY_BLOCK)   exactly 0 where hidden
    /// peaks  = (rows)              the running peak of each row, times log2(e)
    /// totals = (rows)              the running sum of weights
    /// shrink = (rows)              what earlier weights of the row must be multiplied by
    pub(super) fn softmax_block(scores: &mut [f32], peaks: &mut [f32], totals: &mut [f32], shrink: &mut [f32],
        head: Head, block: Block) = softmax_block_body
}

#[inline(always)]
fn softmax_block_body<const FMA: bool>(
    scores: &mut [f32],
    peaks: &mut [f32],
    totals: &mut [f32],
    shrink: &mut [f32],
    head: Head,
    block: Block,
) {
    // A scale of 0 would make hidden scores NaN; one that rounds every score away does not.
    let scale = if head.scale == 0.0 { f32::MIN_POSITIVE } else { head.scale * TO_BASE_2 };
    let hidden = f32::NEG_INFINITY * scale.signum();
    let width = block.num_keys.next_multiple_of(LANES);
    for r in 0..block.num_queries {
        let row = &mut scores[r * KEY_BLOCK..][..width];
        let Seen { exact, vectors } = Seen::new(head.keys_in(block, r..r + 1));
        row[vectors.start..exact.start].fill(hidden);
        row[exact.end..vectors.end].fill(hidden);
        let mut lanes = [peaks[r]; LANES];
        let (chunks, _) = row[vectors.clone()].as_chunks_mut::<LANES>();
        for chunk in chunks.iter() {
            for lane in 0..LANES {
                lanes[lane] = larger(chunk[lane] * scale, lanes[lane]);
            }
        }
        let peak = fold(lanes, larger);
        let mut lanes = [0.0; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                let weight = exp2::<FMA>(fma::<FMA>(chunk[lane], scale, -peak));
                chunk[lane] = weight;
                lanes[lane] += weight;
            }
        }
        row[..vectors.start].fill(0.0);
        row[vectors.end..].fill(0.0);
        shrink[r] = exp2::<FMA>(peaks[r] - peak);
        totals[r] = fma::<FMA>(totals[r], shrink[r], fold(lanes, |a, b| a + b));
        peaks[r] = peak;
    }
}

/// The keys that a row sees, and the whole vectors that hold them.
struct Seen {
    exact: Range<usize>,
    vectors: Range<usize>,
}

impl Seen {
    #[inline(always)]
    fn new(exact: Range<usize>) -> Seen {
        let vectors = exact.start / LANES * LANES..exact.end.next_multiple_of(LANES);
        if exact.is_empty() { Seen { exact: 0..0, vectors: 0..0 } } else { Seen { exact, vectors } }
    }
}

per_isa! {
    /// scores  = (rows, KEY_BLOCK)   raw scores become weights, exactly 0 where hidden
    /// dscores = (rows, KEY_BLOCK)   gradients of weights become gradients of raw scores
    /// peaks     (rows)              lse * log2(e)
    /// deltas    (rows)              sum of dout * out
    pub(super) fn softmax_block_backward(scores: &mut [f32], dscores: &mut [f32], peaks: &[f32], deltas: &[f32],
        head: Head, block: Block) = softmax_block_backward_body
}

#[inline(always)]
fn softmax_block_backward_body<const FMA: bool>(
    scores: &mut [f32],
    dscores: &mut [f32],
    peaks: &[f32],
    deltas: &[f32],
    head: Head,
    block: Block,
) {
    let scale = head.scale * TO_BASE_2;
    let width = block.num_keys.next_multiple_of(LANES);
    for r in 0..block.num_queries {
        let Seen { exact, vectors } = Seen::new(head.keys_in(block, r..r + 1));
        let row = &mut scores[r * KEY_BLOCK..][..width];
        let drow = &mut dscores[r * KEY_BLOCK..][..width];
        let (peak, delta) = (peaks[r], deltas[r]);
        let (chunks, _) = row[vectors.clone()].as_chunks_mut::<LANES>();
        let (dchunks, _) = drow[vectors].as_chunks_mut::<LANES>();
        for (chunk, dchunk) in chunks.iter_mut().zip(dchunks) {
            for lane in 0..LANES {
                let weight = exp2::<FMA>(fma::<FMA>(chunk[lane], scale, -peak));
                chunk[lane] = weight;
                dchunk[lane] = weight * (dchunk[lane] - delta) * head.scale;
            }
        }
        for hidden in [0..exact.start, exact.end..width] {
            row[hidden.clone()].fill(0.0);
            drow[hidden].fill(0.0);
        }
    }
}

per_isa! {
    /// deltas   = (rows)          sum over D of dout * out
    /// dout_rows  (rows, D)       read
    /// out        (rows, D)       read, rows `out_row` apart
    pub(super) fn row_deltas(deltas: &mut [f32], dout_rows: &[f32], out: &[f32], out_row: usize) = row_deltas_body
}

#[inline(always)]
fn row_deltas_body<const FMA: bool>(deltas: &mut [f32], dout_rows: &[f32], out: &[f32], out_row: usize) {
    let width = dout_rows.len() / deltas.len();
    for (r, (delta, dout)) in deltas.iter_mut().zip(dout_rows.chunks_exact(width)).enumerate() {
        *delta = dot::<FMA>(dout, &out[r * out_row..][..width]);
    }
}
