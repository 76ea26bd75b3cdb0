//! The buffers of a model and the programs that run on them.

mod frozen;
mod inside;

use crate::init::draw;
use pawl_engine::{Buffer, Engine, Output, Parts, Precision, Program, Rounds};
use pawl_graph::{Graph, InputKind};
use pawl_recipe::{ParamDecl, Recipe, RecipeError};
use std::collections::BTreeMap;
use std::ops::Range;

/// Why a model cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The recipe refuses.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The step is not made of whole micro-batches.
    #[error(
        "tokens_per_step {tokens_per_step} is not a multiple of micro_batch {micro_batch} times seq_len {seq_len}"
    )]
    Batch {
        /// As declared.
        tokens_per_step: usize,
        /// Sequences at once.
        micro_batch: usize,
        /// T.
        seq_len: usize,
    },
}

/// Section of a profile that holds the optimizer; all before it is section 0.
pub const UPDATE_SECTION: usize = 1;

/// Where each leaf lies among the buffers.
#[derive(Clone, Debug, Default)]
struct Layout {
    place: BTreeMap<(u8, String), usize>,
}

fn rank(kind: &InputKind) -> u8 {
    match kind {
        InputKind::Param => 0,
        InputKind::State => 1,
        InputKind::Grad => 2,
        InputKind::Scalar => 3,
        InputKind::Tokens => 4,
        InputKind::Targets => 5,
        InputKind::Rng => 6,
        InputKind::Signal => 7,
    }
}

/// A recipe in training: parameters, gradients, optimizer state and the compiled step.
pub struct Model {
    recipe: Recipe,
    engine: Engine,
    buffers: Vec<Buffer>,
    layout: Layout,
    /// Absent, as `update`, in a frozen model.
    gradients: Option<Rounds>,
    update: Option<Parts>,
    tokens: usize,
    targets: usize,
    rng: Option<usize>,
    loss: usize,
    num_micro: usize,
    micro_tokens: usize,
    scalars: Vec<usize>,
    dropout_seed: u64,
    /// FLOPs of one update: every micro-batch and the optimizer.
    flops_per_step: f64,
    grads: Grads,
    /// Of the last update, before it was bounded; where the recipe bounds it.
    grad_norm: Option<f64>,
}

/// The buffers of all gradients.
#[derive(Default)]
struct Grads {
    buffers: Range<usize>,
    /// Each buffer, in the order of names, with the sum of its squares.
    squares: Vec<(usize, f64)>,
}

impl Model {
    /// Builds the model of a recipe with parameters drawn from `init_seed`, to run on `num_threads` threads.
    pub fn new(recipe: Recipe, num_threads: usize, init_seed: u64) -> Result<Model, ModelError> {
        Model::with_precision(recipe, num_threads, init_seed, Precision::F32)
    }

    /// The same with the products and attention of training in `precision`, those of updates (Muon has some)
    /// included. Scores are float32.
    pub fn with_precision(
        recipe: Recipe,
        num_threads: usize,
        init_seed: u64,
        precision: Precision,
    ) -> Result<Model, ModelError> {
        let (micro_batch, seq_len) = (recipe.micro_batch(), recipe.row_len());
        let micro_tokens = micro_batch * seq_len;
        let num_micro = recipe.tokens_per_step() / micro_tokens;
        if num_micro == 0 || num_micro * micro_tokens != recipe.tokens_per_step() {
            let tokens_per_step = recipe.tokens_per_step();
            return Err(ModelError::Batch { tokens_per_step, micro_batch, seq_len });
        }
        let mut train = recipe.train_graph(micro_batch)?;
        let params: Vec<_> = train.params.iter().map(|p| p.value).collect();
        let loss = train.graph.scaled(train.loss, 1.0 / num_micro as f32);
        let grads = train.graph.gradients(loss, &params);

        let engine = Engine::new(num_threads);
        let mut buffers = Vec::new();
        let mut layout = Layout::default();
        let inputs = layout.bind(&train.graph, &mut buffers);
        let find =
            |kind: InputKind| layout.place.iter().find(|((k, _), _)| *k == rank(&kind)).map(|(_, b)| *b);
        let tokens = find(InputKind::Tokens).expect("a training graph reads tokens");
        let targets = find(InputKind::Targets).expect("a training graph reads targets");
        let rng = find(InputKind::Rng);
        let signals: Vec<usize> = layout
            .place
            .iter()
            .filter(|((k, _), _)| *k == rank(&InputKind::Signal))
            .map(|(_, b)| *b)
            .collect();
        let moving: Vec<usize> =
            [Some(tokens), Some(targets), rng].into_iter().flatten().chain(signals).collect();
        for buffer in &moving {
            buffers[*buffer] = Buffer::zeros(num_micro * buffers[*buffer].len());
        }
        let mut outputs = Vec::new();
        let accumulate = num_micro > 1;
        let first_grad = buffers.len();
        for (param, grad) in train.params.iter().zip(&grads) {
            let buffer = layout.add(InputKind::Grad, &param.name, param.shape.iter().product(), &mut buffers);
            outputs.push(Output { value: *grad, buffer, accumulate });
        }
        let loss_buffer = buffers.len();
        buffers.push(Buffer::zeros(1));
        outputs.push(Output { value: loss, buffer: loss_buffer, accumulate });
        let by_name = layout.place.iter().filter(|((kind, _), _)| *kind == rank(&InputKind::Grad));
        let squares = by_name.map(|(_, buffer)| (*buffer, 0.0)).collect();
        let grad_buffers = Grads { buffers: first_grad..loss_buffer, squares };
        let wanted: Vec<_> = outputs.iter().map(|o| o.value).collect();
        let micro_flops = train.graph.cost(&wanted).flops;
        let plan = || Rounds::new(&train.graph, &inputs, &outputs, &engine, precision, num_micro, &moving);
        let draw = || draw_all(&engine, &train.params, init_seed, &layout, &mut buffers);
        let gradients = side_by_side(num_threads > 1, draw, plan);

        let (update, update_flops) = layout.update_program(&recipe, &mut buffers, &engine, precision);
        let scalars = recipe
            .update_graph()
            .schedules
            .iter()
            .map(|s| layout.find(&InputKind::Scalar, &s.scalar))
            .collect();
        Ok(Model {
            engine,
            tokens,
            targets,
            rng,
            loss: loss_buffer,
            num_micro,
            micro_tokens,
            scalars,
            dropout_seed: init_seed,
            grads: grad_buffers,
            grad_norm: None,
            flops_per_step: micro_flops * num_micro as f64 + update_flops,
            recipe,
            buffers,
            layout,
            gradients: Some(gradients),
            update: Some(update),
        })
    }

    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Threads that its programs run on.
    pub fn num_threads(&self) -> usize {
        self.engine.num_threads()
    }

    /// The engine, to profile it.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// FLOPs of one update, forward, backward and optimizer.
    pub fn flops_per_step(&self) -> f64 {
        self.flops_per_step
    }

    /// FLOPs of the logits of one token in a row of `row_len`.
    pub fn forward_flops_per_token(&self, row_len: usize) -> Result<f64, ModelError> {
        let graph = self.recipe.logits_graph(1, row_len)?;
        Ok(graph.graph.cost(&[graph.logits]).flops / row_len as f64)
    }

    /// Micro-batches of one update.
    pub fn num_micro(&self) -> usize {
        self.num_micro
    }

    /// Bytes of parameters, gradients, state and the arenas of the training step.
    pub fn memory_bytes(&self) -> usize {
        let buffers: usize = self.buffers.iter().map(|b| b.len() * 4).sum();
        let gradients = self.gradients.as_ref().map_or(0, Rounds::memory_bytes);
        buffers + gradients + self.update.as_ref().map_or(0, Parts::memory_bytes)
    }

    /// One update: `fill(micro_idx, inputs, targets)` gives each micro-batch (B, T), `scalars` the value of each
    /// schedule at this step. Returns the mean training loss, nats per token; NaN where the recipe bounds the norm of
    /// the gradients and it is not finite: parameters are lost then, though the loss before was a number.
    pub fn step<E>(
        &mut self,
        step: u64,
        scalars: &[f32],
        mut fill: impl FnMut(usize, &mut [i32], &mut [i32]) -> Result<(), E>,
    ) -> Result<f32, E> {
        let [tokens, targets] = self
            .buffers
            .get_disjoint_mut([self.tokens, self.targets])
            .expect("tokens and targets are two buffers");
        let micro = |buffer| <Buffer>::ints_mut(buffer).chunks_exact_mut(self.micro_tokens);
        for (micro_idx, (tokens, targets)) in micro(tokens).zip(micro(targets)).enumerate() {
            fill(micro_idx, tokens, targets)?;
        }
        if let Some(rng) = self.rng {
            for (micro_idx, words) in self.buffers[rng].ints_mut().chunks_exact_mut(2).enumerate() {
                let micro = step * self.num_micro as u64 + micro_idx as u64;
                let key = blake3::hash(&[self.dropout_seed.to_le_bytes(), micro.to_le_bytes()].concat());
                let word =
                    |k: usize| i32::from_le_bytes(key.as_bytes()[k..k + 4].try_into().expect("four bytes"));
                words.copy_from_slice(&[word(0), word(4)]);
            }
        }
        const FROZEN: &str = "a frozen model takes no step";
        self.gradients.as_mut().expect(FROZEN).run(&self.engine, &mut self.buffers);
        self.grad_norm = self.recipe.max_grad_norm().map(|most| self.bound_gradients(most));
        assert_eq!(scalars.len(), self.scalars.len(), "one number for each schedule");
        for (buffer, scalar) in self.scalars.iter().zip(scalars) {
            self.buffers[*buffer].floats_mut()[0] = *scalar;
        }
        self.enter(UPDATE_SECTION);
        self.update.as_mut().expect(FROZEN).run(&self.engine, &mut self.buffers);
        self.enter(0);
        let is_lost = self.grad_norm.is_some_and(|norm| !norm.is_finite());
        Ok(if is_lost { f32::NAN } else { self.buffers[self.loss].floats()[0] })
    }

    /// Norm of all gradients of the last update together, before it was bounded; `None` where the recipe sets no bound.
    pub fn grad_norm(&self) -> Option<f64> {
        self.grad_norm
    }

    /// Scales all gradients so that their norm together is at most `most` (Pascanu et al. 2013, arXiv 1211.5063).
    /// A norm that is not finite scales nothing.
    fn bound_gradients(&mut self, most: f64) -> f64 {
        let Model { engine, buffers, grads, .. } = self;
        engine.for_each(&mut grads.squares, |(buffer, sum)| {
            *sum = buffers[*buffer].floats().iter().map(|g| f64::from(*g).powi(2)).sum();
        });
        let norm = grads.squares.iter().map(|(_, sum)| sum).sum::<f64>().sqrt();
        if norm > most && norm.is_finite() {
            let scale = (most / norm) as f32;
            engine.for_each(&mut buffers[grads.buffers.clone()], |buffer| {
                buffer.floats_mut().iter_mut().for_each(|g| *g *= scale);
            });
        }
        norm
    }

    /// Divides the profile, if one is being made.
    fn enter(&self, section: usize) {
        if let Some(profile) = self.engine.profile() {
            profile.enter(section);
        }
    }

    /// Parameters and optimizer state by name: `path` and `path#state`, in name order.
    pub fn tensors(&self) -> Vec<(&str, &Buffer)> {
        let kept = |kind: u8| kind <= rank(&InputKind::State);
        let mut tensors: Vec<(&str, &Buffer)> = self
            .layout
            .place
            .iter()
            .filter(|((k, _), _)| kept(*k))
            .map(|((_, n), b)| (n.as_str(), &self.buffers[*b]))
            .collect();
        tensors.sort_by_key(|(name, _)| *name);
        tensors
    }

    /// One parameter or state, to write; `None` if there is none of that name.
    pub fn tensor_mut(&mut self, name: &str) -> Option<&mut Buffer> {
        let kind = if name.contains('#') { InputKind::State } else { InputKind::Param };
        let buffer = *self.layout.place.get(&(rank(&kind), name.to_string()))?;
        Some(&mut self.buffers[buffer])
    }

    /// One parameter.
    pub fn param(&self, name: &str) -> Option<&[f32]> {
        let buffer = *self.layout.place.get(&(rank(&InputKind::Param), name.to_string()))?;
        Some(self.buffers[buffer].floats())
    }

    /// A signal of the lesson for every row of an update (num_micro * B, T), to write; `None` if the lesson has none
    /// of that name.
    pub fn signal_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        let buffer = *self.layout.place.get(&(rank(&InputKind::Signal), name.to_string()))?;
        Some(self.buffers[buffer].floats_mut())
    }

    /// Whether the loss of the lesson depends on a signal.
    pub fn reads_signal(&self, name: &str) -> Result<bool, ModelError> {
        let graph = self.recipe.train_graph(1)?.graph;
        let signal = graph.inputs.iter().find(|input| input.kind == InputKind::Signal && input.name == name);
        Ok(signal.is_some_and(|signal| graph.instrs.iter().any(|instr| instr.inputs.contains(&signal.value))))
    }

    /// The gradient of one parameter after the last step.
    pub fn grad(&self, name: &str) -> Option<&[f32]> {
        let buffer = *self.layout.place.get(&(rank(&InputKind::Grad), name.to_string()))?;
        Some(self.buffers[buffer].floats())
    }

    /// Copies every parameter of `params` (shared names) into the buffers of another program.
    fn copy_params(&self, into: &mut [Buffer], layout: &Layout) {
        for ((kind, name), buffer) in &layout.place {
            if *kind == rank(&InputKind::Param) {
                let from = &self.buffers[self.layout.find(&InputKind::Param, name)];
                into[*buffer].floats_mut().copy_from_slice(from.floats());
            }
        }
    }
}

/// Does two things, at the same time where there are threads for it; what the second gives.
fn side_by_side<T>(at_once: bool, first: impl FnOnce() + Send, second: impl FnOnce() -> T) -> T {
    if !at_once {
        first();
        return second();
    }
    std::thread::scope(|scope| {
        scope.spawn(first);
        second()
    })
}

/// Draws the first values of every parameter, several at a time.
fn draw_all(engine: &Engine, params: &[ParamDecl], init_seed: u64, layout: &Layout, buffers: &mut [Buffer]) {
    let mut buffers: Vec<Option<&mut Buffer>> = buffers.iter_mut().map(Some).collect();
    let mut jobs: Vec<(&ParamDecl, &mut Buffer)> = Vec::new();
    for param in params {
        let buffer = buffers[layout.find(&InputKind::Param, &param.name)].take();
        jobs.push((param, buffer.expect("a parameter is declared once")));
    }
    jobs.sort_by_key(|(_, buffer)| std::cmp::Reverse(buffer.len()));
    engine.for_each(&mut jobs, |(param, buffer)| {
        draw(&param.init, init_seed, &param.name, buffer.floats_mut());
    });
}

/// The model without its optimizer, for losses or logits of a fixed shape (B, T).
pub struct Scorer {
    program: Program,
    buffers: Vec<Buffer>,
    layout: Layout,
    tokens: usize,
    targets: Option<usize>,
    output: usize,
    /// Runs since the parameters were taken.
    round: usize,
}

impl Scorer {
    /// Computes the host's cross-entropy of `batch` sequences of `seq_len` tokens.
    pub fn losses(model: &Model, batch: usize, seq_len: usize) -> Result<Scorer, ModelError> {
        let graph = model.recipe.loss_graph(batch, seq_len)?;
        Ok(Scorer::new(&graph.graph, graph.losses, &model.engine))
    }

    /// Computes logits (B, T, V).
    pub fn logits(model: &Model, batch: usize, seq_len: usize) -> Result<Scorer, ModelError> {
        let graph = model.recipe.logits_graph(batch, seq_len)?;
        Ok(Scorer::new(&graph.graph, graph.logits, &model.engine))
    }

    fn new(graph: &Graph, output: pawl_graph::ValueId, engine: &Engine) -> Scorer {
        let mut buffers = Vec::new();
        let mut layout = Layout::default();
        let inputs = layout.bind(graph, &mut buffers);
        let out_buffer = buffers.len();
        buffers.push(Buffer::zeros(graph.values[output.idx()].len()));
        let outputs = [Output { value: output, buffer: out_buffer, accumulate: false }];
        let program = Program::with_target(graph, &inputs, &outputs, engine.target(Precision::F32, true));
        let find =
            |kind: InputKind| layout.place.iter().find(|((k, _), _)| *k == rank(&kind)).map(|(_, b)| *b);
        let tokens = find(InputKind::Tokens).expect("a model reads tokens");
        let targets = find(InputKind::Targets);
        Scorer { program, buffers, layout, tokens, targets, output: out_buffer, round: 0 }
    }

    /// Takes the model's parameters as they are now.
    pub fn refresh(&mut self, model: &Model) {
        model.copy_params(&mut self.buffers, &self.layout);
        self.round = 0;
    }

    /// Token ids (B, T), to write.
    pub fn tokens_mut(&mut self) -> &mut [i32] {
        self.buffers[self.tokens].ints_mut()
    }

    /// Next-token ids (B, T), to write; panics on a scorer of logits.
    pub fn targets_mut(&mut self) -> &mut [i32] {
        self.buffers[self.targets.expect("a scorer of losses has targets")].ints_mut()
    }

    /// Losses (B * T) in nats, or logits (B, T, V), of the tokens written before.
    pub fn run(&mut self, model: &Model) -> &[f32] {
        self.program.run(&model.engine, &mut self.buffers, self.round);
        self.round += 1;
        self.buffers[self.output].floats()
    }
}

impl Layout {
    fn find(&self, kind: &InputKind, name: &str) -> usize {
        *self
            .place
            .get(&(rank(kind), name.to_string()))
            .unwrap_or_else(|| panic!("no buffer for {kind:?} {name}"))
    }

    /// The buffer of a leaf, made if it is new.
    fn add(&mut self, kind: InputKind, name: &str, len: usize, buffers: &mut Vec<Buffer>) -> usize {
        *self.place.entry((rank(&kind), name.to_string())).or_insert_with(|| {
            buffers.push(Buffer::zeros(len));
            buffers.len() - 1
        })
    }

    /// Buffers of all leaves of a graph, in its order.
    fn bind(&mut self, graph: &Graph, buffers: &mut Vec<Buffer>) -> Vec<usize> {
        let leaves = graph.inputs.iter();
        leaves
            .map(|i| self.add(i.kind.clone(), &i.name, graph.values[i.value.idx()].len(), buffers))
            .collect()
    }

    fn update_program(
        &mut self,
        recipe: &Recipe,
        buffers: &mut Vec<Buffer>,
        engine: &Engine,
        precision: Precision,
    ) -> (Parts, f64) {
        let update = recipe.update_graph();
        let inputs = self.bind(&update.graph, buffers);
        let mut outputs = Vec::new();
        for (name, value) in &update.updates {
            let buffer = self.find(&InputKind::Param, name);
            outputs.push(Output { value: *value, buffer, accumulate: false });
        }
        for state in &update.states {
            let len = state.shape.iter().product();
            let buffer = self.add(InputKind::State, &state.name, len, buffers);
            outputs.push(Output { value: state.value, buffer, accumulate: false });
        }
        for schedule in &update.schedules {
            self.add(InputKind::Scalar, &schedule.scalar, 1, buffers);
        }
        let wanted: Vec<_> = outputs.iter().map(|o| o.value).collect();
        let flops = update.graph.cost(&wanted).flops;
        (Parts::new(&update.graph, &inputs, &outputs, engine, precision), flops)
    }
}
