//! The arguments of measurements: of this machine, and of researchers beside each other.

use super::{Place, Turned, count, positive};
use clap::{Args, Subcommand, ValueEnum};
use pawl_research::brief::TRIAL_FLOPS;
use pawl_research::options::FINAL_SEEDS;

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
    /// A program that says a line at a time what to try, on as many trials without a judge; may be repeated
    #[arg(long = "peer", value_name = "NAME=COMMAND", value_parser = peer)]
    pub(crate) peers: Vec<Peer>,
    /// Recipe to improve: a path, or the name of a shipped one
    #[arg(long, value_name = "FILE", default_value = "tiny")]
    pub(crate) recipe: String,
    /// The scale dial [default: the recipe's own]
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) depth: Option<u64>,
    /// Campaigns of each, seeds 0, 1, ...
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) seeds: u64,
    /// Training runs of a campaign, the final measurement not counted
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = count)]
    pub(crate) trials: u64,
    /// Floating-point operations of one trial
    #[arg(long, value_name = "F", default_value_t = TRIAL_FLOPS, allow_negative_numbers = true, value_parser = positive)]
    pub(crate) flops: f64,
    /// Fresh seeds of the final measurement
    #[arg(long, value_name = "N", default_value_t = FINAL_SEEDS, value_parser = clap::value_parser!(u64).range(2..=1024))]
    pub(crate) final_seeds: u64,
    /// Campaigns side by side, each with one trial at a time [default: one, with a trial a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) jobs: Option<u64>,
    /// Stop after this many minutes, and compare on the seeds that everybody finished
    #[arg(long, value_name = "M", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) minutes: Option<f64>,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// An optimizer from elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// Program and arguments, which hold no spaces.
    pub(crate) command: Vec<String>,
}

fn peer(text: &str) -> Result<Peer, String> {
    let (name, command) = text.split_once('=').ok_or("write NAME=COMMAND")?;
    let command: Vec<String> = command.split_whitespace().map(str::to_string).collect();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err("a name has letters, digits, - and _ alone".to_string());
    }
    if command.is_empty() {
        return Err("which program?".to_string());
    }
    Ok(Peer { name: name.to_string(), command })
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
