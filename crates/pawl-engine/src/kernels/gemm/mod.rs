//! Float32 matrix products of any size and any strides.
//!
//! The sum over k is cut into fixed blocks added in order, and inside a block every element of C is one
//! chain of multiply-adds, so an element's bits depend on k and the instruction set alone: not on the
//! number of threads, the other dimensions, or where the element lies (up to four rows against a
//! transposed matrix excepted: `few.rs`). It refuses k = 0 and to allocate.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub(crate) mod bf16;
mod choose;
mod few;
#[cfg(target_arch = "x86_64")]
pub(crate) mod full;
pub(crate) mod pack;
mod right;
pub(crate) mod tile;

use super::{Isa, Precision};
use crate::pool::{Pool, SharedMut};
use choose::{WithTile, with_tile};
use pack::{pack_a, pack_b};
pub use right::{Right, pack_right, packed_right_len};
use tile::{Tile, TileArgs};

/// Rows of C a task handles at a time: a block of A (96 x 512 floats, 192 KiB) stays in the second-level
/// cache. A multiple of the rows of every tile.
const ROW_BLOCK: usize = 96;
/// The step of k: long enough to hide the traffic of a tile of C (0.5 % at 512), short enough that a
/// panel of B stays near.
const K_BLOCK: usize = 512;
/// A last block of k may be this long instead of being cut in two.
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
/// a          (M, K)   read, any strides
/// b          (K, N)   read, any strides, or packed
/// scratch    at least `gemm_scratch_len` floats, overwritten
pub fn gemm<'b>(
    pool: &Pool,
    isa: Isa,
    precision: Precision,
    scratch: &mut [f32],
    c: &mut [f32],
    c_row: usize,
    a: Strided<'_>,
    b: impl Into<Right<'b>>,
    dims: Dims,
    store: Store<'_>,
) {
    check(isa, c.len(), c_row, a, dims);
    if let Store::Plus(rows) = store {
        assert!(rows.col == 1, "columns of what is added lie {} apart", rows.col);
        assert!(
            (dims.m - 1) * rows.row + dims.n <= rows.data.len(),
            "what is added is too short for {dims:?}"
        );
    }
    let b = b.into();
    let (matrix, packed) = match b {
        Right::Matrix(matrix) => {
            check_b(isa, matrix, dims);
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
    check(isa, c.len() - skip * batch.c, c_row, Strided { data: &a.data[a_end..], ..a }, dims);
    check_b(isa, Strided { data: &b.data[b_end..], ..b }, dims);
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

fn check(isa: Isa, c_len: usize, c_row: usize, a: Strided<'_>, dims: Dims) {
    let Dims { m, n, k } = dims;
    assert!(isa.is_available(), "{isa:?} is not available on this machine");
    assert!(m > 0 && n > 0 && k > 0, "empty product {dims:?}");
    assert!(m == 1 || c_row >= n, "rows of c overlap: {n} columns, {c_row} apart");
    assert!((m - 1) * c_row + n <= c_len, "c is too short for {dims:?}");
    assert!((m - 1) * a.row + (k - 1) * a.col < a.data.len(), "a is too short for {dims:?}");
}

fn check_b(isa: Isa, b: Strided<'_>, dims: Dims) {
    assert!(isa.is_available(), "{isa:?} is not available on this machine");
    assert!(dims.n > 0 && dims.k > 0, "empty product {dims:?}");
    assert!((dims.k - 1) * b.row + (dims.n - 1) * b.col < b.data.len(), "b is too short for {dims:?}");
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
    fn c_at(&self, row: usize, col: usize) -> *mut f32 {
        self.c.wrapping_add(row * self.c_row + col)
    }
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
    if few::is_few(&product) {
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
    if k - k0 <= K_BLOCK_MAX * T::PER_SLOT { k - k0 } else { K_BLOCK * T::PER_SLOT }
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
    let reads_a = !T::CONVERTS && (product.a_col == 1 && !is_aliasing(product.a_row) || m == 1);
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

/// A part of a product and where its operands are read.
#[derive(Clone, Copy)]
struct Block<'a> {
    product: Product<'a>,
    cut: Cut,
    /// A, or B, is read where it is instead of being packed.
    reads_a: bool,
    reads_b: bool,
    /// Panels of this part of B: written first unless the product came with a packed B.
    packed_b: *mut f32,
}

// SAFETY: as for `Product`; the packed panels are written in one run of the pool and read in the next.
unsafe impl Sync for Block<'_> {}

impl Block<'_> {
    unsafe fn multiply<T: Tile>(&self, pool: Option<&Pool>, packed_a: &SharedMut<'_, f32>) {
        let dims = self.product.dims;
        let num_panels = self.cut.cols.div_ceil(T::COLS);
        let num_row_blocks = dims.m.div_ceil(ROW_BLOCK);
        let a_len = packed_a_len(dims);
        let block_len = self.a_stride::<T>() * ROW_BLOCK;
        let shares_a = !self.reads_a && shares_packed_a(dims);
        let num_a_tasks = if shares_a { num_row_blocks } else { 0 };
        let packs_b = !self.reads_b && self.product.packed.is_null();
        let num_b_tasks = if packs_b { self.num_pack_b_tasks::<T>() } else { 0 };
        each(pool, num_a_tasks + num_b_tasks, &|task, _| {
            // SAFETY: blocks of rows, and tasks of B, are disjoint parts of the scratch.
            unsafe {
                if task < num_a_tasks {
                    self.pack_rows::<T>(packed_a.part(task * block_len, block_len), task * ROW_BLOCK);
                } else {
                    self.pack_panels::<T>(task - num_a_tasks);
                }
            }
        });
        let panels_per_task = num_panels.div_ceil(NUM_TASKS.div_ceil(num_row_blocks)).max(2).min(num_panels);
        each(pool, num_row_blocks * num_panels.div_ceil(panels_per_task), &|task, worker| {
            let row_block = task % num_row_blocks;
            let first = task / num_row_blocks * panels_per_task;
            let panels = first..num_panels.min(first + panels_per_task);
            // SAFETY: tasks write disjoint tiles of C; a block of packed A is either only read here, or
            // belongs to this worker.
            unsafe {
                let packed_a = if self.reads_a {
                    std::ptr::null()
                } else if shares_a {
                    packed_a.as_ptr().wrapping_add(row_block * block_len)
                } else {
                    let own = packed_a.part(worker * a_len, block_len);
                    self.pack_rows::<T>(own, row_block * ROW_BLOCK);
                    own.as_ptr()
                };
                self.multiply_rows::<T>(packed_a, row_block * ROW_BLOCK, panels);
            }
        });
    }

    /// Lines of a packed panel.
    fn slots<T: Tile>(&self) -> usize {
        self.cut.k.div_ceil(T::PER_SLOT)
    }

    /// Whether A is packed row by row: a conversion alone, where its terms of k lie together.
    fn packs_a_rows<T: Tile>(&self) -> bool {
        T::READS_ROWS || T::PER_SLOT > 1 && self.product.a_col == 1
    }

    /// Slots of packed A for each of its rows; rows that are packed as such start on cache lines that
    /// do not share a set.
    fn a_stride<T: Tile>(&self) -> usize {
        if self.packs_a_rows::<T>() {
            self.slots::<T>().next_multiple_of(ALIGN) + ALIGN
        } else {
            self.slots::<T>()
        }
    }

    /// Where element (k0, n0 + panel * COLS) of B is.
    fn b_at<T: Tile>(&self, panel: usize) -> *const f32 {
        let Product { b, b_row, b_col, .. } = self.product;
        b.wrapping_add(self.cut.k0 * b_row + (self.cut.n0 + panel * T::COLS) * b_col)
    }

    fn panel_cols<T: Tile>(&self, panel: usize) -> usize {
        T::COLS.min(self.cut.cols - panel * T::COLS)
    }

    /// Rows of B that lie together are packed a few rows at a time, columns a panel at a time: either way
    /// memory is read in order.
    fn num_pack_b_tasks<T: Tile>(&self) -> usize {
        if self.product.b_col == 1 { self.cut.k.div_ceil(PACK_ROWS) } else { self.cut.cols.div_ceil(T::COLS) }
    }

    unsafe fn pack_panels<T: Tile>(&self, task: usize) {
        let Product { b_row, b_col, .. } = self.product;
        let (panels, steps) = if b_col == 1 {
            let first = task * PACK_ROWS;
            (0..self.cut.cols.div_ceil(T::COLS), first..self.cut.k.min(first + PACK_ROWS))
        } else {
            (task..task + 1, 0..self.cut.k)
        };
        for panel in panels {
            let src = self.b_at::<T>(panel).wrapping_add(steps.start * b_row);
            let dst =
                self.packed_b.wrapping_add((panel * self.slots::<T>() + steps.start / T::PER_SLOT) * T::COLS);
            // SAFETY: these steps of the panel lie inside B, and in the scratch they are this task's.
            unsafe { pack_b::<T>(dst, src, b_row, b_col, steps.len(), self.panel_cols::<T>(panel)) };
        }
    }

    /// Packs the block of rows that starts at `m0`.
    unsafe fn pack_rows<T: Tile>(&self, dst: &mut [f32], m0: usize) {
        let Product { a, a_row, a_col, dims, .. } = self.product;
        let a = a.wrapping_add(m0 * a_row + self.cut.k0 * a_col);
        let rows = ROW_BLOCK.min(dims.m - m0);
        if self.packs_a_rows::<T>() {
            let stride = self.a_stride::<T>();
            assert!(dst.len() >= rows * stride);
            // SAFETY: the rows lie inside A, and have room for their slots.
            return unsafe { T::pack_rows(dst.as_mut_ptr(), stride, a, a_col, a_row, self.cut.k, rows) };
        }
        // SAFETY: the rows lie inside A.
        unsafe { pack_a::<T>(dst, a, a_row, a_col, rows, self.cut.k) };
    }

    /// Rows `m0 .. m0 + ROW_BLOCK` of C, the columns of `panels`.
    unsafe fn multiply_rows<T: Tile>(&self, packed_a: *const f32, m0: usize, panels: std::ops::Range<usize>) {
        let Product { a, a_row, a_col, b_row, c, c_row, dims, store, .. } = self.product;
        let rows = ROW_BLOCK.min(dims.m - m0);
        let slots = self.slots::<T>();
        // SAFETY: the instruction set was checked.
        unsafe { T::begin() };
        for panel in panels {
            // Columns up to here are left to `mirror` in rows from here on.
            let computed_rows = match store {
                Store::Mirror => self.cut.n0 + (panel + 1) * T::COLS,
                Store::Set | Store::Plus(_) | Store::Add => dims.m,
            };
            let (b, b_row) = if self.reads_b {
                (self.b_at::<T>(panel), b_row)
            } else {
                (self.packed_b.wrapping_add(panel * slots * T::COLS).cast_const(), T::COLS)
            };
            for i in (0..rows).step_by(T::ROWS).take_while(|i| m0 + i < computed_rows) {
                let (a, a_row, a_col) = if self.reads_a {
                    (a.wrapping_add((m0 + i) * a_row + self.cut.k0 * a_col), a_row, a_col)
                } else if self.packs_a_rows::<T>() {
                    let stride = self.a_stride::<T>();
                    (packed_a.wrapping_add(i * stride), stride, 1)
                } else {
                    (packed_a.wrapping_add(i * slots), 1, T::ROWS)
                };
                let col = self.cut.n0 + panel * T::COLS;
                let (addend, addend_row) = match store {
                    // Added to the whole sum: with its last block.
                    Store::Plus(rows) if self.cut.k0 + self.cut.k == dims.k => {
                        (rows.data.as_ptr().wrapping_add((m0 + i) * rows.row + col), rows.row)
                    }
                    Store::Plus(_) | Store::Set | Store::Add | Store::Mirror => (std::ptr::null(), 0),
                };
                let args = TileArgs {
                    k: slots,
                    a,
                    a_row,
                    a_col,
                    b,
                    b_row,
                    c: c.wrapping_add((m0 + i) * c_row + col),
                    c_row,
                    add: matches!(store, Store::Add) || self.cut.k0 > 0,
                    addend,
                    addend_row,
                };
                // SAFETY: the tile lies inside the product, whose bounds were checked.
                unsafe { T::run(T::ROWS.min(rows - i), self.panel_cols::<T>(panel), args) };
            }
        }
        // SAFETY: begun above.
        unsafe { T::end() };
    }
}

#[cfg(test)]
mod tests;
