//! Programs over rows: elementwise operations with reductions and norms of the last axis between them, for
//! a few rows at a time, so that whole tensors are read and written once.
//!
//! A register holds either whole rows (wide) or one number a row (narrow). A row's results depend on that row
//! alone, and its sums have the order of [`super::map::map_reduce`] and [`super::rows`]. It refuses to choose
//! what belongs together: that is the planner's work.

use super::Isa;
use super::gemm::halve;
use super::lanes::{LANES, fold, per_isa};
use super::map::{Pattern, Ptr, Row, TILE, binary, identity, input_row, spread, unary};
use super::math;
use super::rows::{rmsnorm_rows, rmsnorm_rows_backward};
use super::sequence::{RopeTable, turn};
use crate::pool::Pool;
use pawl_graph::{Binary, Reduction, Unary};

/// Floats of a wide register, unless one row is longer: some thirty stay in the second-level cache.
const REGISTER: usize = 1024;
/// Elements of one task.
const GRAIN: usize = 8192;
/// Most results; the planner makes no more.
const MAX_OUTPUTS: usize = 16;

/// Where an operation reads: an input, a number, or a register.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowOperand {
    /// Input by position.
    Input(usize),
    /// A number.
    Const(f32),
    /// Register by position.
    Register(usize),
}

/// One operation. Operands of norms and reductions are inputs or registers of whole rows, `rstd` of one
/// number a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowInstr {
    /// Of one operand.
    Unary(Unary, RowOperand),
    /// Of two; a narrow operand of a wide result is repeated along the row.
    Binary(Binary, RowOperand, RowOperand),
    /// Wide to narrow.
    Reduce(Reduction, RowOperand),
    /// Root mean square norm with its `eps`; the register after the result's takes rstd.
    RmsNorm(f32, RowOperand),
    /// Its gradient from dy, x and rstd.
    RmsNormBackward(RowOperand, RowOperand, RowOperand),
    /// Rotary positions of rows that are heads of (B, T, H).
    Rope(RowRope, RowOperand),
}

/// Which way rows are turned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowRope {
    /// By position.
    pub table: usize,
    /// H
    pub heads: usize,
    /// Back.
    pub inverse: bool,
}

/// A tensor that a program reads.
#[derive(Clone, Debug, PartialEq)]
pub struct RowInput {
    /// Which element belongs to element i, or to row i.
    pub pattern: Pattern,
    /// Whether the pattern counts elements, not rows.
    pub wide: bool,
}

/// A straight-line program over rows of `c` elements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowProgram {
    /// Elements of a row.
    pub c: usize,
    /// In dependency order, each with the register of its result.
    pub instrs: Vec<(usize, RowInstr)>,
    /// Whether each register is wide.
    pub registers: Vec<bool>,
    /// What it reads.
    pub inputs: Vec<RowInput>,
    /// Registers that are stored.
    pub outputs: Vec<usize>,
    /// Wide registers that are stored rounded to bfloat16, two elements in four bytes; rows are then even.
    pub halves: Vec<usize>,
}

impl RowProgram {
    /// Rows evaluated at a time, by their width alone.
    fn tile_rows(&self) -> usize {
        (REGISTER / self.c).max(1)
    }

    fn width(&self, wide: bool) -> usize {
        if wide { self.c } else { 1 }
    }

    /// Floats of scratch that evaluation needs for each worker.
    pub fn scratch_len(&self) -> usize {
        let slots = self.registers.len() + self.inputs.len();
        slots * self.slot_len() + TILE
    }

    fn slot_len(&self) -> usize {
        self.tile_rows() * self.c
    }
}

/// outputs = (rows, c) or (rows) each; those in halves last
///
/// # Safety
/// Inputs cover their patterns, outputs hold their rows, `scratch` holds `program.scratch_len()` floats for
/// each worker, and nothing overlaps.
pub unsafe fn row_program(
    pool: &Pool,
    isa: Isa,
    scratch: *mut f32,
    outputs: &[*mut f32],
    inputs: &[*const f32],
    program: &RowProgram,
    rows: usize,
    tables: &[RopeTable],
) {
    let num_outputs = program.outputs.len() + program.halves.len();
    assert!(outputs.len() == num_outputs && num_outputs <= MAX_OUTPUTS, "too many results");
    let in_halves = program.halves.iter().all(|k| program.registers[*k] && program.c.is_multiple_of(2));
    assert!(in_halves, "halves of rows of {}", program.c);
    let tile = program.tile_rows();
    let task_rows = tile * (GRAIN / (tile * program.c)).max(1);
    let evaluator = Evaluator {
        isa,
        program,
        inputs,
        tables,
        outputs: std::array::from_fn(|k| Ptr(outputs.get(k).copied().unwrap_or(std::ptr::null_mut()))),
    };
    let scratch = Ptr(scratch);
    pool.run(rows.div_ceil(task_rows), &|task, worker| {
        let (first, end) = (task * task_rows, rows.min((task + 1) * task_rows));
        for start in (first..end).step_by(tile) {
            let part = Part { start, rows: tile.min(end - start), is_first: start == first };
            // SAFETY: the caller's promise; tasks take disjoint rows and workers disjoint scratch.
            unsafe { evaluator.eval(part, scratch.at(worker * program.scratch_len())) };
        }
    });
}

/// Some rows of a task.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    rows: usize,
    is_first: bool,
}

struct Evaluator<'a> {
    isa: Isa,
    program: &'a RowProgram,
    inputs: &'a [*const f32],
    tables: &'a [RopeTable],
    outputs: [Ptr; MAX_OUTPUTS],
}
// SAFETY: inputs are only read while tasks run, and tasks write disjoint rows of the outputs.
unsafe impl Sync for Evaluator<'_> {}

/// What an operand holds for the rows at hand.
#[derive(Clone, Copy)]
enum Side {
    /// As many numbers as the result, or one number for all.
    Row(Row),
    /// One number a row of a wide result.
    ByRow(*const f32),
}

impl Evaluator<'_> {
    /// Computes and stores some rows.
    unsafe fn eval(&self, part: Part, scratch: *mut f32) {
        let program = self.program;
        let (c, first_input) = (program.c, program.registers.len());
        for (k, input) in program.inputs.iter().enumerate() {
            let width = program.width(input.wide);
            // A vector along the row is the same for every part of a task.
            let is_spread = input.wide && input.pattern == Pattern::Last { n: c } && !part.is_first;
            if !is_spread && !is_by_row(input, c) {
                // SAFETY: the caller's promise; a slot holds the rows of a part.
                unsafe {
                    let slot = scratch.add((first_input + k) * program.slot_len());
                    spread(&input.pattern, self.inputs[k], part.start * width, part.rows * width, slot);
                }
            }
        }
        for (out, instr) in &program.instrs {
            // SAFETY: registers do not overlap, and no instruction reads its own result.
            unsafe { self.step(part, scratch, *out, *instr) };
        }
        for (output, k) in self.outputs[program.outputs.len()..].iter().zip(&program.halves) {
            // SAFETY: the register has been computed; these rows of the output belong to this part.
            unsafe {
                let register = self.register(part, scratch, *k);
                halve(self.isa, output.at(part.start * c / 2), register, part.rows * c);
            }
        }
    }

    /// Where a register lies: in its result, or in scratch.
    unsafe fn register(&self, part: Part, scratch: *mut f32, k: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe {
            match self.program.outputs.iter().position(|output| *output == k) {
                Some(output) => {
                    self.outputs[output].at(part.start * self.program.width(self.program.registers[k]))
                }
                None => scratch.add(k * self.program.slot_len()),
            }
        }
    }

    /// The operand of a result that is `wide`.
    unsafe fn side(&self, part: Part, scratch: *mut f32, operand: RowOperand, wide: bool) -> Side {
        let program = self.program;
        match operand {
            RowOperand::Const(number) => Side::Row(Row::Number(number)),
            RowOperand::Register(k) => {
                // SAFETY: forwarded promise.
                let place = unsafe { self.register(part, scratch, k) }.cast_const();
                if program.registers[k] == wide { Side::Row(Row::Slice(place)) } else { Side::ByRow(place) }
            }
            RowOperand::Input(k) => {
                let (input, data) = (&program.inputs[k], self.inputs[k]);
                let width = program.width(input.wide);
                // SAFETY: the caller's promise that inputs cover their patterns.
                unsafe {
                    if is_by_row(input, program.c) {
                        return Side::ByRow(data.add(part.start));
                    }
                    let slot = scratch.add((program.registers.len() + k) * program.slot_len());
                    Side::Row(input_row(&input.pattern, data, part.start * width, part.rows * width, slot))
                }
            }
        }
    }

    /// An operand that the planner keeps in memory, as numbers.
    unsafe fn slice<'b>(&self, part: Part, scratch: *mut f32, operand: RowOperand, wide: bool) -> &'b [f32] {
        let len = part.rows * self.program.width(wide);
        // SAFETY: forwarded promise.
        match unsafe { self.side(part, scratch, operand, wide) } {
            // SAFETY: the operand covers the rows at hand.
            Side::Row(Row::Slice(data)) => unsafe { std::slice::from_raw_parts(data, len) },
            Side::Row(Row::Number(_)) | Side::ByRow(_) => unreachable!("the planner stores it"),
        }
    }

    unsafe fn step(&self, part: Part, scratch: *mut f32, k: usize, instr: RowInstr) {
        let (isa, c, wide) = (self.isa, self.program.c, self.program.registers[k]);
        // SAFETY: registers are as long as their rows and disjoint; operands cover the rows at hand.
        unsafe {
            let result = |k: usize, wide: bool| {
                let len = part.rows * self.program.width(wide);
                std::slice::from_raw_parts_mut(self.register(part, scratch, k), len)
            };
            let out = result(k, wide);
            match instr {
                RowInstr::Unary(op, x) => match self.side(part, scratch, x, wide) {
                    Side::Row(x) => unary(isa, op, out, x),
                    Side::ByRow(x) => {
                        for (r, out) in out.chunks_exact_mut(c).enumerate() {
                            unary(isa, op, out, Row::Number(*x.add(r)));
                        }
                    }
                },
                RowInstr::Binary(op, a, b) => {
                    let (a, b) = (self.side(part, scratch, a, wide), self.side(part, scratch, b, wide));
                    binary_of_rows(isa, op, out, a, b, part.rows);
                }
                RowInstr::Reduce(kind, x) => {
                    let sums = scratch.add(self.program.scratch_len() - TILE);
                    let sums = std::slice::from_raw_parts_mut(sums, TILE);
                    reduce_rows(isa, kind, out, self.slice(part, scratch, x, true), sums);
                }
                RowInstr::RmsNorm(eps, x) => {
                    let rstd = result(k + 1, false);
                    rmsnorm_rows(isa, out, rstd, self.slice(part, scratch, x, true), c, eps);
                }
                RowInstr::Rope(RowRope { table, heads, inverse }, x) => {
                    let RopeTable { t, cos, sin, .. } = &self.tables[table];
                    let x = self.slice(part, scratch, x, true);
                    turn(isa, out, x, cos, sin, part.start, [*t, heads, c], inverse);
                }
                RowInstr::RmsNormBackward(dy, x, rstd) => {
                    let [dy, x] = [dy, x].map(|operand| self.slice(part, scratch, operand, true));
                    let rstd = self.slice(part, scratch, rstd, false);
                    rmsnorm_rows_backward(isa, out, dy, x, rstd, c);
                }
            }
        }
    }
}

fn is_by_row(input: &RowInput, c: usize) -> bool {
    input.wide && input.pattern == Pattern::Row { n: c }
}

/// out = a op b, where a side may be one number for each of `rows` rows
unsafe fn binary_of_rows(isa: Isa, op: Binary, out: &mut [f32], a: Side, b: Side, rows: usize) {
    let (len, c) = (out.len(), out.len() / rows);
    // SAFETY: the caller promises that sides cover the rows and do not overlap `out`.
    unsafe {
        let slice = |x: *const f32, len: usize| std::slice::from_raw_parts(x, len);
        match (a, b) {
            (Side::Row(a), Side::Row(b)) => binary(isa, op, out, a, b),
            (Side::Row(Row::Slice(a)), Side::ByRow(b)) => {
                binary_row_right(isa, op, out, slice(a, len), slice(b, rows));
            }
            (Side::ByRow(a), Side::Row(Row::Slice(b))) => {
                binary_row_left(isa, op, out, slice(a, rows), slice(b, len));
            }
            (a, b) => {
                let number = |side: Side, r: usize| match side {
                    Side::Row(Row::Number(x)) => x,
                    Side::ByRow(x) => *x.add(r),
                    Side::Row(Row::Slice(_)) => unreachable!("matched above"),
                };
                for (r, out) in out.chunks_exact_mut(c).enumerate() {
                    binary(isa, op, out, Row::Number(number(a, r)), Row::Number(number(b, r)));
                }
            }
        }
    }
}

per_isa! {
    /// out = (R, C)   a op b
    /// a     (R, C)   read
    /// b     (R)      read
    fn binary_row_right(op: Binary, out: &mut [f32], a: &[f32], b: &[f32]) = binary_row_right_body
}

#[inline(always)]
fn binary_row_right_body<const FMA: bool>(op: Binary, out: &mut [f32], a: &[f32], b: &[f32]) {
    let c = out.len() / b.len();
    for ((out, a), b) in out.chunks_exact_mut(c).zip(a.chunks_exact(c)).zip(b) {
        math::binary_right_body::<FMA>(op, out, a, *b);
    }
}

per_isa! {
    /// out = (R, C)   a op b
    /// a     (R)      read
    /// b     (R, C)   read
    fn binary_row_left(op: Binary, out: &mut [f32], a: &[f32], b: &[f32]) = binary_row_left_body
}

#[inline(always)]
fn binary_row_left_body<const FMA: bool>(op: Binary, out: &mut [f32], a: &[f32], b: &[f32]) {
    let c = out.len() / a.len();
    for ((out, a), b) in out.chunks_exact_mut(c).zip(a).zip(b.chunks_exact(c)) {
        math::binary_left_body::<FMA>(op, out, *a, b);
    }
}

per_isa! {
    /// out  = (R)      each row of x combined, in the order of `map_reduce`
    /// x      (R, C)   read
    /// sums = (TILE)   scratch
    fn reduce_rows(kind: Reduction, out: &mut [f32], x: &[f32], sums: &mut [f32]) = reduce_rows_body
}

#[inline(always)]
fn reduce_rows_body<const FMA: bool>(kind: Reduction, out: &mut [f32], x: &[f32], sums: &mut [f32]) {
    match kind {
        Reduction::Sum => reduce_each(out, x, sums, identity(kind), |a, b| a + b),
        Reduction::Max => reduce_each(out, x, sums, identity(kind), f32::max),
    }
}

#[inline(always)]
fn reduce_each(
    out: &mut [f32],
    x: &[f32],
    sums: &mut [f32],
    identity: f32,
    combine: impl Fn(f32, f32) -> f32 + Copy,
) {
    let c = x.len() / out.len();
    for (out, x) in out.iter_mut().zip(x.chunks_exact(c)) {
        let mut lanes = TILE.min(c);
        let (head, tail) = x.split_at(lanes);
        sums.iter_mut().zip(head).for_each(|(sum, x)| *sum = combine(identity, *x));
        for x in tail.chunks(TILE) {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = combine(*sum, *x));
        }
        // A tree over a power of two of lanes.
        let mut width = lanes.next_power_of_two();
        while width > LANES {
            let (low, high) = sums[..lanes].split_at_mut(width / 2);
            low.iter_mut().zip(high).for_each(|(a, b)| *a = combine(*a, *b));
            (width, lanes) = (width / 2, width / 2);
        }
        *out = if lanes == LANES {
            fold(std::array::from_fn(|k| sums[k]), combine)
        } else {
            fold_few(&mut sums[..lanes], combine)
        };
    }
}

/// The same tree over fewer lanes than a vector has.
#[inline(always)]
fn fold_few(sums: &mut [f32], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let (lanes, mut width) = (sums.len(), sums.len().next_power_of_two());
    while width > 1 {
        width /= 2;
        for k in (0..width).filter(|k| k + width < lanes) {
            sums[k] = combine(sums[k], sums[k + width]);
        }
    }
    sums[0]
}

#[cfg(test)]
mod tests;
