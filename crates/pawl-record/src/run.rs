//! A training run: what it was asked (`run.json`), what happened (`events.jsonl`), how it ended (`result.json`).

use crate::{Settings, Vitals};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How much a run may spend. Exactly one of the three is the limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Floating-point operations, forward, backward and optimizer counted.
    Flops(f64),
    /// Training tokens.
    Tokens(u64),
    /// Optimizer updates.
    Steps(u64),
}

impl Budget {
    /// Updates that it allows: as many whole ones as fit, at least one.
    pub fn num_steps(self, flops_per_step: f64, tokens_per_step: u64) -> u64 {
        match self {
            Budget::Flops(flops) => ((flops / flops_per_step) as u64).max(1),
            Budget::Tokens(tokens) => (tokens / tokens_per_step).max(1),
            Budget::Steps(steps) => steps.max(1),
        }
    }
}

/// A data set by name and content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRef {
    /// Name in the lab.
    pub name: String,
    /// BLAKE3 of the data set's manifest, hex.
    pub hash: String,
}

/// Number format of the operands of products in training; sums, updates and scores are float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point throughout.
    #[default]
    F32,
    /// Rounded to bfloat16, 8 bits of mantissa.
    Bf16,
}

impl Precision {
    /// The word on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// Everything that determines a run's bits, written to `run.json` before the first step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunManifest {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// Content address of the fields below that determine the bits: 12 hex digits.
    pub id: String,
    /// File name or shipped name of the recipe; its text lies beside as `recipe.star`.
    pub recipe: String,
    /// BLAKE3 of the recipe text and everything it loads, hex.
    pub recipe_hash: String,
    /// Canonical hash of the compiled program, hex: equal programs are equal experiments.
    pub fingerprint: String,
    /// Value of every dial, knob and choice, defaults included.
    pub settings: Settings,
    /// The scale dial.
    pub depth: u64,
    /// Keys data order and, unless `init_seed` differs, initialisation.
    pub seed: u64,
    /// Keys initialisation and dropout. Equal to `seed` except in the A/A pairs that measure noise.
    pub init_seed: u64,
    /// Training data.
    pub data: DataRef,
    /// The limit that was asked for.
    pub budget: Budget,
    /// Optimizer updates the budget allows.
    pub num_steps: u64,
    /// Tokens of one optimizer update.
    pub tokens_per_step: u64,
    /// Sequence length T.
    pub seq_len: u64,
    /// Trainable parameters.
    pub num_params: u64,
    /// FLOPs of one optimizer update, forward, backward and optimizer.
    pub flops_per_step: f64,
    /// Whether the sealed split is scored at the end.
    pub seal: bool,
    /// Number format of the products of training.
    #[serde(default)]
    pub precision: Precision,
    /// Version of pawl.
    pub version: String,
    /// Wall-clock start, seconds since 1970. Not part of the identity.
    pub created_unix_s: u64,
    /// Processor and instruction set. Not part of the identity.
    pub machine: String,
}

impl RunManifest {
    /// The id that follows from the fields that determine the bits: 12 hex digits.
    pub fn content_id(&self) -> String {
        let mut id = blake3::Hasher::new();
        for part in [&self.version, &self.fingerprint, &self.data.hash] {
            id.update(part.as_bytes()).update(&[0]);
        }
        for number in [self.num_steps, self.seed, self.init_seed, u64::from(self.seal)] {
            id.update(&number.to_le_bytes());
        }
        if self.precision != Precision::F32 {
            id.update(self.precision.name().as_bytes());
        }
        id.finalize().to_hex()[..12].to_string()
    }
}

/// One line of `events.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The process began or resumed at `step`.
    Started {
        /// First step to do, 0-based.
        step: u64,
        /// Threads of the pool.
        threads: u64,
        /// Wall clock, seconds since 1970.
        unix_s: u64,
    },
    /// One optimizer update is done.
    Step {
        /// 0-based.
        step: u64,
        /// Mean training loss, nats per token.
        loss: f64,
        /// Seconds of training in this process, evaluation excluded.
        seconds: f64,
    },
    /// Validation on the search split.
    Eval {
        /// Updates done.
        step: u64,
        /// Bits per UTF-8 byte over all domains.
        val_bpb: f64,
        /// Bits per UTF-8 byte by domain.
        by_domain: BTreeMap<String, f64>,
    },
    /// A checkpoint is safely on disk.
    Checkpoint {
        /// Updates done.
        step: u64,
        /// BLAKE3 of its tensors, hex.
        hash: String,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// The budget was spent.
    Finished,
    /// The loss left the finite numbers or ran away.
    Diverged,
}

/// A point of the learning curve kept with the result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningPoint {
    /// Updates done.
    pub step: u64,
    /// Mean training loss since the previous point, nats per token.
    pub loss: f64,
}

/// `result.json`: written once, last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// The run's id.
    pub id: String,
    /// How it ended.
    pub status: RunStatus,
    /// Why, when it did not finish.
    pub reason: Option<String>,
    /// Bits per UTF-8 byte on the search split; `None` when diverged.
    pub val_bpb: Option<f64>,
    /// Bits per UTF-8 byte by domain.
    pub val_bpb_by_domain: BTreeMap<String, f64>,
    /// Bits per UTF-8 byte on the sealed split, when the manifest asked for it.
    pub sealed_bpb: Option<f64>,
    /// Updates done.
    pub steps: u64,
    /// Training tokens seen.
    pub tokens: u64,
    /// FLOPs spent.
    pub flops: f64,
    /// Seconds of training, evaluation and start-up excluded.
    pub train_seconds: f64,
    /// Seconds from start to end of the process that finished the run.
    pub total_seconds: f64,
    /// Training tokens per second.
    pub tokens_per_sec: f64,
    /// Share of the machine's measured float32 peak for the threads used, 0 to 1.
    pub mfu: f64,
    /// Most memory resident at once, bytes.
    pub peak_memory_bytes: u64,
    /// BLAKE3 of the final checkpoint's tensors, hex.
    pub checkpoint_hash: Option<String>,
    /// About 50 points of the training loss.
    pub curve: Vec<LearningPoint>,
    /// What it looked like from inside; runs from before it have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vitals: Option<Vitals>,
}

/// Hash of one tensor in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorHash {
    /// Tensor name: a parameter path, or `param#state` for optimizer state.
    pub name: String,
    /// BLAKE3 of its little-endian bytes, hex.
    pub blake3: String,
}

/// `checkpoint.json` beside `tensors.safetensors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointManifest {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// The run it belongs to.
    pub run: String,
    /// Updates done.
    pub step: u64,
    /// Batches drawn from the data so far: the loader's whole state.
    pub position: u64,
    /// BLAKE3 over all tensor hashes in order, hex.
    pub hash: String,
    /// Each tensor.
    pub tensors: Vec<TensorHash>,
    /// Best search-split score so far, bits per byte.
    pub best_val_bpb: Option<f64>,
    /// Seconds of training so far.
    pub train_seconds: f64,
    /// Learning curve so far.
    pub curve: Vec<LearningPoint>,
    /// Sum and number of training losses since the last point of the curve.
    pub pending_loss: (f64, u64),
    /// What was seen from inside so far.
    #[serde(default, skip_serializing_if = "Vitals::is_empty")]
    pub vitals: Vitals,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_exceeded_by_more_than_one_step() {
        assert_eq!(Budget::Flops(1e9).num_steps(3e8, 64), 3);
        assert_eq!(Budget::Flops(1e8).num_steps(3e8, 64), 1);
        assert_eq!(Budget::Tokens(1000).num_steps(3e8, 64), 15);
        assert_eq!(Budget::Steps(7).num_steps(3e8, 64), 7);
    }
}
