//! Random programs at odd shapes, with their gradients, against the definition: on every instruction set, for
//! any number of threads, run once, in rounds, and in parts.

use crate::cases::Case;
use crate::programs::{bind, compile, with_gradients};
use grow::{Grower, Kind};
use pawl_engine::reference::{Tensor, run};
use pawl_engine::{Buffer, Engine, Isa, Output, Parts, Precision, Rounds};
use pawl_graph::{Binary, Graph, InputKind, Op, Unary, ValueId};
use ways::Met;

mod grow;
mod random;
mod ways;

/// Programs of each test: some seconds. A larger number searches further, each seed being a program.
const NUM_PROGRAMS: u64 = 600;

/// In units of what rounding the result of each operation to float32 moves in the definition, plus the last place
/// of the largest element, or of 1: sums within an operation are rounded too. Worst observed: 21
const TOLERANCE: f64 = 40.0;

/// The same for products of bfloat16 operands, in the L2 norm: in units of what rounding the result of each
/// operation to bfloat16 moves, plus the last place of the norm, or of 1. Worst observed: 1.4
const BF16_TOLERANCE: f64 = 3.0;

/// A program in which a comparison is decided by less than this cannot be compared in float32.
const EDGE: f64 = 3e-5;

struct Engines(Vec<[Engine; 4]>);

impl Engines {
    /// One to four threads on each instruction set of this machine.
    fn new() -> Engines {
        let isas = [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.is_available());
        Engines(isas.map(|isa| [1, 2, 3, 4].map(|threads| Engine::with_isa(threads, isa))).collect())
    }
}

fn bits(results: &[Vec<f32>]) -> Vec<Vec<u32>> {
    results.iter().map(|x| x.iter().map(|x| x.to_bits()).collect()).collect()
}

fn program(seed: u64, kind: Kind, num_ops: usize) -> Grower {
    let mut grower = Grower::new(seed, kind);
    (0..num_ops).for_each(|_| grower.grow());
    grower
}

/// What makes an operation jump where float32 may fall on the other side.
#[derive(Clone, Copy)]
enum Jump {
    /// Where the value changes its sign.
    Zero,
    /// At whole numbers.
    Whole,
    /// Where the order along the last axis changes.
    Order,
}

fn jump(op: &Op) -> Option<Jump> {
    if matches!(op, Op::Binary(Binary::Ge | Binary::Eq)) {
        return Some(Jump::Zero);
    }
    if matches!(op, Op::Unary(Unary::Floor)) {
        return Some(Jump::Whole);
    }
    matches!(op, Op::TopK { .. }).then_some(Jump::Order)
}

/// The values that decide something: differences of what is compared, which the graph gets for this.
fn decisions(graph: &mut Graph, outputs: &[ValueId]) -> Vec<(Jump, ValueId)> {
    let needed = graph.needed(outputs);
    let mut found = Vec::new();
    for (idx, _) in needed.iter().enumerate().filter(|(_, needed)| **needed) {
        let Some(jump) = jump(&graph.instrs[idx].op) else { continue };
        let inputs = graph.instrs[idx].inputs.clone();
        let value = match jump {
            Jump::Zero => graph.add(Op::Binary(Binary::Sub), &inputs).expect("as compared"),
            Jump::Whole | Jump::Order => inputs[0],
        };
        found.push((jump, value));
    }
    found
}

/// Whether float32 may decide otherwise. An exact tie is one in any precision.
fn is_close(jump: Jump, x: &[f64], width: usize) -> bool {
    let near = |gap: f64| gap != 0.0 && gap.abs() < EDGE;
    match jump {
        Jump::Zero => x.iter().any(|x| near(*x)),
        Jump::Whole => x.iter().any(|x| near(x - x.round())),
        Jump::Order => x.chunks(width).any(|row| {
            let mut row = row.to_vec();
            row.sort_by(f64::total_cmp);
            row.windows(2).any(|pair| near(pair[1] - pair[0]))
        }),
    }
}

/// Results in float64, and how far each moves when every operation's result is rounded; `None` for a program
/// whose results cannot be compared.
struct Want {
    exact: Vec<Vec<f64>>,
    rounded: Vec<Vec<f64>>,
}

fn want(case: &Case, outputs: &[ValueId], round: fn(f64) -> f64) -> Option<Want> {
    let mut graph = case.graph.clone();
    let decisions = decisions(&mut graph, outputs);
    let all: Vec<ValueId> = outputs.iter().copied().chain(decisions.iter().map(|d| d.1)).collect();
    let mut exact = run(&graph, &case.leaves, &all, |x| x);
    for ((jump, value), x) in decisions.iter().zip(exact.split_off(outputs.len())) {
        if is_close(*jump, x.real(), *graph.shape(*value).last().unwrap_or(&1)) {
            return None;
        }
    }
    let real = |tensors: Vec<Tensor>| tensors.iter().map(|x| x.real().to_vec()).collect::<Vec<_>>();
    let exact = real(exact);
    let sane = exact.iter().flatten().all(|x| x.abs() < 1e6);
    let rounded = real(run(&case.graph, &case.leaves, outputs, round));
    sane.then_some(Want { exact, rounded })
}

fn largest(x: impl Iterator<Item = f64>) -> f64 {
    x.fold(0.0, |most, x| most.max(x.abs()))
}

/// How many times the allowed unit the worst element is off.
fn error(got: &[f32], exact: &[f64], rounded: &[f64]) -> f64 {
    let off = got.iter().zip(exact).map(|(got, want)| f64::from(*got) - want);
    if off.clone().any(f64::is_nan) {
        return f64::INFINITY;
    }
    let moved = largest(exact.iter().zip(rounded).map(|(exact, rounded)| exact - rounded));
    let unit = moved + f64::from(f32::EPSILON) * largest(exact.iter().copied()).max(1.0);
    largest(off) / unit
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

/// The same in bfloat16, of all results together: a gradient that is exactly zero, as that of a query with one key,
/// has only the size of others to be compared with.
fn bf16_error(got: &[Vec<f32>], want: &Want) -> f64 {
    let exact = || want.exact.iter().flatten();
    let moved = norm(exact().zip(want.rounded.iter().flatten()).map(|(exact, rounded)| exact - rounded));
    let off = norm(got.iter().flatten().zip(exact()).map(|(got, want)| f64::from(*got) - want));
    off / (moved + norm(exact().copied()).max(1.0) / 256.0)
}

/// Results of a first run, which those of a second must equal: nothing that a run leaves behind is read.
fn results(case: &Case, outputs: &[ValueId], engine: &Engine, precision: Precision) -> Vec<Vec<f32>> {
    let (mut program, mut buffers) = compile(case, outputs, engine, precision, false);
    let read = |buffers: &[Buffer]| -> Vec<Vec<f32>> {
        buffers[case.graph.inputs.len()..].iter().map(|b| b.floats().to_vec()).collect()
    };
    program.run(engine, &mut buffers, 0);
    let first = read(&buffers);
    program.run(engine, &mut buffers, 0);
    assert!(bits(&first) == bits(&read(&buffers)), "{}: a second run differs", case.name);
    first
}

/// Loss, gradients, and half of the time a value within, which then cannot be fused away.
fn case_of(seed: u64, kind: Kind) -> (Case, Vec<ValueId>) {
    let mut grower = program(seed, kind, 2 + seed as usize % 9);
    let case = grower.finish(format!("seed {seed}"), seed);
    let within = grower.live[grower.live.len() / 2].value;
    let last = grower.live[grower.live.len() - 1].value;
    let (case, mut outputs) = with_gradients(case);
    match kind {
        Kind::Any if grower.random.one_in(2) => outputs.push(within),
        Kind::Any => {}
        // A loss may cancel to less than what rounding moves.
        Kind::Products => {
            outputs.pop();
            outputs.push(last);
        }
    }
    // A value may be listed once: a leaf that was not grown upon is not a result.
    outputs.retain(|value| !matches!(case.graph.producer(*value).op, Op::Input(_)));
    outputs.sort_unstable();
    outputs.dedup();
    (case, outputs)
}

#[test]
fn random_programs_agree_with_the_definition() {
    let engines = Engines::new();
    let (mut met, mut worst, mut skipped) = (Met::nothing(), 0.0_f64, 0);
    for seed in 0..NUM_PROGRAMS {
        let (case, outputs) = case_of(seed, Kind::Any);
        let Some(want) = want(&case, &outputs, |x| f64::from(x as f32)) else {
            skipped += 1;
            continue;
        };
        met.add(&case.graph, &case.graph.needed(&outputs));
        for of_isa in &engines.0 {
            let isa = of_isa[0].isa();
            let [one, rest @ ..] =
                of_isa.each_ref().map(|engine| results(&case, &outputs, engine, Precision::F32));
            assert!(rest.iter().all(|more| bits(&one) == bits(more)), "{isa:?} seed {seed}: threads");
            for (k, got) in one.iter().enumerate() {
                let error = error(got, &want.exact[k], &want.rounded[k]);
                worst = worst.max(error);
                let what = case.graph.describe(outputs[k]);
                assert!(error < TOLERANCE, "{isa:?} seed {seed} output {k}, {what}: {error}");
            }
        }
    }
    println!("worst error {worst:.1}, {skipped} of {NUM_PROGRAMS} left out");
    assert!(4 * skipped < NUM_PROGRAMS, "{skipped} of {NUM_PROGRAMS} programs cannot be compared");
    assert_eq!(met.missing(2), [0; 0], "operations, by their number in ways.rs, that no program has twice");
}

#[test]
fn random_products_in_bfloat16_stay_near_the_definition() {
    let engines = Engines::new();
    let round = |x: f64| {
        let bits = (x as f32).to_bits();
        f64::from(f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000))
    };
    let (mut worst, mut far) = (0.0_f64, Vec::new());
    for seed in 0..NUM_PROGRAMS {
        let (case, outputs) = case_of(seed, Kind::Products);
        let want = want(&case, &outputs, round).expect("nothing is compared in a product");
        for of_isa in &engines.0 {
            let isa = of_isa[0].isa();
            let [one, rest @ ..] =
                of_isa.each_ref().map(|engine| results(&case, &outputs, engine, Precision::Bf16));
            assert!(rest.iter().all(|more| bits(&one) == bits(more)), "{isa:?} seed {seed}: threads");
            let error = bf16_error(&one, &want);
            worst = worst.max(error);
            if error.is_nan() || error > BF16_TOLERANCE {
                far.push(format!("{isa:?} seed {seed}: {error}"));
            }
        }
    }
    println!("worst error {worst:.2}");
    assert!(far.is_empty(), "{far:?}");
}

/// The buffers of `num_rounds` rounds: of what moves one part after another.
fn buffers_of_rounds(rounds: &[Case], moving: &[usize], outputs: &[ValueId]) -> Vec<Buffer> {
    let graph = &rounds[0].graph;
    let mut buffers: Vec<Buffer> = (0..graph.inputs.len())
        .map(|input| {
            let parts: Vec<Buffer> = rounds.iter().map(|case| bind(case, input)).collect();
            let parts = if moving.contains(&input) { &parts[..] } else { &parts[..1] };
            let mut whole = Buffer::zeros(parts.iter().map(Buffer::len).sum());
            let len = parts[0].len();
            for (to, part) in whole.ints_mut().chunks_mut(len).zip(parts) {
                to.copy_from_slice(part.ints());
            }
            whole
        })
        .collect();
    buffers.extend(outputs.iter().map(|value| Buffer::zeros(graph.values[value.idx()].len())));
    buffers
}

fn run_rounds(
    rounds: &[Case],
    moving: &[usize],
    outputs: &[ValueId],
    engine: &Engine,
    precision: Precision,
) -> Vec<Vec<f32>> {
    let graph = &rounds[0].graph;
    let inputs: Vec<usize> = (0..graph.inputs.len()).collect();
    let place =
        |(k, value): (usize, &ValueId)| Output { value: *value, buffer: inputs.len() + k, accumulate: true };
    let places: Vec<Output> = outputs.iter().enumerate().map(place).collect();
    let mut compiled = Rounds::new(graph, &inputs, &places, engine, precision, rounds.len(), moving);
    let mut buffers = buffers_of_rounds(rounds, moving, outputs);
    // The second step starts from what the first one left.
    compiled.run(engine, &mut buffers);
    compiled.run(engine, &mut buffers);
    buffers[inputs.len()..].iter().map(|b| b.floats().to_vec()).collect()
}

/// The same program for each round, with numbers of its own in what moves.
fn cases_of_rounds(seed: u64, kind: Kind) -> (Vec<Case>, Vec<usize>, Vec<ValueId>) {
    let mut grower = program(seed, kind, 2 + seed as usize % 5);
    let case = grower.finish(format!("seed {seed}"), seed);
    let (case, mut outputs) = with_gradients(case);
    outputs.retain(|value| !matches!(case.graph.producer(*value).op, Op::Input(_)));
    outputs.sort_unstable();
    outputs.dedup();
    // Parameters are the same in all rounds.
    let inputs = case.graph.inputs.iter().enumerate().filter(|(_, input)| input.kind != InputKind::Param);
    let moving: Vec<usize> = inputs.map(|(input, _)| input).filter(|_| !grower.random.one_in(4)).collect();
    let num_rounds = 1 + grower.random.below(12);
    let rounds = (0..num_rounds as u64).map(|round| {
        let mut leaves = grower.leaves(1000 * seed + round);
        for (input, leaf_of) in case.graph.inputs.iter().enumerate() {
            let key = pawl_engine::reference::leaf(&leaf_of.kind, &leaf_of.name);
            if !moving.contains(&input) {
                leaves.insert(key.clone(), case.leaves[&key].clone());
            }
        }
        Case {
            graph: case.graph.clone(),
            leaves,
            name: case.name.clone(),
            params: Vec::new(),
            loss: case.loss,
        }
    });
    (rounds.collect(), moving, outputs)
}

#[test]
fn random_rounds_are_summed_with_the_same_bits_by_any_number_of_threads() {
    let engines = Engines::new();
    let (mut worst, mut compared) = (0.0_f64, 0);
    for seed in 0..NUM_PROGRAMS / 3 {
        let (rounds, moving, outputs) = cases_of_rounds(seed, Kind::Any);
        let wants: Vec<Option<Want>> =
            rounds.iter().map(|case| want(case, &outputs, |x| f64::from(x as f32))).collect();
        let wants: Option<Vec<Want>> = wants.into_iter().collect();
        for of_isa in &engines.0 {
            let isa = of_isa[0].isa();
            let [one, rest @ ..] = of_isa
                .each_ref()
                .map(|engine| run_rounds(&rounds, &moving, &outputs, engine, Precision::F32));
            assert!(rest.iter().all(|more| bits(&one) == bits(more)), "{isa:?} seed {seed}: threads");
            let Some(wants) = &wants else { continue };
            compared += 1;
            for (k, got) in one.iter().enumerate() {
                let sum = |pick: &dyn Fn(&Want) -> f64| wants.iter().map(pick).sum::<f64>();
                let exact: Vec<f64> = (0..got.len()).map(|i| sum(&|want| want.exact[k][i])).collect();
                // What rounding moves adds up, whatever its sign.
                let moved = |i: usize| sum(&|want: &Want| (want.exact[k][i] - want.rounded[k][i]).abs());
                let rounded: Vec<f64> = (0..got.len()).map(|i| exact[i] + moved(i)).collect();
                let error = error(got, &exact, &rounded);
                worst = worst.max(error);
                let what = rounds[0].graph.describe(outputs[k]);
                let num_rounds = rounds.len();
                assert!(error < TOLERANCE, "{isa:?} seed {seed}, {num_rounds} rounds, {what}: {error}");
            }
        }
    }
    println!("worst error {worst:.1}, {compared} compared");
    assert!(compared > NUM_PROGRAMS as usize / 3, "only {compared} compared");
}

#[test]
fn random_rounds_in_bfloat16_have_the_same_bits_on_any_number_of_threads() {
    let engines = Engines::new();
    for seed in 0..NUM_PROGRAMS / 5 {
        let (rounds, moving, outputs) = cases_of_rounds(seed, Kind::Products);
        for of_isa in &engines.0 {
            let [one, rest @ ..] = of_isa
                .each_ref()
                .map(|engine| run_rounds(&rounds, &moving, &outputs, engine, Precision::Bf16));
            assert!(rest.iter().all(|more| bits(&one) == bits(more)), "{:?} seed {seed}", of_isa[0].isa());
        }
    }
}

/// Sums too large for lanes of their own run one after another, on all threads.
#[test]
fn rounds_of_large_sums_share_one_lane() {
    let (v, c, n) = (33_000, 257, 40);
    let mut graph = Graph::new();
    let table = graph.input("x0", InputKind::Param, &[v, c], pawl_graph::DType::F32);
    let ids = graph.input("x1", InputKind::Tokens, &[n], pawl_graph::DType::I32);
    let rows = graph.add(Op::Embedding, &[table, ids]).expect("a table and ids");
    let square = graph.add(Op::Binary(Binary::Mul), &[rows, rows]).expect("equal shapes");
    let loss = graph.sum_all(square);
    let grad = graph.gradients(loss, &[table])[0];
    let outputs = [2, 3].into_iter().zip([grad, loss]);
    let outputs: Vec<Output> =
        outputs.map(|(buffer, value)| Output { value, buffer, accumulate: true }).collect();
    let sums = [1, 2, 3, 4].map(|threads| {
        let engine = Engine::new(threads);
        let mut rounds = Rounds::new(&graph, &[0, 1], &outputs, &engine, Precision::F32, 3, &[1]);
        let mut buffers = [v * c, 3 * n, v * c, 1].map(Buffer::zeros);
        buffers[0].floats_mut().iter_mut().enumerate().for_each(|(i, x)| *x = (i % 97) as f32 / 16.0 - 3.0);
        buffers[1].ints_mut().iter_mut().enumerate().for_each(|(i, id)| *id = (i as i32 * 7919) % 40);
        rounds.run(&engine, &mut buffers);
        (buffers[2].bytes().to_vec(), buffers[3].floats()[0])
    });
    assert!(sums.iter().all(|other| *other == sums[0]));
    let want: f64 = (0..3 * n as i32)
        .map(|i| (i * 7919) % 40)
        .flat_map(|id| {
            (0..c).map(move |k| f64::from(((id as usize * c + k) % 97) as f32 / 16.0 - 3.0).powi(2))
        })
        .sum();
    assert!((f64::from(sums[0].1) - want).abs() < 1e-6 * want, "{} for {want}", sums[0].1);
}

/// Updates of several parameters from gradients and states, in place, as optimizers make them.
fn updates(seed: u64) -> (Case, Vec<Output>) {
    let mut grower = Grower::new(seed, Kind::Any);
    let rate = grower.leaf(InputKind::Scalar, &[], 0.1, 0.9);
    let mut outputs = Vec::new();
    for _ in 0..1 + grower.random.below(6) {
        let rank = grower.random.pick(&[1, 2, 2]);
        let shape = grower.random.shape(rank, 3000);
        let buffer = grower.graph.inputs.len();
        let [w, m, g] = [InputKind::Param, InputKind::State, InputKind::Grad]
            .map(|kind| grower.leaf(kind, &shape, -1.0, 1.0));
        let mut step = g.value;
        let mut op = |op: Op, inputs: &[ValueId]| grower.graph.add(op, inputs).expect("equal shapes");
        if shape.len() == 2 && seed.is_multiple_of(2) {
            // As Muon does: g g^T g, whose first product is symmetric.
            let gram = op(Op::Matmul { ta: false, tb: true }, &[step, step]);
            step = op(Op::Matmul { ta: false, tb: false }, &[gram, step]);
            let eps = 0.1;
            step = op(Op::RmsNorm { eps }, &[step]);
        }
        let gap = op(Op::Binary(Binary::Sub), &[step, m.value]);
        let part = op(Op::Binary(Binary::Mul), &[gap, rate.value]);
        let moment = op(Op::Binary(Binary::Add), &[m.value, part]);
        let scaled = op(Op::Binary(Binary::Mul), &[moment, rate.value]);
        let weight = op(Op::Binary(Binary::Sub), &[w.value, scaled]);
        outputs.push(Output { value: weight, buffer, accumulate: false });
        outputs.push(Output { value: moment, buffer: buffer + 1, accumulate: false });
    }
    let leaves = grower.leaves(seed);
    let loss = outputs[0].value;
    (Case { name: format!("seed {seed}"), graph: grower.graph, params: Vec::new(), loss, leaves }, outputs)
}

#[test]
fn random_updates_in_parts_agree_with_the_definition_on_any_number_of_threads() {
    let engines = Engines::new();
    let mut worst = 0.0_f64;
    for seed in 0..NUM_PROGRAMS {
        let (case, outputs) = updates(seed);
        let values: Vec<ValueId> = outputs.iter().map(|output| output.value).collect();
        let want = want(&case, &values, |x| f64::from(x as f32)).expect("nothing is compared");
        for of_isa in &engines.0 {
            let isa = of_isa[0].isa();
            let [one, rest @ ..] = of_isa.each_ref().map(|engine| {
                let inputs: Vec<usize> = (0..case.graph.inputs.len()).collect();
                let mut buffers: Vec<Buffer> = inputs.iter().map(|input| bind(&case, *input)).collect();
                let mut parts = Parts::new(&case.graph, &inputs, &outputs, engine, Precision::F32);
                assert_eq!(parts.num_parts(), outputs.len() / 2, "seed {seed}");
                parts.run(engine, &mut buffers);
                outputs.iter().map(|output| buffers[output.buffer].floats().to_vec()).collect::<Vec<_>>()
            });
            assert!(rest.iter().all(|more| bits(&one) == bits(more)), "{isa:?} seed {seed}: threads");
            for (k, got) in one.iter().enumerate() {
                let error = error(got, &want.exact[k], &want.rounded[k]);
                worst = worst.max(error);
                assert!(error < TOLERANCE, "{isa:?} seed {seed} output {k}: {error}");
            }
        }
    }
    println!("worst error {worst:.1}");
}
