//! The operands of products: a matrix of floats, one of halves, or a second one packed ahead because many products
//! read it.

use super::choose::{WithTile, with_tile};
use super::tile::Tile;
use super::{Block, Dims, Product, Store, Strided, check_b, cuts};
use crate::kernels::{Isa, Precision};
use crate::pool::Pool;

/// The first operand of a product.
#[derive(Clone, Copy, Debug)]
pub enum Left<'a> {
    /// Packed by every product that reads it, where its tiles cannot read it.
    Matrix(Strided<'a>),
    /// Rounded to bfloat16 before: two elements in four bytes, strides in elements.
    Halves(Strided<'a>),
}

impl<'a> From<Strided<'a>> for Left<'a> {
    fn from(matrix: Strided<'a>) -> Left<'a> {
        Left::Matrix(matrix)
    }
}

/// The second operand of a product.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// Packed by every product that reads it.
    Matrix(Strided<'a>),
    /// As [`Left::Halves`].
    Halves(Strided<'a>),
    /// Packed before by [`pack_right`], in the same precision for the same instruction set.
    Packed(&'a [f32]),
}

impl<'a> From<Strided<'a>> for Right<'a> {
    fn from(matrix: Strided<'a>) -> Right<'a> {
        Right::Matrix(matrix)
    }
}

/// Floats that a packed matrix (K, N) takes.
pub fn packed_right_len(isa: Isa, precision: Precision, k: usize, n: usize) -> usize {
    struct Len(usize, usize);
    impl WithTile for Len {
        type Result = usize;
        fn run<T: Tile>(self) -> usize {
            self.1.next_multiple_of(T::COLS) * self.0.div_ceil(T::PER_SLOT)
        }
    }
    with_tile(isa, precision, Len(k, n))
}

/// packed = b, in the order in which products read it; `packed_right_len` floats
/// b        (K, N), read, any strides
pub fn pack_right(
    pool: &Pool,
    isa: Isa,
    precision: Precision,
    packed: &mut [f32],
    b: Strided<'_>,
    k: usize,
    n: usize,
) {
    struct Pack<'a>(&'a Pool, Product<'a>, *mut f32);
    impl WithTile for Pack<'_> {
        type Result = ();
        fn run<T: Tile>(self) {
            let Pack(pool, product, packed) = self;
            for cut in cuts::<T>(product.dims) {
                let packed_b = packed.wrapping_add(cut.packed);
                let block = Block { product, cut, reads_a: true, reads_b: false, packed_b };
                // SAFETY: bounds were checked, and every task packs a part of its own.
                pool.run(block.num_pack_b_tasks::<T>(), &|task, _| unsafe { block.pack_panels::<T>(task) });
            }
        }
    }
    let dims = Dims { m: 1, n, k };
    check_b(isa, b, false, dims);
    assert_eq!(packed.len(), packed_right_len(isa, precision, k, n), "packed {k} x {n}");
    let nothing = (std::ptr::null(), std::ptr::null_mut());
    let product = Product {
        a: nothing.0,
        a_row: 0,
        a_col: 0,
        b: b.data.as_ptr(),
        b_row: b.row,
        b_col: b.col,
        halves: [false; 2],
        packed: nothing.0,
        c: nothing.1,
        c_row: 0,
        dims,
        store: Store::Set,
    };
    with_tile(isa, precision, Pack(pool, product, packed.as_mut_ptr()));
}
