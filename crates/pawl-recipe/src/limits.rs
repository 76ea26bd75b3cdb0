//! How much a recipe may use. Every operator and every builtin that can make or walk something large asks
//! here first; between them the interpreter counts steps and, every thousand steps, memory.
//!
//! What this does not bound: slices (at most 1 MiB each, a thousand between two looks at the memory) and the
//! hash of tuples that share parts sixty levels deep (as a key of a dict), which takes forever. A recipe that
//! sets out to do this needs the limits of a process around it.

use crate::context::context;
use crate::error::{Refusal, refuse};
use starlark::eval::Evaluator;
use starlark::values::Value;
use starlark::values::dict::DictRef;
use starlark::values::list::ListRef;
use starlark::values::structs::StructRef;
use starlark::values::tuple::TupleRef;

/// Function calls and loop turns of one evaluation. The largest shipped recipe takes under ten thousand.
pub(crate) const MAX_TICKS: u64 = 2_000_000;
/// Bytes of values of one evaluation.
pub(crate) const MAX_HEAP: usize = 256 << 20;
/// Frames of the call stack.
pub(crate) const MAX_FRAMES: usize = 200;
/// Items of a list, tuple, dict or range; bytes of a string.
pub(crate) const MAX_ITEMS: usize = 1 << 17;
/// Bytes a nested value may print as; sharing makes trees exponentially large.
const MAX_PRINTED: usize = 32 * MAX_ITEMS;
/// Depth of a nested value.
const MAX_DEPTH: usize = 64;
/// Largest integer: products of products of ... stop here.
const MAX_INT: f64 = 1e300;
/// Items that guarded builtins may touch in one evaluation, some tenths of a second of work.
const MAX_WORK: u64 = 100_000_000;

/// Refuses to go on once the heap is full; cheap enough for every operator.
pub(crate) fn check_room(eval: &Evaluator<'_, '_, '_>) -> Result<(), Refusal> {
    if eval.heap().allocated_bytes() > MAX_HEAP {
        return refuse(format!("the recipe uses more than {} MiB of memory", MAX_HEAP >> 20));
    }
    Ok(())
}

/// Counts work whose amount depends on sizes; function calls and loop turns are counted by the interpreter.
pub(crate) fn spend(eval: &Evaluator<'_, '_, '_>, items: usize) -> Result<(), Refusal> {
    let ctx = context(eval);
    *ctx.last_place.borrow_mut() = eval.call_stack_top_location();
    let work = &ctx.work;
    work.set(work.get().saturating_add(items as u64));
    if work.get() > MAX_WORK {
        return refuse("the recipe does not come to an end: it works through more items than a recipe may");
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
        let beyond = crate::values::as_number(value).is_none_or(|number| number.abs() > MAX_INT);
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
    spend(eval, extent(a) + extent(b))
}

/// Before something of at most `most` items or bytes is made.
pub(crate) fn check_count(eval: &Evaluator<'_, '_, '_>, what: &str, most: usize) -> Result<(), Refusal> {
    check_room(eval)?;
    if most > MAX_ITEMS {
        return refuse(format!("{what} could have {most} items, more than {MAX_ITEMS}"));
    }
    spend(eval, most)
}

/// Before two values are compared element by element.
pub(crate) fn look_through(eval: &Evaluator<'_, '_, '_>, a: Value<'_>, b: Value<'_>) -> Result<(), Refusal> {
    check_room(eval)?;
    spend(eval, check_walk(a)? / 8 + check_walk(b)? / 8)
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
    spend(eval, total as usize)
}

/// Before a value is compared, printed or hashed as a tree: about how many bytes it prints as.
pub(crate) fn check_walk(value: Value<'_>) -> Result<usize, Refusal> {
    let mut bytes = 0;
    walk(value, 0, &mut bytes)?;
    Ok(bytes)
}

fn walk(value: Value<'_>, depth: usize, bytes: &mut usize) -> Result<(), Refusal> {
    *bytes += value.unpack_str().map_or(32, |text| text.len() + 2);
    if *bytes > MAX_PRINTED || depth > MAX_DEPTH {
        return refuse("a nested value is too large to be compared or printed");
    }
    if let Some(items) = crate::values::items(value) {
        for item in items {
            walk(*item, depth + 1, bytes)?;
        }
    } else if let Some(dict) = DictRef::from_value(value) {
        for (key, item) in dict.iter() {
            walk(key, depth + 1, bytes)?;
            walk(item, depth + 1, bytes)?;
        }
    } else if let Some(fields) = StructRef::from_value(value) {
        for (_, item) in fields.iter() {
            walk(item, depth + 1, bytes)?;
        }
    }
    Ok(())
}
