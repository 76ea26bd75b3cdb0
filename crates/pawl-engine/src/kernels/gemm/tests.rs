//! Products against their definition: odd sizes, strides, cuts, batches.

use super::bf16::Rounded;
use super::*;
use crate::kernels::testing::{check_close, choices, isas, numbers, same_bits};

/// Products of up to 1,600 terms in -1 .. 1; worst seen 1.7e-5 of 1 + |c| (the f64 sum is the truth).
const TOLERANCE: f32 = 4e-5;

/// The definition. c (M, N) = or += a (M, K) * b (K, N)
fn reference(c: &mut [f32], c_row: usize, a: Strided<'_>, b: Strided<'_>, dims: Dims, store: Store<'_>) {
    for i in 0..dims.m {
        for j in 0..dims.n {
            let term = |p: usize| {
                f64::from(a.data[i * a.row + p * a.col]) * f64::from(b.data[p * b.row + j * b.col])
            };
            let sum: f64 = (0..dims.k).map(term).sum();
            let c = &mut c[i * c_row + j];
            *c = match store {
                Store::Add => *c + sum as f32,
                Store::Plus(rows) => sum as f32 + rows.data[i * rows.row + j],
                Store::Set | Store::Mirror => sum as f32,
            };
        }
    }
}

/// Row-major, or transposed, with `extra` elements between rows.
fn strided(data: &[f32], rows: usize, cols: usize, transposed: bool, extra: usize) -> Strided<'_> {
    if transposed {
        Strided { data, row: 1, col: rows + extra }
    } else {
        Strided { data, row: cols + extra, col: 1 }
    }
}

fn check_gemm(dims: Dims, ta: bool, tb: bool, extra: usize, store: Store<'_>) {
    check_gemm_in(Precision::F32, dims, ta, tb, extra, store);
    // Operands that bfloat16 holds exactly: then both precisions have one truth.
    check_gemm_in(Precision::Bf16, dims, ta, tb, extra, store);
}

fn check_gemm_in(precision: Precision, dims: Dims, ta: bool, tb: bool, extra: usize, store: Store<'_>) {
    let Dims { m, n, k } = dims;
    let (mut a, mut b) = (numbers((m + extra) * (k + extra), 1), numbers((k + extra) * (n + extra), 2));
    if precision == Precision::Bf16 {
        a.iter_mut().chain(&mut b).for_each(|x| *x = bf16::round(*x));
    }
    let (a, b) = (strided(&a, m, k, ta, extra), strided(&b, k, n, tb, extra));
    let c_row = n + extra;
    let before = numbers(m * c_row, 3);
    let mut want = before.clone();
    reference(&mut want, c_row, a, b, dims, store);
    for isa in isas() {
        let what = format!("{isa:?} {precision:?} {dims:?} ta {ta} tb {tb} extra {extra} {store:?}");
        let got = same_bits(&what, |pool| {
            let mut c = before.clone();
            let mut scratch = vec![f32::NAN; gemm_scratch_len(pool.num_threads(), dims)];
            gemm(pool, isa, precision, &mut scratch, &mut c, c_row, a, b, dims, store);
            c
        });
        check_close(&got, &want, TOLERANCE, &what);
    }
}

/// From less than a vector to more than a block of rows, whole tiles of every set among them.
const SIZES: [(usize, usize, usize); 8] = [
    (1, 1, 1),
    (1, 70, 33),
    (3, 1, 5),
    (13, 33, 17),
    (25, 64, 64),
    (97, 129, 31),
    (192, 96, 32),
    (200, 47, 300),
];

#[test]
fn products_of_odd_sizes_agree_with_the_definition() {
    for (m, n, k) in SIZES {
        for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
            for extra in [0, 3] {
                check_gemm(Dims { m, n, k }, ta, tb, extra, Store::Set);
                check_gemm(Dims { m, n, k }, ta, tb, extra, Store::Add);
            }
        }
    }
}

#[test]
fn long_sums_and_wide_matrices_are_cut_and_still_agree() {
    check_gemm(Dims { m: 20, n: 40, k: 1600 }, true, false, 0, Store::Set);
    check_gemm(Dims { m: 20, n: 40, k: 769 }, false, true, 1, Store::Add);
    check_gemm(Dims { m: 30, n: 2100, k: 40 }, false, true, 0, Store::Add);
    check_gemm(Dims { m: 100, n: 40, k: 512 }, false, true, 0, Store::Set);
    check_gemm(Dims { m: 10, n: 512, k: 40 }, false, false, 0, Store::Set);
}

#[test]
fn few_rows_against_a_transposed_matrix_agree() {
    for (m, n, k) in [(1, 1, 16), (1, 513, 700), (2, 9, 33), (3, 5, 100), (4, 130, 1030)] {
        for extra in [0, 5] {
            check_gemm(Dims { m, n, k }, false, true, extra, Store::Set);
            check_gemm(Dims { m, n, k }, false, true, extra, Store::Add);
        }
    }
}

/// Sizes of every kind of tile and edge, of several blocks of k, and of few rows.
#[test]
fn what_is_added_gives_the_bits_of_a_product_and_an_addition() {
    for (m, n, k) in SIZES.into_iter().chain([(40, 70, 1600), (4, 130, 1030), (97, 2100, 40)]) {
        let dims = Dims { m, n, k };
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        for (row, tb) in [(0, false), (0, true), (n, true), (n + 5, false)] {
            let rows = numbers((m - 1) * row + n, 4);
            let rows = Strided { data: &rows, row, col: 1 };
            for isa in isas() {
                for precision in [Precision::F32, Precision::Bf16] {
                    let c_row = n + 3;
                    let product = |pool: &Pool, store| {
                        let mut c = numbers(m * c_row, 3);
                        let mut scratch = vec![f32::NAN; gemm_scratch_len(pool.num_threads(), dims)];
                        let (a, b) = (strided(&a, m, k, false, 0), strided(&b, k, n, tb, 0));
                        gemm(pool, isa, precision, &mut scratch, &mut c, c_row, a, b, dims, store);
                        c
                    };
                    let what = format!("{isa:?} {precision:?} {dims:?} rows {row} apart, tb {tb}");
                    let mut apart = product(&Pool::new(1), Store::Set);
                    for (i, c) in apart.chunks_mut(c_row).enumerate() {
                        let added = &rows.data[i * row..][..n];
                        c.iter_mut().zip(added).for_each(|(c, added)| *c += added);
                    }
                    let together = same_bits(&what, |pool| product(pool, Store::Plus(rows)));
                    assert!(together == apart, "{what}");
                }
            }
        }
    }
}

#[test]
fn general_strides_are_read_right() {
    let dims = Dims { m: 14, n: 35, k: 9 };
    let (a, b) = (numbers(14 * 2 * 9 * 3, 1), numbers(9 * 70 * 2, 2));
    let (a, b) = (Strided { data: &a, row: 2, col: 28 }, Strided { data: &b, row: 140, col: 2 });
    let mut want = vec![0.0; 14 * 35];
    reference(&mut want, 35, a, b, dims, Store::Set);
    for isa in isas() {
        let mut got = vec![f32::NAN; 14 * 35];
        let mut scratch = vec![0.0; gemm_scratch_len(1, dims)];
        gemm(&Pool::new(1), isa, Precision::F32, &mut scratch, &mut got, 35, a, b, dims, Store::Set);
        check_close(&got, &want, TOLERANCE, "general strides");
    }
}

/// The tiles that a machine with a better one does not choose, through the product and without a pool.
#[cfg(target_arch = "x86_64")]
#[test]
fn bfloat16_tiles_that_are_not_chosen_agree_as_well() {
    if Isa::Avx512.is_available() {
        check_tile::<Rounded<tile::Avx512>>(false);
    }
    if reads_halves(Isa::Avx512, Precision::Bf16) && Isa::Avx512.is_available() {
        check_tile::<bf16::Avx512Bf16>(false);
        check_tile::<bf16::Avx512Bf16>(true);
    }
}

#[cfg(target_arch = "x86_64")]
fn check_tile<T: Tile>(halves: bool) {
    let rows = numbers(200 * 129, 4);
    let stores = [Store::Add, Store::Plus(Strided { data: &rows, row: 129, col: 1 })];
    for (m, n, k) in SIZES.into_iter().chain([(40, 70, 1600)]) {
        let ways = [(false, false), (false, true), (true, false)];
        for ((ta, tb), store) in ways.into_iter().flat_map(|way| stores.map(|store| (way, store))) {
            let [a, b] = [(m * k, 1), (k * n, 2)]
                .map(|(len, seed)| numbers(len, seed).into_iter().map(bf16::round).collect::<Vec<_>>());
            let stored = [&a, &b].map(|x| if halves { in_halves(Isa::Avx512, x) } else { x.clone() });
            let (a, b) = (strided(&a, m, k, ta, 0), strided(&b, k, n, tb, 0));
            let dims = Dims { m, n, k };
            let mut want = numbers(m * n, 3);
            let mut got = want.clone();
            reference(&mut want, n, a, b, dims, store);
            let product = Product {
                a: stored[0].as_ptr(),
                a_row: a.row,
                a_col: a.col,
                b: stored[1].as_ptr(),
                b_row: b.row,
                b_col: b.col,
                halves: [halves; 2],
                packed: std::ptr::null(),
                c: got.as_mut_ptr(),
                c_row: n,
                dims,
                store,
            };
            let mut scratch = vec![f32::NAN; gemm_scratch_len(1, dims)];
            // SAFETY: the caller has the instruction set; the vectors are as long as the product says.
            unsafe { multiply_with::<T>(None, aligned(&mut scratch), product) };
            check_close(&got, &want, TOLERANCE, &format!("{dims:?} ta {ta} tb {tb}"));
        }
    }
}

#[test]
fn an_element_has_the_same_bits_in_any_matrix() {
    let (a, b) = (numbers(50 * 1600, 1), numbers(1600 * 100, 2));
    let ways = isas().into_iter().flat_map(|isa| [(isa, Precision::F32), (isa, Precision::Bf16)]);
    // One block of k, with a tail, and more than one in either precision.
    for ((isa, precision), k) in ways.flat_map(|way| [(way, 601), (way, 1600)]) {
        let pool = Pool::new(2);
        let run = |m: usize, n: usize| {
            let dims = Dims { m, n, k };
            let mut c = vec![0.0; m * n];
            let mut scratch = vec![0.0; gemm_scratch_len(2, dims)];
            let (a, b) = (strided(&a, m, k, false, 0), Strided { data: &b, row: 100, col: 1 });
            gemm(&pool, isa, precision, &mut scratch, &mut c, n, a, b, dims, Store::Set);
            c
        };
        let (all, some) = (run(50, 100), run(5, 7));
        for i in 0..5 {
            let what = format!("{isa:?} {precision:?} {k} terms, row {i}");
            assert_eq!(all[i * 100..i * 100 + 7], some[i * 7..i * 7 + 7], "{what}");
        }
    }
}

#[test]
fn few_rows_in_bfloat16_are_those_of_many() {
    let (k, n) = (601, 33);
    let (a, b) = (numbers(40 * k, 1), numbers(n * k, 2));
    for isa in isas() {
        let run = |m: usize, in_halves_too: bool| {
            let dims = Dims { m, n, k };
            let mut c = vec![0.0; m * n];
            let mut scratch = vec![0.0; gemm_scratch_len(1, dims)];
            let halves = in_halves_too.then(|| in_halves(isa, &a[..m * k + m * k % 2]));
            let left = match &halves {
                Some(halves) => Left::Halves(strided(halves, m, k, false, 0)),
                None => strided(&a, m, k, false, 0).into(),
            };
            let b = strided(&b, k, n, true, 0);
            gemm(&Pool::new(1), isa, Precision::Bf16, &mut scratch, &mut c, n, left, b, dims, Store::Set);
            c
        };
        let many = run(40, false);
        for m in 1..=4 {
            assert_eq!(run(m, false), many[..m * n], "{isa:?} {m}");
            if reads_halves(isa, Precision::Bf16) {
                assert_eq!(run(m, true), many[..m * n], "{isa:?} {m} in halves");
            }
        }
    }
}

#[test]
fn a_batch_is_its_products_one_by_one() {
    for (num, m, n, k) in [(1, 5, 6, 7), (5, 33, 17, 20), (40, 16, 16, 16), (3, 128, 128, 100)] {
        let dims = Dims { m, n, k };
        for b_batch in [k * n, 0] {
            let batch = BatchStrides { a: m * k, b: b_batch, c: m * n + 3 };
            for precision in [Precision::F32, Precision::Bf16] {
                check_batch(precision, num, dims, batch, (true, false), Store::Add);
            }
        }
    }
}

fn check_batch(
    precision: Precision,
    num: usize,
    dims: Dims,
    batch: BatchStrides,
    (ta, tb): (bool, bool),
    store: Store<'static>,
) {
    let Dims { m, n, k } = dims;
    let (mut a, mut b) = (numbers(num * m * k, 1), numbers(num * k * n, 2));
    if precision == Precision::Bf16 {
        a.iter_mut().chain(&mut b).for_each(|x| *x = bf16::round(*x));
    }
    let before = numbers(num * batch.c, 3);
    let mut want = before.clone();
    for i in 0..num {
        let a = strided(&a[i * batch.a..], m, k, ta, 0);
        let b = strided(&b[i * batch.b..], k, n, tb, 0);
        reference(&mut want[i * batch.c..], n, a, b, dims, store);
    }
    let (a, b) = (strided(&a, m, k, ta, 0), strided(&b, k, n, tb, 0));
    for isa in isas() {
        let what = format!("{isa:?} {precision:?} {num} of {dims:?}");
        let got = same_bits(&what, |pool| {
            let mut c = before.clone();
            let mut scratch = vec![f32::NAN; gemm_batch_scratch_len(pool.num_threads(), dims)];
            gemm_batch(pool, isa, precision, &mut scratch, &mut c, n, a, b, dims, store, num, batch);
            c
        });
        check_close(&got, &want, TOLERANCE, &what);
    }
}

#[test]
fn bfloat16_rounds_to_nearest_even() {
    for (x, want) in [(1.0, 1.0), (1.003_906_2, 1.0), (1.011_718_8, 1.015_625), (-3.139, -3.140_625)] {
        assert_eq!(bf16::round(x), want, "{x}");
    }
    assert!(bf16::round(f32::NAN).is_nan());
    assert_eq!(bf16::round(f32::INFINITY), f32::INFINITY);
    // Operands that are not exact: the hardware rounds as we do, so an unrounded product agrees with a rounded one.
    let dims = Dims { m: 14, n: 33, k: 37 };
    let (a, b) = (numbers(14 * 37, 5), numbers(37 * 33, 6));
    let rounded: Vec<Vec<f32>> = [&a, &b].map(|x| x.iter().map(|x| bf16::round(*x)).collect()).into();
    for isa in isas() {
        let product = |a: &[f32], b: &[f32]| {
            let mut c = vec![0.0; 14 * 33];
            let mut scratch = vec![0.0; gemm_scratch_len(1, dims)];
            let (a, b) = (strided(a, 14, 37, false, 0), strided(b, 37, 33, false, 0));
            gemm(&Pool::new(1), isa, Precision::Bf16, &mut scratch, &mut c, 33, a, b, dims, Store::Set);
            c
        };
        assert_eq!(product(&a, &b), product(&rounded[0], &rounded[1]), "{isa:?}");
    }
}

#[test]
fn mirrored_products_have_the_bits_of_whole_ones() {
    for (n, k) in [(5, 7), (33, 64), (100, 40), (200, 300), (257, 31)] {
        check_mirrored(n, k, false);
    }
}

/// a a^T, or a^T a of an a that is stored the other way round.
fn check_mirrored(n: usize, k: usize, ta: bool) {
    let a = numbers(n * k, 4);
    let (left, right) = (strided(&a, n, k, ta, 0), strided(&a, k, n, !ta, 0));
    let dims = Dims { m: n, n, k };
    for isa in isas() {
        for precision in [Precision::F32, Precision::Bf16] {
            let product = |pool: &Pool, store| {
                let mut c = vec![f32::NAN; n * n];
                let mut scratch = vec![f32::NAN; gemm_scratch_len(pool.num_threads(), dims)];
                gemm(pool, isa, precision, &mut scratch, &mut c, n, left, right, dims, store);
                c
            };
            let what = format!("{isa:?} {precision:?} {dims:?}");
            let whole = same_bits(&what, |pool| product(pool, Store::Set));
            let mirrored = same_bits(&what, |pool| product(pool, Store::Mirror));
            assert!(whole == mirrored, "{what}");
        }
    }
}

#[test]
fn a_matrix_packed_ahead_gives_the_same_bits() {
    for (m, n, k) in [(40, 33, 17), (96, 100, 300), (33, 70, 1700), (64, 2100, 40)] {
        check_packed(m, n, k);
    }
}

fn check_packed(m: usize, n: usize, k: usize) {
    let dims = Dims { m, n, k };
    let (a, b) = (numbers(m * k, 5), numbers(k * n, 6));
    let a = strided(&a, m, k, false, 0);
    for tb in [false, true] {
        let b = strided(&b, k, n, tb, 0);
        for isa in isas() {
            for precision in [Precision::F32, Precision::Bf16] {
                let product = |pool: &Pool, ahead: bool| {
                    let mut c = vec![f32::NAN; m * n];
                    let mut scratch = vec![f32::NAN; gemm_scratch_len(pool.num_threads(), dims)];
                    let mut packed = vec![f32::NAN; packed_right_len(isa, precision, k, n)];
                    pack_right(pool, isa, precision, &mut packed, b, k, n);
                    let b = if ahead { Right::Packed(&packed) } else { b.into() };
                    gemm(pool, isa, precision, &mut scratch, &mut c, n, a, b, dims, Store::Set);
                    c
                };
                let what = format!("{isa:?} {precision:?} {dims:?} tb {tb}");
                let ahead = same_bits(&what, |pool| product(pool, true));
                assert!(ahead == same_bits(&what, |pool| product(pool, false)), "{what}");
            }
        }
    }
}

fn in_halves(isa: Isa, x: &[f32]) -> Vec<f32> {
    let mut halves = vec![f32::NAN; x.len().div_ceil(2)];
    // SAFETY: both are as long as they say.
    unsafe { halve(isa, halves.as_mut_ptr(), x.as_ptr(), x.len()) };
    halves
}

#[test]
fn operands_in_halves_give_the_same_bits() {
    for (m, n, k) in [(1, 1, 1), (16, 33, 32), (40, 70, 17), (96, 100, 300), (33, 70, 1700), (128, 64, 2050)]
    {
        check_halves(Dims { m, n, k });
    }
}

fn check_halves(dims: Dims) {
    let Dims { m, n, k } = dims;
    let (a, b, before) = (numbers(m * k, 5), numbers(k * n, 6), numbers(m * n, 7));
    for isa in isas().into_iter().filter(|isa| reads_halves(*isa, Precision::Bf16)) {
        let (half_a, half_b) = (in_halves(isa, &a), in_halves(isa, &b));
        for way in 0..16 {
            let [ta, tb, left, right] = [0, 1, 2, 3].map(|bit| way >> bit & 1 == 1);
            // Up to four rows against a transposed matrix are another kernel.
            if m <= 4 && tb {
                continue;
            }
            let product = |pool: &Pool, halves: [bool; 2]| {
                let mut c = before.clone();
                let mut scratch = vec![f32::NAN; gemm_scratch_len(pool.num_threads(), dims)];
                let a = match halves[0] {
                    true => Left::Halves(strided(&half_a, m, k, ta, 0)),
                    false => Left::Matrix(strided(&a, m, k, ta, 0)),
                };
                let b = match halves[1] {
                    true => Right::Halves(strided(&half_b, k, n, tb, 0)),
                    false => Right::Matrix(strided(&b, k, n, tb, 0)),
                };
                gemm(pool, isa, Precision::Bf16, &mut scratch, &mut c, n, a, b, dims, Store::Add);
                c
            };
            let what = format!("{isa:?} {dims:?} ta {ta} tb {tb} halves {left} {right}");
            let want = same_bits(&what, |pool| product(pool, [false; 2]));
            assert!(want == same_bits(&what, |pool| product(pool, [left, right])), "{what}");
        }
    }
}

/// Products of each kind at random sizes: some seconds on every instruction set.
const NUM_RANDOM: u64 = 150;

#[test]
fn products_of_random_sizes_agree_in_every_layout() {
    for seed in 0..NUM_RANDOM {
        let mut below = choices(seed);
        let mut extent = |long: usize| if below(4) == 0 { 1 + below(long) } else { 1 + below(70) };
        let (m, n) = (extent(250), extent(250));
        let k = (1 << 20) / (m * n).next_power_of_two();
        let k = extent(1700).min(k);
        let [ta, tb, adds, shares] = [0; 4].map(|_| below(2) == 0);
        let store = if adds { Store::Add } else { Store::Set };
        let dims = Dims { m, n, k };
        check_gemm(dims, ta, tb, below(5), store);
        check_mirrored(n, k, ta);
        check_halves(dims);
        // Up to four rows are read in another order.
        check_packed(m.max(5), n, k);
        let num = 1 + below(1 + (1 << 18) / (m * n * k).next_power_of_two()).min(30);
        let batch = BatchStrides { a: m * k, b: if shares { 0 } else { k * n }, c: m * n + below(4) };
        for precision in [Precision::F32, Precision::Bf16] {
            check_batch(precision, num, dims, batch, (ta, tb), store);
        }
    }
}
