//! Values that are cheap to compute again from what is kept anyway are not kept: where a reader comes long after the
//! others, as the backward pass after the forward pass, it reads a copy computed just before it.
//!
//! Elementwise operations, norms and rotations cost about the reads and writes of their tensors, which a tensor that
//! waits in memory costs too; what waits also makes the arena longer. The same operation gives the same bits. It
//! refuses to repeat products, attention and sums.

use super::fuse::{is_elementwise, root};
use pawl_graph::{Graph, InputKind, Op, ValueId};
use std::collections::BTreeMap;

/// Instructions between a value and a reader that is far: further than from one end of a layer to the other.
const FAR: usize = 48;
/// Elements from which on a value is worth it: fewer stay in the caches.
const MIN_LEN: usize = 1 << 12;
/// Operations in a row that are repeated.
const MAX_DEPTH: usize = 4;

/// The same program with such readers on copies, and where each old value went.
pub(super) fn recompute(graph: &Graph, outputs: &[ValueId]) -> (Graph, Vec<Option<ValueId>>) {
    let mut rewriter = Rewriter {
        graph,
        last_read: last_reads(graph, outputs),
        made: Graph::new(),
        to: vec![None; graph.values.len()],
        copies: BTreeMap::new(),
    };
    let needed = graph.needed(outputs);
    for (idx, needed) in needed.into_iter().enumerate() {
        rewriter.instr(idx, needed);
    }
    (rewriter.made, rewriter.to)
}

/// The last instruction that reads each value, moves of shape seen through; results are read at the end.
fn last_reads(graph: &Graph, outputs: &[ValueId]) -> Vec<usize> {
    let mut last = vec![0; graph.values.len()];
    let needed = graph.needed(outputs);
    for (idx, instr) in graph.instrs.iter().enumerate().filter(|(idx, _)| needed[*idx]) {
        if !is_move(&instr.op) {
            instr.inputs.iter().for_each(|input| last[root(graph, *input).idx()] = idx);
        }
    }
    outputs.iter().for_each(|output| last[root(graph, *output).idx()] = usize::MAX);
    last
}

fn is_move(op: &Op) -> bool {
    matches!(op, Op::Reshape { .. } | Op::Detach)
}

struct Rewriter<'a> {
    graph: &'a Graph,
    last_read: Vec<usize>,
    made: Graph,
    to: Vec<Option<ValueId>>,
    /// Of values that far readers read, by old value.
    copies: BTreeMap<ValueId, ValueId>,
}

impl Rewriter<'_> {
    fn instr(&mut self, idx: usize, needed: bool) {
        let graph = self.graph;
        let instr = &graph.instrs[idx];
        if let Op::Input(input) = instr.op {
            let input = &graph.inputs[input];
            let kind: InputKind = input.kind.clone();
            let value =
                self.made.input(&input.name, kind, graph.shape(input.value), graph.dtype(input.value));
            self.to[input.value.idx()] = Some(value);
            return;
        }
        if !needed {
            return;
        }
        let mut inputs = Vec::new();
        for input in &instr.inputs {
            let reads_copy = !is_move(&instr.op) && self.is_far(root(graph, *input), idx);
            inputs.push(if reads_copy { self.copy(*input, idx, 0) } else { self.known(*input) });
        }
        let made = self.add(&instr.op, &inputs);
        for (old, new) in instr.outputs.iter().zip(made) {
            self.to[old.idx()] = Some(new);
        }
    }

    fn known(&self, value: ValueId) -> ValueId {
        self.to[value.idx()].expect("instructions are in order")
    }

    fn add(&mut self, op: &Op, inputs: &[ValueId]) -> Vec<ValueId> {
        self.made.add_all(op.clone(), inputs).expect("the shapes were checked when first built")
    }

    /// Whether instruction `idx` reads a copy of a value.
    fn is_far(&self, value: ValueId, idx: usize) -> bool {
        let made_at = self.graph.values[value.idx()].instr;
        idx - made_at > FAR && self.last_read[value.idx()] != usize::MAX && self.is_cheap(value, idx, 0)
    }

    /// Whether a value can be computed again before instruction `idx` from what is still needed then, as the
    /// `depth`-th operation in a row.
    fn is_cheap(&self, value: ValueId, idx: usize, depth: usize) -> bool {
        let graph = self.graph;
        let instr_idx = graph.values[value.idx()].instr;
        let instr = &graph.instrs[instr_idx];
        let can_repeat = match instr.op {
            Op::RmsNorm { .. } => instr.outputs[0] == value,
            Op::Rope { .. } => true,
            _ => is_elementwise(graph, instr_idx),
        };
        let is_large = graph.values[value.idx()].len() >= MIN_LEN;
        can_repeat
            && is_large
            && depth < MAX_DEPTH
            && instr.inputs.iter().all(|input| {
                let input = root(graph, *input);
                self.is_kept(input, idx, depth) || self.is_cheap(input, idx, depth + 1)
            })
    }

    /// Whether something at or after instruction `idx` needs a value that is not computed again; `depth` is that of
    /// the operation that reads it.
    fn is_kept(&self, value: ValueId, idx: usize, depth: usize) -> bool {
        let is_small = self.graph.values[value.idx()].len() < MIN_LEN;
        let (made_at, last) = (self.graph.values[value.idx()].instr, self.last_read[value.idx()]);
        let is_given =
            matches!(self.graph.producer(value).op, Op::Input(_) | Op::Const(_) | Op::Expand { .. });
        // A last reader that is far reads a copy, and does not keep the value itself.
        let keeps = || last == usize::MAX || last - made_at <= FAR || !self.is_cheap(value, last, depth + 1);
        is_small || is_given || last >= idx && keeps()
    }

    /// A copy of `value`, a move of one that is cheap at that depth, for instruction `idx`.
    fn copy(&mut self, value: ValueId, idx: usize, depth: usize) -> ValueId {
        if let Some(copy) = self.copies.get(&value) {
            return *copy;
        }
        let graph = self.graph;
        let instr = graph.producer(value);
        let inputs: Vec<ValueId> = instr
            .inputs
            .iter()
            .map(|input| {
                if is_move(&instr.op) {
                    self.copy(*input, idx, depth)
                } else if self.is_kept(root(graph, *input), idx, depth) {
                    self.known(*input)
                } else {
                    self.copy(*input, idx, depth + 1)
                }
            })
            .collect();
        let made = self.add(&instr.op, &inputs);
        let copy = made[graph.values[value.idx()].output_idx];
        self.copies.insert(value, copy);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pawl_graph::{Binary, DType, Unary};

    /// A norm of x, its square, sixty steps on, then a reader of both; and whether x is read after that.
    fn program(reads_x: bool) -> (Graph, Vec<ValueId>) {
        let mut graph = Graph::new();
        let x = graph.input("x", InputKind::Param, &[64, 64], DType::F32);
        let w = graph.input("w", InputKind::Param, &[64, 64], DType::F32);
        let product = Op::Matmul { ta: false, tb: false };
        let x = graph.add(product.clone(), &[x, w]).unwrap();
        let norm = graph.add_all(Op::RmsNorm { eps: 1e-6 }, &[x]).unwrap()[0];
        let square = graph.add(Op::Binary(Binary::Mul), &[norm, norm]).unwrap();
        let mut y = graph.add(product.clone(), &[square, w]).unwrap();
        for _ in 0..60 {
            y = graph.add(Op::Unary(Unary::Tanh), &[y]).unwrap();
        }
        let flat = graph.add(Op::Reshape { shape: vec![4096] }, &[square]).unwrap();
        let back = graph.add(Op::Reshape { shape: vec![64, 64] }, &[flat]).unwrap();
        y = graph.add(product.clone(), &[y, back]).unwrap();
        if reads_x {
            y = graph.add(product, &[y, x]).unwrap();
        }
        (graph, vec![y])
    }

    fn count(graph: &Graph, outputs: &[ValueId], op: fn(&Op) -> bool) -> usize {
        let needed = graph.needed(outputs);
        graph.instrs.iter().zip(needed).filter(|(instr, needed)| *needed && op(&instr.op)).count()
    }

    #[test]
    fn far_readers_compute_again_what_is_cheap_and_has_what_it_needs() {
        for (reads_x, norms) in [(true, 2), (false, 1)] {
            let (graph, outputs) = program(reads_x);
            let (made, to) = recompute(&graph, &outputs);
            let outputs = [to[outputs[0].idx()].unwrap()];
            assert_eq!(count(&made, &outputs, |op| matches!(op, Op::RmsNorm { .. })), norms);
            assert_eq!(count(&made, &outputs, |op| matches!(op, Op::Binary(_))), norms);
            assert_eq!(count(&made, &outputs, |op| matches!(op, Op::Unary(_))), 60);
            assert_eq!(made.shape(outputs[0]), [64, 64]);
        }
    }

    #[test]
    fn what_far_readers_compute_again_is_not_kept_for_another_copy() {
        let mut graph = Graph::new();
        let mut input = |name: &str| graph.input(name, InputKind::Param, &[64, 64], DType::F32);
        let (x, w) = (input("x"), input("w"));
        let product = Op::Matmul { ta: false, tb: false };
        let gate = graph.add(product.clone(), &[x, w]).unwrap();
        let up = graph.add(product.clone(), &[w, x]).unwrap();
        let opened = graph.add(Op::Unary(Unary::Sigmoid), &[gate]).unwrap();
        let hidden = graph.add(Op::Binary(Binary::Mul), &[opened, up]).unwrap();
        let mut y = graph.add(product.clone(), &[hidden, w]).unwrap();
        for _ in 0..60 {
            y = graph.add(Op::Unary(Unary::Tanh), &[y]).unwrap();
        }
        // As the backward pass: first of what comes last.
        for read in [hidden, opened, up, gate] {
            y = graph.add(product.clone(), &[y, read]).unwrap();
        }
        let (made, to) = recompute(&graph, &[y]);
        let outputs = [to[y.idx()].unwrap()];
        assert_eq!(count(&made, &outputs, |op| matches!(op, Op::Unary(Unary::Sigmoid))), 2);
        assert_eq!(count(&made, &outputs, |op| matches!(op, Op::Binary(_))), 2);
        assert_eq!(count(&made, &outputs, |op| matches!(op, Op::Matmul { .. })), 7);
        let last = last_reads(&made, &outputs)[to[opened.idx()].unwrap().idx()];
        assert!(last < FAR, "the gate is read at {last}");
    }
}
