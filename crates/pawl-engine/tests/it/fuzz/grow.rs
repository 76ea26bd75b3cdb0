//! Random programs over the whole of `Op`. Every value carries the range that its elements are expected in, so
//! that logarithms get what is positive, exponentials what is small, and nothing overflows.

use super::random::Random;
use crate::cases::Case;
use pawl_engine::reference::{Leaves, Tensor, leaf};
use pawl_graph::{Binary, DType, Graph, InputKind, Op, Reduction, Unary, ValueId};

mod layers;

/// Elements of the largest tensor.
const MAX_LEN: usize = 6000;
/// Multiply-adds of the largest product or attention: the definition does some hundred million a second.
const MAX_WORK: usize = 300_000;
/// Magnitude from which on values are scaled down.
const MAX_SIZE: f32 = 12.0;

/// A float value that later operations may read.
#[derive(Clone, Copy)]
pub(super) struct Live {
    pub(super) value: ValueId,
    lo: f32,
    hi: f32,
}

impl Live {
    fn size(self) -> f32 {
        self.lo.abs().max(self.hi.abs())
    }
}

/// How the numbers of a leaf are drawn.
#[derive(Clone, Copy)]
enum Draw {
    Real(f32, f32),
    Int(i32, i32),
}

/// Which operations a program is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All of them.
    Any,
    /// Products and what is smooth: what rounded operands move by little.
    Products,
}

pub(super) struct Grower {
    pub(super) graph: Graph,
    pub(super) random: Random,
    /// Leaves that are differentiated.
    pub(super) params: Vec<ValueId>,
    pub(super) live: Vec<Live>,
    kind: Kind,
    draws: Vec<Draw>,
    ints: Vec<ValueId>,
}

impl Grower {
    pub(super) fn new(seed: u64, kind: Kind) -> Grower {
        Grower {
            graph: Graph::new(),
            random: Random::new(seed),
            params: Vec::new(),
            live: Vec::new(),
            kind,
            draws: Vec::new(),
            ints: Vec::new(),
        }
    }

    /// Numbers for all leaves.
    pub(super) fn leaves(&self, seed: u64) -> Leaves {
        let mut random = Random::new(seed);
        let inputs = self.graph.inputs.iter().zip(&self.draws);
        let tensor = |len: usize, draw: Draw| match draw {
            Draw::Real(lo, hi) => Tensor::Real((0..len).map(|_| f64::from(random.real(lo, hi))).collect()),
            Draw::Int(lo, hi) => Tensor::Int((0..len).map(|_| random.int(lo, hi)).collect()),
        };
        let lens = inputs.clone().map(|(input, _)| self.graph.values[input.value.idx()].len());
        let tensors: Vec<Tensor> = lens.zip(&self.draws).scan(tensor, |t, (l, d)| Some(t(l, *d))).collect();
        inputs.zip(tensors).map(|((input, _), tensor)| (leaf(&input.kind, &input.name), tensor)).collect()
    }

    /// A leaf with numbers in `lo..hi`.
    pub(super) fn leaf(&mut self, kind: InputKind, shape: &[usize], lo: f32, hi: f32) -> Live {
        let name = format!("x{}", self.draws.len());
        let value = self.graph.input(&name, kind.clone(), shape, DType::F32);
        self.draws.push(Draw::Real(lo, hi));
        if kind == InputKind::Param {
            self.params.push(value);
        }
        Live { value, lo, hi }
    }

    fn int_leaf(&mut self, kind: InputKind, shape: &[usize], lo: i32, hi: i32) -> ValueId {
        let name = format!("x{}", self.draws.len());
        self.draws.push(Draw::Int(lo, hi));
        self.graph.input(&name, kind, shape, DType::I32)
    }

    /// Mostly parameters, now and then of positive numbers only, now and then not differentiated.
    fn new_leaf(&mut self, shape: &[usize]) -> Live {
        let (lo, hi) = if self.random.one_in(4) { (0.5, 2.0) } else { (-1.0, 1.0) };
        let kind = if self.random.one_in(5) { InputKind::State } else { InputKind::Param };
        self.leaf(kind, shape, lo, hi)
    }

    fn shape(&self, value: ValueId) -> Vec<usize> {
        self.graph.shape(value).to_vec()
    }

    fn len(&self, value: ValueId) -> usize {
        self.graph.values[value.idx()].len()
    }

    /// Appends an operation whose shapes may not fit, and whose result may be too large to be of use.
    fn op(&mut self, op: Op, inputs: &[ValueId]) -> Option<ValueId> {
        let value = self.graph.add(op, inputs).ok()?;
        (self.len(value) <= MAX_LEN).then_some(value)
    }

    fn bounded(&mut self, op: Op, inputs: &[ValueId], lo: f32, hi: f32) -> Option<Live> {
        self.op(op, inputs).map(|value| Live { value, lo, hi })
    }

    /// One of the last values, or a new leaf of `rank` axes.
    fn operand(&mut self, rank: usize) -> Live {
        if !self.live.is_empty() && !self.random.one_in(4) {
            let back = self.random.below(self.live.len().min(4));
            return self.live[self.live.len() - 1 - back];
        }
        let shape = self.random.shape(rank, MAX_LEN);
        self.new_leaf(&shape)
    }

    /// A value of a given shape: one that exists, or a leaf.
    fn like(&mut self, shape: &[usize]) -> Live {
        let fits: Vec<Live> =
            self.live.iter().copied().filter(|x| self.graph.shape(x.value) == shape).collect();
        if fits.is_empty() || self.random.one_in(2) { self.new_leaf(shape) } else { self.random.pick(&fits) }
    }

    fn reshaped(&mut self, x: Live, shape: &[usize]) -> Option<Live> {
        if self.graph.shape(x.value) == shape {
            return Some(x);
        }
        self.bounded(Op::Reshape { shape: shape.to_vec() }, &[x.value], x.lo, x.hi)
    }

    /// Back to numbers around one.
    fn settled(&mut self, x: Live) -> Option<Live> {
        let size = x.size();
        let by = match size {
            _ if size > MAX_SIZE => 2.0 / size,
            _ if size < 0.05 => 1.0 / size.max(1e-6),
            _ => return Some(x),
        };
        let value = self.graph.scaled(x.value, by);
        Some(Live { value, lo: x.lo * by, hi: x.hi * by })
    }

    /// Appends one operation; `live` grows.
    pub(super) fn grow(&mut self) {
        loop {
            let choice = self.random.below(28);
            let grown = match self.kind {
                Kind::Any => self.any(choice),
                Kind::Products => self.smooth(choice),
            };
            if let Some(x) = grown.and_then(|x| self.settled(x)) {
                self.live.push(x);
                return;
            }
        }
    }

    fn any(&mut self, choice: usize) -> Option<Live> {
        match choice {
            0..3 => self.unary(),
            3..7 => self.binary(),
            7..11 => {
                let rank = 1 + self.random.below(4);
                let x = self.operand(rank);
                let value = self.moved(x.value)?;
                Some(Live { value, lo: x.lo.min(0.0), hi: x.hi.max(0.0) })
            }
            11 | 12 => self.reduce(),
            13..16 => self.matmul(),
            16 | 17 => self.rms_norm(),
            18 => self.softmax(),
            19 => self.rope(),
            20 => self.embedding(),
            21 => self.attention(),
            22 => self.cross_entropy(),
            23 => self.scan(),
            24 => self.top_k(),
            25 => self.dropout(),
            26 => self.counted(),
            _ => {
                let x = self.operand(2);
                self.bounded(Op::Detach, &[x.value], x.lo, x.hi)
            }
        }
    }

    fn smooth(&mut self, choice: usize) -> Option<Live> {
        match choice {
            0..12 => self.matmul(),
            12..16 => self.attention(),
            16 | 17 => self.rms_norm(),
            18 => self.softmax(),
            19 => self.rope(),
            20..24 => {
                let x = self.operand(3);
                let value = self.moved(x.value)?;
                Some(Live { value, lo: x.lo.min(0.0), hi: x.hi.max(0.0) })
            }
            24 | 25 => {
                let x = self.operand(2);
                let op = self.random.pick(&[Unary::Tanh, Unary::Sigmoid, Unary::Sin]);
                self.bounded(Op::Unary(op), &[x.value], -1.0, 1.0)
            }
            _ => {
                let a = self.operand(2);
                let shape = self.shape(a.value);
                let b = self.like(&shape);
                let op = self.random.pick(&[Binary::Add, Binary::Mul, Binary::Sub]);
                self.bounded(Op::Binary(op), &[a.value, b.value], -2.0, 2.0)
            }
        }
    }

    fn unary(&mut self) -> Option<Live> {
        let rank = 1 + self.random.below(4);
        let x = self.operand(rank);
        let anywhere = [
            Unary::Neg,
            Unary::Tanh,
            Unary::Sigmoid,
            Unary::Relu,
            Unary::Erf,
            Unary::Abs,
            Unary::Sin,
            Unary::Cos,
            Unary::Floor,
        ];
        let positive = [Unary::Log, Unary::Sqrt, Unary::Rsqrt, Unary::Reciprocal];
        let op = match x.lo >= 0.1 && !self.random.one_in(3) {
            true => self.random.pick(&positive),
            false if x.hi <= 2.0 && self.random.one_in(4) => Unary::Exp,
            false => self.random.pick(&anywhere),
        };
        let (lo, hi) = match op {
            Unary::Neg => (-x.hi, -x.lo),
            Unary::Exp => (x.lo.exp(), x.hi.exp()),
            Unary::Log => (x.lo.ln(), x.hi.ln()),
            Unary::Sqrt => (x.lo.sqrt(), x.hi.sqrt()),
            Unary::Rsqrt => (1.0 / x.hi.sqrt(), 1.0 / x.lo.sqrt()),
            Unary::Reciprocal => (1.0 / x.hi, 1.0 / x.lo),
            Unary::Relu => (x.lo.max(0.0), x.hi.max(0.0)),
            Unary::Abs => (0.0, x.size()),
            Unary::Floor => (x.lo.floor(), x.hi.floor()),
            Unary::Tanh | Unary::Erf | Unary::Sin | Unary::Cos => (-1.0, 1.0),
            Unary::Sigmoid => (0.0, 1.0),
            Unary::ToFloat => unreachable!("of integers: `counted`"),
        };
        self.bounded(Op::Unary(op), &[x.value], lo, hi)
    }

    /// The shape of something that broadcasts with `shape`: axes of one, leading axes left out.
    fn narrower(&mut self, shape: &[usize]) -> Vec<usize> {
        let skip = self.random.below(shape.len() + 1);
        shape[skip..].iter().map(|n| if self.random.one_in(3) { 1 } else { *n }).collect()
    }

    fn binary(&mut self) -> Option<Live> {
        let rank = 1 + self.random.below(4);
        let a = self.operand(rank);
        let shape = self.shape(a.value);
        let b = match self.random.below(4) {
            0 => self.operand(rank),
            1 => self.like(&shape),
            2 => {
                let number = self.random.real(0.3, 1.7);
                Live { value: self.graph.constant(number), lo: number, hi: number }
            }
            _ => {
                let shape = self.narrower(&shape);
                self.new_leaf(&shape)
            }
        };
        let (a, b) = if self.random.one_in(3) { (b, a) } else { (a, b) };
        let anything =
            [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max, Binary::Min, Binary::Ge, Binary::Eq];
        let op = match self.random.below(4) {
            0 if b.lo >= 0.1 || b.hi <= -0.1 => Binary::Div,
            1 if a.lo >= 0.1 && b.size() <= 2.5 => Binary::Pow,
            2 => self.random.pick(&[Binary::Add, Binary::Mul]),
            _ => self.random.pick(&anything),
        };
        let apply = |x: f32, y: f32| match op {
            Binary::Add => x + y,
            Binary::Sub => x - y,
            Binary::Mul => x * y,
            Binary::Div => x / y,
            Binary::Max => x.max(y),
            Binary::Min => x.min(y),
            Binary::Pow => x.powf(y),
            Binary::Ge | Binary::Eq => f32::from(u8::from(x >= y)),
            Binary::Rem => unreachable!("of integers: `counted`"),
        };
        // Each is monotonic in either operand, so corners bound it; a comparison may be either way.
        let corners = [apply(a.lo, b.lo), apply(a.lo, b.hi), apply(a.hi, b.lo), apply(a.hi, b.hi)];
        let (lo, hi) = match op {
            Binary::Ge | Binary::Eq => (0.0, 1.0),
            Binary::Add
            | Binary::Sub
            | Binary::Mul
            | Binary::Div
            | Binary::Max
            | Binary::Min
            | Binary::Rem
            | Binary::Pow => {
                (corners.into_iter().fold(f32::MAX, f32::min), corners.into_iter().fold(f32::MIN, f32::max))
            }
        };
        self.bounded(Op::Binary(op), &[a.value, b.value], lo, hi)
    }

    /// The same elements elsewhere, floats or integers, maybe with zeros or others between.
    fn moved(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let rank = shape.len();
        if rank == 0 {
            return None;
        }
        let axis = self.random.below(rank);
        match self.random.below(6) {
            0 => {
                let narrow = self.narrower(&shape);
                let narrow = self.op(Op::Reshape { shape: vec![self.len(x)] }, &[x]).and_then(|flat| {
                    let len = narrow.iter().product();
                    let some = self.op(Op::Slice { axis: 0, start: 0, len }, &[flat])?;
                    self.op(Op::Reshape { shape: narrow }, &[some])
                })?;
                self.op(Op::Expand { shape }, &[narrow])
            }
            1 => {
                let len = self.len(x);
                let (a, b) = (self.random.divisor(len, 70), self.random.divisor(len, 8));
                let c = self.random.divisor(len / a, 70);
                let shape =
                    self.random.pick(&[[a, len / a, 1], [len / b, b, 1], [a, c, len / a / c], [1, len, 1]]);
                let rank = 1 + self.random.below(3);
                let flat = if rank == 1 { vec![len] } else { shape.to_vec() };
                self.op(Op::Reshape { shape: flat }, &[x])
            }
            2 => {
                let mut perm: Vec<usize> = (0..rank).collect();
                (1..rank).for_each(|k| perm.swap(k, self.random.below(k + 1)));
                self.op(Op::Transpose { perm }, &[x])
            }
            3 => {
                let start = self.random.below(shape[axis]);
                let len = 1 + self.random.below(shape[axis] - start);
                self.op(Op::Slice { axis, start, len }, &[x])
            }
            4 => {
                let (before, after) = (self.random.below(6), self.random.below(6));
                self.op(Op::Pad { axis, before, after }, &[x])
            }
            _ => {
                let mut parts = vec![x; 1 + self.random.below(2)];
                let mut other = shape;
                other[axis] = self.random.extent();
                let other = match self.graph.dtype(x) {
                    DType::F32 => self.like(&other).value,
                    DType::I32 => self.int_leaf(InputKind::Tokens, &other, -9, 40),
                };
                parts.insert(self.random.below(parts.len() + 1), other);
                self.op(Op::Concat { axis }, &parts)
            }
        }
    }

    fn reduce(&mut self) -> Option<Live> {
        let rank = 1 + self.random.below(4);
        let x = self.operand(rank);
        let shape = self.shape(x.value);
        let axis = self.random.below(shape.len().max(1));
        let n = *shape.get(axis)? as f32;
        let kind = self.random.pick(&[Reduction::Sum, Reduction::Sum, Reduction::Max]);
        let (lo, hi) = match kind {
            Reduction::Max => (x.lo, x.hi),
            // Of one sign they add up, of both they walk.
            Reduction::Sum if x.lo >= 0.0 || x.hi <= 0.0 => (n * x.lo, n * x.hi),
            Reduction::Sum => (-3.0 * n.sqrt() * x.size(), 3.0 * n.sqrt() * x.size()),
        };
        self.bounded(Op::Reduce { kind, axis }, &[x.value], lo, hi)
    }

    /// An integer tensor, computed from others half of the time.
    fn whole(&mut self) -> Option<ValueId> {
        let x = match self.random.below(4) {
            0 => {
                let n = self.random.extent();
                self.op(Op::Iota { n }, &[])?
            }
            1 if !self.ints.is_empty() => self.random.pick(&self.ints),
            _ => {
                let rank = 1 + self.random.below(3);
                let shape = self.random.shape(rank, 300);
                self.int_leaf(InputKind::Tokens, &shape, -9, 100)
            }
        };
        let y = match self.random.below(3) {
            0 => x,
            1 => self.moved(x)?,
            _ => {
                let shape = self.shape(x);
                let shape = self.narrower(&shape);
                let other = self.int_leaf(InputKind::Tokens, &shape, -9, 20);
                let some = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max, Binary::Min, Binary::Rem];
                let op = self.random.pick(&some);
                let pair = if self.random.one_in(2) { [x, other] } else { [other, x] };
                self.op(Op::Binary(op), &pair)?
            }
        };
        self.ints.push(y);
        Some(y)
    }

    /// Integers as floats, brought below 50 first so that float32 holds them exactly.
    fn counted(&mut self) -> Option<Live> {
        let x = self.whole()?;
        let below = self.int_leaf(InputKind::Tokens, &[1], 1, 50);
        let x = self.op(Op::Binary(Binary::Rem), &[x, below])?;
        let x = self.op(Op::Unary(Unary::ToFloat), &[x])?;
        let value = self.graph.scaled(x, 0.0625);
        Some(Live { value, lo: 0.0, hi: 3.2 })
    }

    /// Numbers that differ from element to element, so that no gradient cancels: counted, or a leaf.
    fn weights(&mut self, len: usize) -> ValueId {
        if self.random.one_in(2) {
            return self.leaf(InputKind::State, &[len], -1.0, 1.0).value;
        }
        const FITS: &str = "shapes are known here";
        let mut add = |op: Op, inputs: &[ValueId]| self.graph.add(op, inputs).expect(FITS);
        let positions = add(Op::Iota { n: len }, &[]);
        let seventeen = add(Op::Iota { n: 18 }, &[]);
        let seventeen = add(Op::Slice { axis: 0, start: 17, len: 1 }, &[seventeen]);
        let place = add(Op::Binary(Binary::Rem), &[positions, seventeen]);
        let place = add(Op::Unary(Unary::ToFloat), &[place]);
        let middle = add(Op::Const(7.75), &[]);
        let centred = add(Op::Binary(Binary::Sub), &[place, middle]);
        self.graph.scaled(centred, 0.125)
    }

    /// A loss of the last values, each element with a weight of its own.
    pub(super) fn finish(&mut self, name: String, leaves_seed: u64) -> Case {
        let mut loss = None;
        for back in 0..self.live.len().min(3) {
            let x = self.live[self.live.len() - 1 - back].value;
            let len = self.len(x);
            let weights = self.weights(len);
            let mut add =
                |op: Op, inputs: &[ValueId]| self.graph.add(op, inputs).expect("shapes are known here");
            let flat = add(Op::Reshape { shape: vec![len] }, &[x]);
            let weighted = add(Op::Binary(Binary::Mul), &[flat, weights]);
            let sum = self.graph.sum_all(weighted);
            loss = Some(match loss {
                None => sum,
                Some(before) => self.graph.add(Op::Binary(Binary::Add), &[before, sum]).expect("two numbers"),
            });
        }
        let leaves = self.leaves(leaves_seed);
        let loss = loss.expect("something has grown");
        Case { name, graph: self.graph.clone(), params: self.params.clone(), loss, leaves }
    }
}
