//! What an optimizer function is handed: the parameter's description, its states, the schedules.

use crate::context::{context, elements, show};
use crate::error::{Refusal, raise, refuse, refuse_with};
use crate::values::{Tensor, describe, shape as shape_arg, with_trace};
use pawl_graph::{DType, InputKind};
use starlark::environment::{Methods, MethodsBuilder};
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::starlark_simple_value;
use starlark::values::tuple::AllocTuple;
use starlark::values::{
    Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Value, starlark_value,
};
use std::fmt;

/// `p`: which parameter an update rule is asked for.
#[derive(Clone, Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, allocative::Allocative)]
pub(crate) struct ParamHandle {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

starlark_simple_value!(ParamHandle);
starlark::methods_static!(PARAM_METHODS = param_methods);

#[starlark_value(type = "parameter")]
impl<'v> StarlarkValue<'v> for ParamHandle {
    fn get_methods() -> Option<&'static Methods> {
        Some(PARAM_METHODS.methods())
    }
}

impl fmt::Display for ParamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parameter {} {}", self.name, show(&self.shape))
    }
}

#[starlark_module]
fn param_methods(builder: &mut MethodsBuilder) {
    #[starlark(attribute)]
    fn name(this: &ParamHandle) -> starlark::Result<String> {
        Ok(this.name.clone())
    }

    #[starlark(attribute)]
    fn shape<'v>(this: &ParamHandle, heap: Heap<'v>) -> starlark::Result<Value<'v>> {
        Ok(heap.alloc(AllocTuple(this.shape.iter().map(|extent| *extent as i64))))
    }

    #[starlark(attribute)]
    fn ndim(this: &ParamHandle) -> starlark::Result<i32> {
        Ok(this.shape.len() as i32)
    }
}

/// `s`: the states of one parameter and the numbers that follow the run.
#[derive(Clone, Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, allocative::Allocative)]
pub(crate) struct StateHandle {
    pub(crate) param: String,
    pub(crate) lr_multiplier: Tensor,
}

starlark_simple_value!(StateHandle);
starlark::methods_static!(STATE_METHODS = state_methods);

#[starlark_value(type = "optimizer_state")]
impl<'v> StarlarkValue<'v> for StateHandle {
    fn get_methods() -> Option<&'static Methods> {
        Some(STATE_METHODS.methods())
    }
}

impl fmt::Display for StateHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state of {}", self.param)
    }
}

/// Name under which the n-th schedule's function is kept in the module of the trace.
pub(crate) fn schedule_slot(n: usize) -> String {
    format!("schedule_{n}")
}

/// Scalar that follows `function`; one function has one scalar.
pub(crate) fn add_schedule<'v>(
    function: Value<'v>,
    name: Option<&str>,
    eval: &Evaluator<'v, '_, '_>,
) -> Result<Tensor, Refusal> {
    if function.get_type() != "function" {
        return refuse_with(
            format!("schedule needs a function of t, got {}", describe(function)),
            "s.schedule(lambda t: 1 - pow(0.9, t.step + 1))",
        );
    }
    let module = eval.module();
    let ctx = context(eval);
    let mut trace = ctx.tracing(eval, "schedule")?;
    let known = (0..trace.schedules.len())
        .find(|n| module.get(&schedule_slot(*n)).is_some_and(|other| other.ptr_eq(function)));
    if let Some(n) = known {
        let name = format!("s{n}");
        let value = trace
            .graph
            .find_input(&name, &InputKind::Scalar)
            .expect("every schedule of the trace declared its scalar");
        return Ok(Tensor::of(&trace, value));
    }
    let n = trace.schedules.len();
    if n >= MAX_SCHEDULES {
        return refuse_with(
            format!("more than {MAX_SCHEDULES} schedules"),
            "make the function once, outside of optimizer(p), and hand the same one to every parameter",
        );
    }
    let own_name = function.to_str();
    trace.schedules.push(
        name.map_or_else(|| own_name.rsplit('.').next().unwrap_or("lambda").to_string(), str::to_string),
    );
    module.set(&schedule_slot(n), function);
    let value = trace.graph.input(&format!("s{n}"), InputKind::Scalar, &[], DType::F32);
    Ok(Tensor::of(&trace, value))
}

/// Each schedule is a function call a step; more than this and setting them costs more than a small step.
const MAX_SCHEDULES: usize = 4096;

#[starlark_module]
fn state_methods(builder: &mut MethodsBuilder) {
    #[starlark(attribute)]
    fn lr_multiplier(this: &StateHandle) -> starlark::Result<Tensor> {
        Ok(this.lr_multiplier.clone())
    }

    fn state<'v>(
        this: &StateHandle,
        #[starlark(require = pos)] name: &str,
        #[starlark(require = pos)] shape: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let shape = shape_arg(shape, "state")?;
        elements(&shape)?;
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(fine) {
            return raise(format!("`{name}` is not a name for a state"));
        }
        let full = format!("{}#{name}", this.param);
        with_trace(eval, "state", |t| {
            if let Some((_, known, value)) = t.states.iter().find(|(known, _, _)| *known == full) {
                if *known == shape {
                    return Ok(*value);
                }
                return refuse(format!(
                    "state `{full}` has two shapes, {} and {}",
                    show(known),
                    show(&shape)
                ));
            }
            let value = t.graph.input(&full, InputKind::State, &shape, DType::F32);
            t.states.push((full.clone(), shape, value));
            Ok(value)
        })
    }

    fn schedule<'v>(
        this: &StateHandle,
        #[starlark(require = pos)] function: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let _ = this;
        Ok(add_schedule(function, None, eval)?)
    }
}

/// `t`: where a run stands.
#[derive(Clone, Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, allocative::Allocative)]
pub(crate) struct Moment {
    pub(crate) step: u64,
    pub(crate) num_steps: u64,
    pub(crate) age: u64,
}

starlark_simple_value!(Moment);
starlark::methods_static!(MOMENT_METHODS = moment_methods);

#[starlark_value(type = "moment")]
impl<'v> StarlarkValue<'v> for Moment {
    fn get_methods() -> Option<&'static Methods> {
        Some(MOMENT_METHODS.methods())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} of {}", self.step, self.num_steps)
    }
}

#[starlark_module]
fn moment_methods(builder: &mut MethodsBuilder) {
    #[starlark(attribute)]
    fn step(this: &Moment) -> starlark::Result<i64> {
        Ok(this.step as i64)
    }

    /// Updates that the optimizer's state has seen: `step`, unless the state came from another run.
    #[starlark(attribute)]
    fn age(this: &Moment) -> starlark::Result<i64> {
        Ok(this.age as i64)
    }

    #[starlark(attribute)]
    fn num_steps(this: &Moment) -> starlark::Result<i64> {
        Ok(this.num_steps as i64)
    }

    #[starlark(attribute)]
    fn progress(this: &Moment) -> starlark::Result<f64> {
        Ok(this.step as f64 / this.num_steps as f64)
    }
}
