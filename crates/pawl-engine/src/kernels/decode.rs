//! Kernels of generation: a few new positions against matrices that are read once each, and against the keys
//! and values of the past.
//!
//! An element of a product is one chain of multiply-adds along k, so its bits depend neither on how many
//! positions are computed together nor on the number of threads. It refuses to know what a state is for.

use super::Isa;
use super::lanes::{LANES, dot, fma, fold, per_isa};
use super::math::exp;
use super::rows::row_max;
use crate::buffer::Buffer;
use crate::pool::Pool;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Columns of a panel: two vectors of AVX-512.
const PANEL: usize = 32;
/// Weights of a task: some ten microseconds of one core's memory.
const TASK_WEIGHTS: usize = 1 << 16;
/// Most rows that share one pass over a panel: their sums fill half of the vector registers of AVX-512.
const MAX_ROWS: usize = 8;

/// Keys whose scores are worked out side by side.
const GROUP: usize = 4;
/// Channels of values summed in registers.
const STRIP: usize = 64;

/// How the constant matrices of generation are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bfloat16, half the bytes.
    Bf16,
    /// Whole numbers up to 127 times one scale for each output: a quarter of the bytes.
    Int8,
}

/// A matrix (K, N) cut into panels (K, 32) of neighbouring columns, zeros beyond N.
pub struct Panels {
    k: usize,
    n: usize,
    data: Data,
}

enum Data {
    F32(Buffer),
    Bf16(Vec<u16>),
    /// With the scale of each column.
    Int8(Vec<i8>, Vec<f32>),
}

impl Panels {
    /// w (K, N), or (N, K) when `transposed`, row-major.
    pub fn pack(w: &[f32], k: usize, n: usize, transposed: bool, weights: Weights) -> Panels {
        assert!(k > 0 && n > 0 && w.len() == k * n, "{} weights of {k} x {n}", w.len());
        let at = |p: usize, j: usize| if transposed { w[j * k + p] } else { w[p * n + j] };
        let len = k * n.next_multiple_of(PANEL);
        let place = |i: usize| (i / PANEL % k, i / (PANEL * k) * PANEL + i % PANEL);
        let element = |i: usize| {
            let (p, j) = place(i);
            if j < n { at(p, j) } else { 0.0 }
        };
        let data = match weights {
            Weights::F32 => {
                let mut buffer = Buffer::zeros(len);
                buffer.floats_mut().iter_mut().enumerate().for_each(|(i, to)| *to = element(i));
                Data::F32(buffer)
            }
            Weights::Bf16 => Data::Bf16((0..len).map(|i| to_bf16(element(i))).collect()),
            Weights::Int8 => {
                let largest = |j: usize| (0..k).fold(0.0_f32, |top, p| top.max(at(p, j).abs()));
                let scales: Vec<f32> = (0..n).map(|j| largest(j) / 127.0).collect();
                let whole = |i: usize| {
                    let scale = scales.get(place(i).1).copied().unwrap_or(0.0);
                    if scale > 0.0 { (element(i) / scale).round() as i8 } else { 0 }
                };
                Data::Int8((0..len).map(whole).collect(), scales)
            }
        };
        Panels { k, n, data }
    }

    /// K and N.
    pub fn dims(&self) -> (usize, usize) {
        (self.k, self.n)
    }

    /// Bytes that one pass reads.
    pub fn bytes(&self) -> usize {
        let width = match self.data {
            Data::F32(_) => 4,
            Data::Bf16(_) => 2,
            Data::Int8(..) => 1,
        };
        self.k * self.n.next_multiple_of(PANEL) * width
    }
}

/// Rounds to nearest, ties to even; NaN stays NaN.
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// An element of a stored matrix.
trait Element: Copy {
    fn widen(self) -> f32;

    /// Sixteen elements from `from` on. Needs AVX-512.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load(from: *const Self) -> __m512;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: the caller promises sixteen elements.
        unsafe { _mm512_loadu_ps(from) }
    }
}

impl Element for u16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load(from: *const u16) -> __m512 {
        // SAFETY: as above.
        let half = unsafe { _mm256_loadu_si256(from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
    }
}

impl Element for i8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load(from: *const i8) -> __m512 {
        // SAFETY: as above.
        let quarter = unsafe { _mm_loadu_si128(from.cast()) };
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(quarter))
    }
}

/// Rows of x and y as pointers, which tasks share.
struct Rows<'a> {
    x: &'a [*const f32],
    y: &'a [*mut f32],
}
// SAFETY: x is only read, and each task writes its own columns of y.
unsafe impl Sync for Rows<'_> {}

/// y\[i\] = (N)   x\[i\] times the matrix
/// x\[i\]   (K)   read
///
/// # Safety
/// Pointers hold K and N floats, and no y overlaps anything else.
pub unsafe fn linear(pool: &Pool, isa: Isa, y: &[*mut f32], x: &[*const f32], w: &Panels) {
    assert_eq!(x.len(), y.len(), "one result for each row");
    let num_panels = w.n.div_ceil(PANEL);
    let step = (TASK_WEIGHTS / (w.k * PANEL)).max(1);
    let rows = &Rows { x, y };
    assert!(isa.is_available(), "{isa:?} is not available on this machine");
    pool.run(num_panels.div_ceil(step), &|task, _| {
        for panel in task * step..num_panels.min((task + 1) * step) {
            let part = panel * PANEL * w.k..(panel + 1) * PANEL * w.k;
            match &w.data {
                Data::F32(data) => multiply_panel(isa, rows, &data.floats()[part], w, panel, None),
                Data::Bf16(data) => multiply_panel(isa, rows, &data[part], w, panel, None),
                Data::Int8(data, scales) => multiply_panel(isa, rows, &data[part], w, panel, Some(scales)),
            }
        }
    });
}

/// Columns of one panel, for all rows. The instruction set is there, and rows are as long as `linear` was promised.
fn multiply_panel<E: Element>(
    isa: Isa,
    rows: &Rows<'_>,
    data: &[E],
    w: &Panels,
    panel: usize,
    scales: Option<&[f32]>,
) {
    let columns = panel * PANEL..w.n.min((panel + 1) * PANEL);
    let mut done = 0;
    while done < rows.x.len() {
        let x = &rows.x[done..];
        let mut sums = [[0.0; PANEL]; MAX_ROWS];
        let num = match isa {
            // SAFETY: the set is available and rows of x are as long as the panel.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe {
                match x.len() {
                    8.. => vector_tile::<E, 8>(&mut sums, x, data),
                    4.. => vector_tile::<E, 4>(&mut sums, x, data),
                    2.. => vector_tile::<E, 2>(&mut sums, x, data),
                    _ => vector_tile::<E, 1>(&mut sums, x, data),
                }
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2_tile(&mut sums, x, data) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx512 | Isa::Avx2 => unreachable!("asserted to be available"),
            Isa::Portable => tile::<false, E>(&mut sums, x, data),
        };
        for (sums, y) in sums.iter_mut().zip(&rows.y[done..done + num]) {
            if let Some(scales) = scales {
                sums.iter_mut().zip(&scales[columns.clone()]).for_each(|(sum, scale)| *sum *= scale);
            }
            // SAFETY: y holds N floats, and these columns belong to this task.
            let y = unsafe { std::slice::from_raw_parts_mut(y.add(columns.start), columns.len()) };
            y.copy_from_slice(&sums[..columns.len()]);
        }
        done += num;
    }
}

/// sums = (R, 32)   the first R rows of x times the panel; returns R
/// data   (K, 32)   read
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn vector_tile<E: Element, const R: usize>(
    sums: &mut [[f32; PANEL]; MAX_ROWS],
    x: &[*const f32],
    data: &[E],
) -> usize {
    let mut acc = [[_mm512_setzero_ps(); 2]; R];
    let x: [*const f32; R] = std::array::from_fn(|r| x[r]);
    for p in 0..data.len() / PANEL {
        // SAFETY: row p of the panel holds 32 elements, and each row of x a float for it.
        unsafe {
            let row = data.as_ptr().add(p * PANEL);
            let w = [E::load(row), E::load(row.add(16))];
            for r in 0..R {
                let x = _mm512_set1_ps(*x[r].add(p));
                acc[r] = [_mm512_fmadd_ps(x, w[0], acc[r][0]), _mm512_fmadd_ps(x, w[1], acc[r][1])];
            }
        }
    }
    for (sums, acc) in sums.iter_mut().zip(acc) {
        // SAFETY: 32 floats each.
        unsafe {
            _mm512_storeu_ps(sums.as_mut_ptr(), acc[0]);
            _mm512_storeu_ps(sums.as_mut_ptr().add(16), acc[1]);
        }
    }
    R
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2_tile<E: Element>(sums: &mut [[f32; PANEL]; MAX_ROWS], x: &[*const f32], data: &[E]) -> usize {
    tile::<true, E>(sums, x, data)
}

/// The same in plain code, one row: what the compiler keeps in registers of any instruction set.
#[inline(always)]
fn tile<const FMA: bool, E: Element>(
    sums: &mut [[f32; PANEL]; MAX_ROWS],
    x: &[*const f32],
    data: &[E],
) -> usize {
    let mut acc = [0.0_f32; PANEL];
    for (p, w) in data.as_chunks::<PANEL>().0.iter().enumerate() {
        // SAFETY: a row of x holds as many floats as the panel has rows.
        let x = unsafe { *x[0].add(p) };
        for lane in 0..PANEL {
            acc[lane] = fma::<FMA>(x, w[lane].widen(), acc[lane]);
        }
    }
    sums[0] = acc;
    1
}

/// Keys and values of the past, as one head reads them.
#[derive(Clone, Copy)]
pub struct Past<'a> {
    /// (T, K, D)
    pub keys: &'a [f32],
    /// (T, K, D)
    pub values: &'a [f32],
    /// K times D: from one position to the next.
    pub stride: usize,
    /// Where the head's key/value head begins.
    pub offset: usize,
    /// First position seen.
    pub first: usize,
    /// Positions seen.
    pub num: usize,
}

per_isa! {
    /// out = (D)     values weighted by the softmax of scale q k
    /// scores        at least as many as positions are seen, overwritten
    /// q     (D)     read
    pub fn attend(out: &mut [f32], scores: &mut [f32], q: &[f32], past: Past<'_>, scale: f32) = attend_body
}

#[inline(always)]
fn attend_body<const FMA: bool>(out: &mut [f32], scores: &mut [f32], q: &[f32], past: Past<'_>, scale: f32) {
    let d = q.len();
    let row = |data: &'_ [f32], j: usize| -> *const f32 {
        data[(past.first + j) * past.stride + past.offset..][..d].as_ptr()
    };
    // SAFETY: the slice above was that long.
    let row = |data, j| unsafe { std::slice::from_raw_parts(row(data, j), d) };
    let scores = &mut scores[..past.num];
    let (groups, rest) = scores.as_chunks_mut::<GROUP>();
    for (g, group) in groups.iter_mut().enumerate() {
        *group = dots::<FMA>(q, std::array::from_fn(|n| row(past.keys, g * GROUP + n)));
    }
    let done = groups.len() * GROUP;
    for (j, score) in rest.iter_mut().enumerate() {
        *score = dot::<FMA>(q, row(past.keys, done + j));
    }
    scores.iter_mut().for_each(|score| *score *= scale);
    let peak = row_max(scores);
    let sum = exp_row::<FMA>(scores, peak);
    out.fill(0.0);
    for (c, out) in out.chunks_mut(STRIP).enumerate() {
        let mut acc = [0.0; STRIP];
        let width = out.len();
        for (j, score) in scores.iter().enumerate() {
            let v = &row(past.values, j)[c * STRIP..][..width];
            if let Ok(v) = <&[f32; STRIP]>::try_from(v) {
                for lane in 0..STRIP {
                    acc[lane] = fma::<FMA>(*score, v[lane], acc[lane]);
                }
            } else {
                acc.iter_mut().zip(v).for_each(|(acc, v)| *acc = fma::<FMA>(*score, *v, *acc));
            }
        }
        out.iter_mut().zip(acc).for_each(|(out, acc)| *out = acc / sum);
    }
}

/// Dot products of q and several keys, side by side; each has the bits of [`dot`].
#[inline(always)]
fn dots<const FMA: bool>(q: &[f32], keys: [&[f32]; GROUP]) -> [f32; GROUP] {
    let mut lanes = [[0.0_f32; LANES]; GROUP];
    let (chunks, rest) = q.as_chunks::<LANES>();
    let parts = keys.map(|key| key[..q.len()].as_chunks::<LANES>());
    for (p, q) in chunks.iter().enumerate() {
        for n in 0..GROUP {
            for lane in 0..LANES {
                lanes[n][lane] = fma::<FMA>(q[lane], parts[n].0[p][lane], lanes[n][lane]);
            }
        }
    }
    for n in 0..GROUP {
        for lane in 0..rest.len() {
            lanes[n][lane] = fma::<FMA>(rest[lane], parts[n].1[lane], lanes[n][lane]);
        }
    }
    lanes.map(|lanes| fold(lanes, |a, b| a + b))
}

/// x = e^(x - peak); returns their sum.
#[inline(always)]
fn exp_row<const FMA: bool>(x: &mut [f32], peak: f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for x in chunks {
        for lane in 0..LANES {
            x[lane] = exp::<FMA>(x[lane] - peak);
            lanes[lane] += x[lane];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *x = exp::<FMA>(*x - peak);
        *lane += *x;
    }
    fold(lanes, |a, b| a + b)
}

per_isa! {
    /// state = (C)   a state + x
    /// a, x    (C)   read
    pub fn advance_scan(state: &mut [f32], a: &[f32], x: &[f32]) = advance_scan_body
}

#[inline(always)]
fn advance_scan_body<const FMA: bool>(state: &mut [f32], a: &[f32], x: &[f32]) {
    for ((state, a), x) in state.iter_mut().zip(a).zip(x) {
        *state = fma::<FMA>(*a, *state, *x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{check_close, isas, numbers, same_bits};

    /// Sums of 300 products of numbers up to 1, one after another; worst seen 4e-6.
    const LINEAR_TOLERANCE: f32 = 1e-5;

    fn product(pool: &Pool, isa: Isa, x: &[f32], rows: usize, w: &Panels) -> Vec<f32> {
        let mut y = vec![9.0; rows * w.n];
        let ins: Vec<*const f32> = (0..rows).map(|i| x[i * w.k..].as_ptr()).collect();
        let outs: Vec<*mut f32> = y.chunks_exact_mut(w.n).map(<[f32]>::as_mut_ptr).collect();
        // SAFETY: rows of x and y are that long and disjoint.
        unsafe { linear(pool, isa, &outs, &ins, w) };
        y
    }

    #[test]
    fn linear_agrees_with_the_definition_and_a_row_never_notices_its_neighbours() {
        for (rows, k, n) in [(1, 1, 1), (3, 7, 33), (16, 300, 70), (11, 64, 96)] {
            let (x, w) = (numbers(rows * k, 1), numbers(k * n, 2));
            for transposed in [false, true] {
                let at = |p: usize, j: usize| f64::from(if transposed { w[j * k + p] } else { w[p * n + j] });
                let want: Vec<f32> = (0..rows * n)
                    .map(|i| (0..k).map(|p| f64::from(x[i / n * k + p]) * at(p, i % n)).sum::<f64>() as f32)
                    .collect();
                let panels = Panels::pack(&w, k, n, transposed, Weights::F32);
                for isa in isas() {
                    let all = same_bits("linear", |pool| product(pool, isa, &x, rows, &panels));
                    check_close(&all, &want, LINEAR_TOLERANCE, &format!("{isa:?} {rows} x {n} x {k}"));
                    for i in 0..rows {
                        let alone = product(&Pool::new(1), isa, &x[i * k..(i + 1) * k], 1, &panels);
                        assert!(alone == all[i * n..(i + 1) * n], "{isa:?} row {i} of {rows}");
                    }
                }
            }
        }
    }

    #[test]
    fn narrow_weights_are_the_nearest() {
        let w = numbers(40 * 50, 2);
        let unit: Vec<f32> = (0..40).map(|p| f32::from(u8::from(p == 17))).collect();
        for (weights, bound) in [(Weights::Bf16, 1.0 / 256.0), (Weights::Int8, 0.5 / 127.0)] {
            let panels = Panels::pack(&w, 40, 50, false, weights);
            let got = product(&Pool::new(1), Isa::detect(), &unit, 1, &panels);
            for (j, got) in got.iter().enumerate() {
                let exact = w[17 * 50 + j];
                let largest = (0..40).fold(0.0_f32, |top, p| top.max(w[p * 50 + j].abs()));
                let size = if weights == Weights::Bf16 { exact.abs() } else { largest };
                assert!((got - exact).abs() <= bound * size * 1.001, "{weights:?} {j}: {got} for {exact}");
            }
        }
        assert_eq!(to_bf16(1.0 + 1.0 / 256.0), 0x3f80); // a tie goes to the even one
        assert_eq!(to_bf16(1.0 + 3.0 / 256.0), 0x3f82);
        assert!(f32::from_bits(u32::from(to_bf16(f32::NAN)) << 16).is_nan());
    }

    #[test]
    fn attention_sees_its_window_alone() {
        let (positions, kv, d) = (20, 3, 18);
        let (keys, values) = (numbers(positions * kv * d, 1), numbers(positions * kv * d, 2));
        let q = numbers(d, 3);
        for (first, num) in [(0, 1), (4, 13), (0, 20)] {
            let past = Past { keys: &keys, values: &values, stride: kv * d, offset: d, first, num };
            let at = |j: usize, c: usize| (j * kv + 1) * d + c;
            let score =
                |j: usize| (0..d).map(|c| f64::from(q[c]) * f64::from(keys[at(j, c)])).sum::<f64>() * 0.4;
            let seen = first..first + num;
            let total: f64 = seen.clone().map(|j| score(j).exp()).sum();
            let want: Vec<f32> = (0..d)
                .map(|c| {
                    seen.clone().map(|j| score(j).exp() / total * f64::from(values[at(j, c)])).sum::<f64>()
                        as f32
                })
                .collect();
            for isa in isas() {
                let (mut out, mut scores) = (vec![9.0; d], vec![9.0; positions]);
                attend(isa, &mut out, &mut scores, &q, past, 0.4);
                check_close(&out, &want, 5e-7, &format!("{isa:?} {first} {num}"));
            }
        }
    }
}
