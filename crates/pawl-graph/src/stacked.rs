//! The same program for several lanes at once: inputs that differ from lane to lane, and whatever depends on them, get
//! a first axis of lanes.
//!
//! It refuses programs in which an operation would mix lanes or count positions along an axis that moved.

use crate::graph::{Graph, ValueId};
use crate::op::{Mask, Op};

/// A program of several lanes.
#[derive(Clone, Debug)]
pub struct Stacked {
    /// It has the inputs of the program of one lane, in their order.
    pub graph: Graph,
    /// The values that were asked for, each with an axis of lanes.
    pub outputs: Vec<ValueId>,
}

impl Graph {
    /// What computes `outputs` for `lanes` lanes: input k is (lanes, ..) where `own[k]`, and otherwise the same for all.
    /// `None` where an operation takes no such axis.
    pub fn stacked(&self, outputs: &[ValueId], lanes: usize, own: &[bool]) -> Option<Stacked> {
        assert_eq!(own.len(), self.inputs.len(), "one answer for each input");
        let needed = self.needed(outputs);
        let mut stacking =
            Stacking { from: self, graph: Graph::new(), lanes, values: vec![None; self.values.len()] };
        for (idx, needed) in needed.into_iter().enumerate() {
            // Every input stays, so that the program has the operands of the other.
            if needed || matches!(self.instrs[idx].op, Op::Input(_)) {
                stacking.add(idx, own)?;
            }
        }
        let outputs = outputs.iter().map(|value| stacking.stack(*value)).collect::<Option<_>>()?;
        Some(Stacked { graph: stacking.graph, outputs })
    }
}

/// A value of the new program.
#[derive(Clone, Copy)]
struct Made {
    value: ValueId,
    /// Whether its first axis counts lanes.
    stacked: bool,
}

struct Stacking<'a> {
    from: &'a Graph,
    graph: Graph,
    lanes: usize,
    /// By value of the program of one lane.
    values: Vec<Option<Made>>,
}

impl Stacking<'_> {
    fn made(&self, value: ValueId) -> Made {
        self.values[value.idx()].expect("operands come before what reads them")
    }

    fn with_lanes(&self, shape: &[usize]) -> Vec<usize> {
        std::iter::once(self.lanes).chain(shape.iter().copied()).collect()
    }

    fn push(&mut self, op: Op, inputs: &[ValueId]) -> Option<ValueId> {
        self.graph.add(op, inputs).ok()
    }

    /// The value with an axis of lanes, repeated along it if need be.
    fn stack(&mut self, value: ValueId) -> Option<ValueId> {
        let made = self.made(value);
        if made.stacked {
            return Some(made.value);
        }
        let shape = self.with_lanes(self.from.shape(value));
        self.push(Op::Expand { shape }, &[made.value])
    }

    /// The value ready to be broadcast to `rank` axes behind the lanes.
    fn aligned(&mut self, value: ValueId, rank: usize) -> Option<ValueId> {
        let (made, shape) = (self.made(value), self.from.shape(value));
        if !made.stacked || shape.len() == rank {
            return Some(made.value);
        }
        let mut aligned = vec![1; rank - shape.len()];
        aligned.extend(shape);
        let shape = self.with_lanes(&aligned);
        self.push(Op::Reshape { shape }, &[made.value])
    }

    /// Appends the instruction `idx`.
    fn add(&mut self, idx: usize, own: &[bool]) -> Option<()> {
        let instr = &self.from.instrs[idx];
        self.graph.set_origin(&instr.origin);
        let out = instr.outputs[0];
        if let Op::Input(input) = instr.op {
            let (shape, declared) = (self.from.shape(out), &self.from.inputs[input]);
            let shape = if own[input] { self.with_lanes(shape) } else { shape.to_vec() };
            let value = self.graph.input(&declared.name, declared.kind.clone(), &shape, self.from.dtype(out));
            self.values[out.idx()] = Some(Made { value, stacked: own[input] });
            return Some(());
        }
        let stacked = instr.inputs.iter().any(|value| self.made(*value).stacked);
        let made = if stacked {
            self.lifted(&instr.op, &instr.inputs, out)?
        } else {
            let inputs: Vec<ValueId> = instr.inputs.iter().map(|value| self.made(*value).value).collect();
            self.graph.add_all(instr.op.clone(), &inputs).ok()?
        };
        for (old, value) in instr.outputs.iter().zip(made) {
            self.values[old.idx()] = Some(Made { value, stacked });
        }
        Some(())
    }

    /// An operation of which an operand has an axis of lanes.
    fn lifted(&mut self, op: &Op, inputs: &[ValueId], out: ValueId) -> Option<Vec<ValueId>> {
        let rank = self.from.shape(out).len();
        let x = self.made(inputs[0]).value;
        let value = match op {
            Op::Unary(_)
            | Op::Detach
            | Op::TopK { .. }
            | Op::Softmax { mask: Mask::Full }
            | Op::RmsNorm { .. } => {
                return self.graph.add_all(op.clone(), &[x]).ok();
            }
            Op::Binary(_) => {
                let (a, b) = (self.aligned(inputs[0], rank)?, self.aligned(inputs[1], rank)?);
                self.push(op.clone(), &[a, b])
            }
            Op::Reshape { shape } => {
                let shape = self.with_lanes(shape);
                self.push(Op::Reshape { shape }, &[x])
            }
            Op::Expand { shape } => {
                let x = self.aligned(inputs[0], rank)?;
                let shape = self.with_lanes(shape);
                self.push(Op::Expand { shape }, &[x])
            }
            Op::Transpose { perm } => {
                let perm = std::iter::once(0).chain(perm.iter().map(|axis| axis + 1)).collect();
                self.push(Op::Transpose { perm }, &[x])
            }
            Op::Slice { axis, start, len } => {
                self.push(Op::Slice { axis: axis + 1, start: *start, len: *len }, &[x])
            }
            Op::Pad { axis, before, after } => {
                self.push(Op::Pad { axis: axis + 1, before: *before, after: *after }, &[x])
            }
            Op::Concat { axis } => {
                let all = inputs.iter().map(|value| self.stack(*value)).collect::<Option<Vec<_>>>()?;
                self.push(Op::Concat { axis: axis + 1 }, &all)
            }
            Op::Reduce { kind, axis } => self.push(Op::Reduce { kind: *kind, axis: axis + 1 }, &[x]),
            Op::Matmul { ta: false, tb } => self.rows_times_matrix(inputs, *tb, out),
            Op::Embedding if !self.made(inputs[0]).stacked => {
                let ids = self.made(inputs[1]).value;
                self.push(Op::Embedding, &[x, ids])
            }
            Op::Embedding
            | Op::Matmul { ta: true, .. }
            | Op::Softmax { mask: Mask::Causal { .. } }
            | Op::Input(_)
            | Op::Const(_)
            | Op::Iota { .. }
            | Op::RmsNormBackward
            | Op::SoftmaxBackward
            | Op::Rope { .. }
            | Op::EmbeddingBackward { .. }
            | Op::Attention { .. }
            | Op::AttentionBackward { .. }
            | Op::CrossEntropy
            | Op::CrossEntropyBackward
            | Op::Scan { .. }
            | Op::Dropout { .. } => None,
        };
        value.map(|value| vec![value])
    }

    /// Rows of all lanes times one matrix, which no lane has for itself.
    fn rows_times_matrix(&mut self, inputs: &[ValueId], tb: bool, out: ValueId) -> Option<ValueId> {
        let matrix = self.made(inputs[1]);
        // A few rows against columns that lie together, as a single one does, are summed in another order than many.
        let is_whole = matches!(self.from.shape(inputs[1]), [_, n] if *n > 1);
        if matrix.stacked || tb || !is_whole {
            return None;
        }
        let shape = self.from.shape(inputs[0]);
        let k = *shape.last()?;
        let rows = self.lanes * shape.iter().product::<usize>() / k;
        let x = self.made(inputs[0]).value;
        let x = self.push(Op::Reshape { shape: vec![rows, k] }, &[x])?;
        let y = self.push(Op::Matmul { ta: false, tb: false }, &[x, matrix.value])?;
        let shape = self.with_lanes(self.from.shape(out));
        self.push(Op::Reshape { shape }, &[y])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::InputKind;
    use crate::op::{Binary, DType, Reduction};

    #[test]
    fn what_differs_from_lane_to_lane_gets_a_first_axis() {
        let mut graph = Graph::new();
        let x = graph.input("x", InputKind::Param, &[1, 6], DType::F32);
        let scale = graph.input("scale", InputKind::Param, &[6], DType::F32);
        let bias = graph.input("bias", InputKind::Param, &[6], DType::F32);
        let half = graph.constant(0.5);
        let scaled = graph.add(Op::Binary(Binary::Mul), &[scale, half]).unwrap();
        let y = graph.add(Op::Binary(Binary::Mul), &[scaled, x]).unwrap();
        let y = graph.add(Op::Binary(Binary::Add), &[y, bias]).unwrap();
        let parts = graph.add(Op::Reshape { shape: vec![2, 3] }, &[y]).unwrap();
        let turned = graph.add(Op::Transpose { perm: vec![1, 0] }, &[parts]).unwrap();
        let sum = graph.add(Op::Reduce { kind: Reduction::Sum, axis: 0 }, &[turned]).unwrap();
        let stacked = graph.stacked(&[turned, sum, scaled], 4, &[true, false, true]).unwrap();
        let shapes = stacked.outputs.iter().map(|value| stacked.graph.shape(*value).to_vec());
        assert_eq!(shapes.collect::<Vec<_>>(), [vec![4, 3, 2], vec![4, 1, 2], vec![4, 6]]);
        assert_eq!(stacked.graph.shape(stacked.graph.inputs[1].value), [6]);
        assert_eq!(stacked.graph.shape(stacked.graph.inputs[2].value), [4, 6]);
    }

    #[test]
    fn a_matrix_of_each_lane_and_positions_that_moved_are_refused() {
        let mut graph = Graph::new();
        let x = graph.input("x", InputKind::Param, &[1, 6], DType::F32);
        let w = graph.input("w", InputKind::Param, &[6, 5], DType::F32);
        let column = graph.input("column", InputKind::Param, &[6, 1], DType::F32);
        let scores = graph.input("scores", InputKind::Param, &[5, 5], DType::F32);
        let product = Op::Matmul { ta: false, tb: false };
        let y = graph.add(product.clone(), &[x, w]).unwrap();
        let z = graph.add(product, &[x, column]).unwrap();
        let mask = Mask::Causal { window: 3 };
        let seen = graph.add(Op::Softmax { mask }, &[scores]).unwrap();
        for (value, own, fits) in [
            (y, [true, false, false, false], true),
            (y, [true, true, false, false], false),
            (z, [true, false, false, false], false),
            (seen, [false, false, false, false], true),
            (seen, [false, false, false, true], false),
        ] {
            assert_eq!(graph.stacked(&[value], 2, &own).is_some(), fits, "{}", graph.describe(value));
        }
    }
}
