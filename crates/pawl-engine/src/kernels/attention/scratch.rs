//! How a worker's scratch is cut.

use super::{AttentionDims, KEY_BLOCK, PANEL_MAX, QUERY_BLOCK};

/// A worker's memory. Panels are (T / COLS, D, COLS), rows are (.., D) without gaps, columns are
/// (D / COLS, .., COLS): what a tile walks down must be contiguous, or it fills a few sets of the cache.
pub(super) struct Scratch<'a> {
    pub(super) k_panels: &'a mut [f32],
    pub(super) v_panels: &'a mut [f32],
    /// V in the forward pass, K in the backward pass.
    pub(super) kv_columns: &'a mut [f32],
    pub(super) q_rows: &'a mut [f32],
    pub(super) dout_rows: &'a mut [f32],
    pub(super) q_columns: &'a mut [f32],
    pub(super) dout_columns: &'a mut [f32],
    pub(super) scores: &'a mut [f32],
    pub(super) dscores: &'a mut [f32],
    pub(super) row_a: &'a mut [f32],
    pub(super) row_b: &'a mut [f32],
    pub(super) row_c: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    pub(super) fn forward_len(dims: AttentionDims) -> usize {
        let AttentionDims { seq_len, head_dim, .. } = dims;
        (seq_len.next_multiple_of(PANEL_MAX) + QUERY_BLOCK) * head_dim
            + seq_len * columns_width(head_dim)
            + QUERY_BLOCK * (KEY_BLOCK + 3)
    }

    pub(super) fn backward_len(dims: AttentionDims) -> usize {
        let AttentionDims { seq_len, head_dim, .. } = dims;
        (2 * seq_len.next_multiple_of(PANEL_MAX) + 2 * QUERY_BLOCK) * head_dim
            + (seq_len + 2 * QUERY_BLOCK) * columns_width(head_dim)
            + QUERY_BLOCK * (2 * KEY_BLOCK + 3)
    }

    pub(super) fn forward(memory: &'a mut [f32], dims: AttentionDims) -> Scratch<'a> {
        Scratch::new(memory, dims, 0)
    }

    pub(super) fn backward(memory: &'a mut [f32], dims: AttentionDims) -> Scratch<'a> {
        Scratch::new(memory, dims, 1)
    }

    /// Of what only the backward pass needs, `more` = 0 or 1 times.
    fn new(mut memory: &'a mut [f32], dims: AttentionDims, more: usize) -> Scratch<'a> {
        let AttentionDims { seq_len, head_dim, .. } = dims;
        let mut take = |len: usize| {
            let (head, tail) = std::mem::take(&mut memory).split_at_mut(len);
            memory = tail;
            head
        };
        Scratch {
            k_panels: take(seq_len.next_multiple_of(PANEL_MAX) * head_dim),
            v_panels: take(seq_len.next_multiple_of(PANEL_MAX) * head_dim * more),
            kv_columns: take(seq_len * columns_width(head_dim)),
            q_rows: take(QUERY_BLOCK * head_dim),
            dout_rows: take(QUERY_BLOCK * head_dim * more),
            q_columns: take(QUERY_BLOCK * columns_width(head_dim) * more),
            dout_columns: take(QUERY_BLOCK * columns_width(head_dim) * more),
            scores: take(QUERY_BLOCK * KEY_BLOCK),
            dscores: take(QUERY_BLOCK * KEY_BLOCK * more),
            row_a: take(QUERY_BLOCK),
            row_b: take(QUERY_BLOCK),
            row_c: take(QUERY_BLOCK),
        }
    }
}

/// Floats of one row in the layout of columns, for any instruction set.
fn columns_width(head_dim: usize) -> usize {
    head_dim.next_multiple_of(PANEL_MAX)
}
