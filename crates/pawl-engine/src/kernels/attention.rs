//! Causal attention that never holds a T x T matrix (FlashAttention: Dao et al. 2022, arXiv 2205.14135).
//!
//! One task handles one key/value head of one sequence: it packs that head's operands once, then walks
//! strips of as many rows as a tile has. A strip's scores stay in the first-level cache between their
//! product and the products that read them. The rows of a strip are queries in the forward pass, and keys
//! in the backward pass, so that outputs, and gradients of keys and values, are sums over long rows.
//! Gradients of keys and values are summed inside one task, in one order. What the mask hides from a whole
//! strip is skipped, by vectors of 16. It refuses dropout and biases of scores.

mod ahead;
mod backward;
mod forward;
mod pack;
mod scratch;
mod weights;

#[cfg(target_arch = "x86_64")]
use super::gemm::amx;
use super::gemm::bf16::{self, Rounded};
use super::gemm::halve;
use super::gemm::tile::{self, Portable, Tile, TileArgs};
use super::lanes::LANES;
use super::{Isa, Precision};
use crate::pool::{Pool, SharedMut};
use ahead::Ahead;
use backward::Backward;
use forward::Forward;
use pawl_graph::Mask;
use scratch::Scratch;
use std::ops::Range;

/// Positions that panels, blocks and chunks start at multiples of: the widest panel.
const PANEL_MAX: usize = 32;

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

/// Calls something generic over the tile of an instruction set and a precision.
macro_rules! with_tile {
    ($isa:expr, $precision:expr, $tile:ident => $call:expr) => {
        match ($isa, $precision) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, Precision::F32) => {
                type $tile = tile::Avx512;
                $call
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, Precision::Bf16) if amx::is_available() => {
                type $tile = amx::Amx<1>;
                $call
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, Precision::Bf16) if super::has_bf16() => {
                type $tile = bf16::Avx512Bf16;
                $call
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, Precision::Bf16) => {
                type $tile = Rounded<tile::Avx512>;
                $call
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::F32) => {
                type $tile = tile::Avx2;
                $call
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::Bf16) => {
                type $tile = Rounded<tile::Avx2>;
                $call
            }
            #[cfg(not(target_arch = "x86_64"))]
            (Isa::Avx512 | Isa::Avx2, _) => unreachable!("asserted to be available"),
            (Isa::Portable, Precision::F32) => {
                type $tile = Portable;
                $call
            }
            (Isa::Portable, Precision::Bf16) => {
                type $tile = Rounded<Portable>;
                $call
            }
        }
    };
}

/// out  = (B, T, H, D)   softmax(scale q k^T) v over the keys that `mask` shows
/// lse  = (B, H, T)      log of the sum of exponentials of the scaled scores
/// halves = out rounded to bfloat16, two elements in four bytes, D even; or empty
/// q      (B, T, H, D)   read
/// k, v   (B, T, K, D)   read; query head h uses key/value head h / (H / K)
/// scratch at least `attention_forward_scratch_len` floats, overwritten
pub fn attention_forward(
    pool: &Pool,
    isa: Isa,
    precision: Precision,
    scratch: &mut [f32],
    out: &mut [f32],
    lse: &mut [f32],
    halves: &mut [f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dims: AttentionDims,
    mask: Mask,
    scale: f32,
) {
    check(isa, dims, &[out.len(), q.len()], &[k.len(), v.len()], lse.len());
    check_halves(halves, out.len(), dims);
    let len = Scratch::forward_len(dims);
    assert!(scratch.len() >= pool.num_threads() * len, "attention scratch: {} floats", scratch.len());
    let (scratch, lse) = (SharedMut::new(scratch), SharedMut::new(lse));
    let (out, halves) = (SharedMut::new(out), SharedMut::new(halves));
    pool.run(dims.num_seqs * dims.num_kv_heads, &|task, worker| {
        let head = Head::new(dims, mask, scale, task);
        // SAFETY: a worker owns its scratch; tasks write disjoint heads of `out` and `lse`; sizes and the
        // instruction set were checked.
        unsafe {
            let scratch = Scratch::forward(scratch.part(worker * len, len), dims);
            let ahead = Ahead::new(head.after(pool.num_threads()), &[q], &[k, v]);
            with_tile!(isa, precision, T => {
             Forward { isa, scratch, out: &out, lse: &lse, halves: &halves, ahead }.run::<T>(head, q, k, v)
            });
        }
    });
}

/// dq     = (B, T, H, D)
/// dk, dv = (B, T, K, D)   summed over the query heads of the group, in order
/// halves = each of the three rounded to bfloat16, two elements in four bytes, D even; or empty
/// dout     (B, T, H, D)   read
/// out      (B, T, H, D)   read, saved by the forward pass
/// lse      (B, H, T)      read, saved by the forward pass
/// q        (B, T, H, D)   read
/// k, v     (B, T, K, D)   read
/// scratch  at least `attention_backward_scratch_len` floats, overwritten
pub fn attention_backward(
    pool: &Pool,
    isa: Isa,
    precision: Precision,
    scratch: &mut [f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    halves: [&mut [f32]; 3],
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
    for (halves, len) in halves.iter().zip([dq.len(), dk.len(), dv.len()]) {
        check_halves(halves, len, dims);
    }
    let len = Scratch::backward_len(dims);
    assert!(scratch.len() >= pool.num_threads() * len, "attention scratch: {} floats", scratch.len());
    let scratch = SharedMut::new(scratch);
    let (dq, dk, dv) = (SharedMut::new(dq), SharedMut::new(dk), SharedMut::new(dv));
    let grads = Grads { dq, dk, dv, halves: halves.map(SharedMut::new) };
    let saved = Saved { dout, out, lse, q, k, v };
    pool.run(dims.num_seqs * dims.num_kv_heads, &|task, worker| {
        let head = Head::new(dims, mask, scale, task);
        // SAFETY: as in the forward pass.
        unsafe {
            let scratch = Scratch::backward(scratch.part(worker * len, len), dims);
            let ahead = Ahead::new(head.after(pool.num_threads()), &[q, dout, out], &[k, v]);
            with_tile!(isa, precision, T => Backward { isa, scratch, grads: &grads, ahead }.run::<T>(head, &saved));
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

fn check_halves(halves: &[f32], len: usize, dims: AttentionDims) {
    let is_whole = dims.head_dim.is_multiple_of(2) && 2 * halves.len() == len;
    assert!(halves.is_empty() || is_whole, "{} halves of {len} of {dims:?}", halves.len());
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
    /// Of each of them, or empty.
    halves: [SharedMut<'a, f32>; 3],
}

/// Rounds rows of a head that lie `row` elements apart from element `at` on, where halves are wanted.
///
/// # Safety
/// The rows are in bounds, and nobody else writes them or their halves.
unsafe fn halve_rows(
    isa: Isa,
    halves: &SharedMut<'_, f32>,
    floats: &SharedMut<'_, f32>,
    at: usize,
    row: usize,
    num_rows: usize,
    head_dim: usize,
) {
    if halves.is_empty() {
        return;
    }
    for at in (at..).step_by(row).take(num_rows) {
        // SAFETY: the promise of the caller; rows begin at even elements.
        unsafe {
            let to = halves.part(at / 2, head_dim / 2).as_mut_ptr();
            halve(isa, to, floats.part(at, head_dim).as_ptr(), head_dim);
        }
    }
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

/// A strip of scores: as many rows as a tile has against a chunk of columns.
#[derive(Clone, Copy)]
struct Strip {
    /// Position of the first row.
    row0: usize,
    num_rows: usize,
    /// Position of column 0, a multiple of every panel.
    col0: usize,
    /// Columns that some row sees.
    begin: usize,
    end: usize,
    /// `begin`, or what is left of it in its vector.
    first: usize,
}

impl Strip {
    /// The `rows` against what the chunk `cols` has of the columns they see, if anything.
    fn new(rows: Range<usize>, cols: &Range<usize>, seen: Range<usize>) -> Option<Strip> {
        let seen = clip(seen, cols.start, cols.len());
        let first = seen.start / LANES * LANES;
        let strip = Strip {
            row0: rows.start,
            num_rows: rows.len(),
            col0: cols.start,
            begin: seen.start,
            end: seen.end,
            first,
        };
        (!seen.is_empty()).then_some(strip)
    }

    /// Vectors of columns, hidden lanes at both ends included.
    fn vectors(&self) -> Range<usize> {
        self.first..self.end.next_multiple_of(LANES)
    }

    /// Columns that a tile of the other operand's rows may read here: a tile's rows more at both ends.
    fn margin(&self, row: usize) -> Range<usize> {
        self.first.saturating_sub(LANES)..row.min(self.vectors().end + LANES)
    }

    /// scores (num_rows, ..) = a_rows (num_rows, D) * panels^T   in the columns `first .. end`
    unsafe fn scores<T: Tile>(
        &self,
        ahead: &mut Ahead<'_>,
        scores: *mut f32,
        row: usize,
        a_rows: *const f32,
        panels: &[f32],
        head_dim: usize,
    ) {
        let slots = head_dim.div_ceil(T::PER_SLOT);
        for panel in (self.first / T::COLS * T::COLS..self.end).step_by(T::COLS) {
            let (col, end) = (panel.max(self.first), self.end.min(panel + T::COLS));
            let args = TileArgs {
                k: slots,
                a: a_rows,
                a_row: slots,
                a_col: 1,
                b: panels[(self.col0 + panel) * slots + col - panel..].as_ptr(),
                b_row: T::COLS,
                c: scores.wrapping_add(col),
                c_row: row,
                add: false,
                addend: std::ptr::null(),
                addend_row: 0,
            };
            ahead.step();
            // SAFETY: the caller promises rows of A and of scores; panels cover every position.
            unsafe { T::run(self.num_rows, end - col, args) };
        }
    }

    /// Rounds rows `row` elements apart to what tiles read, in place, from column `first` on.
    unsafe fn convert<T: Tile>(&self, rows: *mut f32, row: usize) {
        if T::CONVERTS {
            for r in 0..self.num_rows {
                let at = rows.wrapping_add(r * row + self.first);
                // SAFETY: the caller promises the rows; slots never run ahead of what they are made of.
                unsafe { T::pack_row(at, at, self.end - self.first) };
            }
        }
    }

    /// c (num_rows, D) = or += weights (num_rows, begin .. end) * columns (begin .. end, D)
    unsafe fn combine<T: Tile>(
        &self,
        ahead: &mut Ahead<'_>,
        weights: *const f32,
        row: usize,
        columns: &[f32],
        c: *mut f32,
        c_row: usize,
        dims: AttentionDims,
        add: bool,
    ) {
        let AttentionDims { seq_len, head_dim, .. } = dims;
        let width = T::COLS.min(head_dim);
        let column_len = seq_len.div_ceil(T::PER_SLOT) * width;
        // Slots that hold nothing but columns left of `begin`.
        let skip = (self.begin - self.first) / T::PER_SLOT;
        let first_slot = (self.col0 + self.first) / T::PER_SLOT + skip;
        for (column, col) in (0..head_dim).step_by(width).enumerate() {
            let from = column * column_len + first_slot * width;
            let args = TileArgs {
                k: (self.end - self.first).div_ceil(T::PER_SLOT) - skip,
                a: weights.wrapping_add(self.first + skip),
                a_row: row,
                a_col: 1,
                b: columns[from..].as_ptr(),
                b_row: width,
                c: c.wrapping_add(col),
                c_row,
                add,
                addend: std::ptr::null(),
                addend_row: 0,
            };
            ahead.step();
            // SAFETY: the caller promises the rows of weights and C; columns hold every position.
            unsafe { T::run(self.num_rows, width.min(head_dim - col), args) };
        }
    }
}

impl Head {
    /// Number `task` in the order in which tasks are claimed.
    fn new(dims: AttentionDims, mask: Mask, scale: f32, task: usize) -> Head {
        Head { dims, mask, scale, seq: task / dims.num_kv_heads, kv_head: task % dims.num_kv_heads }
    }

    /// The head that this worker will probably take next, when all take turns.
    fn after(self, num_threads: usize) -> Option<Head> {
        let task = self.seq * self.dims.num_kv_heads + self.kv_head + num_threads;
        let is_task = task < self.dims.num_seqs * self.dims.num_kv_heads;
        is_task.then(|| Head::new(self.dims, self.mask, self.scale, task))
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
}

/// `range` cut into parts of at most `len`.
fn parts(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(len).map(move |start| start..end.min(start + len))
}

/// `range` cut into parts of at most `len` that start at multiples of every panel, the first a little early.
fn chunks(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    parts(range.start / PANEL_MAX * PANEL_MAX..range.end, len)
}

/// `range` inside `start .. start + len`, relative to `start`.
fn clip(range: Range<usize>, start: usize, len: usize) -> Range<usize> {
    let clip = |x: usize| x.saturating_sub(start).min(len);
    clip(range.start)..clip(range.end)
}

#[cfg(test)]
mod tests;
