//! The arguments of every command, and nothing of what they do. Help texts are these comments; they
//! name no default that the code below does not hold.

mod bench;
mod keeps;
mod mcp;
pub(crate) mod teach;

pub(crate) use bench::{Bench, BenchLessons, BenchOf, BenchPart, BenchResearchers, Peer, Precisions};
use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use keeps::{Effects, EffectsAction, EffectsFile, EffectsRevoke, Replicate, Retract};
pub(crate) use mcp::Mcp;
use pawl_recipe::Overrides;
use pawl_record::{Budget, SettingValue, Settings};
use std::path::PathBuf;

/// A pretraining lab: text becomes tokens, base models train, changes are tried under equal compute,
/// and only what is better is kept.
#[derive(Parser)]
#[command(name = "pawl", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One variant a command; each has its file in `commands/`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Improve a recipe: propose changes, try each in paired runs, keep what is better
    Research(Research),
    /// Train one model
    Train(Train),
    /// Compile a recipe and say what it is, without training
    Check(Check),
    /// Score a run's checkpoint: bits per byte on the search split, or published tasks
    Eval(Eval),
    /// Read a checkpoint of the Llama family from elsewhere into the lab, as a run
    Import(Import),
    /// Write a run of the llama recipe for other programs
    Export(Export),
    /// Teach a trained model to answer as in conversations
    Sft(teach::Sft),
    /// Teach a trained model by rewards of an environment
    Rl(teach::Rl),
    /// Talk to a trained model
    Chat(teach::Chat),
    /// Continue a prompt with a trained model
    Sample(Sample),
    /// Serve a trained model over HTTP: chat and completions as OpenAI's clients speak them
    Serve(Serve),
    /// Serve the lab to agents by the Model Context Protocol, which makes them its researchers
    Mcp(Mcp),
    /// List the training runs of the lab
    Runs(Runs),
    /// Show all that is known of one run, proposal or verdict
    Show(Show),
    /// Compare two runs: recipes, settings, results
    Diff(Diff),
    /// Say how well the lab's researchers predict, and what language models cost
    Researchers(Researchers),
    /// Write the report of the lab's campaign
    Report(Report),
    /// Compute every verdict of the lab again from the files of its runs, and name what differs
    Verify(Verify),
    /// Run a keep again from its row alone: the first seed bit for bit, the others fresh
    Replicate(Replicate),
    /// Withdraw a keep, and mark what was kept on top of it
    Retract(Retract),
    /// Show what changes were worth in this lab and in others
    Effects(Effects),
    /// Bring text into the lab, and look at what is there
    #[command(subcommand)]
    Data(Data),
    /// Measure this machine's limits, and how near to them products, training and decoding come
    Bench(Bench),
    /// Become the process that runs a model's program
    #[command(hide = true)]
    SandboxCell(teach::SandboxCell),
    /// Say what this machine can do, and what would be in the way
    Doctor(Doctor),
}

/// Where a command works and how it answers.
#[derive(Args, Clone)]
pub(crate) struct Place {
    /// Folder of the lab
    #[arg(long, value_name = "DIR", default_value = "lab")]
    pub(crate) lab: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is set in a recipe.
#[derive(Args, Clone)]
pub(crate) struct Turned {
    /// The scale dial; the recipe holds the default
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) depth: Option<u64>,
    /// Set a knob or choice by name; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, SettingValue)>,
}

impl Turned {
    /// By name; of two values for one name the last counts, as on any command line.
    pub(crate) fn settings(&self) -> Settings {
        self.settings.iter().cloned().collect()
    }

    /// What a recipe is to be compiled with.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { depth: self.depth, values: self.settings() }
    }
}

#[derive(Args)]
pub(crate) struct Research {
    /// Read what is asked from this file; flags win over it [default: campaign.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) campaign: Option<PathBuf>,
    /// Print all that is asked, with what each key means and where it came from, and run nothing
    #[arg(long)]
    pub(crate) explain: bool,
    /// Recipe to improve: a path, or the name of a shipped one
    #[arg(long, value_name = "FILE")]
    pub(crate) recipe: Option<String>,
    /// Who proposes changes: optimizer, steps, random, one_at_a_time, tpe, claude, openai=MODEL, mcp (clients of
    /// `pawl mcp`), replay:PATH; several with shares as claude:0.7,optimizer:0.3, or without, and results decide
    /// [default: optimizer]
    #[arg(long, value_name = "WHO", value_parser = researchers)]
    pub(crate) researcher: Option<String>,
    /// Most that language models may cost in this lab, US dollars [default: 5, where a price is known]
    #[arg(long, value_name = "USD", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) max_usd: Option<f64>,
    /// Most tokens of language models in this lab, sent and answered
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) max_tokens: Option<u64>,
    /// Most hours of waiting for language models in this lab
    #[arg(long, value_name = "H", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) max_hours: Option<f64>,
    /// Print what a language model would be told now, and do nothing
    #[arg(long)]
    pub(crate) show_prompt: bool,
    /// Stop after this many minutes
    #[arg(long, value_name = "M", allow_negative_numbers = true, value_parser = positive, conflicts_with = "trials")]
    pub(crate) minutes: Option<f64>,
    /// Stop after this many trials
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) trials: Option<u64>,
    /// The scale dial of the first rung [default: the recipe's own]
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) depth: Option<u64>,
    /// Floating-point operations of one trial of the first rung, as 5e11
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) flops: Option<f64>,
    /// Rungs of the ladder, on each of which a keep must hold: one more depth and four times the FLOPs each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=8))]
    pub(crate) rungs: Option<u64>,
    /// Number format of the products of trials
    #[arg(long, value_enum)]
    pub(crate) precision: Option<Precision>,
    /// Seed of the campaign: proposals, trial seeds
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Propose the lines of this file, SETTING=VALUE each, in order: what the judge is tried with
    #[arg(long, value_name = "FILE", hide = true, conflicts_with = "researcher")]
    pub(crate) script: Option<PathBuf>,
    /// Trials side by side, each on one thread [default: one a core]
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) workers: Option<u64>,
    /// Data set of the lab
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) data: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Budget of a training run that is given none: half a minute of two good cores.
pub(crate) const TRAIN_FLOPS: f64 = 5e12;

fn flops_help() -> String {
    format!("Stop after this many floating-point operations [default: {TRAIN_FLOPS:e}]")
}

/// Name of the data set that the binary carries.
pub(crate) const BUILTIN_DATA: &str = "crates";

#[derive(Args)]
pub(crate) struct Train {
    /// Path of a recipe, or the name of a shipped one: tiny, nano, llama
    #[arg(value_name = "FILE", required_unless_present = "resume")]
    pub(crate) file: Option<String>,
    #[command(flatten)]
    pub(crate) turned: Turned,
    #[command(flatten)]
    pub(crate) limit: Limit,
    /// Seed of the data order and of initialisation [default: 0]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Threads; the result is the same for any number [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) threads: Option<u64>,
    /// Continue the run of this id, bit for bit as if it had not stopped
    #[arg(long, value_name = "RUN")]
    pub(crate) resume: Option<String>,
    /// Seed of initialisation alone: what differs in the A/A pairs that measure noise
    #[arg(long, value_name = "S", hide = true)]
    pub(crate) init_seed: Option<u64>,
    /// Score the sealed split at the end
    #[arg(long, hide = true)]
    pub(crate) seal: bool,
    /// Leave no checkpoint behind, as the trials of a campaign do
    #[arg(long, hide = true)]
    pub(crate) score_only: bool,
    /// Data set of the lab [default: the carried corpus]
    #[arg(long, value_name = "NAME")]
    pub(crate) data: Option<String>,
    /// Number format of the products of training [default: f32, or that of the run resumed]
    #[arg(long, value_enum)]
    pub(crate) precision: Option<Precision>,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Number formats this version trains in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    /// 32-bit floating point throughout
    F32,
    /// Operands rounded to bfloat16, sums in 32 bits: 1.4 to 1.7 times as fast with AVX-512-BF16 on Zen 4, 2.1 to 3.2 with AMX
    Bf16,
}

impl From<Precision> for pawl_record::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => pawl_record::Precision::F32,
            Precision::Bf16 => pawl_record::Precision::Bf16,
        }
    }
}

#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct Limit {
    #[arg(long, value_name = "F", help = flops_help(), allow_negative_numbers = true, value_parser = positive)]
    flops: Option<f64>,
    /// Stop after this many training tokens
    #[arg(long, value_name = "N", value_parser = count)]
    tokens: Option<u64>,
    /// Stop after this many optimizer updates
    #[arg(long, value_name = "N", value_parser = count)]
    steps: Option<u64>,
}

impl Limit {
    /// The one that was given, if any was.
    pub(crate) fn budget(&self) -> Option<Budget> {
        let flops = self.flops.map(Budget::Flops);
        flops.or(self.tokens.map(Budget::Tokens)).or(self.steps.map(Budget::Steps))
    }
}

#[derive(Args)]
pub(crate) struct Check {
    /// Path of a recipe, or the name of a shipped one: tiny, nano, llama
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    #[command(flatten)]
    pub(crate) turned: Turned,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Eval {
    /// Id of a run, its first digits, or `champion`
    pub(crate) run: String,
    /// Data set of the lab whose held-out text is scored [default: that of the run]
    #[arg(long, value_name = "NAME")]
    pub(crate) data: Option<String>,
    /// Published tasks instead of bits per byte: their names, `core`, `all`; separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "data_dir")]
    pub(crate) tasks: Vec<String>,
    /// Folder that holds the data of the tasks as it is published
    #[arg(long, value_name = "DIR", requires = "tasks")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Items of each task at most, the first of a fixed shuffle
    #[arg(long, value_name = "N", value_parser = count, requires = "tasks")]
    pub(crate) limit: Option<u64>,
    /// Answers of each problem of gsm8k, mbpp, humaneval; pass@k is told up to this k
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count, requires = "tasks")]
    pub(crate) samples: u64,
    /// Of those answers; 0 takes the likeliest token [default: 0 for one answer, 0.8 for several]
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = non_negative, requires = "tasks")]
    pub(crate) temperature: Option<f64>,
    /// Run written programs even where the kernel has only a part of what locks them in
    #[arg(long, requires = "tasks")]
    pub(crate) allow_partial_sandbox: bool,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) threads: Option<u64>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct Import {
    /// A GGUF file, or a folder with config.json, safetensors and tokenizer.json
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Positions that the run can take, at most those of the checkpoint
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = count)]
    pub(crate) seq_len: u64,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Formats that others read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A folder: safetensors, config.json, tokenizer.json
    Hf,
    /// One GGUF file in 32 bits
    Gguf,
    /// One GGUF file, matrices in 16 bits
    GgufF16,
}

#[derive(Args)]
pub(crate) struct Export {
    /// Id of a run, its first digits, or `champion`
    pub(crate) run: String,
    /// The folder or file to write
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Hf)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct Sample {
    /// Id of a run, its first digits, or `champion`
    pub(crate) run: String,
    /// Text to continue
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) prompt: String,
    /// Tokens to write
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = count)]
    pub(crate) tokens: u64,
    /// 0 takes the likeliest token each time
    #[arg(long, value_name = "X", default_value_t = 0.8, allow_negative_numbers = true, value_parser = non_negative)]
    pub(crate) temperature: f64,
    /// Draw from the K likeliest tokens alone; 0 from all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) top_k: usize,
    /// Draw from the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = probability)]
    pub(crate) top_p: f64,
    /// Draw from tokens with at least this share of the likeliest one's probability
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    pub(crate) min_p: f64,
    /// End at this text, which is left out; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
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
pub(crate) struct Serve {
    /// Id of a run, its first digits, or `champion`
    pub(crate) run: String,
    /// Address to listen on; other machines reach one that is not a loopback address
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) host: std::net::IpAddr,
    /// Port; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub(crate) port: u16,
    /// File with the token that clients must send; required off the loopback interface
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Texts generated at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) batch: u64,
    /// Texts that may wait beside them
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=65536))]
    pub(crate) max_waiting: u64,
    /// Seconds that an answer may take
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
    /// Seed of the draws of requests that name none
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) threads: Option<u64>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct Runs {
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct Show {
    /// Id of a run, proposal or verdict, its first digits, or `champion`
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct Diff {
    /// Id of a run, its first digits, or `champion`
    pub(crate) a: String,
    /// Id of a run, its first digits, or `champion`
    pub(crate) b: String,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct Report {
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct Researchers {
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// Train again, one after another, every run that a keep, a champion or the final measurement rests on
    #[arg(long)]
    pub(crate) rescore: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Subcommand)]
pub(crate) enum Data {
    /// Read text, JSONL or Parquet (with a `text` column), .gz, .zst, folders and globs into a data set
    Add(DataAdd),
    /// List the data sets
    List(DataList),
    /// Show one data set: domains, splits, sources
    Show(DataShow),
    /// Compare a data set with its hashes, its tokenizers with its training text, and look for held-out text in it
    Check(DataShow),
}

#[derive(Args)]
pub(crate) struct DataAdd {
    /// Name of the new data set
    pub(crate) name: String,
    /// Files, folders or globs; DOMAIN=PATH puts the text into a domain of its own
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Divide by position, and hold out this last share of the text
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, value_parser = share)]
    pub(crate) held_out: Option<f64>,
    /// Seal this share of the whole text, the last part of what is held out
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, value_parser = share)]
    pub(crate) sealed: Option<f64>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct DataList {
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct DataShow {
    /// Name of the data set
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Words that name researchers; what they mean is said where they are used.
fn researchers(text: &str) -> Result<String, String> {
    crate::providers::team(text).map(|_| text.to_string())
}

/// `name=value`
pub(crate) fn setting(text: &str) -> Result<(String, SettingValue), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_string(), SettingValue::parse(value.trim())))
        }
        Some(_) | None => Err("write it as name=value, for example matrix_lr=0.03".to_string()),
    }
}

fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(_) => Err("must be finite".to_string()),
        Err(_) => Err("is not a number".to_string()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    number(text).and_then(|x| if x > 0.0 { Ok(x) } else { Err("must be above 0".to_string()) })
}

fn non_negative(text: &str) -> Result<f64, String> {
    number(text).and_then(|x| if x >= 0.0 { Ok(x) } else { Err("must not be below 0".to_string()) })
}

fn probability(text: &str) -> Result<f64, String> {
    number(text)
        .and_then(|x| if (0.0..=1.0).contains(&x) { Ok(x) } else { Err("must lie from 0 to 1".into()) })
}

fn share(text: &str) -> Result<f64, String> {
    number(text).and_then(|x| if x > 0.0 && x < 1.0 { Ok(x) } else { Err("must lie between 0 and 1".into()) })
}

/// A whole number above 0; `1e6` is one.
fn count(text: &str) -> Result<u64, String> {
    let count = match text.parse::<u64>() {
        Ok(count) => count,
        Err(_) => match number(text)? {
            // Above 2^53 a float no longer holds every whole number.
            x if x.fract() == 0.0 && (0.0..9e15).contains(&x) => x as u64,
            _ => return Err("is not a whole number".to_string()),
        },
    };
    if count > 0 { Ok(count) } else { Err("must be above 0".to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn counts_may_be_written_with_an_exponent() {
        assert_eq!(count("1e6"), Ok(1_000_000));
        assert_eq!(count("12"), Ok(12));
        for wrong in ["0", "-1", "1.5", "x", "1e300", ""] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn of_two_values_for_a_name_the_last_counts() {
        let cli = Cli::try_parse_from(["pawl", "check", "tiny", "--set", "a=1", "--set", "a=0.5"]).unwrap();
        let Command::Check(check) = cli.command else { panic!("not check") };
        assert_eq!(check.turned.settings(), [("a".to_string(), SettingValue::Float(0.5))].into());
    }

    #[test]
    fn two_budgets_are_refused() {
        assert!(Cli::try_parse_from(["pawl", "train", "tiny", "--flops", "1e9", "--steps", "3"]).is_err());
    }
}
