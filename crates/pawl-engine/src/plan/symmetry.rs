//! Which values are symmetric matrices by how they are made, to the bit: half of their elements need no
//! computation.
//!
//! Products qualify because multiplication commutes and element (i, j) of A A^T is the same chain of additions as
//! element (j, i).

use super::fuse::root;
use pawl_graph::{Graph, Op, ValueId};

/// By value.
pub(super) fn symmetric_values(graph: &Graph) -> Vec<bool> {
    let mut symmetric = vec![false; graph.values.len()];
    for instr in &graph.instrs {
        let out = instr.outputs[0];
        let shape = graph.shape(out);
        let [.., rows, cols] = *shape else { continue };
        let inputs = &instr.inputs;
        symmetric[out.idx()] = rows == cols
            && match &instr.op {
                Op::Matmul { ta, tb } => {
                    let same = root(graph, inputs[0]) == root(graph, inputs[1])
                        && graph.shape(inputs[0]) == graph.shape(inputs[1]);
                    same && (ta != tb || symmetric[inputs[0].idx()])
                }
                Op::Unary(_) | Op::Binary(_) | Op::Detach | Op::Expand { .. } | Op::Reshape { .. } => {
                    inputs.iter().all(|v| {
                        is_uniform(graph, *v)
                            || symmetric[v.idx()] && graph.shape(*v).ends_with(&[rows, cols])
                    })
                }
                _ => false,
            };
    }
    symmetric
}

/// Whether a value is one number for each matrix that it is broadcast to.
fn is_uniform(graph: &Graph, value: ValueId) -> bool {
    let shape = graph.shape(value);
    graph.values[value.idx()].len() == 1 || shape.len() >= 2 && shape[shape.len() - 2..] == [1, 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use pawl_graph::{Binary, DType, InputKind};

    #[test]
    fn grams_and_what_is_made_of_them_are_symmetric() {
        let mut graph = Graph::new();
        let x = graph.input("x", InputKind::Param, &[4, 6], DType::F32);
        let y = graph.input("y", InputKind::Param, &[4, 6], DType::F32);
        let rows = graph.input("rows", InputKind::Param, &[4, 1], DType::F32);
        let mut product = |a, b, ta, tb| graph.add(Op::Matmul { ta, tb }, &[a, b]).unwrap();
        let gram = product(x, x, false, true);
        let square = product(gram, gram, false, false);
        let plain = product(x, y, false, true);
        let wide = product(x, x, true, false);
        let two = graph.constant(2.0);
        let sum = graph.add(Op::Binary(Binary::Add), &[gram, square]).unwrap();
        let scaled = graph.add(Op::Binary(Binary::Mul), &[sum, two]).unwrap();
        let by_row = graph.add(Op::Binary(Binary::Mul), &[sum, rows]).unwrap();
        let mixed = graph.add(Op::Binary(Binary::Add), &[gram, plain]).unwrap();
        let of_mixed = graph.add(Op::Matmul { ta: false, tb: false }, &[mixed, mixed]).unwrap();
        let found = symmetric_values(&graph);
        assert!([gram, square, wide, sum, scaled].iter().all(|v| found[v.idx()]));
        assert!([x, plain, by_row, mixed, of_mixed].iter().all(|v| !found[v.idx()]));
    }
}
