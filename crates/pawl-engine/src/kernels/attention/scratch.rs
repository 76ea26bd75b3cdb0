//! How a worker's scratch is cut.

use super::{AttentionDims, PANEL_MAX};
use crate::kernels::lanes::LANES;

/// Queries whose strips share a chunk of keys before the next one; a multiple of every tile's rows.
pub(super) const QUERY_BLOCK: usize = 96;
/// Keys of a strip in the forward pass: 12 x 512 scores (24 KiB; 16 x 512 with AMX, 32 KiB of 48) stay in the first-level cache. Up to this
/// many keys a row is finished at once.
pub(super) const KEY_CHUNK: usize = 512;
/// Keys whose strips share a chunk of queries in the backward pass; a multiple of every tile's rows and of
/// every panel. Gradients of their scores wait in a block (192 x 256, 204 KiB, half in bfloat16) in the
/// second-level cache for the product that gives gradients of queries.
pub(super) const KEY_BLOCK: usize = 192;
/// Queries of a strip in the backward pass: two of 12 x 256 scores (24 KiB) stay in the first-level cache.
pub(super) const QUERY_CHUNK: usize = 256;
/// Elements from one row of a strip to the next: not a power of two, or rows share sets of the cache.
pub(super) const KEY_STRIDE: usize = KEY_CHUNK + LANES;
pub(super) const QUERY_STRIDE: usize = QUERY_CHUNK + LANES;
/// The same in slots of a block whose lines are queries, whole cache lines.
pub(super) const KEY_SLOTS: usize = KEY_BLOCK / 2 + LANES;
/// The most rows of a tile.
pub(super) const ROWS_MAX: usize = 16;

/// A worker's memory, in layouts whose sizes hold for any tile. Panels are (T / COLS, D, COLS), columns
/// (D / COLS, T, COLS), rows (.., D) without gaps: what a tile walks down must be contiguous, or it fills a
/// few sets of the cache.
pub(super) struct Scratch<'a> {
    /// Forward K; backward Q, dOut.
    pub(super) panels: [&'a mut [f32]; 2],
    /// Forward V; backward Q, dOut, K.
    pub(super) columns: [&'a mut [f32]; 3],
    /// Forward Q of a block; backward K, V of a block.
    pub(super) rows: [&'a mut [f32]; 2],
    /// Forward scores; backward scores and their gradients.
    pub(super) strips: [&'a mut [f32]; 2],
    /// Backward: gradients of the scores of a block of keys against a chunk of queries, keys first; queries
    /// first where a tile reads rows.
    pub(super) block: &'a mut [f32],
    /// Forward peaks, totals and factors of a block; backward peaks and deltas of a head.
    pub(super) stats: [&'a mut [f32]; 3],
}

/// How many of each there are, and how long.
struct Sizes {
    panels: [usize; 2],
    columns: [usize; 3],
    rows: [usize; 2],
    strips: [usize; 2],
    block: usize,
    stats: [usize; 3],
}

impl Sizes {
    fn forward(dims: AttentionDims) -> Sizes {
        let AttentionDims { seq_len, head_dim, .. } = dims;
        Sizes {
            panels: [seq_len.next_multiple_of(PANEL_MAX) * head_dim, 0],
            columns: [columns_len(dims), 0, 0],
            rows: [QUERY_BLOCK * head_dim, 0],
            strips: [ROWS_MAX * KEY_STRIDE, 0],
            block: 0,
            stats: [QUERY_BLOCK; 3],
        }
    }

    fn backward(dims: AttentionDims) -> Sizes {
        let AttentionDims { seq_len, head_dim, .. } = dims;
        Sizes {
            panels: [seq_len.next_multiple_of(PANEL_MAX) * head_dim; 2],
            columns: [columns_len(dims); 3],
            rows: [KEY_BLOCK * head_dim; 2],
            strips: [ROWS_MAX * QUERY_STRIDE; 2],
            block: KEY_BLOCK * QUERY_STRIDE,
            stats: [seq_len.next_multiple_of(PANEL_MAX), seq_len.next_multiple_of(PANEL_MAX), 0],
        }
    }

    fn total(&self) -> usize {
        let Sizes { panels, columns, rows, strips, block, stats } = self;
        let sum = |lens: &[usize]| lens.iter().sum::<usize>();
        sum(panels) + sum(columns) + sum(rows) + sum(strips) + block + sum(stats)
    }
}

impl<'a> Scratch<'a> {
    pub(super) fn forward_len(dims: AttentionDims) -> usize {
        Sizes::forward(dims).total()
    }

    pub(super) fn backward_len(dims: AttentionDims) -> usize {
        Sizes::backward(dims).total()
    }

    pub(super) fn forward(memory: &'a mut [f32], dims: AttentionDims) -> Scratch<'a> {
        Scratch::new(memory, Sizes::forward(dims))
    }

    pub(super) fn backward(memory: &'a mut [f32], dims: AttentionDims) -> Scratch<'a> {
        Scratch::new(memory, Sizes::backward(dims))
    }

    fn new(mut memory: &'a mut [f32], sizes: Sizes) -> Scratch<'a> {
        let mut take = |len: usize| {
            let (head, tail) = std::mem::take(&mut memory).split_at_mut(len);
            memory = tail;
            head
        };
        Scratch {
            panels: sizes.panels.map(&mut take),
            columns: sizes.columns.map(&mut take),
            rows: sizes.rows.map(&mut take),
            strips: sizes.strips.map(&mut take),
            block: take(sizes.block),
            stats: sizes.stats.map(&mut take),
        }
    }
}

/// Floats of a head in the layout of columns, for any instruction set.
fn columns_len(dims: AttentionDims) -> usize {
    dims.seq_len * dims.head_dim.next_multiple_of(PANEL_MAX)
}
