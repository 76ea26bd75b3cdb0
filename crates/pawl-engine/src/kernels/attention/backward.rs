//! The backward pass of one head: strips of keys against chunks of queries.
//!
//! With keys as rows, weights and gradients of scores are the left operands of the products that give dv
//! and dk as they lie, and the left operand of the product that gives dq when walked down the columns.

use super::pack::{pack_columns, pack_panels, pack_rows};
use super::scratch::{KEY_BLOCK, KEY_SLOTS, QUERY_CHUNK, QUERY_STRIDE};
use super::weights::{row_deltas, softmax_strip_backward};
use super::{Ahead, Grads, Head, Saved, Scratch, Strip, chunks, clip, halve_rows, parts};
use crate::kernels::Isa;
use crate::kernels::gemm::tile::{Tile, TileArgs};
use crate::kernels::math::TO_BASE_2;
use std::ops::Range;

/// What a backward pass writes and where it works.
pub(super) struct Backward<'a> {
    pub(super) isa: Isa,
    pub(super) scratch: Scratch<'a>,
    pub(super) ahead: Ahead<'a>,
    pub(super) grads: &'a Grads<'a>,
}

impl Backward<'_> {
    /// # Safety
    /// The instruction set of `T` is available, sizes were checked, and this task alone writes its heads.
    pub(super) unsafe fn run<T: Tile>(mut self, head: Head, saved: &Saved<'_>) {
        let (seq_len, head_dim) = (head.dims.seq_len, head.dims.head_dim);
        let (k, v) = (&saved.k[head.kv_at(0)..], &saved.v[head.kv_at(0)..]);
        // SAFETY: the promise of the caller; scratch was cut for these sizes.
        unsafe {
            T::begin();
            pack_columns::<T>(self.scratch.columns[2], k, head.kv_row(), seq_len, head_dim);
            for h in head.query_heads() {
                self.pack_queries::<T>(head, h, saved);
                if adds_to_zero(head) {
                    for t in 0..seq_len {
                        self.grads.dq.part(head.q_at(t, h), head_dim).fill(0.0);
                    }
                }
                for keys in parts(0..seq_len, KEY_BLOCK) {
                    let rows = &mut self.scratch.rows;
                    for (rows, src) in rows.iter_mut().zip([k, v]) {
                        let src = &src[keys.start * head.kv_row()..];
                        pack_rows::<T>(rows, src, head.kv_row(), keys.len(), head_dim);
                    }
                    for queries in chunks(head.queries_of(keys.clone()), QUERY_CHUNK) {
                        for part in parts(keys.clone(), T::ROWS) {
                            let seen = head.queries_of(part.clone());
                            let is_first = h == head.query_heads().start && seen.start >= queries.start;
                            if let Some(strip) = Strip::new(part.clone(), &queries, seen) {
                                self.strip::<T>(head, strip, part.start - keys.start, !is_first);
                            }
                        }
                        for part in parts(queries.clone(), T::ROWS) {
                            self.dq::<T>(head, h, part, queries.start, &keys);
                        }
                    }
                }
            }
            T::end();
            let Grads { dq, dk, dv, halves } = self.grads;
            for h in head.query_heads() {
                halve_rows(self.isa, &halves[0], dq, head.q_at(0, h), head.q_row(), seq_len, head_dim);
            }
            for (grad, halves) in [dk, dv].into_iter().zip(&halves[1..]) {
                halve_rows(self.isa, halves, grad, head.kv_at(0), head.kv_row(), seq_len, head_dim);
            }
        }
    }

    /// What the strips read of one query head.
    unsafe fn pack_queries<T: Tile>(&mut self, head: Head, h: usize, saved: &Saved<'_>) {
        let (seq_len, head_dim, at) = (head.dims.seq_len, head.dims.head_dim, head.q_at(0, h));
        let Scratch { panels, columns, stats: [peaks, deltas, _], .. } = &mut self.scratch;
        for (i, src) in [&saved.q[at..], &saved.dout[at..]].into_iter().enumerate() {
            // SAFETY: the promise of the caller of `run`.
            unsafe {
                pack_panels::<T>(panels[i], src, head.q_row(), seq_len, head_dim);
                pack_columns::<T>(columns[i], src, head.q_row(), seq_len, head_dim);
            }
        }
        let deltas = &mut deltas[..seq_len];
        row_deltas(self.isa, deltas, &saved.dout[at..], &saved.out[at..], head.q_row(), head_dim, head.scale);
        for (peak, lse) in peaks.iter_mut().zip(&saved.lse[head.lse_at(0, h)..][..seq_len]) {
            *peak = lse * TO_BASE_2;
        }
    }

    /// Weights and gradients of scores of one strip, and what they give dv and dk. `r` is its row in the
    /// block.
    unsafe fn strip<T: Tile>(&mut self, head: Head, strip: Strip, r: usize, add: bool) {
        let head_dim = head.dims.head_dim;
        let Scratch { panels, columns, rows, strips: [scores, dscores], block, stats } = &mut self.scratch;
        let at = r * head_dim.div_ceil(T::PER_SLOT);
        let block = &mut block[r / T::PER_SLOT * block_strides::<T>().1..];
        // Where tiles read float32, gradients of scores are made where the product for dq reads them.
        let (dscores, slots) = if T::CONVERTS { (&mut **dscores, Some(block)) } else { (block, None) };
        let (peaks, deltas) = (&stats[0][strip.col0..], &stats[1][strip.col0..]);
        // SAFETY: the promise of the caller of `run`.
        unsafe {
            strip.scores::<T>(
                &mut self.ahead,
                scores.as_mut_ptr(),
                QUERY_STRIDE,
                rows[0][at..].as_ptr(),
                panels[0],
                head_dim,
            );
            strip.scores::<T>(
                &mut self.ahead,
                dscores.as_mut_ptr(),
                QUERY_STRIDE,
                rows[1][at..].as_ptr(),
                panels[1],
                head_dim,
            );
            softmax_strip_backward(self.isa, scores, dscores, peaks, deltas, head, strip);
            if let Some(slots) = slots {
                // Lanes are queries, terms keys: as the product for dq reads them.
                let (margin, rows) = (strip.margin(QUERY_STRIDE), strip.num_rows);
                let to = slots[margin.start * block_strides::<T>().0..].as_mut_ptr();
                let from = dscores[margin.start..].as_ptr();
                if T::READS_ROWS {
                    T::pack_rows(to, KEY_SLOTS, from, QUERY_STRIDE, 1, rows, margin.len());
                } else {
                    T::pack(to, QUERY_STRIDE, from, QUERY_STRIDE, 1, rows, margin.len());
                }
            }
            for (i, (weights, to)) in
                [(&mut **scores, &self.grads.dv), (dscores, &self.grads.dk)].into_iter().enumerate()
            {
                strip.convert::<T>(weights.as_mut_ptr(), QUERY_STRIDE);
                let to = to.as_ptr().wrapping_add(head.kv_at(strip.row0));
                let weights = weights.as_ptr();
                strip.combine::<T>(
                    &mut self.ahead,
                    weights,
                    QUERY_STRIDE,
                    columns[1 - i],
                    to,
                    head.kv_row(),
                    head.dims,
                    add,
                );
            }
        }
    }

    /// dq of one tile of a chunk's queries, of which `from` is the first: what the block of `keys` adds.
    unsafe fn dq<T: Tile>(
        &mut self,
        head: Head,
        h: usize,
        queries: Range<usize>,
        from: usize,
        keys: &Range<usize>,
    ) {
        let (seq_len, head_dim) = (head.dims.seq_len, head.dims.head_dim);
        let seen = head.keys_of(queries.clone());
        let seen = clip(seen, keys.start, keys.len());
        if seen.is_empty() {
            return;
        }
        let (slot, width) = (seen.start / T::PER_SLOT, T::COLS.min(head_dim));
        let column_len = seq_len.div_ceil(T::PER_SLOT) * width;
        let (a_row, a_col) = block_strides::<T>();
        for (column, col) in (0..head_dim).step_by(width).enumerate() {
            let b = column * column_len + (keys.start / T::PER_SLOT + slot) * width;
            let args = TileArgs {
                k: seen.end.div_ceil(T::PER_SLOT) - slot,
                a: self.scratch.block[slot * a_col + (queries.start - from) * a_row..].as_ptr(),
                a_row,
                a_col,
                b: self.scratch.columns[2][b..].as_ptr(),
                b_row: width,
                c: self.grads.dq.as_ptr().wrapping_add(head.q_at(queries.start, h) + col),
                c_row: head.q_row(),
                add: keys.start > 0 || adds_to_zero(head),
                addend: std::ptr::null(),
                addend_row: 0,
            };
            self.ahead.step();
            // SAFETY: the promise of the caller of `run`; strips wrote every gradient of a score that is read.
            unsafe { T::run(queries.len(), width.min(head_dim - col), args) };
        }
    }
}

/// From one query to the next, and from one slot of keys to the next, in a block of gradients of scores.
fn block_strides<T: Tile>() -> (usize, usize) {
    if T::READS_ROWS { (KEY_SLOTS, 1) } else { (1, QUERY_STRIDE) }
}

/// Whether a window hides the first block of keys from some queries, so that it cannot be what sets dq.
fn adds_to_zero(head: Head) -> bool {
    head.queries_of(0..1).end < head.dims.seq_len
}
