//! How much a recipe may use. Every operator and every builtin that can make something large asks here first.

use crate::error::{Refusal, refuse};
use starlark::eval::Evaluator;
use starlark::values::dict::DictRef;
use starlark::values::list::ListRef;
use starlark::values::tuple::TupleRef;
use starlark::values::Value;

/// Function calls and loop turns of one evaluation. The largest shipped recipe takes under ten thousand.
pub(crate) const MAX_TICKS: u64 = 2_000_000;
/// Bytes of values of one evaluation.
pub(crate) const MAX_HEAP: usize = 256 << 20;
/// Frames of the call stack.
pub(crate) const MAX_FRAMES: usize = 200;
/// Items of a list, tuple, dict or range; bytes of a string.
pub(crate) const MAX_ITEMS: usize = 1 << 20;
/// Values visited when a nested value is compared or printed: sharing makes trees exponentially large.
const MAX_VISITS: usize = 1 << 17;
/// Decimal digits of an integer.
const MAX_DIGITS_BITS: f64 = 1e300;

/// Refuses to go on once the heap is full; cheap enough for every operator.
pub(crate) fn check_room(eval: &Evaluator<'_, '_, '_>) -> Result<(), Refusal> {
    if eval.heap().allocated_bytes() > MAX_HEAP {
        return refuse(format!("the recipe uses more than {} MiB of memory", MAX_HEAP >> 20));
    }
    Ok(())
}

/// Items of a container or bytes of a string, 0 for anything else.
pub(crate) fn extent(value: Value<'_>) -> usize {
    if let Some(text) = value.unpack_str() {
        return text.len();
    }
    if let Some(list) = ListRef::from_value(value) {
        return list.len();
    }
    if let Some(tuple) = TupleRef::from_value(value) {
        return tuple.len();
    }
    DictRef::from_value(value).map_or(0, |dict| dict.len())
}

/// Whether the integer has grown beyond every use (products of products of ...).
fn check_int(value: Value<'_>) -> Result<(), Refusal> {
    if value.get_type() == "int" && value.unpack_i32().is_none() {
        let beyond = crate::values::as_number(value).is_none_or(|number| number.abs() > MAX_DIGITS_BITS);
        if beyond {
            return refuse("an integer has grown beyond 300 digits");
        }
    }
    Ok(())
}

/// Before an operator whose result is at most as large as its operands together.
pub(crate) fn check_cost(eval: &Evaluator<'_, '_, '_>, a: Value<'_>, b: Value<'_>) -> Result<(), Refusal> {
    check_room(eval)?;
    check_int(a)?;
    check_int(b)?;
    if extent(a) + extent(b) > MAX_ITEMS {
        return refuse(format!("the result would have more than {MAX_ITEMS} items"));
    }
    Ok(())
}

/// Before a product, which repeats a list or a string.
pub(crate) fn check_repeat(eval: &Evaluator<'_, '_, '_>, a: Value<'_>, b: Value<'_>) -> Result<(), Refusal> {
    check_cost(eval, a, b)?;
    let (items, times) = match (extent(a), extent(b)) {
        (0, items) => (items, crate::values::as_number(a)),
        (items, _) => (items, crate::values::as_number(b)),
    };
    let total = items as f64 * times.unwrap_or(1.0);
    if total > MAX_ITEMS as f64 {
        return refuse(format!("repeating {items} items gives {total:e}, more than {MAX_ITEMS}"));
    }
    Ok(())
}

/// Before a value is compared, printed or hashed as a tree.
pub(crate) fn check_walk(value: Value<'_>) -> Result<(), Refusal> {
    let mut visits = 0;
    walk(value, 0, &mut visits)
}

fn walk(value: Value<'_>, depth: usize, visits: &mut usize) -> Result<(), Refusal> {
    *visits += 1 + value.unpack_str().map_or(0, |text| text.len() / 64);
    if *visits > MAX_VISITS || depth > 64 {
        return refuse("a nested value is too large to be compared or printed");
    }
    if let Some(items) = crate::values::items(value) {
        for item in items {
            walk(*item, depth + 1, visits)?;
        }
    } else if let Some(dict) = DictRef::from_value(value) {
        for (key, item) in dict.iter() {
            walk(key, depth + 1, visits)?;
            walk(item, depth + 1, visits)?;
        }
    }
    Ok(())
}
