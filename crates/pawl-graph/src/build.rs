//! Small words for the sentences that gradients and recipes are written in. Each method is one
//! operation; those used by autodiff on shapes it knows to fit panic on a misfit instead of returning.

use crate::graph::{Graph, ValueId};
use crate::op::{Binary, Op, Reduction, Unary};

const FITS: &str = "autodiff combines shapes that the forward pass has already checked";

impl Graph {
    /// The number as a scalar.
    pub fn constant(&mut self, value: f32) -> ValueId {
        self.add(Op::Const(value), &[]).expect(FITS)
    }

    pub(crate) fn unary(&mut self, unary: Unary, x: ValueId) -> ValueId {
        self.add(Op::Unary(unary), &[x]).expect(FITS)
    }

    pub(crate) fn binary(&mut self, binary: Binary, a: ValueId, b: ValueId) -> ValueId {
        self.add(Op::Binary(binary), &[a, b]).expect(FITS)
    }

    pub(crate) fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(Binary::Mul, a, b)
    }

    pub(crate) fn scale(&mut self, x: ValueId, by: f32) -> ValueId {
        let by = self.constant(by);
        self.mul(x, by)
    }

    /// x times a number.
    pub fn scaled(&mut self, x: ValueId, by: f32) -> ValueId {
        if by == 1.0 { x } else { self.scale(x, by) }
    }

    pub(crate) fn op1(&mut self, op: Op, x: ValueId) -> ValueId {
        self.add(op, &[x]).expect(FITS)
    }

    pub(crate) fn reshape(&mut self, x: ValueId, shape: &[usize]) -> ValueId {
        if self.shape(x) == shape {
            return x;
        }
        self.op1(Op::Reshape { shape: shape.to_vec() }, x)
    }

    pub(crate) fn expand(&mut self, x: ValueId, shape: &[usize]) -> ValueId {
        if self.shape(x) == shape {
            return x;
        }
        self.op1(Op::Expand { shape: shape.to_vec() }, x)
    }

    /// Sums `x` down to `shape`, the inverse of broadcasting `shape` to the shape of `x`.
    pub(crate) fn sum_to(&mut self, mut x: ValueId, shape: &[usize]) -> ValueId {
        let width: usize = shape.iter().product();
        if self.shape(x).len() > 2 && width > 1 && self.shape(x).last() == Some(&width) {
            // Every axis but the last is summed: one reduction over rows instead of one per axis.
            x = self.as_rows(x);
            x = self.op1(Op::Reduce { kind: Reduction::Sum, axis: 0 }, x);
            return self.reshape(x, shape);
        }
        let lead = self.shape(x).len() - shape.len();
        for axis in 0..self.shape(x).len() {
            let wanted = if axis < lead { 1 } else { shape[axis - lead] };
            if self.shape(x)[axis] != wanted {
                x = self.op1(Op::Reduce { kind: Reduction::Sum, axis }, x);
            }
        }
        self.reshape(x, shape)
    }

    /// Sum of all elements, a scalar.
    pub fn sum_all(&mut self, x: ValueId) -> ValueId {
        let flat = self.reshape(x, &[self.values[x.idx()].len()]);
        let total = self.op1(Op::Reduce { kind: Reduction::Sum, axis: 0 }, flat);
        self.reshape(total, &[])
    }
}
