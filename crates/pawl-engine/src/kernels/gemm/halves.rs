//! Tensors of bfloat16, two elements in each four bytes, as they lie in memory: what several products read, rounded
//! once. Tiles that pair neighbours along k read rows of such a first operand in place; everything else is packed by
//! moving halves about, which no longer rounds.

use super::Product;
use super::bf16;
use super::tile::Tile;
use crate::kernels::{Isa, Precision, has_bf16};

/// Whether products in this precision read operands in halves.
pub fn reads_halves(isa: Isa, precision: Precision) -> bool {
    isa == Isa::Avx512 && precision == Precision::Bf16 && has_bf16()
}

/// Rows of a tile register of AMX, which are read whole.
const WHOLE_ROWS: usize = 16;

/// Whether tiles read the rows of A where they lie.
pub(super) fn reads_in_place(product: &Product<'_>) -> bool {
    let is_in_slots =
        product.a_col == 1 && product.a_row.is_multiple_of(2) && product.dims.k.is_multiple_of(2);
    is_in_slots && product.dims.m.is_multiple_of(WHOLE_ROWS)
}

/// dst = panels of (K, ROWS), of which the last is written in part
/// a     (rows, K) read, in halves
///
/// # Safety
/// As for [`super::pack::pack_a`].
pub(super) unsafe fn pack_halves_of_a<T: Tile>(
    dst: &mut [f32],
    a: *const u16,
    a_row: usize,
    a_col: usize,
    rows: usize,
    k: usize,
) {
    let slots = k.div_ceil(T::PER_SLOT);
    assert!(dst.len() >= rows.next_multiple_of(T::ROWS) * slots);
    for i in (0..rows).step_by(T::ROWS) {
        let (panel, a) = (dst[i * slots..].as_mut_ptr(), a.wrapping_add(i * a_row));
        // SAFETY: the caller promises a, the assertion dst.
        unsafe { T::pack_halves(panel, T::ROWS, a, a_col, a_row, k, T::ROWS.min(rows - i)) };
    }
}

/// dst = (ceil(n / 2)), x (n) rounded, a half past an odd end 0
///
/// # Safety
/// Both are that long and apart.
pub unsafe fn halve(isa: Isa, dst: *mut f32, x: *const f32, n: usize) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && has_bf16() {
        // SAFETY: the promise of the caller; the instructions are there.
        return unsafe { bf16::Avx512Bf16::pack_row(dst, x, n) };
    }
    let _ = isa;
    let half = |x: f32| (bf16::round(x).to_bits() >> 16) as u16;
    let dst = dst.cast::<u16>();
    for i in 0..n.next_multiple_of(2) {
        // SAFETY: as above.
        unsafe { *dst.add(i) = if i < n { half(*x.add(i)) } else { 0 } };
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use crate::kernels::gemm::tile::{lanes, transpose_16};
    use std::arch::x86_64::*;

    /// Halves of a vector.
    const WIDTH: usize = 32;

    /// The mask of the first `count` of 32 halves.
    fn mask(count: usize) -> __mmask32 {
        u32::MAX >> (WIDTH - count)
    }

    /// Up to 32 halves, the others 0.
    ///
    /// # Safety
    /// `count` halves are in bounds.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load(src: *const u16, count: usize) -> __m512i {
        // SAFETY: masked lanes are not touched.
        unsafe { _mm512_maskz_loadu_epi16(mask(count), src.cast()) }
    }

    /// As [`super::Tile::pack_halves`].
    ///
    /// # Safety
    /// As there.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
    pub(crate) unsafe fn pack(
        dst: *mut f32,
        width: usize,
        src: *const u16,
        step: usize,
        lane: usize,
        k: usize,
        num_lanes: usize,
    ) {
        // SAFETY: the promise of the caller.
        unsafe {
            if lane == 1 {
                pack_across_k(dst, width, src, step, k, num_lanes);
            } else {
                assert!(step == 1, "halves lie {step} and {lane} apart");
                pack_along_k(dst, width, src, lane, k, num_lanes);
            }
        }
    }

    /// As [`super::Tile::pack_half_rows`].
    ///
    /// # Safety
    /// As there.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
    pub(crate) unsafe fn pack_rows(
        dst: *mut f32,
        width: usize,
        src: *const u16,
        step: usize,
        lane: usize,
        k: usize,
        num_lanes: usize,
    ) {
        // SAFETY: the promise of the caller.
        unsafe {
            if step == 1 {
                for j in 0..num_lanes {
                    copy_row(dst.add(j * width), src.add(j * lane), k);
                }
            } else {
                assert!(lane == 1, "halves lie {step} and {lane} apart");
                transpose_rows(dst, width, src, step, k, num_lanes);
            }
        }
    }

    /// dst (ceil(k / 2)) = src (k)
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn copy_row(dst: *mut f32, src: *const u16, k: usize) {
        for p in (0..k).step_by(WIDTH) {
            let count = WIDTH.min(k - p);
            // SAFETY: the promise of the caller.
            unsafe {
                let row = load(src.add(p), count);
                _mm512_mask_storeu_epi32(dst.add(p / 2).cast(), lanes(count.div_ceil(2)), row);
            }
        }
    }

    /// The slots of two rows of up to 32 halves: first 16, then the rest.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn interleave(even: __m512i, odd: __m512i, order: [__m512i; 2]) -> [__m512i; 2] {
        order.map(|order| _mm512_permutex2var_epi16(even, order, odd))
    }

    /// Which halves of two rows the slots take.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn order() -> [__m512i; 2] {
        let mut order = [[0_u16; WIDTH]; 2];
        for i in 0..WIDTH {
            let (part, at) = (i / 16, i % 16);
            (order[part][2 * at], order[part][2 * at + 1]) = (i as u16, (WIDTH + i) as u16);
        }
        // SAFETY: each is 64 bytes.
        order.map(|order| unsafe { _mm512_loadu_si512(order.as_ptr().cast()) })
    }

    /// Lanes that lie together, terms of k `step` apart.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn pack_across_k(
        dst: *mut f32,
        width: usize,
        src: *const u16,
        step: usize,
        k: usize,
        num_lanes: usize,
    ) {
        let order = order();
        for p in (0..k).step_by(2) {
            let (from, to) = (src.wrapping_add(p * step), dst.wrapping_add(p / 2 * width));
            for j in (0..num_lanes).step_by(WIDTH) {
                let count = WIDTH.min(num_lanes - j);
                // SAFETY: rows have `num_lanes` halves; dst has ceil(k / 2) rows of as many slots.
                unsafe {
                    let even = load(from.add(j), count);
                    let odd =
                        if p + 1 < k { load(from.add(step + j), count) } else { _mm512_setzero_si512() };
                    let slots = interleave(even, odd, order);
                    _mm512_mask_storeu_epi32(to.add(j).cast(), lanes(count.min(16)), slots[0]);
                    if count > 16 {
                        _mm512_mask_storeu_epi32(to.add(j + 16).cast(), lanes(count - 16), slots[1]);
                    }
                }
            }
        }
    }

    /// Lanes whose terms of k lie together: 16 x 16 slots are transposed.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
    unsafe fn pack_along_k(
        dst: *mut f32,
        width: usize,
        src: *const u16,
        lane: usize,
        k: usize,
        num_lanes: usize,
    ) {
        let mut block = [0.0_f32; 16 * 16];
        let block = block.as_mut_ptr();
        for j in (0..num_lanes).step_by(16) {
            let rows = 16.min(num_lanes - j);
            for p in (0..k).step_by(WIDTH) {
                let count = WIDTH.min(k - p);
                // SAFETY: row j + i of src has `count` halves from p on; dst has ceil(k / 2) rows of `width` slots.
                unsafe {
                    for i in 0..rows {
                        _mm512_storeu_si512(
                            block.add(i * 16).cast(),
                            load(src.add((j + i) * lane + p), count),
                        );
                    }
                    let to = dst.add(p / 2 * width + j);
                    transpose_16(rows, count.div_ceil(2), block, 16, to, width);
                }
            }
        }
    }

    /// dst (lanes, k) = src[p * step + j], in slots, rows `width` slots apart.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
    unsafe fn transpose_rows(
        dst: *mut f32,
        width: usize,
        src: *const u16,
        step: usize,
        k: usize,
        num_lanes: usize,
    ) {
        let mut blocks = [0.0_f32; 16 * WIDTH];
        let blocks = blocks.as_mut_ptr();
        for p in (0..k).step_by(WIDTH) {
            let terms = WIDTH.min(k - p);
            for j in (0..num_lanes).step_by(WIDTH) {
                let count = WIDTH.min(num_lanes - j);
                // SAFETY: the promise of the caller; the blocks hold 16 rows of 32 slots.
                unsafe {
                    pack_across_k(blocks, WIDTH, src.add(p * step + j), step, terms, count);
                    for i in (0..count).step_by(16) {
                        let to = dst.add((j + i) * width + p / 2);
                        transpose_16(terms.div_ceil(2), 16.min(count - i), blocks.add(i), WIDTH, to, width);
                    }
                }
            }
        }
    }
}
