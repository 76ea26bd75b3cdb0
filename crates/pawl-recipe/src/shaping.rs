//! Composite operations on axes, each a few operations of the graph.

use crate::context::Trace;
use crate::error::{Refusal, refuse};
use crate::values::shape_of;
use pawl_graph::{Binary, DType, Op, Reduction, ValueId};

/// How a reduction combines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    Sum,
    Mean,
    Max,
}

pub(crate) fn reshape(t: &mut Trace, x: ValueId, shape: Vec<usize>) -> Result<ValueId, Refusal> {
    if t.graph.shape(x) == shape {
        return Ok(x);
    }
    t.add(Op::Reshape { shape }, &[x])
}

pub(crate) fn expand(t: &mut Trace, x: ValueId, shape: Vec<usize>) -> Result<ValueId, Refusal> {
    if t.graph.shape(x) == shape {
        return Ok(x);
    }
    t.add(Op::Expand { shape }, &[x])
}

/// Elements `start..stop` of an axis; negative places count from the end.
pub(crate) fn slice(
    t: &mut Trace,
    x: ValueId,
    axis: usize,
    start: i64,
    stop: i64,
) -> Result<ValueId, Refusal> {
    let extent = t.graph.shape(x)[axis] as i64;
    let from_end = |place: i64| if place < 0 { place + extent } else { place };
    let (begin, end) = (from_end(start), from_end(stop));
    if begin < 0 || end > extent || begin >= end {
        return refuse(format!(
            "slice: elements {start} to {stop} of axis {axis} do not exist in {} {}",
            t.graph.describe(x),
            crate::context::show(t.graph.shape(x))
        ));
    }
    if begin == 0 && end == extent {
        return Ok(x);
    }
    t.add(Op::Slice { axis, start: begin as usize, len: (end - begin) as usize }, &[x])
}

/// Folds some axes; the mean divides by how many elements went in.
pub(crate) fn reduce(
    t: &mut Trace,
    x: ValueId,
    axes: &[usize],
    keepdim: bool,
    fold: Fold,
) -> Result<ValueId, Refusal> {
    let before = shape_of(&t.graph, x);
    let kind = match fold {
        Fold::Sum | Fold::Mean => Reduction::Sum,
        Fold::Max => Reduction::Max,
    };
    let all = axes.len() == before.len() && axes.len() > 1;
    let mut out = if all {
        // One pass over the flat elements instead of one pass an axis.
        let flat = reshape(t, x, vec![before.iter().product()])?;
        let folded = t.add(Op::Reduce { kind, axis: 0 }, &[flat])?;
        reshape(t, folded, vec![1; before.len()])?
    } else {
        let mut out = x;
        for axis in axes {
            out = t.add(Op::Reduce { kind, axis: *axis }, &[out])?;
        }
        out
    };
    if fold == Fold::Mean {
        let count: usize = axes.iter().map(|axis| before[*axis]).product();
        let inverse = t.constant(1.0 / count as f64)?;
        out = t.add(Op::Binary(Binary::Mul), &[out, inverse])?;
    }
    if keepdim {
        return Ok(out);
    }
    let rest =
        before.iter().enumerate().filter(|(k, _)| !axes.contains(k)).map(|(_, extent)| *extent).collect();
    reshape(t, out, rest)
}

/// Moves `n` positions later along an axis; zeros enter. A negative `n` moves earlier.
pub(crate) fn shift(t: &mut Trace, x: ValueId, n: i64, axis: usize) -> Result<ValueId, Refusal> {
    let extent = t.graph.shape(x)[axis];
    let by = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX);
    if n == 0 {
        return Ok(x);
    }
    if by >= extent {
        return refuse(format!("shift by {n} leaves nothing of an axis of {extent}"));
    }
    let (start, before, after) = if n > 0 { (0, by, 0) } else { (by, 0, by) };
    let kept = t.add(Op::Slice { axis, start, len: extent - by }, &[x])?;
    t.add(Op::Pad { axis, before, after }, &[kept])
}

/// The whole number as an integer scalar, out of the operations on integers that the graph has:
/// digits from an iota, joined by Horner's rule.
pub(crate) fn int_constant(t: &mut Trace, value: i32) -> Result<ValueId, Refusal> {
    if let Some(known) = t.int_constants.get(&value) {
        return Ok(*known);
    }
    let digit = |t: &mut Trace, digit: usize| -> Result<ValueId, Refusal> {
        let digits = t.add(Op::Iota { n: 17 }, &[])?;
        let one = t.add(Op::Slice { axis: 0, start: digit, len: 1 }, &[digits])?;
        t.add(Op::Reshape { shape: vec![] }, &[one])
    };
    let mut rest = value.unsigned_abs();
    let mut nibbles = Vec::new();
    while rest > 0 {
        nibbles.push((rest & 15) as usize);
        rest >>= 4;
    }
    let base = if nibbles.len() > 1 { Some(digit(t, 16)?) } else { None };
    let mut out = digit(t, nibbles.pop().unwrap_or(0))?;
    while let (Some(next), Some(base)) = (nibbles.pop(), base) {
        out = t.add(Op::Binary(Binary::Mul), &[out, base])?;
        if next > 0 {
            let next = digit(t, next)?;
            out = t.add(Op::Binary(Binary::Add), &[out, next])?;
        }
    }
    if value < 0 {
        let zero = digit(t, 0)?;
        out = t.add(Op::Binary(Binary::Sub), &[zero, out])?;
    }
    t.int_constants.insert(value, out);
    Ok(out)
}

/// Integers to floats; floats as they are.
pub(crate) fn to_float(t: &mut Trace, x: ValueId) -> Result<ValueId, Refusal> {
    match t.graph.dtype(x) {
        DType::F32 => Ok(x),
        DType::I32 => t.add(Op::Unary(pawl_graph::Unary::ToFloat), &[x]),
    }
}
