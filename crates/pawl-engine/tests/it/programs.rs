//! Compiled programs, loss and gradients, against the definition in float64, and their bits for any
//! number of threads and instruction set.

use crate::cases::{Case, all};
use crate::counting::allocated;
use pawl_engine::reference::{Leaves, Tensor, leaf, run};
use pawl_engine::{Buffer, Engine, Isa, Output, Plan, Precision, Program};
use pawl_graph::{Binary, DType, Graph, InputKind, Op, Unary, ValueId};

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

/// What is added to a product of x (2, 3, 7) and w (7, 9), and the kernels that are left.
#[test]
fn a_product_adds_what_is_stored_with_the_bits_of_two_kernels() {
    type Sum = fn(&mut Graph, ValueId) -> ValueId;
    let sums: [(&str, usize, Sum); 9] = [
        ("a bias", 1, |g, p| {
            let y = param(g, &[9]);
            add(g, p, y)
        }),
        ("a residual before it", 1, |g, p| {
            let y = param(g, &[2, 3, 9]);
            add(g, y, p)
        }),
        ("rows of another shape", 1, |g, p| {
            let flat = g.add(Op::Reshape { shape: vec![6, 9] }, &[p]).expect("as many elements");
            let y = param(g, &[6, 9]);
            add(g, flat, y)
        }),
        ("a broadcast bias", 1, |g, p| {
            let wide = Op::Expand { shape: vec![2, 3, 9] };
            let bias = param(g, &[9]);
            let bias = g.add(wide, &[bias]).expect("a broadcast");
            add(g, p, bias)
        }),
        ("what is computed later", 2, |g, p| {
            let y = param(g, &[2, 3, 9]);
            let normed = g.add_all(Op::RmsNorm { eps: 0.1 }, &[y]).expect("rows")[0];
            add(g, p, normed)
        }),
        ("another product", 2, |g, p| {
            let [a, b] = [param(g, &[2, 3, 5]), param(g, &[5, 9])];
            let other = g.add(Op::Matmul { ta: false, tb: false }, &[a, b]).expect("they fit");
            add(g, p, other)
        }),
        ("what is evaluated in the sum", 2, |g, p| {
            let y = param(g, &[2, 3, 9]);
            let e = g.add(Op::Unary(Unary::Exp), &[y]).expect("any shape");
            add(g, p, e)
        }),
        ("numbers of rows", 2, |g, p| {
            let y = param(g, &[2, 3, 1]);
            add(g, p, y)
        }),
        ("a product read twice", 2, |g, p| {
            let y = param(g, &[9]);
            let sum = add(g, p, y);
            g.add(Op::Binary(Binary::Mul), &[sum, p]).expect("equal shapes")
        }),
    ];
    for (name, num_steps, sum) in sums {
        let mut g = Graph::new();
        let [x, w] = [param(&mut g, &[2, 3, 7]), param(&mut g, &[7, 9])];
        let product = g.add(Op::Matmul { ta: false, tb: false }, &[x, w]).expect("they fit");
        let sum = sum(&mut g, product);
        for isa in [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.is_available()) {
            for precision in [Precision::F32, Precision::Bf16] {
                let engine = Engine::with_isa(1, isa);
                let (steps, together) = run_outputs(&g, &[sum], &engine, precision);
                assert_eq!(steps, num_steps, "{name}");
                // A product that is asked for is stored alone.
                let (_, apart) = run_outputs(&g, &[sum, product], &engine, precision);
                assert!(together[0] == apart[0], "{name} {isa:?} {precision:?}");
            }
        }
    }
}

fn param(g: &mut Graph, shape: &[usize]) -> ValueId {
    let name = format!("p{}", g.inputs.len());
    g.input(&name, InputKind::Param, shape, DType::F32)
}

fn add(g: &mut Graph, a: ValueId, b: ValueId) -> ValueId {
    g.add(Op::Binary(Binary::Add), &[a, b]).expect("shapes that broadcast")
}

/// Kernels, and outputs for inputs of many different numbers.
fn run_outputs(
    g: &Graph,
    outputs: &[ValueId],
    engine: &Engine,
    precision: Precision,
) -> (usize, Vec<Vec<f32>>) {
    let inputs: Vec<usize> = (0..g.inputs.len()).collect();
    let mut buffers: Vec<Buffer> =
        g.inputs.iter().map(|input| Buffer::zeros(g.values[input.value.idx()].len())).collect();
    for (k, buffer) in buffers.iter_mut().enumerate() {
        let numbers = (0..).map(|i: usize| ((i * 7 + k * 5) % 97) as f32 / 37.0 - 1.1);
        buffer.floats_mut().iter_mut().zip(numbers).for_each(|(to, x)| *to = x);
    }
    let mut places = Vec::new();
    for value in outputs {
        places.push(Output { value: *value, buffer: buffers.len(), accumulate: false });
        buffers.push(Buffer::zeros(g.values[value.idx()].len()));
    }
    let target = engine.target(precision, false);
    let steps = Plan::compile(g, &inputs, &places, target).num_steps();
    Program::with_target(g, &inputs, &places, target).run(engine, &mut buffers, 0);
    (steps, buffers[inputs.len()..].iter().map(|buffer| buffer.floats().to_vec()).collect())
}
