//! What a recipe holds in its hands: tensors, and the numbers and shapes given with them.

use crate::context::{Context, Trace, context, show};
use crate::error::{Refusal, raise, raise_with, refuse, refuse_with};
use pawl_graph::{DType, Graph, ValueId};
use starlark::environment::{Methods, MethodsBuilder};
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::starlark_simple_value;
use starlark::values::float::StarlarkFloat;
use starlark::values::list::ListRef;
use starlark::values::tuple::{AllocTuple, TupleRef, UnpackTuple};
use starlark::values::{
    Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Value, ValueLike,
    starlark_value,
};
use std::cell::RefMut;
use std::fmt;

/// A value of the graph being traced. Its operations are in `operators.rs` and `ops.rs`.
#[derive(
    Clone, Debug, PartialEq, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, allocative::Allocative,
)]
pub(crate) struct Tensor {
    pub(crate) trace: u32,
    pub(crate) id: u32,
    pub(crate) shape: Vec<usize>,
    pub(crate) is_int: bool,
}

starlark_simple_value!(Tensor);

impl Tensor {
    pub(crate) fn of(trace: &Trace, value: ValueId) -> Tensor {
        Tensor {
            trace: trace.id,
            id: value.0,
            shape: trace.graph.shape(value).to_vec(),
            is_int: trace.graph.dtype(value) == DType::I32,
        }
    }
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tensor {}", show(&self.shape))
    }
}

starlark::methods_static!(TENSOR_METHODS = tensor_methods);

#[starlark_value(type = "tensor")]
impl<'v> StarlarkValue<'v> for Tensor {
    fn get_methods() -> Option<&'static Methods> {
        Some(TENSOR_METHODS.methods())
    }

    // Truth of a tensor is unknown while the graph is built; `if x:` on one is a mistake that starlark lets
    // no value refuse, so comparisons refuse instead (`operators.rs`).
}

/// The handle's value in the trace in progress; a tensor kept from another trace is refused.
pub(crate) fn in_trace(trace: &Trace, tensor: &Tensor) -> Result<ValueId, Refusal> {
    if tensor.trace == trace.id {
        return Ok(ValueId(tensor.id));
    }
    refuse_with(
        format!("{tensor} belongs to another graph"),
        "tensors cannot be kept in globals between calls of model, loss and optimizer: make them inside",
    )
}

/// A tensor or a number, the operands of arithmetic.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'v> {
    Tensor(&'v Tensor),
    Number(f64),
}

pub(crate) fn operand<'v>(value: Value<'v>) -> Option<Operand<'v>> {
    if let Some(tensor) = Tensor::from_value(value) {
        return Some(Operand::Tensor(tensor));
    }
    as_number(value).map(Operand::Number)
}

/// The number; booleans are not numbers.
pub(crate) fn as_number(value: Value<'_>) -> Option<f64> {
    if let Some(float) = value.downcast_ref::<StarlarkFloat>() {
        return Some(float.0);
    }
    if let Some(int) = value.unpack_i32() {
        return Some(f64::from(int));
    }
    // Larger integers have one textual form, and f64 reads it rounded to nearest.
    if value.get_type() == "int" { value.to_str().parse().ok() } else { None }
}

pub(crate) fn number(value: Value<'_>, what: &str) -> Result<f64, Refusal> {
    match as_number(value) {
        Some(number) => Ok(number),
        None => refuse(format!("{what} needs a number, got {}", describe(value))),
    }
}

/// A count or an extent.
pub(crate) fn whole(value: Value<'_>, what: &str) -> Result<i64, Refusal> {
    let number = number(value, what)?;
    // A float such as 64.0 out of a division by a ratio is a count all the same.
    if number.fract() != 0.0 || number.abs() > 9e15 {
        return refuse(format!("{what} needs a whole number, got {number:?}"));
    }
    Ok(number as i64)
}

pub(crate) fn count(value: Value<'_>, what: &str) -> Result<usize, Refusal> {
    match usize::try_from(whole(value, what)?) {
        Ok(count) if count > 0 => Ok(count),
        _ => refuse(format!("{what} needs a positive whole number, got {value}")),
    }
}

/// What a value is, for messages that must stay short.
pub(crate) fn describe(value: Value<'_>) -> String {
    match Tensor::from_value(value) {
        Some(tensor) => tensor.to_string(),
        None if value.is_none() => "None".to_string(),
        None => match value.get_type() {
            "int" | "float" | "bool" => format!("{} {value}", value.get_type()),
            "string" => format!("string {}", short(&value.to_str())),
            other => format!("a {other}"),
        },
    }
}

fn short(text: &str) -> String {
    let head: String = text.chars().take(40).collect();
    if head.len() < text.len() { format!("\"{head}...\"") } else { format!("\"{head}\"") }
}

/// Items of a list or tuple.
pub(crate) fn items<'v>(value: Value<'v>) -> Option<&'v [Value<'v>]> {
    ListRef::from_value(value)
        .map(|list| list.content())
        .or_else(|| TupleRef::from_value(value).map(|t| t.content()))
}

/// A shape given as a list or tuple of extents.
pub(crate) fn shape(value: Value<'_>, what: &str) -> Result<Vec<usize>, Refusal> {
    let Some(extents) = items(value) else {
        return refuse(format!("{what} needs a shape such as (64, 256), got {}", describe(value)));
    };
    extents.iter().map(|extent| count(*extent, what)).collect()
}

/// Extents given one by one or as one list; at most one -1 stands for what is left of `total`.
fn extents(values: &[Value<'_>], total: usize, what: &str) -> Result<Vec<usize>, Refusal> {
    let values = match values {
        [one] => items(*one).unwrap_or(values),
        _ => values,
    };
    let mut shape = Vec::with_capacity(values.len());
    let mut open = None;
    for (axis, value) in values.iter().enumerate() {
        if open.is_none() && as_number(*value) == Some(-1.0) {
            open = Some(axis);
            shape.push(1);
        } else {
            shape.push(count(*value, what)?);
        }
    }
    if let Some(axis) = open {
        let known = crate::context::elements(&shape)?;
        if !total.is_multiple_of(known) {
            return refuse(format!("{what}: {total} elements do not divide by {known}"));
        }
        shape[axis] = total / known;
    }
    Ok(shape)
}

/// An axis from the front or, if negative, from the back.
pub(crate) fn axis(value: Value<'_>, rank: usize, what: &str) -> Result<usize, Refusal> {
    let axis = whole(value, what)?;
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(from_front) {
        Ok(found) if found < rank => Ok(found),
        _ => refuse(format!("{what}: axis {axis} does not exist in a tensor of rank {rank}")),
    }
}

/// Runs `build` in the trace in progress with the tensor's value and wraps the result.
pub(crate) fn with_trace(
    eval: &Evaluator<'_, '_, '_>,
    what: &str,
    build: impl FnOnce(&mut Trace) -> Result<ValueId, Refusal>,
) -> starlark::Result<Tensor> {
    let ctx: &Context = context(eval);
    let mut trace: RefMut<'_, Trace> = ctx.tracing(eval, what)?;
    let value = build(&mut trace)?;
    Ok(Tensor::of(&trace, value))
}

/// The shape of a value, owned, so that the graph can be appended to.
pub(crate) fn shape_of(graph: &Graph, value: ValueId) -> Vec<usize> {
    graph.shape(value).to_vec()
}

#[starlark_module]
fn tensor_methods(builder: &mut MethodsBuilder) {
    #[starlark(attribute)]
    fn shape<'v>(this: &Tensor, heap: Heap<'v>) -> starlark::Result<Value<'v>> {
        Ok(heap.alloc(AllocTuple(this.shape.iter().map(|extent| *extent as i64))))
    }

    #[starlark(attribute)]
    fn ndim(this: &Tensor) -> starlark::Result<i32> {
        Ok(this.shape.len() as i32)
    }

    fn reshape<'v>(
        this: &Tensor,
        #[starlark(args)] to: UnpackTuple<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let to = extents(&to.items, this.shape.iter().product(), "reshape")?;
        with_trace(eval, "reshape", |t| crate::shaping::reshape(t, in_trace(t, this)?, to))
    }

    fn expand<'v>(
        this: &Tensor,
        #[starlark(args)] to: UnpackTuple<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let to = extents(&to.items, 1, "expand")?;
        with_trace(eval, "expand", |t| crate::shaping::expand(t, in_trace(t, this)?, to))
    }

    fn transpose<'v>(
        this: &Tensor,
        #[starlark(args)] perm: UnpackTuple<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let rank = this.shape.len();
        let given = match perm.items.as_slice() {
            [one] => items(*one).unwrap_or(&perm.items),
            _ => &perm.items,
        };
        let perm: Vec<usize> = given.iter().map(|k| axis(*k, rank, "transpose")).collect::<Result<_, _>>()?;
        // Without an order the last two axes are swapped, the transpose of a matrix.
        let perm = match (perm.is_empty(), rank) {
            (true, 2..) => (0..rank - 2).chain([rank - 1, rank - 2]).collect(),
            _ => perm,
        };
        with_trace(eval, "transpose", |t| {
            let x = in_trace(t, this)?;
            t.add(pawl_graph::Op::Transpose { perm }, &[x])
        })
    }

    fn slice<'v>(
        this: &Tensor,
        #[starlark(require = pos)] along: Value<'v>,
        #[starlark(require = pos)] start: Value<'v>,
        #[starlark(require = pos)] stop: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let along = axis(along, this.shape.len(), "slice")?;
        let extent = this.shape[along];
        let start = whole(start, "slice")?;
        let stop = if stop.is_none() { extent as i64 } else { whole(stop, "slice")? };
        with_trace(eval, "slice", |t| crate::shaping::slice(t, in_trace(t, this)?, along, start, stop))
    }

    fn sum<'v>(
        this: &Tensor,
        #[starlark(default = starlark::values::none::NoneOr::None)] axis: starlark::values::none::NoneOr<
            Value<'v>,
        >,
        #[starlark(default = true)] keepdim: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        reduce_method(this, axis.into_option(), keepdim, crate::shaping::Fold::Sum, eval)
    }

    fn mean<'v>(
        this: &Tensor,
        #[starlark(default = starlark::values::none::NoneOr::None)] axis: starlark::values::none::NoneOr<
            Value<'v>,
        >,
        #[starlark(default = true)] keepdim: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        reduce_method(this, axis.into_option(), keepdim, crate::shaping::Fold::Mean, eval)
    }

    fn max<'v>(
        this: &Tensor,
        #[starlark(default = starlark::values::none::NoneOr::None)] axis: starlark::values::none::NoneOr<
            Value<'v>,
        >,
        #[starlark(default = true)] keepdim: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        reduce_method(this, axis.into_option(), keepdim, crate::shaping::Fold::Max, eval)
    }

    fn square<'v>(this: &Tensor, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<Tensor> {
        with_trace(eval, "square", |t| {
            let x = in_trace(t, this)?;
            t.add(pawl_graph::Op::Binary(pawl_graph::Binary::Mul), &[x, x])
        })
    }

    fn heads<'v>(
        this: &Tensor,
        #[starlark(require = pos)] n: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let n = count(n, "heads")?;
        let Some((width, lead)) = this.shape.split_last() else {
            return raise("heads: a scalar has no width to split");
        };
        if !width.is_multiple_of(n) {
            return raise_with(
                format!("heads: the width of {this} does not divide into {n} heads"),
                "choose a width that is a multiple of the number of heads",
            );
        }
        let to: Vec<usize> = lead.iter().copied().chain([n, width / n]).collect();
        with_trace(eval, "heads", |t| crate::shaping::reshape(t, in_trace(t, this)?, to))
    }

    fn merge_heads<'v>(this: &Tensor, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<Tensor> {
        let [lead @ .., h, d] = this.shape.as_slice() else {
            return raise(format!("merge_heads: {this} has no head axes (.., H, D)"));
        };
        let to: Vec<usize> = lead.iter().copied().chain([h * d]).collect();
        with_trace(eval, "merge_heads", |t| crate::shaping::reshape(t, in_trace(t, this)?, to))
    }
}

fn reduce_method<'v>(
    this: &Tensor,
    along: Option<Value<'v>>,
    keepdim: bool,
    fold: crate::shaping::Fold,
    eval: &mut Evaluator<'v, '_, '_>,
) -> starlark::Result<Tensor> {
    let rank = this.shape.len();
    let axes: Vec<usize> = match along {
        None => (0..rank).collect(),
        Some(value) => match items(value) {
            Some(list) => list.iter().map(|k| axis(*k, rank, "axis")).collect::<Result<_, _>>()?,
            None => vec![axis(value, rank, "axis")?],
        },
    };
    // Over all axes the result is a scalar: there is nothing left whose axes one could keep.
    let keepdim = keepdim && along.is_some();
    with_trace(eval, "a reduction", |t| crate::shaping::reduce(t, in_trace(t, this)?, &axes, keepdim, fold))
}
