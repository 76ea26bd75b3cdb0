//! Reverse-mode differentiation: one exhaustive match that appends, for each operation, the
//! operations of its gradient. Nothing here knows what a parameter means.

use crate::graph::{Graph, Instr, ValueId};
use crate::op::{Binary, DType, Mask, Op, Reduction, Unary};

const FITS: &str = "autodiff combines shapes that the forward pass has already checked";

impl Graph {
    /// Appends the gradient of the scalar `loss` with respect to each of `wrt` and returns them in order;
    /// zeros where the loss does not depend on one. The forward part may hold no `*_backward` operation.
    pub fn gradients(&mut self, loss: ValueId, wrt: &[ValueId]) -> Vec<ValueId> {
        assert!(self.shape(loss).is_empty(), "the loss is a scalar, not {:?}", self.shape(loss));
        self.set_origin("");
        let wanted = self.depends_on(wrt);
        let mut backward = Backward { wanted, grads: vec![None; self.values.len()] };
        let num_instrs = self.values[loss.idx()].instr + 1;
        let one = self.constant(1.0);
        backward.grads[loss.idx()] = Some(one);
        for idx in (0..num_instrs).rev() {
            let instr = self.instrs[idx].clone();
            if instr.outputs.iter().any(|v| backward.grads[v.idx()].is_some()) {
                backward.instr(self, &instr);
            }
        }
        wrt.iter()
            .map(|v| match backward.grads[v.idx()] {
                Some(grad) => grad,
                None => {
                    let zero = self.constant(0.0);
                    let shape = self.shape(*v).to_vec();
                    self.expand(zero, &shape)
                }
            })
            .collect()
    }

    /// For each value, whether it is computed from one of `roots`.
    fn depends_on(&self, roots: &[ValueId]) -> Vec<bool> {
        let mut depends = vec![false; self.values.len()];
        for root in roots {
            depends[root.idx()] = true;
        }
        for instr in &self.instrs {
            if instr.inputs.iter().any(|v| depends[v.idx()]) {
                for output in &instr.outputs {
                    depends[output.idx()] = true;
                }
            }
        }
        depends
    }
}

struct Backward {
    /// Values on a path from a wanted leaf: only these receive a gradient.
    wanted: Vec<bool>,
    grads: Vec<Option<ValueId>>,
}

impl Backward {
    fn wants(&self, value: ValueId) -> bool {
        self.wanted[value.idx()]
    }

    fn give(&mut self, g: &mut Graph, to: ValueId, grad: ValueId) {
        if !self.wants(to) {
            return;
        }
        debug_assert_eq!(g.shape(to), g.shape(grad), "gradient of {}", g.describe(to));
        self.grads[to.idx()] = Some(match self.grads[to.idx()] {
            Some(before) => g.binary(Binary::Add, before, grad),
            None => grad,
        });
    }

    fn instr(&mut self, g: &mut Graph, instr: &Instr) {
        let input = &instr.inputs;
        let y = instr.outputs[0];
        if g.dtype(y) == DType::I32 {
            return;
        }
        let Some(dy) = self.grads[y.idx()] else {
            panic!("only the first output of {} can be differentiated", instr.op.name());
        };
        match &instr.op {
            Op::Input(_) | Op::Const(_) | Op::Iota { .. } | Op::TopK { .. } | Op::Detach => {}
            Op::Unary(unary) => self.unary(g, *unary, input[0], y, dy),
            Op::Binary(binary) => self.binary(g, *binary, input[0], input[1], y, dy),
            Op::Expand { .. } => {
                let shape = g.shape(input[0]).to_vec();
                let dx = g.sum_to(dy, &shape);
                self.give(g, input[0], dx);
            }
            Op::Reshape { .. } => {
                let shape = g.shape(input[0]).to_vec();
                let dx = g.reshape(dy, &shape);
                self.give(g, input[0], dx);
            }
            Op::Transpose { perm } => {
                let mut inverse = vec![0; perm.len()];
                for (out_axis, in_axis) in perm.iter().enumerate() {
                    inverse[*in_axis] = out_axis;
                }
                let dx = g.op1(Op::Transpose { perm: inverse }, dy);
                self.give(g, input[0], dx);
            }
            Op::Slice { axis, start, len } => {
                let after = g.shape(input[0])[*axis] - start - len;
                let dx = g.op1(Op::Pad { axis: *axis, before: *start, after }, dy);
                self.give(g, input[0], dx);
            }
            Op::Pad { axis, before, .. } => {
                let len = g.shape(input[0])[*axis];
                let dx = g.op1(Op::Slice { axis: *axis, start: *before, len }, dy);
                self.give(g, input[0], dx);
            }
            Op::Concat { axis } => self.concat(g, *axis, input, dy),
            Op::Reduce { kind, axis } => self.reduce(g, *kind, *axis, input[0], y, dy),
            Op::Matmul { ta, tb } => self.matmul(g, *ta, *tb, input[0], input[1], dy),
            Op::RmsNorm { .. } => {
                let dx = g.add(Op::RmsNormBackward, &[dy, input[0], instr.outputs[1]]).expect(FITS);
                self.give(g, input[0], dx);
            }
            Op::Softmax { .. } => {
                let dx = g.add(Op::SoftmaxBackward, &[dy, y]).expect(FITS);
                self.give(g, input[0], dx);
            }
            Op::Rope { base, inverse } => {
                let dx = g.op1(Op::Rope { base: *base, inverse: !inverse }, dy);
                self.give(g, input[0], dx);
            }
            Op::Embedding => {
                if self.wants(input[0]) {
                    let rows = g.shape(input[0])[0];
                    let dtable = g.add(Op::EmbeddingBackward { rows }, &[dy, input[1]]).expect(FITS);
                    self.give(g, input[0], dtable);
                }
            }
            Op::Attention { mask, scale } => self.attention(g, *mask, *scale, instr, dy),
            Op::CrossEntropy => {
                let inputs = [input[0], input[1], instr.outputs[1], dy];
                let dlogits = g.add(Op::CrossEntropyBackward, &inputs).expect(FITS);
                self.give(g, input[0], dlogits);
            }
            Op::Scan { reverse } => self.scan(g, *reverse, input[0], input[1], y, dy),
            Op::Dropout { rate, stream } => {
                let dx = g.add(Op::Dropout { rate: *rate, stream: *stream }, &[dy, input[1]]).expect(FITS);
                self.give(g, input[0], dx);
            }
            Op::RmsNormBackward
            | Op::SoftmaxBackward
            | Op::EmbeddingBackward { .. }
            | Op::AttentionBackward { .. }
            | Op::CrossEntropyBackward => {
                panic!("a gradient is not differentiated again: {}", instr.op.name())
            }
        }
    }

    fn unary(&mut self, g: &mut Graph, unary: Unary, x: ValueId, y: ValueId, dy: ValueId) {
        if !self.wants(x) {
            return;
        }
        let slope = match unary {
            Unary::Neg => g.constant(-1.0),
            Unary::Exp => y,
            Unary::Log => g.unary(Unary::Reciprocal, x),
            Unary::Sqrt => {
                let r = g.unary(Unary::Reciprocal, y);
                g.scale(r, 0.5)
            }
            Unary::Rsqrt => {
                let y2 = g.mul(y, y);
                let y3 = g.mul(y2, y);
                g.scale(y3, -0.5)
            }
            Unary::Reciprocal => {
                let y2 = g.mul(y, y);
                g.unary(Unary::Neg, y2)
            }
            Unary::Tanh => {
                let y2 = g.mul(y, y);
                one_minus(g, y2)
            }
            Unary::Sigmoid => {
                let rest = one_minus(g, y);
                g.mul(y, rest)
            }
            Unary::Relu => {
                let zero = g.constant(0.0);
                let not_positive = g.binary(Binary::Ge, zero, x);
                one_minus(g, not_positive)
            }
            Unary::Erf => {
                let x2 = g.mul(x, x);
                let minus = g.unary(Unary::Neg, x2);
                let bell = g.unary(Unary::Exp, minus);
                g.scale(bell, std::f32::consts::FRAC_2_SQRT_PI)
            }
            Unary::Abs => {
                let zero = g.constant(0.0);
                let up = g.binary(Binary::Ge, x, zero);
                let down = g.binary(Binary::Ge, zero, x);
                g.binary(Binary::Sub, up, down)
            }
            Unary::Sin => g.unary(Unary::Cos, x),
            Unary::Cos => {
                let sin = g.unary(Unary::Sin, x);
                g.unary(Unary::Neg, sin)
            }
            Unary::Floor | Unary::ToFloat => return,
        };
        let dx = g.mul(dy, slope);
        self.give(g, x, dx);
    }

    fn binary(&mut self, g: &mut Graph, binary: Binary, a: ValueId, b: ValueId, y: ValueId, dy: ValueId) {
        let (da, db) = match binary {
            Binary::Add => (Some(dy), Some(dy)),
            Binary::Sub => (Some(dy), self.wants(b).then(|| g.unary(Unary::Neg, dy))),
            Binary::Mul => (self.wants(a).then(|| g.mul(dy, b)), self.wants(b).then(|| g.mul(dy, a))),
            Binary::Div => {
                let da = g.binary(Binary::Div, dy, b);
                let db = self.wants(b).then(|| {
                    let minus = g.mul(da, y);
                    g.unary(Unary::Neg, minus)
                });
                (Some(da), db)
            }
            Binary::Max | Binary::Min => {
                let (x, z) = if binary == Binary::Max { (a, b) } else { (b, a) };
                let mask = g.binary(Binary::Ge, x, z);
                let da = g.mul(dy, mask);
                let rest = one_minus(g, mask);
                (Some(da), Some(g.mul(dy, rest)))
            }
            Binary::Pow => {
                let one = g.constant(1.0);
                let less = g.binary(Binary::Sub, b, one);
                let power = g.binary(Binary::Pow, a, less);
                let slope = g.mul(power, b);
                (Some(g.mul(dy, slope)), None)
            }
            Binary::Rem | Binary::Ge | Binary::Eq => (None, None),
        };
        for (to, grad) in [(a, da), (b, db)] {
            if let Some(grad) = grad
                && self.wants(to)
            {
                let shape = g.shape(to).to_vec();
                let grad = g.sum_to(grad, &shape);
                self.give(g, to, grad);
            }
        }
    }

    fn concat(&mut self, g: &mut Graph, axis: usize, inputs: &[ValueId], dy: ValueId) {
        let mut start = 0;
        for x in inputs {
            let len = g.shape(*x)[axis];
            if self.wants(*x) {
                let dx = g.op1(Op::Slice { axis, start, len }, dy);
                self.give(g, *x, dx);
            }
            start += len;
        }
    }

    fn reduce(&mut self, g: &mut Graph, kind: Reduction, axis: usize, x: ValueId, y: ValueId, dy: ValueId) {
        let shape = g.shape(x).to_vec();
        let dx = match kind {
            Reduction::Sum => g.expand(dy, &shape),
            Reduction::Max => {
                let mask = g.binary(Binary::Eq, x, y);
                let ties = g.op1(Op::Reduce { kind: Reduction::Sum, axis }, mask);
                let share = g.binary(Binary::Div, dy, ties);
                g.mul(mask, share)
            }
        };
        self.give(g, x, dx);
    }

    /// C = A' B' with A' = A or its transpose: dA' = dC B'^T, dB' = A'^T dC, each written without copies.
    fn matmul(&mut self, g: &mut Graph, ta: bool, tb: bool, a: ValueId, b: ValueId, dc: ValueId) {
        if self.wants(a) {
            let da = match ta {
                false => g.add(Op::Matmul { ta: false, tb: !tb }, &[dc, b]),
                true => g.add(Op::Matmul { ta: tb, tb: true }, &[b, dc]),
            };
            self.give(g, a, da.expect(FITS));
        }
        if self.wants(b) {
            let (a, dc) = if g.shape(b).len() == 2 { (g.as_rows(a), g.as_rows(dc)) } else { (a, dc) };
            let db = match tb {
                false => g.add(Op::Matmul { ta: !ta, tb: false }, &[a, dc]),
                true => g.add(Op::Matmul { ta: true, tb: ta }, &[dc, a]),
            };
            self.give(g, b, db.expect(FITS));
        }
    }

    fn attention(&mut self, g: &mut Graph, mask: Mask, scale: f32, instr: &Instr, dout: ValueId) {
        let [q, k, v] = [instr.inputs[0], instr.inputs[1], instr.inputs[2]];
        let inputs = [dout, instr.outputs[0], instr.outputs[1], q, k, v];
        let grads = g.add_all(Op::AttentionBackward { mask, scale }, &inputs).expect(FITS);
        for (to, grad) in [q, k, v].into_iter().zip(grads) {
            self.give(g, to, grad);
        }
    }

    /// With g_t = dh_t + a_(t+1) g_(t+1): dx = g and da_t = g_t h_(t-1); mirrored when reversed.
    fn scan(&mut self, g: &mut Graph, reverse: bool, a: ValueId, x: ValueId, h: ValueId, dh: ValueId) {
        let next_a = shift_time(g, a, !reverse);
        let grad = g.add(Op::Scan { reverse: !reverse }, &[next_a, dh]).expect(FITS);
        self.give(g, x, grad);
        if self.wants(a) {
            let before = shift_time(g, h, reverse);
            let da = g.mul(grad, before);
            self.give(g, a, da);
        }
    }
}

fn one_minus(g: &mut Graph, x: ValueId) -> ValueId {
    let one = g.constant(1.0);
    g.binary(Binary::Sub, one, x)
}

/// Axis 1 moved by one position, zeros entering: position t holds t+1 (`earlier`) or t-1.
fn shift_time(g: &mut Graph, x: ValueId, earlier: bool) -> ValueId {
    let len = g.shape(x)[1] - 1;
    if len == 0 {
        return g.scale(x, 0.0);
    }
    let (start, before) = if earlier { (1, 0) } else { (0, 1) };
    let kept = g.op1(Op::Slice { axis: 1, start, len }, x);
    g.op1(Op::Pad { axis: 1, before, after: 1 - before }, kept)
}

impl Graph {
    /// All leading axes as one: (.., C) -> (N, C).
    pub(crate) fn as_rows(&mut self, x: ValueId) -> ValueId {
        let shape = self.shape(x);
        if shape.len() == 2 {
            return x;
        }
        let last = shape[shape.len() - 1];
        let rows = shape[..shape.len() - 1].iter().product();
        self.reshape(x, &[rows, last])
    }
}
