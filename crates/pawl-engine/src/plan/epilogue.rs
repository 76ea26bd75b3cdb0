//! Which products add something to their result as they store it: a bias, or a tensor of the result's shape. The
//! product then runs where the addition would, so whatever is added has been computed by then.
//!
//! It refuses what is evaluated inside its consumer, and products that have kernels of another kind: batches and
//! symmetric ones.

use super::fuse::{broadcast_pattern, root};
use crate::kernels::map::Pattern;
use pawl_graph::{Binary, DType, Graph, Op, ValueId};

/// Instructions between a product and the addition: its operands lie in memory all the while.
const MAX_DISTANCE: usize = 96;

/// What a product adds, by the instruction of the addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epilogue {
    /// The instruction of the product.
    pub(super) product: usize,
    /// What is added, as stored.
    pub(super) addend: ValueId,
    /// Elements from one of its rows to the next; 0 adds one row to all.
    pub(super) row: usize,
}

/// What makes instruction `idx`, where it is an addition, part of a product. `may_run` tells products that are read by
/// it alone and `is_stored` values that lie in memory.
pub(super) fn find(
    graph: &Graph,
    idx: usize,
    may_run: impl Fn(usize) -> bool,
    is_stored: impl Fn(ValueId) -> bool,
) -> Option<Epilogue> {
    let instr = &graph.instrs[idx];
    let out = instr.outputs[0];
    if instr.op != Op::Binary(Binary::Add) || graph.dtype(out) != DType::F32 {
        return None;
    }
    let [a, b] = [instr.inputs[0], instr.inputs[1]];
    let found = [(a, b), (b, a)].into_iter().filter_map(|(value, other)| {
        let value = root(graph, value);
        let product = graph.values[value.idx()].instr;
        let is_near = idx - product <= MAX_DISTANCE && may_run(product);
        if graph.values[value.idx()].len() != graph.values[out.idx()].len() || !is_near {
            return None;
        }
        let (addend, row) = addend(graph, other, graph.shape(out), columns(graph, product)?)?;
        (addend != value && is_stored(addend)).then_some(Epilogue { product, addend, row })
    });
    // Of two products the later adds the earlier.
    found.max_by_key(|epilogue| epilogue.product)
}

/// The columns of a single product.
fn columns(graph: &Graph, idx: usize) -> Option<usize> {
    let instr = &graph.instrs[idx];
    let Op::Matmul { ta, .. } = instr.op else { return None };
    let (out, b) = (graph.shape(instr.outputs[0]), graph.shape(instr.inputs[1]));
    let is_single = b.len() == 2 && !ta || out[..out.len() - 2].iter().all(|n| *n == 1);
    is_single.then(|| out[out.len() - 1])
}

/// Where rows of `n` to be added to a value of shape `out` lie, and from one to the next.
fn addend(graph: &Graph, value: ValueId, out: &[usize], n: usize) -> Option<(ValueId, usize)> {
    let stored = root(graph, value);
    let instr = graph.producer(stored);
    let len = |value: ValueId| graph.values[value.idx()].len();
    match (&instr.op, broadcast_pattern(out, graph.shape(value))) {
        (Op::Expand { shape }, Pattern::Full) => {
            let whole = broadcast_pattern(shape, graph.shape(instr.inputs[0]));
            let source = root(graph, instr.inputs[0]);
            match whole {
                Pattern::Last { n: last } if last == n && len(source) == n => Some((source, 0)),
                _ => None,
            }
        }
        (_, Pattern::Full) => Some((stored, n)),
        (_, Pattern::Last { n: last }) if last == n => Some((stored, 0)),
        _ => None,
    }
}
