//! What a campaign needs from the outside: a compiler of recipes, a way to run a trial, a clock, and
//! somebody who may interrupt it.
//!
//! The real world is [`crate::child::ChildWorld`]; tests have one made of formulas, in which a whole
//! campaign takes milliseconds.

use pawl_record::{Precision, SettingValue, Settings};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// How a setting may be turned.
#[derive(Clone, Debug, PartialEq)]
pub enum SettingKind {
    /// The scale dial and the like: never turned by a researcher.
    Dial,
    /// A number between two bounds.
    Knob {
        /// Smallest value.
        low: f64,
        /// Largest value.
        high: f64,
        /// Whether ratios matter rather than differences.
        log: bool,
    },
    /// One of several options.
    Choice {
        /// All of them.
        options: Vec<SettingValue>,
    },
}

/// One setting of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingSpec {
    /// Its name.
    pub name: String,
    /// How it may be turned.
    pub kind: SettingKind,
    /// The recipe's own value.
    pub default: SettingValue,
    /// The value under the settings that were checked.
    pub value: SettingValue,
}

/// What the compiler says of a recipe under some settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Canonical hash of the program.
    pub fingerprint: String,
    /// FLOPs of one training step.
    pub flops_per_step: f64,
    /// Trainable parameters.
    pub num_params: u64,
    /// Everything that can be turned.
    pub settings: Vec<SettingSpec>,
}

/// One training run to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// File of the recipe.
    pub recipe: PathBuf,
    /// The scale dial.
    pub depth: u64,
    /// Settings that differ from the recipe's defaults.
    pub settings: Settings,
    /// Budget, FLOPs.
    pub flops: f64,
    /// Number format of the products.
    pub precision: Precision,
    /// Keys data order and initialisation.
    pub seed: u64,
    /// Keys initialisation instead, in A/A pairs.
    pub init_seed: Option<u64>,
    /// Whether the sealed split is scored too.
    pub seal: bool,
    /// Whether its checkpoint is kept, to sample from and to go on with.
    pub keep: bool,
    /// Seconds after which the trial is given up.
    pub limit_s: Option<f64>,
}

/// What a training run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Run id.
    pub run: String,
    /// Search split, bits per byte; `None` when it diverged.
    pub val_bpb: Option<f64>,
    /// Sealed split, bits per byte, when asked for.
    pub sealed_bpb: Option<f64>,
    /// Why it did not finish.
    pub reason: Option<String>,
    /// FLOPs spent.
    pub flops: f64,
    /// Seconds of training.
    pub train_seconds: f64,
    /// Seconds of the whole process when it was run.
    pub total_seconds: f64,
    /// Training tokens per second.
    pub tokens_per_sec: f64,
}

/// Why there is no score.
#[derive(Clone, Debug, PartialEq)]
pub enum TrialError {
    /// The campaign was asked to stop.
    Interrupted,
    /// The process failed; its last words.
    Failed(String),
}

/// The outside of a campaign.
pub trait World: Sync {
    /// Compiles the recipe; the error is the compiler's message.
    fn check(&self, recipe: &Path, depth: u64, settings: &Settings) -> Result<Checked, String>;
    /// Runs a trial, or finds that it was run before: the same trial has the same score.
    fn run(&self, trial: &Trial) -> Result<Score, TrialError>;
    /// Seconds since some fixed moment of this process.
    fn seconds(&self) -> f64;
    /// Wall clock, seconds since 1970, for the record only.
    fn unix_s(&self) -> u64;
    /// Whether the campaign should stop at once.
    fn interrupted(&self) -> bool;
}

/// Runs `trials` on at most `workers` threads; scores come back in the order asked.
pub fn run_side_by_side(
    world: &dyn World,
    trials: &[Trial],
    workers: usize,
) -> Vec<Result<Score, TrialError>> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..workers.min(trials.len()) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some((idx, trial)) = {
                    let idx = next.fetch_add(1, Ordering::Relaxed);
                    trials.get(idx).map(|trial| (idx, trial))
                } {
                    let score =
                        if world.interrupted() { Err(TrialError::Interrupted) } else { world.run(trial) };
                    sender.send((idx, score)).expect("the receiver outlives the scope");
                }
            });
        }
    });
    drop(sender);
    let mut scores: Vec<_> = receiver.into_iter().collect();
    scores.sort_by_key(|(idx, _)| *idx);
    assert_eq!(scores.len(), trials.len(), "every trial has an answer");
    scores.into_iter().map(|(_, score)| score).collect()
}
