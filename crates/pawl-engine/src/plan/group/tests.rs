//! Which values become one map, and which must not.

use super::*;
use pawl_graph::{Binary, DType, InputKind, Unary};

fn input(graph: &mut Graph, name: &str, shape: &[usize]) -> ValueId {
    graph.input(name, InputKind::Param, shape, DType::F32)
}

fn unary(graph: &mut Graph, op: Unary, x: ValueId) -> ValueId {
    graph.add(Op::Unary(op), &[x]).expect("any shape")
}

fn binary(graph: &mut Graph, op: Binary, a: ValueId, b: ValueId) -> ValueId {
    graph.add(Op::Binary(op), &[a, b]).expect("shapes that broadcast")
}

/// Values and stored values of each group.
fn groups(graph: &Graph, outputs: &[ValueId]) -> Vec<(Vec<ValueId>, Vec<ValueId>)> {
    find(graph, outputs).into_iter().map(|group| (group.values, group.stored)).collect()
}

fn find(graph: &Graph, outputs: &[ValueId]) -> Vec<Group> {
    let needed = graph.needed(outputs);
    let fusion = Fusion::decide(graph, &needed, outputs, &vec![false; graph.instrs.len()]);
    Groups::find(graph, &needed, &fusion, outputs, &[]).list
}

#[test]
fn values_that_feed_each_other_are_one_map_and_the_inner_ones_are_not_stored() {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[3, 4]);
    let e = unary(&mut g, Unary::Exp, x);
    let a = binary(&mut g, Binary::Mul, e, e);
    let b = unary(&mut g, Unary::Tanh, e);
    let both = groups(&g, &[a, b]);
    assert_eq!(both, [(vec![e, a, b], vec![a, b])]);
    // A broadcast of the exponential reads it from memory.
    let wide = g.add(Op::Expand { shape: vec![2, 3, 4] }, &[e]).expect("a broadcast");
    let all = groups(&g, &[a, b, wide]);
    assert_eq!(all, [(vec![e, a, b], vec![e, a, b])]);
}

#[test]
fn values_that_read_the_same_tensor_are_one_map() {
    let mut g = Graph::new();
    let (x, y) = (input(&mut g, "x", &[3, 4]), input(&mut g, "y", &[4]));
    let (a, b) = (unary(&mut g, Unary::Exp, x), unary(&mut g, Unary::Tanh, x));
    assert_eq!(groups(&g, &[a, b]), [(vec![a, b], vec![a, b])]);
    // A vector read by two tensors of other shapes is no reason.
    let z = input(&mut g, "z", &[3, 4]);
    let (c, d) = (binary(&mut g, Binary::Add, x, y), binary(&mut g, Binary::Add, z, y));
    assert_eq!(groups(&g, &[c, d]), []);
}

#[test]
fn what_something_outside_runs_between_is_not_merged() {
    let mut g = Graph::new();
    let (x, w) = (input(&mut g, "x", &[4, 4]), input(&mut g, "w", &[4, 4]));
    let e = unary(&mut g, Unary::Exp, x);
    let product = g.add(Op::Matmul { ta: false, tb: false }, &[e, w]).expect("square");
    let a = binary(&mut g, Binary::Mul, product, e);
    assert_eq!(groups(&g, &[a]), []);
}

#[test]
fn what_another_group_runs_between_is_not_merged() {
    let mut g = Graph::new();
    let [x, y, w] = ["x", "y", "w"].map(|name| input(&mut g, name, &[4, 4]));
    let product = |g: &mut Graph, a| g.add(Op::Matmul { ta: false, tb: false }, &[a, w]).expect("square");
    let first = unary(&mut g, Unary::Exp, x);
    let p = product(&mut g, first);
    let a = binary(&mut g, Binary::Mul, p, y);
    let b = unary(&mut g, Unary::Tanh, y);
    let q = product(&mut g, b);
    let last = binary(&mut g, Binary::Mul, q, x);
    // `first` and `last` both read x and neither waits for the other, but a waits for `first`, and `last` for b.
    assert_eq!(groups(&g, &[a, last]), [(vec![a, b], vec![a, b])]);
}

#[test]
fn no_group_is_larger_than_a_kernel_takes() {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[8]);
    let outputs: Vec<ValueId> = (0..40)
        .map(|k| {
            let shifted = g.constant(k as f32);
            let sum = binary(&mut g, Binary::Add, x, shifted);
            unary(&mut g, Unary::Exp, sum)
        })
        .collect();
    let found = groups(&g, &outputs);
    assert!(found.len() >= 5 && found.iter().all(|group| group.1.len() <= MAX_STORED));
    assert_eq!(found.iter().map(|group| group.0.len()).sum::<usize>(), 40);
}

fn reduce(graph: &mut Graph, x: ValueId) -> ValueId {
    let axis = graph.shape(x).len() - 1;
    graph.add(Op::Reduce { kind: pawl_graph::Reduction::Sum, axis }, &[x]).expect("has a last axis")
}

#[test]
fn a_norm_in_plain_tensor_code_is_one_program_over_rows() {
    let mut g = Graph::new();
    let (x, y) = (input(&mut g, "x", &[2, 3, 8]), input(&mut g, "y", &[2, 3, 8]));
    let sum = binary(&mut g, Binary::Add, x, y);
    let mean = reduce(&mut g, sum);
    let mean = g.scaled(mean, 0.125);
    let centred = binary(&mut g, Binary::Sub, sum, mean);
    let normed = g.add_all(Op::RmsNorm { eps: 1e-5 }, &[centred]).expect("rows");
    let scale = input(&mut g, "scale", &[8]);
    let out = binary(&mut g, Binary::Mul, normed[0], scale);
    let found = find(&g, &[out, normed[1]]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].form, Form::Rows { rows: 6, c: 8 });
    assert_eq!(found[0].stored, [normed[1], out]);
    assert!(found[0].values.contains(&normed[0]) && found[0].values.contains(&mean));
}

#[test]
fn numbers_of_rows_read_along_the_row_come_from_memory() {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[4, 4]);
    let e = unary(&mut g, Unary::Exp, x);
    let sum = reduce(&mut g, e);
    let vector = g.add(Op::Reshape { shape: vec![4] }, &[sum]).expect("four numbers");
    let out = binary(&mut g, Binary::Mul, e, vector);
    // Row r of the result reads the sums of all rows.
    assert!(
        find(&g, &[out]).iter().all(|group| !(group.values.contains(&out) && group.values.contains(&sum)))
    );
}

#[test]
fn rows_too_wide_or_of_one_element_keep_kernels_of_their_own() {
    for c in [1, MAX_ROW + 1] {
        let mut g = Graph::new();
        let x = input(&mut g, "x", &[4, c]);
        let e = unary(&mut g, Unary::Exp, x);
        let sum = reduce(&mut g, e);
        let out = binary(&mut g, Binary::Div, e, sum);
        assert!(find(&g, &[out]).iter().all(|group| matches!(group.form, Form::Flat { .. })), "{c}");
    }
}
