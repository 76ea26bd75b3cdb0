//! Compiled programs, loss and gradients, against the definition in float64, and their bits for any
//! number of threads and instruction set.

use crate::cases::{Case, all};
use crate::counting::allocated;
use pawl_engine::reference::{Leaves, Tensor, leaf, run};
use pawl_engine::{Buffer, Engine, Isa, Output, Plan, Precision, Program};
use pawl_graph::{Binary, DType, Graph, InputKind, Op, Unary};

/// Relative to the largest element of a tensor, or to 1. Worst observed: 2.2e-6 (the chain of an MLP).
const TOLERANCE: f64 = 5e-6;

/// The numbers of one leaf.
pub(crate) fn bind(case: &Case, input: usize) -> Buffer {
    let input = &case.graph.inputs[input];
    let mut buffer = Buffer::zeros(case.graph.values[input.value.idx()].len());
    match &case.leaves[&leaf(&input.kind, &input.name)] {
        Tensor::Real(x) => buffer.floats_mut().iter_mut().zip(x).for_each(|(b, x)| *b = *x as f32),
        Tensor::Int(x) => buffer.ints_mut().copy_from_slice(x),
    }
    buffer
}

/// Compiles loss and gradients and binds the case's leaves.
pub(crate) fn compile(
    case: &Case,
    outputs: &[pawl_graph::ValueId],
    engine: &Engine,
    precision: Precision,
    accumulate: bool,
) -> (Program, Vec<Buffer>) {
    let mut buffers: Vec<Buffer> = (0..case.graph.inputs.len()).map(|input| bind(case, input)).collect();
    let inputs: Vec<usize> = (0..buffers.len()).collect();
    let mut places = Vec::new();
    for value in outputs {
        places.push(Output { value: *value, buffer: buffers.len(), accumulate });
        buffers.push(Buffer::zeros(case.graph.values[value.idx()].len()));
    }
    let program = Program::with_target(&case.graph, &inputs, &places, engine.target(precision, accumulate));
    (program, buffers)
}

/// Runs loss and gradients `rounds` times with accumulating outputs.
fn execute(case: &Case, outputs: &[pawl_graph::ValueId], engine: &Engine, rounds: usize) -> Vec<Vec<f32>> {
    let (mut program, mut buffers) = compile(case, outputs, engine, Precision::F32, rounds > 1);
    for round in 0..rounds {
        program.run(engine, &mut buffers, round);
    }
    buffers[case.graph.inputs.len()..].iter().map(|b| b.floats().to_vec()).collect()
}

pub(crate) fn with_gradients(mut case: Case) -> (Case, Vec<pawl_graph::ValueId>) {
    let mut outputs = case.graph.gradients(case.loss, &case.params.clone());
    outputs.push(case.loss);
    (case, outputs)
}

fn check_close(name: &str, got: &[f32], want: &[f64], times: f64) {
    let scale = want.iter().fold(1.0_f64, |s, x| s.max(x.abs())) * times;
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want * times).abs() / scale;
        assert!(error < TOLERANCE, "{name}[{i}]: {got} for {} (error {error:.1e})", want * times);
    }
}

#[test]
fn programs_agree_with_the_definition_on_every_instruction_set() {
    let isas = [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.is_available());
    for isa in isas {
        let engine = Engine::with_isa(2, isa);
        for case in all() {
            let (case, outputs) = with_gradients(case);
            let want = run(&case.graph, &case.leaves, &outputs, |x| x);
            for (k, (got, want)) in execute(&case, &outputs, &engine, 1).iter().zip(&want).enumerate() {
                check_close(&format!("{isa:?} {} output {k}", case.name), got, want.real(), 1.0);
            }
        }
    }
}

#[test]
fn accumulating_outputs_add_up_over_rounds() {
    let engine = Engine::new(2);
    for case in all() {
        let (case, outputs) = with_gradients(case);
        let want = run(&case.graph, &case.leaves, &outputs, |x| x);
        for (got, want) in execute(&case, &outputs, &engine, 3).iter().zip(&want) {
            check_close(&case.name, got, want.real(), 3.0);
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let engines = [1, 2, 3].map(Engine::new);
    for case in all() {
        let (case, outputs) = with_gradients(case);
        let bits = engines.each_ref().map(|engine| {
            let results = execute(&case, &outputs, engine, 1);
            results.concat().iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
        });
        assert!(bits[0] == bits[1] && bits[1] == bits[2], "{}", case.name);
    }
}

#[test]
fn no_run_after_the_first_allocates() {
    let engine = Engine::new(1);
    for case in all() {
        let (case, outputs) = with_gradients(case);
        for precision in [Precision::F32, Precision::Bf16] {
            let (mut program, mut buffers) = compile(&case, &outputs, &engine, precision, false);
            program.run(&engine, &mut buffers, 0);
            let before = allocated();
            program.run(&engine, &mut buffers, 0);
            assert_eq!(allocated() - before, 0, "{} {precision:?}", case.name);
        }
    }
}

/// AdamW as recipes write it: two moments and a weight, each updated where it lies.
#[test]
fn updates_in_place_are_one_kernel_and_right() {
    let len = 5000;
    let mut g = Graph::new();
    let [w, grad, m, v] =
        ["w", "g", "m", "v"].map(|name| g.input(name, InputKind::State, &[len], DType::F32));
    let toward = |g: &mut Graph, old, new, share| {
        let gap = g.add(Op::Binary(Binary::Sub), &[new, old]).expect("equal shapes");
        let step = g.scaled(gap, share);
        g.add(Op::Binary(Binary::Add), &[old, step]).expect("equal shapes")
    };
    let new_m = toward(&mut g, m, grad, 0.1);
    let square = g.add(Op::Binary(Binary::Mul), &[grad, grad]).expect("equal shapes");
    let new_v = toward(&mut g, v, square, 0.01);
    let root = g.add(Op::Unary(Unary::Sqrt), &[new_v]).expect("any shape");
    let step = g.add(Op::Binary(Binary::Div), &[new_m, root]).expect("equal shapes");
    let step = g.scaled(step, 0.02);
    let new_w = g.add(Op::Binary(Binary::Sub), &[w, step]).expect("equal shapes");
    let places = [(new_w, 0), (new_m, 2), (new_v, 3)];
    let engine = Engine::new(2);
    let outputs = places.map(|(value, buffer)| Output { value, buffer, accumulate: false });
    let plan = Plan::compile(&g, &[0, 1, 2, 3], &outputs, engine.target(Precision::F32, false));
    assert_eq!(plan.num_steps(), 1);

    let mut program = Program::new(&g, &[0, 1, 2, 3], &outputs, &engine);
    let mut buffers: Vec<Buffer> = (0..4).map(|_| Buffer::zeros(len)).collect();
    let mut leaves = Leaves::new();
    for (k, name) in ["w", "g", "m", "v"].into_iter().enumerate() {
        let data: Vec<f64> = (0..len).map(|i| f64::from((i * (k + 3) % 97) as f32 / 64.0 + 0.5)).collect();
        buffers[k].floats_mut().iter_mut().zip(&data).for_each(|(b, x)| *b = *x as f32);
        leaves.insert(leaf(&InputKind::State, name), Tensor::Real(data));
    }
    let want = run(&g, &leaves, &places.map(|(value, _)| value), |x| x);
    program.run(&Engine::new(2), &mut buffers, 0);
    for ((_, buffer), want) in places.iter().zip(&want) {
        check_close(&format!("buffer {buffer}"), buffers[*buffer].floats(), want.real(), 1.0);
    }
}
