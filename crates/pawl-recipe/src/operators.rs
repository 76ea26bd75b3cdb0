//! The operators of the language as builtins: arithmetic on tensors goes into the graph, everything else is
//! the interpreter's own, after a look at how large the result can become.

use crate::context::Trace;
use crate::error::{Refusal, raise, refuse_with};
use crate::guarded::format_bound;
use crate::limits::{check_cost, check_count, check_repeat, look_through};
use crate::shaping::int_constant;
use crate::values::{Operand, Tensor, describe, in_trace, items, operand, with_trace};
use pawl_graph::{Binary, DType, Op, Unary, ValueId};
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::list::ListRef;
use std::cmp::Ordering;

/// An operand as a value of the graph, of the type of its partner.
pub(crate) fn place(t: &mut Trace, operand: Operand<'_>, partner: DType) -> Result<ValueId, Refusal> {
    match (operand, partner) {
        (Operand::Tensor(tensor), _) => in_trace(t, tensor),
        (Operand::Number(number), DType::F32) => t.constant(number),
        (Operand::Number(number), DType::I32) => {
            if number.fract() != 0.0 || number.abs() > f64::from(i32::MAX) {
                return refuse_with(
                    format!("integer tensors take whole numbers up to {}, got {number:?}", i32::MAX),
                    "to_float(x) turns integers into floats",
                );
            }
            int_constant(t, number as i32)
        }
    }
}

fn dtype_of(operand: Operand<'_>) -> Option<DType> {
    match operand {
        Operand::Tensor(tensor) => Some(if tensor.is_int { DType::I32 } else { DType::F32 }),
        Operand::Number(_) => None,
    }
}

/// Elementwise arithmetic of two operands, at least one a tensor.
pub(crate) fn elementwise<'v>(
    binary: Binary,
    a: Value<'v>,
    b: Value<'v>,
    eval: &mut Evaluator<'v, '_, '_>,
) -> starlark::Result<Value<'v>> {
    let (Some(left), Some(right)) = (operand(a), operand(b)) else {
        let other = if operand(a).is_none() { a } else { b };
        return raise(format!(
            "{} of a tensor needs another tensor or a number, got {}",
            binary.name(),
            describe(other)
        ));
    };
    if let (Binary::Rem, Operand::Number(divisor)) = (binary, right)
        && divisor < 1.0
    {
        return raise(format!("numbers modulo {divisor} are not defined: the divisor must be positive"));
    }
    let tensor = with_trace(eval, binary.name(), |t| {
        let partner = |operand| dtype_of(operand).unwrap_or(DType::F32);
        let left_id = place(t, left, partner(right))?;
        let right_id = place(t, right, partner(left))?;
        t.add(Op::Binary(binary), &[left_id, right_id])
    })?;
    Ok(eval.heap().alloc(tensor))
}

fn has_tensor(a: Value<'_>, b: Value<'_>) -> bool {
    Tensor::from_value(a).is_some() || Tensor::from_value(b).is_some()
}

fn no_tensors(a: Value<'_>, b: Value<'_>, symbol: &str) -> starlark::Result<()> {
    if has_tensor(a, b) {
        return Err(Refusal {
            because: format!(
                "`{symbol}` does not work on tensors: their values are not known while the graph is built"
            ),
            hint: Some(
                "ge(a, b) and eq(a, b) give tensors of 0 and 1; shapes are compared by x.shape".to_string(),
            ),
        }
        .into());
    }
    Ok(())
}

fn compare<'v>(
    a: Value<'v>,
    b: Value<'v>,
    symbol: &str,
    eval: &Evaluator<'v, '_, '_>,
) -> starlark::Result<Ordering> {
    no_tensors(a, b, symbol)?;
    look_through(eval, a, b)?;
    a.compare(b)
}

#[starlark_module]
pub(crate) fn operators(builder: &mut GlobalsBuilder) {
    fn __add<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        if has_tensor(a, b) {
            return elementwise(Binary::Add, a, b, eval);
        }
        check_cost(eval, a, b)?;
        a.add(b, eval.heap())
    }

    fn __iadd<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        if has_tensor(a, b) {
            return elementwise(Binary::Add, a, b, eval);
        }
        check_cost(eval, a, b)?;
        if ListRef::from_value(a).is_some() {
            // `list += items` grows the list in place, as everybody who holds it sees.
            let extend = a.get_attr_error("extend", eval.heap())?;
            eval.eval_function(extend, &[b], &[])?;
            return Ok(a);
        }
        a.add(b, eval.heap())
    }

    fn __sub<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        if has_tensor(a, b) {
            return elementwise(Binary::Sub, a, b, eval);
        }
        check_cost(eval, a, b)?;
        a.sub(b, eval.heap())
    }

    fn __mul<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        if has_tensor(a, b) {
            return elementwise(Binary::Mul, a, b, eval);
        }
        check_repeat(eval, a, b)?;
        a.mul(b, eval.heap())
    }

    fn __div<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        if has_tensor(a, b) {
            return elementwise(Binary::Div, a, b, eval);
        }
        check_cost(eval, a, b)?;
        a.div(b, eval.heap())
    }

    fn __floordiv<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        no_tensors(a, b, "//")?;
        check_cost(eval, a, b)?;
        a.floor_div(b, eval.heap())
    }

    fn __mod<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        if has_tensor(a, b) {
            return elementwise(Binary::Rem, a, b, eval);
        }
        check_cost(eval, a, b)?;
        if a.unpack_str().is_some() {
            let most = format_bound(a, items(b).unwrap_or(&[b]))?;
            check_count(eval, "the formatted string", most)?;
        }
        a.percent(b, eval.heap())
    }

    fn __neg<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        match Tensor::from_value(a) {
            Some(tensor) => negate(tensor, eval),
            None => a.minus(eval.heap()),
        }
    }

    fn __eq<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<bool> {
        if a.is_none() || b.is_none() {
            return Ok(a.is_none() && b.is_none());
        }
        no_tensors(a, b, "==")?;
        look_through(eval, a, b)?;
        a.equals(b)
    }

    fn __ne<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<bool> {
        if a.is_none() || b.is_none() {
            return Ok(a.is_none() != b.is_none());
        }
        no_tensors(a, b, "!=")?;
        look_through(eval, a, b)?;
        Ok(!a.equals(b)?)
    }

    fn __lt<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<bool> {
        Ok(compare(a, b, "<", eval)? == Ordering::Less)
    }

    fn __le<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<bool> {
        Ok(compare(a, b, "<=", eval)? != Ordering::Greater)
    }

    fn __gt<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<bool> {
        Ok(compare(a, b, ">", eval)? == Ordering::Greater)
    }

    fn __ge<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<bool> {
        Ok(compare(a, b, ">=", eval)? != Ordering::Less)
    }

    fn __in<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<bool> {
        no_tensors(a, b, "in")?;
        look_through(eval, a, b)?;
        b.is_in(a)
    }

    fn __not_in<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<bool> {
        no_tensors(a, b, "not in")?;
        look_through(eval, a, b)?;
        Ok(!b.is_in(a)?)
    }

    fn __and<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        no_tensors(a, b, "&")?;
        check_cost(eval, a, b)?;
        a.bit_and(b, eval.heap())
    }

    fn __or<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        no_tensors(a, b, "|")?;
        check_cost(eval, a, b)?;
        a.bit_or(b, eval.heap())
    }

    fn __xor<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        no_tensors(a, b, "^")?;
        check_cost(eval, a, b)?;
        a.bit_xor(b, eval.heap())
    }

    fn __shl<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        no_tensors(a, b, "<<")?;
        if b.unpack_i32().is_none_or(|by| !(0..=64).contains(&by)) {
            return raise("`<<` shifts by 0 to 64 places");
        }
        check_cost(eval, a, b)?;
        a.left_shift(b, eval.heap())
    }

    fn __shr<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        no_tensors(a, b, ">>")?;
        check_cost(eval, a, b)?;
        a.right_shift(b, eval.heap())
    }
}

fn negate<'v>(tensor: &Tensor, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<Value<'v>> {
    let negated = with_trace(eval, "neg", |t| {
        let x = in_trace(t, tensor)?;
        if tensor.is_int {
            let zero = int_constant(t, 0)?;
            return t.add(Op::Binary(Binary::Sub), &[zero, x]);
        }
        t.add(Op::Unary(Unary::Neg), &[x])
    })?;
    Ok(eval.heap().alloc(negated))
}
