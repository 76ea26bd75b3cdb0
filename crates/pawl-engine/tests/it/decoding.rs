//! A program of single positions, against the definition of the whole one, and what it allocates.

use crate::counting::allocated;
use pawl_engine::reference::{Leaves, Tensor, leaf, run};
use pawl_engine::{Decoding, Engine, Isa, Lane, Weights};
use pawl_graph::{Binary, DType, Graph, InputKind, Mask, Op, Unary, ValueId};

const B: usize = 2;
const T: usize = 11;
const V: usize = 70;
const C: usize = 72;
/// Of the largest logit; worst seen 6e-7.
const TOLERANCE: f64 = 3e-6;

struct Model {
    graph: Graph,
    logits: ValueId,
}

/// Every kind of state: a ring (shift), a latch (first position), a scan, fused attention, keys; and a product
/// that is large enough for panels.
fn model() -> Model {
    let mut g = Graph::new();
    let tokens = g.input("tokens", InputKind::Tokens, &[B, T], DType::I32);
    let table = g.input("table", InputKind::Param, &[V, C], DType::F32);
    let decay = g.input("decay", InputKind::Param, &[T, C], DType::F32);
    let head = g.input("head", InputKind::Param, &[V, C], DType::F32);
    let mut add = |op: Op, inputs: &[ValueId]| g.add(op, inputs).expect("shapes fit");
    let plus = Op::Binary(Binary::Add);
    let slice = |start, len| Op::Slice { axis: 1, start, len };
    let mut x = add(Op::Embedding, &[table, tokens]);
    let kept = add(slice(0, T - 2), &[x]);
    let shifted = add(Op::Pad { axis: 1, before: 2, after: 0 }, &[kept]);
    let first = add(slice(0, 1), &[x]);
    x = add(plus.clone(), &[x, shifted]);
    x = add(plus.clone(), &[x, first]);
    let decay = add(Op::Expand { shape: vec![B, T, C] }, &[decay]);
    let state = add(Op::Scan { reverse: false }, &[decay, x]);
    let heads = add(Op::Reshape { shape: vec![B, T, 4, C / 4] }, &[state]);
    let turned = add(Op::Rope { base: 100.0, inverse: false }, &[heads]);
    let seen = Op::Attention { mask: Mask::Causal { window: 4 }, scale: 0.3 };
    let seen = add(seen, &[turned, turned, heads]);
    let seen = add(Op::Reshape { shape: vec![B, T, C] }, &[seen]);
    x = add(Op::Unary(Unary::Tanh), &[seen]);
    let scores = add(Op::Matmul { ta: false, tb: true }, &[x, x]);
    let weights = add(Op::Softmax { mask: Mask::Causal { window: T } }, &[scores]);
    let mixed = add(Op::Matmul { ta: false, tb: false }, &[weights, x]);
    x = add(plus, &[x, mixed]);
    let logits = add(Op::Matmul { ta: false, tb: true }, &[x, head]);
    Model { graph: g, logits }
}

fn leaves(model: &Model) -> Leaves {
    let mut leaves = Leaves::new();
    for (n, input) in model.graph.inputs.iter().enumerate() {
        let len = model.graph.values[input.value.idx()].len();
        let number = |i: usize| f64::from(((i * 7919 + n * 104_729) % 2003) as f32 / 2003.0 - 0.5);
        let tensor = if input.kind == InputKind::Tokens {
            Tensor::Int((0..len).map(|i| (i * i * 13 + i) as i32 % V as i32).collect())
        } else {
            Tensor::Real((0..len).map(number).collect())
        };
        leaves.insert(leaf(&input.kind, &input.name), tensor);
    }
    leaves
}

fn decoding(model: &Model, leaves: &Leaves, engine: &Engine) -> Decoding {
    let program = model.graph.incremental(model.logits).expect("nothing here needs the whole sequence");
    let mut param = |name: &str, to: &mut [f32]| {
        let from = leaves[&leaf(&InputKind::Param, name)].real();
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from as f32);
    };
    Decoding::new(engine, &program, B, 4, Weights::F32, &mut param)
}

/// The next token of each sequence.
fn lanes(leaves: &Leaves, p: usize) -> [Lane; B] {
    let tokens = leaves[&leaf(&InputKind::Tokens, "tokens")].int();
    std::array::from_fn(|row| Lane { row, token: tokens[row * T + p], wanted: true })
}

#[test]
fn positions_agree_with_the_definition_on_every_instruction_set() {
    let model = model();
    let leaves = leaves(&model);
    let want = run(&model.graph, &leaves, &[model.logits], |x| x);
    let want = want[0].real();
    let size = want.iter().fold(0.0_f64, |top, x| top.max(x.abs()));
    for isa in [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.is_available()) {
        let engine = Engine::with_isa(2, isa);
        let mut decoding = decoding(&model, &leaves, &engine);
        for p in 0..T {
            decoding.run(&engine, &lanes(&leaves, p));
            for row in 0..B {
                let want = &want[(row * T + p) * V..][..V];
                for (got, want) in decoding.logits(row).iter().zip(want) {
                    let error = (f64::from(*got) - want).abs() / size;
                    assert!(error < TOLERANCE, "{isa:?} sequence {row} position {p}: {error:.1e}");
                }
            }
        }
    }
}

#[test]
fn no_token_allocates() {
    let model = model();
    let leaves = leaves(&model);
    let engine = Engine::new(1);
    let mut decoding = decoding(&model, &leaves, &engine);
    let lanes: Vec<_> = (0..T).map(|p| lanes(&leaves, p)).collect();
    decoding.run(&engine, &lanes[0]);
    let before = allocated();
    for lanes in &lanes[1..] {
        decoding.run(&engine, lanes);
    }
    decoding.reset(0);
    decoding.reset(1);
    decoding.run(&engine, &lanes[0]);
    assert_eq!(allocated() - before, 0);
}
