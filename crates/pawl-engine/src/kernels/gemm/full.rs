//! Register tiles of AVX-512: 12 rows of two vectors, 24 sums. The inner loop of a full one is written
//! instruction by instruction.
//!
//! Left to the compiler the rows of A are reached either by a chain of eleven additions a step, as long as all
//! multiply-adds of the step where two run in a cycle, or by twelve pointers of which half live in memory.

use super::tile::TileArgs;
use std::arch::x86_64::*;

/// Defines `tile_rows`, a tile of up to 12 rows and `V` vectors of columns, of which the last has only the lanes of
/// `last`, from a function `multiply` beside it and `$full`, the sums of a full tile.
macro_rules! avx512_tile {
    ($features:literal, $full:path) => {
        /// # Safety
        /// As for [`Tile::run`].
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn tile_rows<const V: usize>(rows: usize, last: __mmask16, args: TileArgs) {
            // SAFETY: the promise of the caller.
            unsafe {
                match rows {
                    1 => tile::<1, V>(last, args),
                    2 => tile::<2, V>(last, args),
                    3 => tile::<3, V>(last, args),
                    4 => tile::<4, V>(last, args),
                    5 => tile::<5, V>(last, args),
                    6 => tile::<6, V>(last, args),
                    7 => tile::<7, V>(last, args),
                    8 => tile::<8, V>(last, args),
                    9 => tile::<9, V>(last, args),
                    10 => tile::<10, V>(last, args),
                    11 => tile::<11, V>(last, args),
                    _ if V == 2 && last == u16::MAX => full_tile(args),
                    _ => tile::<12, V>(last, args),
                }
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn full_tile(args: TileArgs) {
            // SAFETY: the promise of the caller.
            unsafe {
                full::prefetch::<12, 2>(&args);
                full::store(u16::MAX, &args, &$full(&args));
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn tile<const R: usize, const V: usize>(last: __mmask16, args: TileArgs) {
            let mut sums = [[_mm512_setzero_ps(); V]; R];
            let (mut a, mut b) = (args.a, args.b);
            // SAFETY: the rows and lanes used are those the caller promised; hidden lanes are not touched.
            unsafe {
                full::prefetch::<R, V>(&args);
                for _ in 0..args.k {
                    let mut row = [_mm512_setzero_ps(); V];
                    for v in 0..V {
                        let mask = if v + 1 == V { last } else { u16::MAX };
                        row[v] = _mm512_maskz_loadu_ps(mask, b.add(v * 16));
                    }
                    for r in 0..R {
                        let x = _mm512_set1_ps(*a.add(r * args.a_row));
                        for v in 0..V {
                            sums[r][v] = multiply(sums[r][v], x, row[v]);
                        }
                    }
                    a = a.wrapping_add(args.a_col);
                    b = b.wrapping_add(args.b_row);
                }
                full::store(last, &args, &sums);
            }
        }
    };
}
pub(super) use avx512_tile;

/// Asks for the lines of C that the tile will write, and for what it will add to them.
///
/// # Safety
/// AVX-512 is available.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn prefetch<const R: usize, const V: usize>(args: &TileArgs) {
    for r in 0..R {
        for v in 0..V {
            _mm_prefetch::<_MM_HINT_T0>(args.c.wrapping_add(r * args.c_row + v * 16) as *const i8);
            if let Some(addend) = args.addend_at(r, v * 16) {
                _mm_prefetch::<_MM_HINT_T0>(addend.cast());
            }
        }
    }
}

/// c = or += sums, then += addend, of whose last vector only the lanes of `last` count.
///
/// # Safety
/// These rows and lanes of C and of the addend are in bounds.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store<const R: usize, const V: usize>(
    last: __mmask16,
    args: &TileArgs,
    sums: &[[__m512; V]; R],
) {
    for r in 0..R {
        for v in 0..V {
            let mask = if v + 1 == V { last } else { u16::MAX };
            // SAFETY: the promise of the caller; hidden lanes are not touched.
            unsafe {
                let c = args.c.add(r * args.c_row + v * 16);
                let mut value = sums[r][v];
                if args.add {
                    value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), value);
                }
                if let Some(addend) = args.addend_at(r, v * 16) {
                    value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, addend));
                }
                if mask == u16::MAX {
                    _mm512_storeu_ps(c, value);
                } else {
                    _mm512_mask_storeu_ps(c, mask, value);
                }
            }
        }
    }
}

/// Rows of the tile.
pub(super) const ROWS: usize = 12;

/// Sums of a tile: `row * column` for each of the k steps by the instruction `$multiply`, which adds products of
/// its last two operands to the first.
macro_rules! sums {
    ($multiply:literal, $args:expr) => {{
        let args: &TileArgs = $args;
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11] = &mut sums;
        let third = |rows: usize| args.a.wrapping_add(rows * args.a_row);
        std::arch::asm!(
            "2:",
            "vmovups zmm24, [{b}]",
            "vmovups zmm25, [{b} + 64]",
            "vbroadcastss zmm26, dword ptr [{a0}]",
            "vbroadcastss zmm27, dword ptr [{a0} + {row}]",
            "vbroadcastss zmm28, dword ptr [{a0} + 2 * {row}]",
            "vbroadcastss zmm29, dword ptr [{a3}]",
            concat!($multiply, " zmm0, zmm26, zmm24"),
            concat!($multiply, " zmm1, zmm26, zmm25"),
            concat!($multiply, " zmm2, zmm27, zmm24"),
            concat!($multiply, " zmm3, zmm27, zmm25"),
            "vbroadcastss zmm26, dword ptr [{a3} + {row}]",
            "vbroadcastss zmm27, dword ptr [{a3} + 2 * {row}]",
            concat!($multiply, " zmm4, zmm28, zmm24"),
            concat!($multiply, " zmm5, zmm28, zmm25"),
            concat!($multiply, " zmm6, zmm29, zmm24"),
            concat!($multiply, " zmm7, zmm29, zmm25"),
            "vbroadcastss zmm28, dword ptr [{a6}]",
            "vbroadcastss zmm29, dword ptr [{a6} + {row}]",
            concat!($multiply, " zmm8, zmm26, zmm24"),
            concat!($multiply, " zmm9, zmm26, zmm25"),
            concat!($multiply, " zmm10, zmm27, zmm24"),
            concat!($multiply, " zmm11, zmm27, zmm25"),
            "vbroadcastss zmm26, dword ptr [{a6} + 2 * {row}]",
            "vbroadcastss zmm27, dword ptr [{a9}]",
            "add {a0}, {col}",
            "add {a3}, {col}",
            concat!($multiply, " zmm12, zmm28, zmm24"),
            concat!($multiply, " zmm13, zmm28, zmm25"),
            concat!($multiply, " zmm14, zmm29, zmm24"),
            concat!($multiply, " zmm15, zmm29, zmm25"),
            "vbroadcastss zmm28, dword ptr [{a9} + {row}]",
            "vbroadcastss zmm29, dword ptr [{a9} + 2 * {row}]",
            "add {a6}, {col}",
            "add {a9}, {col}",
            concat!($multiply, " zmm16, zmm26, zmm24"),
            concat!($multiply, " zmm17, zmm26, zmm25"),
            concat!($multiply, " zmm18, zmm27, zmm24"),
            concat!($multiply, " zmm19, zmm27, zmm25"),
            "add {b}, {line}",
            concat!($multiply, " zmm20, zmm28, zmm24"),
            concat!($multiply, " zmm21, zmm28, zmm25"),
            concat!($multiply, " zmm22, zmm29, zmm24"),
            concat!($multiply, " zmm23, zmm29, zmm25"),
            "dec {k}",
            "jnz 2b",
            a0 = inout(reg) third(0) => _,
            a3 = inout(reg) third(3) => _,
            a6 = inout(reg) third(6) => _,
            a9 = inout(reg) third(9) => _,
            b = inout(reg) args.b => _,
            k = inout(reg) args.k => _,
            row = in(reg) 4 * args.a_row,
            col = in(reg) 4 * args.a_col,
            line = in(reg) 4 * args.b_row,
            inout("zmm0") s0[0], inout("zmm1") s0[1], inout("zmm2") s1[0], inout("zmm3") s1[1],
            inout("zmm4") s2[0], inout("zmm5") s2[1], inout("zmm6") s3[0], inout("zmm7") s3[1],
            inout("zmm8") s4[0], inout("zmm9") s4[1], inout("zmm10") s5[0], inout("zmm11") s5[1],
            inout("zmm12") s6[0], inout("zmm13") s6[1], inout("zmm14") s7[0], inout("zmm15") s7[1],
            inout("zmm16") s8[0], inout("zmm17") s8[1], inout("zmm18") s9[0], inout("zmm19") s9[1],
            inout("zmm20") s10[0], inout("zmm21") s10[1], inout("zmm22") s11[0], inout("zmm23") s11[1],
            out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _, out("zmm28") _, out("zmm29") _,
            options(readonly, nostack),
        );
        sums
    }};
}

/// Float32 sums of a full tile: a (12, K), b (K, 32).
///
/// # Safety
/// As for [`super::tile::Tile::run`], with k > 0.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn float32(args: &TileArgs) -> [[__m512; 2]; ROWS] {
    // SAFETY: reads 12 rows of A and k lines of B, which the caller promised.
    unsafe { sums!("vfmadd231ps", args) }
}

/// The same for pairs of bfloat16.
///
/// # Safety
/// As for [`float32`].
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn bfloat16(args: &TileArgs) -> [[__m512; 2]; ROWS] {
    // SAFETY: as above.
    unsafe { sums!("vdpbf16ps", args) }
}
