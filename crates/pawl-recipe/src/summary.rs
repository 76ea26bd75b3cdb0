//! What is known of a recipe before a step is run: sizes, price, memory, identity.

use crate::context::show;
use crate::declare::Packing;
use crate::error::RecipeError;
use crate::graphs::{ParamDecl, UpdateGraph};
use crate::init::{Init, InitValue};
use crate::recipe::Recipe;
use crate::settings::Setting;
use pawl_graph::{Digest, Graph, InputKind, Op, ValueId};
use std::collections::BTreeMap;

/// A line of the table of parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSummary {
    /// Path.
    pub name: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// Number of elements.
    pub len: usize,
    /// How it starts, as the recipe spells it.
    pub init: String,
}

/// Everything `pawl check` prints.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Dials, knobs and choices with their values in force.
    pub settings: Vec<Setting>,
    /// T.
    pub seq_len: usize,
    /// Tokens of one optimizer update.
    pub tokens_per_step: usize,
    /// V.
    pub vocab_size: usize,
    /// Sequences that run at once.
    pub micro_batch: usize,
    /// Weight of each data domain; empty means by size.
    pub mixture: BTreeMap<String, f64>,
    /// How documents become rows.
    pub packing: Packing,
    /// Trainable tensors, in the order in which the recipe asks.
    pub params: Vec<ParamSummary>,
    /// Trainable numbers.
    pub num_params: usize,
    /// FLOPs of the forward and backward pass for one token.
    pub flops_per_token: f64,
    /// FLOPs of one optimizer update with all its tokens.
    pub flops_per_step: f64,
    /// Parameters, gradients, optimizer state and the most activations alive at once, if nothing were fused.
    pub memory_bytes: u64,
    /// Canonical hash of the whole program, 64 hex digits.
    pub fingerprint: String,
}

/// Steps of the run whose schedules enter the fingerprint whole.
const SHORT_RUN: u64 = 64;
/// Steps of a long run, of which every `LONG_RUN / 64`-th enters the fingerprint: rules counted in steps differ there.
const LONG_RUN: u64 = 16_384;

impl Recipe {
    /// Sizes, price, memory and identity.
    pub fn summary(&self) -> Result<Summary, RecipeError> {
        let train = self.traced_train();
        let mut graph = train.graph.clone();
        let leaves: Vec<ValueId> = train.params.iter().map(|param| param.value).collect();
        let mut outputs = graph.gradients(train.loss, &leaves);
        outputs.push(train.loss);
        let tokens = (self.micro_batch() * self.row_len()) as f64;
        let flops_per_token = graph.cost(&outputs).flops / tokens;
        let update = self.update_graph();
        let update_flops = update.graph.cost(&update_outputs(update)).flops;
        let num_params: usize = train.params.iter().map(|param| param.shape.iter().product::<usize>()).sum();
        let num_state: usize = update.states.iter().map(|state| state.shape.iter().product::<usize>()).sum();
        let weights = 4 * (2 * num_params + num_state) as u64;
        Ok(Summary {
            settings: self.settings(),
            seq_len: self.seq_len(),
            tokens_per_step: self.tokens_per_step(),
            vocab_size: self.vocab_size(),
            micro_batch: self.micro_batch(),
            mixture: self.mixture().clone(),
            packing: self.packing(),
            params: self.param_table(),
            num_params,
            flops_per_token,
            flops_per_step: flops_per_token * self.tokens_per_step() as f64 + update_flops,
            memory_bytes: weights + peak_bytes(&graph, &outputs),
            fingerprint: self.fingerprint()?,
        })
    }

    fn param_table(&self) -> Vec<ParamSummary> {
        let line = |param: &ParamDecl| ParamSummary {
            name: param.name.clone(),
            shape: param.shape.clone(),
            len: param.shape.iter().product(),
            init: InitValue(param.init.clone()).to_string(),
        };
        self.params().iter().map(line).collect()
    }

    /// Canonical hash of everything that a run of this recipe depends on, budget, seed and data aside. Names of
    /// variables, order of independent lines, comments and settings that change nothing do not enter.
    pub fn fingerprint(&self) -> Result<String, RecipeError> {
        let mut hasher = blake3::Hasher::new();
        let train = self.traced_train();
        hasher.update(&train.graph.fingerprint(&[train.loss]));
        let logits = self.traced_logits();
        hasher.update(&logits.graph.fingerprint(&[logits.logits]));
        hasher.update(&self.update_fingerprint()?);
        let mut params: Vec<_> = self.params().iter().collect();
        params.sort_by(|a, b| a.name.cmp(&b.name));
        for param in params {
            hasher.update(format!("{} {} ", param.name, show(&param.shape)).as_bytes());
            hash_init(&mut hasher, &param.init);
        }
        let batch = (
            self.row_len(),
            self.tokens_per_step(),
            self.vocab_size(),
            self.mixture(),
            self.packing().name(),
        );
        hasher.update(format!("{batch:?}").as_bytes());
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Hash of the optimizer with its schedules named by what they do.
    fn update_fingerprint(&self) -> Result<Digest, RecipeError> {
        let update = self.update_graph();
        let mut graph = update.graph.clone();
        for (n, schedule) in update.schedules.iter().enumerate() {
            let mut row = self.schedule_row(n, SHORT_RUN, 0, 0..SHORT_RUN)?;
            row.extend(self.schedule_row(n, LONG_RUN, 0, (0..LONG_RUN).step_by(LONG_RUN as usize / 64))?);
            let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
            let input = graph
                .inputs
                .iter_mut()
                .find(|input| input.kind == InputKind::Scalar && input.name == schedule.scalar)
                .expect("every schedule has its leaf");
            input.name = blake3::hash(&bytes).to_hex().to_string();
        }
        Ok(graph.fingerprint(&update_outputs(update)))
    }
}

/// New parameters and states in order of name, so that the order of asking does not matter.
fn update_outputs(update: &UpdateGraph) -> Vec<ValueId> {
    let states = update.states.iter().map(|state| (state.name.as_str(), state.value));
    let mut named: Vec<(&str, ValueId)> =
        update.updates.iter().map(|(name, value)| (name.as_str(), *value)).chain(states).collect();
    named.sort_unstable();
    named.into_iter().map(|(_, value)| value).collect()
}

fn hash_init(hasher: &mut blake3::Hasher, init: &Init) {
    match init {
        Init::Values(values) => {
            for value in values {
                hasher.update(&value.to_bits().to_le_bytes());
            }
        }
        Init::Zeros | Init::Constant(_) | Init::Normal { .. } | Init::Uniform { .. } => {
            hasher.update(format!("{init:?}").as_bytes());
        }
    }
}

/// The most bytes of intermediate values alive at once when instructions run in order. Values that only look at
/// others' elements take none; leaves other than tokens are counted by the caller.
fn peak_bytes(graph: &Graph, outputs: &[ValueId]) -> u64 {
    let needed = graph.needed(outputs);
    // The value whose memory each value uses: its own, or that of what it is a view of.
    let mut home: Vec<usize> = (0..graph.values.len()).collect();
    let mut last_use = vec![0usize; graph.values.len()];
    for (at, instr) in graph.instrs.iter().enumerate().filter(|(at, _)| needed[*at]) {
        let view =
            matches!(instr.op, Op::Reshape { .. } | Op::Expand { .. } | Op::Detach | Op::Transpose { .. });
        if view {
            home[instr.outputs[0].idx()] = home[instr.inputs[0].idx()];
        }
        for value in instr.inputs.iter().chain(&instr.outputs) {
            last_use[home[value.idx()]] = at;
        }
    }
    for output in outputs {
        last_use[home[output.idx()]] = graph.instrs.len();
    }
    let mut dying: Vec<Vec<usize>> = vec![Vec::new(); graph.instrs.len() + 1];
    let bytes = |value: usize| 4 * graph.values[value].len() as u64;
    let (mut live, mut peak) = (0u64, 0u64);
    for (at, instr) in graph.instrs.iter().enumerate().filter(|(at, _)| needed[*at]) {
        let is_leaf = matches!(instr.op, Op::Input(_));
        for value in instr.outputs.iter().map(|value| value.idx()) {
            if home[value] == value && !is_leaf {
                live += bytes(value);
                dying[last_use[value]].push(value);
            }
        }
        peak = peak.max(live);
        for value in std::mem::take(&mut dying[at]) {
            live -= bytes(value);
        }
    }
    peak
}
