//! The definition of every operation: plain loops, in float32 or float64, one operation after another
//! with nothing fused. Kernels must agree with it; gradients are checked on it by finite differences.
//!
//! It refuses to be fast.

use pawl_graph::{Binary, DType, Graph, InputKind, Instr, Mask, Op, Reduction, Unary, ValueId};
use std::collections::BTreeMap;

mod elements;

pub(crate) use elements::binary_int;
use elements::{binary, broadcast_index, four, keys, positions, transpose_index, unary};

/// A tensor of the reference: row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// Floats, held in float64; rounded after each operation when the interpreter runs in float32.
    Real(Vec<f64>),
    /// Integers.
    Int(Vec<i32>),
}

impl Tensor {
    /// The floats; panics on integers.
    pub fn real(&self) -> &[f64] {
        match self {
            Tensor::Real(x) => x,
            Tensor::Int(_) => panic!("integers where floats belong"),
        }
    }

    /// The integers; panics on floats.
    pub fn int(&self) -> &[i32] {
        match self {
            Tensor::Int(x) => x,
            Tensor::Real(_) => panic!("floats where integers belong"),
        }
    }
}

/// Values of the leaves by kind and name.
pub type Leaves = BTreeMap<(InputKindKey, String), Tensor>;

/// An orderable name of an [`InputKind`].
pub type InputKindKey = &'static str;

/// Key of a leaf in [`Leaves`].
pub fn leaf(kind: &InputKind, name: &str) -> (InputKindKey, String) {
    let kind = match kind {
        InputKind::Param => "param",
        InputKind::Tokens => "tokens",
        InputKind::Targets => "targets",
        InputKind::Signal => "signal",
        InputKind::Rng => "rng",
        InputKind::Grad => "grad",
        InputKind::State => "state",
        InputKind::Scalar => "scalar",
    };
    (kind, name.to_string())
}

/// Runs what `outputs` need and returns them. `round` is applied to every float that an operation
/// produces: identity for float64, `|x| f64::from(x as f32)` for float32 results.
pub fn run(graph: &Graph, leaves: &Leaves, outputs: &[ValueId], round: fn(f64) -> f64) -> Vec<Tensor> {
    let needed = graph.needed(outputs);
    let mut values: Vec<Option<Tensor>> = vec![None; graph.values.len()];
    for (instr, needed) in graph.instrs.iter().zip(needed) {
        if !needed {
            continue;
        }
        let results = if let Op::Input(idx) = &instr.op {
            let input = &graph.inputs[*idx];
            let key = leaf(&input.kind, &input.name);
            vec![leaves.get(&key).unwrap_or_else(|| panic!("leaf {key:?} is not given")).clone()]
        } else {
            let value = |v: &ValueId| values[v.idx()].as_ref().expect("instructions are in order");
            let inputs = instr.inputs.iter().map(value).collect();
            Step { graph, instr, inputs }.run()
        };
        for (output, mut tensor) in instr.outputs.iter().zip(results) {
            if let Tensor::Real(x) = &mut tensor {
                x.iter_mut().for_each(|x| *x = round(*x));
                assert_eq!(x.len(), graph.values[output.idx()].len(), "{}", instr.op.name());
            }
            values[output.idx()] = Some(tensor);
        }
    }
    outputs.iter().map(|v| values[v.idx()].clone().expect("outputs were needed")).collect()
}

struct Step<'a> {
    graph: &'a Graph,
    instr: &'a Instr,
    inputs: Vec<&'a Tensor>,
}

impl Step<'_> {
    fn x(&self, k: usize) -> &[f64] {
        self.inputs[k].real()
    }

    fn shape(&self, k: usize) -> &[usize] {
        self.graph.shape(self.instr.inputs[k])
    }

    fn out_shape(&self) -> &[usize] {
        self.graph.shape(self.instr.outputs[0])
    }

    /// Rows and length of the last axis of input k.
    fn rows(&self, k: usize) -> (usize, usize) {
        let c = *self.shape(k).last().expect("row operations have a last axis");
        (self.x(k).len() / c, c)
    }

    fn run(&self) -> Vec<Tensor> {
        let one = |x: Vec<f64>| vec![Tensor::Real(x)];
        match &self.instr.op {
            Op::Input(_) => unreachable!("leaves are given"),
            Op::Const(number) => one(vec![f64::from(*number)]),
            Op::Iota { n } => vec![Tensor::Int((0..*n as i32).collect())],
            Op::Unary(Unary::ToFloat) => one(self.inputs[0].int().iter().map(|i| f64::from(*i)).collect()),
            Op::Unary(u) => one(self.x(0).iter().map(|x| unary(*u, *x)).collect()),
            Op::Binary(b) => vec![self.binary(*b)],
            Op::Expand { .. } => vec![self.gather(&broadcast_index(self.shape(0), self.out_shape()))],
            Op::Reshape { .. } | Op::Detach => vec![self.inputs[0].clone()],
            Op::Transpose { perm } => vec![self.gather(&transpose_index(self.shape(0), perm))],
            Op::Slice { axis, start, .. } => vec![self.gather(&self.slice_index(*axis, *start))],
            Op::Pad { axis, before, .. } => vec![self.pad(*axis, *before)],
            Op::Concat { axis } => vec![self.concat(*axis)],
            Op::Reduce { kind, axis } => one(self.reduce(*kind, *axis)),
            Op::Matmul { ta, tb } => one(self.matmul(*ta, *tb)),
            Op::RmsNorm { eps } => self.rms_norm(f64::from(*eps)),
            Op::RmsNormBackward => one(self.rms_norm_backward()),
            Op::Softmax { mask } => one(self.softmax(*mask)),
            Op::SoftmaxBackward => one(self.softmax_backward()),
            Op::Rope { base, inverse } => one(self.rope(f64::from(*base), *inverse)),
            Op::Embedding => one(self.embedding()),
            Op::EmbeddingBackward { rows } => one(self.embedding_backward(*rows)),
            Op::Attention { mask, scale } => self.attention(*mask, f64::from(*scale)),
            Op::AttentionBackward { mask, scale } => self.attention_backward(*mask, f64::from(*scale)),
            Op::CrossEntropy => self.cross_entropy(),
            Op::CrossEntropyBackward => one(self.cross_entropy_backward()),
            Op::Scan { reverse } => one(self.scan(*reverse)),
            Op::TopK { k } => one(self.top_k(*k)),
            Op::Dropout { rate, stream } => one(self.dropout(*rate, *stream)),
        }
    }

    /// Output element i is input element index[i].
    fn gather(&self, index: &[usize]) -> Tensor {
        match self.inputs[0] {
            Tensor::Real(x) => Tensor::Real(index.iter().map(|i| x[*i]).collect()),
            Tensor::Int(x) => Tensor::Int(index.iter().map(|i| x[*i]).collect()),
        }
    }

    fn binary(&self, op: Binary) -> Tensor {
        let ia = broadcast_index(self.shape(0), self.out_shape());
        let ib = broadcast_index(self.shape(1), self.out_shape());
        match (self.inputs[0], self.inputs[1]) {
            (Tensor::Real(a), Tensor::Real(b)) => {
                Tensor::Real(ia.iter().zip(&ib).map(|(i, j)| binary(op, a[*i], b[*j])).collect())
            }
            (Tensor::Int(a), Tensor::Int(b)) => {
                Tensor::Int(ia.iter().zip(&ib).map(|(i, j)| binary_int(op, a[*i], b[*j])).collect())
            }
            _ => panic!("operands of one type"),
        }
    }

    fn slice_index(&self, axis: usize, start: usize) -> Vec<usize> {
        let shape = self.shape(0);
        let (out, inner) = (self.out_shape(), shape[axis + 1..].iter().product::<usize>());
        let outer: usize = shape[..axis].iter().product();
        let mut index = Vec::new();
        for o in 0..outer {
            for a in 0..out[axis] {
                for i in 0..inner {
                    index.push((o * shape[axis] + start + a) * inner + i);
                }
            }
        }
        index
    }

    fn pad(&self, axis: usize, before: usize) -> Tensor {
        let (shape, out) = (self.shape(0), self.out_shape());
        let inner: usize = shape[axis + 1..].iter().product();
        let len: usize = out.iter().product();
        let place = |i: usize| {
            let (o, rest) = (i / (shape[axis] * inner), i % (shape[axis] * inner));
            o * out[axis] * inner + before * inner + rest
        };
        match self.inputs[0] {
            Tensor::Real(x) => {
                let mut y = vec![0.0; len];
                x.iter().enumerate().for_each(|(i, x)| y[place(i)] = *x);
                Tensor::Real(y)
            }
            Tensor::Int(x) => {
                let mut y = vec![0; len];
                x.iter().enumerate().for_each(|(i, x)| y[place(i)] = *x);
                Tensor::Int(y)
            }
        }
    }

    fn concat(&self, axis: usize) -> Tensor {
        let outer: usize = self.shape(0)[..axis].iter().product();
        let inner: usize = self.shape(0)[axis + 1..].iter().product();
        let mut real = Vec::new();
        let mut int = Vec::new();
        for o in 0..outer {
            for k in 0..self.inputs.len() {
                let run = self.shape(k)[axis] * inner;
                match self.inputs[k] {
                    Tensor::Real(x) => real.extend_from_slice(&x[o * run..(o + 1) * run]),
                    Tensor::Int(x) => int.extend_from_slice(&x[o * run..(o + 1) * run]),
                }
            }
        }
        match self.graph.dtype(self.instr.outputs[0]) {
            DType::F32 => Tensor::Real(real),
            DType::I32 => Tensor::Int(int),
        }
    }

    fn reduce(&self, kind: Reduction, axis: usize) -> Vec<f64> {
        let (x, shape) = (self.x(0), self.shape(0));
        let (outer, n) = (shape[..axis].iter().product::<usize>(), shape[axis]);
        let inner: usize = shape[axis + 1..].iter().product();
        let mut y = Vec::with_capacity(outer * inner);
        for o in 0..outer {
            for i in 0..inner {
                let line = (0..n).map(|a| x[(o * n + a) * inner + i]);
                y.push(match kind {
                    Reduction::Sum => line.sum(),
                    Reduction::Max => line.fold(f64::NEG_INFINITY, f64::max),
                });
            }
        }
        y
    }

    fn matmul(&self, ta: bool, tb: bool) -> Vec<f64> {
        let (sa, sb, out) = (self.shape(0), self.shape(1), self.out_shape());
        let rank = out.len();
        let (m, n) = (out[rank - 2], out[rank - 1]);
        let k = if ta { sa[sa.len() - 2] } else { sa[sa.len() - 1] };
        let batch: usize = out[..rank - 2].iter().product();
        let shared = sb.len() == 2;
        let (a, b) = (self.x(0), self.x(1));
        let mut c = vec![0.0; batch * m * n];
        for s in 0..batch {
            let b0 = if shared { 0 } else { s * k * n };
            for i in 0..m {
                for j in 0..n {
                    let mut sum = 0.0;
                    for p in 0..k {
                        let x = a[s * m * k + if ta { p * m + i } else { i * k + p }];
                        let y = b[b0 + if tb { j * k + p } else { p * n + j }];
                        sum += x * y;
                    }
                    c[(s * m + i) * n + j] = sum;
                }
            }
        }
        c
    }

    fn rms_norm(&self, eps: f64) -> Vec<Tensor> {
        let (n, c) = self.rows(0);
        let (mut y, mut rstd) = (Vec::new(), Vec::new());
        for r in 0..n {
            let row = &self.x(0)[r * c..(r + 1) * c];
            let s = 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / c as f64 + eps).sqrt();
            y.extend(row.iter().map(|x| x * s));
            rstd.push(s);
        }
        vec![Tensor::Real(y), Tensor::Real(rstd)]
    }

    /// With y = x r and r = (mean x^2 + eps)^(-1/2): dx = r (dy - x r^2 mean(dy x)).
    fn rms_norm_backward(&self) -> Vec<f64> {
        let (n, c) = self.rows(0);
        let mut dx = Vec::new();
        for r in 0..n {
            let (dy, x, s) = (&self.x(0)[r * c..(r + 1) * c], &self.x(1)[r * c..(r + 1) * c], self.x(2)[r]);
            let mean = dy.iter().zip(x).map(|(d, x)| d * x).sum::<f64>() / c as f64;
            dx.extend(dy.iter().zip(x).map(|(d, x)| s * (d - x * s * s * mean)));
        }
        dx
    }

    fn softmax(&self, mask: Mask) -> Vec<f64> {
        let (n, c) = self.rows(0);
        let mut y = vec![0.0; n * c];
        for r in 0..n {
            let seen = keys(mask, r % c, c);
            let row = &self.x(0)[r * c..(r + 1) * c][seen.clone()];
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|x| (x - top).exp()).sum();
            for (k, x) in seen.zip(row) {
                y[r * c + k] = (x - top).exp() / sum;
            }
        }
        y
    }

    fn softmax_backward(&self) -> Vec<f64> {
        let (n, c) = self.rows(0);
        let mut dx = Vec::new();
        for r in 0..n {
            let (dy, y) = (&self.x(0)[r * c..(r + 1) * c], &self.x(1)[r * c..(r + 1) * c]);
            let dot: f64 = dy.iter().zip(y).map(|(d, y)| d * y).sum();
            dx.extend(dy.iter().zip(y).map(|(d, y)| y * (d - dot)));
        }
        dx
    }

    fn rope(&self, base: f64, inverse: bool) -> Vec<f64> {
        let shape = self.shape(0);
        let (t, h, d) = (shape[1], shape[2], shape[3]);
        let x = self.x(0);
        let mut y = vec![0.0; x.len()];
        for row in 0..x.len() / d {
            let position = (row / h % t) as f64;
            for c in 0..d / 2 {
                let angle = position * base.powf(-2.0 * c as f64 / d as f64);
                let (sin, cos) = if inverse { (-angle).sin_cos() } else { angle.sin_cos() };
                let (x1, x2) = (x[row * d + c], x[row * d + c + d / 2]);
                y[row * d + c] = x1 * cos + x2 * sin;
                y[row * d + c + d / 2] = x2 * cos - x1 * sin;
            }
        }
        y
    }

    fn embedding(&self) -> Vec<f64> {
        let (v, c) = (self.shape(0)[0], self.shape(0)[1]);
        let row = |id: &i32| id.rem_euclid(v as i32) as usize;
        self.inputs[1]
            .int()
            .iter()
            .flat_map(|id| self.x(0)[row(id) * c..(row(id) + 1) * c].to_vec())
            .collect()
    }

    fn embedding_backward(&self, v: usize) -> Vec<f64> {
        let (_, c) = self.rows(0);
        let mut dtable = vec![0.0; v * c];
        for (r, id) in self.inputs[1].int().iter().enumerate() {
            for k in 0..c {
                dtable[id.rem_euclid(v as i32) as usize * c + k] += self.x(0)[r * c + k];
            }
        }
        dtable
    }

    /// Probabilities of query (b, i, head) over the keys it sees, and their log normaliser.
    fn probabilities(
        &self,
        q: usize,
        mask: Mask,
        scale: f64,
        at: [usize; 3],
    ) -> (Vec<f64>, f64, std::ops::Range<usize>) {
        let ([b, i, head], [_, t, h, d]) = (at, four(self.shape(q)));
        let kv = self.shape(q + 1)[2];
        let kv_head = head / (h / kv);
        let seen = keys(mask, i, t);
        let query = &self.x(q)[((b * t + i) * h + head) * d..][..d];
        let scores: Vec<f64> = seen
            .clone()
            .map(|j| {
                let key = &self.x(q + 1)[((b * t + j) * kv + kv_head) * d..][..d];
                scale * query.iter().zip(key).map(|(x, y)| x * y).sum::<f64>()
            })
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        (scores.iter().map(|s| (s - top).exp() / sum).collect(), top + sum.ln(), seen)
    }

    fn attention(&self, mask: Mask, scale: f64) -> Vec<Tensor> {
        let [b, t, h, d] = four(self.shape(0));
        let kv = self.shape(1)[2];
        let (mut out, mut lse) = (vec![0.0; b * t * h * d], vec![0.0; b * h * t]);
        for at in positions(b, t, h) {
            let (p, normaliser, seen) = self.probabilities(0, mask, scale, at);
            let [b, i, head] = at;
            lse[(b * h + head) * t + i] = normaliser;
            for (p, j) in p.iter().zip(seen) {
                for c in 0..d {
                    out[((b * t + i) * h + head) * d + c] +=
                        p * self.x(2)[((b * t + j) * kv + head / (h / kv)) * d + c];
                }
            }
        }
        vec![Tensor::Real(out), Tensor::Real(lse)]
    }

    fn attention_backward(&self, mask: Mask, scale: f64) -> Vec<Tensor> {
        let [b, t, h, d] = four(self.shape(3));
        let kv = self.shape(4)[2];
        let (dout, q, k, v) = (self.x(0), self.x(3), self.x(4), self.x(5));
        let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
        for at in positions(b, t, h) {
            let (p, _, seen) = self.probabilities(3, mask, scale, at);
            let [b, i, head] = at;
            let query = ((b * t + i) * h + head) * d;
            let key = |j: usize| ((b * t + j) * kv + head / (h / kv)) * d;
            let dp: Vec<f64> =
                seen.clone().map(|j| (0..d).map(|c| dout[query + c] * v[key(j) + c]).sum()).collect();
            let dot: f64 = p.iter().zip(&dp).map(|(p, d)| p * d).sum();
            for ((p, dp), j) in p.iter().zip(&dp).zip(seen) {
                let ds = p * (dp - dot) * scale;
                for c in 0..d {
                    dv[key(j) + c] += p * dout[query + c];
                    dq[query + c] += ds * k[key(j) + c];
                    dk[key(j) + c] += ds * q[query + c];
                }
            }
        }
        vec![Tensor::Real(dq), Tensor::Real(dk), Tensor::Real(dv)]
    }

    fn cross_entropy(&self) -> Vec<Tensor> {
        let (n, v) = self.rows(0);
        let (mut loss, mut lse) = (Vec::new(), Vec::new());
        for r in 0..n {
            let row = &self.x(0)[r * v..(r + 1) * v];
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let normaliser = top + row.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
            let target = self.inputs[1].int()[r];
            loss.push(if target < 0 { 0.0 } else { normaliser - row[target as usize] });
            lse.push(normaliser);
        }
        vec![Tensor::Real(loss), Tensor::Real(lse)]
    }

    fn cross_entropy_backward(&self) -> Vec<f64> {
        let (n, v) = self.rows(0);
        let mut dlogits = vec![0.0; n * v];
        for r in 0..n {
            let target = self.inputs[1].int()[r];
            if target < 0 {
                continue;
            }
            for c in 0..v {
                let p = (self.x(0)[r * v + c] - self.x(2)[r]).exp();
                dlogits[r * v + c] = (p - f64::from(u8::from(c == target as usize))) * self.x(3)[r];
            }
        }
        dlogits
    }

    fn scan(&self, reverse: bool) -> Vec<f64> {
        let (b, t, c) = (self.shape(0)[0], self.shape(0)[1], self.shape(0)[2]);
        let (a, x) = (self.x(0), self.x(1));
        let mut h = vec![0.0; x.len()];
        for s in 0..b {
            for k in 0..c {
                let mut state = 0.0;
                for step in 0..t {
                    let i = (s * t + if reverse { t - 1 - step } else { step }) * c + k;
                    state = a[i] * state + x[i];
                    h[i] = state;
                }
            }
        }
        h
    }

    fn top_k(&self, k: usize) -> Vec<f64> {
        let (n, c) = self.rows(0);
        let mut mask = vec![0.0; n * c];
        for r in 0..n {
            let row = &self.x(0)[r * c..(r + 1) * c];
            for i in 0..c {
                let ahead = (0..c).filter(|j| row[*j] > row[i] || (row[*j] == row[i] && *j < i)).count();
                mask[r * c + i] = f64::from(u8::from(ahead < k));
            }
        }
        mask
    }

    fn dropout(&self, rate: f32, stream: u32) -> Vec<f64> {
        let key = self.inputs[1].int();
        let kept =
            |i: usize| crate::philox::uniform([key[0] as u32, key[1] as u32], stream, i as u64) >= rate;
        let scale = f64::from(1.0 / (1.0 - rate));
        self.x(0).iter().enumerate().map(|(i, x)| if kept(i) { x * scale } else { 0.0 }).collect()
    }
}
