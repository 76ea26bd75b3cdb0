//! A part of a product: operands are packed where tiles cannot read them as they lie, then tiles of C computed.

use super::halves::pack_halves_of_a;
use super::pack::{pack_a, pack_b};
use super::tile::{Tile, TileArgs};
use super::{
    ALIGN, Cut, NUM_TASKS, PACK_ROWS, Product, ROW_BLOCK, Store, each, packed_a_len, shares_packed_a,
};
use crate::pool::{Pool, SharedMut};

/// A part of a product and where its operands are read.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) product: Product<'a>,
    pub(super) cut: Cut,
    /// A, or B, is read where it is instead of being packed.
    pub(super) reads_a: bool,
    pub(super) reads_b: bool,
    /// Panels of this part of B: written first unless the product came with a packed B.
    pub(super) packed_b: *mut f32,
}

// SAFETY: as for `Product`; the packed panels are written in one run of the pool and read in the next.
unsafe impl Sync for Block<'_> {}

impl Block<'_> {
    /// # Safety
    /// As for [`super::multiply`]; packed A and B belong to this product.
    pub(super) unsafe fn multiply<T: Tile>(&self, pool: Option<&Pool>, packed_a: &SharedMut<'_, f32>) {
        let dims = self.product.dims;
        let num_panels = self.cut.cols.div_ceil(T::COLS);
        let num_row_blocks = dims.m.div_ceil(ROW_BLOCK);
        let a_len = packed_a_len(dims);
        let block_len = self.a_stride::<T>() * ROW_BLOCK;
        // One thread packs a block of A just before it reads it.
        let is_alone = pool.is_none_or(|pool| pool.num_threads() == 1);
        let shares_a = !self.reads_a && !is_alone && shares_packed_a(dims);
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
        let tasks_per_block = if is_alone { 1 } else { NUM_TASKS.div_ceil(num_row_blocks) };
        let panels_per_task = num_panels.div_ceil(tasks_per_block).max(2).min(num_panels);
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

    /// Where term k0 + `step` of the first column of a panel of B is.
    fn b_at<T: Tile>(&self, panel: usize, step: usize) -> *const f32 {
        self.product.b_at(self.cut.k0 + step, self.cut.n0 + panel * T::COLS)
    }

    fn panel_cols<T: Tile>(&self, panel: usize) -> usize {
        T::COLS.min(self.cut.cols - panel * T::COLS)
    }

    /// Rows of B that lie together are packed a few rows at a time, columns a panel at a time: either way
    /// memory is read in order.
    pub(super) fn num_pack_b_tasks<T: Tile>(&self) -> usize {
        if self.product.b_col == 1 { self.cut.k.div_ceil(PACK_ROWS) } else { self.cut.cols.div_ceil(T::COLS) }
    }

    /// # Safety
    /// B is in bounds and the packed panels are written by this task alone.
    pub(super) unsafe fn pack_panels<T: Tile>(&self, task: usize) {
        let Product { b_row, b_col, halves, .. } = self.product;
        let (panels, steps) = if b_col == 1 {
            let first = task * PACK_ROWS;
            (0..self.cut.cols.div_ceil(T::COLS), first..self.cut.k.min(first + PACK_ROWS))
        } else {
            (task..task + 1, 0..self.cut.k)
        };
        for panel in panels {
            let src = self.b_at::<T>(panel, steps.start);
            let dst =
                self.packed_b.wrapping_add((panel * self.slots::<T>() + steps.start / T::PER_SLOT) * T::COLS);
            let (k, cols) = (steps.len(), self.panel_cols::<T>(panel));
            // SAFETY: these steps of the panel lie inside B, and in the scratch they are this task's.
            unsafe {
                match halves[1] {
                    true => T::pack_halves(dst, T::COLS, src.cast(), b_row, b_col, k, cols),
                    false => pack_b::<T>(dst, src, b_row, b_col, k, cols),
                }
            }
        }
    }

    /// Packs the block of rows that starts at `m0`.
    unsafe fn pack_rows<T: Tile>(&self, dst: &mut [f32], m0: usize) {
        let Product { a_row, a_col, dims, halves, .. } = self.product;
        let a = self.product.a_at(m0, self.cut.k0);
        let (k, rows) = (self.cut.k, ROW_BLOCK.min(dims.m - m0));
        if self.packs_a_rows::<T>() {
            let stride = self.a_stride::<T>();
            assert!(dst.len() >= rows * stride);
            let dst = dst.as_mut_ptr();
            // SAFETY: the rows lie inside A, and have room for their slots.
            return unsafe {
                match halves[0] {
                    true => T::pack_half_rows(dst, stride, a.cast(), a_col, a_row, k, rows),
                    false => T::pack_rows(dst, stride, a, a_col, a_row, k, rows),
                }
            };
        }
        // SAFETY: the rows lie inside A.
        unsafe {
            match halves[0] {
                true => pack_halves_of_a::<T>(dst, a.cast(), a_row, a_col, rows, k),
                false => pack_a::<T>(dst, a, a_row, a_col, rows, k),
            }
        }
    }

    /// Rows `m0 .. m0 + ROW_BLOCK` of C, the columns of `panels`.
    unsafe fn multiply_rows<T: Tile>(&self, packed_a: *const f32, m0: usize, panels: std::ops::Range<usize>) {
        let Product { a_row, a_col, b_row, c, c_row, dims, store, halves, .. } = self.product;
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
                (self.b_at::<T>(panel, 0), b_row)
            } else {
                (self.packed_b.wrapping_add(panel * slots * T::COLS).cast_const(), T::COLS)
            };
            for i in (0..rows).step_by(T::ROWS).take_while(|i| m0 + i < computed_rows) {
                let (a, a_row, a_col) = if self.reads_a {
                    let row = if halves[0] { a_row / 2 } else { a_row };
                    (self.product.a_at(m0 + i, self.cut.k0), row, a_col)
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
