//! A loaded recipe and the graphs it describes.

use crate::context::{AskedParam, Context, Declaration, Purpose, Trace, show};
use crate::declare::Packing;
use crate::error::{RecipeError, Refusal, convert, raise, raise_with, refuse, refuse_with};
use crate::init::Init;
use crate::limits::MAX_TICKS;
use crate::load::{Loaded, Loader, Source, evaluator, load};
use crate::ops::mean_cross_entropy;
use crate::optimizer::{Moment, ParamHandle, StateHandle, add_schedule, schedule_slot};
use crate::settings::Setting;
use crate::shaping;
use crate::values::{Tensor, describe, in_trace, items};
use pawl_graph::{DType, Graph, InputKind, Op, ValueId};
use pawl_record::Settings;
use starlark::environment::{FrozenModule, Module};
use starlark::eval::Evaluator;
use starlark::values::dict::DictRef;
use starlark::values::{FrozenHeapName, OwnedFrozenValue, Value};
use std::collections::{BTreeMap, HashMap};

/// Values that replace a recipe's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// The scale dial.
    pub depth: Option<u64>,
    /// Dials, knobs and choices by name.
    pub values: Settings,
}

/// A trainable tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamDecl {
    /// Path such as `blocks.0.attn.q`.
    pub name: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// How it starts.
    pub init: Init,
    /// Its leaf in the graph it came with.
    pub value: ValueId,
}

/// Forward pass and loss of one micro-batch.
#[derive(Clone, Debug)]
pub struct TrainGraph {
    /// The program.
    pub graph: Graph,
    /// Token ids (B, T), I32.
    pub tokens: ValueId,
    /// Next-token ids (B, T), I32, -1 where there is none.
    pub targets: ValueId,
    /// Key of dropout (2), I32, when the recipe drops out.
    pub rng: Option<ValueId>,
    /// The scalar that is made small.
    pub loss: ValueId,
    /// Every trainable tensor, in the order in which the recipe asked.
    pub params: Vec<ParamDecl>,
}

/// Cross-entropy as the host measures it.
#[derive(Clone, Debug)]
pub struct LossGraph {
    /// The program.
    pub graph: Graph,
    /// Token ids (B, T), I32.
    pub tokens: ValueId,
    /// Next-token ids (B, T), I32, -1 where there is none.
    pub targets: ValueId,
    /// Loss of each token in nats (B * T), 0 where the target is -1.
    pub losses: ValueId,
    /// The tensors it reads.
    pub params: Vec<ParamDecl>,
}

/// Logits alone.
#[derive(Clone, Debug)]
pub struct LogitsGraph {
    /// The program.
    pub graph: Graph,
    /// Token ids (B, T), I32.
    pub tokens: ValueId,
    /// (B, T, V).
    pub logits: ValueId,
    /// The tensors it reads.
    pub params: Vec<ParamDecl>,
}

/// Optimizer state of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct StateDecl {
    /// `param#state`.
    pub name: String,
    /// Extents; zeros at the start.
    pub shape: Vec<usize>,
    /// Its leaf.
    pub input: ValueId,
    /// Its next value.
    pub value: ValueId,
}

/// One optimizer update of all parameters. Leaves: `Param` and `Grad` by parameter name, `State` by
/// `param#state`, `Scalar` by schedule name.
#[derive(Clone, Debug)]
pub struct UpdateGraph {
    /// The program.
    pub graph: Graph,
    /// New value of each parameter, in the order of the training graph.
    pub updates: Vec<(String, ValueId)>,
    /// States and their new values.
    pub states: Vec<StateDecl>,
    /// What drives each scalar, in the order of the rows of [`Recipe::schedule_table`].
    pub schedules: Vec<ScheduleDecl>,
}

/// A number that follows the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleDecl {
    /// Its leaf of kind `Scalar`: `s0`, `s1`, ...
    pub scalar: String,
    /// Name of the recipe's function; `lr_multiplier` for the one given to `recipe(...)`.
    pub function: String,
}

/// A recipe that has been evaluated, traced once and found sound.
pub struct Recipe {
    name: String,
    text: String,
    texts: BTreeMap<String, String>,
    ctx: Context,
    declaration: Declaration,
    functions: OwnedFrozenValue,
    train: TrainGraph,
    logits: LogitsGraph,
    update: UpdateGraph,
    schedules: FrozenModule,
}

impl Recipe {
    /// Evaluates the text under the limits of this crate and traces model, loss and optimizer once.
    pub fn load(source: &Source, overrides: &Overrides, loader: &Loader<'_>) -> Result<Recipe, RecipeError> {
        let ctx = Context::new(&source.name, overrides.depth, overrides.values.clone());
        let Loaded { declaration, functions, texts } = load(source, &ctx, loader)?;
        let tracer = Tracer { ctx: &ctx, declaration: &declaration, functions: &functions };
        let train = tracer.train(micro_batch(&declaration))?;
        let (update, schedules) = tracer.update(&train.params)?;
        // Two sequences, so that one which sees the other is found.
        let logits = tracer.logits(2, declaration.seq_len)?;
        check_causal(&source.name, &logits)?;
        check_same_params(&train.params, &logits.params)
            .and_then(|()| ctx.settings.borrow().check_overrides())
            .map_err(|refusal| refused(&source.name, refusal))?;
        Ok(Recipe {
            name: source.name.clone(),
            text: source.text.clone(),
            texts,
            ctx,
            declaration,
            functions,
            train,
            logits,
            update,
            schedules,
        })
    }

    /// File name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text it was loaded from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Text of the recipe and of every file it loads, by name.
    pub fn texts(&self) -> &BTreeMap<String, String> {
        &self.texts
    }

    /// Dials, knobs and choices with their values in force, in order of declaration.
    pub fn settings(&self) -> Vec<Setting> {
        self.ctx.settings.borrow().declared.clone()
    }

    /// T.
    pub fn seq_len(&self) -> usize {
        self.declaration.seq_len
    }

    /// Tokens of one optimizer update.
    pub fn tokens_per_step(&self) -> usize {
        self.declaration.tokens_per_step
    }

    /// V.
    pub fn vocab_size(&self) -> usize {
        self.declaration.vocab_size
    }

    /// Sequences that run at once: as declared, or the most that divide a step within 4096 tokens.
    pub fn micro_batch(&self) -> usize {
        micro_batch(&self.declaration)
    }

    /// The training graph of the declared micro-batch, as traced when the recipe was loaded.
    pub(crate) fn traced_train(&self) -> &TrainGraph {
        &self.train
    }

    /// Logits of two sequences as evaluation sees them, as traced when the recipe was loaded.
    pub(crate) fn traced_logits(&self) -> &LogitsGraph {
        &self.logits
    }

    /// Weight of each data domain; empty means by size.
    pub fn mixture(&self) -> &BTreeMap<String, f64> {
        &self.declaration.mixture
    }

    /// How documents become rows.
    pub fn packing(&self) -> Packing {
        self.declaration.packing
    }

    /// Every trainable tensor, in the order in which the recipe asked.
    pub fn params(&self) -> &[ParamDecl] {
        &self.train.params
    }

    fn tracer(&self) -> Tracer<'_> {
        Tracer { ctx: &self.ctx, declaration: &self.declaration, functions: &self.functions }
    }

    /// Forward pass and loss of `micro_batch` sequences.
    pub fn train_graph(&self, micro_batch: usize) -> Result<TrainGraph, RecipeError> {
        if micro_batch == self.micro_batch() {
            return Ok(self.train.clone());
        }
        self.tracer().train(micro_batch)
    }

    /// The host's cross-entropy of the model's logits for `batch` sequences of `seq_len` tokens.
    pub fn loss_graph(&self, batch: usize, seq_len: usize) -> Result<LossGraph, RecipeError> {
        self.tracer().losses(batch, seq_len)
    }

    /// The model's logits for `batch` sequences of `seq_len` tokens.
    pub fn logits_graph(&self, batch: usize, seq_len: usize) -> Result<LogitsGraph, RecipeError> {
        self.tracer().logits(batch, seq_len)
    }

    /// The optimizer of all parameters.
    pub fn update_graph(&self) -> &UpdateGraph {
        &self.update
    }

    /// Value of each schedule at each step: `table[schedule][step]`, in the order of
    /// [`UpdateGraph::schedules`], computed in float64 and rounded once.
    pub fn schedule_table(&self, num_steps: u64) -> Result<Vec<Vec<f32>>, RecipeError> {
        (0..self.update.schedules.len()).map(|n| self.schedule_row(n, num_steps, 0..num_steps)).collect()
    }

    /// Values of the n-th schedule at some steps of a run.
    pub(crate) fn schedule_row(
        &self,
        n: usize,
        num_steps: u64,
        steps: impl Iterator<Item = u64>,
    ) -> Result<Vec<f32>, RecipeError> {
        let function = self
            .schedules
            .get(&schedule_slot(n))
            .map_err(|error| RecipeError::new(&self.name, format!("schedule {n}: {error}")))?;
        let mut row = Vec::new();
        let mut steps = steps.peekable();
        while steps.peek().is_some() {
            // A fresh heap every so often keeps the memory of a long run's schedule small.
            Module::with_temp_heap(|module| {
                let function = module.heap().access_owned_frozen_value(&function);
                let mut eval = evaluator(&module, &self.ctx, STEPS_PER_HEAP as u64 * TICKS_PER_MOMENT);
                for step in steps.by_ref().take(STEPS_PER_HEAP) {
                    let moment = module.heap().alloc(Moment { step, num_steps });
                    let value = eval
                        .eval_function(function, &[moment], &[])
                        .map_err(|error| convert(&error, &self.ctx))?;
                    row.push(schedule_value(value, step).map_err(|refusal| refused(&self.name, refusal))?);
                }
                Ok(())
            })?;
        }
        Ok(row)
    }
}

const STEPS_PER_HEAP: usize = 4096;
const TICKS_PER_MOMENT: u64 = 1000;

fn schedule_value(value: Value<'_>, step: u64) -> Result<f32, Refusal> {
    let number = crate::values::number(value, "a schedule's result")?;
    if !(number as f32).is_finite() {
        return refuse(format!("a schedule gives {number:?} at step {step}"));
    }
    Ok(number as f32)
}

fn refused(file: &str, refusal: Refusal) -> RecipeError {
    RecipeError { hint: refusal.hint, ..RecipeError::new(file, refusal.because) }
}

fn check_causal(file: &str, logits: &LogitsGraph) -> Result<(), RecipeError> {
    let Err(leak) = logits.graph.check_causal(logits.logits) else { return Ok(()) };
    let (origin, line) = match leak.origin.rsplit_once(':') {
        Some((origin, line)) => (origin, line.parse().ok()),
        None => (file, None),
    };
    let message = format!("the model is not causal: {} {}", leak.op, leak.because);
    Err(RecipeError { line, ..RecipeError::new(origin, message) }
        .hint("logits at position t may depend on tokens 0 to t of the same sequence and on nothing else"))
}

/// Tokens that run at once when the recipe does not say: enough to fill the kernels of a CPU.
const TOKENS_AT_ONCE: usize = 4096;

fn micro_batch(declaration: &Declaration) -> usize {
    let sequences = declaration.tokens_per_step / declaration.seq_len;
    let most = (TOKENS_AT_ONCE / declaration.seq_len).clamp(1, sequences);
    declaration
        .micro_batch
        .unwrap_or_else(|| (1..=most).rev().find(|b| sequences.is_multiple_of(*b)).unwrap_or(1))
}

fn check_same_params(train: &[ParamDecl], evaluate: &[ParamDecl]) -> Result<(), Refusal> {
    let known: HashMap<&str, &[usize]> =
        train.iter().map(|p| (p.name.as_str(), p.shape.as_slice())).collect();
    for param in evaluate {
        match known.get(param.name.as_str()) {
            Some(shape) if *shape == param.shape => {}
            Some(shape) => {
                return refuse(format!(
                    "parameter `{}` is {} in training and {} in evaluation",
                    param.name,
                    show(shape),
                    show(&param.shape)
                ));
            }
            None => {
                return refuse(format!("parameter `{}` is used in evaluation but never trained", param.name));
            }
        }
    }
    Ok(())
}

/// Places of the functions in the tuple that `recipe(...)` leaves.
#[derive(Clone, Copy)]
enum Function {
    Model = 0,
    Optimizer = 1,
    Loss = 2,
    LrMultiplier = 3,
}

/// Runs a recipe's functions on tensors.
struct Tracer<'a> {
    ctx: &'a Context,
    declaration: &'a Declaration,
    functions: &'a OwnedFrozenValue,
}

impl Tracer<'_> {
    fn train(&self, micro_batch: usize) -> Result<TrainGraph, RecipeError> {
        let ((tokens, targets, loss), trace, _) = self.trace(Purpose::Train, |eval| {
            let shape = [micro_batch, self.declaration.seq_len];
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

    fn logits(&self, batch: usize, seq_len: usize) -> Result<LogitsGraph, RecipeError> {
        let ((tokens, logits), trace, _) = self.trace(Purpose::Evaluate, |eval| {
            let shape = [batch, seq_len];
            let tokens = self.input(eval, "tokens", InputKind::Tokens, &shape);
            let logits = self.run_model(eval, &tokens, &shape)?;
            Ok((ValueId(tokens.id), logits))
        })?;
        Ok(LogitsGraph { tokens, logits, params: declarations(trace.params), graph: trace.graph })
    }

    fn losses(&self, batch: usize, seq_len: usize) -> Result<LossGraph, RecipeError> {
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

    fn update(&self, params: &[ParamDecl]) -> Result<(UpdateGraph, FrozenModule), RecipeError> {
        let ((updates, states), trace, module) = self.trace(Purpose::Update, |eval| {
            let lr_multiplier = if self.declaration.has_lr_multiplier {
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
            InputKind::Param | InputKind::Grad | InputKind::State | InputKind::Scalar => DType::F32,
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
                let mut error = refused(&self.ctx.recipe_file, refusal);
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
