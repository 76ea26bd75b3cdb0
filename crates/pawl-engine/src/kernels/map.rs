//! Fused elementwise programs: a chain of operations is evaluated tile by tile in cache, so that memory
//! is read and written once; with an optional reduction of one axis at the end.
//!
//! It refuses to choose what is fused: that is the planner's work.

use super::Isa;
use super::gemm::halve;
use super::lanes::per_isa;
use super::math;
use crate::pool::Pool;
use pawl_graph::{Binary, Reduction, Unary};

/// Floats evaluated at a time: small enough that some forty registers stay in the second-level cache.
pub const TILE: usize = 512;

/// Elements of one task.
const GRAIN: usize = 16 * TILE;

/// Elements from which on results are written past the caches: they would not stay in them anyway, and
/// a plain store reads the line first.
const STREAM_LEN: usize = 1 << 21;

/// Which element of an input belongs to element i of the output.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// i
    Full,
    /// 0
    Scalar,
    /// i mod n: a vector along the last axis.
    Last {
        /// Its length.
        n: usize,
    },
    /// i / n: one value a row.
    Row {
        /// Length of a row.
        n: usize,
    },
    /// Any broadcast: (extent, stride) by axis, outermost first; stride 0 repeats.
    Strided(Vec<(usize, usize)>),
}

/// Where an operation reads: an input, a number, or the result of an earlier operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operand {
    /// Input by position.
    Input(usize),
    /// A number.
    Const(f32),
    /// Result of instruction by position.
    Temp(usize),
}

/// One elementwise operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MapInstr {
    /// Of one operand.
    Unary(Unary, Operand),
    /// Of two.
    Binary(Binary, Operand, Operand),
}

/// A straight-line program over tiles. The results are `outputs`, in order, then `halves`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MapProgram {
    /// In dependency order.
    pub instrs: Vec<MapInstr>,
    /// Pattern of each input.
    pub patterns: Vec<Pattern>,
    /// What is stored.
    pub outputs: Vec<Operand>,
    /// What is stored rounded to bfloat16, two elements in four bytes.
    pub halves: Vec<Operand>,
}

impl MapProgram {
    /// Floats of scratch that evaluation needs for each worker.
    pub fn scratch_len(&self) -> usize {
        (self.instrs.len() + self.patterns.len()) * TILE
    }
}

/// A row of the tile: floats in memory, or one number for all of them.
#[derive(Clone, Copy)]
pub(super) enum Row {
    Slice(*const f32),
    Number(f32),
}

#[derive(Clone, Copy)]
pub(super) struct Ptr(pub(super) *mut f32);
// SAFETY: tasks write disjoint ranges and workers own disjoint scratch.
unsafe impl Sync for Ptr {}
// SAFETY: as above.
unsafe impl Send for Ptr {}
impl Ptr {
    /// The pointer `offset` floats on. Through `self`, so that closures capture the wrapper.
    pub(super) unsafe fn at(&self, offset: usize) -> *mut f32 {
        // SAFETY: the caller keeps offset inside the buffer.
        unsafe { self.0.add(offset) }
    }
}

/// Evaluates `program` for elements start..start+len (len <= TILE) and leaves the row of each output.
struct Evaluator<'a> {
    isa: Isa,
    program: &'a MapProgram,
    inputs: &'a [*const f32],
}
// SAFETY: inputs are only read while tasks run.
unsafe impl Sync for Evaluator<'_> {}

impl Evaluator<'_> {
    /// # Safety
    /// Inputs must cover their patterns for start..start+len; `scratch` holds `program.scratch_len()` floats.
    unsafe fn eval(&self, start: usize, len: usize, scratch: *mut f32) -> impl Fn(Operand) -> Row {
        // SAFETY: forwarded promise.
        unsafe { self.eval_to(start, len, scratch, |_| None) }
    }

    /// The same, results of the instructions for which `to` has a place going there.
    ///
    /// # Safety
    /// As for `eval`; the places hold `len` floats and no instruction reads memory that they share.
    unsafe fn eval_to(
        &self,
        start: usize,
        len: usize,
        scratch: *mut f32,
        to: impl Fn(usize) -> Option<*mut f32> + Copy,
    ) -> impl Fn(Operand) -> Row {
        let num_instrs = self.program.instrs.len();
        let temp = move |k: usize| {
            // SAFETY: k < number of registers.
            let register = unsafe { scratch.add(k * TILE) };
            if k < num_instrs { to(k).unwrap_or(register) } else { register }
        };
        let inputs = self.inputs;
        let patterns = &self.program.patterns;
        for (k, pattern) in patterns.iter().enumerate() {
            // SAFETY: forwarded promise.
            unsafe { spread(pattern, inputs[k], start, len, temp(num_instrs + k)) };
        }
        let row = move |operand: Operand| match operand {
            Operand::Const(number) => Row::Number(number),
            Operand::Temp(k) => Row::Slice(temp(k)),
            // SAFETY: forwarded promise.
            Operand::Input(k) => unsafe {
                input_row(&patterns[k], inputs[k], start, len, temp(num_instrs + k))
            },
        };
        for (k, instr) in self.program.instrs.iter().enumerate() {
            // SAFETY: registers are TILE floats, rows cover len of them, and no instruction reads its own register.
            unsafe {
                let out = std::slice::from_raw_parts_mut(temp(k), len);
                match *instr {
                    MapInstr::Unary(op, x) => unary(self.isa, op, out, row(x)),
                    MapInstr::Binary(op, a, b) => binary(self.isa, op, out, row(a), row(b)),
                }
            }
        }
        row
    }
}

/// Most axes of a pattern.
const MAX_AXES: usize = 12;

/// Writes a broadcast row out into `to` where it can neither be read in place nor as one number. Works by
/// runs along the last axis: a division for each element would cost more than most programs.
pub(super) unsafe fn spread(pattern: &Pattern, data: *const f32, start: usize, len: usize, to: *mut f32) {
    // SAFETY: the caller promises that the pattern stays inside the data and `to` holds TILE floats.
    let to = unsafe { std::slice::from_raw_parts_mut(to, len) };
    match pattern {
        Pattern::Full | Pattern::Scalar => {}
        Pattern::Last { n } => {
            if start % n + len > *n {
                // SAFETY: as above.
                unsafe { spread_axes(&[(len.div_ceil(*n) + 1, 0), (*n, 1)], data, start % n, to) };
            }
        }
        Pattern::Row { n } => {
            if start / n != (start + len - 1) / n {
                let rows = len.div_ceil(*n) + 1;
                // SAFETY: as above.
                unsafe { spread_axes(&[(rows, 1), (*n, 0)], data.add(start / n), start % n, to) };
            }
        }
        // SAFETY: as above.
        Pattern::Strided(axes) => unsafe { spread_axes(axes, data, start, to) },
    }
}

/// to = the elements from `start` on of a tensor of extents and strides `axes`
unsafe fn spread_axes(axes: &[(usize, usize)], data: *const f32, start: usize, to: &mut [f32]) {
    assert!(axes.len() <= MAX_AXES, "a pattern of {} axes", axes.len());
    let Some((&(extent, stride), outer)) = axes.split_last() else {
        // SAFETY: the caller promises at least one element.
        return to.fill(unsafe { *data });
    };
    let mut place = [0; MAX_AXES];
    let (mut rest, mut at) = (start / extent, 0);
    for (place, (extent, stride)) in place.iter_mut().zip(outer).rev() {
        *place = rest % extent;
        rest /= extent;
        at += *place * stride;
    }
    let (mut done, mut first) = (0, start % extent);
    while done < to.len() {
        let run = (extent - first).min(to.len() - done);
        let part = &mut to[done..done + run];
        // SAFETY: the caller promises that the pattern stays inside the data.
        unsafe {
            let data = data.add(at + first * stride);
            match stride {
                0 => part.fill(*data),
                1 => part.copy_from_slice(std::slice::from_raw_parts(data, run)),
                _ => part.iter_mut().enumerate().for_each(|(i, to)| *to = *data.add(i * stride)),
            }
        }
        (done, first) = (done + run, 0);
        for (place, (extent, stride)) in place.iter_mut().zip(outer).rev() {
            *place += 1;
            at += stride;
            if *place < *extent {
                break;
            }
            at -= *place * stride;
            *place = 0;
        }
    }
}

pub(super) unsafe fn input_row(
    pattern: &Pattern,
    data: *const f32,
    start: usize,
    len: usize,
    spread: *const f32,
) -> Row {
    // SAFETY: as for `spread`.
    unsafe {
        match pattern {
            Pattern::Full => Row::Slice(data.add(start)),
            Pattern::Scalar => Row::Number(*data),
            Pattern::Last { n } if start % n + len <= *n => Row::Slice(data.add(start % n)),
            Pattern::Row { n } if start / n == (start + len - 1) / n => Row::Number(*data.add(start / n)),
            Pattern::Last { .. } | Pattern::Row { .. } | Pattern::Strided(_) => Row::Slice(spread),
        }
    }
}

/// outputs = (len) each, element i from element i of the inputs by their patterns; those in halves last
///
/// # Safety
/// Inputs cover their patterns, outputs hold `len` floats, `scratch` holds `program.scratch_len()` floats
/// for each worker. An output may be an input of pattern `Full`; otherwise nothing overlaps.
pub unsafe fn map(
    pool: &Pool,
    isa: Isa,
    scratch: *mut f32,
    outputs: &[*mut f32],
    inputs: &[*const f32],
    program: &MapProgram,
    len: usize,
) {
    let evaluator = Evaluator { isa, program, inputs };
    let scratch = Ptr(scratch);
    let targets: [Ptr; 16] =
        std::array::from_fn(|k| Ptr(outputs.get(k).copied().unwrap_or(std::ptr::null_mut())));
    let num_outputs = program.outputs.len() + program.halves.len();
    assert!(outputs.len() <= targets.len() && outputs.len() == num_outputs);
    // What is updated in place was just read into the caches.
    let streams: [bool; 16] = std::array::from_fn(|k| {
        len >= STREAM_LEN && outputs.get(k).is_some_and(|out| !inputs.contains(&out.cast_const()))
    });
    // A result is computed where it belongs, unless it is streamed or an input lies there that a later
    // instruction may read.
    let direct: [Option<usize>; 16] = std::array::from_fn(|k| match program.outputs.get(k) {
        Some(Operand::Temp(instr)) if !streams[k] && !inputs.contains(&outputs[k].cast_const()) => {
            let is_first = program.outputs[..k].iter().all(|other| *other != Operand::Temp(*instr));
            is_first.then_some(*instr)
        }
        _ => None,
    });
    let task = |task: usize, worker: usize| {
        let end = len.min((task + 1) * GRAIN);
        let mut start = task * GRAIN;
        while start < end {
            let n = TILE.min(end - start);
            // SAFETY: the caller's promise; tasks cover disjoint ranges.
            unsafe {
                let to = |instr: usize| {
                    let place = direct.iter().position(|direct| *direct == Some(instr))?;
                    Some(targets[place].at(start))
                };
                let row = evaluator.eval_to(start, n, scratch.at(worker * program.scratch_len()), to);
                for (k, (target, output)) in targets.iter().zip(&program.outputs).enumerate() {
                    match row(*output) {
                        _ if direct[k].is_some() => {}
                        Row::Slice(from) if streams[k] => stream(isa, from, target.at(start), n),
                        Row::Slice(from) => std::ptr::copy(from, target.at(start), n),
                        Row::Number(number) => {
                            std::slice::from_raw_parts_mut(target.at(start), n).fill(number)
                        }
                    }
                }
                for (target, output) in targets[program.outputs.len()..].iter().zip(&program.halves) {
                    // A tile starts at an even element.
                    halve_row(isa, target.at(start / 2), row(*output), n);
                }
            }
            start += n;
        }
    };
    pool.run(len.div_ceil(GRAIN), &task);
}

/// to = the row rounded, two elements in four bytes
unsafe fn halve_row(isa: Isa, to: *mut f32, row: Row, n: usize) {
    let numbers;
    let from = match row {
        Row::Slice(from) => from,
        Row::Number(number) => {
            numbers = [number; TILE];
            numbers.as_ptr()
        }
    };
    // SAFETY: the promise of the caller; a row is at most a tile.
    unsafe { halve(isa, to, from, n) };
}

/// Copies `n` floats past the caches where the instruction set and the alignment of `to` allow it. `to` is
/// either apart from `from` or the same.
unsafe fn stream(isa: Isa, from: *const f32, to: *mut f32, n: usize) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && to.align_offset(64) == 0 && n.is_multiple_of(16) {
        // SAFETY: the promise of the caller; `isa` is available.
        return unsafe { stream_avx512(from, to, n) };
    }
    let _ = isa;
    // SAFETY: the promise of the caller.
    unsafe { std::ptr::copy(from, to, n) };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn stream_avx512(from: *const f32, to: *mut f32, n: usize) {
    use std::arch::x86_64::{_mm_sfence, _mm512_loadu_ps, _mm512_stream_ps};
    for i in (0..n).step_by(16) {
        // SAFETY: whole vectors inside what the caller promised, `to` aligned to one.
        unsafe { _mm512_stream_ps(to.add(i), _mm512_loadu_ps(from.add(i))) };
    }
    // Other threads read this after the pool's own synchronisation, which orders plain stores only.
    _mm_sfence();
}

/// Shape of a reduction: the middle axis of (outer, n, inner) is combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Product of the axes before.
    pub outer: usize,
    /// Length of the axis.
    pub n: usize,
    /// Product of the axes after.
    pub inner: usize,
}

impl Axis {
    /// Parts that the axis is cut into so that few lines still feed many tasks; by shape alone.
    fn num_parts(self) -> usize {
        let lines = self.outer * self.inner.div_ceil(TILE);
        if lines >= 16 { 1 } else { (self.n * self.inner.min(TILE) / 4096).clamp(1, 32).min(self.n) }
    }
}

/// Floats of scratch for [`map_reduce`].
pub fn map_reduce_scratch_len(num_threads: usize, program: &MapProgram, axis: Axis) -> usize {
    num_threads * (program.scratch_len() + TILE) + axis.outer * axis.num_parts() * axis.inner
}

/// out = (outer, inner), the program's first output combined along the middle axis in a fixed order
///
/// # Safety
/// As for [`map`], with `map_reduce_scratch_len` floats of scratch and no overlap at all.
pub unsafe fn map_reduce(
    pool: &Pool,
    isa: Isa,
    scratch: *mut f32,
    out: *mut f32,
    inputs: &[*const f32],
    program: &MapProgram,
    kind: Reduction,
    axis: Axis,
) {
    let evaluator = Evaluator { isa, program, inputs };
    let Axis { outer, n, inner } = axis;
    let num_parts = axis.num_parts();
    let per_worker = program.scratch_len() + TILE;
    let scratch = Ptr(scratch);
    // SAFETY: scratch is that long.
    let partial = unsafe { Ptr(scratch.at(pool.num_threads() * per_worker)) };
    let target = if num_parts == 1 { Ptr(out) } else { partial };
    let blocks = inner.div_ceil(TILE);
    let rows_per_task = if inner == 1 && num_parts == 1 { (4096 / n.max(1)).clamp(1, outer) } else { 1 };
    let num_lines = outer.div_ceil(rows_per_task);
    let task = |task: usize, worker: usize| {
        let (line, block, part) = (task / (blocks * num_parts), task / num_parts % blocks, task % num_parts);
        let (from, to) = (part * n / num_parts, (part + 1) * n / num_parts);
        for o in line * rows_per_task..outer.min((line + 1) * rows_per_task) {
            let i0 = block * TILE;
            let width = TILE.min(inner - i0);
            // SAFETY: tasks write disjoint lines, blocks and parts; the rest is the caller's promise.
            unsafe {
                let registers = scratch.at(worker * per_worker);
                let sums = registers.add(program.scratch_len());
                let sums = std::slice::from_raw_parts_mut(sums, TILE);
                if inner == 1 {
                    *target.at(o * num_parts + part) =
                        reduce_line(&evaluator, registers, sums, kind, o * n + from, to - from);
                } else {
                    sums[..width].fill(identity(kind));
                    for a in from..to {
                        let row = evaluator.eval((o * n + a) * inner + i0, width, registers);
                        accumulate(isa, kind, &mut sums[..width], row(program.outputs[0]));
                    }
                    let place = target.at((o * num_parts + part) * inner + i0);
                    std::ptr::copy_nonoverlapping(sums.as_ptr(), place, width);
                }
            }
        }
    };
    pool.run(num_lines * blocks * num_parts, &task);
    if num_parts > 1 {
        for o in 0..outer {
            for i in 0..inner {
                // SAFETY: the partials were written above; nothing runs any more.
                unsafe {
                    let parts = (0..num_parts).map(|p| *partial.at((o * num_parts + p) * inner + i));
                    *out.add(o * inner + i) = parts.fold(identity(kind), |x, y| combine(kind, x, y));
                }
            }
        }
    }
}

/// Combines `len` neighbouring elements: lane k of the accumulator takes elements k, k + TILE, ...
unsafe fn reduce_line(
    evaluator: &Evaluator<'_>,
    registers: *mut f32,
    sums: &mut [f32],
    kind: Reduction,
    start: usize,
    len: usize,
) -> f32 {
    let lanes = TILE.min(len);
    sums[..lanes].fill(identity(kind));
    let mut done = 0;
    while done < len {
        let width = TILE.min(len - done);
        // SAFETY: the caller's promise.
        let row = unsafe { evaluator.eval(start + done, width, registers)(evaluator.program.outputs[0]) };
        // SAFETY: the row covers the width.
        unsafe { accumulate(evaluator.isa, kind, &mut sums[..width], row) };
        done += width;
    }
    // A tree over a power of two of lanes: an order that depends on the length alone.
    let mut width = lanes.next_power_of_two();
    while width > 1 {
        let half = width / 2;
        for k in 0..half {
            if k + half < lanes {
                sums[k] = combine(kind, sums[k], sums[k + half]);
            }
        }
        width = half;
    }
    sums[0]
}

pub(super) fn identity(kind: Reduction) -> f32 {
    match kind {
        Reduction::Sum => 0.0,
        Reduction::Max => f32::NEG_INFINITY,
    }
}

fn combine(kind: Reduction, a: f32, b: f32) -> f32 {
    match kind {
        Reduction::Sum => a + b,
        Reduction::Max => a.max(b),
    }
}

/// sums = each combined with the element of the row at its place
unsafe fn accumulate(isa: Isa, kind: Reduction, sums: &mut [f32], row: Row) {
    match row {
        // SAFETY: rows cover the width of `sums`.
        Row::Slice(x) => combine_all(isa, kind, sums, unsafe { std::slice::from_raw_parts(x, sums.len()) }),
        Row::Number(x) => sums.iter_mut().for_each(|sum| *sum = combine(kind, *sum, x)),
    }
}

per_isa! {
    fn combine_all(kind: Reduction, sums: &mut [f32], x: &[f32]) = combine_all_body
}

#[inline(always)]
fn combine_all_body<const FMA: bool>(kind: Reduction, sums: &mut [f32], x: &[f32]) {
    match kind {
        Reduction::Sum => sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x),
        Reduction::Max => sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = sum.max(*x)),
    }
}

pub(super) unsafe fn unary(isa: Isa, op: Unary, out: &mut [f32], x: Row) {
    match x {
        // SAFETY: the row covers `out` and does not overlap it.
        Row::Slice(x) => math::unary(isa, op, out, unsafe { std::slice::from_raw_parts(x, out.len()) }),
        Row::Number(x) => {
            let mut one = [0.0];
            math::unary(isa, op, &mut one, &[x]);
            out.fill(one[0]);
        }
    }
}

pub(super) unsafe fn binary(isa: Isa, op: Binary, out: &mut [f32], a: Row, b: Row) {
    let n = out.len();
    // SAFETY: rows cover `out` and do not overlap it.
    let slice = |x: *const f32| unsafe { std::slice::from_raw_parts(x, n) };
    match (a, b) {
        (Row::Slice(a), Row::Slice(b)) => math::binary(isa, op, out, slice(a), slice(b)),
        (Row::Slice(a), Row::Number(b)) => math::binary_right(isa, op, out, slice(a), b),
        (Row::Number(a), Row::Slice(b)) => math::binary_left(isa, op, out, a, slice(b)),
        (Row::Number(a), Row::Number(b)) => {
            let mut one = [0.0];
            math::binary(isa, op, &mut one, &[a], &[b]);
            out.fill(one[0]);
        }
    }
}

#[cfg(test)]
mod tests;
