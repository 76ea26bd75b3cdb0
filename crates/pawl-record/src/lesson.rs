//! What a trained model was taught next: `lesson.json` and `lesson.jsonl` in the directory of the run that taught it,
//! and `rollouts.jsonl` of reinforcement learning.

use serde::{Deserialize, Serialize};

/// `lesson.json`: what makes a run a lesson. The id of the run covers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LessonManifest {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// The run it begins from.
    pub parent: String,
    /// BLAKE3 of the tensors it begins from, hex.
    pub parent_hash: String,
    /// Updates that the parent's optimizer state has seen, where it is kept.
    pub kept_state_age: Option<u64>,
    /// File of the objective; its text lies in `loads.json`.
    pub objective: String,
    /// Numbers for each target that the objective is given.
    pub signals: Vec<String>,
    /// Rows of one update.
    pub num_rows: u64,
    /// Tokens of a row.
    pub row_len: u64,
    /// Whether the recipe drops out.
    pub dropout: bool,
    /// Bound on the norm of all gradients of an update together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<f64>,
    /// What is taught.
    pub task: LessonTask,
}

/// What is taught.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LessonTask {
    /// To answer as in conversations.
    Sft {
        /// As the command named them.
        data: String,
        /// BLAKE3 of their tokens, hex.
        data_hash: String,
        /// Share held out.
        validation_share: f64,
    },
    /// To answer so that an environment rewards it.
    Rl(RlTask),
}

/// Reinforcement learning in an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RlTask {
    /// As the command named it.
    pub env: String,
    /// Of its problems.
    pub difficulty: u32,
    /// What is done instead, to compare with.
    pub control: Option<Control>,
    /// Problems of one batch of rollouts.
    pub num_prompts: u64,
    /// Completions of a problem.
    pub group_size: u64,
    /// Longest completion, tokens; a longer one is truncated.
    pub max_tokens: u64,
    /// Whether a completion that was cut off counts as a wrong answer; otherwise nothing is learnt from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut_is_wrong: bool,
    /// Share of the demonstrations that are wrong, where a control learns from those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slips: f64,
    /// Updates on one batch of rollouts.
    pub updates_per_batch: u64,
    /// Problems of each measurement.
    pub eval_problems: u64,
    /// Completions of a problem in a measurement.
    pub eval_samples: u64,
    /// Batches between two measurements on the validation split.
    pub eval_every: u64,
    /// Floating-point operations after which it ends, if that is what ends it.
    pub flops: Option<f64>,
}

fn is_zero(share: &f64) -> bool {
    *share == 0.0
}

/// What a gain of reinforcement learning must be compared with, at equal FLOPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// More supervised training on the environment's demonstrations.
    Sft,
    /// Supervised training on the model's own rewarded completions.
    Rejection,
    /// Rewards by the toss of a coin.
    Random,
}

/// A share of problems solved with its 95 % interval over problems.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassRate {
    /// Completions that may be tried.
    pub k: u64,
    /// Mean over problems, 0 to 1.
    pub rate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// How well a model does in an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvScore {
    /// Different problems.
    pub problems: u64,
    /// Completions of each.
    pub samples: u64,
    /// By number of tries.
    pub pass_at: Vec<PassRate>,
    /// Mean length, tokens.
    pub mean_tokens: f64,
    /// Share of completions cut off at the limit.
    pub truncated: f64,
}

impl EnvScore {
    /// Share of completions that solve their problem.
    pub fn pass_at_1(&self) -> f64 {
        self.pass_at.iter().find(|pass| pass.k == 1).map_or(0.0, |pass| pass.rate)
    }
}

/// One line of `lesson.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LessonEvent {
    /// Held-out conversations.
    HeldOut {
        /// Updates done.
        step: u64,
        /// Nats per taught token, the end token included.
        loss: f64,
        /// Bits per UTF-8 byte of what the assistant says.
        bpb: f64,
    },
    /// A batch of rollouts and its updates.
    Rollouts(RolloutSummary),
    /// A measurement on the validation split.
    Validation {
        /// Batches done.
        batch: u64,
        /// The score.
        score: EnvScore,
    },
}

/// What a batch of rollouts was like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutSummary {
    /// 0-based.
    pub batch: u64,
    /// Mean reward of all completions.
    pub reward: f64,
    /// Share of groups whose rewards differ, which alone are learnt from.
    pub mixed_groups: f64,
    /// Share of completions cut off at the limit.
    pub truncated: f64,
    /// Mean length, tokens.
    pub mean_tokens: f64,
    /// Mean over tokens of the k3 estimate of KL(policy, reference), nats; of the rows that were scored.
    pub kl_to_reference: f64,
    /// Largest difference between a log-probability as drawn and as trained, nats; of the rows that were scored.
    pub sampler_gap: f64,
    /// Loss of each update.
    pub losses: Vec<f64>,
    /// Norm of all gradients of each update, before it was bounded; where it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grad_norms: Vec<f64>,
    /// Floating-point operations so far, sampling and scoring included.
    pub flops: f64,
}

/// One line of `rollouts.jsonl`: a completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// Batch, 0-based.
    pub batch: u64,
    /// Problem of the batch, 0-based.
    pub problem: u64,
    /// Completion of the problem, 0-based.
    pub sample: u64,
    /// What was asked.
    pub prompt: String,
    /// What was answered.
    pub completion: String,
    /// Tokens, the end token included.
    pub num_tokens: u64,
    /// Whether it came to an end by itself.
    pub finished: bool,
    /// 0 to 1.
    pub reward: f64,
    /// Sum of its log-probabilities, nats.
    pub log_prob: f64,
}

/// `lesson_result.json`: how a lesson ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LessonResult {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// The run.
    pub id: String,
    /// Nats per taught token of held-out conversations.
    pub held_out_loss: Option<f64>,
    /// On the test split, before the first update.
    pub test_before: Option<EnvScore>,
    /// On the test split, of the checkpoint that was best on the validation split.
    pub test_after: Option<EnvScore>,
    /// Batches after which that checkpoint was.
    pub best_batch: Option<u64>,
    /// Floating-point operations of updates, sampling and scoring; measurements are not counted.
    pub flops: f64,
}
