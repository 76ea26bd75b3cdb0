//! Arguments of the commands after pretraining: `sft`, `rl`, `chat`.

use super::{Place, Turned, count, non_negative, positive, share};
use clap::{Args, ValueEnum};

/// What every lesson is told.
#[derive(Args)]
pub(crate) struct Lesson {
    /// Run to begin from: its id, its first digits, or `champion`
    pub(crate) run: String,
    /// Difficulty of an environment's problems
    #[arg(long, value_name = "D", default_value_t = 1)]
    pub(crate) difficulty: u32,
    /// Share of an environment's demonstrations that are wrong, as a careless teacher's are
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, value_parser = share)]
    pub(crate) slips: Option<f64>,
    /// Starlark file with loss(logits, targets, ..) [default: the shipped one]
    #[arg(long, value_name = "FILE")]
    pub(crate) objective: Option<String>,
    /// Seed of everything that is drawn
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Threads; the result is the same for any number [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) threads: Option<u64>,
    #[command(flatten)]
    pub(crate) turned: Turned,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct Sft {
    #[command(flatten)]
    pub(crate) lesson: Lesson,
    /// FILE.jsonl of {"messages": [{"role", "content"}, ..]}, `builtin`, or `env:NAME` for demonstrations of an environment
    #[arg(long, value_name = "DATA")]
    pub(crate) data: String,
    /// Conversations to make, of `builtin` and `env:NAME`
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = count)]
    pub(crate) count: u64,
    /// Optimizer updates
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = count)]
    pub(crate) steps: u64,
    #[command(flatten)]
    pub(crate) batch: Batch,
    /// Share of the conversations that is held out
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, allow_negative_numbers = true, value_parser = share)]
    pub(crate) validation: f64,
    /// Go on with the optimizer state of the run
    #[arg(long)]
    pub(crate) keep_optimizer_state: bool,
}

#[derive(Args)]
pub(crate) struct Batch {
    /// Rows of an update [default: as many tokens as in pretraining]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) rows: Option<u64>,
    /// Tokens of a row [default: the recipe's seq_len]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) row_len: Option<u64>,
}

#[derive(Args)]
pub(crate) struct Rl {
    #[command(flatten)]
    pub(crate) lesson: Lesson,
    /// sum, countdown, linear, sort, edit, order, program, gsm8k:FILE, mbpp:FILE, or `command:PROGRAM ARGUMENTS`
    #[arg(long, value_name = "NAME")]
    pub(crate) env: String,
    /// Run programs of mbpp:FILE even where the kernel has only a part of what locks them in
    #[arg(long)]
    pub(crate) allow_partial_sandbox: bool,
    /// Batches of rollouts; 0 measures the run as it is
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) steps: u64,
    /// Stop after this many floating-point operations, sampling and scoring counted
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) flops: Option<f64>,
    /// What to do instead, for comparison at equal FLOPs
    #[arg(long, value_enum)]
    pub(crate) control: Option<Control>,
    /// Problems of a batch
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count)]
    pub(crate) prompts: u64,
    /// Completions of a problem
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count)]
    pub(crate) group: u64,
    /// Longest completion, tokens
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = count)]
    pub(crate) max_tokens: u64,
    /// Learn that an answer that was cut off is wrong; otherwise nothing is learnt from it, and a model may gain by not ending
    #[arg(long)]
    pub(crate) cut_is_wrong: bool,
    /// Tokens of a row: a prompt and its completion [default: the recipe's seq_len]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) row_len: Option<u64>,
    /// Updates on one batch of rollouts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count)]
    pub(crate) updates: u64,
    /// Problems of a measurement
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = count)]
    pub(crate) eval_problems: u64,
    /// Completions of a problem in a measurement; pass@k is told up to this k
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count)]
    pub(crate) eval_samples: u64,
    /// Batches between two measurements on the validation split
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = count)]
    pub(crate) eval_every: u64,
}

/// Controls of reinforcement learning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Control {
    /// More supervised training on the environment's demonstrations
    Sft,
    /// Supervised training on the model's own rewarded completions
    Rejection,
    /// Rewards by the toss of a coin
    Random,
}

impl From<Control> for pawl_record::Control {
    fn from(control: Control) -> Self {
        match control {
            Control::Sft => pawl_record::Control::Sft,
            Control::Rejection => pawl_record::Control::Rejection,
            Control::Random => pawl_record::Control::Random,
        }
    }
}

#[derive(Args)]
pub(crate) struct Chat {
    /// Run to talk to: its id, its first digits, or `champion`
    pub(crate) run: String,
    /// What the model is told before the first message
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Longest answer, tokens
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count)]
    pub(crate) tokens: u64,
    /// 0 takes the likeliest token each time
    #[arg(long, value_name = "X", default_value_t = 0.7, allow_negative_numbers = true, value_parser = non_negative)]
    pub(crate) temperature: f64,
    /// Seed of the draws
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) threads: Option<u64>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct SandboxCell {
    /// What the process may do, as JSON
    pub(crate) cell: String,
}
