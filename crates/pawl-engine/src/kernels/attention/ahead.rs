//! Asks for what the next head reads while this one is computed.
//!
//! Rows of a head lie apart, so the machine's own prefetcher does not follow them: without this, waiting
//! for memory took a quarter to a third of the time of a head of 256 x 64.

use super::{AttentionDims, Head};

/// Bytes of a cache line.
const LINE: usize = 64;
/// Lines asked for beside one tile: as many as a core of Zen 4 can wait for at a time.
const LINES_PER_TILE: usize = 24;
/// Floats of one tensor of a head above which asking early would drive out what is in use: four of them
/// fill half of the second-level cache.
const MAX_LEN: usize = 32 * 1024;

/// Rows of a few tensors, walked together.
pub(super) struct Ahead<'a> {
    /// Each tensor from its first row on, and the elements from one row to the next.
    sources: [(&'a [f32], usize); 5],
    num_sources: usize,
    num_rows: usize,
    head_dim: usize,
    source: usize,
    row: usize,
}

impl<'a> Ahead<'a> {
    /// What `head`, if there is one, reads of tensors (B, T, H, D) and (B, T, K, D).
    pub(super) fn new(head: Option<Head>, queries: &[&'a [f32]], keys: &[&'a [f32]]) -> Ahead<'a> {
        let mut ahead =
            Ahead { sources: [(&[], 0); 5], num_sources: 0, num_rows: 0, head_dim: 0, source: 0, row: 0 };
        let Some(head) = head else { return ahead };
        let AttentionDims { seq_len, head_dim, .. } = head.dims;
        if seq_len * head_dim > MAX_LEN {
            return ahead;
        }
        let at = head.q_at(0, head.query_heads().start);
        let queries = queries.iter().map(|x| (&x[at..], head.q_row()));
        let keys = keys.iter().map(|x| (&x[head.kv_at(0)..], head.kv_row()));
        for (slot, source) in ahead.sources.iter_mut().zip(queries.chain(keys)) {
            *slot = source;
            ahead.num_sources += 1;
        }
        Ahead { num_rows: seq_len, head_dim, ..ahead }
    }

    /// Called once a tile.
    #[inline]
    pub(super) fn step(&mut self) {
        let mut num_lines = 0;
        while num_lines < LINES_PER_TILE && self.row < self.num_rows {
            let (source, row_len) = self.sources[self.source];
            let row = source.as_ptr().wrapping_add(self.row * row_len);
            for at in (0..self.head_dim).step_by(LINE / 4) {
                prefetch(row.wrapping_add(at));
                num_lines += 1;
            }
            self.source += 1;
            if self.source == self.num_sources {
                (self.source, self.row) = (0, self.row + 1);
            }
        }
    }
}

#[inline(always)]
fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it reads nothing and any address is allowed.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
