//! A few rows times a matrix that memory can hardly deliver as fast as they are multiplied.
//!
//! An element of a product is one chain of multiply-adds along k. A panel is taken block by block: the rows meet
//! it in groups as large as registers hold sums for, while the next block is on its way from memory. Between
//! blocks sums lie in memory, which rounds nothing. It refuses matrices that are not packed.

use super::fetch;
use super::matrices::{Data, Element, PANEL, Panels};
use crate::kernels::Isa;
use crate::kernels::lanes::fma;
use crate::pool::Pool;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Weights of a task: some ten microseconds of one core's memory.
const TASK_WEIGHTS: usize = 1 << 16;
/// Most rows that share one pass over a panel.
const MAX_ROWS: usize = 16;
/// Most rows that share a weight in a register: their sums fill half of the vector registers of AVX-512.
const GROUP: usize = 8;
/// Rows of a matrix in a block: 16 KiB of float32, half of the smallest first-level cache.
const BLOCK: usize = 128;
/// Rows of a block between two requests for what comes next.
const STRIDE: usize = 4;
/// Bytes of a cache line.
const LINE: usize = 64;

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
pub unsafe fn linear(pool: &Pool, isa: Isa, y: &[*mut f32], x: &[*const f32], w: Panels<'_>) {
    assert_eq!(x.len(), y.len(), "one result for each row");
    let num_panels = w.n.div_ceil(PANEL);
    let step = (TASK_WEIGHTS / (w.k * PANEL)).max(1);
    let rows = &Rows { x, y };
    assert!(isa.is_available(), "{isa:?} is not available on this machine");
    pool.run(num_panels.div_ceil(step), &|task, _| {
        for panel in task * step..num_panels.min((task + 1) * step) {
            let part = panel * PANEL * w.k..(panel + 1) * PANEL * w.k;
            match w.data {
                Data::F32(data) => multiply_panel(isa, rows, &data[part], w, panel, None),
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
    w: Panels<'_>,
    panel: usize,
    scales: Option<&[f32]>,
) {
    let columns = panel * PANEL..w.n.min((panel + 1) * PANEL);
    for (x, y) in rows.x.chunks(MAX_ROWS).zip(rows.y.chunks(MAX_ROWS)) {
        let mut sums = [[0.0; PANEL]; MAX_ROWS];
        for (b, block) in data.chunks(BLOCK * PANEL).enumerate() {
            multiply_block(isa, &mut sums, x, b * BLOCK, block);
        }
        for (sums, y) in sums.iter_mut().zip(y) {
            if let Some(scales) = scales {
                sums.iter_mut().zip(&scales[columns.clone()]).for_each(|(sum, scale)| *sum *= scale);
            }
            // SAFETY: y holds N floats, and these columns belong to this task.
            let y = unsafe { std::slice::from_raw_parts_mut(y.add(columns.start), columns.len()) };
            match <&mut [f32; PANEL]>::try_from(&mut *y) {
                Ok(y) => *y = *sums, // of known length: a few instructions
                Err(_) => y.copy_from_slice(&sums[..columns.len()]),
            }
        }
    }
}

/// sums += (R, 32)   elements from `first` on of the rows of x times the block
/// block   (P, 32)   read; what follows it in memory is fetched
fn multiply_block<E: Element>(
    isa: Isa,
    sums: &mut [[f32; PANEL]],
    x: &[*const f32],
    first: usize,
    block: &[E],
) {
    let num_groups = x.len().div_ceil(GROUP);
    let mut ahead = Ahead {
        at: block.as_ptr_range().end.cast(),
        num_lines: (STRIDE * PANEL * size_of::<E>() / LINE).div_ceil(num_groups),
    };
    let mut done = 0;
    while done < x.len() {
        let (sums, x) = (&mut sums[done..], &x[done..]);
        done += match isa {
            // SAFETY: the set is available and rows of x are as long as the matrix.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe {
                match x.len() {
                    8.. => vector_tile::<E, 8>(sums, x, first, block, ahead),
                    4.. => vector_tile::<E, 4>(sums, x, first, block, ahead),
                    2.. => vector_tile::<E, 2>(sums, x, first, block, ahead),
                    _ => vector_tile::<E, 1>(sums, x, first, block, ahead),
                }
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2_tile(&mut sums[0], x[0], first, block) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx512 | Isa::Avx2 => unreachable!("asserted to be available"),
            Isa::Portable => tile::<false, E>(&mut sums[0], x[0], first, block),
        };
        ahead = ahead.after(block.len());
    }
}

/// Memory that will be read next: each group of rows fetches its share, so that requests never pile up.
#[derive(Clone, Copy)]
struct Ahead {
    at: *const u8,
    /// Lines for each `STRIDE` rows of a block.
    num_lines: usize,
}

impl Ahead {
    #[inline(always)]
    fn fetch(&mut self) {
        for _ in 0..self.num_lines {
            fetch(self.at);
            self.at = self.at.wrapping_add(LINE);
        }
    }

    /// The share of the next group.
    fn after(self, block: usize) -> Ahead {
        Ahead { at: self.at.wrapping_add((block / PANEL).div_ceil(STRIDE) * self.num_lines * LINE), ..self }
    }
}

/// sums += (R, 32)   elements from `first` on of the first R rows of x times the block; returns R
/// block   (P, 32)   read
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn vector_tile<E: Element, const R: usize>(
    sums: &mut [[f32; PANEL]],
    x: &[*const f32],
    first: usize,
    block: &[E],
    mut ahead: Ahead,
) -> usize {
    let sums = &mut sums[..R];
    // SAFETY: 32 floats each.
    let load = |half: usize, r: usize| unsafe { _mm512_loadu_ps(sums[r].as_ptr().add(16 * half)) };
    let mut acc: [[__m512; 2]; R] = std::array::from_fn(|r| [load(0, r), load(1, r)]);
    let x: [*const f32; R] = std::array::from_fn(|r| x[r].wrapping_add(first));
    let num = block.len() / PANEL;
    for start in (0..num).step_by(STRIDE) {
        ahead.fetch();
        for p in start..num.min(start + STRIDE) {
            // SAFETY: row p of the block holds 32 elements, and each row of x a float for it.
            unsafe {
                let row = block.as_ptr().add(p * PANEL);
                let w = [E::load(row), E::load(row.add(16))];
                for r in 0..R {
                    let x = _mm512_set1_ps(*x[r].add(p));
                    acc[r] = [_mm512_fmadd_ps(x, w[0], acc[r][0]), _mm512_fmadd_ps(x, w[1], acc[r][1])];
                }
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
fn avx2_tile<E: Element>(sums: &mut [f32; PANEL], x: *const f32, first: usize, block: &[E]) -> usize {
    tile::<true, E>(sums, x, first, block)
}

/// The same in plain code, one row: what the compiler keeps in registers of any instruction set.
#[inline(always)]
fn tile<const FMA: bool, E: Element>(
    sums: &mut [f32; PANEL],
    x: *const f32,
    first: usize,
    block: &[E],
) -> usize {
    let mut acc = *sums;
    for (p, w) in block.as_chunks::<PANEL>().0.iter().enumerate() {
        // SAFETY: a row of x holds as many floats as the matrix has rows.
        let x = unsafe { *x.add(first + p) };
        for lane in 0..PANEL {
            acc[lane] = fma::<FMA>(x, w[lane].widen(), acc[lane]);
        }
    }
    *sums = acc;
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::decode::matrices::{Matrices, Weights, to_bf16};
    use crate::kernels::testing::{check_close, isas, numbers, same_bits};

    /// Sums of 300 products of numbers up to 1, one after another; worst seen 4e-6.
    const LINEAR_TOLERANCE: f32 = 1e-5;

    fn pack(w: &[f32], k: usize, n: usize, transposed: bool, weights: Weights) -> Matrices {
        // Another one before it, so that nothing begins at zero.
        let mut matrices = Matrices::zeros(&[(3, 5), (k, n)], weights);
        matrices.set(1, w, transposed);
        matrices
    }

    fn product(pool: &Pool, isa: Isa, x: &[f32], rows: usize, w: Panels<'_>) -> Vec<f32> {
        let mut y = vec![9.0; rows * w.n];
        let ins: Vec<*const f32> = (0..rows).map(|i| x[i * w.k..].as_ptr()).collect();
        let outs: Vec<*mut f32> = y.chunks_exact_mut(w.n).map(<[f32]>::as_mut_ptr).collect();
        // SAFETY: rows of x and y are that long and disjoint.
        unsafe { linear(pool, isa, &outs, &ins, w) };
        y
    }

    #[test]
    fn linear_agrees_with_the_definition_and_a_row_never_notices_its_neighbours() {
        for (rows, k, n) in [(1, 1, 1), (3, 7, 33), (16, 300, 70), (11, 64, 96), (35, 260, 40)] {
            let (x, w) = (numbers(rows * k, 1), numbers(k * n, 2));
            for transposed in [false, true] {
                let at = |p: usize, j: usize| f64::from(if transposed { w[j * k + p] } else { w[p * n + j] });
                let want: Vec<f32> = (0..rows * n)
                    .map(|i| (0..k).map(|p| f64::from(x[i / n * k + p]) * at(p, i % n)).sum::<f64>() as f32)
                    .collect();
                let matrices = pack(&w, k, n, transposed, Weights::F32);
                let panels = matrices.get(1);
                for isa in isas() {
                    let all = same_bits("linear", |pool| product(pool, isa, &x, rows, panels));
                    check_close(&all, &want, LINEAR_TOLERANCE, &format!("{isa:?} {rows} x {n} x {k}"));
                    for i in 0..rows {
                        let alone = product(&Pool::new(1), isa, &x[i * k..(i + 1) * k], 1, panels);
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
            let matrices = pack(&w, 40, 50, false, weights);
            let got = product(&Pool::new(1), Isa::detect(), &unit, 1, matrices.get(1));
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
}
