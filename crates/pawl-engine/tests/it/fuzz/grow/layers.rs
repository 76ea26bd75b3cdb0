//! What layers of models are made of: products, norms, attention, losses, scans.

use super::{Grower, Kind, Live, MAX_LEN, MAX_WORK};
use pawl_graph::{Binary, InputKind, Mask, Op, Unary, ValueId};

impl Grower {
    pub(super) fn matmul(&mut self) -> Option<Live> {
        let rank = self.random.pick(&[2, 2, 3, 4]);
        let a = self.operand(rank);
        let (ta, tb) = (self.random.one_in(3), self.random.one_in(2));
        let shape = self.shape(a.value);
        let (lead, matrix) = shape.split_at_checked(shape.len().checked_sub(2)?)?;
        let (m, k) = if ta { (matrix[1], matrix[0]) } else { (matrix[0], matrix[1]) };
        let batched = !lead.is_empty() && (ta || self.random.one_in(2));
        // Now and then the product of a matrix with itself: symmetric.
        if self.random.one_in(5) {
            let size = 3.0 * (k as f32).sqrt() * a.size().powi(2);
            let work = lead.iter().product::<usize>() * m * m * k;
            return (work <= MAX_WORK)
                .then(|| self.bounded(Op::Matmul { ta, tb: !ta }, &[a.value, a.value], -size, size))?;
        }
        let n = self.random.extent();
        if lead.iter().product::<usize>() * m * n * k > MAX_WORK {
            return None;
        }
        let mut other = if batched { lead.to_vec() } else { Vec::new() };
        other.extend(if tb { [n, k] } else { [k, n] });
        let b = self.like(&other);
        let size = 3.0 * (k as f32).sqrt() * a.size() * b.size();
        self.bounded(Op::Matmul { ta, tb }, &[a.value, b.value], -size, size)
    }

    pub(super) fn rms_norm(&mut self) -> Option<Live> {
        let rank = 1 + self.random.below(3);
        let x = self.operand(rank);
        let eps = self.random.pick(&[0.1, 0.01]);
        let both = self.graph.add_all(Op::RmsNorm { eps }, &[x.value]).ok()?;
        if self.random.one_in(4) {
            return self.second(both[1], 1.0 / (x.size().powi(2) + eps).sqrt(), 1.0 / eps.sqrt());
        }
        Some(Live { value: both[0], lo: -3.0, hi: 3.0 })
    }

    /// A second output, which has no gradient.
    fn second(&mut self, value: ValueId, lo: f32, hi: f32) -> Option<Live> {
        self.bounded(Op::Detach, &[value], lo, hi)
    }

    fn mask(&mut self, t: usize) -> Mask {
        match self.random.below(4) {
            0 => Mask::Full,
            1 => Mask::Causal { window: t + self.random.below(3) },
            _ => Mask::Causal { window: self.random.below(t) },
        }
    }

    pub(super) fn softmax(&mut self) -> Option<Live> {
        let rank = 2 + self.random.below(2);
        let x = self.operand(rank);
        let shape = self.shape(x.value);
        if self.random.one_in(2) {
            return self.bounded(Op::Softmax { mask: Mask::Full }, &[x.value], 0.0, 1.0);
        }
        let [.., t, c] = shape[..] else { return None };
        if self.len(x.value) * t > MAX_WORK {
            return None;
        }
        let y = self.like(&shape);
        let size = 3.0 * (c as f32).sqrt() * x.size() * y.size();
        let scores = self.bounded(Op::Matmul { ta: false, tb: true }, &[x.value, y.value], -size, size)?;
        let scores = self.settled(scores)?;
        let mask = self.mask(t);
        self.bounded(Op::Softmax { mask }, &[scores.value], 0.0, 1.0)
    }

    /// (B, T, H, D) with an even D: what there is, cut anew, or a leaf.
    fn heads(&mut self) -> Option<Live> {
        let x = self.operand(4);
        let len = self.len(x.value);
        if len.is_multiple_of(2) && self.random.one_in(2) {
            let d = 2 * self.random.divisor(len / 2, 24);
            let h = self.random.divisor(len / d, 6);
            let t = self.random.divisor(len / d / h, 70);
            return self.reshaped(x, &[len / d / h / t, t, h, d]);
        }
        let (d, h, kv) =
            (2 * (1 + self.random.below(24)), 1 + self.random.below(3), 1 + self.random.below(3));
        let t = self.random.extent().min(MAX_LEN / (d * h * kv));
        let b = 1 + self.random.below(3).min(MAX_LEN / (t * d * h * kv) - 1);
        Some(self.new_leaf(&[b, t, h * kv, d]))
    }

    pub(super) fn rope(&mut self) -> Option<Live> {
        let x = self.heads()?;
        let base = self.random.pick(&[100.0, 10_000.0]);
        let inverse = self.random.one_in(2);
        let size = 1.5 * x.size();
        self.bounded(Op::Rope { base, inverse }, &[x.value], -size, size)
    }

    pub(super) fn attention(&mut self) -> Option<Live> {
        let q = self.heads()?;
        let [b, t, h, d] = self.shape(q.value)[..] else { return None };
        if b * h * t * t * d > MAX_WORK {
            return None;
        }
        let kv = self.random.divisor(h, h);
        let (k, v) = (self.like(&[b, t, kv, d]), self.like(&[b, t, kv, d]));
        let scale = self.random.pick(&[0.5, 1.0, -2.0]) / ((d as f32).sqrt() * q.size().max(1.0));
        let op = Op::Attention { mask: self.mask(t), scale };
        let both = self.graph.add_all(op, &[q.value, k.value, v.value]).ok()?;
        if self.kind == Kind::Any && self.random.one_in(5) {
            return self.second(both[1], -8.0, 8.0);
        }
        Some(Live { value: both[0], lo: -v.size(), hi: v.size() })
    }

    pub(super) fn embedding(&mut self) -> Option<Live> {
        let x = self.operand(2);
        let len = self.len(x.value);
        let c = self.random.divisor(len, 70);
        let table = self.reshaped(x, &[len / c, c])?;
        let ids = self.whole()?;
        self.bounded(Op::Embedding, &[table.value, ids], x.lo, x.hi)
    }

    /// Half of the time as a head of a model: a product, maybe capped, of rows that the planner can cut.
    pub(super) fn cross_entropy(&mut self) -> Option<Live> {
        let logits = if self.random.one_in(2) {
            let n = self.random.pick(&[32, 34, 48, 57, 64, 66]);
            let (c, v) = (1 + self.random.below(40), 2 + self.random.below(88));
            let (x, head) = (self.like(&[n, c]), self.like(&[v, c]));
            let size = 3.0 * (c as f32).sqrt() * x.size() * head.size();
            let op = Op::Matmul { ta: false, tb: true };
            let mut z = self.bounded(op, &[x.value, head.value], -size, size)?;
            if self.random.one_in(2) {
                let small = self.graph.scaled(z.value, 0.2);
                z = self.bounded(Op::Unary(Unary::Tanh), &[small], -1.0, 1.0)?;
            }
            self.settled(z)?
        } else {
            let x = self.operand(2);
            let len = self.len(x.value);
            let v = self.random.divisor(len, 70);
            self.reshaped(x, &[len / v, v])?
        };
        let [n, v] = self.shape(logits.value)[..] else { return None };
        let targets = self.int_leaf(InputKind::Targets, &[n], -1, v as i32);
        let both = self.graph.add_all(Op::CrossEntropy, &[logits.value, targets]).ok()?;
        if self.random.one_in(5) {
            return self.second(both[1], -20.0, 20.0);
        }
        Some(Live { value: both[0], lo: 0.0, hi: 8.0 })
    }

    pub(super) fn scan(&mut self) -> Option<Live> {
        let x = self.operand(3);
        let shape = self.shape(x.value);
        let [_, _, _] = shape[..] else { return None };
        let decay = match self.random.one_in(2) {
            true => {
                let x = self.like(&shape);
                self.op(Op::Unary(Unary::Sigmoid), &[x.value])?
            }
            false => self.leaf(InputKind::Param, &shape, -0.9, 0.9).value,
        };
        let reverse = self.random.one_in(2);
        self.bounded(Op::Scan { reverse }, &[decay, x.value], -3.0 * x.size(), 3.0 * x.size())
    }

    pub(super) fn top_k(&mut self) -> Option<Live> {
        let x = self.operand(2);
        let last = *self.shape(x.value).last()?;
        let k = 1 + self.random.below(last.min(5));
        let chosen = self.bounded(Op::TopK { k }, &[x.value], 0.0, 1.0)?;
        self.bounded(Op::Binary(Binary::Mul), &[chosen.value, x.value], x.lo.min(0.0), x.hi.max(0.0))
    }

    pub(super) fn dropout(&mut self) -> Option<Live> {
        let x = self.operand(2);
        let rng = self.int_leaf(InputKind::Rng, &[2], -1000, 1000);
        let rate = self.random.pick(&[0.1, 0.3, 0.5]);
        let op = Op::Dropout { rate, stream: self.random.below(9) as u32 };
        self.bounded(op, &[x.value, rng], x.lo.min(0.0) / (1.0 - rate), x.hi.max(0.0) / (1.0 - rate))
    }
}
