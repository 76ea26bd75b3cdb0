//! Which operations have been met. A new one does not compile until it has a number here, and then is missed
//! until the generator grows it.

use pawl_graph::{Binary, DType, Graph, InputKind, Mask, Op, Reduction, Unary};

const NUM_WAYS: usize = 72;

/// Marks what has been met.
pub(super) struct Met([usize; NUM_WAYS]);

impl Met {
    pub(super) fn nothing() -> Met {
        Met([0; NUM_WAYS])
    }

    /// Counts the instructions that are needed.
    pub(super) fn add(&mut self, graph: &Graph, needed: &[bool]) {
        for (instr, _) in graph.instrs.iter().zip(needed).filter(|(_, needed)| **needed) {
            let ints = instr.inputs.first().is_some_and(|x| graph.dtype(*x) == DType::I32);
            self.0[way(graph, &instr.op, ints)] += 1;
        }
    }

    /// Numbers of what has not been met `times` times.
    pub(super) fn missing(&self, times: usize) -> Vec<usize> {
        (0..NUM_WAYS).filter(|way| self.0[*way] < times).collect()
    }
}

/// A number for each operation in each of its ways.
fn way(graph: &Graph, op: &Op, ints: bool) -> usize {
    match op {
        Op::Input(input) => match graph.inputs[*input].kind {
            InputKind::Tokens => 0,
            InputKind::Targets => 1,
            InputKind::Rng => 2,
            InputKind::Param | InputKind::Grad | InputKind::State | InputKind::Signal | InputKind::Scalar => {
                3
            }
        },
        Op::Const(_) => 4,
        Op::Iota { .. } => 5,
        Op::Unary(unary) => 6 + unary_way(*unary),
        Op::Binary(binary) => binary_way(*binary, ints),
        Op::Expand { .. } => 36 + usize::from(ints),
        Op::Reshape { .. } => 38 + usize::from(ints),
        Op::Transpose { .. } => 40 + usize::from(ints),
        Op::Slice { .. } => 42 + usize::from(ints),
        Op::Pad { .. } => 44 + usize::from(ints),
        Op::Concat { .. } => 46 + usize::from(ints),
        Op::Reduce { kind: Reduction::Sum, .. } => 48,
        Op::Reduce { kind: Reduction::Max, .. } => 49,
        Op::Matmul { ta: false, tb: false } => 50,
        Op::Matmul { ta: false, tb: true } => 51,
        Op::Matmul { ta: true, tb: false } => 52,
        Op::Matmul { ta: true, tb: true } => 53,
        Op::RmsNorm { .. } => 54,
        Op::RmsNormBackward => 55,
        Op::Softmax { mask: Mask::Full } => 56,
        Op::Softmax { mask: Mask::Causal { .. } } => 57,
        Op::SoftmaxBackward => 58,
        Op::Rope { inverse: false, .. } => 59,
        Op::Rope { inverse: true, .. } => 60,
        Op::Embedding => 61,
        Op::EmbeddingBackward { .. } => 62,
        Op::Attention { .. } => 63,
        Op::AttentionBackward { .. } => 64,
        Op::CrossEntropy => 65,
        Op::CrossEntropyBackward => 66,
        Op::Scan { reverse: false } => 67,
        Op::Scan { reverse: true } => 68,
        Op::TopK { .. } => 69,
        Op::Dropout { .. } => 70,
        Op::Detach => 71,
    }
}

fn unary_way(unary: Unary) -> usize {
    match unary {
        Unary::Neg => 0,
        Unary::Exp => 1,
        Unary::Log => 2,
        Unary::Sqrt => 3,
        Unary::Rsqrt => 4,
        Unary::Reciprocal => 5,
        Unary::Tanh => 6,
        Unary::Sigmoid => 7,
        Unary::Relu => 8,
        Unary::Erf => 9,
        Unary::Abs => 10,
        Unary::Sin => 11,
        Unary::Cos => 12,
        Unary::Floor => 13,
        Unary::ToFloat => 14,
    }
}

fn binary_way(binary: Binary, ints: bool) -> usize {
    match (binary, ints) {
        (Binary::Add, false) => 21,
        (Binary::Add, true) => 22,
        (Binary::Sub, false) => 23,
        (Binary::Sub, true) => 24,
        (Binary::Mul, false) => 25,
        (Binary::Mul, true) => 26,
        (Binary::Max, false) => 27,
        (Binary::Max, true) => 28,
        (Binary::Min, false) => 29,
        (Binary::Min, true) => 30,
        (Binary::Rem, _) => 31,
        (Binary::Div, _) => 32,
        (Binary::Pow, _) => 33,
        (Binary::Ge, _) => 34,
        // One made by a maximum's gradient is not one of a recipe, but the kernel is the same.
        (Binary::Eq, _) => 35,
    }
}
