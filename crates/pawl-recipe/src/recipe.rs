//! A loaded recipe and the graphs it describes.

use crate::context::{Context, Declaration, show};
use crate::declare::Packing;
use crate::error::{RecipeError, Refusal, convert, refuse};
use crate::graphs::{LogitsGraph, LossGraph, ParamDecl, TrainGraph, UpdateGraph};
use crate::lesson::{Lesson, Objective};
use crate::load::{Loaded, Loader, Source, evaluator, load};
use crate::optimizer::{Moment, schedule_slot};
use crate::settings::Setting;
use crate::tracer::Tracer;
use pawl_graph::{Graph, InputKind, ValueId};
use pawl_record::Settings;
use starlark::environment::{FrozenModule, Module};
use starlark::values::{OwnedFrozenValue, Value};
use std::collections::{BTreeMap, HashMap};

/// Values that replace a recipe's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// The scale dial.
    pub depth: Option<u64>,
    /// Dials, knobs and choices by name.
    pub values: Settings,
}

/// A recipe that has been evaluated, traced once and found sound.
pub struct Recipe {
    name: String,
    text: String,
    texts: BTreeMap<String, String>,
    ctx: Context,
    declaration: Declaration,
    functions: OwnedFrozenValue,
    objective: Option<Objective>,
    train: TrainGraph,
    logits: LogitsGraph,
    update: UpdateGraph,
    schedules: FrozenModule,
}

impl Recipe {
    /// Evaluates the text under the limits of this crate and traces model, loss and optimizer once.
    pub fn load(source: &Source, overrides: &Overrides, loader: &Loader<'_>) -> Result<Recipe, RecipeError> {
        Recipe::load_lesson(source, overrides, loader, None)
    }

    /// The same model and optimizer with the loss, the learning-rate multiplier and the batch of a lesson.
    pub fn load_lesson(
        source: &Source,
        overrides: &Overrides,
        loader: &Loader<'_>,
        lesson: Option<&Lesson>,
    ) -> Result<Recipe, RecipeError> {
        let ctx = Context::new(&source.name, overrides.depth, overrides.values.clone());
        let Loaded { mut declaration, functions, objective, texts } = load(source, &ctx, loader, lesson)?;
        if let Some(lesson) = lesson {
            lesson.shape(&mut declaration).map_err(|refusal| RecipeError::refused(&source.name, refusal))?;
        }
        let tracer = Tracer {
            ctx: &ctx,
            declaration: &declaration,
            functions: &functions,
            objective: objective.as_ref(),
        };
        let train = tracer.train(micro_batch(&declaration))?;
        let (update, schedules) = tracer.update(&train.params)?;
        // Two sequences, so that one which sees the other is found.
        let logits = tracer.logits(2, declaration.seq_len)?;
        check_causal(&source.name, &logits.graph, logits.logits)?;
        let price = Price::of(&train.graph, train.loss, train.tokens);
        check_price(&source.name, &logits.graph, logits.logits, logits.tokens, price)?;
        ctx.check_literals().map_err(|refusal| RecipeError::refused(&source.name, refusal))?;
        check_same_params(&train.params, &logits.params)
            .and_then(|()| ctx.settings.borrow().check_overrides())
            .map_err(|refusal| RecipeError::refused(&source.name, refusal))?;
        Ok(Recipe {
            name: source.name.clone(),
            text: source.text.clone(),
            texts,
            ctx,
            declaration,
            functions,
            objective,
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

    /// Those of them that the objective of a lesson declares.
    pub fn lesson_settings(&self) -> Vec<Setting> {
        let settings = self.settings();
        let first = self.objective.as_ref().map_or(settings.len(), |objective| objective.num_recipe_settings);
        settings[first..].to_vec()
    }

    /// Bound on the norm of all gradients of an update together, where a lesson sets one.
    pub fn max_grad_norm(&self) -> Option<f64> {
        self.objective.as_ref().and_then(|objective| objective.max_grad_norm)
    }

    /// T.
    pub fn seq_len(&self) -> usize {
        self.declaration.seq_len
    }

    /// Tokens of a training row: T, or fewer in a lesson.
    pub fn row_len(&self) -> usize {
        self.declaration.row_len
    }

    /// Tokens of one optimizer update.
    pub fn tokens_per_step(&self) -> usize {
        self.declaration.tokens_per_step
    }

    /// V.
    pub fn vocab_size(&self) -> usize {
        self.declaration.vocab_size
    }

    /// Sequences that run at once: as declared, or the most that divide a step within five hundred tokens.
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
        Tracer {
            ctx: &self.ctx,
            declaration: &self.declaration,
            functions: &self.functions,
            objective: self.objective.as_ref(),
        }
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
        let losses = self.tracer().losses(batch, seq_len)?;
        self.check_shape(&losses.graph, losses.logits, losses.tokens, seq_len)?;
        Ok(losses)
    }

    /// The model's logits for `batch` sequences of `seq_len` tokens.
    pub fn logits_graph(&self, batch: usize, seq_len: usize) -> Result<LogitsGraph, RecipeError> {
        let logits = self.tracer().logits(batch, seq_len)?;
        self.check_shape(&logits.graph, logits.logits, logits.tokens, seq_len)?;
        Ok(logits)
    }

    /// A recipe knows the shape of its tokens and may be another program for another shape: what was proved of
    /// two sequences is proved again of the graph that is really run.
    fn check_shape(
        &self,
        graph: &Graph,
        logits: ValueId,
        tokens_in: ValueId,
        seq_len: usize,
    ) -> Result<(), RecipeError> {
        check_causal(&self.name, graph, logits)?;
        // Attention costs more a token in a longer sequence than the one that was priced.
        if seq_len > self.seq_len() {
            return Ok(());
        }
        let price = Price::of(&self.train.graph, self.train.loss, self.train.tokens);
        check_price(&self.name, graph, logits, tokens_in, price)
    }

    /// The optimizer of all parameters.
    pub fn update_graph(&self) -> &UpdateGraph {
        &self.update
    }

    /// Value of each schedule at each step: `table[schedule][step]`, in the order of
    /// [`UpdateGraph::schedules`], computed in float64 and rounded once.
    pub fn schedule_table(&self, num_steps: u64) -> Result<Vec<Vec<f32>>, RecipeError> {
        self.schedule_table_from(num_steps, 0)
    }

    /// The same for a run that begins with optimizer state of `age` updates.
    pub fn schedule_table_from(&self, num_steps: u64, age: u64) -> Result<Vec<Vec<f32>>, RecipeError> {
        let rows = 0..self.update.schedules.len();
        rows.map(|n| self.schedule_row(n, num_steps, age, 0..num_steps)).collect()
    }

    /// Values of the n-th schedule at some steps of a run.
    pub(crate) fn schedule_row(
        &self,
        n: usize,
        num_steps: u64,
        age: u64,
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
                    let moment = module.heap().alloc(Moment { step, num_steps, age: age + step });
                    let value = eval
                        .eval_function(function, &[moment], &[])
                        .map_err(|error| convert(&error, &self.ctx))?;
                    row.push(
                        schedule_value(value, step)
                            .map_err(|refusal| RecipeError::refused(&self.name, refusal))?,
                    );
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

/// Evaluation may cost this many times what it costs in training: dropout goes, nothing comes.
const MOST_EVALUATION: f64 = 1.25;

/// What a forward pass costs, FLOPs.
#[derive(Clone, Copy, Debug)]
struct Price {
    /// For each token.
    token: f64,
    /// Once a pass, whatever the number of tokens: what is done to parameters alone.
    pass: f64,
}

impl Price {
    fn of(graph: &Graph, output: ValueId, tokens: ValueId) -> Price {
        let mut depends = vec![false; graph.values.len()];
        for input in &graph.inputs {
            depends[input.value.idx()] = match input.kind {
                InputKind::Tokens | InputKind::Targets | InputKind::Signal | InputKind::Rng => true,
                InputKind::Param | InputKind::Grad | InputKind::State | InputKind::Scalar => false,
            };
        }
        let (mut of_tokens, mut pass) = (0.0, 0.0);
        for (instr, _) in graph.instrs.iter().zip(graph.needed(&[output])).filter(|(_, needed)| *needed) {
            let on_tokens = instr.inputs.iter().any(|value| depends[value.idx()]);
            instr.outputs.iter().for_each(|value| depends[value.idx()] |= on_tokens);
            *(if on_tokens { &mut of_tokens } else { &mut pass }) += graph.instr_flops(instr);
        }
        Price { token: of_tokens / graph.shape(tokens).iter().product::<usize>() as f64, pass }
    }
}

/// Budgets count training. Work that only evaluation does would be free.
fn check_price(
    file: &str,
    graph: &Graph,
    logits: ValueId,
    tokens: ValueId,
    training: Price,
) -> Result<(), RecipeError> {
    let here = Price::of(graph, logits, tokens);
    let (what, here, training) = if here.token > MOST_EVALUATION * training.token {
        ("a token", here.token, training.token)
    } else if here.pass > MOST_EVALUATION * training.pass {
        ("a pass over the parameters", here.pass, training.pass)
    } else {
        return Ok(());
    };
    let message = format!(
        "the model does hidden work: {what} costs {here:.3e} FLOPs to evaluate and {training:.3e} in training"
    );
    Err(RecipeError::new(file, message)
        .hint("is_training() and the shape of the tokens may turn dropout off, not more layers on"))
}

fn check_causal(file: &str, graph: &Graph, logits: ValueId) -> Result<(), RecipeError> {
    let Err(leak) = graph.check_causal(logits) else { return Ok(()) };
    let (origin, line) = match leak.origin.rsplit_once(':') {
        Some((origin, line)) => (origin, line.parse().ok()),
        None => (file, None),
    };
    let message = format!("the model is not causal: {} {}", leak.op, leak.because);
    Err(RecipeError { line, ..RecipeError::new(origin, message) }
        .hint("logits at position t may depend on tokens 0 to t of the same sequence and on nothing else"))
}

/// Tokens that run at once when the recipe does not say: enough to fill the kernels of a CPU (512 are within some
/// percent of 1024), few enough that several threads hold their activations at once.
const TOKENS_AT_ONCE: usize = 512;

fn micro_batch(declaration: &Declaration) -> usize {
    let sequences = declaration.tokens_per_step / declaration.row_len;
    let most = (TOKENS_AT_ONCE / declaration.row_len).clamp(1, sequences);
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
