//! Runs a recipe's functions on tensors: each run appends to one fresh graph.

use crate::context::{AskedParam, Context, Declaration, Purpose, Trace, show};
use crate::error::{RecipeError, Refusal, convert, raise, raise_with, refuse, refuse_with};
use crate::graphs::{LogitsGraph, LossGraph, ParamDecl, ScheduleDecl, StateDecl, TrainGraph, UpdateGraph};
use crate::lesson::Objective;
use crate::limits::MAX_TICKS;
use crate::load::evaluator;
use crate::ops::mean_cross_entropy;
use crate::optimizer::{ParamHandle, StateHandle, add_schedule};
use crate::shaping;
use crate::values::{Tensor, describe, in_trace, items};
use pawl_graph::{DType, Graph, InputKind, Op, ValueId};
use starlark::environment::{FrozenModule, Module};
use starlark::eval::Evaluator;
use starlark::values::dict::DictRef;
use starlark::values::{FrozenHeapName, OwnedFrozenValue, Value};

/// Runs a recipe's functions on tensors.
pub(crate) struct Tracer<'a> {
    pub(crate) ctx: &'a Context,
    pub(crate) declaration: &'a Declaration,
    pub(crate) functions: &'a OwnedFrozenValue,
    /// Of a lesson: it stands for the recipe's own loss and lr_multiplier.
    pub(crate) objective: Option<&'a Objective>,
}

/// Places of the functions in the tuple that `recipe(...)` leaves.
#[derive(Clone, Copy)]
enum Function {
    Model = 0,
    Optimizer = 1,
    Loss = 2,
    LrMultiplier = 3,
}

impl Tracer<'_> {
    pub(crate) fn train(&self, micro_batch: usize) -> Result<TrainGraph, RecipeError> {
        let purpose =
            if self.objective.is_none_or(|o| o.dropout) { Purpose::Train } else { Purpose::Evaluate };
        let ((tokens, targets, loss), trace, _) = self.trace(purpose, |eval| {
            let shape = [micro_batch, self.declaration.row_len];
            if let Some(objective) = self.objective {
                return self.taught(eval, objective, &shape);
            }
            let tokens = self.input(eval, "tokens", InputKind::Tokens, &shape);
            let targets = self.input(eval, "targets", InputKind::Targets, &shape);
            let loss = if self.declaration.has_loss {
                let function = self.function(eval, Function::Loss);
                let arguments = [eval.heap().alloc(tokens.clone()), eval.heap().alloc(targets.clone())];
                let result = eval.eval_function(function, &arguments, &[])?;
                self.scalar_loss(eval, result)?
            } else {
                let logits = self.run_model(eval, &tokens, &shape)?;
                let mut trace = self.open();
                mean_cross_entropy(&mut trace, logits, ValueId(targets.id))?
            };
            Ok((ValueId(tokens.id), ValueId(targets.id), loss))
        })?;
        self.check_targets(&trace.graph, targets)?;
        Ok(TrainGraph {
            tokens,
            targets,
            rng: trace.rng,
            loss,
            params: declarations(trace.params),
            graph: trace.graph,
        })
    }

    /// The loss of a lesson: the model has run before targets and signals come into being.
    fn taught<'v>(
        &self,
        eval: &mut Evaluator<'v, '_, '_>,
        objective: &Objective,
        shape: &[usize; 2],
    ) -> starlark::Result<(ValueId, ValueId, ValueId)> {
        let tokens = self.input(eval, "tokens", InputKind::Tokens, shape);
        let logits = self.run_model(eval, &tokens, shape)?;
        let heap = eval.heap();
        let logits = Tensor::of(&self.open(), logits);
        let targets = self.input(eval, "targets", InputKind::Targets, shape);
        let arguments = [heap.alloc(logits), heap.alloc(targets.clone())];
        let mut named = Vec::new();
        for signal in &objective.signals {
            named.push((signal.as_str(), heap.alloc(self.input(eval, signal, InputKind::Signal, shape))));
        }
        let function = heap.access_owned_frozen_value(&objective.loss);
        let result = eval.eval_function(function, &arguments, &named)?;
        let loss = self.scalar_loss(eval, result)?;
        Ok((ValueId(tokens.id), ValueId(targets.id), loss))
    }

    pub(crate) fn logits(&self, batch: usize, seq_len: usize) -> Result<LogitsGraph, RecipeError> {
        let ((tokens, logits), trace, _) = self.trace(Purpose::Evaluate, |eval| {
            let shape = [batch, seq_len];
            let tokens = self.input(eval, "tokens", InputKind::Tokens, &shape);
            let logits = self.run_model(eval, &tokens, &shape)?;
            Ok((ValueId(tokens.id), logits))
        })?;
        Ok(LogitsGraph { tokens, logits, params: declarations(trace.params), graph: trace.graph })
    }

    pub(crate) fn losses(&self, batch: usize, seq_len: usize) -> Result<LossGraph, RecipeError> {
        let ((tokens, targets, losses), trace, _) = self.trace(Purpose::Evaluate, |eval| {
            let shape = [batch, seq_len];
            let tokens = self.input(eval, "tokens", InputKind::Tokens, &shape);
            let logits = self.run_model(eval, &tokens, &shape)?;
            // The targets come into being after the model has run: nothing in it can have seen them.
            let targets = ValueId(self.input(eval, "targets", InputKind::Targets, &shape).id);
            let mut trace = self.open();
            let rows = batch * seq_len;
            let logits = shaping::reshape(&mut trace, logits, vec![rows, self.declaration.vocab_size])?;
            let flat = shaping::reshape(&mut trace, targets, vec![rows])?;
            let losses = trace.add(Op::CrossEntropy, &[logits, flat])?;
            Ok((ValueId(tokens.id), targets, losses))
        })?;
        Ok(LossGraph { tokens, targets, losses, params: declarations(trace.params), graph: trace.graph })
    }

    pub(crate) fn update(&self, params: &[ParamDecl]) -> Result<(UpdateGraph, FrozenModule), RecipeError> {
        let ((updates, states), trace, module) = self.trace(Purpose::Update, |eval| {
            let taught = self.objective.and_then(|objective| objective.lr_multiplier.as_ref());
            let lr_multiplier = if let Some(function) = taught {
                let function = eval.heap().access_owned_frozen_value(function);
                add_schedule(function, Some("lr_multiplier"), eval)?
            } else if self.declaration.has_lr_multiplier {
                add_schedule(self.function(eval, Function::LrMultiplier), Some("lr_multiplier"), eval)?
            } else {
                let mut trace = self.open();
                let one = trace.constant(1.0)?;
                Tensor::of(&trace, one)
            };
            let mut updates = Vec::with_capacity(params.len());
            let mut states = Vec::new();
            for param in params {
                updates
                    .push((param.name.clone(), self.update_one(eval, param, &lr_multiplier, &mut states)?));
            }
            Ok((updates, states))
        })?;
        let schedules = trace
            .schedules
            .into_iter()
            .enumerate()
            .map(|(n, function)| ScheduleDecl { scalar: format!("s{n}"), function })
            .collect();
        Ok((UpdateGraph { graph: trace.graph, updates, states, schedules }, module))
    }

    fn update_one<'v>(
        &self,
        eval: &mut Evaluator<'v, '_, '_>,
        param: &ParamDecl,
        lr_multiplier: &Tensor,
        states: &mut Vec<StateDecl>,
    ) -> starlark::Result<ValueId> {
        let name = &param.name;
        let heap = eval.heap();
        let optimizer = self.function(eval, Function::Optimizer);
        let handle = heap.alloc(ParamHandle { name: name.clone(), shape: param.shape.clone() });
        let rule = eval.eval_function(optimizer, &[handle], &[])?;
        if rule.get_type() != "function" {
            return raise_with(
                format!("optimizer({name}) gives {}, not an update function", describe(rule)),
                "return a function update(w, g, s) -> (new_w, {state_name: new_value})",
            );
        }
        let first_state = self.open().states.len();
        let w = self.input(eval, name, InputKind::Param, &param.shape);
        let g = self.input(eval, name, InputKind::Grad, &param.shape);
        let s = StateHandle { param: name.clone(), lr_multiplier: lr_multiplier.clone() };
        let result = eval.eval_function(rule, &[heap.alloc(w), heap.alloc(g), heap.alloc(s)], &[])?;
        let Some([new, new_states]) = items(result) else {
            return raise_with(
                format!("the update of `{name}` gives {}", describe(result)),
                "return (new_w, {state_name: new_value}), the dict empty when there is no state",
            );
        };
        let trace = self.open();
        let updated = expect_tensor(&trace, *new, &param.shape, &format!("the new value of `{name}`"))?;
        let Some(dict) = DictRef::from_value(*new_states) else {
            return raise(format!("the states of `{name}` are {}, not a dict", describe(*new_states)));
        };
        collect_states(&trace, name, first_state, &dict, states)?;
        Ok(updated)
    }

    /// A leaf of the trace in progress.
    fn input(&self, eval: &Evaluator<'_, '_, '_>, name: &str, kind: InputKind, shape: &[usize]) -> Tensor {
        let dtype = match kind {
            InputKind::Tokens | InputKind::Targets | InputKind::Rng => DType::I32,
            InputKind::Param | InputKind::Grad | InputKind::State | InputKind::Scalar | InputKind::Signal => {
                DType::F32
            }
        };
        let _ = eval;
        let mut trace = self.open();
        let value = trace.graph.input(name, kind, shape, dtype);
        Tensor::of(&trace, value)
    }

    fn open(&self) -> std::cell::RefMut<'_, Trace> {
        std::cell::RefMut::map(self.ctx.trace.borrow_mut(), |trace| {
            trace.as_mut().expect("the tracer's closures run inside a trace")
        })
    }

    fn function<'v>(&self, eval: &Evaluator<'v, '_, '_>, which: Function) -> Value<'v> {
        let all = eval.heap().access_owned_frozen_value(self.functions);
        items(all).expect("recipe(...) leaves a tuple of four")[which as usize]
    }

    fn run_model<'v>(
        &self,
        eval: &mut Evaluator<'v, '_, '_>,
        tokens: &Tensor,
        shape: &[usize; 2],
    ) -> starlark::Result<ValueId> {
        let function = self.function(eval, Function::Model);
        let argument = eval.heap().alloc(tokens.clone());
        let result = eval.eval_function(function, &[argument], &[])?;
        let wanted = [shape[0], shape[1], self.declaration.vocab_size];
        Ok(expect_tensor(&self.open(), result, &wanted, "the result of model, logits (B, T, V),")?)
    }

    fn scalar_loss<'v>(&self, eval: &Evaluator<'v, '_, '_>, result: Value<'v>) -> starlark::Result<ValueId> {
        let _ = eval;
        let mut trace = self.open();
        let Some(tensor) = Tensor::from_value(result) else {
            return raise(format!("the result of loss is {}, not a tensor", describe(result)));
        };
        let value = in_trace(&trace, tensor)?;
        if tensor.is_int || tensor.shape.iter().any(|extent| *extent != 1) {
            return raise_with(
                format!("the result of loss is {tensor}, not a scalar"),
                "take the mean over all axes: x.mean()",
            );
        }
        Ok(shaping::reshape(&mut trace, value, vec![])?)
    }

    /// Runs `build` with a fresh graph and evaluator.
    fn trace<R>(
        &self,
        purpose: Purpose,
        build: impl for<'v> FnOnce(&mut Evaluator<'v, '_, '_>) -> starlark::Result<R>,
    ) -> Result<(R, Trace, FrozenModule), RecipeError> {
        let id = {
            let mut count = self.ctx.num_traces.borrow_mut();
            *count += 1;
            *count
        };
        *self.ctx.trace.borrow_mut() = Some(Trace::new(id, purpose));
        let outcome = Module::with_temp_heap(|module| {
            let result = {
                let mut eval = evaluator(&module, self.ctx, MAX_TICKS);
                build(&mut eval).map_err(|error| convert(&error, self.ctx))?
            };
            let frozen = module
                .freeze_named(FrozenHeapName::User(Box::new(format!("trace {id}"))))
                .map_err(|error| RecipeError::new(&self.ctx.recipe_file, format!("{error:?}")))?;
            Ok((result, frozen))
        });
        let trace = self.ctx.trace.borrow_mut().take().expect("nobody else takes the trace");
        let (result, frozen) = outcome?;
        Ok((result, trace, frozen))
    }

    /// A training loss may compare logits with targets; logits made from targets would be an answer key.
    fn check_targets(&self, graph: &Graph, targets: ValueId) -> Result<(), RecipeError> {
        let mut tainted = vec![false; graph.instrs.len()];
        tainted[graph.values[targets.idx()].instr] = true;
        for (idx, instr) in graph.instrs.iter().enumerate() {
            let from = |value: &ValueId| tainted[graph.values[value.idx()].instr];
            if matches!(instr.op, Op::CrossEntropy) && from(&instr.inputs[0]) {
                let name = graph.describe(instr.inputs[0]);
                let refusal = Refusal {
                    because: format!("cross_entropy: the logits ({name}) are computed from the targets"),
                    hint: Some("logits may come from tokens only".to_string()),
                };
                let mut error = RecipeError::refused(&self.ctx.recipe_file, refusal);
                error.line = instr.origin.rsplit(':').next().and_then(|line| line.parse().ok());
                return Err(error);
            }
            tainted[idx] |= instr.inputs.iter().any(from);
        }
        Ok(())
    }
}

fn declarations(asked: Vec<AskedParam>) -> Vec<ParamDecl> {
    asked
        .into_iter()
        .map(|AskedParam { name, shape, init, value }| ParamDecl { name, shape, init, value })
        .collect()
}

fn expect_tensor(trace: &Trace, value: Value<'_>, shape: &[usize], what: &str) -> Result<ValueId, Refusal> {
    let Some(tensor) = Tensor::from_value(value) else {
        return refuse(format!("{what} must be a tensor {}, got {}", show(shape), describe(value)));
    };
    let id = in_trace(trace, tensor)?;
    if tensor.shape != shape || tensor.is_int {
        return refuse(format!("{what} must be a float tensor {}, got {tensor}", show(shape)));
    }
    Ok(id)
}

fn collect_states(
    trace: &Trace,
    param: &str,
    first: usize,
    returned: &DictRef<'_>,
    states: &mut Vec<StateDecl>,
) -> Result<(), Refusal> {
    let asked = &trace.states[first..];
    for key in returned.keys() {
        let name = key.unpack_str().unwrap_or_default();
        if !asked.iter().any(|(full, _, _)| full.strip_prefix(param) == Some(&format!("#{name}"))) {
            return refuse_with(
                format!("the update of `{param}` returns a state `{name}` it never asked for"),
                "ask with s.state(name, shape)",
            );
        }
    }
    for (full, shape, input) in asked {
        let short = &full[param.len() + 1..];
        let Some((_, value)) = returned.iter().find(|(key, _)| key.unpack_str() == Some(short)) else {
            return refuse_with(
                format!("the update of `{param}` does not return its state `{short}`"),
                format!("return (new_w, {{\"{short}\": new_value}})"),
            );
        };
        let value = expect_tensor(trace, value, shape, &format!("the new state `{full}`"))?;
        states.push(StateDecl { name: full.clone(), shape: shape.clone(), input: *input, value });
    }
    Ok(())
}
