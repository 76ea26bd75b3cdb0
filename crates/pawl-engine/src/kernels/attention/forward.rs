//! The forward pass of one head: strips of queries against chunks of keys.

use super::pack::{pack_columns, pack_panels, pack_rows};
use super::scratch::{KEY_CHUNK, KEY_STRIDE, QUERY_BLOCK};
use super::weights::{scale_rows, softmax_strip};
use super::{Ahead, Head, Scratch, Strip, chunks, halve_rows, parts};
use crate::kernels::Isa;
use crate::kernels::gemm::tile::Tile;
use crate::kernels::math::log;
use crate::pool::SharedMut;
use std::f32::consts::LN_2;
use std::ops::Range;

/// Stands for minus infinity where a difference of two of them must be 0.
const LOWEST: f32 = -1e30;

/// What a forward pass writes and where it works.
pub(super) struct Forward<'a> {
    pub(super) isa: Isa,
    pub(super) scratch: Scratch<'a>,
    pub(super) ahead: Ahead<'a>,
    pub(super) out: &'a SharedMut<'a, f32>,
    pub(super) lse: &'a SharedMut<'a, f32>,
    pub(super) halves: &'a SharedMut<'a, f32>,
}

impl Forward<'_> {
    /// # Safety
    /// The instruction set of `T` is available, sizes were checked, and this task alone writes its heads.
    pub(super) unsafe fn run<T: Tile>(mut self, head: Head, q: &[f32], k: &[f32], v: &[f32]) {
        let (seq_len, head_dim) = (head.dims.seq_len, head.dims.head_dim);
        let (k, v) = (&k[head.kv_at(0)..], &v[head.kv_at(0)..]);
        // SAFETY: the promise of the caller; scratch was cut for these sizes.
        unsafe {
            pack_panels::<T>(self.scratch.panels[0], k, head.kv_row(), seq_len, head_dim);
            pack_columns::<T>(self.scratch.columns[0], v, head.kv_row(), seq_len, head_dim);
            T::begin();
            for h in head.query_heads() {
                for queries in parts(0..seq_len, QUERY_BLOCK) {
                    self.block::<T>(head, h, queries, q);
                }
            }
            T::end();
        }
    }

    /// The queries of one block, against every key that they see.
    unsafe fn block<T: Tile>(&mut self, head: Head, h: usize, queries: Range<usize>, q: &[f32]) {
        let (num_rows, head_dim) = (queries.len(), head.dims.head_dim);
        let at = head.q_at(queries.start, h);
        self.scratch.stats[0][..num_rows].fill(LOWEST);
        self.scratch.stats[1][..num_rows].fill(0.0);
        // SAFETY: the promise of the caller of `run`.
        unsafe {
            pack_rows::<T>(self.scratch.rows[0], &q[at..], head.q_row(), num_rows, head_dim);
            for keys in chunks(head.keys_of(queries.clone()), KEY_CHUNK) {
                for part in parts(queries.clone(), T::ROWS) {
                    let seen = head.keys_of(part.clone());
                    let is_first = seen.start >= keys.start;
                    if let Some(strip) = Strip::new(part.clone(), &keys, seen) {
                        self.strip::<T>(head, h, strip, part.start - queries.start, is_first);
                    }
                }
            }
            let [peaks, totals, shrink] = &mut self.scratch.stats;
            let lse = self.lse.part(head.lse_at(queries.start, h), num_rows);
            for r in 0..num_rows {
                lse[r] = peaks[r] * LN_2 + log::<false>(totals[r]);
                shrink[r] = 1.0 / totals[r];
            }
            scale_rows(self.isa, self.out, at, head.q_row(), head_dim, &shrink[..num_rows]);
            halve_rows(self.isa, self.halves, self.out, at, head.q_row(), num_rows, head_dim);
        }
    }

    /// One strip: scores, weights, and what the weights add to the output. `r` is its row in the block.
    unsafe fn strip<T: Tile>(&mut self, head: Head, h: usize, strip: Strip, r: usize, is_first: bool) {
        let head_dim = head.dims.head_dim;
        let Scratch { panels, columns, rows, strips, stats, .. } = &mut self.scratch;
        let a_rows = rows[0][r * head_dim.div_ceil(T::PER_SLOT)..].as_ptr();
        let out_at = head.q_at(strip.row0, h);
        let scores = &mut *strips[0];
        let [peaks, totals, shrink] = stats.each_mut().map(|stats| &mut stats[r..r + strip.num_rows]);
        // SAFETY: the promise of the caller of `run`.
        unsafe {
            strip.scores::<T>(&mut self.ahead, scores.as_mut_ptr(), KEY_STRIDE, a_rows, panels[0], head_dim);
            softmax_strip(self.isa, scores, peaks, totals, shrink, head, strip);
            if !is_first {
                scale_rows(self.isa, self.out, out_at, head.q_row(), head_dim, shrink);
            }
            strip.convert::<T>(scores.as_mut_ptr(), KEY_STRIDE);
            let out = self.out.as_ptr().wrapping_add(out_at);
            strip.combine::<T>(
                &mut self.ahead,
                scores.as_ptr(),
                KEY_STRIDE,
                columns[0],
                out,
                head.q_row(),
                head.dims,
                !is_first,
            );
        }
    }
}
