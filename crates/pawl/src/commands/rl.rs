//! `pawl rl RUN --env NAME`: a trained model is taught by rewards. The same command goes on with what was interrupted;
//! `--steps 0` measures the run as it is.

use crate::args::teach::Rl;
use crate::commands::sft::{objective, tokenizer_of};
use crate::commands::train::{CHECKPOINT_EVERY, Progress, load_model, num_threads, unix_s};
use crate::errors::Failure;
use crate::interrupt::interrupt;
use crate::lab::{from_env, from_ledger, from_train, ledger};
use crate::machine::{describe, peak_flops};
use crate::output::{Align, Answer, Block, Table, flops};
use pawl_eval::env::Environment;
use pawl_record::{Budget, Control, EnvScore, LessonResult, LessonTask, Precision, RlTask, RunManifest};
use pawl_train::{LessonRequest, RL_SIGNALS, RunRequest, SFT_SIGNALS, TrainOptions, lesson, measure, rl};
use serde_json::json;

pub(crate) fn run(args: Rl) -> Result<Answer, Failure> {
    let lab = &args.lesson.place.lab;
    let parent = ledger(lab)?.run(&args.lesson.run).map_err(from_ledger)?.manifest;
    let tokenizer = tokenizer_of(lab, &parent)?;
    let mut env = open(&args)?;
    if args.steps == 0 {
        let model = load_model(lab, &parent, args.lesson.threads, args.lesson.place.json)?;
        let (problems, samples) = (args.eval_problems as usize, args.eval_samples as usize);
        let max_tokens = args.max_tokens as usize;
        let score =
            measure(&model, &tokenizer, &mut env, args.lesson.difficulty, problems, samples, max_tokens)
                .map_err(from_train)?;
        let json = json!({ "run": parent.id, "env": args.env, "difficulty": args.lesson.difficulty, "score": score });
        return Ok(Answer::new(table(&[("test", &score)]), json));
    }
    let stop = interrupt()?;
    let asked = request(&args, &parent)?;
    let ready = lesson(lab, asked).map_err(from_train)?;
    let (manifest, lesson) = (ready.manifest.clone(), ready.lesson.clone());
    let threads = num_threads(args.lesson.threads);
    let progress = Progress::new(args.lesson.place.json, &manifest);
    let peak = std::cell::OnceCell::new();
    let options = TrainOptions {
        num_threads: threads,
        checkpoint_every: CHECKPOINT_EVERY,
        eval_every_steps: None,
        keep_checkpoints: true,
        peak_flops: &|| *peak.get_or_init(|| peak_flops(threads)),
        stop: &stop,
        report: &|at| progress.show(at),
    };
    let done = rl(lab, ready, &mut env, &tokenizer, &options);
    drop(progress);
    let (result, outcome) = done.map_err(from_train)?;
    let mut block = Block::default();
    block.line("run", &manifest.id).line("parent", &lesson.parent);
    let mut text = String::new();
    match &outcome {
        Some(outcome) => {
            text.push_str(&scores(outcome));
            block
                .maybe("best_batch", outcome.best_batch)
                .line("flops", flops(outcome.flops))
                .line("next", format!("pawl chat {}", manifest.id));
        }
        None => {
            block.maybe("reason", result.reason.as_ref());
        }
    }
    text.push_str(block.text());
    let json = json!({ "run": manifest, "result": result, "lesson": lesson, "outcome": outcome });
    Ok(Answer::of(outcome.is_some(), text, json))
}

/// The environment; one that runs programs gets a sandbox.
#[cfg(target_os = "linux")]
fn open(args: &Rl) -> Result<Environment, Failure> {
    let Some(path) = args.env.strip_prefix("mbpp:") else {
        return Environment::open(&args.env).map_err(from_env);
    };
    Environment::mbpp(path.as_ref(), sandbox(args.allow_partial_sandbox)?).map_err(from_env)
}

/// A sandbox of the built-in limits, whose worker is this binary.
#[cfg(target_os = "linux")]
pub(crate) fn sandbox(allow_partial: bool) -> Result<pawl_eval::sandbox::Sandbox, Failure> {
    use pawl_eval::env::EnvError;
    use pawl_eval::sandbox::{Limits, Locks, Sandbox};
    let own =
        std::env::current_exe().map_err(|why| Failure::new("pawl cannot find itself").caused_by(&why))?;
    let locks = if allow_partial { Locks::Available } else { Locks::All };
    let worker = vec![own.into_os_string(), "sandbox-cell".into()];
    Sandbox::new(worker, Limits::default(), locks).map_err(EnvError::from).map_err(from_env)
}

#[cfg(not(target_os = "linux"))]
fn open(args: &Rl) -> Result<Environment, Failure> {
    Environment::open(&args.env).map_err(from_env)
}

/// The lesson that the arguments ask for.
fn request(args: &Rl, parent: &RunManifest) -> Result<LessonRequest, Failure> {
    let control = args.control.map(Control::from);
    // What imitates has the objective of supervised fine-tuning.
    let (shipped, signals) = match control {
        Some(Control::Sft) => ("std/lessons/sft.star", SFT_SIGNALS),
        Some(Control::Rejection) => ("std/lessons/rejection.star", SFT_SIGNALS),
        Some(Control::Random) | None => ("std/lessons/rl.star", RL_SIGNALS),
    };
    let row_len = args.row_len.unwrap_or(parent.seq_len);
    Ok(LessonRequest {
        parent: parent.id.clone(),
        objective: objective(&args.lesson, shipped)?,
        signals,
        values: args.lesson.turned.settings(),
        num_rows: (args.prompts * args.group) as usize,
        row_len: row_len as usize,
        dropout: false,
        keep_state: false,
        task: LessonTask::Rl(RlTask {
            env: args.env.clone(),
            difficulty: args.lesson.difficulty,
            control,
            num_prompts: args.prompts,
            group_size: args.group,
            max_tokens: args.max_tokens,
            cut_is_wrong: args.cut_is_wrong,
            slips: args.lesson.slips.unwrap_or(0.0),
            updates_per_batch: args.updates,
            eval_problems: args.eval_problems,
            eval_samples: args.eval_samples,
            eval_every: args.eval_every,
            flops: args.flops,
        }),
        request: RunRequest {
            budget: match (control, args.flops) {
                // It draws nothing, so its updates are all that it spends.
                (Some(Control::Sft), Some(flops)) => Budget::Flops(flops),
                (Some(Control::Sft | Control::Rejection | Control::Random) | None, _) => {
                    Budget::Steps(args.steps * args.updates)
                }
            },
            seed: args.lesson.seed,
            init_seed: args.lesson.seed,
            seal: false,
            precision: Precision::F32,
            machine: describe(),
            created_unix_s: unix_s(),
        },
    })
}

fn scores(outcome: &LessonResult) -> String {
    let rows: Vec<(&str, &EnvScore)> =
        [("test before", &outcome.test_before), ("test after", &outcome.test_after)]
            .into_iter()
            .filter_map(|(name, score)| score.as_ref().map(|score| (name, score)))
            .collect();
    table(&rows)
}

/// `pass@k` with intervals, a line each.
fn table(scores: &[(&str, &EnvScore)]) -> String {
    let mut table = Table::new(&[
        ("split", Align::Left),
        ("k", Align::Right),
        ("pass@k %", Align::Right),
        ("95 % interval", Align::Right),
        ("problems", Align::Right),
        ("tokens", Align::Right),
        ("cut off %", Align::Right),
    ]);
    for (name, score) in scores {
        for pass in &score.pass_at {
            table.row(vec![
                (*name).to_string(),
                pass.k.to_string(),
                format!("{:.1}", 100.0 * pass.rate),
                format!("{:.1} to {:.1}", 100.0 * pass.low, 100.0 * pass.high),
                score.problems.to_string(),
                format!("{:.1}", score.mean_tokens),
                format!("{:.1}", 100.0 * score.truncated),
            ]);
        }
    }
    table.text() + "\n"
}
