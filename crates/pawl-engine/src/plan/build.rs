//! From instructions to steps: each instruction that is not fused away becomes one kernel call, in an
//! order that respects dependencies.

use super::epilogue::Epilogue;
use super::fuse::{Fusion, Writer, root};
use super::group::{Form, Group, Groups};
use super::halves::{Halves, Stored, takes_halves};
use super::packing::{Matrix, Packing};
use super::recompute::recompute;
use super::row_writer::RowWriter;
use super::rows::{self, Region};
use super::schedule::{Unit, schedule};
use super::simplify::merge_equal;
use super::strides::{broadcast_strides, merge_axes, row_major};
use super::{Adds, Kernel, Loc, Output, Plan, Products, RowLoop, Step, Target};
use crate::exec::{MAX_LOOP_BUFFERS, scratch_len};
use crate::kernels::gemm::Dims;
use crate::kernels::map::{Axis, Pattern};
use crate::kernels::row_program::{RowInput, RowInstr, RowOperand, RowProgram, RowRope};
use crate::kernels::sequence::{RopeTable, rope_table};
use pawl_graph::{DType, Graph, InputKind, Instr, Op, Unary, ValueId};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn compile(graph: &Graph, inputs: &[usize], outputs: &[Output], target: Target) -> Plan {
    compile_part(graph, inputs, outputs, target, None)
}

/// `body` holds what was packed for the body of a loop over rows, which is not cut into rows again.
fn compile_part(
    graph: &Graph,
    inputs: &[usize],
    outputs: &[Output],
    target: Target,
    body: Option<Vec<(Matrix, Loc)>>,
) -> Plan {
    assert_eq!(inputs.len(), graph.inputs.len(), "one buffer for each input of the graph");
    let wanted: Vec<ValueId> = outputs.iter().map(|o| o.value).collect();
    let (graph, merged) = merge_equal(graph, &wanted);
    let moved = |to: &[Option<ValueId>], v: ValueId| to[v.idx()].expect("outputs are needed");
    let wanted: Vec<ValueId> = wanted.into_iter().map(|v| moved(&merged, v)).collect();
    let (graph, to) = recompute(&graph, &wanted);
    let moved = |v: ValueId| moved(&to, moved(&merged, v));
    let outputs: Vec<Output> = outputs.iter().map(|o| Output { value: moved(o.value), ..*o }).collect();
    let values: Vec<ValueId> = outputs.iter().map(|o| o.value).collect();
    let needed = graph.needed(&values);
    let regions = if body.is_none() { rows::find(&graph, &needed, &values) } else { Vec::new() };
    let mut outside = vec![false; graph.instrs.len()];
    regions.iter().flat_map(|r| &r.instrs).for_each(|idx| outside[*idx] = true);
    let keep: Vec<ValueId> =
        values.iter().copied().chain(regions.iter().flat_map(|r| r.reads.iter().map(|(v, _)| *v))).collect();
    let fusion = Fusion::decide(&graph, &needed, &keep, &outside);
    let groups = Groups::find(&graph, &needed, &fusion, &keep, &regions);
    let halves = Halves::decide(&graph, &needed, &fusion, &keep, &outside, target);
    let packing = match body {
        Some(packed) => Packing::of_body(target, packed),
        None => Packing::of_program(target, constant_buffers(&graph, inputs, &outputs)),
    };
    let mut builder = Builder {
        graph: &graph,
        inline: fusion.inline.clone(),
        members: BTreeSet::new(),
        places: vec![None; graph.values.len()],
        in_halves: vec![None; graph.values.len()],
        halves,
        lens: Vec::new(),
        steps: Vec::new(),
        tables: Vec::new(),
        packing,
        target,
        symmetric: fusion.symmetric.clone(),
        epilogues: fusion.epilogues.clone(),
    };
    for (input, buffer) in graph.inputs.iter().zip(inputs) {
        builder.places[input.value.idx()] = Some(Loc::Buffer { buffer: *buffer, offset: 0 });
    }
    for unit in schedule(&graph, &needed, &fusion, &regions, &groups) {
        match unit {
            Unit::Instr(idx) => builder.instr(idx),
            Unit::Region(idx) => builder.region(&regions[idx]),
            Unit::Group(idx) => builder.group(&groups.list[idx]),
        }
    }
    // Numbers and broadcasts are written out first: `finish` takes the last steps for the outputs.
    for output in &outputs {
        builder.place(output.value);
    }
    for output in &outputs {
        builder.output(output);
    }
    builder.finish(inputs, &outputs)
}

/// Buffers of parameters that no output overwrites.
fn constant_buffers(graph: &Graph, inputs: &[usize], outputs: &[Output]) -> Vec<usize> {
    let params = graph.inputs.iter().zip(inputs).filter(|(input, _)| input.kind == InputKind::Param);
    let buffers = params.map(|(_, buffer)| *buffer);
    buffers.filter(|buffer| outputs.iter().all(|output| output.buffer != *buffer)).collect()
}

pub(super) struct Builder<'a> {
    pub(super) graph: &'a Graph,
    /// Values that the step at hand computes without storing them.
    inline: Vec<bool>,
    /// Values of the group at hand, in memory only once it has run.
    members: BTreeSet<ValueId>,
    places: Vec<Option<Loc>>,
    /// Where values lie that are stored in halves, maybe beside their place.
    in_halves: Vec<Option<Loc>>,
    halves: Halves,
    pub(super) lens: Vec<usize>,
    pub(super) steps: Vec<Step>,
    pub(super) tables: Vec<RopeTable>,
    pub(super) packing: Packing,
    pub(super) target: Target,
    /// Values whose matrices are symmetric.
    symmetric: Vec<bool>,
    /// Additions that are done by a product.
    epilogues: BTreeMap<usize, Epilogue>,
}

impl Builder<'_> {
    pub(super) fn shape(&self, value: ValueId) -> &[usize] {
        self.graph.shape(value)
    }

    pub(super) fn len(&self, value: ValueId) -> usize {
        self.graph.values[value.idx()].len()
    }

    fn block(&mut self, len: usize) -> Loc {
        self.lens.push(len);
        Loc::Arena { base: self.lens.len() - 1, offset: 0 }
    }

    /// A new block for a value.
    fn store(&mut self, value: ValueId) -> Loc {
        let loc = self.block(self.len(value));
        self.places[value.idx()] = Some(loc);
        loc
    }

    /// A new block for a value in halves.
    fn store_halves(&mut self, value: ValueId) -> Loc {
        let loc = self.block(self.len(value).div_ceil(2));
        self.in_halves[value.idx()] = Some(loc);
        loc
    }

    /// New blocks for values, those in floats first.
    fn store_all(&mut self, values: &[ValueId]) -> Vec<Loc> {
        let stored = |value: &ValueId| self.halves.of(*value);
        let floats: Vec<ValueId> = values.iter().copied().filter(|v| stored(v) != Stored::Halves).collect();
        let halves: Vec<ValueId> = values.iter().copied().filter(|v| stored(v) != Stored::Floats).collect();
        let mut writes: Vec<Loc> = floats.into_iter().map(|value| self.store(value)).collect();
        writes.extend(halves.into_iter().map(|value| self.store_halves(value)));
        writes
    }

    /// Where a value lies. Numbers and broadcasts that a kernel wants in memory are written out now.
    pub(super) fn place(&mut self, value: ValueId) -> Loc {
        let value = root(self.graph, value);
        if let Some(loc) = self.places[value.idx()] {
            return loc;
        }
        assert!(
            matches!(self.graph.producer(value).op, Op::Const(_) | Op::Expand { .. }),
            "{} was never computed",
            self.graph.describe(value)
        );
        self.map_step(value)
    }

    pub(super) fn push(&mut self, kernel: Kernel, reads: Vec<Loc>, writes: Vec<Loc>) {
        let len = scratch_len(&kernel, self.target.num_threads);
        let scratch = (len > 0).then(|| (self.block(len), len));
        self.steps.push(Step { kernel, reads, writes, scratch });
    }

    /// Makes sure that whatever the tree of `value` reads lies in memory.
    fn settle(&mut self, value: ValueId, is_root: bool) {
        let value = root(self.graph, value);
        if !is_root && self.members.contains(&value) {
            return;
        }
        let instr = self.graph.producer(value);
        match &instr.op {
            Op::Const(_) => {}
            Op::Expand { .. } => {
                self.settle_broadcast(instr.inputs[0]);
            }
            Op::Unary(_) | Op::Binary(_) if is_root || self.inline[value.idx()] => {
                for input in instr.inputs.clone() {
                    if self.len(input) == self.len(value) {
                        self.settle(input, false);
                    } else {
                        self.settle_broadcast(input);
                    }
                }
            }
            _ => {
                self.place(value);
            }
        }
    }

    fn settle_broadcast(&mut self, source: ValueId) {
        let source = root(self.graph, source);
        if self.members.contains(&source) {
            return;
        }
        let instr = self.graph.producer(source);
        match &instr.op {
            Op::Const(_) => {}
            Op::Expand { .. } if [1, self.len(source)].contains(&self.len(instr.inputs[0])) => {
                self.settle_broadcast(instr.inputs[0]);
            }
            _ => {
                self.place(source);
            }
        }
    }

    /// Stores an elementwise value, a number or a broadcast.
    fn map_step(&mut self, value: ValueId) -> Loc {
        self.settle(value, true);
        let places = &self.places;
        let graph = self.graph;
        let place = |v: ValueId| places[v.idx()].expect("settled above");
        let mut writer = Writer::new(graph, &self.inline);
        let instr = graph.producer(value);
        let operand = match &instr.op {
            Op::Unary(_) | Op::Binary(_) => writer.compute(value, &place),
            _ => writer.operand(value, &place),
        };
        writer.store(operand, self.halves.of(value));
        let (program, reads) = (writer.program, writer.reads);
        let len = self.len(value);
        let writes = self.store_all(&[value]);
        let first = writes[0];
        self.push(Kernel::Map { program, len }, reads, writes);
        first
    }

    /// All values of a group in one kernel, those that are read elsewhere stored.
    fn group(&mut self, group: &Group) {
        self.members = group.values.iter().copied().collect();
        for value in &group.values {
            match &self.graph.producer(*value).op {
                Op::Unary(_) | Op::Binary(_) => self.settle(*value, true),
                _ => {
                    let inputs = self.graph.producer(*value).inputs.clone();
                    inputs.into_iter().for_each(|input| self.settle(input, false));
                }
            }
        }
        let mut tables = BTreeMap::new();
        for value in &group.values {
            if let Op::Rope { base, .. } = self.graph.producer(*value).op {
                let [_, t, _, d] = self.shape(*value)[..] else { unreachable!("(B, T, H, D) is turned") };
                tables.insert(*value, self.rope_table(t, d, base));
            }
        }
        group.values.iter().for_each(|value| self.inline[value.idx()] = true);
        let places = &self.places;
        let place = |v: ValueId| places[v.idx()].expect("settled above");
        let (kernel, reads) = match group.form {
            Form::Flat { len, .. } => {
                let mut writer = Writer::new(self.graph, &self.inline);
                for value in &group.values {
                    let operand = writer.operand(*value, &place);
                    if group.stored.contains(value) {
                        writer.store(operand, self.halves.of(*value));
                    }
                }
                (Kernel::Map { program: writer.program, len }, writer.reads)
            }
            Form::Rows { rows, c } => {
                let (program, reads) =
                    RowWriter::write(self.graph, &self.inline, group, c, &place, &self.halves, &tables);
                (Kernel::Rows { program, rows }, reads)
            }
        };
        group.values.iter().for_each(|value| self.inline[value.idx()] = false);
        self.members.clear();
        let writes = self.store_all(&group.stored);
        self.push(kernel, reads, writes);
    }

    fn instr(&mut self, idx: usize) {
        let instr = self.graph.instrs[idx].clone();
        let out = instr.outputs[0];
        match &instr.op {
            Op::Input(_) | Op::Const(_) | Op::Expand { .. } | Op::Reshape { .. } | Op::Detach => {}
            Op::Unary(Unary::ToFloat) => {
                let len = self.len(out);
                self.simple(Kernel::ToFloat { len }, &instr);
            }
            Op::Binary(op) if self.graph.dtype(out) == DType::I32 => {
                let strides = |operand: ValueId| broadcast_strides(self.shape(out), self.shape(operand));
                let (a, b) = (strides(instr.inputs[0]), strides(instr.inputs[1]));
                let axes = self.shape(out).iter().zip(a).zip(b).map(|((n, a), b)| (*n, a, b)).collect();
                self.simple(Kernel::IntBinary { op: *op, axes }, &instr);
            }
            Op::Unary(_) | Op::Binary(_) => {
                if let Some(epilogue) = self.epilogues.get(&idx).copied() {
                    let product = self.graph.instrs[epilogue.product].clone();
                    self.matmul(&product, out, Some(epilogue));
                } else if !self.inline[out.idx()] {
                    self.map_step(out);
                }
            }
            Op::Iota { n } => self.simple(Kernel::Iota { n: *n }, &instr),
            Op::Transpose { perm } => {
                let strides = row_major(self.shape(instr.inputs[0]));
                let read: Vec<usize> = perm.iter().map(|k| strides[*k]).collect();
                self.copy_step(instr.inputs[0], 0, &read, out);
            }
            Op::Slice { axis, start, .. } => self.slice(instr.inputs[0], *axis, *start, out),
            Op::Pad { axis, before, .. } => {
                let to = self.store(out);
                let len = self.len(out);
                self.push(Kernel::Clear { len }, vec![], vec![to]);
                self.place_part(instr.inputs[0], to, out, *axis, *before);
            }
            Op::Concat { axis } => {
                let to = self.store(out);
                let mut start = 0;
                for input in &instr.inputs {
                    self.place_part(*input, to, out, *axis, start);
                    start += self.shape(*input)[*axis];
                }
            }
            Op::Reduce { kind, axis } => self.reduce(&instr, *kind, *axis),
            Op::Matmul { .. } => self.matmul(&instr, out, None),
            _ => self.kernel(&instr),
        }
    }

    /// One kernel for one instruction.
    fn simple(&mut self, kernel: Kernel, instr: &Instr) {
        let reads = instr.inputs.iter().map(|v| self.place(*v)).collect();
        let writes = self.store_all(&instr.outputs);
        self.push(kernel, reads, writes);
    }

    /// A norm, its gradient or a rotation as a program over rows, which can store halves.
    fn rows_in_halves(&mut self, instr: &Instr) {
        let c = self.shape(instr.outputs[0]).last().copied().unwrap_or(1);
        let rows = self.len(instr.outputs[0]) / c;
        let [first, second, third] = [0, 1, 2].map(RowOperand::Input);
        let (made, inputs): (RowInstr, &[bool]) = match instr.op {
            Op::RmsNorm { eps } => (RowInstr::RmsNorm(eps, first), &[true]),
            Op::Rope { base, inverse } => {
                let [_, t, heads, d] = self.shape(instr.outputs[0])[..] else { unreachable!("(B, T, H, D)") };
                let table = self.rope_table(t, d, base);
                (RowInstr::Rope(RowRope { table, heads, inverse }, first), &[true])
            }
            _ => (RowInstr::RmsNormBackward(first, second, third), &[true, true, false]),
        };
        let mut program = RowProgram {
            c,
            instrs: vec![(0, made)],
            registers: vec![true, false],
            inputs: inputs.iter().map(|wide| RowInput { pattern: Pattern::Full, wide: *wide }).collect(),
            ..RowProgram::default()
        };
        program.registers.truncate(instr.outputs.len());
        for (k, out) in instr.outputs.iter().enumerate() {
            program.store(k, self.halves.of(*out));
        }
        self.simple(Kernel::Rows { program, rows }, instr);
    }

    fn kernel(&mut self, instr: &Instr) {
        if self.halves.of(instr.outputs[0]) != Stored::Floats
            && let Op::RmsNorm { .. } | Op::RmsNormBackward | Op::Rope { .. } = instr.op
        {
            return self.rows_in_halves(instr);
        }
        let shape_of = |k: usize| self.shape(instr.inputs[k]);
        let four = |s: &[usize]| [s[0], s[1], s[2], s[3]];
        let c = instr.inputs.first().map_or(1, |v| self.shape(*v).last().copied().unwrap_or(1));
        let rows = instr.inputs.first().map_or(1, |v| self.len(*v) / c);
        let kernel = match &instr.op {
            Op::RmsNorm { eps } => Kernel::RmsNorm { eps: *eps, c, rows },
            Op::RmsNormBackward => Kernel::RmsNormBackward { c, rows },
            Op::Softmax { mask } => Kernel::Softmax { mask: *mask, c, rows },
            Op::SoftmaxBackward => Kernel::SoftmaxBackward { c, rows },
            Op::Rope { base, inverse } => {
                let shape = four(shape_of(0));
                let table = self.rope_table(shape[1], shape[3], *base);
                Kernel::Rope { shape, table, inverse: *inverse }
            }
            Op::Embedding => Kernel::Embedding { v: shape_of(0)[0], c, n: self.len(instr.inputs[1]) },
            Op::EmbeddingBackward { rows: v } => {
                Kernel::EmbeddingBackward { v: *v, c, n: rows, adds: Adds::Never }
            }
            Op::Attention { mask, scale } => {
                let (shape, kv) = (four(shape_of(0)), shape_of(1)[2]);
                let halves = self.halves.of(instr.outputs[0]) != Stored::Floats;
                Kernel::Attention { shape, kv, mask: *mask, scale: *scale, halves }
            }
            Op::AttentionBackward { mask, scale } => {
                let (shape, kv) = (four(shape_of(0)), shape_of(4)[2]);
                let halves = [0, 1, 2].map(|k| self.halves.of(instr.outputs[k]) != Stored::Floats);
                Kernel::AttentionBackward { shape, kv, mask: *mask, scale: *scale, halves }
            }
            Op::CrossEntropy => Kernel::CrossEntropy { n: rows, v: c },
            Op::CrossEntropyBackward => {
                let halves = self.halves.of(instr.outputs[0]) == Stored::Halves;
                Kernel::CrossEntropyBackward { n: rows, v: c, halves }
            }
            Op::Scan { reverse } => {
                let s = shape_of(0);
                Kernel::Scan { shape: [s[0], s[1], s[2]], reverse: *reverse }
            }
            Op::TopK { k } => Kernel::TopK { k: *k, c, rows },
            Op::Dropout { rate, stream } => Kernel::Dropout { rate: *rate, stream: *stream, len: rows * c },
            op => unreachable!("{} is handled by its own function", op.name()),
        };
        self.simple(kernel, instr);
    }

    fn rope_table(&mut self, t: usize, d: usize, base: f32) -> usize {
        let same = |table: &RopeTable| table.t == t && table.d == d && table.base == base;
        if let Some(known) = self.tables.iter().position(same) {
            return known;
        }
        let (mut cos, mut sin) = (vec![0.0; t * d / 2], vec![0.0; t * d / 2]);
        rope_table(&mut cos, &mut sin, t, d, base);
        self.tables.push(RopeTable { t, d, base, cos, sin });
        self.tables.len() - 1
    }

    /// A part of the leading axis is where it is; any other is copied.
    fn slice(&mut self, from: ValueId, axis: usize, start: usize, out: ValueId) {
        let strides = row_major(self.shape(from));
        if self.shape(from)[..axis].iter().all(|n| *n == 1) {
            let place = self.place(from).shifted(start * strides[axis]);
            self.places[out.idx()] = Some(place);
        } else {
            self.copy_step(from, start * strides[axis], &strides, out);
        }
    }

    /// out = elements of `from` from `offset` on, by the strides of each axis of `out`
    fn copy_step(&mut self, from: ValueId, offset: usize, read: &[usize], out: ValueId) {
        let shape = self.shape(out).to_vec();
        let write = row_major(&shape);
        let axes = merge_axes(&shape, read, &write);
        let place = self.place(from).shifted(offset);
        let to = self.store(out);
        self.push(Kernel::Copy { axes }, vec![place], vec![to]);
    }

    /// Copies `from` into elements start.. of one axis of `out`, which lies at `to`.
    fn place_part(&mut self, from: ValueId, to: Loc, out: ValueId, axis: usize, start: usize) {
        let shape = self.shape(from).to_vec();
        let write = row_major(self.shape(out));
        let axes = merge_axes(&shape, &row_major(&shape), &write);
        let place = self.place(from);
        self.push(Kernel::Copy { axes }, vec![place], vec![to.shifted(start * write[axis])]);
    }

    fn reduce(&mut self, instr: &Instr, kind: pawl_graph::Reduction, axis: usize) {
        let from = instr.inputs[0];
        let shape = self.shape(from).to_vec();
        self.settle(from, false);
        let places = &self.places;
        let place = |v: ValueId| places[v.idx()].expect("settled above");
        let mut writer = Writer::new(self.graph, &self.inline);
        let operand = writer.operand(from, &place);
        writer.program.outputs = vec![operand];
        let (program, reads) = (writer.program, writer.reads);
        let axis = Axis {
            outer: shape[..axis].iter().product(),
            n: shape[axis],
            inner: shape[axis + 1..].iter().product(),
        };
        let out = self.store(instr.outputs[0]);
        self.push(Kernel::MapReduce { program, kind, axis }, reads, vec![out]);
    }

    /// `result`, of the product alone or with what is added to it.
    fn matmul(&mut self, instr: &Instr, result: ValueId, epilogue: Option<Epilogue>) {
        let Op::Matmul { ta, tb } = instr.op else { unreachable!("{} is no product", instr.op.name()) };
        let (a, b) = (self.shape(instr.inputs[0]), self.shape(instr.inputs[1]));
        let out = self.shape(instr.outputs[0]);
        let (m, n) = (out[out.len() - 2], out[out.len() - 1]);
        let k = if ta { a[a.len() - 2] } else { a[a.len() - 1] };
        let lead: usize = out[..out.len() - 2].iter().product();
        let shared = b.len() == 2 && !ta;
        let (batch, m) = if shared { (1, lead * m) } else { (lead, m) };
        let dims = Dims { m, n, k };
        let symmetric = m == n && self.symmetric[instr.outputs[0].idx()];
        let addend = epilogue.map(|epilogue| epilogue.row);
        let (adds, packed, halves) = (Adds::Never, false, [false; 2]);
        let mut products = Products { batch, dims, ta, tb, adds, packed, halves, symmetric, addend };
        let mut reads = Vec::new();
        for (k, input) in instr.inputs.iter().enumerate() {
            let in_halves = self.in_halves[root(self.graph, *input).idx()];
            products.halves[k] = in_halves.is_some() && takes_halves(self.graph, instr, &self.symmetric);
            reads.push(if products.halves[k] { in_halves.expect("just seen") } else { self.place(*input) });
        }
        let matrix = Matrix { place: reads[1], k, n, tb };
        if batch == 1
            && let Some(packed) = self.packing.ahead(m, matrix)
        {
            (reads[1], products.packed) = (packed, true);
        }
        reads.extend(epilogue.map(|epilogue| self.place(epilogue.addend)));
        let out = self.store(result);
        self.push(Kernel::Gemm(products), reads, vec![out]);
    }

    fn region(&mut self, region: &Region) {
        let room = MAX_LOOP_BUFFERS - region.reads.len() - region.writes.len();
        let mut reads: Vec<Loc> = region.reads.iter().map(|(v, _)| self.place(*v)).collect();
        let packed = self.packing.for_body(region, &reads, room);
        let num_reads = region.reads.len() + packed.len();
        let outputs: Vec<Output> = region
            .writes
            .iter()
            .enumerate()
            .map(|(k, (_, value, summed))| Output {
                value: *value,
                buffer: num_reads + k,
                accumulate: *summed,
            })
            .collect();
        let inputs: Vec<usize> = (0..region.reads.len()).collect();
        let inside = packed.iter().enumerate().map(|(k, (matrix, _))| {
            let buffer = region.reads.len() + k;
            (*matrix, Loc::Buffer { buffer, offset: 0 })
        });
        let body = compile_part(&region.body, &inputs, &outputs, self.target, Some(inside.collect()));
        let stride = |len: usize, moves: bool| if moves { len / region.rounds } else { 0 };
        let mut read_strides: Vec<usize> =
            region.reads.iter().map(|(v, cut)| stride(self.len(*v), *cut)).collect();
        read_strides.resize(num_reads, 0);
        let write_strides =
            region.writes.iter().map(|(v, _, summed)| stride(self.len(*v), !*summed)).collect();
        reads.extend(packed.iter().map(|(_, place)| *place));
        let writes = region.writes.iter().map(|(v, _, _)| self.store(*v)).collect();
        let kernel = RowLoop { body, rounds: region.rounds, read_strides, write_strides };
        self.push(Kernel::Loop(Box::new(kernel)), reads, writes);
    }
}
