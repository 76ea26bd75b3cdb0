//! Products whose result goes straight through a map run a few rows at a time, the map after each: the rows are still
//! in the second-level cache, and a result that nothing else reads never lies in memory as a whole.
//!
//! Both kernels compute what they would apart, to the bit. It refuses products that add to something, and maps that
//! read anything but rows of their own.

use super::{Adds, Kernel, Loc, Products, Step, Tail};
use crate::exec::scratch_len;
use crate::kernels::map::{MapProgram, Pattern};

/// Elements of a result from which on it does not stay in the second-level cache beside what else is read.
const MIN_LEN: usize = 3 << 17;
/// Elements of rows that run at a time: 384 KiB.
const CHUNK_LEN: usize = 96 << 10;
/// Rows of a chunk are a multiple of these, blocks of a product.
const ROWS: usize = 96;

/// Joins maps to the products that they follow. `lens` are those of blocks.
pub(super) fn join(steps: &mut Vec<Step>, lens: &mut Vec<usize>, num_threads: usize) {
    let mut idx = 0;
    while idx < steps.len() {
        let found = (0..steps[idx].reads.len()).find_map(|read| {
            let product = product_of(steps, lens, idx, read)?;
            Some((product, read))
        });
        if let Some((product, read)) = found {
            let step = joined(steps, product, idx, read);
            let len = scratch_len(&step.kernel, num_threads);
            lens.push(len);
            let scratch = Some((Loc::Arena { base: lens.len() - 1, offset: 0 }, len));
            steps[idx] = Step { scratch, ..step };
            steps.remove(product);
        } else {
            idx += 1;
        }
    }
}

/// The step of the product that makes operand `read` of map `idx`, if the two can be joined.
fn product_of(steps: &[Step], lens: &[usize], idx: usize, read: usize) -> Option<usize> {
    let Kernel::Map { program, len } = &steps[idx].kernel else { return None };
    let Loc::Arena { base, offset: 0 } = steps[idx].reads[read] else { return None };
    let in_block = |loc: &Loc| matches!(loc, Loc::Arena { base: b, .. } if *b == base);
    if *len < MIN_LEN || lens[base] != *len || program.patterns[read] != Pattern::Full {
        return None;
    }
    let product = steps[..idx].iter().position(|step| step.writes.iter().any(in_block))?;
    let Kernel::Gemm(Products {
        batch: 1, dims, ta: false, adds: Adds::Never, symmetric: false, halves, ..
    }) = steps[product].kernel
    else {
        return None;
    };
    let by_row = |pattern: &Pattern| match pattern {
        Pattern::Full | Pattern::Scalar => true,
        Pattern::Last { n } => dims.n.is_multiple_of(*n),
        Pattern::Row { .. } | Pattern::Strided(_) => false,
    };
    let is_in_arena = |loc: &Loc| matches!(loc, Loc::Arena { .. });
    let reads_apart = steps[idx].reads.iter().filter(|loc| in_block(loc)).count() == 1;
    let fits = dims.m * dims.n == *len && dims.m >= 2 * ROWS && !halves[1] && reads_apart;
    let between = &steps[product + 1..idx];
    let is_free = between.iter().all(|step| {
        let overwrites =
            |loc: &Loc| matches!(loc, Loc::Buffer { .. }) && is_same_buffer(loc, &steps[product]);
        !step.reads.iter().chain(&step.writes).any(in_block) && !step.writes.iter().any(overwrites)
    });
    let writes_once = steps[idx..].iter().all(|step| !step.writes.iter().any(in_block));
    let can = fits
        && is_free
        && writes_once
        && program.patterns.iter().all(by_row)
        && steps[idx].writes.iter().all(is_in_arena);
    can.then_some(product)
}

fn is_same_buffer(loc: &Loc, step: &Step) -> bool {
    let buffer = |loc: &Loc| match loc {
        Loc::Buffer { buffer, .. } => Some(*buffer),
        Loc::Arena { .. } | Loc::Kept { .. } => None,
    };
    step.reads.iter().any(|read| buffer(read).is_some() && buffer(read) == buffer(loc))
}

/// One step of both.
fn joined(steps: &[Step], product: usize, map: usize, read: usize) -> Step {
    let (Kernel::Gemm(products), Kernel::Map { program, .. }) = (&steps[product].kernel, &steps[map].kernel)
    else {
        unreachable!("found as such")
    };
    let result = steps[product].writes[0];
    let is_kept = steps[map + 1..].iter().any(|step| step.reads.iter().any(|loc| same_block(*loc, result)));
    let mut reads = steps[product].reads.clone();
    reads.extend(steps[map].reads.iter().enumerate().filter(|(k, _)| *k != read).map(|(_, loc)| *loc));
    let mut writes = if is_kept { vec![result] } else { Vec::new() };
    writes.extend(&steps[map].writes);
    let rows = (CHUNK_LEN / products.dims.n / ROWS).max(1) * ROWS;
    let program: MapProgram = program.clone();
    let kernel = Kernel::Mapped(Box::new(Tail { products: *products, program, read, rows, is_kept }));
    Step { kernel, reads, writes, scratch: None }
}

fn same_block(a: Loc, b: Loc) -> bool {
    matches!((a, b), (Loc::Arena { base: a, .. }, Loc::Arena { base: b, .. }) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Precision;
    use crate::plan::{Output, Plan};
    use crate::{Buffer, Engine, Program};
    use pawl_graph::{Binary, DType, Graph, InputKind, Op, Unary, ValueId};

    /// x^T (relu(x w^T + bias) gate), with the sum transposed where `keeps`. What is a result of the program lies in a
    /// buffer, so that the map that makes it runs apart.
    fn program(m: usize, n: usize, keeps: bool, apart: bool) -> (Graph, Vec<ValueId>) {
        let k = 48;
        let mut graph = Graph::new();
        let mut input = |name: &str, shape: &[usize]| graph.input(name, InputKind::Param, shape, DType::F32);
        let (x, w, bias) = (input("x", &[m, k]), input("w", &[n, k]), input("bias", &[n]));
        let gate = input("gate", &[m, n]);
        let product = graph.add(Op::Matmul { ta: false, tb: true }, &[x, w]).unwrap();
        let sum = graph.add(Op::Binary(Binary::Add), &[product, bias]).unwrap();
        let relu = graph.add(Op::Unary(Unary::Relu), &[sum]).unwrap();
        let gated = graph.add(Op::Binary(Binary::Mul), &[relu, gate]).unwrap();
        let mut outputs = vec![graph.add(Op::Matmul { ta: true, tb: false }, &[x, gated]).unwrap()];
        if keeps {
            outputs.push(graph.add(Op::Transpose { perm: vec![1, 0] }, &[sum]).unwrap());
        }
        outputs.extend(apart.then_some(gated));
        (graph, outputs)
    }

    fn run(
        (m, n): (usize, usize),
        keeps: bool,
        apart: bool,
        precision: Precision,
        num_threads: usize,
    ) -> Vec<Vec<u32>> {
        let (graph, values) = program(m, n, keeps, apart);
        let engine = Engine::new(num_threads);
        let place =
            |(k, value): (usize, &ValueId)| Output { value: *value, buffer: 4 + k, accumulate: false };
        let outputs: Vec<Output> = values.iter().enumerate().map(place).collect();
        let target = engine.target(precision, false);
        let plan = Plan::compile(&graph, &[0, 1, 2, 3], &outputs, target);
        let tails = plan.steps.iter().filter(|step| matches!(step.kernel, Kernel::Mapped(_)));
        assert_eq!(tails.count(), usize::from(!apart));
        let mut compiled = Program::with_target(&graph, &[0, 1, 2, 3], &outputs, target);
        let len = |value: &ValueId| graph.values[value.idx()].len();
        let mut lens: Vec<usize> = graph.inputs.iter().map(|input| len(&input.value)).collect();
        lens.extend(values.iter().map(len));
        let mut buffers: Vec<Buffer> = lens.into_iter().map(Buffer::zeros).collect();
        for (k, buffer) in buffers[..4].iter_mut().enumerate() {
            let number = |i: usize| ((i * 31 + k * 7) % 61) as f32 / 30.0 - 1.0;
            buffer.floats_mut().iter_mut().enumerate().for_each(|(i, x)| *x = number(i));
        }
        compiled.run(&engine, &mut buffers, 0);
        let results = &buffers[4..buffers.len() - usize::from(apart)];
        results.iter().map(|b| b.floats().iter().map(|x| x.to_bits()).collect()).collect()
    }

    #[test]
    fn a_map_run_with_its_product_has_the_bits_of_both_apart() {
        for (keeps, precision) in [false, true]
            .into_iter()
            .flat_map(|keeps| [Precision::F32, Precision::Bf16].map(|precision| (keeps, precision)))
        {
            let shape = (2 * ROWS + 40, MIN_LEN / (2 * ROWS) + 8);
            let apart = run(shape, keeps, true, precision, 1);
            assert!(apart.iter().all(|result| result.iter().any(|x| *x != 0)));
            for num_threads in 1..=3 {
                let together = run(shape, keeps, false, precision, num_threads);
                assert!(together == apart, "{precision:?} {num_threads}");
            }
        }
    }

    #[test]
    fn a_last_chunk_that_needs_more_scratch_than_the_others_has_it() {
        for shape in [(16_384, 32), (9_984, 40)] {
            for precision in [Precision::F32, Precision::Bf16] {
                let apart = run(shape, false, true, precision, 1);
                for num_threads in [1, 4] {
                    let together = run(shape, false, false, precision, num_threads);
                    assert!(together == apart, "{shape:?} {precision:?} {num_threads}");
                }
            }
        }
    }
}
