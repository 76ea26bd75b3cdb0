//! Executes a plan: one kernel call after another, no allocation, no decision.

mod row_kernels;
mod tail;

use crate::buffer::Buffer;
use crate::engine::{Engine, Hands};
use crate::kernels::gemm::{self, Dims, Strided};
use crate::kernels::map;
use crate::kernels::row_program::row_program;
use crate::kernels::{self, Precision};
use crate::plan::{Adds, Kernel, Loc, Output, Plan, Products, RowLoop, Step, Target};
use crate::pool::Pool;
use crate::profile::Profile;
use crate::reference::binary_int;
use pawl_graph::Graph;
use row_kernels::{attention_dims, row_kernel};

/// Most operands of one loop over rows; the planner makes no larger ones.
pub(crate) const MAX_LOOP_BUFFERS: usize = 32;

/// A plan with its arena.
pub struct Program {
    plan: Plan,
    arena: Buffer,
    kept: Buffer,
    pointers: Vec<*mut f32>,
}

// SAFETY: the pointers are scratch, made anew from the buffers of every run.
unsafe impl Send for Program {}

/// Everything a step needs to find its operands.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'a> {
    pub(crate) arena: *mut f32,
    pub(crate) kept: *mut f32,
    pub(crate) buffers: &'a [*mut f32],
}

impl Memory<'_> {
    fn at(&self, loc: Loc) -> *mut f32 {
        // SAFETY: the planner keeps offsets inside the arena and the buffers, whose lengths were checked.
        unsafe {
            match loc {
                Loc::Buffer { buffer, offset } => self.buffers[buffer].add(offset),
                Loc::Arena { offset, .. } => self.arena.add(offset),
                Loc::Kept { offset } => self.kept.add(offset),
            }
        }
    }
}

impl Program {
    /// Compiles what `outputs` need to run on `engine`, in float32; see [`Plan::compile`].
    pub fn new(graph: &Graph, inputs: &[usize], outputs: &[Output], engine: &Engine) -> Program {
        Program::with_target(graph, inputs, outputs, engine.target(Precision::F32, false))
    }

    /// The same for a given target.
    pub fn with_target(graph: &Graph, inputs: &[usize], outputs: &[Output], target: Target) -> Program {
        let plan = Plan::compile(graph, inputs, outputs, target);
        let (arena, kept) = (Buffer::zeros(plan.arena_len), Buffer::zeros(plan.kept_len));
        Program { plan, arena, kept, pointers: Vec::new() }
    }

    /// Bytes of memory beside the buffers.
    pub fn memory_bytes(&self) -> usize {
        4 * (self.arena.len() + self.kept.len())
    }

    /// Runs the program once on `buffers`. `round` counts runs on the same parameters, over which accumulating
    /// outputs add up: 0 overwrites.
    pub fn run(&mut self, engine: &Engine, buffers: &mut [Buffer], round: usize) {
        for (buffer, len) in &self.plan.buffer_lens {
            assert_eq!(buffers[*buffer].len(), *len, "buffer {buffer} has another length than planned");
        }
        // Grows in the first run and is refilled in later ones.
        self.pointers.clear();
        self.pointers.extend(buffers.iter_mut().map(|buffer| buffer.floats_mut().as_mut_ptr()));
        self.run_pointers(engine.together(), round);
    }

    fn run_pointers(&mut self, hands: Hands<'_>, round: usize) {
        let arena = self.arena.floats_mut().as_mut_ptr();
        let kept = self.kept.floats_mut().as_mut_ptr();
        let memory = Memory { arena, kept, buffers: &self.pointers };
        if round == 0 {
            run_once(hands, &self.plan, memory);
        }
        run_round(hands, &self.plan, memory, round);
    }
}

/// What later rounds find done.
pub(crate) fn run_once(hands: Hands<'_>, plan: &Plan, memory: Memory<'_>) {
    let first = Round { inner: 0, outer: 0 };
    plan.once.iter().for_each(|step| timed_step(hands, plan, step, memory, first));
}

pub(crate) fn run_round(hands: Hands<'_>, plan: &Plan, memory: Memory<'_>, round: usize) {
    let round = Round { inner: round, outer: 0 };
    plan.steps.iter().for_each(|step| timed_step(hands, plan, step, memory, round));
}

/// The same beside other rounds that write the same buffers: a step that writes one is run once `wait` of its index
/// has returned true, and then passed on. Where `wait` says that its turn never comes, the round ends.
pub(crate) fn run_round_in_turn(
    hands: Hands<'_>,
    plan: &Plan,
    memory: Memory<'_>,
    round: usize,
    wait: impl Fn(usize) -> bool,
    pass: impl Fn(usize),
) {
    let round = Round { inner: round, outer: 0 };
    for (idx, step) in plan.steps.iter().enumerate() {
        let is_shared = step.writes.iter().any(|loc| matches!(loc, Loc::Buffer { .. }));
        if is_shared && !wait(idx) {
            return;
        }
        timed_step(hands, plan, step, memory, round);
        if is_shared {
            pass(idx);
        }
    }
}

/// How many rounds came before: of the innermost loop, and of the program around it.
#[derive(Clone, Copy)]
struct Round {
    inner: usize,
    outer: usize,
}

impl Round {
    fn adds(self, adds: Adds) -> bool {
        match adds {
            Adds::Never => false,
            Adds::ToRounds => self.inner > 0,
            Adds::ToAllRounds => self.inner > 0 || self.outer > 0,
        }
    }
}

fn timed_step(hands: Hands<'_>, plan: &Plan, step: &Step, memory: Memory<'_>, round: Round) {
    let started = hands.profile.map(Profile::now);
    run_step(hands, plan, step, memory, round);
    if let (Some(profile), Some(started)) = (hands.profile, started) {
        profile.add(&step.kernel, hands.share * (profile.now() - started));
    }
}

/// Floats of scratch of one kernel call.
pub(crate) fn scratch_len(kernel: &Kernel, num_threads: usize) -> usize {
    match kernel {
        Kernel::Map { program, .. } => num_threads * program.scratch_len(),
        Kernel::Rows { program, .. } => num_threads * program.scratch_len(),
        Kernel::MapReduce { program, axis, .. } => map::map_reduce_scratch_len(num_threads, program, *axis),
        Kernel::Gemm(products) if products.batch == 1 => gemm::gemm_scratch_len(num_threads, products.dims),
        Kernel::Gemm(products) => gemm::gemm_batch_scratch_len(num_threads, products.dims),
        Kernel::Mapped(tail) => tail::scratch_lens(tail, num_threads).iter().sum(),
        Kernel::Loop(rows) => rows.body.arena_len,
        Kernel::Attention { shape, kv, .. } => {
            kernels::attention::attention_forward_scratch_len(num_threads, attention_dims(*shape, *kv))
        }
        Kernel::AttentionBackward { shape, kv, .. } => {
            kernels::attention::attention_backward_scratch_len(num_threads, attention_dims(*shape, *kv))
        }
        Kernel::IntBinary { .. }
        | Kernel::Iota { .. }
        | Kernel::ToFloat { .. }
        | Kernel::Copy { .. }
        | Kernel::Clear { .. }
        | Kernel::Pack { .. }
        | Kernel::RmsNorm { .. }
        | Kernel::RmsNormBackward { .. }
        | Kernel::Softmax { .. }
        | Kernel::SoftmaxBackward { .. }
        | Kernel::Rope { .. }
        | Kernel::Embedding { .. }
        | Kernel::EmbeddingBackward { .. }
        | Kernel::CrossEntropy { .. }
        | Kernel::CrossEntropyBackward { halves: false, .. }
        | Kernel::Scan { .. }
        | Kernel::TopK { .. }
        | Kernel::Dropout { .. }
        | Kernel::Accumulate { .. } => 0,
        Kernel::CrossEntropyBackward { v, .. } => {
            kernels::cross_entropy::cross_entropy_halves_scratch_len(num_threads, *v)
        }
    }
}

/// The operands of one step as slices. The planner guarantees that what is written overlaps nothing else
/// of the step, except where a map updates a buffer in place; that kernel takes pointers.
struct Operands<'a> {
    step: &'a Step,
    memory: Memory<'a>,
    precision: Precision,
}

impl Operands<'_> {
    fn read(&self, k: usize, len: usize) -> &[f32] {
        // SAFETY: planned in bounds; not written by this step.
        unsafe { std::slice::from_raw_parts(self.memory.at(self.step.reads[k]), len) }
    }

    fn ints(&self, k: usize, len: usize) -> &[i32] {
        // SAFETY: as above; integers share the bits of floats.
        unsafe { std::slice::from_raw_parts(self.memory.at(self.step.reads[k]).cast(), len) }
    }

    #[allow(clippy::mut_from_ref)] // each output of a step is its own memory
    fn write(&self, k: usize, len: usize) -> &mut [f32] {
        // SAFETY: planned in bounds and disjoint from every other operand.
        unsafe { std::slice::from_raw_parts_mut(self.memory.at(self.step.writes[k]), len) }
    }

    #[allow(clippy::mut_from_ref)] // as above
    fn write_ints(&self, k: usize, len: usize) -> &mut [i32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.memory.at(self.step.writes[k]).cast(), len) }
    }

    #[allow(clippy::mut_from_ref)] // scratch belongs to the step
    fn scratch(&self) -> &mut [f32] {
        match self.step.scratch {
            // SAFETY: planned in bounds and alive for this step alone.
            Some((loc, len)) => unsafe { std::slice::from_raw_parts_mut(self.memory.at(loc), len) },
            None => &mut [],
        }
    }
}

fn run_step(hands: Hands<'_>, plan: &Plan, step: &Step, memory: Memory<'_>, round: Round) {
    let Hands { pool, isa, .. } = hands;
    let o = Operands { step, memory, precision: plan.precision };
    match &step.kernel {
        Kernel::Map { program, len } => {
            let reads: Pointers = pointers(&step.reads, memory);
            let writes: Pointers = pointers(&step.writes, memory);
            // SAFETY: planned operands; in-place updates read their own element only.
            unsafe {
                map::map(
                    pool,
                    isa,
                    o.scratch().as_mut_ptr(),
                    writes.mutable(),
                    reads.constant(),
                    program,
                    *len,
                );
            }
        }
        Kernel::MapReduce { program, kind, axis } => {
            let reads: Pointers = pointers(&step.reads, memory);
            let out = memory.at(step.writes[0]);
            // SAFETY: planned operands, none overlapping.
            unsafe {
                map::map_reduce(
                    pool,
                    isa,
                    o.scratch().as_mut_ptr(),
                    out,
                    reads.constant(),
                    program,
                    *kind,
                    *axis,
                );
            }
        }
        Kernel::Rows { program, rows } => {
            let reads: Pointers = pointers(&step.reads, memory);
            let writes: Pointers = pointers(&step.writes, memory);
            let scratch = o.scratch().as_mut_ptr();
            // SAFETY: planned operands, none overlapping.
            unsafe {
                let (writes, reads) = (writes.mutable(), reads.constant());
                row_program(pool, isa, scratch, writes, reads, program, *rows, &plan.tables);
            }
        }
        Kernel::IntBinary { op, axes } => int_binary(*op, axes, &o),
        Kernel::Iota { n } => (0..).zip(o.write_ints(0, *n)).for_each(|(i, out)| *out = i),
        Kernel::ToFloat { len } => {
            o.write(0, *len).iter_mut().zip(o.ints(0, *len)).for_each(|(out, x)| *out = *x as f32);
        }
        Kernel::Copy { axes } => {
            // SAFETY: the planner derived extents and strides from the shapes of both operands.
            unsafe { copy(pool, memory.at(step.writes[0]), memory.at(step.reads[0]), axes) };
        }
        Kernel::Clear { len } => o.write(0, *len).fill(0.0),
        Kernel::Gemm(products) => product(hands, &o, products, round),
        Kernel::Mapped(tail) => tail::mapped_product(hands, &o, tail),
        Kernel::Pack { k, n, tb } => {
            let len = gemm::packed_right_len(isa, o.precision, *k, *n);
            let b = strided(o.read(0, k * n), *k, *n, *tb);
            gemm::pack_right(pool, isa, o.precision, o.write(0, len), b, *k, *n);
        }
        Kernel::Accumulate { len, adds } => {
            let (out, x) = (o.write(0, *len), o.read(0, *len));
            if round.adds(*adds) {
                out.iter_mut().zip(x).for_each(|(out, x)| *out += x);
            } else {
                out.copy_from_slice(x);
            }
        }
        Kernel::EmbeddingBackward { v, c, n, adds } => {
            let (dtable, dy, ids) = (o.write(0, v * c), o.read(0, n * c), o.ints(1, *n));
            if !round.adds(*adds) {
                dtable.fill(0.0);
            }
            kernels::embedding::embedding_backward(pool, isa, dtable, dy, ids, *c);
        }
        Kernel::Loop(rows) => row_loop(hands, rows, &o, round),
        Kernel::RmsNorm { .. }
        | Kernel::RmsNormBackward { .. }
        | Kernel::Softmax { .. }
        | Kernel::SoftmaxBackward { .. }
        | Kernel::Rope { .. }
        | Kernel::Embedding { .. }
        | Kernel::Attention { .. }
        | Kernel::AttentionBackward { .. }
        | Kernel::CrossEntropy { .. }
        | Kernel::CrossEntropyBackward { .. }
        | Kernel::Scan { .. }
        | Kernel::TopK { .. }
        | Kernel::Dropout { .. } => row_kernel(hands, &plan.tables, &step.kernel, &o),
    }
}

/// Pointers of a step's operands, on the stack.
struct Pointers {
    list: [*mut f32; 64],
    len: usize,
}

impl Pointers {
    fn empty() -> Pointers {
        Pointers { list: [std::ptr::null_mut(); 64], len: 0 }
    }

    fn push(&mut self, pointer: *mut f32) {
        self.list[self.len] = pointer;
        self.len += 1;
    }

    fn mutable(&self) -> &[*mut f32] {
        &self.list[..self.len]
    }

    fn constant(&self) -> &[*const f32] {
        // SAFETY: *mut and *const have one representation.
        unsafe { std::slice::from_raw_parts(self.list.as_ptr().cast(), self.len) }
    }
}

fn pointers(locs: &[Loc], memory: Memory<'_>) -> Pointers {
    let mut pointers = Pointers::empty();
    locs.iter().for_each(|loc| pointers.push(memory.at(*loc)));
    pointers
}

fn row_loop(hands: Hands<'_>, rows: &RowLoop, o: &Operands<'_>, outer: Round) {
    let (reads, writes) = (&o.step.reads, &o.step.writes);
    let mut buffers = [std::ptr::null_mut(); MAX_LOOP_BUFFERS];
    let num = reads.len() + writes.len();
    assert!(num <= buffers.len(), "a loop over rows binds {num} operands");
    for inner in 0..rows.rounds {
        let moves = rows.read_strides.iter().chain(&rows.write_strides);
        for ((pointer, loc), stride) in buffers.iter_mut().zip(reads.iter().chain(writes)).zip(moves) {
            *pointer = o.memory.at(loc.shifted(inner * stride));
        }
        // A body keeps nothing: what it would pack is packed outside.
        let kept = std::ptr::null_mut();
        let memory = Memory { arena: o.scratch().as_mut_ptr(), kept, buffers: &buffers[..num] };
        let round = Round { inner, outer: outer.inner };
        rows.body.steps.iter().for_each(|step| timed_step(hands, &rows.body, step, memory, round));
    }
}

/// A row-major matrix (rows, cols), or the transpose of one (cols, rows).
fn strided(data: &[f32], rows: usize, cols: usize, transposed: bool) -> Strided<'_> {
    if transposed { Strided { data, row: 1, col: rows } } else { Strided { data, row: cols, col: 1 } }
}

fn product(hands: Hands<'_>, o: &Operands<'_>, products: &Products, round: Round) {
    let Hands { pool, isa, .. } = hands;
    let Products { batch, dims, ta, tb, adds, packed, halves, symmetric, addend } = *products;
    let Dims { m, n, k } = dims;
    let store = match addend {
        Some(row) => gemm::Store::Plus(Strided { data: o.read(2, (m - 1) * row + n), row, col: 1 }),
        None if round.adds(adds) => gemm::Store::Add,
        None if symmetric => gemm::Store::Mirror,
        None => gemm::Store::Set,
    };
    let len = |operand: usize, len: usize| if halves[operand] { len.div_ceil(2) } else { len };
    let a = strided(o.read(0, len(0, batch * m * k)), m, k, ta);
    let c = o.write(0, batch * m * n);
    if packed {
        let b = gemm::Right::Packed(o.read(1, gemm::packed_right_len(isa, o.precision, k, n)));
        let a = if halves[0] { gemm::Left::Halves(a) } else { a.into() };
        return gemm::gemm(pool, isa, o.precision, o.scratch(), c, n, a, b, dims, store);
    }
    let b = strided(o.read(1, len(1, batch * k * n)), k, n, tb);
    if batch == 1 {
        let a = if halves[0] { gemm::Left::Halves(a) } else { a.into() };
        let b = if halves[1] { gemm::Right::Halves(b) } else { b.into() };
        gemm::gemm(pool, isa, o.precision, o.scratch(), c, n, a, b, dims, store);
    } else {
        let strides = gemm::BatchStrides { a: m * k, b: k * n, c: m * n };
        let scratch = o.scratch();
        gemm::gemm_batch(pool, isa, o.precision, scratch, c, n, a, b, dims, store, batch, strides);
    }
}

fn int_binary(op: pawl_graph::Binary, axes: &[(usize, usize, usize)], o: &Operands<'_>) {
    let len: usize = axes.iter().map(|(n, _, _)| n).product();
    let reach = |pick: fn(&(usize, usize, usize)) -> usize| {
        1 + axes.iter().map(|axis| (axis.0 - 1) * pick(axis)).sum::<usize>()
    };
    let (a, b) = (o.ints(0, reach(|x| x.1)), o.ints(1, reach(|x| x.2)));
    for (i, out) in o.write_ints(0, len).iter_mut().enumerate() {
        let (mut rest, mut at) = (i, (0, 0));
        for (n, sa, sb) in axes.iter().rev() {
            at = (at.0 + rest % n * sa, at.1 + rest % n * sb);
            rest /= n;
        }
        *out = binary_int(op, a[at.0], b[at.1]);
    }
}

/// Copies four-byte elements between two strided layouts, in parallel over the outermost axis.
unsafe fn copy(pool: &Pool, to: *mut f32, from: *const f32, axes: &[(usize, usize, usize)]) {
    struct Ends(*mut f32, *const f32);
    // SAFETY: tasks write disjoint parts.
    unsafe impl Sync for Ends {}
    let ends = Ends(to, from);
    let ends = &ends;
    let (inner, outer) = axes.split_last().expect("a copy has at least one axis");
    let rows: usize = outer.iter().map(|(n, _, _)| n).product();
    // A single long run is cut into pieces; otherwise rows are grouped until a task is worth claiming.
    let piece = if outer.is_empty() { 1 << 15 } else { inner.0 };
    let group = (1usize << 14).div_ceil(piece).max(1);
    let pieces = inner.0.div_ceil(piece);
    let tasks = (rows * pieces).div_ceil(group);
    pool.run(tasks, &|task, _| {
        for unit in task * group..(rows * pieces).min((task + 1) * group) {
            let (mut row, start) = (unit / pieces, unit % pieces * piece);
            let (mut read, mut write) = (start * inner.1, start * inner.2);
            for (n, r, w) in outer.iter().rev() {
                read += row % n * r;
                write += row % n * w;
                row /= n;
            }
            let len = piece.min(inner.0 - start);
            // SAFETY: within the extents that the planner derived from both shapes.
            unsafe {
                let (to, from) = (ends.0.add(write), ends.1.add(read));
                if inner.1 == 1 && inner.2 == 1 {
                    std::ptr::copy_nonoverlapping(from, to, len);
                } else {
                    for i in 0..len {
                        *to.add(i * inner.2) = *from.add(i * inner.1);
                    }
                }
            }
        }
    });
}
