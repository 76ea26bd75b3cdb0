//! Finds the part of a program that is as wide as the vocabulary, from the product that makes logits to
//! the products that take their gradient, and cuts it out as a loop over chunks of rows: logits of all
//! positions never exist at once.

use super::fuse::root;
use crate::exec::MAX_LOOP_BUFFERS;
use pawl_graph::{DType, Graph, InputKind, Op, Reduction, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of one chunk of logits: two or three of them stay in the second-level caches.
const CHUNK_BYTES: usize = 2 << 20;
/// Rows of a chunk for which it may be larger: the head's weights are packed, and their gradient is read and
/// written, once a chunk, which at 64 rows costs a third of the products.
const CHUNK_ROWS: usize = 256;
/// The largest chunk even so.
const CHUNK_BYTES_MAX: usize = 8 << 20;
/// Fewest rows worth a product of their own.
const MIN_ROWS: usize = 16;

/// A part of the program to be run in rounds over rows.
pub(super) struct Region {
    /// Its instructions, by index in the whole program.
    pub(super) instrs: BTreeSet<usize>,
    /// The same instructions for one chunk of rows; inputs are `reads` in order.
    pub(super) body: Graph,
    /// What it reads from outside, and whether each is cut into chunks of rows.
    pub(super) reads: Vec<(ValueId, bool)>,
    /// What it gives: value outside, value in the body, and whether the rounds are summed.
    pub(super) writes: Vec<(ValueId, ValueId, bool)>,
    pub(super) rounds: usize,
}

/// All regions of the program, none for a program without cross-entropy.
pub(super) fn find(graph: &Graph, needed: &[bool], outputs: &[ValueId]) -> Vec<Region> {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.values.len()];
    for (idx, instr) in graph.instrs.iter().enumerate() {
        if needed[idx] {
            instr.inputs.iter().for_each(|v| readers[v.idx()].push(idx));
        }
    }
    let mut regions: Vec<Region> = Vec::new();
    for (idx, instr) in graph.instrs.iter().enumerate() {
        if needed[idx] && instr.op == Op::CrossEntropy {
            let grown = Grower::grow(graph, &readers, outputs, idx);
            if let Some(region) = grown
                && regions.iter().all(|r| r.instrs.is_disjoint(&region.instrs))
            {
                regions.push(region);
            }
        }
    }
    regions
}

struct Grower<'a> {
    graph: &'a Graph,
    readers: &'a [Vec<usize>],
    rows: usize,
    instrs: BTreeSet<usize>,
    /// Outputs that are sums over rows.
    summed: BTreeSet<usize>,
}

impl<'a> Grower<'a> {
    fn grow(
        graph: &'a Graph,
        readers: &'a [Vec<usize>],
        outputs: &[ValueId],
        start: usize,
    ) -> Option<Region> {
        let logits = graph.instrs[start].inputs[0];
        let rows = graph.shape(logits)[0];
        let wide = graph.values[logits.idx()].len();
        let rows_of = |bytes: usize| bytes / 4 * rows / wide;
        let chunk = rows_of(CHUNK_BYTES).max(CHUNK_ROWS.min(rows_of(CHUNK_BYTES_MAX))).max(1);
        let rows_per_round = (MIN_ROWS..=chunk.min(rows / 2)).rev().find(|r| rows.is_multiple_of(*r))?;
        let mut grower =
            Grower { graph, readers, rows, instrs: BTreeSet::from([start]), summed: BTreeSet::new() };
        grower.back(logits)?;
        grower.forward()?;
        grower.finish(outputs, rows_per_round)
    }

    fn width(&self, value: ValueId) -> Option<usize> {
        let len = self.graph.values[value.idx()].len();
        len.is_multiple_of(self.rows).then_some(len / self.rows)
    }

    /// Whether the last axis of the value is one row of it.
    fn has_rows(&self, value: ValueId) -> bool {
        let last = self.graph.shape(value).last().copied().unwrap_or(1);
        self.width(value) == Some(last)
    }

    /// Takes in the producers of a wide value, up to the product that makes it.
    fn back(&mut self, value: ValueId) -> Option<()> {
        let idx = self.graph.values[value.idx()].instr;
        if self.instrs.contains(&idx) {
            return Some(());
        }
        let instr = &self.graph.instrs[idx];
        match &instr.op {
            Op::Matmul { ta: false, .. } if self.is_row_product(idx) => {
                self.instrs.insert(idx);
                Some(())
            }
            _ if self.is_row_local(idx) => {
                self.instrs.insert(idx);
                let len = self.graph.values[value.idx()].len();
                for input in &instr.inputs {
                    let wide = self.graph.values[input.idx()].len() >= len;
                    if wide {
                        self.back(*input)?;
                    }
                }
                Some(())
            }
            _ => None,
        }
    }

    fn is_row_product(&self, idx: usize) -> bool {
        let instr = &self.graph.instrs[idx];
        self.graph.shape(instr.inputs[1]).len() == 2
            && self.has_rows(instr.inputs[0])
            && self.has_rows(instr.outputs[0])
    }

    /// An operation whose row r depends on row r of its operands alone.
    fn is_row_local(&self, idx: usize) -> bool {
        let instr = &self.graph.instrs[idx];
        let out = instr.outputs[0];
        match &instr.op {
            Op::Unary(_) | Op::Detach => true,
            Op::Reshape { .. } => self.has_rows(instr.inputs[0]) && self.has_rows(out),
            Op::Binary(_) => self.has_rows(out) && instr.inputs.iter().all(|v| self.side(out, *v).is_some()),
            Op::Slice { axis, .. } | Op::Pad { axis, .. } => {
                axis + 1 == self.graph.shape(out).len()
                    && self.has_rows(instr.inputs[0])
                    && self.has_rows(out)
            }
            Op::CrossEntropyBackward => true,
            _ => false,
        }
    }

    /// Whether an operand of an elementwise operation is cut into rows (true), whole (false), or neither.
    fn side(&self, out: ValueId, operand: ValueId) -> Option<bool> {
        let (out_len, len) = (self.graph.values[out.idx()].len(), self.graph.values[operand.idx()].len());
        let last = self.graph.shape(operand).last().copied().unwrap_or(1);
        if len == out_len {
            Some(true)
        } else if len == 1 || (len == last && self.width(out) == Some(last)) {
            Some(false)
        } else if len == self.rows && last == 1 {
            Some(true)
        } else {
            None
        }
    }

    /// Takes in whatever reads a wide value, down to the products that leave the region.
    fn forward(&mut self) -> Option<()> {
        let mut queue: Vec<usize> = self.instrs.iter().copied().collect();
        while let Some(idx) = queue.pop() {
            if self.leaves(idx) {
                continue;
            }
            for output in self.graph.instrs[idx].outputs.clone() {
                if self.width(output).is_none_or(|w| w <= 1) {
                    continue;
                }
                for reader in self.readers[output.idx()].clone() {
                    if !self.instrs.contains(&reader) {
                        self.take(reader, output)?;
                        queue.push(reader);
                    }
                }
            }
        }
        Some(())
    }

    /// Whether the outputs of an instruction of the region belong to the outside.
    fn leaves(&self, idx: usize) -> bool {
        let instr = &self.graph.instrs[idx];
        let reads_region =
            instr.inputs.iter().any(|v| self.instrs.contains(&self.graph.values[v.idx()].instr));
        match instr.op {
            Op::Matmul { .. } => reads_region,
            Op::Reduce { .. } => true,
            _ => false,
        }
    }

    fn take(&mut self, idx: usize, from: ValueId) -> Option<()> {
        let instr = &self.graph.instrs[idx];
        let is_rows = |v: ValueId| self.graph.shape(v).len() == 2 && self.graph.shape(v)[0] == self.rows;
        match &instr.op {
            Op::Matmul { ta: false, .. } if instr.inputs[0] == from && self.is_row_product(idx) => {}
            Op::Matmul { ta: true, tb: false } if is_rows(instr.inputs[0]) && is_rows(instr.inputs[1]) => {
                self.summed.insert(idx);
            }
            Op::Reduce { kind: Reduction::Sum, axis: 0 } if is_rows(instr.inputs[0]) => {
                self.summed.insert(idx);
            }
            _ if self.is_row_local(idx) => {}
            _ => return None,
        }
        self.instrs.insert(idx);
        Some(())
    }

    fn finish(self, outputs: &[ValueId], rows_per_round: usize) -> Option<Region> {
        let graph = self.graph;
        let mut region = Region {
            instrs: self.instrs.clone(),
            body: Graph::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            rounds: self.rows / rows_per_round,
        };
        let mut inside: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        for idx in &self.instrs {
            let instr = &graph.instrs[*idx];
            let mut inputs = Vec::new();
            for (k, input) in instr.inputs.iter().enumerate() {
                let value = match inside.get(input) {
                    Some(value) => *value,
                    None => {
                        let cut = self.is_cut(*idx, k)?;
                        region.read(graph, *input, cut, rows_per_round, self.rows, &mut inside)
                    }
                };
                inputs.push(value);
            }
            let op = self.chunk_op(*idx, rows_per_round)?;
            let made = region.body.add_all(op, &inputs).ok()?;
            for (output, value) in instr.outputs.iter().zip(made) {
                inside.insert(*output, value);
                let used = self.readers[output.idx()].iter().any(|r| !self.instrs.contains(r));
                if used || outputs.contains(output) {
                    let narrow = self.leaves(*idx) || self.width(*output) == Some(1);
                    if !narrow {
                        return None;
                    }
                    region.writes.push((*output, value, self.summed.contains(idx)));
                }
            }
        }
        let small = region.reads.len() + region.writes.len() <= MAX_LOOP_BUFFERS;
        (small && self.is_acyclic(&region)).then_some(region)
    }

    /// Whether operand k of an instruction is one chunk of rows.
    fn is_cut(&self, idx: usize, k: usize) -> Option<bool> {
        let instr = &self.graph.instrs[idx];
        match &instr.op {
            Op::Matmul { ta: true, .. } => Some(true),
            Op::Matmul { ta: false, .. } => Some(k == 0),
            Op::Binary(_) => self.side(instr.outputs[0], instr.inputs[k]),
            _ => Some(true),
        }
    }

    /// The operation on one chunk, all axes but the last merged into rows.
    fn chunk_op(&self, idx: usize, rows: usize) -> Option<Op> {
        let instr = &self.graph.instrs[idx];
        Some(match &instr.op {
            Op::Reshape { shape } => {
                Op::Reshape { shape: chunk_shape(shape, self.width(instr.outputs[0])?, rows) }
            }
            Op::Slice { start, len, .. } => Op::Slice { axis: 1, start: *start, len: *len },
            Op::Pad { before, after, .. } => Op::Pad { axis: 1, before: *before, after: *after },
            op => op.clone(),
        })
    }

    /// Whether nothing that the region reads is computed from what it gives.
    fn is_acyclic(&self, region: &Region) -> bool {
        let mut after: BTreeSet<ValueId> = region.writes.iter().map(|(v, _, _)| *v).collect();
        for (idx, instr) in self.graph.instrs.iter().enumerate() {
            if !self.instrs.contains(&idx) && instr.inputs.iter().any(|v| after.contains(v)) {
                after.extend(&instr.outputs);
            }
        }
        region.reads.iter().all(|(v, _)| !after.contains(v))
    }
}

fn chunk_shape(shape: &[usize], width: usize, rows: usize) -> Vec<usize> {
    if shape.len() == 1 && width == 1 { vec![rows] } else { vec![rows, width] }
}

impl Region {
    fn read(
        &mut self,
        graph: &Graph,
        value: ValueId,
        cut: bool,
        rows_per_round: usize,
        rows: usize,
        inside: &mut BTreeMap<ValueId, ValueId>,
    ) -> ValueId {
        if let Op::Const(number) = graph.producer(root(graph, value)).op {
            let constant = self.body.constant(number);
            inside.insert(value, constant);
            return constant;
        }
        let shape = if cut {
            chunk_shape(graph.shape(value), graph.values[value.idx()].len() / rows, rows_per_round)
        } else {
            graph.shape(value).to_vec()
        };
        let dtype: DType = graph.dtype(value);
        let leaf = self.body.input(&format!("r{}", self.reads.len()), InputKind::Param, &shape, dtype);
        self.reads.push((value, cut));
        inside.insert(value, leaf);
        leaf
    }
}
