//! How a parameter starts, and the recipe's words for it.

use crate::error::{Refusal, refuse};
use crate::values::number;
use starlark::environment::GlobalsBuilder;
use starlark::starlark_module;
use starlark::starlark_simple_value;
use starlark::values::list::UnpackList;
use starlark::values::{
    NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Value, starlark_value,
};
use std::fmt;

/// First values of a parameter. Random draws are keyed by (seed, parameter name) in `pawl-model`.
#[derive(Clone, Debug, PartialEq, allocative::Allocative)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All the same.
    Constant(f32),
    /// Normal draws.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// Uniform draws from low to high.
    Uniform {
        /// Lower end.
        low: f32,
        /// Upper end.
        high: f32,
    },
    /// These, in row-major order.
    Values(Vec<f32>),
}

/// An [`Init`] as a recipe holds it.
#[derive(
    Clone, Debug, PartialEq, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, allocative::Allocative,
)]
pub(crate) struct InitValue(pub(crate) Init);

starlark_simple_value!(InitValue);

#[starlark_value(type = "init")]
impl<'v> StarlarkValue<'v> for InitValue {}

impl fmt::Display for InitValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Init::Zeros => f.write_str("zeros()"),
            Init::Constant(value) => write!(f, "constant({value:?})"),
            Init::Normal { std } => write!(f, "normal({std:?})"),
            Init::Uniform { low, high } => write!(f, "uniform({low:?}, {high:?})"),
            Init::Values(values) => write!(f, "values of {} numbers", values.len()),
        }
    }
}

fn single(value: Value<'_>, what: &str) -> Result<f32, Refusal> {
    let value = number(value, what)?;
    if !(value as f32).is_finite() {
        return refuse(format!("{what} is {value:?}, not a finite float32"));
    }
    Ok(value as f32)
}

fn spread(value: Value<'_>, what: &str) -> Result<f32, Refusal> {
    let value = single(value, what)?;
    if value < 0.0 {
        return refuse(format!("{what} is {value:?}, but cannot be negative"));
    }
    Ok(value)
}

#[starlark_module]
pub(crate) fn inits(builder: &mut GlobalsBuilder) {
    fn zeros() -> starlark::Result<InitValue> {
        Ok(InitValue(Init::Zeros))
    }

    fn ones() -> starlark::Result<InitValue> {
        Ok(InitValue(Init::Constant(1.0)))
    }

    fn constant<'v>(#[starlark(require = pos)] value: Value<'v>) -> starlark::Result<InitValue> {
        Ok(InitValue(Init::Constant(single(value, "constant(value)")?)))
    }

    fn normal<'v>(std: Value<'v>) -> starlark::Result<InitValue> {
        Ok(InitValue(Init::Normal { std: spread(std, "normal(std)")? }))
    }

    /// `uniform(bound)` is from -bound to bound, `uniform(low, high)` as it says.
    fn uniform<'v>(low: Value<'v>, high: Option<Value<'v>>) -> starlark::Result<InitValue> {
        let Some(high) = high else {
            let bound = spread(low, "uniform(bound)")?;
            return Ok(InitValue(Init::Uniform { low: -bound, high: bound }));
        };
        let (low, high) =
            (single(low, "low of uniform(low, high)")?, single(high, "high of uniform(low, high)")?);
        if low > high {
            return refuse(format!("uniform({low:?}, {high:?}) has its lower end above its upper"))
                .map_err(Into::into);
        }
        Ok(InitValue(Init::Uniform { low, high }))
    }

    fn values<'v>(#[starlark(require = pos)] numbers: UnpackList<Value<'v>>) -> starlark::Result<InitValue> {
        let mut list = Vec::with_capacity(numbers.items.len());
        for value in numbers.items {
            list.push(single(value, "values([...])")?);
        }
        Ok(InitValue(Init::Values(list)))
    }
}
