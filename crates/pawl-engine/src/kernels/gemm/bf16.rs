//! Tiles whose operands are rounded to bfloat16 while they are packed; sums stay in float32.
//!
//! A packed slot is four bytes and holds the two neighbours along k, which is what the dot-product
//! instruction reads. A slot past an odd k is filled up with zero. Machines without the instruction round
//! the same way and multiply in float32: the same numbers up to the order of two additions.

use super::tile::{Tile, TileArgs};

/// Any tile, on operands rounded to bfloat16.
pub(crate) struct Rounded<T>(std::marker::PhantomData<T>);

impl<T: Tile> Tile for Rounded<T> {
    const ROWS: usize = T::ROWS;
    const COLS: usize = T::COLS;
    const CONVERTS: bool = true;

    unsafe fn run(rows: usize, cols: usize, args: TileArgs) {
        // SAFETY: the promise of the caller.
        unsafe { T::run(rows, cols, args) }
    }

    unsafe fn pack(
        dst: *mut f32,
        width: usize,
        src: *const f32,
        step: usize,
        lane: usize,
        k: usize,
        lanes: usize,
    ) {
        for p in 0..k {
            for j in 0..lanes {
                // SAFETY: in bounds by the promise of the caller.
                unsafe { *dst.add(p * width + j) = round(*src.add(p * step + j * lane)) };
            }
        }
    }
}

/// The nearest bfloat16, ties to even; NaN stays NaN.
pub(crate) fn round(x: f32) -> f32 {
    let bits = x.to_bits();
    if x.is_nan() {
        return f32::from_bits(bits | 1 << 22);
    }
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Avx512Bf16;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Tile, TileArgs};
    use crate::kernels::gemm::full::{self, avx512_tile};
    use crate::kernels::gemm::halves::x86 as halves;
    use crate::kernels::gemm::tile::{Avx512, lanes, transpose_16};
    use std::arch::x86_64::*;
    use std::mem::transmute;

    /// As the float32 tile of AVX-512, each step of k taking two products a lane.
    pub(crate) struct Avx512Bf16;

    impl Tile for Avx512Bf16 {
        const ROWS: usize = 12;
        const COLS: usize = 32;
        const PER_SLOT: usize = 2;
        const CONVERTS: bool = true;

        unsafe fn run(rows: usize, cols: usize, args: TileArgs) {
            // SAFETY: the promise of the caller.
            unsafe {
                if cols > 16 {
                    tile_rows::<2>(rows, lanes(cols - 16), args);
                } else {
                    tile_rows::<1>(rows, lanes(cols), args);
                }
            }
        }

        unsafe fn pack(
            dst: *mut f32,
            width: usize,
            src: *const f32,
            step: usize,
            lane: usize,
            k: usize,
            lanes: usize,
        ) {
            // SAFETY: the promise of the caller.
            unsafe {
                if step == 1 {
                    pack_along_k(dst, width, src, lane, k, lanes);
                } else if lane == 1 {
                    pack_across_k(dst, width, src, step, k, lanes);
                } else {
                    pack_any(dst, width, src, step, lane, k, lanes);
                }
            }
        }

        unsafe fn pack_row(dst: *mut f32, src: *const f32, k: usize) {
            // SAFETY: the promise of the caller.
            unsafe { convert_row(dst, src, k) };
        }

        unsafe fn pack_halves(
            dst: *mut f32,
            width: usize,
            src: *const u16,
            step: usize,
            lane: usize,
            k: usize,
            lanes: usize,
        ) {
            // SAFETY: the promise of the caller.
            unsafe { halves::pack(dst, width, src, step, lane, k, lanes) };
        }

        unsafe fn pack_half_rows(
            dst: *mut f32,
            width: usize,
            src: *const u16,
            step: usize,
            lane: usize,
            k: usize,
            lanes: usize,
        ) {
            // SAFETY: the promise of the caller.
            unsafe { halves::pack_rows(dst, width, src, step, lane, k, lanes) };
        }

        unsafe fn transpose(
            rows: usize,
            cols: usize,
            src: *const f32,
            src_row: usize,
            dst: *mut f32,
            dst_row: usize,
        ) {
            // SAFETY: the promise of the caller.
            unsafe { Avx512::transpose(rows, cols, src, src_row, dst, dst_row) };
        }
    }

    /// sum + x * row, pair by pair.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn multiply(sum: __m512, x: __m512, row: __m512) -> __m512 {
        // SAFETY: both types are 512 bits of plain data.
        let pairs = |x: __m512| unsafe { transmute::<__m512, __m512bh>(x) };
        _mm512_dpbf16_ps(sum, pairs(x), pairs(row))
    }

    avx512_tile!("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma", full::bfloat16);

    /// 32 neighbours (`count` of them from memory, the others 0) as 16 slots.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn slots(src: *const f32, count: usize) -> __m512 {
        // SAFETY: `count` elements are in bounds; masked lanes are not touched.
        unsafe {
            let low = _mm512_maskz_loadu_ps(lanes(count.min(16)), src);
            let high = match count > 16 {
                true => _mm512_maskz_loadu_ps(lanes(count - 16), src.add(16)),
                false => _mm512_setzero_ps(),
            };
            transmute(_mm512_cvtne2ps_pbh(high, low))
        }
    }

    /// dst (ceil(k / 2)) = src (k)
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn convert_row(dst: *mut f32, src: *const f32, k: usize) {
        // SAFETY: the promise of the caller.
        unsafe {
            let whole = k / 32 * 32;
            for p in (0..whole).step_by(32) {
                let (low, high) = (_mm512_loadu_ps(src.add(p)), _mm512_loadu_ps(src.add(p + 16)));
                _mm512_storeu_ps(
                    dst.add(p / 2),
                    transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low)),
                );
            }
            if whole < k {
                let count = k - whole;
                _mm512_mask_storeu_ps(
                    dst.add(whole / 2),
                    lanes(count.div_ceil(2)),
                    slots(src.add(whole), count),
                );
            }
        }
    }

    /// Lanes whose terms of k lie together: rows are converted, then 16 x 16 slots transposed.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")]
    unsafe fn pack_along_k(
        dst: *mut f32,
        width: usize,
        src: *const f32,
        lane: usize,
        k: usize,
        num_lanes: usize,
    ) {
        let mut block = [0.0_f32; 16 * 16];
        for j in (0..num_lanes).step_by(16) {
            let rows = 16.min(num_lanes - j);
            for p in (0..k).step_by(32) {
                let count = 32.min(k - p);
                for i in 0..rows {
                    // SAFETY: row j + i of src has `count` elements from p on; the block is ours.
                    unsafe {
                        let row = slots(src.add((j + i) * lane + p), count);
                        _mm512_storeu_ps(block.as_mut_ptr().add(i * 16), row);
                    }
                }
                // SAFETY: dst has ceil(k / 2) rows of `width` slots.
                unsafe {
                    let to = dst.add(p / 2 * width + j);
                    transpose_16(rows, count.div_ceil(2), block.as_ptr(), 16, to, width);
                }
            }
        }
    }

    /// Lanes that lie together, terms of k `step` apart: two rows are rounded and interleaved.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn pack_across_k(
        dst: *mut f32,
        width: usize,
        src: *const f32,
        step: usize,
        k: usize,
        num_lanes: usize,
    ) {
        let mut order = [0_u16; 32];
        for i in 0..16 {
            (order[2 * i], order[2 * i + 1]) = (i as u16, 16 + i as u16);
        }
        // SAFETY: `order` is 64 bytes; rows have `num_lanes` elements; dst has ceil(k / 2) rows.
        unsafe {
            let order = _mm512_loadu_si512(order.as_ptr().cast());
            for p in (0..k).step_by(2) {
                let from = src.add(p * step);
                let to = dst.add(p / 2 * width);
                for j in (0..num_lanes).step_by(16) {
                    let mask = lanes(16.min(num_lanes - j));
                    let even = _mm512_maskz_loadu_ps(mask, from.add(j));
                    let odd = match p + 1 < k {
                        true => _mm512_maskz_loadu_ps(mask, from.add(step + j)),
                        false => _mm512_setzero_ps(),
                    };
                    let both: __m512i = transmute(_mm512_cvtne2ps_pbh(odd, even));
                    let pairs = _mm512_permutexvar_epi16(order, both);
                    _mm512_mask_storeu_epi32(to.add(j).cast(), mask, pairs);
                }
            }
        }
    }

    /// Any strides.
    unsafe fn pack_any(
        dst: *mut f32,
        width: usize,
        src: *const f32,
        step: usize,
        lane: usize,
        k: usize,
        num_lanes: usize,
    ) {
        let half = |x: f32| super::round(x).to_bits() >> 16;
        for p in (0..k).step_by(2) {
            for j in 0..num_lanes {
                // SAFETY: in bounds by the promise of the caller.
                unsafe {
                    let even = *src.add(p * step + j * lane);
                    let odd = if p + 1 < k { *src.add((p + 1) * step + j * lane) } else { 0.0 };
                    *dst.add(p / 2 * width + j) = f32::from_bits(half(odd) << 16 | half(even));
                }
            }
        }
    }
}
