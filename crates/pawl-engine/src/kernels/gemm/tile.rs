//! The innermost product: one register tile of C, for each instruction set.
//!
//! An element of C is the same chain of multiply-adds over k whatever tile it falls into, so cutting a
//! matrix differently never changes its bits. Tiles check nothing: their callers own the bounds.

use super::K_BLOCK;

/// Operands of one tile: c (rows, cols) = or += a (rows, k) * b (k, cols), then += addend; strides in elements.
#[derive(Clone, Copy)]
pub(crate) struct TileArgs {
    pub(crate) k: usize,
    pub(crate) a: *const f32,
    pub(crate) a_row: usize,
    pub(crate) a_col: usize,
    pub(crate) b: *const f32,
    pub(crate) b_row: usize,
    pub(crate) c: *mut f32,
    pub(crate) c_row: usize,
    /// Adds to C instead of overwriting it.
    pub(crate) add: bool,
    /// Added to what is stored, (rows, cols), after everything else; null for nothing.
    pub(crate) addend: *const f32,
    /// Elements from one row of it to the next; 0 adds one row to all.
    pub(crate) addend_row: usize,
}

impl TileArgs {
    /// Where element (row, col) of what is added lies, if anything is.
    #[inline(always)]
    pub(super) fn addend_at(&self, row: usize, col: usize) -> Option<*const f32> {
        (!self.addend.is_null()).then(|| self.addend.wrapping_add(row * self.addend_row + col))
    }
}

/// A register tile of one instruction set.
pub(crate) trait Tile {
    /// Rows of a full tile.
    const ROWS: usize;
    /// Columns of a full tile, the width of a packed panel of B.
    const COLS: usize;

    /// Terms of k that a packed slot of four bytes holds.
    const PER_SLOT: usize = 1;
    /// Slots of a block of k.
    const K_SLOTS: usize = K_BLOCK;
    /// Whether operands are changed by packing, so that none can be read where it lies.
    const CONVERTS: bool = false;
    /// Whether the terms of k of a row of A must lie together.
    const READS_ROWS: bool = false;

    /// Prepares this thread for [`Tile::run`].
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn begin() {}

    /// Gives back what [`Tile::begin`] took.
    ///
    /// # Safety
    /// As for [`Tile::begin`], which came before.
    unsafe fn end() {}

    /// One tile of `rows <= ROWS` by `cols <= COLS`, both at least 1.
    ///
    /// # Safety
    /// The instruction set is available, [`Tile::begin`] was called, and every element the arguments describe
    /// is in bounds. Of operands that a tile converts, lines may be read, though not used, as far as a whole
    /// tile has them.
    unsafe fn run(rows: usize, cols: usize, args: TileArgs);

    /// dst[p * width + j] = src[p * step + j * lane] for p < k, j < lanes; `PER_SLOT` terms of k to a slot.
    ///
    /// # Safety
    /// The instruction set is available and both blocks are in bounds.
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
                Self::transpose(lanes, k, src, lane, dst, width);
                return;
            }
            for p in 0..k {
                let (src, dst) = (src.add(p * step), dst.add(p * width));
                if lane == 1 && lanes == Self::COLS {
                    // A constant length compiles to vector moves.
                    std::ptr::copy_nonoverlapping(src, dst, Self::COLS);
                } else if lane == 1 && lanes == Self::ROWS {
                    std::ptr::copy_nonoverlapping(src, dst, Self::ROWS);
                } else {
                    for j in 0..lanes {
                        *dst.add(j) = *src.add(j * lane);
                    }
                }
            }
        }
    }

    /// dst (slots) = src (k), one row as it lies.
    ///
    /// # Safety
    /// As for [`Tile::pack`].
    unsafe fn pack_row(dst: *mut f32, src: *const f32, k: usize) {
        // SAFETY: the promise of the caller.
        unsafe { Self::pack(dst, 1, src, 1, 0, k, 1) };
    }

    /// As [`Tile::pack`], but the slots of lane j lie together, from `dst[j * width]` on.
    ///
    /// # Safety
    /// As for [`Tile::pack`]; `step` is 1 unless the tile [`Tile::READS_ROWS`].
    unsafe fn pack_rows(
        dst: *mut f32,
        width: usize,
        src: *const f32,
        step: usize,
        lane: usize,
        k: usize,
        lanes: usize,
    ) {
        assert!(step == 1, "terms of k lie {step} apart");
        for j in 0..lanes {
            // SAFETY: the promise of the caller.
            unsafe { Self::pack_row(dst.add(j * width), src.add(j * lane), k) };
        }
    }

    /// As [`Tile::pack`] from elements of two bytes, of tiles that read such (`halves::reads_halves`).
    ///
    /// # Safety
    /// As for [`Tile::pack`]; `step` or `lane` is 1.
    unsafe fn pack_halves(
        _dst: *mut f32,
        _width: usize,
        _src: *const u16,
        _step: usize,
        _lane: usize,
        _k: usize,
        _lanes: usize,
    ) {
        unreachable!("checked by the product");
    }

    /// As [`Tile::pack_rows`] from elements of two bytes.
    ///
    /// # Safety
    /// As for [`Tile::pack_halves`].
    unsafe fn pack_half_rows(
        _dst: *mut f32,
        _width: usize,
        _src: *const u16,
        _step: usize,
        _lane: usize,
        _k: usize,
        _lanes: usize,
    ) {
        unreachable!("checked by the product");
    }

    /// dst (cols, rows) = transpose of src (rows, cols), rows `src_row` and `dst_row` apart.
    ///
    /// # Safety
    /// The instruction set is available and both blocks are in bounds.
    unsafe fn transpose(
        rows: usize,
        cols: usize,
        src: *const f32,
        src_row: usize,
        dst: *mut f32,
        dst_row: usize,
    ) {
        for i in 0..rows {
            for j in 0..cols {
                // SAFETY: in bounds by the promise of the caller.
                unsafe { *dst.add(j * dst_row + i) = *src.add(i * src_row + j) };
            }
        }
    }
}

/// Plain Rust, 4 x 8.
pub(crate) struct Portable;

impl Tile for Portable {
    const ROWS: usize = 4;
    const COLS: usize = 8;

    unsafe fn run(rows: usize, cols: usize, args: TileArgs) {
        // SAFETY: the promise of the caller.
        unsafe {
            match rows {
                1 => portable::<1>(cols, args),
                2 => portable::<2>(cols, args),
                3 => portable::<3>(cols, args),
                _ => portable::<4>(cols, args),
            }
        }
    }
}

unsafe fn portable<const R: usize>(cols: usize, args: TileArgs) {
    let mut sum = [[0.0_f32; Portable::COLS]; R];
    for p in 0..args.k {
        let mut b = [0.0_f32; Portable::COLS];
        // SAFETY: row p of b has `cols` elements.
        let row = unsafe { std::slice::from_raw_parts(args.b.add(p * args.b_row), cols) };
        match <&[f32; Portable::COLS]>::try_from(row) {
            Ok(full) => b = *full,
            Err(_) => b[..cols].copy_from_slice(row),
        }
        for r in 0..R {
            // SAFETY: a has R rows and k columns.
            let a = unsafe { *args.a.add(r * args.a_row + p * args.a_col) };
            for j in 0..Portable::COLS {
                sum[r][j] += a * b[j];
            }
        }
    }
    for r in 0..R {
        // SAFETY: row r of c has `cols` elements.
        let row = unsafe { std::slice::from_raw_parts_mut(args.c.add(r * args.c_row), cols) };
        for (c, sum) in row.iter_mut().zip(&sum[r]) {
            *c = if args.add { *c + sum } else { *sum };
        }
        if let Some(addend) = args.addend_at(r, 0) {
            // SAFETY: row r of the addend has `cols` elements.
            let addend = unsafe { std::slice::from_raw_parts(addend, cols) };
            row.iter_mut().zip(addend).for_each(|(c, addend)| *c += addend);
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512, lanes, transpose_16};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::full::{self, avx512_tile};
    use super::{Tile, TileArgs};
    use std::arch::x86_64::*;

    /// 12 rows of two 16-lane vectors: 24 accumulators, two of B, and A broadcast from memory.
    pub(crate) struct Avx512;

    impl Tile for Avx512 {
        const ROWS: usize = 12;
        const COLS: usize = 32;

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

        unsafe fn transpose(
            rows: usize,
            cols: usize,
            src: *const f32,
            src_row: usize,
            dst: *mut f32,
            dst_row: usize,
        ) {
            for i in (0..rows).step_by(16) {
                for j in (0..cols).step_by(16) {
                    // SAFETY: the block is inside what the caller promised.
                    unsafe {
                        let (src, dst) = (src.add(i * src_row + j), dst.add(j * dst_row + i));
                        transpose_16((rows - i).min(16), (cols - j).min(16), src, src_row, dst, dst_row);
                    }
                }
            }
        }
    }

    /// The mask of the first `count` of 16 lanes.
    pub(crate) fn lanes(count: usize) -> __mmask16 {
        u16::MAX >> (16 - count)
    }

    /// sum + x * row
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn multiply(sum: __m512, x: __m512, row: __m512) -> __m512 {
        _mm512_fmadd_ps(x, row, sum)
    }

    avx512_tile!("avx512f,avx512bw,avx512dq,avx512vl,fma", full::float32);

    /// dst (cols, rows) = transpose of src (rows, cols), both at most 16.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
    pub(crate) unsafe fn transpose_16(
        rows: usize,
        cols: usize,
        src: *const f32,
        src_row: usize,
        dst: *mut f32,
        dst_row: usize,
    ) {
        let mut r = [_mm512_setzero_ps(); 16];
        for i in 0..16 {
            if i < rows {
                // SAFETY: row i of src has `cols` elements.
                r[i] = unsafe { _mm512_maskz_loadu_ps(lanes(cols), src.add(i * src_row)) };
            }
        }
        // Four rounds: pairs of rows, pairs of pairs, then 128-bit lanes twice.
        let mut s = [_mm512_setzero_ps(); 16];
        for i in (0..16).step_by(2) {
            s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
            s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
        }
        for i in (0..16).step_by(4) {
            r[i] = _mm512_shuffle_ps::<0x44>(s[i], s[i + 2]);
            r[i + 1] = _mm512_shuffle_ps::<0xee>(s[i], s[i + 2]);
            r[i + 2] = _mm512_shuffle_ps::<0x44>(s[i + 1], s[i + 3]);
            r[i + 3] = _mm512_shuffle_ps::<0xee>(s[i + 1], s[i + 3]);
        }
        for i in 0..4 {
            s[i] = _mm512_shuffle_f32x4::<0x88>(r[i], r[i + 4]);
            s[i + 4] = _mm512_shuffle_f32x4::<0xdd>(r[i], r[i + 4]);
            s[i + 8] = _mm512_shuffle_f32x4::<0x88>(r[i + 8], r[i + 12]);
            s[i + 12] = _mm512_shuffle_f32x4::<0xdd>(r[i + 8], r[i + 12]);
        }
        for i in 0..4 {
            r[i] = _mm512_shuffle_f32x4::<0x88>(s[i], s[i + 8]);
            r[i + 4] = _mm512_shuffle_f32x4::<0x88>(s[i + 4], s[i + 12]);
            r[i + 8] = _mm512_shuffle_f32x4::<0xdd>(s[i], s[i + 8]);
            r[i + 12] = _mm512_shuffle_f32x4::<0xdd>(s[i + 4], s[i + 12]);
        }
        for j in 0..16 {
            if j < cols {
                // SAFETY: row j of dst has `rows` elements.
                unsafe { _mm512_mask_storeu_ps(dst.add(j * dst_row), lanes(rows), r[j]) };
            }
        }
    }

    /// 6 rows of two 8-lane vectors: 12 accumulators, two of B, one of A.
    pub(crate) struct Avx2;

    impl Tile for Avx2 {
        const ROWS: usize = 6;
        const COLS: usize = 16;

        unsafe fn run(rows: usize, cols: usize, args: TileArgs) {
            // SAFETY: the promise of the caller.
            unsafe {
                match rows {
                    1 => avx2::<1>(cols, args),
                    2 => avx2::<2>(cols, args),
                    3 => avx2::<3>(cols, args),
                    4 => avx2::<4>(cols, args),
                    5 => avx2::<5>(cols, args),
                    _ => avx2::<6>(cols, args),
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const R: usize>(cols: usize, args: TileArgs) {
        if cols == Avx2::COLS {
            // SAFETY: the promise of the caller.
            return unsafe { avx2_full::<R>(args) };
        }
        // A tile that is cut goes through a full one: B is widened with zeros, C through a buffer.
        let mut wide_c = [0.0_f32; 6 * Avx2::COLS];
        let mut wide_b = [0.0_f32; 64 * Avx2::COLS];
        let copy = |from_c: bool, wide_c: &mut [f32]| {
            for r in 0..R {
                for j in 0..cols {
                    // SAFETY: row r of c has `cols` elements.
                    let c = unsafe { &mut *args.c.add(r * args.c_row + j) };
                    if from_c {
                        wide_c[r * Avx2::COLS + j] = *c;
                    } else {
                        *c = wide_c[r * Avx2::COLS + j];
                    }
                }
            }
        };
        for p0 in (0..args.k).step_by(64) {
            let k = 64.min(args.k - p0);
            for p in 0..k {
                for j in 0..cols {
                    // SAFETY: row p0 + p of b has `cols` elements.
                    wide_b[p * Avx2::COLS + j] = unsafe { *args.b.add((p0 + p) * args.b_row + j) };
                }
            }
            let wide = TileArgs {
                k,
                a: args.a.wrapping_add(p0 * args.a_col),
                b: wide_b.as_ptr(),
                b_row: Avx2::COLS,
                c: wide_c.as_mut_ptr(),
                c_row: Avx2::COLS,
                add: true,
                ..args
            };
            // SAFETY: the buffers hold a full tile.
            unsafe { avx2_chain::<R>(wide, p0 == 0) };
        }
        if args.add {
            let sums = wide_c;
            copy(true, &mut wide_c);
            for (c, sum) in wide_c.iter_mut().zip(&sums) {
                *c += sum;
            }
        }
        for r in 0..R {
            for j in 0..cols {
                if let Some(addend) = args.addend_at(r, j) {
                    // SAFETY: row r of the addend has `cols` elements.
                    wide_c[r * Avx2::COLS + j] += unsafe { *addend };
                }
            }
        }
        copy(false, &mut wide_c);
    }

    /// Continues the chain of multiply-adds that is in c (from zero when `fresh`).
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2_chain<const R: usize>(args: TileArgs, fresh: bool) {
        let mut sum = [[_mm256_setzero_ps(); 2]; R];
        // SAFETY: the promise of the caller: full tiles.
        unsafe {
            if !fresh {
                for r in 0..R {
                    sum[r][0] = _mm256_loadu_ps(args.c.add(r * args.c_row));
                    sum[r][1] = _mm256_loadu_ps(args.c.add(r * args.c_row + 8));
                }
            }
            let (mut a, mut b) = (args.a, args.b);
            for _ in 0..args.k {
                let row = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
                for r in 0..R {
                    let x = _mm256_broadcast_ss(&*a.add(r * args.a_row));
                    sum[r][0] = _mm256_fmadd_ps(x, row[0], sum[r][0]);
                    sum[r][1] = _mm256_fmadd_ps(x, row[1], sum[r][1]);
                }
                a = a.wrapping_add(args.a_col);
                b = b.wrapping_add(args.b_row);
            }
            for r in 0..R {
                _mm256_storeu_ps(args.c.add(r * args.c_row), sum[r][0]);
                _mm256_storeu_ps(args.c.add(r * args.c_row + 8), sum[r][1]);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2_full<const R: usize>(args: TileArgs) {
        let mut sum = [0.0_f32; 6 * Avx2::COLS];
        if !args.add && args.addend.is_null() {
            // SAFETY: the promise of the caller.
            return unsafe { avx2_chain::<R>(args, true) };
        }
        let to_sum = TileArgs { c: sum.as_mut_ptr(), c_row: Avx2::COLS, ..args };
        // SAFETY: the buffer holds a full tile; c and the addend have R rows of a full tile.
        unsafe {
            avx2_chain::<R>(to_sum, true);
            for r in 0..R {
                for v in [0, 8] {
                    let c = args.c.add(r * args.c_row + v);
                    let mut value = _mm256_loadu_ps(sum.as_ptr().add(r * Avx2::COLS + v));
                    if args.add {
                        value = _mm256_add_ps(_mm256_loadu_ps(c), value);
                    }
                    if let Some(addend) = args.addend_at(r, v) {
                        value = _mm256_add_ps(value, _mm256_loadu_ps(addend));
                    }
                    _mm256_storeu_ps(c, value);
                }
            }
        }
    }
}
