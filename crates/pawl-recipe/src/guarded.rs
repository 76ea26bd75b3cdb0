//! The interpreter's own functions and methods that can make or walk something large, each behind a look at
//! how large. They are the standard ones otherwise.

use crate::error::{Refusal, refuse, refuse_with};
use crate::limits::{check_count, check_walk, extent, spend};
use crate::values::{as_number, items};
use starlark::collections::SmallMap;
use starlark::environment::{Globals, GlobalsBuilder, LibraryExtension};
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::dict::DictRef;
use starlark::values::list::ListRef;
use starlark::values::tuple::UnpackTuple;
use starlark::values::{FrozenValue, Value};
use std::sync::OnceLock;

/// Methods whose result can be much larger than the receiver: `source.rs` turns their calls into `__method`.
pub(crate) const GROWING_METHODS: [&str; 5] = ["extend", "update", "join", "replace", "format"];

fn standard(name: &str) -> FrozenValue {
    static STANDARD: OnceLock<Globals> = OnceLock::new();
    let globals = STANDARD.get_or_init(|| {
        Globals::extended_by(&[LibraryExtension::Map, LibraryExtension::Filter, LibraryExtension::Print])
    });
    let found = globals.iter().find(|(known, _)| *known == name);
    found.expect("guarded functions are named for standard ones").1
}

fn call_standard<'v>(
    name: &str,
    args: &[Value<'v>],
    kwargs: &SmallMap<String, Value<'v>>,
    eval: &mut Evaluator<'v, '_, '_>,
) -> starlark::Result<Value<'v>> {
    let total: usize = args.iter().chain(kwargs.values()).map(|value| extent(*value)).sum();
    check_count(eval, name, total)?;
    if matches!(name, "str" | "repr" | "fail" | "print" | "sorted" | "max" | "min" | "dict" | "int" | "float")
    {
        for value in args.iter().chain(kwargs.values()) {
            spend(eval, check_walk(*value)? / 8)?;
        }
    }
    if matches!(name, "int" | "float") && total > 400 {
        return Err(
            Refusal { because: format!("{name} of a string of {total} characters"), hint: None }.into()
        );
    }
    let named: Vec<(&str, Value<'v>)> = kwargs.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    eval.eval_function(standard(name).to_value(), args, &named)
}

macro_rules! guarded_functions {
    ($($name:ident)*) => {
        #[starlark_module]
        pub(crate) fn guarded_functions(builder: &mut GlobalsBuilder) {
            $(
                fn $name<'v>(
                    #[starlark(args)] args: UnpackTuple<Value<'v>>,
                    #[starlark(kwargs)] kwargs: SmallMap<String, Value<'v>>,
                    eval: &mut Evaluator<'v, '_, '_>,
                ) -> starlark::Result<Value<'v>> {
                    call_standard(stringify!($name), &args.items, &kwargs, eval)
                }
            )*
        }
    };
}

guarded_functions! {
    list tuple dict enumerate zip sorted reversed str repr map filter max min any all int float fail print hash
}

/// Longest range: longer loops would meet the limit on steps anyway.
const MAX_RANGE: f64 = 1e6;

#[starlark_module]
pub(crate) fn guarded_methods(builder: &mut GlobalsBuilder) {
    fn range<'v>(
        #[starlark(args)] args: UnpackTuple<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let numbers: Vec<f64> = args.items.iter().filter_map(|value| as_number(*value)).collect();
        let length = match numbers.as_slice() {
            [stop] => *stop,
            [start, stop] => stop - start,
            [start, stop, step] => (stop - start) / step,
            _ => 0.0,
        };
        if length > MAX_RANGE {
            return Err(too_long(length).into());
        }
        spend(eval, 1)?;
        eval.eval_function(standard("range").to_value(), &args.items, &[])
    }

    fn getattr<'v>(
        #[starlark(require = pos)] this: Value<'v>,
        #[starlark(require = pos)] name: &str,
        #[starlark(require = pos)] default: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        check_detached(this, name)?;
        match (this.get_attr(name, eval.heap())?, default) {
            (Some(value), _) | (None, Some(value)) => Ok(value),
            (None, None) => this.get_attr_error(name, eval.heap()),
        }
    }

    fn __attr<'v>(
        #[starlark(require = pos)] name: &str,
        #[starlark(require = pos)] this: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        check_detached(this, name)?;
        this.get_attr_error(name, eval.heap())
    }

    fn __method<'v>(
        #[starlark(require = pos)] name: &str,
        #[starlark(require = pos)] this: Value<'v>,
        #[starlark(args)] args: UnpackTuple<Value<'v>>,
        #[starlark(kwargs)] kwargs: SmallMap<String, Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        if is_growing(this) {
            check_count(eval, name, most_items(name, this, &args.items, &kwargs)?)?;
        }
        let method = this.get_attr_error(name, eval.heap())?;
        let named: Vec<(&str, Value<'v>)> =
            kwargs.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        eval.eval_function(method, &args.items, &named)
    }
}

fn too_long(length: f64) -> Refusal {
    Refusal {
        because: format!("range of {length:.0} steps: a recipe does not come to an end after that many"),
        hint: Some("tensors are looped over by operations, not by steps of the recipe".to_string()),
    }
}

fn is_growing(this: Value<'_>) -> bool {
    this.unpack_str().is_some() || ListRef::from_value(this).is_some() || DictRef::from_value(this).is_some()
}

/// A growing method can be called, but not carried away from where it is counted.
fn check_detached(this: Value<'_>, name: &str) -> Result<(), Refusal> {
    if GROWING_METHODS.contains(&name) && is_growing(this) {
        return refuse_with(
            format!("`{name}` of a {} is not a value", this.get_type()),
            format!("call it: x.{name}(...)"),
        );
    }
    Ok(())
}

/// An upper bound of the items of the result.
fn most_items<'v>(
    name: &str,
    this: Value<'v>,
    args: &[Value<'v>],
    kwargs: &SmallMap<String, Value<'v>>,
) -> Result<usize, Refusal> {
    let own = extent(this);
    let lengths: Vec<usize> = args.iter().map(|value| extent(*value)).collect();
    Ok(match (name, args) {
        ("join", [parts]) => {
            let Some(parts) = items(*parts) else { return refuse("join needs a list of strings") };
            parts.iter().map(|part| extent(*part).saturating_add(own)).fold(0, usize::saturating_add)
        }
        ("replace", [_, _, ..]) => {
            let hits = own / lengths[0].max(1) + 1;
            own.saturating_add(hits.saturating_mul(lengths[1]))
        }
        ("format", _) => {
            let all: Vec<Value<'v>> = args.iter().chain(kwargs.values()).copied().collect();
            format_bound(this, &all)?
        }
        _ => lengths.iter().fold(own, |sum, length| sum.saturating_add(*length)),
    })
}

/// Bytes that a format string can give: itself, and for each place the longest value.
pub(crate) fn format_bound(format: Value<'_>, values: &[Value<'_>]) -> Result<usize, Refusal> {
    let text = format.unpack_str().unwrap_or_default();
    let places = text.bytes().filter(|byte| matches!(byte, b'{' | b'%')).count();
    let mut longest = 0;
    for value in values {
        longest = longest.max(check_walk(*value)?);
    }
    Ok(text.len().saturating_add(places.saturating_mul(longest)))
}
