//! Causal attention that never holds a T x T matrix (FlashAttention: Dao et al. 2022, arXiv 2205.14135).
//!
//! One task handles one key/value head of one sequence: it packs that head's keys and values once, then
//! walks blocks of queries of every query head of the group, and for each the blocks of keys it sees.
//! Gradients of keys and values are therefore summed inside one task, in one order. Blocks that the mask
//! hides are skipped, inside a block tiles are. It refuses dropout and biases of scores.

mod scratch;
mod weights;

use super::Isa;
use super::gemm::pack::pack_b;
use super::gemm::tile::{self, Portable, Tile, TileArgs};
use super::math::{TO_BASE_2, log};
use crate::pool::{Pool, SharedMut};
use pawl_graph::Mask;
use scratch::Scratch;
use std::f32::consts::LN_2;
use std::ops::Range;
use weights::{row_deltas, softmax_block, softmax_block_backward};

/// Queries of a block: scores of 96 x 192 (72 KiB) stay in the second-level cache.
const QUERY_BLOCK: usize = 96;
/// Keys of a block, a multiple of every panel.
const KEY_BLOCK: usize = 192;
/// Blocks of keys start at multiples of this: the widest panel.
const PANEL_MAX: usize = 32;
/// Stands for minus infinity where a difference of two of them must be 0.
const LOWEST: f32 = -1e30;

/// Sizes of an attention. q (B, T, H, D); k, v (B, T, K, D); H a multiple of K.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionDims {
    /// B
    pub num_seqs: usize,
    /// T
    pub seq_len: usize,
    /// H
    pub num_heads: usize,
    /// K
    pub num_kv_heads: usize,
    /// D
    pub head_dim: usize,
}

/// Floats of scratch that [`attention_forward`] needs.
pub fn attention_forward_scratch_len(num_threads: usize, dims: AttentionDims) -> usize {
    num_threads * Scratch::forward_len(dims)
}

/// Floats of scratch that [`attention_backward`] needs.
pub fn attention_backward_scratch_len(num_threads: usize, dims: AttentionDims) -> usize {
    num_threads * Scratch::backward_len(dims)
}

/// out  = (B, T, H, D)   softmax(scale q k^T) v over the keys that `mask` shows
/// lse  = (B, H, T)      log of the sum of exponentials of the scaled scores
/// q      (B, T, H, D)   read
/// k, v   (B, T, K, D)   read; query head h uses key/value head h / (H / K)
/// scratch at least `attention_forward_scratch_len` floats, overwritten
pub fn attention_forward(
    pool: &Pool,
    isa: Isa,
    scratch: &mut [f32],
    out: &mut [f32],
    lse: &mut [f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dims: AttentionDims,
    mask: Mask,
    scale: f32,
) {
    check(isa, dims, &[out.len(), q.len()], &[k.len(), v.len()], lse.len());
    let len = Scratch::forward_len(dims);
    assert!(scratch.len() >= pool.num_threads() * len, "attention scratch: {} floats", scratch.len());
    let (scratch, out, lse) = (SharedMut::new(scratch), SharedMut::new(out), SharedMut::new(lse));
    pool.run(dims.num_seqs * dims.num_kv_heads, &|task, worker| {
        let head = Head::new(dims, mask, scale, task);
        // SAFETY: a worker owns its scratch; tasks write disjoint heads of `out` and `lse`; sizes and the
        // instruction set were checked.
        unsafe {
            let scratch = Scratch::forward(scratch.part(worker * len, len), dims);
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => head.forward::<tile::Avx512>(isa, scratch, &out, &lse, q, k, v),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => head.forward::<tile::Avx2>(isa, scratch, &out, &lse, q, k, v),
                #[cfg(not(target_arch = "x86_64"))]
                Isa::Avx512 | Isa::Avx2 => unreachable!("asserted to be available"),
                Isa::Portable => head.forward::<Portable>(isa, scratch, &out, &lse, q, k, v),
            }
        }
    });
}

/// dq     = (B, T, H, D)
/// dk, dv = (B, T, K, D)   summed over the query heads of the group, in order
/// dout     (B, T, H, D)   read
/// out      (B, T, H, D)   read, saved by the forward pass
/// lse      (B, H, T)      read, saved by the forward pass
/// q        (B, T, H, D)   read
/// k, v     (B, T, K, D)   read
/// scratch  at least `attention_backward_scratch_len` floats, overwritten
pub fn attention_backward(
    pool: &Pool,
    isa: Isa,
    scratch: &mut [f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    dout: &[f32],
    out: &[f32],
    lse: &[f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dims: AttentionDims,
    mask: Mask,
    scale: f32,
) {
    let kv_lens = [dk.len(), dv.len(), k.len(), v.len()];
    check(isa, dims, &[dq.len(), dout.len(), out.len(), q.len()], &kv_lens, lse.len());
    let len = Scratch::backward_len(dims);
    assert!(scratch.len() >= pool.num_threads() * len, "attention scratch: {} floats", scratch.len());
    let scratch = SharedMut::new(scratch);
    let grads = Grads { dq: SharedMut::new(dq), dk: SharedMut::new(dk), dv: SharedMut::new(dv) };
    let saved = Saved { dout, out, lse, q, k, v };
    pool.run(dims.num_seqs * dims.num_kv_heads, &|task, worker| {
        let head = Head::new(dims, mask, scale, task);
        // SAFETY: as in the forward pass.
        unsafe {
            let scratch = Scratch::backward(scratch.part(worker * len, len), dims);
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => head.backward::<tile::Avx512>(isa, scratch, &grads, &saved),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => head.backward::<tile::Avx2>(isa, scratch, &grads, &saved),
                #[cfg(not(target_arch = "x86_64"))]
                Isa::Avx512 | Isa::Avx2 => unreachable!("asserted to be available"),
                Isa::Portable => head.backward::<Portable>(isa, scratch, &grads, &saved),
            }
        }
    });
}

fn check(isa: Isa, dims: AttentionDims, q_lens: &[usize], kv_lens: &[usize], lse_len: usize) {
    let AttentionDims { num_seqs, seq_len, num_heads, num_kv_heads, head_dim } = dims;
    assert!(isa.is_available(), "{isa:?} is not available on this machine");
    assert!(num_kv_heads > 0 && num_heads.is_multiple_of(num_kv_heads), "heads do not group: {dims:?}");
    assert!(seq_len > 0 && head_dim > 0, "empty attention {dims:?}");
    let rows = num_seqs * seq_len;
    assert!(q_lens.iter().all(|len| *len == rows * num_heads * head_dim), "(B, T, H, D) of {dims:?}");
    assert!(kv_lens.iter().all(|len| *len == rows * num_kv_heads * head_dim), "(B, T, K, D) of {dims:?}");
    assert!(lse_len == rows * num_heads, "(B, H, T) of {dims:?}");
}

/// What the backward pass reads.
struct Saved<'a> {
    dout: &'a [f32],
    out: &'a [f32],
    lse: &'a [f32],
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

/// What the backward pass writes.
struct Grads<'a> {
    dq: SharedMut<'a, f32>,
    dk: SharedMut<'a, f32>,
    dv: SharedMut<'a, f32>,
}

/// One key/value head of one sequence, the unit of parallel work.
#[derive(Clone, Copy)]
struct Head {
    dims: AttentionDims,
    mask: Mask,
    scale: f32,
    seq: usize,
    kv_head: usize,
}

/// A block of scores: which queries, which keys.
#[derive(Clone, Copy)]
struct Block {
    q0: usize,
    num_queries: usize,
    k0: usize,
    num_keys: usize,
}

impl Head {
    fn new(dims: AttentionDims, mask: Mask, scale: f32, task: usize) -> Head {
        Head { dims, mask, scale, seq: task / dims.num_kv_heads, kv_head: task % dims.num_kv_heads }
    }

    /// Elements from one position to the next in (B, T, H, D).
    fn q_row(&self) -> usize {
        self.dims.num_heads * self.dims.head_dim
    }

    /// Elements from one position to the next in (B, T, K, D).
    fn kv_row(&self) -> usize {
        self.dims.num_kv_heads * self.dims.head_dim
    }

    /// Where position `t` of query head `h` starts.
    fn q_at(&self, t: usize, h: usize) -> usize {
        (self.seq * self.dims.seq_len + t) * self.q_row() + h * self.dims.head_dim
    }

    /// Where position `t` of this key/value head starts.
    fn kv_at(&self, t: usize) -> usize {
        (self.seq * self.dims.seq_len + t) * self.kv_row() + self.kv_head * self.dims.head_dim
    }

    fn lse_at(&self, t: usize, h: usize) -> usize {
        (self.seq * self.dims.num_heads + h) * self.dims.seq_len + t
    }

    /// The query heads that share this key/value head.
    fn query_heads(&self) -> Range<usize> {
        let group = self.dims.num_heads / self.dims.num_kv_heads;
        self.kv_head * group..(self.kv_head + 1) * group
    }

    /// Keys that at least one of `queries` sees: a range, because masks are bands.
    fn keys_of(&self, queries: Range<usize>) -> Range<usize> {
        match self.mask {
            Mask::Full => 0..self.dims.seq_len,
            Mask::Causal { window } => queries.start.saturating_sub(window)..queries.end,
        }
    }

    /// Queries that see at least one of `keys`.
    fn queries_of(&self, keys: Range<usize>) -> Range<usize> {
        match self.mask {
            Mask::Full => 0..self.dims.seq_len,
            Mask::Causal { window } => keys.start..self.dims.seq_len.min(keys.end.saturating_add(window)),
        }
    }

    /// Blocks of queries.
    fn query_blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let seq_len = self.dims.seq_len;
        (0..seq_len).step_by(QUERY_BLOCK).map(move |q0| q0..seq_len.min(q0 + QUERY_BLOCK))
    }

    /// The blocks of scores that the queries see, first keys first.
    fn blocks(&self, queries: Range<usize>) -> impl Iterator<Item = Block> + use<> {
        let keys = self.keys_of(queries.clone());
        let (first, end) = (keys.start / PANEL_MAX * PANEL_MAX, keys.end);
        (first..end).step_by(KEY_BLOCK).map(move |k0| Block {
            q0: queries.start,
            num_queries: queries.len(),
            k0,
            num_keys: KEY_BLOCK.min(end - k0),
        })
    }

    /// The part of the block's keys that rows `rows` of the block see, relative to the block.
    fn keys_in(&self, block: Block, rows: Range<usize>) -> Range<usize> {
        let keys = self.keys_of(block.q0 + rows.start..block.q0 + rows.end);
        clip(keys, block.k0, block.num_keys)
    }

    /// The part of the block's queries that see keys `keys` of the block, relative to the block.
    fn queries_in(&self, block: Block, keys: Range<usize>) -> Range<usize> {
        let queries = self.queries_of(block.k0 + keys.start..block.k0 + keys.end);
        clip(queries, block.q0, block.num_queries)
    }

    /// dst = (T / COLS, D, COLS)   this head's part of `src` (B, T, K, D), a panel per COLS positions
    unsafe fn pack_panels<T: Tile>(&self, dst: &mut [f32], src: &[f32]) {
        let AttentionDims { seq_len, head_dim, .. } = self.dims;
        for t in (0..seq_len).step_by(T::COLS) {
            let cols = T::COLS.min(seq_len - t);
            let panel = &mut dst[t * head_dim..][..T::COLS * head_dim];
            let src = src[self.kv_at(t)..].as_ptr();
            // SAFETY: `cols` positions of this head lie in `src`, whose size was checked.
            unsafe { pack_b::<T>(panel.as_mut_ptr(), src, 1, self.kv_row(), head_dim, cols) };
        }
    }

    /// scores = (num_queries, num_keys)   a_rows (num_queries, D) * panels^T, where the mask shows anything
    unsafe fn scores<T: Tile>(&self, scores: &mut [f32], a_rows: &[f32], panels: &[f32], block: Block) {
        let head_dim = self.dims.head_dim;
        let args = TileArgs {
            k: head_dim,
            a: a_rows.as_ptr(),
            a_row: head_dim,
            a_col: 1,
            b: panels[block.k0 * head_dim..].as_ptr(),
            b_row: T::COLS,
            c: scores.as_mut_ptr(),
            c_row: KEY_BLOCK,
            add: false,
        };
        // SAFETY: blocks of scores, rows and panels are as large as the scratch was cut.
        unsafe {
            tiles::<T>(block.num_queries, block.num_keys, args, head_dim * T::COLS, |rows| {
                (self.keys_in(block, rows), 0..head_dim)
            });
        }
    }

    unsafe fn forward<T: Tile>(
        &self,
        isa: Isa,
        scratch: Scratch<'_>,
        out: &SharedMut<'_, f32>,
        lse: &SharedMut<'_, f32>,
        q: &[f32],
        k: &[f32],
        v: &[f32],
    ) {
        let AttentionDims { seq_len, head_dim, .. } = self.dims;
        let Scratch { k_panels, kv_columns: v_columns, q_rows, scores, row_a, row_b, row_c, .. } = scratch;
        // SAFETY: sizes were checked; `out` and `lse` of this task's heads belong to this task.
        unsafe {
            self.pack_panels::<T>(k_panels, k);
            let width = T::COLS.min(head_dim);
            copy_columns(v_columns, &v[self.kv_at(0)..], self.kv_row(), seq_len, head_dim, width);
            for h in self.query_heads() {
                for queries in self.query_blocks() {
                    let rows = queries.len();
                    let (peaks, totals, shrink) =
                        (&mut row_a[..rows], &mut row_b[..rows], &mut row_c[..rows]);
                    peaks.fill(LOWEST);
                    totals.fill(0.0);
                    let q_rows = &mut q_rows[..rows * head_dim];
                    copy_rows(q_rows, &q[self.q_at(queries.start, h)..], self.q_row(), head_dim);
                    let out_ptr = out.as_ptr().wrapping_add(self.q_at(queries.start, h));
                    let mut is_first = true;
                    for block in self.blocks(queries.clone()) {
                        self.scores::<T>(scores, q_rows, k_panels, block);
                        softmax_block(isa, scores, peaks, totals, shrink, *self, block);
                        if !is_first {
                            scale_rows(out_ptr, self.q_row(), head_dim, shrink);
                        }
                        let args = TileArgs {
                            k: block.num_keys,
                            a: scores.as_ptr(),
                            a_row: KEY_BLOCK,
                            a_col: 1,
                            b: v_columns[block.k0 * width..].as_ptr(),
                            b_row: width,
                            c: out_ptr,
                            c_row: self.q_row(),
                            add: !is_first,
                        };
                        tiles::<T>(rows, head_dim, args, seq_len * width, |rows| {
                            (0..head_dim, self.keys_in(block, rows))
                        });
                        is_first = false;
                    }
                    let lse = lse.part(self.lse_at(queries.start, h), rows);
                    for r in 0..rows {
                        lse[r] = peaks[r] * LN_2 + log::<false>(totals[r]);
                        shrink[r] = 1.0 / totals[r];
                    }
                    scale_rows(out_ptr, self.q_row(), head_dim, shrink);
                }
            }
        }
    }

    unsafe fn backward<T: Tile>(&self, isa: Isa, scratch: Scratch<'_>, grads: &Grads<'_>, saved: &Saved<'_>) {
        let AttentionDims { seq_len, head_dim, .. } = self.dims;
        let Scratch {
            k_panels,
            v_panels,
            kv_columns: k_columns,
            q_rows,
            dout_rows,
            q_columns,
            dout_columns,
            scores,
            dscores,
            row_a,
            row_b,
            ..
        } = scratch;
        let (q_row, kv_row) = (self.q_row(), self.kv_row());
        // SAFETY: sizes were checked; gradients of this task's heads belong to this task.
        unsafe {
            self.pack_panels::<T>(k_panels, saved.k);
            self.pack_panels::<T>(v_panels, saved.v);
            let width = T::COLS.min(head_dim);
            copy_columns(k_columns, &saved.k[self.kv_at(0)..], kv_row, seq_len, head_dim, width);
            for t in 0..seq_len {
                grads.dk.part(self.kv_at(t), head_dim).fill(0.0);
                grads.dv.part(self.kv_at(t), head_dim).fill(0.0);
            }
            for h in self.query_heads() {
                for queries in self.query_blocks() {
                    let (rows, at) = (queries.len(), self.q_at(queries.start, h));
                    let (q_rows, dout_rows) =
                        (&mut q_rows[..rows * head_dim], &mut dout_rows[..rows * head_dim]);
                    copy_rows(q_rows, &saved.q[at..], q_row, head_dim);
                    copy_rows(dout_rows, &saved.dout[at..], q_row, head_dim);
                    copy_columns(q_columns, q_rows, head_dim, rows, head_dim, width);
                    copy_columns(dout_columns, dout_rows, head_dim, rows, head_dim, width);
                    let (peaks, deltas) = (&mut row_a[..rows], &mut row_b[..rows]);
                    row_deltas(isa, deltas, dout_rows, &saved.out[at..], q_row);
                    for r in 0..rows {
                        peaks[r] = saved.lse[self.lse_at(queries.start + r, h)] * TO_BASE_2;
                    }
                    let mut is_first = true;
                    for block in self.blocks(queries.clone()) {
                        self.scores::<T>(scores, q_rows, k_panels, block);
                        self.scores::<T>(dscores, dout_rows, v_panels, block);
                        softmax_block_backward(isa, scores, dscores, peaks, deltas, *self, block);
                        let dq = TileArgs {
                            k: block.num_keys,
                            a: dscores.as_ptr(),
                            a_row: KEY_BLOCK,
                            a_col: 1,
                            b: k_columns[block.k0 * width..].as_ptr(),
                            b_row: width,
                            c: grads.dq.as_ptr().wrapping_add(at),
                            c_row: q_row,
                            add: !is_first,
                        };
                        tiles::<T>(rows, head_dim, dq, seq_len * width, |rows| {
                            (0..head_dim, self.keys_in(block, rows))
                        });
                        for (weights, from, to) in
                            [(&*scores, &*dout_columns, &grads.dv), (&*dscores, &*q_columns, &grads.dk)]
                        {
                            let args = TileArgs {
                                k: rows,
                                a: weights.as_ptr(),
                                a_row: 1,
                                a_col: KEY_BLOCK,
                                b: from.as_ptr(),
                                b_row: width,
                                c: to.as_ptr().wrapping_add(self.kv_at(block.k0)),
                                c_row: kv_row,
                                add: true,
                            };
                            tiles::<T>(block.num_keys, head_dim, args, rows * width, |keys| {
                                (0..head_dim, self.queries_in(block, keys))
                            });
                        }
                        is_first = false;
                    }
                }
            }
        }
    }
}

/// `range` inside `start .. start + len`, relative to `start`.
fn clip(range: Range<usize>, start: usize, len: usize) -> Range<usize> {
    let clip = |x: usize| x.saturating_sub(start).min(len);
    clip(range.start)..clip(range.end)
}

/// c (rows, cols) = or += a * b tile by tile. `limits` gives, for a tile's rows, the columns it must
/// write and the terms k that are not 0. Panels of B are `panel_step` elements apart.
unsafe fn tiles<T: Tile>(
    rows: usize,
    cols: usize,
    args: TileArgs,
    panel_step: usize,
    limits: impl Fn(Range<usize>) -> (Range<usize>, Range<usize>),
) {
    for (panel, col) in (0..cols).step_by(T::COLS).enumerate() {
        for row in (0..rows).step_by(T::ROWS) {
            let num_rows = T::ROWS.min(rows - row);
            let (wanted, terms) = limits(row..row + num_rows);
            let is_wanted = col < wanted.end && col + T::COLS > wanted.start;
            if !is_wanted || (terms.is_empty() && args.add) {
                continue;
            }
            let tile = TileArgs {
                k: terms.len(),
                a: args.a.wrapping_add(row * args.a_row + terms.start * args.a_col),
                b: args.b.wrapping_add(panel * panel_step + terms.start * args.b_row),
                c: args.c.wrapping_add(row * args.c_row + col),
                ..args
            };
            // SAFETY: a tile of the product that the caller promised.
            unsafe { T::run(num_rows, T::COLS.min(cols - col), tile) };
        }
    }
}

/// dst = (rows, width)   rows of `src` that are `src_row` apart
fn copy_rows(dst: &mut [f32], src: &[f32], src_row: usize, width: usize) {
    for (r, dst) in dst.chunks_exact_mut(width).enumerate() {
        dst.copy_from_slice(&src[r * src_row..][..width]);
    }
}

/// dst = (D / width, rows, width)   rows of `src` (rows, D) that are `src_row` apart, cut into columns
fn copy_columns(dst: &mut [f32], src: &[f32], src_row: usize, rows: usize, head_dim: usize, width: usize) {
    for (column, first) in (0..head_dim).step_by(width).enumerate() {
        let len = width.min(head_dim - first);
        for r in 0..rows {
            let to = (column * rows + r) * width;
            dst[to..to + len].copy_from_slice(&src[r * src_row + first..][..len]);
        }
    }
}

/// Multiplies row r of a (rows, width) matrix by `factors[r]`.
unsafe fn scale_rows(data: *mut f32, row: usize, width: usize, factors: &[f32]) {
    for (r, factor) in factors.iter().enumerate() {
        if *factor == 1.0 {
            continue;
        }
        // SAFETY: the caller owns these rows.
        let row = unsafe { std::slice::from_raw_parts_mut(data.wrapping_add(r * row), width) };
        for x in row {
            *x *= factor;
        }
    }
}

#[cfg(test)]
mod tests;
