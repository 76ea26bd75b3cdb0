//! Which values are stored rounded to bfloat16, two elements in four bytes, because products read them: rounded once by
//! the kernel that makes them instead of by every product, and half as long in memory.
//!
//! Products round what they read anyway, so no bit of a result changes. It refuses values of kernels that cannot
//! store halves, and rows of an odd length.

use super::Target;
use super::fuse::{Fusion, is_elementwise, root};
use super::group::MAX_ROW;
use crate::kernels::gemm::reads_halves;
use pawl_graph::{DType, Graph, Instr, Op, ValueId};

/// How a value lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Floats,
    Halves,
    /// In floats for some readers, in halves for products.
    Both,
}

/// Products that must read a value for halves beside its floats: one of them rounds as fast by itself.
const MIN_PRODUCTS: usize = 2;

/// How each value is stored.
pub(super) struct Halves(Vec<Stored>);

impl Halves {
    /// Decides for the needed instructions; `keep` are values that must be stored in floats, `outside` marks
    /// instructions of loops over rows.
    pub(super) fn decide(
        graph: &Graph,
        needed: &[bool],
        fusion: &Fusion<'_>,
        keep: &[ValueId],
        outside: &[bool],
        target: Target,
    ) -> Halves {
        let mut stored = vec![Stored::Floats; graph.values.len()];
        if !reads_halves(target.isa, target.precision) {
            return Halves(stored);
        }
        let mut kept = vec![false; graph.values.len()];
        keep.iter().for_each(|value| kept[root(graph, *value).idx()] = true);
        for idx in (0..graph.instrs.len()).filter(|idx| needed[*idx] && !outside[*idx]) {
            for value in graph.instrs[idx].outputs.iter().copied() {
                let Some(maker) = maker(graph, fusion, idx, value) else { continue };
                let readers = &fusion.consumers[value.idx()];
                let reads = |reader: &&usize| {
                    !outside[**reader] && takes_halves(graph, &graph.instrs[**reader], &fusion.symmetric)
                };
                let products = readers.iter().filter(reads).count();
                let others = kept[value.idx()] || products < readers.len();
                stored[value.idx()] = match (products, maker) {
                    (0, _) => Stored::Floats,
                    (_, Maker::Any | Maker::Either) if !others => Stored::Halves,
                    (MIN_PRODUCTS.., Maker::Any | Maker::FloatsToo) => Stored::Both,
                    (_, Maker::Any | Maker::FloatsToo | Maker::Either) => Stored::Floats,
                };
            }
        }
        Halves(stored)
    }

    pub(super) fn of(&self, value: ValueId) -> Stored {
        self.0[value.idx()]
    }
}

/// What kernels can do that store halves.
enum Maker {
    /// Floats, halves or both.
    Any,
    /// Floats or halves.
    Either,
    /// Floats, and halves beside them.
    FloatsToo,
}

/// Of a result of an instruction, none where its kernel stores floats alone.
fn maker(graph: &Graph, fusion: &Fusion<'_>, idx: usize, out: ValueId) -> Option<Maker> {
    let instr = &graph.instrs[idx];
    let width = graph.shape(out).last().copied().unwrap_or(1);
    let is_even = width.is_multiple_of(2) && graph.dtype(out) == DType::F32;
    if !is_even || fusion.is_transparent(idx) || fusion.epilogues.contains_key(&idx) {
        return None;
    }
    match instr.op {
        _ if is_elementwise(graph, idx) => Some(Maker::Any),
        Op::RmsNorm { .. } | Op::RmsNormBackward | Op::Rope { .. } => {
            (width <= MAX_ROW).then_some(Maker::Any)
        }
        Op::CrossEntropyBackward => Some(Maker::Either),
        Op::Attention { .. } | Op::AttentionBackward { .. } => Some(Maker::FloatsToo),
        _ => None,
    }
}

/// Whether an instruction is a product that reads operands in halves: one product, not a batch.
pub(super) fn takes_halves(graph: &Graph, instr: &Instr, symmetric: &[bool]) -> bool {
    let Op::Matmul { ta, .. } = instr.op else { return false };
    let (out, b) = (graph.shape(instr.outputs[0]), graph.shape(instr.inputs[1]));
    let is_single = b.len() == 2 && !ta || out[..out.len() - 2].iter().all(|n| *n == 1);
    is_single && !symmetric[instr.outputs[0].idx()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Isa, Precision};
    use crate::plan::{Kernel, Output, Plan};
    use pawl_graph::{Binary, InputKind, Unary};

    /// The products of two layers on x (32, 8) with the gradient of the first weight, in bfloat16.
    fn products(isa: Isa) -> Vec<[bool; 2]> {
        let mut graph = Graph::new();
        let mut input = |name: &str, shape: &[usize]| graph.input(name, InputKind::Param, shape, DType::F32);
        let (x, up, down) = (input("x", &[32, 8]), input("up", &[16, 8]), input("down", &[8, 16]));
        let (by, across) = (Op::Matmul { ta: false, tb: true }, Op::Matmul { ta: true, tb: false });
        let norm = graph.add_all(Op::RmsNorm { eps: 1e-6 }, &[x]).unwrap()[0];
        let hidden = graph.add(by.clone(), &[norm, up]).unwrap();
        let hidden = graph.add(Op::Unary(Unary::Relu), &[hidden]).unwrap();
        let out = graph.add(by, &[hidden, down]).unwrap();
        let out = graph.add(Op::Binary(Binary::Mul), &[out, x]).unwrap();
        let grad = graph.add(across, &[out, norm]).unwrap();
        let output = |value, buffer| Output { value, buffer, accumulate: false };
        let outputs = [output(out, 3), output(grad, 4)];
        let target = Target { num_threads: 1, isa, precision: Precision::Bf16, repeats: false };
        let plan = Plan::compile(&graph, &[0, 1, 2], &outputs, target);
        let halves = plan.steps.iter().filter_map(|step| match &step.kernel {
            Kernel::Gemm(products) => Some(products.halves),
            _ => None,
        });
        halves.collect()
    }

    #[test]
    fn what_products_alone_read_is_stored_in_halves() {
        let isa = Isa::detect();
        let reads = reads_halves(isa, Precision::Bf16);
        // The norm and the activation, but not a result of the program.
        assert_eq!(products(isa), [[reads, false], [reads, false], [false, reads]]);
        assert_eq!(products(Isa::Portable), [[false; 2]; 3]);
    }
}
