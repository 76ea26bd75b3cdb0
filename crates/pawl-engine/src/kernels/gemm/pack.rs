//! Copies operands into the order in which tiles read them.
//!
//! A panel of B is (k, COLS), one of A is (k, ROWS): each step of k reads one line. Where two terms of k
//! share a slot there are half as many lines. Lanes past the edge
//! of the matrix are left as they are, since tiles never load them.

use super::tile::Tile;

/// dst = (K, COLS), of which `cols` columns are written
/// b     (K, cols) read, any strides
pub(crate) unsafe fn pack_b<T: Tile>(
    dst: *mut f32,
    b: *const f32,
    b_row: usize,
    b_col: usize,
    k: usize,
    cols: usize,
) {
    // SAFETY: the promise of the caller.
    unsafe { T::pack(dst, T::COLS, b, b_row, b_col, k, cols) };
}

/// dst = panels of (K, ROWS), of which the last is written in part
/// a     (rows, K) read, any strides
pub(super) unsafe fn pack_a<T: Tile>(
    dst: &mut [f32],
    a: *const f32,
    a_row: usize,
    a_col: usize,
    rows: usize,
    k: usize,
) {
    let slots = k.div_ceil(T::PER_SLOT);
    assert!(dst.len() >= rows.next_multiple_of(T::ROWS) * slots);
    // Steps of k that lie apart are taken a few at a time, so that a line of A serves every panel.
    let step = if a_col == 1 { k } else { 16 };
    for p in (0..k).step_by(step) {
        for i in (0..rows).step_by(T::ROWS) {
            let a = a.wrapping_add(i * a_row + p * a_col);
            let panel = dst[i * slots + p / T::PER_SLOT * T::ROWS..].as_mut_ptr();
            // SAFETY: the caller promises a, the assertion dst.
            unsafe { T::pack(panel, T::ROWS, a, a_col, a_row, step.min(k - p), T::ROWS.min(rows - i)) };
        }
    }
}
