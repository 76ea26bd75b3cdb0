//! Pretraining: one visible loop from the first batch to the result.

use crate::data::PreparedData;
use crate::identity::check_price;
use crate::run_dir::RunDir;
use crate::vitals::{Look, layers};
use pawl_data::{ChatError, DataError, Loader, LoaderSettings};
use pawl_eval::env::EnvError;
use pawl_eval::{EvalError, Evaluator};
use pawl_model::{
    CheckpointError, DecodeError, ForeignError, Model, ModelError, load_checkpoint, save_checkpoint,
};
use pawl_recipe::{Recipe, RecipeError};
use pawl_record::{
    CheckpointManifest, Event, FileError, LearningPoint, Precision, RunManifest, RunResult, RunStatus,
    SCHEMA, Vitals,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Points of the learning curve kept with the result.
const CURVE_POINTS: u64 = 50;
/// Steps of the longest run: every schedule is tabulated ahead, four bytes a step.
pub(crate) const MAX_STEPS: u64 = 10_000_000;
/// Documents buffered and refilled by nanochat's packing.
const CROP: pawl_data::Packing = pawl_data::Packing::Crop { buffer: 1000, refill: 128 };

/// How to run, as opposed to what: none of it changes a bit of the result.
pub struct TrainOptions<'a> {
    /// Threads of the engine.
    pub num_threads: usize,
    /// Seconds of training between checkpoints.
    pub checkpoint_every: Duration,
    /// Updates between evaluations on the search split; `None` only at the end.
    pub eval_every_steps: Option<u64>,
    /// Keep the checkpoints when the run is over.
    pub keep_checkpoints: bool,
    /// Float32 peak of the threads used, FLOP/s, for the share of peak; asked for after the first update.
    pub peak_flops: &'a dyn Fn() -> f64,
    /// Set from outside to stop after the current update.
    pub stop: &'a AtomicBool,
    /// Told after each update.
    pub report: &'a dyn Fn(&TrainProgress),
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainProgress {
    /// Updates done.
    pub step: u64,
    /// Updates in all.
    pub num_steps: u64,
    /// Loss of the last update, nats per token.
    pub loss: f64,
    /// Last score on the search split.
    pub val_bpb: Option<f64>,
    /// Training tokens per second of this process.
    pub tokens_per_sec: f64,
    /// Share of the float32 peak, 0 to 1.
    pub mfu: f64,
    /// Expected seconds to the end.
    pub seconds_left: f64,
}

/// Why a run did not end with a result.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The recipe refuses.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The model cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Scoring.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A record.
    #[error(transparent)]
    File(#[from] FileError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint from elsewhere.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// The vocabulary of one.
    #[error("the tokenizer of {path} cannot be read as it was meant: {because}")]
    Tokenizer {
        /// Where it is.
        path: std::path::PathBuf,
        /// What is different.
        because: String,
    },
    /// Another process is training this very run.
    #[error("run {id} is being trained by another process")]
    Busy {
        /// The run.
        id: String,
    },
    /// The run has none.
    #[error("run {id} has no checkpoint; it was trained only for its score")]
    NoCheckpoint {
        /// The run.
        id: String,
    },
    /// Training again gave another score than the one on file.
    #[error("run {id} scored {now} when it was trained again, its files say {on_file}")]
    OtherScore {
        /// The run.
        id: String,
        /// Bits per byte on file.
        on_file: String,
        /// Bits per byte now.
        now: String,
    },
    /// Asked to stop; the last checkpoint is on disk and the same command goes on from it.
    #[error("run {id} stopped at step {step}; the same command resumes it")]
    Stopped {
        /// The run.
        id: String,
        /// Updates done.
        step: u64,
    },
    /// The schedule of so many steps would not fit in memory.
    #[error("the budget buys {num_steps} steps; a run has at most {MAX_STEPS}")]
    TooLong {
        /// Asked for.
        num_steps: u64,
    },
    /// Conversations that cannot be taught.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// An environment.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The model cannot answer one token at a time.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The batches of a lesson are not possible.
    #[error("{0}")]
    Lesson(String),
    /// Not a vocabulary this data has.
    #[error("the recipe's vocabulary of {recipe} does not fit the data's of {data}")]
    Vocabulary {
        /// Of the recipe.
        recipe: usize,
        /// Of the tokens.
        data: usize,
    },
}

/// Trains the run that `manifest` describes, or goes on with it where an earlier process left it, and writes
/// its run directory in `lab`. A finished run is not run again.
pub fn pretrain(
    lab: &Path,
    recipe: Recipe,
    manifest: &RunManifest,
    data: &PreparedData,
    options: &TrainOptions<'_>,
) -> Result<RunResult, TrainError> {
    let begun = Instant::now();
    // A run that was wanted for its score alone is run again when its checkpoint is wanted: to the same bits.
    let known = RunDir::result(lab, &manifest.id)?;
    if let Some(result) = known.as_ref().filter(|known| is_enough(known, options)) {
        return Ok(result.clone());
    }
    check_request(&recipe, manifest, data)?;
    let mut dir = RunDir::open(lab, manifest, &recipe, None)?;
    let schedules = recipe.schedule_table(manifest.num_steps)?;
    let mut loader = loader(&recipe, manifest, data)?;
    let precision = engine_precision(manifest.precision);
    let mut model = Model::with_precision(recipe, options.num_threads, manifest.init_seed, precision)?;
    check_price(&model, manifest);
    let mut search = Evaluator::search(&model, &data.shards, &data.tokenizer)?;
    let mut state = State::begin(&dir, &mut model, manifest)?;
    let mut look = Look::new(&model, manifest.num_steps);
    let unix_s = manifest.created_unix_s;
    dir.log(&Event::Started { step: state.step, threads: options.num_threads as u64, unix_s })?;

    let (resumed_at, num_micro) = (state.step, model.num_micro() as u64);
    let mut scalars = vec![0.0; schedules.len()];
    let mut trained = Duration::ZERO;
    let mut saved = Instant::now();
    let too_high = 2.0 * (model.recipe().vocab_size() as f64).ln() + 5.0;
    while state.step < manifest.num_steps {
        look.before(&mut model, state.step);
        let started = Instant::now();
        for (scalar, row) in scalars.iter_mut().zip(&schedules) {
            *scalar = row[state.step as usize];
        }
        let first = state.step * num_micro;
        let loss = model.step(state.step, &scalars, |micro_idx, inputs, targets| {
            loader.batch(first + micro_idx as u64, inputs, targets)
        })?;
        let loss = f64::from(loss);
        trained += started.elapsed();
        if !loss.is_finite() || loss > too_high {
            return diverged(&mut dir, manifest, &state, ran_away(loss, &state), begun, trained, options);
        }
        state.count(loss, manifest.num_steps);
        look.after(&mut model, state.step, &mut state.vitals);
        dir.log(&Event::Step { step: state.step - 1, loss, seconds: round_ms(trained) })?;

        let last = state.step == manifest.num_steps;
        if !last && options.eval_every_steps.is_some_and(|every| state.step.is_multiple_of(every.max(1))) {
            let score = search.score(&model);
            if let Some(reason) = no_score(score.all, &state) {
                return diverged(&mut dir, manifest, &state, reason, begun, trained, options);
            }
            let is_best = state.best_val_bpb.is_none_or(|best| score.all < best);
            state.val_bpb = Some(score.all);
            dir.log(&Event::Eval { step: state.step, val_bpb: score.all, by_domain: score.by_domain })?;
            if is_best {
                state.best_val_bpb = Some(score.all);
                state.save(&mut dir, "best", &model, manifest, trained)?;
            }
        }
        let stopping = options.stop.load(Ordering::Relaxed) && !last;
        if stopping || (!last && saved.elapsed() >= options.checkpoint_every) {
            state.save(&mut dir, "last", &model, manifest, trained)?;
            saved = Instant::now();
        }
        (options.report)(&progress(&state, manifest, resumed_at, trained, (options.peak_flops)(), loss));
        if stopping {
            return Err(TrainError::Stopped { id: manifest.id.clone(), step: state.step });
        }
    }
    let score = search.score(&model);
    if let Some(reason) = no_score(score.all, &state) {
        return diverged(&mut dir, manifest, &state, reason, begun, trained, options);
    }
    state.vitals.layers = layers(search.layer_scales(&model)?);
    let sealed_bpb = sealed_score(&model, manifest, data)?;
    dir.log(&Event::Eval { step: state.step, val_bpb: score.all, by_domain: score.by_domain.clone() })?;
    let is_best = state.best_val_bpb.is_none_or(|best| score.all <= best);
    state.best_val_bpb = Some(state.best_val_bpb.map_or(score.all, |best| best.min(score.all)));
    let checkpoint_hash = keep(&mut dir, &state, &model, manifest, trained, options, is_best)?;
    let mut result = outcome(manifest, &state, begun, trained, resumed_at, options);
    result.val_bpb = Some(score.all);
    result.val_bpb_by_domain = score.by_domain;
    result.sealed_bpb = sealed_bpb;
    result.checkpoint_hash = checkpoint_hash;
    if let Some(known) = known {
        result = trained_again(lab, manifest, known, result)?;
    }
    dir.finish(&result)?;
    Ok(result)
}

/// Whether a result that is on file is all that is wanted of the run.
fn is_enough(known: &RunResult, options: &TrainOptions<'_>) -> bool {
    !options.keep_checkpoints || known.checkpoint_hash.is_some() || known.status == RunStatus::Diverged
}

fn check_request(recipe: &Recipe, manifest: &RunManifest, data: &PreparedData) -> Result<(), TrainError> {
    let (recipe, data) = (recipe.vocab_size(), data.tokenizer.vocab_size());
    if recipe != data {
        return Err(TrainError::Vocabulary { recipe, data });
    }
    if manifest.num_steps > MAX_STEPS {
        return Err(TrainError::TooLong { num_steps: manifest.num_steps });
    }
    Ok(())
}

/// What to say of a loss that left the finite numbers, or ran away.
pub(crate) fn ran_away(loss: f64, state: &State) -> String {
    match loss.is_finite() {
        true => format!("the loss ran away to {loss:.3} nats per token at step {}", state.step),
        false => format!("the loss became {loss} at step {}", state.step),
    }
}

/// A score that is no number is no score: nothing may be compared with it.
fn no_score(bpb: f64, state: &State) -> Option<String> {
    (!bpb.is_finite()).then(|| format!("the score became {bpb} after {} steps", state.step))
}

/// The result of a run that was trained a second time, for its checkpoint: what it cost and scored the first time
/// stands in verdicts. On the same machine it must have come to the same bits.
fn trained_again(
    lab: &Path,
    manifest: &RunManifest,
    known: RunResult,
    again: RunResult,
) -> Result<RunResult, TrainError> {
    let same_machine = RunDir::manifest(lab, &manifest.id)?.machine == manifest.machine;
    if same_machine && (known.val_bpb, known.sealed_bpb) != (again.val_bpb, again.sealed_bpb) {
        let shown = |bpb: Option<f64>| bpb.map_or_else(|| "none".to_string(), |bpb| format!("{bpb:.6}"));
        let (on_file, now) = (shown(known.val_bpb), shown(again.val_bpb));
        return Err(TrainError::OtherScore { id: manifest.id.clone(), on_file, now });
    }
    Ok(RunResult { checkpoint_hash: again.checkpoint_hash, ..known })
}

pub(crate) fn engine_precision(precision: Precision) -> pawl_model::Precision {
    match precision {
        Precision::F32 => pawl_model::Precision::F32,
        Precision::Bf16 => pawl_model::Precision::Bf16,
    }
}

fn sealed_score(
    model: &Model,
    manifest: &RunManifest,
    data: &PreparedData,
) -> Result<Option<f64>, TrainError> {
    if !manifest.seal {
        return Ok(None);
    }
    Ok(Some(Evaluator::sealed(model, &data.shards, &data.tokenizer)?.score(model).all))
}

/// Saves the end of a run, or removes what a run that is only wanted for its score has saved.
fn keep(
    dir: &mut RunDir,
    state: &State,
    model: &Model,
    manifest: &RunManifest,
    trained: Duration,
    options: &TrainOptions<'_>,
    is_best: bool,
) -> Result<Option<String>, TrainError> {
    if !options.keep_checkpoints {
        dir.discard_checkpoints()?;
        return Ok(None);
    }
    if is_best {
        state.save(dir, "best", model, manifest, trained)?;
    }
    state.save(dir, "last", model, manifest, trained).map(Some)
}

fn loader(recipe: &Recipe, manifest: &RunManifest, data: &PreparedData) -> Result<Loader, DataError> {
    let packing = match recipe.packing() {
        pawl_recipe::Packing::BestFit => pawl_data::Packing::BestFit,
        pawl_recipe::Packing::Crop => CROP,
    };
    let settings = LoaderSettings {
        seed: manifest.seed,
        seq_len: recipe.seq_len(),
        batch: recipe.micro_batch(),
        mixture: recipe.mixture().clone(),
        packing,
    };
    Loader::new(&data.shards, settings)
}

/// What a checkpoint carries beside tensors.
pub(crate) struct State {
    pub(crate) step: u64,
    pub(crate) best_val_bpb: Option<f64>,
    pub(crate) val_bpb: Option<f64>,
    curve: Vec<LearningPoint>,
    /// Sum and number of losses since the last point of the curve.
    pending: (f64, u64),
    vitals: Vitals,
    earlier_seconds: f64,
}

impl State {
    pub(crate) fn begin(
        dir: &RunDir,
        model: &mut Model,
        manifest: &RunManifest,
    ) -> Result<State, TrainError> {
        let checkpoint = load_checkpoint(&dir.checkpoint("last"), model)?;
        Ok(match checkpoint {
            Some(c) => {
                assert_eq!(c.run, manifest.id, "a checkpoint lies in the directory of its run");
                let pending = c.pending_loss;
                State {
                    step: c.step,
                    best_val_bpb: c.best_val_bpb,
                    val_bpb: c.best_val_bpb,
                    curve: c.curve,
                    pending,
                    vitals: c.vitals,
                    earlier_seconds: c.train_seconds,
                }
            }
            None => State {
                step: 0,
                best_val_bpb: None,
                val_bpb: None,
                curve: Vec::new(),
                pending: (0.0, 0),
                vitals: Vitals::default(),
                earlier_seconds: 0.0,
            },
        })
    }

    pub(crate) fn count(&mut self, loss: f64, num_steps: u64) {
        self.step += 1;
        self.pending = (self.pending.0 + loss, self.pending.1 + 1);
        // A point falls due whenever step * CURVE_POINTS / num_steps passes a whole number.
        let point = |step: u64| step * CURVE_POINTS / num_steps;
        if point(self.step) > point(self.step - 1) || self.step == num_steps {
            let loss = self.pending.0 / self.pending.1 as f64;
            self.curve.push(LearningPoint { step: self.step, loss });
            self.pending = (0.0, 0);
        }
    }

    pub(crate) fn save(
        &self,
        dir: &mut RunDir,
        name: &str,
        model: &Model,
        manifest: &RunManifest,
        trained: Duration,
    ) -> Result<String, TrainError> {
        let checkpoint = CheckpointManifest {
            schema: SCHEMA,
            run: manifest.id.clone(),
            step: self.step,
            position: self.step * model.num_micro() as u64,
            hash: String::new(),
            tensors: Vec::new(),
            best_val_bpb: self.best_val_bpb,
            train_seconds: self.earlier_seconds + trained.as_secs_f64(),
            curve: self.curve.clone(),
            pending_loss: self.pending,
            vitals: self.vitals.clone(),
        };
        dir.flush()?;
        let hash = save_checkpoint(&dir.checkpoint(name), model, checkpoint)?;
        dir.log(&Event::Checkpoint { step: self.step, hash: hash.clone() })?;
        Ok(hash)
    }
}

pub(crate) fn round_ms(seconds: Duration) -> f64 {
    (seconds.as_secs_f64() * 1000.0).round() / 1000.0
}

pub(crate) fn progress(
    state: &State,
    manifest: &RunManifest,
    resumed_at: u64,
    trained: Duration,
    peak_flops: f64,
    loss: f64,
) -> TrainProgress {
    let done = (state.step - resumed_at) as f64;
    let seconds_per_step = trained.as_secs_f64() / done;
    TrainProgress {
        step: state.step,
        num_steps: manifest.num_steps,
        loss,
        val_bpb: state.val_bpb,
        tokens_per_sec: manifest.tokens_per_step as f64 / seconds_per_step,
        mfu: manifest.flops_per_step / seconds_per_step / peak_flops,
        seconds_left: (manifest.num_steps - state.step) as f64 * seconds_per_step,
    }
}

pub(crate) fn outcome(
    manifest: &RunManifest,
    state: &State,
    begun: Instant,
    trained: Duration,
    resumed_at: u64,
    options: &TrainOptions<'_>,
) -> RunResult {
    let steps_here = (state.step - resumed_at).max(1) as f64;
    let seconds_per_step = trained.as_secs_f64().max(1e-9) / steps_here;
    RunResult {
        schema: SCHEMA,
        id: manifest.id.clone(),
        status: RunStatus::Finished,
        reason: None,
        val_bpb: None,
        val_bpb_by_domain: BTreeMap::new(),
        sealed_bpb: None,
        steps: state.step,
        tokens: state.step * manifest.tokens_per_step,
        flops: state.step as f64 * manifest.flops_per_step,
        train_seconds: state.earlier_seconds + trained.as_secs_f64(),
        total_seconds: begun.elapsed().as_secs_f64(),
        tokens_per_sec: manifest.tokens_per_step as f64 / seconds_per_step,
        mfu: manifest.flops_per_step / seconds_per_step / (options.peak_flops)(),
        peak_memory_bytes: peak_memory_bytes(),
        checkpoint_hash: None,
        curve: state.curve.clone(),
        vitals: (!state.vitals.is_empty()).then(|| state.vitals.clone()),
    }
}

pub(crate) fn diverged(
    dir: &mut RunDir,
    manifest: &RunManifest,
    state: &State,
    reason: String,
    begun: Instant,
    trained: Duration,
    options: &TrainOptions<'_>,
) -> Result<RunResult, TrainError> {
    let mut result = outcome(manifest, state, begun, trained, state.step.min(manifest.num_steps), options);
    result.status = RunStatus::Diverged;
    result.reason = Some(reason);
    dir.discard_checkpoints()?;
    dir.finish(&result)?;
    Ok(result)
}

/// Most memory that this process ever had resident, as Linux counts it; 0 where it does not say.
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
