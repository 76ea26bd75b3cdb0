//! Copies the operands of one head into the order in which tiles read them.

use crate::kernels::gemm::pack::pack_b;
use crate::kernels::gemm::tile::Tile;
use crate::kernels::lanes::LANES;

/// dst = (ceil(num_rows / COLS), D, COLS)   a transposed panel per COLS rows
/// src   (num_rows, D)                      read, rows `src_row` apart
///
/// # Safety
/// The instruction set is available; panels are cut for whole ones, `src` holds the rows.
pub(super) unsafe fn pack_panels<T: Tile>(
    dst: &mut [f32],
    src: &[f32],
    src_row: usize,
    num_rows: usize,
    head_dim: usize,
) {
    let panel_len = T::COLS * head_dim.div_ceil(T::PER_SLOT);
    for (panel, row) in dst.chunks_exact_mut(panel_len).zip((0..num_rows).step_by(T::COLS)) {
        let src = src[row * src_row..].as_ptr();
        // SAFETY: the promise of the caller.
        unsafe { pack_b::<T>(panel.as_mut_ptr(), src, 1, src_row, head_dim, T::COLS.min(num_rows - row)) };
    }
}

/// dst = (ceil(D / COLS), num_rows, COLS)   rows cut into columns
/// src   (num_rows, D)                      read, rows `src_row` apart
///
/// # Safety
/// As for [`pack_panels`].
pub(super) unsafe fn pack_columns<T: Tile>(
    dst: &mut [f32],
    src: &[f32],
    src_row: usize,
    num_rows: usize,
    head_dim: usize,
) {
    let width = T::COLS.min(head_dim);
    let column_len = num_rows.div_ceil(T::PER_SLOT) * width;
    for (first, dst) in (0..head_dim).step_by(width).zip(dst.chunks_exact_mut(column_len)) {
        let (src, cols) = (&src[first..], width.min(head_dim - first));
        if !T::CONVERTS && cols == width && width.is_multiple_of(LANES) {
            for (r, dst) in dst.chunks_exact_mut(width).enumerate() {
                copy_vectors(dst, &src[r * src_row..][..width]);
            }
        } else {
            // SAFETY: the promise of the caller.
            unsafe { T::pack(dst.as_mut_ptr(), width, src.as_ptr(), src_row, 1, num_rows, cols) };
        }
    }
}

/// dst = (num_rows, D)   rows without gaps
/// src   (num_rows, D)   read, rows `src_row` apart
///
/// # Safety
/// As for [`pack_panels`].
pub(super) unsafe fn pack_rows<T: Tile>(
    dst: &mut [f32],
    src: &[f32],
    src_row: usize,
    num_rows: usize,
    head_dim: usize,
) {
    let slots = head_dim.div_ceil(T::PER_SLOT);
    for (r, dst) in dst.chunks_exact_mut(slots).take(num_rows).enumerate() {
        let src = &src[r * src_row..][..head_dim];
        if T::CONVERTS {
            // SAFETY: the promise of the caller.
            unsafe { T::pack_row(dst.as_mut_ptr(), src.as_ptr(), head_dim) };
        } else {
            dst.copy_from_slice(src);
        }
    }
}

/// A copy of whole vectors, inlined where a call to copy memory would cost as much as the copy.
#[inline(always)]
fn copy_vectors(dst: &mut [f32], src: &[f32]) {
    let ((dst, _), (src, _)) = (dst.as_chunks_mut::<LANES>(), src.as_chunks::<LANES>());
    for (dst, src) in dst.iter_mut().zip(src) {
        *dst = *src;
    }
}
