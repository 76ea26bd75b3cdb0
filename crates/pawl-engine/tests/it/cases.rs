//! Small programs, one or more for each operation, at odd shapes.

use pawl_engine::reference::{Leaves, Tensor, leaf};
use pawl_graph::{Binary, DType, Graph, InputKind, Mask, Op, Reduction, Unary, ValueId};

/// A scalar-valued program of float leaves (and maybe integer leaves).
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) graph: Graph,
    /// Leaves that are differentiated.
    pub(crate) params: Vec<ValueId>,
    pub(crate) loss: ValueId,
    pub(crate) leaves: Leaves,
}

pub(crate) struct Maker {
    pub(crate) graph: Graph,
    params: Vec<ValueId>,
    leaves: Leaves,
    seed: u64,
}

impl Maker {
    fn new() -> Maker {
        Maker { graph: Graph::new(), params: Vec::new(), leaves: Leaves::new(), seed: 1 }
    }

    fn draw(&mut self) -> f64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Rounded to float32, so that both interpreters and the engine start from the same numbers.
        f64::from(((self.seed >> 33) as f64 / f64::from(1u32 << 31) * 2.0 - 1.0) as f32)
    }

    /// A parameter of draws in [-1, 1], moved by `shift` and away from kinks by construction of the draws.
    fn param(&mut self, shape: &[usize], shift: f32) -> ValueId {
        let name = format!("p{}", self.params.len());
        let value = self.graph.input(&name, InputKind::Param, shape, DType::F32);
        let len: usize = shape.iter().product();
        let data = (0..len).map(|_| f64::from((self.draw() as f32) + shift)).collect();
        self.leaves.insert(leaf(&InputKind::Param, &name), Tensor::Real(data));
        self.params.push(value);
        value
    }

    fn ints(&mut self, kind: InputKind, shape: &[usize], values: &[i32]) -> ValueId {
        let value = self.graph.input("ids", kind.clone(), shape, DType::I32);
        self.leaves.insert(leaf(&kind, "ids"), Tensor::Int(values.to_vec()));
        value
    }

    fn op(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.graph.add(op, inputs).expect("cases are well shaped")
    }

    /// A loss that weighs every element differently, so that no gradient cancels.
    fn finish(mut self, name: &str, out: ValueId) -> Case {
        let shape = self.graph.shape(out).to_vec();
        let len: usize = shape.iter().product();
        let flat = self.op(Op::Reshape { shape: vec![len] }, &[out]);
        let iota = self.op(Op::Iota { n: len }, &[]);
        let weight = self.op(Op::Unary(Unary::ToFloat), &[iota]);
        let scaled = self.graph.scaled(weight, 0.0371);
        let weight = self.op(Op::Unary(Unary::Cos), &[scaled]);
        let product = self.op(Op::Binary(Binary::Mul), &[flat, weight]);
        let loss = self.graph.sum_all(product);
        Case { name: name.to_string(), graph: self.graph, params: self.params, loss, leaves: self.leaves }
    }
}

fn unary(name: &str, op: Op, shape: &[usize], shift: f32) -> Case {
    let mut m = Maker::new();
    let x = m.param(shape, shift);
    let y = m.op(op, &[x]);
    m.finish(name, y)
}

fn binary(op: Binary, a: &[usize], b: &[usize], shift: f32) -> Case {
    let mut m = Maker::new();
    let (x, y) = (m.param(a, shift), m.param(b, shift));
    let z = m.op(Op::Binary(op), &[x, y]);
    m.finish(&format!("{} {a:?} {b:?}", op.name()), z)
}

fn matmul(ta: bool, tb: bool, a: &[usize], b: &[usize]) -> Case {
    let mut m = Maker::new();
    let (x, y) = (m.param(a, 0.0), m.param(b, 0.0));
    let z = m.op(Op::Matmul { ta, tb }, &[x, y]);
    m.finish(&format!("matmul {ta} {tb} {a:?} {b:?}"), z)
}

fn attention(mask: Mask, [b, t, h, kv, d]: [usize; 5]) -> Case {
    let mut m = Maker::new();
    let q = m.param(&[b, t, h, d], 0.0);
    let (k, v) = (m.param(&[b, t, kv, d], 0.0), m.param(&[b, t, kv, d], 0.0));
    let out = m.op(Op::Attention { mask, scale: 0.7 }, &[q, k, v]);
    m.finish(&format!("attention {mask:?} {b} {t} {h} {kv} {d}"), out)
}

fn embedding() -> Case {
    let mut m = Maker::new();
    let table = m.param(&[5, 3], 0.0);
    // -1 and 7 wrap round the table; 1 appears three times.
    let ids = m.ints(InputKind::Tokens, &[2, 4], &[1, 4, 1, 0, -1, 7, 1, 2]);
    let x = m.op(Op::Embedding, &[table, ids]);
    m.finish("embedding", x)
}

fn cross_entropy() -> Case {
    let mut m = Maker::new();
    let logits = m.param(&[5, 7], 0.0);
    let targets = m.ints(InputKind::Targets, &[5], &[3, -1, 0, 6, 3]);
    let loss = m.op(Op::CrossEntropy, &[logits, targets]);
    m.finish("cross_entropy", loss)
}

/// The widest part of a language model: a head with softcap, cropped, scored and averaged; the planner
/// runs it in chunks of rows.
fn head(rows: [usize; 2], tied: bool) -> Case {
    let ([b, t], c, v) = (rows, 6, 2048);
    let mut m = Maker::new();
    let targets: Vec<i32> =
        (0..b * t).map(|i| (i * 37 % 2040) as i32 - i32::from(i % 11 == 0) * 5000).collect();
    let targets: Vec<i32> = targets.into_iter().map(|x| x.max(-1)).collect();
    let table = m.param(&[v, c], 0.0);
    let x = m.param(&[b, t, c], 0.0);
    let x = m.op(Op::RmsNorm { eps: 1e-6 }, &[x]);
    let z = m.op(Op::Matmul { ta: false, tb: true }, &[x, table]);
    let z = m.op(Op::Slice { axis: 2, start: 0, len: v - 8 }, &[z]);
    let z = m.graph.scaled(z, 1.0 / 15.0);
    let z = m.op(Op::Unary(Unary::Tanh), &[z]);
    let z = m.graph.scaled(z, 15.0);
    let z = m.op(Op::Reshape { shape: vec![b * t, v - 8] }, &[z]);
    let targets = m.ints(InputKind::Targets, &[b, t], &targets);
    let targets = m.op(Op::Reshape { shape: vec![b * t] }, &[targets]);
    let loss = m.op(Op::CrossEntropy, &[z, targets]);
    if tied {
        let ids = m.graph.input("more", InputKind::Tokens, &[3], DType::I32);
        m.leaves.insert(leaf(&InputKind::Tokens, "more"), Tensor::Int(vec![1, 5, 1]));
        let rows = m.op(Op::Embedding, &[table, ids]);
        let extra = m.graph.sum_all(rows);
        let total = m.graph.sum_all(loss);
        let both = m.op(Op::Binary(Binary::Add), &[extra, total]);
        return m.finish("tied head in chunks", both);
    }
    m.finish("head in chunks", loss)
}

fn mlp_chain() -> Case {
    // relu(u)^2 with a bias, a gate and a residual: the shapes of fusion.
    let mut m = Maker::new();
    let (x, w, bias) = (m.param(&[3, 5, 4], 0.0), m.param(&[7, 4], 0.0), m.param(&[7], 0.1));
    let down = m.param(&[4, 7], 0.0);
    let gate = m.param(&[3, 5, 1], 0.0);
    let u = m.op(Op::Matmul { ta: false, tb: true }, &[x, w]);
    let u = m.op(Op::Binary(Binary::Add), &[u, bias]);
    let r = m.op(Op::Unary(Unary::Relu), &[u]);
    let s = m.op(Op::Binary(Binary::Mul), &[r, r]);
    let y = m.op(Op::Matmul { ta: false, tb: true }, &[s, down]);
    let g = m.op(Op::Unary(Unary::Sigmoid), &[gate]);
    let y = m.op(Op::Binary(Binary::Mul), &[y, g]);
    let out = m.op(Op::Binary(Binary::Add), &[x, y]);
    m.finish("mlp chain", out)
}

/// Queries and keys with biases, whose product has a residual: the gradient of x is a sum of products.
fn sums_of_products() -> Case {
    let mut m = Maker::new();
    let (x, y) = (m.param(&[3, 5, 4], 0.0), m.param(&[15, 4], 0.0));
    let [q, k] = [0, 1].map(|_| {
        let (w, bias) = (m.param(&[4, 4], 0.0), m.param(&[4], 0.3));
        let product = m.op(Op::Matmul { ta: false, tb: true }, &[x, w]);
        let flat = m.op(Op::Reshape { shape: vec![15, 4] }, &[product]);
        m.op(Op::Binary(Binary::Add), &[flat, bias])
    });
    let both = m.op(Op::Binary(Binary::Mul), &[q, k]);
    let w = m.param(&[4, 4], 0.0);
    let out = m.op(Op::Matmul { ta: false, tb: false }, &[both, w]);
    let normed = m.op(Op::RmsNorm { eps: 0.1 }, &[y]);
    let out = m.op(Op::Binary(Binary::Add), &[normed, out]);
    m.finish("sums of products", out)
}

fn joined() -> Case {
    let mut m = Maker::new();
    let (a, b) = (m.param(&[2, 1, 3], 0.0), m.param(&[2, 4, 3], 0.0));
    let both = m.op(Op::Concat { axis: 1 }, &[a, b, a]);
    let cut = m.op(Op::Slice { axis: 1, start: 1, len: 4 }, &[both]);
    let first = m.op(Op::Slice { axis: 0, start: 1, len: 1 }, &[cut]);
    let moved = m.op(Op::Transpose { perm: vec![2, 0, 1] }, &[first]);
    let padded = m.op(Op::Pad { axis: 2, before: 2, after: 1 }, &[moved]);
    m.finish("concat slice transpose pad", padded)
}

fn scan(reverse: bool, t: usize) -> Case {
    let mut m = Maker::new();
    let (a, x) = (m.param(&[2, t, 3], 0.0), m.param(&[2, t, 3], 0.0));
    let h = m.op(Op::Scan { reverse }, &[a, x]);
    m.finish(&format!("scan {reverse} {t}"), h)
}

fn dropout() -> Case {
    let mut m = Maker::new();
    let x = m.param(&[3, 7], 0.0);
    let rng = m.ints(InputKind::Rng, &[2], &[12, -5]);
    let y = m.op(Op::Dropout { rate: 0.3, stream: 2 }, &[x, rng]);
    let twice = m.op(Op::Binary(Binary::Mul), &[y, y]);
    m.finish("dropout", twice)
}

/// A LayerNorm after a residual sum, with learnt positions, a scale, a bias and a gate for each sequence.
fn layer_norm([b, t, c]: [usize; 3]) -> Case {
    let mut m = Maker::new();
    let (x, y) = (m.param(&[b, t, c], 0.0), m.param(&[b, t, c], 0.3));
    let (positions, gate) = (m.param(&[t, c], 0.0), m.param(&[b, 1, 1], 1.5));
    let (scale, bias) = (m.param(&[c], 1.0), m.param(&[c], 0.0));
    let moved = m.op(Op::Binary(Binary::Add), &[y, positions]);
    let gated = m.op(Op::Binary(Binary::Mul), &[moved, gate]);
    let sum = m.op(Op::Binary(Binary::Add), &[x, gated]);
    let mean = m.op(Op::Reduce { kind: Reduction::Sum, axis: 2 }, &[sum]);
    let mean = m.graph.scaled(mean, 1.0 / c as f32);
    let centred = m.op(Op::Binary(Binary::Sub), &[sum, mean]);
    let normed = m.op(Op::RmsNorm { eps: 0.1 }, &[centred]);
    let scaled = m.op(Op::Binary(Binary::Mul), &[normed, scale]);
    let out = m.op(Op::Binary(Binary::Add), &[scaled, bias]);
    let both = m.op(Op::Binary(Binary::Add), &[out, sum]);
    m.finish(&format!("layer norm {b} {t} {c}"), both)
}

/// Softmax as plain tensor code, and the sum of each row's logarithms.
fn plain_softmax(rows: usize, c: usize) -> Case {
    let mut m = Maker::new();
    let x = m.param(&[rows, c], 0.0);
    let peak = m.op(Op::Reduce { kind: Reduction::Max, axis: 1 }, &[x]);
    let below = m.op(Op::Binary(Binary::Sub), &[x, peak]);
    let e = m.op(Op::Unary(Unary::Exp), &[below]);
    let sum = m.op(Op::Reduce { kind: Reduction::Sum, axis: 1 }, &[e]);
    let share = m.op(Op::Binary(Binary::Div), &[e, sum]);
    let wide = m.op(Op::Expand { shape: vec![rows, c] }, &[sum]);
    let log = m.op(Op::Unary(Unary::Log), &[wide]);
    let out = m.op(Op::Binary(Binary::Sub), &[share, log]);
    m.finish(&format!("plain softmax {rows} {c}"), out)
}

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let positive = [Unary::Log, Unary::Sqrt, Unary::Rsqrt, Unary::Reciprocal];
    let anywhere = [
        Unary::Neg,
        Unary::Exp,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Relu,
        Unary::Erf,
        Unary::Abs,
        Unary::Sin,
        Unary::Cos,
    ];
    for op in anywhere {
        cases.push(unary(op.name(), Op::Unary(op), &[3, 5], 0.0));
    }
    for op in positive {
        cases.push(unary(op.name(), Op::Unary(op), &[3, 5], 2.0));
    }
    for op in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max, Binary::Min] {
        for (a, b) in [
            (&[2, 3, 4][..], &[2, 3, 4][..]),
            (&[2, 3, 4], &[4]),
            (&[3, 1], &[2, 3, 4]),
            (&[], &[1, 3]),
            (&[2, 1, 4], &[3, 1]),
        ] {
            cases.push(binary(op, a, b, 0.0));
        }
    }
    cases.push(binary(Binary::Div, &[2, 3], &[3], 2.0));
    let mut m = Maker::new();
    let x = m.param(&[5], 1.5);
    let e = m.graph.constant(2.7);
    let y = m.op(Op::Binary(Binary::Pow), &[x, e]);
    cases.push(m.finish("pow", y));
    for (axis, shape) in [(0, [4, 3, 2]), (1, [4, 3, 2]), (2, [4, 3, 5]), (1, [1, 700, 3]), (2, [3, 1, 1300])]
    {
        for kind in [Reduction::Sum, Reduction::Max] {
            cases.push(unary(&format!("{kind:?} {axis} {shape:?}"), Op::Reduce { kind, axis }, &shape, 0.0));
        }
    }
    cases.push(unary("expand", Op::Expand { shape: vec![2, 3, 4] }, &[3, 1], 0.0));
    cases.push(unary("rms_norm", Op::RmsNorm { eps: 1e-5 }, &[3, 5], 0.0));
    cases.push(unary("rms_norm of one", Op::RmsNorm { eps: 0.1 }, &[2, 1], 0.0));
    for mask in [Mask::Full, Mask::Causal { window: 9 }, Mask::Causal { window: 1 }] {
        cases.push(unary(&format!("softmax {mask:?}"), Op::Softmax { mask }, &[2, 5, 5], 0.0));
        for dims in [[2, 5, 2, 1, 3], [1, 1, 1, 1, 2], [1, 40, 4, 2, 8]] {
            cases.push(attention(mask, dims));
        }
    }
    cases.push(unary("rope", Op::Rope { base: 100.0, inverse: false }, &[2, 3, 2, 6], 0.0));
    for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
        let a: &[usize] = if ta { &[5, 3] } else { &[3, 5] };
        let b: &[usize] = if tb { &[4, 5] } else { &[5, 4] };
        cases.push(matmul(ta, tb, a, b));
        let a3: &[usize] = if ta { &[2, 5, 3] } else { &[2, 3, 5] };
        let b3: &[usize] = if tb { &[2, 4, 5] } else { &[2, 5, 4] };
        cases.push(matmul(ta, tb, a3, b3));
        if !ta {
            cases.push(matmul(ta, tb, a3, b));
        }
    }
    cases.push(matmul(false, true, &[1, 1], &[1, 1]));
    cases.extend([
        embedding(),
        cross_entropy(),
        head([2, 32], false),
        head([4, 16], true),
        mlp_chain(),
        sums_of_products(),
        joined(),
        dropout(),
    ]);
    for shape in [[2, 3, 5], [1, 1, 33], [3, 2, 1], [2, 5, 16], [1, 1, 1500]] {
        cases.push(layer_norm(shape));
    }
    for (rows, c) in [(3, 7), (1, 2), (37, 30), (1, 1100)] {
        cases.push(plain_softmax(rows, c));
    }
    cases.extend([scan(false, 4), scan(true, 4), scan(false, 1)]);
    cases.push(unary("top_k is flat", Op::TopK { k: 2 }, &[3, 5], 0.0));
    cases.push(unary("detach is flat", Op::Detach, &[3], 0.0));
    cases
}
