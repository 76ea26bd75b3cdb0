//! An optimizer from elsewhere on the same objective: a program that says, a line at a time, what to try next.
//!
//! It is told the space and a seed, answers with settings, and is told their score; lines are JSON. It is run as such
//! programs are meant to be: no pairs, no judge, every trial a whole configuration on one seed, and the best score wins.
//! What it came to is measured as a champion is, against the defaults on seeds that nothing was chosen by.
//!
//! ```text
//! to the program    {"space": [{"name": "lr", "kind": "knob", "low": 1e-4, "high": 0.1, "log": true, "whole": false,
//!                               "default": 0.001}, {"name": "act", "kind": "choice", "options": [..], "default": ..}],
//!                    "seed": 3, "trials": 80}
//! from the program  {"settings": {"lr": 0.002, "act": "relu"}}
//! to the program    {"val_bpb": 2.31}            {"val_bpb": null, "why": "it diverged"}
//! ```
//!
//! Its input closes when the trials are used.

use crate::campaign::MIN_STEPS;
use crate::child::KEY_VARIABLES;
use crate::duel::pair_seed;
use crate::measure::{final_seed, measured};
use crate::researcher::is_movable;
use crate::world::{Checked, Score, SettingKind, SettingSpec, Trial, TrialError, World, run_side_by_side};
use pawl_record::{
    FileError, Rung, SCHEMA, Search, SearchTrial, SettingValue, Settings, read_json, write_json,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What a search is asked.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// Where `search.json` goes.
    pub folder: PathBuf,
    /// The recipe's file.
    pub recipe: PathBuf,
    /// Name of the optimizer.
    pub name: String,
    /// Its program and arguments.
    pub command: Vec<String>,
    /// Scale and budget of a trial.
    pub rung: Rung,
    /// Training runs, the final measurement not counted.
    pub max_runs: u64,
    /// Seed, as that of a campaign.
    pub seed: u64,
    /// Fresh seeds of the final measurement, at least two.
    pub final_seeds: u64,
}

/// Why a search came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The program cannot be started, or does not keep to the protocol.
    #[error("{name}: {because}")]
    Program {
        /// Of the optimizer.
        name: String,
        /// What it did.
        because: String,
    },
    /// The recipe does not compile as it is.
    #[error("the starting recipe cannot be built: {0}")]
    Recipe(String),
    /// A trial that has to be there.
    #[error("the final measurement of {name}: {because}")]
    Final {
        /// Of the optimizer.
        name: String,
        /// What happened.
        because: String,
    },
    /// Asked to stop.
    #[error("the search was interrupted; what it trained is found again")]
    Interrupted,
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Longest that a program may think about one answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest line that is read from it, bytes.
const MAX_LINE: u64 = 1 << 20;

/// Answers by training run allowed: those that do not compile, or were tried before, cost nothing but are bounded.
const ANSWERS_PER_RUN: u64 = 8;

/// Runs a search to its end, or finds that it is there. One of anything else is searched anew.
pub fn search(options: &SearchOptions, world: &dyn World) -> Result<Search, PeerError> {
    let path = options.folder.join("search.json");
    let asked = asked(options)?;
    if let Some(known) = finished(&options.folder)?
        && known.asked.as_ref() == Some(&asked)
    {
        return Ok(known);
    }
    let start =
        world.check(&options.recipe, options.rung.depth, &Settings::new()).map_err(PeerError::Recipe)?;
    let mut program = Program::start(options)?;
    program.tell(&json!({ "space": space(&start), "seed": options.seed, "trials": options.max_runs }))?;
    let mut tried = Tried { options, world, start: &start, runs: BTreeMap::new(), trials: Vec::new() };
    while (tried.runs.len() as u64) < options.max_runs
        && (tried.trials.len() as u64) < ANSWERS_PER_RUN * options.max_runs
    {
        let Some(settings) = program.asks(world)? else { break };
        let answer = tried.score(&settings)?;
        program.tell(&answer)?;
    }
    program.end();
    let found = tried.measured(asked)?;
    write_json(&path, &found)?;
    Ok(found)
}

/// A hash of all that determines a search.
fn asked(options: &SearchOptions) -> Result<String, FileError> {
    let SearchOptions { folder: _, recipe, name, command, rung, max_runs, seed, final_seeds } = options;
    let read = |source| FileError::Io { action: "read", path: recipe.clone(), source };
    let text = std::fs::read(recipe).map_err(read)?;
    let words = format!("{name:?} {command:?} {rung:?} {max_runs} {seed} {final_seeds}");
    let mut all = blake3::Hasher::new();
    all.update(blake3::hash(&text).as_bytes()).update(words.as_bytes());
    Ok(all.finalize().to_hex().to_string())
}

/// What can be turned, as the program is told.
fn space(start: &Checked) -> Vec<Value> {
    let told = |spec: &SettingSpec| match &spec.kind {
        SettingKind::Dial => None,
        SettingKind::Knob { low, high, log } => {
            let whole = matches!(spec.default, SettingValue::Int(_));
            Some(
                json!({"name": spec.name, "kind": "knob", "low": low, "high": high, "log": log, "whole": whole,
                "default": spec.default}),
            )
        }
        SettingKind::Choice { options } => {
            Some(json!({"name": spec.name, "kind": "choice", "options": options, "default": spec.default}))
        }
    };
    start.settings.iter().filter(|spec| is_movable(spec)).filter_map(told).collect()
}

/// Everything that was tried so far.
struct Tried<'a> {
    options: &'a SearchOptions,
    world: &'a dyn World,
    start: &'a Checked,
    /// By fingerprint: a program is trained once.
    runs: BTreeMap<String, Result<Score, String>>,
    trials: Vec<SearchTrial>,
}

impl Tried<'_> {
    /// Trains a configuration, unless it is refused or known; what the program is told of it.
    fn score(&mut self, settings: &Settings) -> Result<Value, PeerError> {
        let mut trial = SearchTrial { settings: settings.clone(), val_bpb: None, run: None, flops: 0.0 };
        let (outcome, is_new) = match self.refusal(settings) {
            Err(why) => (Err(why), false),
            Ok(fingerprint) => match self.runs.get(&fingerprint) {
                Some(known) => (known.clone(), false),
                None => {
                    let seed = pair_seed(self.options.seed, 0, 0);
                    let outcome = match self.world.run(&self.trial(settings, seed, false)) {
                        Ok(score) => Ok(score),
                        Err(TrialError::Interrupted) => return Err(PeerError::Interrupted),
                        Err(TrialError::Failed(why)) => Err(why),
                    };
                    self.runs.insert(fingerprint, outcome.clone());
                    (outcome, true)
                }
            },
        };
        let told = match outcome {
            Ok(score) => {
                trial.val_bpb = score.val_bpb;
                trial.run = Some(score.run);
                trial.flops = if is_new { score.flops } else { 0.0 };
                json!({ "val_bpb": score.val_bpb, "why": score.reason })
            }
            Err(why) => json!({ "val_bpb": null, "why": why }),
        };
        self.trials.push(trial);
        Ok(told)
    }

    /// The fingerprint of a configuration that is worth training, as a campaign's gate has it.
    fn refusal(&self, settings: &Settings) -> Result<String, String> {
        let movable =
            |name: &String| self.start.settings.iter().any(|spec| spec.name == *name && is_movable(spec));
        if let Some(name) = settings.keys().find(|name| !movable(name)) {
            return Err(format!("{name} is nothing that can be turned"));
        }
        let checked = self.world.check(&self.options.recipe, self.options.rung.depth, settings)?;
        let steps = (self.options.rung.flops / checked.flops_per_step).floor();
        if steps < MIN_STEPS {
            return Err(format!("the budget allows {steps} steps, fewer than {MIN_STEPS}"));
        }
        Ok(checked.fingerprint)
    }

    fn trial(&self, settings: &Settings, seed: u64, seal: bool) -> Trial {
        let rung = &self.options.rung;
        Trial {
            recipe: self.options.recipe.clone(),
            depth: rung.depth,
            settings: settings.clone(),
            flops: rung.flops,
            precision: rung.precision,
            seed,
            init_seed: None,
            seal,
            keep: false,
            limit_s: None,
        }
    }

    /// The best against the defaults on fresh seeds.
    fn measured(self, asked: String) -> Result<Search, PeerError> {
        let options = self.options;
        let failed = |because: String| PeerError::Final { name: options.name.clone(), because };
        let scored = |trial: &&SearchTrial| trial.val_bpb.is_some();
        let score = |trial: &SearchTrial| trial.val_bpb.unwrap_or(f64::INFINITY);
        // Of equals the first: the defaults, where nothing gained.
        let best = self.trials.iter().filter(scored).min_by(|a, b| score(a).total_cmp(&score(b)));
        let best = best.map_or_else(Settings::new, |trial| trial.settings.clone());
        let seeds: Vec<u64> =
            (0..options.final_seeds.max(2)).map(|idx| final_seed(options.seed, 0, idx)).collect();
        let arm = |settings: &Settings| {
            seeds.iter().map(|seed| self.trial(settings, *seed, true)).collect::<Vec<Trial>>()
        };
        let trials = [arm(&Settings::new()), arm(&best)].concat();
        let mut scores = Vec::new();
        for score in run_side_by_side(self.world, &trials, 1) {
            scores.push(score.map_err(|error| match error {
                TrialError::Interrupted => PeerError::Interrupted,
                TrialError::Failed(why) => failed(why),
            })?);
        }
        let (start, end) = scores.split_at(seeds.len());
        let both: Vec<(&Score, &Score)> = start.iter().zip(end).collect();
        let of = |what: fn(&Score) -> Option<f64>| {
            measured(&both, what).ok_or_else(|| failed("fewer than two seeds gave both scores".to_string()))
        };
        Ok(Search {
            schema: SCHEMA,
            name: options.name.clone(),
            command: options.command.clone(),
            seed: options.seed,
            trial_flops: options.rung.flops,
            asked: Some(asked),
            max_runs: options.max_runs,
            runs: self.runs.len() as u64,
            flops: self.trials.iter().map(|trial| trial.flops).sum(),
            search: of(|score| score.val_bpb)?,
            sealed: of(|score| score.sealed_bpb)?,
            trials: self.trials,
            best,
            seeds,
        })
    }
}

/// The program, with what it says as lines.
struct Program<'a> {
    name: &'a str,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// What a program answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    settings: Settings,
}

impl<'a> Program<'a> {
    fn start(options: &'a SearchOptions) -> Result<Program<'a>, PeerError> {
        let wrong = |because: String| PeerError::Program { name: options.name.clone(), because };
        let (program, arguments) =
            options.command.split_first().ok_or_else(|| wrong("it has no program".to_string()))?;
        let mut command = Command::new(program);
        for variable in KEY_VARIABLES {
            command.env_remove(variable);
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|why| wrong(format!("{program} cannot be started: {why}")))?;
        let input = child.stdin.take();
        let output = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            loop {
                let mut line = String::new();
                let read = (&mut output).take(MAX_LINE).read_line(&mut line);
                if !read.is_ok_and(|bytes| bytes > 0) || sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Program { name: &options.name, child, input, lines })
    }

    fn tell(&mut self, what: &Value) -> Result<(), PeerError> {
        let input = self.input.as_mut().expect("it is open until the end");
        let written = writeln!(input, "{what}").and_then(|()| input.flush());
        written.map_err(|why| self.wrong(format!("it does not listen: {why}")))
    }

    /// The settings it wants tried next; `None` when it has ended by itself.
    fn asks(&self, world: &dyn World) -> Result<Option<Settings>, PeerError> {
        let began = Instant::now();
        let line = loop {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => break line,
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if world.interrupted() => return Err(PeerError::Interrupted),
                Err(RecvTimeoutError::Timeout) if began.elapsed() > PATIENCE => {
                    return Err(self.wrong(format!("it said nothing for {} s", PATIENCE.as_secs())));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        let asked: Asked = pawl_record::from_json(line.as_bytes()).map_err(|why| {
            let shown: String = line.trim().chars().take(80).collect();
            self.wrong(format!("it answered {shown:?}, which is no {{\"settings\": {{..}}}}: {why}"))
        })?;
        Ok(Some(asked.settings))
    }

    fn wrong(&self, because: String) -> PeerError {
        PeerError::Program { name: self.name.to_string(), because }
    }

    /// Closes its input and waits a moment for it.
    fn end(&mut self) {
        self.input = None;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // Either fails only if it has ended by itself, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The search of a folder, if it was finished.
pub fn finished(folder: &Path) -> Result<Option<Search>, FileError> {
    let path = folder.join("search.json");
    if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
}
