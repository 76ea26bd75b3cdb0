//! The bfloat16 tile of Intel's AMX: a register holds 16 rows of 64 bytes, an instruction multiplies two of
//! them (16 x 32 by 32 x 16, 16,384 FLOPs).
//!
//! Operands are rounded and packed as for AVX-512, except that the rows of A always lie along k: a packed panel
//! of B, slots of two neighbours along k, is what the instruction calls its second operand. An element of C is
//! one chain of sums of 32 terms that goes on from what C held, so its bits depend on k alone, even across
//! blocks. Tails of k are filled up with zeros, which add nothing; rows and columns past the edge are computed
//! and thrown away. It refuses to read columns of A: they are packed into rows.

use super::bf16::Avx512Bf16;
use super::tile::{Tile, TileArgs, lanes, transpose_16};
use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

/// Rows of a tile register.
const HEIGHT: usize = 16;
/// Slots, or float32, of a row of a tile register.
const WIDTH: usize = 16;
/// Columns of C in two registers side by side.
const COLS: usize = 2 * WIDTH;
/// The most rows of C, in two registers.
const ROWS_MAX: usize = 2 * HEIGHT;

/// Whether this machine has AMX for bfloat16, and the system lets this process use it; asks once.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let packs = is_x86_feature_detected!("avx512bf16")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        packs && has_instructions() && is_permitted()
    })
}

/// AMX-TILE and AMX-BF16: bits 24 and 22 of EDX of leaf 7, which machines with AVX-512 have.
fn has_instructions() -> bool {
    let edx = __cpuid_count(7, 0).edx;
    edx >> 24 & 1 == 1 && edx >> 22 & 1 == 1
}

/// Linux gives tile registers to a process, and to all threads it starts from then on, when asked
/// (Documentation/arch/x86/xstate.rst).
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers; kernels that do not know it return an error.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// `HIGH` by two registers of C, `HIGH` of A, two of B. Two high is the fastest: each operand is used twice.
pub(crate) struct Amx<const HIGH: usize>;

impl<const HIGH: usize> Tile for Amx<HIGH> {
    const ROWS: usize = HIGH * HEIGHT;
    const COLS: usize = COLS;
    const PER_SLOT: usize = 2;
    /// A panel of B stays in the first-level cache: 32 KiB.
    const K_SLOTS: usize = 256;
    const CONVERTS: bool = true;
    const READS_ROWS: bool = true;

    unsafe fn begin() {
        // SAFETY: the promise of the caller.
        unsafe { configure() };
    }

    unsafe fn end() {
        // SAFETY: the promise of the caller.
        unsafe { release() };
    }

    unsafe fn run(rows: usize, cols: usize, args: TileArgs) {
        // SAFETY: the promise of the caller.
        unsafe {
            if rows.is_multiple_of(HEIGHT) && cols.is_multiple_of(WIDTH) {
                product::<HIGH>(rows, cols, args);
            } else {
                part::<HIGH>(rows, cols, args);
            }
            if !args.addend.is_null() {
                plus(rows, cols, args);
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
        unsafe { Avx512Bf16::pack(dst, width, src, step, lane, k, lanes) };
    }

    unsafe fn pack_row(dst: *mut f32, src: *const f32, k: usize) {
        // SAFETY: the promise of the caller.
        unsafe { Avx512Bf16::pack_row(dst, src, k) };
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
        unsafe { Avx512Bf16::pack_halves(dst, width, src, step, lane, k, lanes) };
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
        unsafe { Avx512Bf16::pack_half_rows(dst, width, src, step, lane, k, lanes) };
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
        unsafe { Avx512Bf16::transpose(rows, cols, src, src_row, dst, dst_row) };
    }

    unsafe fn pack_rows(
        dst: *mut f32,
        width: usize,
        src: *const f32,
        step: usize,
        lane: usize,
        k: usize,
        lanes: usize,
    ) {
        // SAFETY: the promise of the caller.
        unsafe { pack_rows(dst, width, src, step, lane, k, lanes) };
    }
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight registers whole.
static WHOLE: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// # Safety
/// AMX is available.
unsafe fn configure() {
    // SAFETY: the promise of the caller; the instruction reads 64 bytes, and clears the registers.
    unsafe {
        asm!(
            "ldtilecfg [{config}]", config = in(reg) &raw const WHOLE,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(readonly, nostack, preserves_flags)
        );
    }
}

/// Gives the registers back, so that switching threads saves none.
///
/// # Safety
/// AMX is available.
unsafe fn release() {
    // SAFETY: the promise of the caller.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
}

/// Where two registers side by side, or one above the other, begin. Where the first is enough it stands for
/// both, and what comes of the second is not used.
fn two(first: *const f32, len: usize, apart: usize) -> [*const f32; 2] {
    [first, if len > WIDTH { first.wrapping_add(apart) } else { first }]
}

/// c (rows, cols) = or += a (rows, k) * b (k, cols), where rows and columns are filled up to multiples of 16 by
/// what lies there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn product<const HIGH: usize>(rows: usize, cols: usize, args: TileArgs) {
    let TileArgs { k, a, a_row, b, b_row, c, c_row, add, .. } = args;
    let whole = k / WIDTH;
    // SAFETY: the promise of the caller. Tiles keep their values between these blocks: compiled code has no
    // instruction that touches them.
    unsafe {
        for r in 0..rows {
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(r * c_row).cast());
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(r * c_row + cols - 1).cast());
            if let Some(addend) = args.addend_at(r, 0) {
                _mm_prefetch::<_MM_HINT_T0>(addend.cast());
                _mm_prefetch::<_MM_HINT_T0>(addend.wrapping_add(cols - 1).cast());
            }
        }
        clear();
        if add {
            load_c(rows, cols, c, c_row);
        }
        steps::<HIGH>(whole, two(a, rows, HEIGHT * a_row), a_row, two(b, cols, WIDTH), b_row);
        if !k.is_multiple_of(WIDTH) {
            let (a, b) = (a.wrapping_add(whole * WIDTH), b.wrapping_add(whole * WIDTH * b_row));
            last_step::<HIGH>(rows, cols, TileArgs { k: k % WIDTH, a, b, ..args });
        }
        store_c(rows, cols, c, c_row);
    }
}

/// A last step of fewer than 16 slots, through copies that are filled up with zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn last_step<const HIGH: usize>(rows: usize, cols: usize, args: TileArgs) {
    let (mut a, mut b) = ([0.0_f32; ROWS_MAX * WIDTH], [0.0_f32; WIDTH * COLS]);
    // SAFETY: `rows` rows of A have k slots, k rows of B `cols` columns; the copies are whole registers.
    unsafe {
        copy_part(a.as_mut_ptr(), WIDTH, args.a, args.a_row, rows, args.k);
        copy_part(b.as_mut_ptr(), COLS, args.b, args.b_row, args.k, cols);
        let (a, b) = (two(a.as_ptr(), rows, HEIGHT * WIDTH), two(b.as_ptr(), cols, WIDTH));
        steps::<HIGH>(1, a, WIDTH, b, COLS);
    }
}

/// c (rows, cols) += addend (rows, cols), once the sums are whole: a chain that began with it would round otherwise.
#[target_feature(enable = "avx512f")]
unsafe fn plus(rows: usize, cols: usize, args: TileArgs) {
    for r in 0..rows {
        for j in (0..cols).step_by(WIDTH) {
            let mask = lanes(WIDTH.min(cols - j));
            let addend = args.addend.wrapping_add(r * args.addend_row + j);
            let c = args.c.wrapping_add(r * args.c_row + j);
            // SAFETY: the promise of the caller; masked lanes are not touched.
            unsafe {
                let (sum, addend) = (_mm512_maskz_loadu_ps(mask, c), _mm512_maskz_loadu_ps(mask, addend));
                _mm512_mask_storeu_ps(c, mask, _mm512_add_ps(sum, addend));
            }
        }
    }
}

/// A product whose edge cuts registers, through a copy of C.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn part<const HIGH: usize>(rows: usize, cols: usize, args: TileArgs) {
    let mut copy = [0.0_f32; ROWS_MAX * COLS];
    let c = copy.as_mut_ptr();
    let (all_rows, all_cols) = (rows.next_multiple_of(HEIGHT), cols.next_multiple_of(WIDTH));
    // SAFETY: C has `rows` rows of `cols` columns, the copy is whole registers.
    unsafe {
        if args.add {
            copy_part(c, COLS, args.c, args.c_row, rows, cols);
        }
        product::<HIGH>(all_rows, all_cols, TileArgs { c, c_row: COLS, ..args });
        copy_part(args.c, args.c_row, c, COLS, rows, cols);
    }
}

/// dst = (rows, cols)   rows `dst_row` apart
/// src   (rows, cols)   read, rows `src_row` apart
#[target_feature(enable = "avx512f")]
unsafe fn copy_part(
    dst: *mut f32,
    dst_row: usize,
    src: *const f32,
    src_row: usize,
    rows: usize,
    cols: usize,
) {
    for r in 0..rows {
        for j in (0..cols).step_by(WIDTH) {
            let mask = lanes(WIDTH.min(cols - j));
            // SAFETY: the promise of the caller; masked lanes are not touched.
            unsafe {
                let row = _mm512_maskz_loadu_ps(mask, src.wrapping_add(r * src_row + j));
                _mm512_mask_storeu_ps(dst.wrapping_add(r * dst_row + j), mask, row);
            }
        }
    }
}

/// The registers of C = 0
#[inline(always)]
unsafe fn clear() {
    // SAFETY: the caller promises configured tiles.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            options(nomem, nostack, preserves_flags)
        );
    }
}

/// Calls `$each!(register, address)` for the registers that hold c (rows, cols).
macro_rules! each_of_c {
    ($each:ident, $rows:expr, $cols:expr, $c:expr, $c_row:expr) => {
        $each!("tmm0", $c, $c_row);
        if $cols > WIDTH {
            $each!("tmm1", $c.wrapping_add(WIDTH), $c_row);
        }
        if $rows > HEIGHT {
            $each!("tmm2", $c.wrapping_add(HEIGHT * $c_row), $c_row);
        }
        if $rows > HEIGHT && $cols > WIDTH {
            $each!("tmm3", $c.wrapping_add(HEIGHT * $c_row + WIDTH), $c_row);
        }
    };
}

/// The registers of C = c (rows, cols)
#[inline(always)]
unsafe fn load_c(rows: usize, cols: usize, c: *const f32, c_row: usize) {
    macro_rules! load {
        ($tile:tt, $from:expr, $row:expr) => {
            asm!(
                concat!("tileloadd ", $tile, ", [{from} + {row}*1]"),
                from = in(reg) $from, row = in(reg) 4 * $row, out($tile) _,
                options(readonly, nostack, preserves_flags)
            )
        };
    }
    // SAFETY: the caller promises C and configured tiles.
    unsafe {
        each_of_c!(load, rows, cols, c, c_row);
    }
}

/// c (rows, cols) = the registers of C
#[inline(always)]
unsafe fn store_c(rows: usize, cols: usize, c: *mut f32, c_row: usize) {
    macro_rules! store {
        ($tile:tt, $to:expr, $row:expr) => {
            asm!(
                concat!("tilestored [{to} + {row}*1], ", $tile),
                to = in(reg) $to, row = in(reg) 4 * $row,
                options(nostack, preserves_flags)
            )
        };
    }
    // SAFETY: the caller promises C and configured tiles.
    unsafe {
        each_of_c!(store, rows, cols, c, c_row);
    }
}

/// The registers of C += a (16 HIGH, 16 num) * b (16 num, 32), in slots; `a` and `b` are both halves of each.
#[inline(always)]
unsafe fn steps<const HIGH: usize>(
    num: usize,
    a: [*const f32; 2],
    a_row: usize,
    b: [*const f32; 2],
    b_row: usize,
) {
    if num == 0 {
        return;
    }
    /// One loop over the steps: the second line of registers is worked on by what `$lower` says.
    macro_rules! loop_over_steps {
        ($($lower:literal),*) => {
            asm!(
                "2:",
                "tileloadd tmm4, [{upper} + {a_row}*1]",
                "tileloadd tmm6, [{left} + {b_row}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{right} + {b_row}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                $($lower,)*
                "add {upper}, 64",
                "add {lower}, 64",
                "add {left}, {b_step}",
                "add {right}, {b_step}",
                "dec {num}",
                "jnz 2b",
                upper = inout(reg) a[0] => _, lower = inout(reg) a[1] => _, a_row = in(reg) 4 * a_row,
                left = inout(reg) b[0] => _, right = inout(reg) b[1] => _, b_row = in(reg) 4 * b_row,
                b_step = in(reg) 4 * WIDTH * b_row, num = inout(reg) num => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(readonly, nostack)
            )
        };
    }
    // SAFETY: the caller promises the operands and configured tiles.
    unsafe {
        if HIGH == 1 {
            loop_over_steps!();
        } else {
            loop_over_steps!(
                "tileloadd tmm5, [{lower} + {a_row}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7"
            );
        }
    }
}

/// Runs `steps` rounds of products that never leave the registers, and returns their FLOPs.
///
/// # Safety
/// AMX is available.
pub(crate) unsafe fn dot_products(steps: usize) -> usize {
    /// Four results, as in a product: fewer would wait for themselves.
    const PRODUCTS: usize = 4;
    let slots = [f32::from_bits(0x3f00_3f00); HEIGHT * WIDTH];
    // SAFETY: the promise of the caller; the tiles that are loaded are as large as the slots.
    unsafe {
        configure();
        asm!(
            "tileloadd tmm4, [{slots} + {row}*1]",
            "tileloadd tmm5, [{slots} + {row}*1]",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm5",
            "tdpbf16ps tmm1, tmm4, tmm5",
            "tdpbf16ps tmm2, tmm4, tmm5",
            "tdpbf16ps tmm3, tmm4, tmm5",
            "dec {steps}",
            "jnz 2b",
            slots = in(reg) slots.as_ptr(), row = in(reg) 4 * WIDTH, steps = inout(reg) steps.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
            options(readonly, nostack)
        );
        release();
    }
    2 * steps.max(1) * PRODUCTS * HEIGHT * WIDTH * 2 * WIDTH
}

/// dst (lanes, k) = src[p * step + j * lane], in slots, rows `width` slots apart.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
unsafe fn pack_rows(
    dst: *mut f32,
    width: usize,
    src: *const f32,
    step: usize,
    lane: usize,
    k: usize,
    num_lanes: usize,
) {
    let mut block = [0.0_f32; WIDTH * WIDTH];
    let block = block.as_mut_ptr();
    for p in (0..k).step_by(2 * WIDTH) {
        let terms = (2 * WIDTH).min(k - p);
        for j in (0..num_lanes).step_by(WIDTH) {
            let rows = WIDTH.min(num_lanes - j);
            let src = src.wrapping_add(p * step + j * lane);
            let dst = dst.wrapping_add(j * width + p / 2);
            // SAFETY: the promise of the caller; the block holds 16 x 16 slots.
            unsafe {
                Avx512Bf16::pack(block, WIDTH, src, step, lane, terms, rows);
                transpose_16(terms.div_ceil(2), rows, block, WIDTH, dst, width);
            }
        }
    }
}
