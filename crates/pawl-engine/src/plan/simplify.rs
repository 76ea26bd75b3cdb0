//! Common subexpressions computed once: gradients and optimizers ask for the same thing many times.

use pawl_graph::{Graph, InputKind, Op, ValueId};
use std::collections::HashMap;

/// The same program with equal instructions merged, and where each old value went.
pub(super) fn merge_equal(graph: &Graph, outputs: &[ValueId]) -> (Graph, Vec<Option<ValueId>>) {
    let needed = graph.needed(outputs);
    let mut merged = Graph::new();
    let mut to: Vec<Option<ValueId>> = vec![None; graph.values.len()];
    let mut seen: HashMap<(String, Vec<ValueId>), Vec<ValueId>> = HashMap::new();
    for (instr, needed) in graph.instrs.iter().zip(needed) {
        if let Op::Input(idx) = instr.op {
            let input = &graph.inputs[idx];
            let kind: InputKind = input.kind.clone();
            let value = merged.input(&input.name, kind, graph.shape(input.value), graph.dtype(input.value));
            to[input.value.idx()] = Some(value);
            continue;
        }
        if !needed {
            continue;
        }
        let inputs: Vec<ValueId> =
            instr.inputs.iter().map(|v| to[v.idx()].expect("instructions are in order")).collect();
        let key = (format!("{:?}", instr.op), inputs);
        let outputs = seen.entry(key).or_insert_with_key(|(_, inputs)| {
            merged.add_all(instr.op.clone(), inputs).expect("the shapes were checked when first built")
        });
        for (old, new) in instr.outputs.iter().zip(outputs.iter()) {
            to[old.idx()] = Some(*new);
        }
    }
    (merged, to)
}
