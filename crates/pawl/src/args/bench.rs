//! The arguments of measurements: of this machine, and of researchers beside each other.

use super::{Place, Turned, count, positive};
use clap::{Args, Subcommand, ValueEnum};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) of: Option<BenchOf>,
    /// Recipes to time, paths or names: tiny, nano, or the models of comparisons small and big [default: all four]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// Number formats of products to time; all leaves out what this machine has no instructions for
    #[arg(long, value_enum, default_value_t = Precisions::All)]
    pub(crate) precision: Precisions,
    #[command(flatten)]
    pub(crate) turned: Turned,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) threads: Option<u64>,
    /// Measure for a moment only, and of recipes that are not named tiny alone: rough numbers
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure these parts alone, beside the limits; may be repeated [default: all but scaling]
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) only: Vec<BenchPart>,
    /// Answer each line of stdin with the tokens/s of steps of the recipe, as one of the processes side by side
    #[arg(long, hide = true)]
    pub(crate) beside: bool,
    /// List also the N kernels of each step that take longest, by length and batch too
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) kernels: usize,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// What else can be measured.
#[derive(Subcommand)]
pub(crate) enum BenchOf {
    /// Let researchers work on the same start with the same budget and seeds, and compare what they came to
    Researchers(BenchResearchers),
    /// Teach runs by rewards and, at equal FLOPs, by each control; compare what they came to
    Lessons(BenchLessons),
}

#[derive(Args)]
pub(crate) struct BenchResearchers {
    /// Who competes, as `pawl research --researcher` takes them; the first is what the others are compared with
    #[arg(value_name = "NAME", default_values = ["optimizer", "random", "one_at_a_time", "tpe"])]
    pub(crate) researchers: Vec<String>,
    /// Recipe to improve: a path, or the name of a shipped one
    #[arg(long, value_name = "FILE", default_value = "tiny")]
    pub(crate) recipe: String,
    /// Campaigns of each, seeds 0, 1, ...
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) seeds: u64,
    /// Training runs of a campaign, the final measurement not counted
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = count)]
    pub(crate) trials: u64,
    /// Floating-point operations of one trial, as 5e11
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) flops: Option<f64>,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Number formats to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precisions {
    /// 32-bit floating point throughout
    F32,
    /// Operands of products in bfloat16
    Bf16,
    /// Each in turn
    All,
}

/// Parts of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchPart {
    /// Matrix products by shape
    Products,
    /// Training steps by recipe
    Steps,
    /// Generation of text
    Decode,
    /// Training steps by length, batch, size of the model and number of processes: a minute or two
    Scaling,
}

#[derive(Args)]
pub(crate) struct BenchLessons {
    /// Arguments of `pawl rl` in one word, `"RUN --env sum --difficulty 3"`: what is taught to whom
    #[arg(value_name = "LESSON", required = true)]
    pub(crate) lessons: Vec<String>,
    /// Floating-point operations of each arm, sampling and scoring counted
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) flops: f64,
    /// Seeds of each arm, 0, 1, ...
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) seeds: u64,
    /// Lessons at once, each on one thread [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) jobs: Option<u64>,
    /// More arguments for reinforcement learning and for rewards by a coin
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    pub(crate) reinforce: String,
    /// More arguments for the controls that imitate
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    pub(crate) imitate: String,
    #[command(flatten)]
    pub(crate) place: Place,
}
