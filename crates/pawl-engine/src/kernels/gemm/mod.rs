//! Float32 matrix products of any size and any strides.
//!
//! The sum over k is cut into fixed blocks added in order, and inside a block every element of C is one
//! chain of multiply-adds, so an element's bits depend on k and the instruction set alone: not on the
//! number of threads, the other dimensions, or where the element lies (up to four rows against a
//! transposed matrix in float32 excepted: `few.rs`). It refuses k = 0 and to allocate.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub(crate) mod bf16;
mod block;
mod choose;
mod few;
#[cfg(target_arch = "x86_64")]
pub(crate) mod full;
pub(crate) mod halves;
pub(crate) mod pack;
mod right;
pub(crate) mod tile;

use super::{Isa, Precision};
use crate::pool::{Pool, SharedMut};
use block::Block;
use choose::{WithTile, with_tile};
pub use halves::{halve, reads_halves};
pub use right::{Left, Right, pack_right, packed_right_len};
use tile::Tile;

/// Rows of C a task handles at a time: a block of A (96 x 512 floats, 192 KiB) stays in the second-level
/// cache. A multiple of the rows of every tile.
const ROW_BLOCK: usize = 96;
/// The step of k: long enough to hide the traffic of a tile of C (0.5 % at 512), short enough that a
/// panel of B stays near.
const K_BLOCK: usize = 512;
/// The longest block of k.
const K_BLOCK_MAX: usize = K_BLOCK + K_BLOCK / 2;
/// Columns packed at a time, to bound the scratch (6 MiB).
const COL_BLOCK: usize = 2048;
/// The widest panel of any instruction set.
const PANEL_MAX: usize = 32;
/// Tasks to aim for in one product, so that threads end together on 2 to 16 cores.
const NUM_TASKS: usize = 24;
/// Multiply-adds below which the pool costs more than it brings (about 15 us of one core).
const SERIAL_WORK: usize = 1 << 20;
/// Rows of B that a task packs at a time when they are contiguous.
const PACK_ROWS: usize = 16;
/// Rows up to which a B whose rows are contiguous is read in place: packing would be read too few times.
const UNPACKED_ROWS: usize = 24;

/// c (M, N), a (M, K), b (K, N).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
}

/// A matrix inside a slice: element (i, j) is `data[i * row + j * col]`. A transpose swaps the strides.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a> {
    /// The elements, from (0, 0) on.
    pub data: &'a [f32],
    /// Elements from one row to the next.
    pub row: usize,
    /// Elements from one column to the next.
    pub col: usize,
}

/// What a product does with what C held, and what it adds.
#[derive(Clone, Copy, Debug)]
pub enum Store<'a> {
    /// C = A B
    Set,
    /// C = A B + rows, whose columns lie together; rows 0 apart add one row to all. The bits are those of a
    /// product followed by an addition.
    Plus(Strided<'a>),
    /// C += A B
    Add,
    /// C = A B, symmetric to the bit as the caller knows: tiles below the diagonal are copied, not computed.
    Mirror,
}

/// Floats of scratch that [`gemm`] needs.
pub fn gemm_scratch_len(num_threads: usize, dims: Dims) -> usize {
    let num_packed_a = if shares_packed_a(dims) { 1 } else { num_threads };
    ALIGN + packed_b_len(dims) + num_packed_a * packed_a_len(dims)
}

/// Floats of scratch that [`gemm_batch`] needs.
pub fn gemm_batch_scratch_len(num_threads: usize, dims: Dims) -> usize {
    ALIGN + num_threads * (packed_b_len(dims) + packed_a_len(dims))
}

/// c  = or += (M, N)   rows `c_row` apart, per `store`, whose rows are read
/// a          (M, K)   read, any strides, or in halves
/// b          (K, N)   read, any strides, or in halves, or packed
/// scratch    at least `gemm_scratch_len` floats, overwritten
pub fn gemm<'a, 'b>(
    pool: &Pool,
    isa: Isa,
    precision: Precision,
    scratch: &mut [f32],
    c: &mut [f32],
    c_row: usize,
    a: impl Into<Left<'a>>,
    b: impl Into<Right<'b>>,
    dims: Dims,
    store: Store<'_>,
) {
    let (a, b) = (a.into(), b.into());
    let halves = [matches!(a, Left::Halves(_)), matches!(b, Right::Halves(_))];
    assert!(halves == [false; 2] || reads_halves(isa, precision), "{isa:?} reads no halves");
    let (Left::Matrix(a) | Left::Halves(a)) = a;
    check(isa, c.len(), c_row, a, halves[0], dims);
    if let Store::Plus(rows) = store {
        assert!(rows.col == 1, "columns of what is added lie {} apart", rows.col);
        assert!(
            (dims.m - 1) * rows.row + dims.n <= rows.data.len(),
            "what is added is too short for {dims:?}"
        );
    }
    let (matrix, packed) = match b {
        Right::Matrix(matrix) | Right::Halves(matrix) => {
            check_b(isa, matrix, halves[1], dims);
            (matrix, std::ptr::null())
        }
        Right::Packed(packed) => {
            let len = packed_right_len(isa, precision, dims.k, dims.n);
            assert_eq!(packed.len(), len, "packed b of {dims:?}");
            (Strided { data: packed, row: 0, col: 0 }, packed.as_ptr())
        }
    };
    let needed = gemm_scratch_len(pool.num_threads(), dims);
    assert!(scratch.len() >= needed, "gemm scratch: {} floats, {needed} needed", scratch.len());
    let product = Product {
        a: a.data.as_ptr(),
        a_row: a.row,
        a_col: a.col,
        b: matrix.data.as_ptr(),
        b_row: matrix.row,
        b_col: matrix.col,
        halves,
        packed,
        c: c.as_mut_ptr(),
        c_row,
        dims,
        store,
    };
    // Few rows are bound by reading B, so a pool helps them earlier.
    let serial = dims.m.max(8) * dims.n * dims.k <= SERIAL_WORK;
    // SAFETY: `check` proved the bounds and the instruction set; the scratch is long enough.
    unsafe { multiply(isa, precision, (!serial).then_some(pool), aligned(scratch), product) };
}

/// `num` independent products: `c[i]` = or += `a[i] * b[i]`, where matrix i starts `i * batch` elements into
/// its slice.
/// c  = or += (num, M, N)   rows `c_row` apart, matrices do not overlap; nothing is added
/// a          (num, M, K)   read, any strides, `a_batch` may be 0
/// b          (num, K, N)   read, any strides, `b_batch` may be 0
/// scratch    at least `gemm_batch_scratch_len` floats, overwritten
pub fn gemm_batch(
    pool: &Pool,
    isa: Isa,
    precision: Precision,
    scratch: &mut [f32],
    c: &mut [f32],
    c_row: usize,
    a: Strided<'_>,
    b: Strided<'_>,
    dims: Dims,
    store: Store<'_>,
    num: usize,
    batch: BatchStrides,
) {
    if num == 0 {
        return;
    }
    assert!(!matches!(store, Store::Plus(_)), "a batch of products adds nothing");
    let skip = num - 1;
    let (a_end, b_end) = (skip * batch.a, skip * batch.b);
    assert!(a_end < a.data.len() && b_end < b.data.len() && skip * batch.c < c.len(), "batch strides");
    check(isa, c.len() - skip * batch.c, c_row, Strided { data: &a.data[a_end..], ..a }, false, dims);
    check_b(isa, Strided { data: &b.data[b_end..], ..b }, false, dims);
    assert!(num == 1 || batch.c >= (dims.m - 1) * c_row + dims.n, "matrices of c overlap");
    let needed = gemm_batch_scratch_len(pool.num_threads(), dims);
    assert!(scratch.len() >= needed, "gemm_batch scratch: {} floats, {needed} needed", scratch.len());
    let c = SharedMut::new(c);
    let scratch = SharedMut::new(aligned(scratch));
    let product = |i: usize| Product {
        a: a.data[i * batch.a..].as_ptr(),
        a_row: a.row,
        a_col: a.col,
        b: b.data[i * batch.b..].as_ptr(),
        b_row: b.row,
        b_col: b.col,
        halves: [false; 2],
        packed: std::ptr::null(),
        c: c.as_ptr().wrapping_add(i * batch.c),
        c_row,
        dims,
        store,
    };
    if num < NUM_TASKS && dims.m * dims.n * dims.k > SERIAL_WORK {
        for i in 0..num {
            // SAFETY: as in `gemm`: checked bounds and set, and one product at a time owns the scratch.
            unsafe { multiply(isa, precision, Some(pool), scratch.part(0, scratch.len()), product(i)) };
        }
        return;
    }
    let len = packed_b_len(dims) + packed_a_len(dims);
    // Small products are grouped: a task should outlast the cost of claiming it.
    let group = (SERIAL_WORK / 8 / (dims.m * dims.n * dims.k)).clamp(1, num);
    pool.run(num.div_ceil(group), &|task, worker| {
        for i in task * group..num.min((task + 1) * group) {
            // SAFETY: checked bounds and set; matrices of c are disjoint; a worker owns its scratch.
            unsafe { multiply(isa, precision, None, scratch.part(worker * len, len), product(i)) };
        }
    });
}

/// Elements from one matrix of a batch to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchStrides {
    /// In A; 0 uses one A for all.
    pub a: usize,
    /// In B; 0 uses one B for all.
    pub b: usize,
    /// In C.
    pub c: usize,
}

fn check(isa: Isa, c_len: usize, c_row: usize, a: Strided<'_>, halves: bool, dims: Dims) {
    let Dims { m, n, k } = dims;
    assert!(isa.is_available(), "{isa:?} is not available on this machine");
    assert!(m > 0 && n > 0 && k > 0, "empty product {dims:?}");
    assert!(m == 1 || c_row >= n, "rows of c overlap: {n} columns, {c_row} apart");
    assert!((m - 1) * c_row + n <= c_len, "c is too short for {dims:?}");
    assert!((m - 1) * a.row + (k - 1) * a.col < num_elements(a, halves), "a is too short for {dims:?}");
}

fn check_b(isa: Isa, b: Strided<'_>, halves: bool, dims: Dims) {
    assert!(isa.is_available(), "{isa:?} is not available on this machine");
    assert!(dims.n > 0 && dims.k > 0, "empty product {dims:?}");
    let last = (dims.k - 1) * b.row + (dims.n - 1) * b.col;
    assert!(last < num_elements(b, halves), "b is too short for {dims:?}");
}

fn num_elements(matrix: Strided<'_>, halves: bool) -> usize {
    matrix.data.len() * (1 + usize::from(halves))
}

/// Floats of a cache line: panels start on one, whatever the caller's scratch does.
const ALIGN: usize = 16;

fn aligned(scratch: &mut [f32]) -> &mut [f32] {
    let skip = scratch.as_ptr().align_offset(4 * ALIGN);
    &mut scratch[skip..]
}

fn packed_b_len(dims: Dims) -> usize {
    dims.k.min(K_BLOCK_MAX) * dims.n.min(COL_BLOCK).next_multiple_of(PANEL_MAX)
}

/// Floats of packed A of one worker; of all workers together when `shares_packed_a`.
fn packed_a_len(dims: Dims) -> usize {
    let rows = if shares_packed_a(dims) { dims.m.next_multiple_of(ROW_BLOCK) } else { ROW_BLOCK };
    (dims.k.min(K_BLOCK_MAX) + 2 * ALIGN) * rows
}

/// Few blocks of rows are packed once for all tasks, since several tasks read each; many are packed by the
/// one task that reads them, while they are in its cache.
fn shares_packed_a(dims: Dims) -> bool {
    dims.m <= NUM_TASKS * ROW_BLOCK
}

/// One product, bounds already checked.
#[derive(Clone, Copy)]
struct Product<'a> {
    a: *const f32,
    a_row: usize,
    a_col: usize,
    b: *const f32,
    b_row: usize,
    b_col: usize,
    /// Whether A, and B, hold two elements in four bytes.
    halves: [bool; 2],
    /// The whole of B in panels, or null.
    packed: *const f32,
    c: *mut f32,
    c_row: usize,
    dims: Dims,
    store: Store<'a>,
}

// SAFETY: the pointers stand for slices borrowed by the caller of `multiply`; tasks write disjoint tiles.
unsafe impl Sync for Product<'_> {}

impl Product<'_> {
    /// Where element (row, term) of A is.
    fn a_at(&self, row: usize, term: usize) -> *const f32 {
        element(self.a, row * self.a_row + term * self.a_col, self.halves[0])
    }

    /// Where element (term, col) of B is.
    fn b_at(&self, term: usize, col: usize) -> *const f32 {
        element(self.b, term * self.b_row + col * self.b_col, self.halves[1])
    }

    fn c_at(&self, row: usize, col: usize) -> *mut f32 {
        self.c.wrapping_add(row * self.c_row + col)
    }
}

/// Element `idx` of floats or of halves.
fn element(data: *const f32, idx: usize, halves: bool) -> *const f32 {
    if halves { data.cast::<u16>().wrapping_add(idx).cast() } else { data.wrapping_add(idx) }
}

/// # Safety
/// The product is in bounds, the instruction set available, the scratch long enough and its alone.
unsafe fn multiply(
    isa: Isa,
    precision: Precision,
    pool: Option<&Pool>,
    scratch: &mut [f32],
    product: Product<'_>,
) {
    struct Multiply<'a>(Option<&'a Pool>, &'a mut [f32], Product<'a>);
    impl WithTile for Multiply<'_> {
        type Result = ();
        fn run<T: Tile>(self) {
            // SAFETY: the promise of `multiply`'s caller.
            unsafe { multiply_with::<T>(self.0, self.1, self.2) };
        }
    }
    if few::is_few(precision, &product) {
        // SAFETY: the promise of the caller.
        return unsafe { few::multiply_few(isa, pool, product) };
    }
    with_tile(isa, precision, Multiply(pool, scratch, product));
}

/// Columns `n0 .. n0 + cols` and terms `k0 .. k0 + k` of a product.
#[derive(Clone, Copy)]
struct Cut {
    n0: usize,
    cols: usize,
    k0: usize,
    k: usize,
    /// Where the part begins in a packed B.
    packed: usize,
}

/// The parts of a product in the order in which they are added up.
fn cuts<T: Tile>(dims: Dims) -> impl Iterator<Item = Cut> {
    let Dims { n, k, .. } = dims;
    (0..n).step_by(COL_BLOCK).flat_map(move |n0| {
        let cols = COL_BLOCK.min(n - n0);
        let mut k0 = 0;
        std::iter::from_fn(move || {
            let len = (k0 < k).then(|| k_block::<T>(k, k0))?;
            let before = n0 * k.div_ceil(T::PER_SLOT);
            let packed = before + k0 / T::PER_SLOT * cols.next_multiple_of(T::COLS);
            let cut = Cut { n0, cols, k0, k: len, packed };
            k0 += len;
            Some(cut)
        })
    })
}

/// The length of the block of k that starts at `k0`.
fn k_block<T: Tile>(k: usize, k0: usize) -> usize {
    let block = T::K_SLOTS * T::PER_SLOT;
    // A last block may be half as long again instead of being cut in two.
    if k - k0 <= block + block / 2 { k - k0 } else { block }
}

/// Rows this far apart fall into so few cache sets that a tile evicts its own operands.
fn is_aliasing(row: usize) -> bool {
    row.is_multiple_of(512)
}

fn each(pool: Option<&Pool>, num_tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
    match pool {
        Some(pool) => pool.run(num_tasks, task),
        None => (0..num_tasks).for_each(|idx| task(idx, 0)),
    }
}

unsafe fn multiply_with<T: Tile>(pool: Option<&Pool>, scratch: &mut [f32], product: Product<'_>) {
    let m = product.dims.m;
    let reads_a = match product.halves[0] {
        true => halves::reads_in_place(&product),
        false => !T::CONVERTS && (product.a_col == 1 && !is_aliasing(product.a_row) || m == 1),
    };
    let reads_b_once = m <= T::ROWS;
    let reads_b_twice = m <= UNPACKED_ROWS && !is_aliasing(product.b_row);
    let reads_b =
        !T::CONVERTS && product.packed.is_null() && product.b_col == 1 && (reads_b_once || reads_b_twice);
    let (own_b, packed_a) = scratch.split_at_mut(packed_b_len(product.dims));
    let packed_a = SharedMut::new(packed_a);
    for cut in cuts::<T>(product.dims) {
        let packed_b = match product.packed.is_null() {
            true => own_b.as_mut_ptr(),
            false => product.packed.wrapping_add(cut.packed).cast_mut(),
        };
        let block = Block { product, cut, reads_a, reads_b, packed_b };
        // SAFETY: the promise of the caller; every part of the scratch has one writer at a time.
        unsafe { block.multiply::<T>(pool, &packed_a) };
    }
    if matches!(product.store, Store::Mirror) {
        // SAFETY: C is square, and of each pair of blocks the upper is read and the lower written.
        unsafe { mirror::<T>(pool, product) };
    }
}

/// Copies what lies above the diagonal below it, block by block of a panel's width.
unsafe fn mirror<T: Tile>(pool: Option<&Pool>, product: Product<'_>) {
    let Product { c_row, dims, .. } = product;
    each(pool, dims.n.div_ceil(T::COLS), &|block, _| {
        let i = block * T::COLS;
        let rows = T::COLS.min(dims.m - i);
        for j in (0..i).step_by(T::COLS) {
            // SAFETY: both blocks are inside C.
            unsafe { T::transpose(T::COLS, rows, product.c_at(j, i), c_row, product.c_at(i, j), c_row) };
        }
    });
}

#[cfg(test)]
mod tests;
