//! Products with few rows against a transposed matrix, as in generation: every weight is used so few times
//! that packing it would cost more than the product. Sums run in lanes here, so their bits are not those of
//! the tiles. It refuses bfloat16, in which operands are rounded whatever the shape.

use super::{Product, Store};
use crate::kernels::lanes::{LANES, fma, fold, per_isa};
use crate::kernels::{Isa, Precision};
use crate::pool::Pool;

/// Rows of A for which this is faster than packing B: 3 to 4 times at one row of 512 x 512.
const MAX_ROWS: usize = 4;
/// Weights of a task.
const TASK_WEIGHTS: usize = 1 << 16;
/// Rows of weights read side by side.
const GROUP: usize = 4;

/// Whether [`multiply_few`] takes a product: few rows, both operands contiguous along k.
pub(super) fn is_few(precision: Precision, product: &Product<'_>) -> bool {
    precision == Precision::F32
        && product.dims.m <= MAX_ROWS
        && product.a_col == 1
        && product.b_row == 1
        && product.dims.k >= LANES
}

/// # Safety
/// The product is in bounds and [`is_few`].
pub(super) unsafe fn multiply_few(isa: Isa, pool: Option<&Pool>, product: Product<'_>) {
    let dims = product.dims;
    let step = (TASK_WEIGHTS / dims.k).next_multiple_of(GROUP).max(GROUP);
    super::each(pool, dims.n.div_ceil(step), &|task, _| {
        let first = task * step;
        multiply_columns(isa, &product, first, dims.n.min(first + step));
    });
}

per_isa! {
    /// Columns `first .. end` of C, which belong to this task; bounds are the caller's promise.
    fn multiply_columns(product: &Product<'_>, first: usize, end: usize) = multiply_columns_body
}

#[inline(always)]
fn multiply_columns_body<const FMA: bool>(product: &Product<'_>, first: usize, end: usize) {
    let Product { a, a_row, b, b_col, c, c_row, dims, store, .. } = *product;
    // SAFETY: rows of A and columns of B are k long, as `multiply_few` was promised.
    let x = |i: usize| unsafe { std::slice::from_raw_parts(a.wrapping_add(i * a_row), dims.k) };
    // SAFETY: as above.
    let w = |j: usize| unsafe { std::slice::from_raw_parts(b.wrapping_add(j * b_col), dims.k) };
    let write = |i: usize, j: usize, sum: f32| {
        // SAFETY: element (i, j) of C is in bounds and its column belongs to this task.
        let c = unsafe { &mut *c.wrapping_add(i * c_row + j) };
        *c = match store {
            Store::Add => *c + sum,
            Store::Plus(rows) => sum + rows.data[i * rows.row + j],
            Store::Set | Store::Mirror => sum,
        };
    };
    let mut j = first;
    while j + GROUP <= end {
        for i in 0..dims.m {
            let sums = dots::<FMA, GROUP>(x(i), std::array::from_fn(|lane| w(j + lane)));
            for lane in 0..GROUP {
                write(i, j + lane, sums[lane]);
            }
        }
        j += GROUP;
    }
    for j in j..end {
        for i in 0..dims.m {
            write(i, j, dots::<FMA, 1>(x(i), [w(j)])[0]);
        }
    }
}

/// Sums of x * w for N rows of weights, each in an order that depends on the length alone.
#[inline(always)]
fn dots<const FMA: bool, const N: usize>(x: &[f32], w: [&[f32]; N]) -> [f32; N] {
    let mut lanes = [[0.0_f32; LANES]; N];
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let w_parts = w.map(|w| w[..x.len()].as_chunks::<LANES>());
    for (p, x) in x_chunks.iter().enumerate() {
        for n in 0..N {
            let w = &w_parts[n].0[p];
            for lane in 0..LANES {
                lanes[n][lane] = fma::<FMA>(x[lane], w[lane], lanes[n][lane]);
            }
        }
    }
    for n in 0..N {
        for lane in 0..x_rest.len() {
            lanes[n][lane] = fma::<FMA>(x_rest[lane], w_parts[n].1[lane], lanes[n][lane]);
        }
    }
    lanes.map(|lanes| fold(lanes, |a, b| a + b))
}
