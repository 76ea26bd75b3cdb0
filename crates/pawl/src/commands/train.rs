//! `pawl train FILE`: one training run. A run that was interrupted goes on where it was, a run that is
//! finished is not run again: its result is printed.

use crate::args::{BUILTIN_DATA, TRAIN_FLOPS, Train};
use crate::commands::show::run_block;
use crate::errors::Failure;
use crate::interrupt::interrupt;
use crate::lab::{from_ledger, from_train, ledger};
use crate::machine::{cores, describe, peak_flops};
use crate::output::{Answer, Status, bar, count, duration, narrate};
use crate::prepare::prepare;
use crate::recipes::{RecipeText, compile, find, from_recipe};
use pawl_ledger::RunRecord;
use pawl_model::Model;
use pawl_recipe::Overrides;
use pawl_record::{Budget, RunManifest};
use pawl_train::{RunDir, RunRequest, TrainError, TrainOptions, TrainProgress, identify, pretrain};
use serde_json::json;
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Training that a crash may cost.
pub(crate) const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);
/// Points of the learning curve on the search split.
const NUM_EVALS: u64 = 8;
/// Training tokens between two of them at least: scoring takes as long as training on about 30,000 tokens.
const EVAL_EVERY_TOKENS: u64 = 1 << 18;

pub(crate) fn run(args: Train) -> Result<Answer, Failure> {
    let how = How { threads: args.threads, score_only: args.score_only, quiet: args.place.json };
    let run = train(&args.place.lab, asked(&args)?, &how)?;
    let mut text = run_block(&run);
    if !args.score_only {
        text.push_str(&format!("next: pawl sample {0} | pawl show {0}\n", run.manifest.id));
    }
    Ok(Answer::new(text, json!({ "run": run.manifest, "result": run.result })))
}

/// The model of a run at its last checkpoint, frozen. A run that was trained for its score alone, as the trials
/// of a campaign are, is trained once more.
pub(crate) fn load_model(
    lab: &Path,
    manifest: &RunManifest,
    threads: Option<u64>,
    quiet: bool,
) -> Result<Model, Failure> {
    let num_threads = num_threads(threads);
    match pawl_train::load_frozen(lab, &manifest.id, num_threads) {
        Ok(model) => Ok(model),
        Err(TrainError::NoCheckpoint { id }) => {
            narrate(&format!(
                "run {id} was trained for its score alone; training it again for its checkpoint"
            ));
            let text = ledger(lab)?.recipe_text(&id).map_err(from_ledger)?;
            train(lab, again(manifest.clone(), text), &How { threads, score_only: false, quiet })?;
            Ok(pawl_train::load_frozen(lab, &id, num_threads).map_err(from_train)?)
        }
        Err(error) => Err(from_train(error)),
    }
}

/// How to run, as opposed to what.
struct How {
    threads: Option<u64>,
    score_only: bool,
    quiet: bool,
}

pub(crate) fn num_threads(threads: Option<u64>) -> usize {
    threads.map_or_else(cores, |threads| threads as usize)
}

fn train(lab: &Path, asked: Asked, how: &How) -> Result<RunRecord, Failure> {
    let stop = interrupt()?;
    let name = asked.recipe.name.clone();
    let recipe = compile(&asked.recipe, &asked.overrides).map_err(|error| from_recipe(&name, error))?;
    let summary = recipe.summary().map_err(|error| from_recipe(&name, error))?;
    let data = prepare(lab, &asked.data, recipe.vocab_size(), how.quiet)?;
    let manifest = identify(
        &recipe,
        summary.fingerprint,
        summary.flops_per_step,
        data.reference.clone(),
        &asked.request,
    );
    if let Some(id) = asked.resumes.filter(|id| *id != manifest.id) {
        return Err(Failure::new(format!("run {id} cannot be resumed"))
            .because("this pawl, its standard library or the data differ from those it was started with")
            .hint("start it again: pawl train FILE"));
    }
    let num_threads = num_threads(how.threads);
    let progress = Progress::new(how.quiet, &manifest);
    let peak = std::cell::OnceCell::new();
    let options = TrainOptions {
        num_threads,
        checkpoint_every: CHECKPOINT_EVERY,
        eval_every_steps: (!how.score_only).then(|| eval_every(&manifest)),
        keep_checkpoints: !how.score_only,
        peak_flops: &|| *peak.get_or_init(|| peak_flops(num_threads)),
        stop: &stop,
        report: &|at| progress.show(at),
    };
    let result = pretrain(lab, recipe, &manifest, &data, &options);
    drop(progress);
    let result = result.map_err(from_train)?;
    // As the process that began the run wrote it: when, and on which machine.
    let manifest = RunDir::manifest(lab, &manifest.id)?;
    Ok(RunRecord { manifest, result: Some(result) })
}

/// Updates between two scores on the search split.
fn eval_every(manifest: &RunManifest) -> u64 {
    (manifest.num_steps / NUM_EVALS).max(EVAL_EVERY_TOKENS.div_ceil(manifest.tokens_per_step))
}

/// A run as the command line means it.
struct Asked {
    recipe: RecipeText,
    overrides: Overrides,
    data: String,
    request: RunRequest,
    resumes: Option<String>,
}

fn asked(args: &Train) -> Result<Asked, Failure> {
    match (&args.resume, &args.file) {
        (Some(id), _) => {
            let run = ledger(&args.place.lab)?;
            let manifest = run.run(id).map_err(from_ledger)?.manifest;
            let text = run.recipe_text(&manifest.id).map_err(from_ledger)?;
            agree(args, &manifest, &text)?;
            Ok(again(manifest, text))
        }
        (None, Some(file)) => {
            let seed = args.seed.unwrap_or(0);
            Ok(Asked {
                recipe: find(file)?,
                overrides: args.turned.overrides(),
                data: args.data.clone().unwrap_or_else(|| BUILTIN_DATA.to_string()),
                request: RunRequest {
                    budget: args.limit.budget().unwrap_or(Budget::Flops(TRAIN_FLOPS)),
                    seed,
                    init_seed: args.init_seed.unwrap_or(seed),
                    seal: args.seal,
                    precision: args.precision.map(Into::into).unwrap_or_default(),
                    machine: describe(),
                    created_unix_s: unix_s(),
                },
                resumes: None,
            })
        }
        (None, None) => unreachable!("the arguments require FILE or --resume"),
    }
}

/// A run as it was asked the first time.
fn again(manifest: RunManifest, text: String) -> Asked {
    let mut values = manifest.settings;
    values.remove("depth");
    Asked {
        recipe: RecipeText { name: manifest.recipe, text },
        overrides: Overrides { depth: (manifest.depth > 0).then_some(manifest.depth), values },
        data: manifest.data.name,
        request: RunRequest {
            budget: manifest.budget,
            seed: manifest.seed,
            init_seed: manifest.init_seed,
            seal: manifest.seal,
            precision: manifest.precision,
            machine: describe(),
            created_unix_s: unix_s(),
        },
        resumes: Some(manifest.id),
    }
}

/// Wall clock, for the record.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What is said beside `--resume` must be what the run was started with.
fn agree(args: &Train, manifest: &RunManifest, text: &str) -> Result<(), Failure> {
    let recipe = args.file.as_ref().map(|file| find(file)).transpose()?;
    let settings = args.turned.settings();
    let same = [
        ("recipe", recipe.is_none_or(|recipe| recipe.text == text)),
        ("depth", args.turned.depth.is_none_or(|depth| depth == manifest.depth)),
        ("settings", settings.iter().all(|(name, value)| same_value(manifest.settings.get(name), value))),
        ("budget", args.limit.budget().is_none_or(|budget| budget == manifest.budget)),
        ("seed", args.seed.is_none_or(|seed| seed == manifest.seed)),
        ("precision", args.precision.is_none_or(|asked| manifest.precision == asked.into())),
        ("data set", args.data.as_ref().is_none_or(|data| *data == manifest.data.name)),
    ];
    match same.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((what, _)) => {
            Err(Failure::misuse(format!("run {} was started with another {what}", manifest.id))
                .because("a run goes on as it was asked")
                .hint(format!(
                    "pawl train --resume {} needs nothing else; without --resume it is a new run",
                    manifest.id
                )))
        }
    }
}

/// A whole number given for a real one is that real number.
fn same_value(known: Option<&pawl_record::SettingValue>, asked: &pawl_record::SettingValue) -> bool {
    known.is_some_and(|known| {
        known == asked || known.as_f64().is_some_and(|known| asked.as_f64() == Some(known))
    })
}

/// A live line on a terminal; elsewhere a line for each tenth of the run; nothing for a program.
pub(crate) struct Progress {
    status: Status,
    lines: bool,
    tenth: Cell<u64>,
}

impl Progress {
    pub(crate) fn new(quiet: bool, manifest: &RunManifest) -> Progress {
        let live = std::io::IsTerminal::is_terminal(&std::io::stderr());
        if !quiet {
            let steps = manifest.num_steps;
            let params = count(manifest.num_params as f64);
            narrate(&format!(
                "run {}  {params} params  {steps} steps of {} tokens",
                manifest.id, manifest.tokens_per_step
            ));
        }
        Progress { status: Status::new(quiet), lines: !live && !quiet, tenth: Cell::new(0) }
    }

    pub(crate) fn show(&self, at: &TrainProgress) {
        if self.lines {
            let tenth = 10 * at.step / at.num_steps;
            if tenth > self.tenth.replace(tenth) {
                narrate(&line(at));
            }
        } else {
            self.status.show(line(at));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.status.clear();
    }
}

fn line(at: &TrainProgress) -> String {
    let share = at.step as f64 / at.num_steps.max(1) as f64;
    let val = at.val_bpb.map_or_else(String::new, |bpb| format!("  val_bpb {bpb:.4}"));
    format!(
        " step {}/{} {}  loss {:.4}{val}  {} tokens/s  {:.0} % of peak  {} left",
        at.step,
        at.num_steps,
        bar(share, 12),
        at.loss,
        count(at.tokens_per_sec),
        100.0 * at.mfu,
        duration(at.seconds_left),
    )
}
