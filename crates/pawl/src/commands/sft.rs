//! `pawl sft RUN --data DATA`: a trained model is taught to answer as in conversations. The same command goes on with
//! what was interrupted.

use crate::args::teach::{Lesson, Sft};
use crate::commands::show::run_block;
use crate::commands::train::{CHECKPOINT_EVERY, Progress, num_threads, unix_s};
use crate::errors::Failure;
use crate::interrupt::interrupt;
use crate::lab::{from_data, from_env, from_ledger, from_train, ledger};
use crate::machine::{describe, peak_flops};
use crate::output::{Answer, narrate};
use pawl_data::{Conversations, Tokenizer, read_conversations};
use pawl_eval::env::Environment;
use pawl_eval::{builtin_instructions, demonstrations};
use pawl_ledger::RunRecord;
use pawl_recipe::{Source, shipped};
use pawl_record::{Budget, LessonResult, LessonTask, Message, RunManifest, read_json};
use pawl_train::{LessonRequest, RunDir, RunRequest, SFT_SIGNALS, TrainOptions, lesson, sft};
use serde_json::json;
use std::path::Path;

/// Times that held-out conversations are scored.
const NUM_EVALS: u64 = 10;

pub(crate) fn run(args: Sft) -> Result<Answer, Failure> {
    let lab = &args.lesson.place.lab;
    let stop = interrupt()?;
    let parent = ledger(lab)?.run(&args.lesson.run).map_err(from_ledger)?.manifest;
    let tokenizer = tokenizer_of(lab, &parent)?;
    let row_len = args.batch.row_len.unwrap_or(parent.seq_len);
    let num_rows = args.batch.rows.unwrap_or((parent.tokens_per_step / row_len).max(1));
    let (name, conversations) = conversations(&args)?;
    let data = Conversations::new(&tokenizer, &conversations, &name, row_len as usize, args.validation)
        .map_err(from_chat)?;
    let (taught, held_out, too_long) = data.counts();
    if !args.lesson.place.json {
        narrate(&format!("{name}: {taught} conversations to teach, {held_out} held out"));
        if too_long > 0 {
            narrate(&format!("left out: {too_long}, whose answers begin after {row_len} tokens"));
        }
    }
    let asked = LessonRequest {
        parent: parent.id,
        objective: objective(&args.lesson, "std/lessons/sft.star")?,
        signals: SFT_SIGNALS,
        values: args.lesson.turned.settings(),
        num_rows: num_rows as usize,
        row_len: row_len as usize,
        dropout: true,
        keep_state: args.keep_optimizer_state,
        task: LessonTask::Sft {
            data: name,
            data_hash: data.hash().to_string(),
            validation_share: args.validation,
        },
        request: RunRequest {
            budget: Budget::Steps(args.steps),
            seed: args.lesson.seed,
            init_seed: args.lesson.seed,
            seal: false,
            precision: parent.precision,
            machine: describe(),
            created_unix_s: unix_s(),
        },
    };
    let ready = lesson(lab, asked).map_err(from_train)?;
    let (manifest, lesson) = (ready.manifest.clone(), ready.lesson.clone());
    let threads = num_threads(args.lesson.threads);
    let progress = Progress::new(args.lesson.place.json, &manifest);
    let peak = std::cell::OnceCell::new();
    let options = TrainOptions {
        num_threads: threads,
        checkpoint_every: CHECKPOINT_EVERY,
        eval_every_steps: Some((args.steps / NUM_EVALS).max(1)),
        keep_checkpoints: true,
        peak_flops: &|| *peak.get_or_init(|| peak_flops(threads)),
        stop: &stop,
        report: &|at| progress.show(at),
    };
    let result = sft(lab, ready, &data, &tokenizer, &options);
    drop(progress);
    let result = result.map_err(from_train)?;
    let manifest = RunDir::manifest(lab, &manifest.id)?;
    let outcome: Option<LessonResult> = match result.checkpoint_hash {
        Some(_) => Some(read_json(&RunDir::path(lab, &manifest.id).join("lesson_result.json"))?),
        None => None,
    };
    let run = RunRecord { manifest, result: Some(result) };
    let mut text = run_block(&run);
    text.push_str(&format!("parent: {}\n", lesson.parent));
    if let Some(loss) = outcome.as_ref().and_then(|outcome| outcome.held_out_loss) {
        text.push_str(&format!("held_out_loss: {loss:.4}\n"));
    }
    text.push_str(&format!("next: pawl chat {}\n", run.manifest.id));
    let json = json!({ "run": run.manifest, "result": run.result, "lesson": lesson, "outcome": outcome });
    Ok(Answer::new(text, json))
}

/// The tokenizer of a run.
pub(crate) fn tokenizer_of(lab: &Path, manifest: &RunManifest) -> Result<Tokenizer, Failure> {
    let recipe = pawl_train::recipe_of(lab, &manifest.id).map_err(from_train)?;
    pawl_train::run_tokenizer(lab, manifest, recipe.vocab_size(), &|_| {}).map_err(from_data)
}

/// The file of an objective: the user's, or the shipped one.
pub(crate) fn objective(lesson: &Lesson, name: &str) -> Result<Source, Failure> {
    match &lesson.objective {
        Some(file) => {
            let found = crate::recipes::find(file)?;
            Ok(Source { name: found.name, text: found.text })
        }
        None => {
            let text = shipped(name).expect("the binary carries its objectives");
            Ok(Source { name: name.to_string(), text: text.to_string() })
        }
    }
}

/// What `--data` names, and what to call it.
fn conversations(args: &Sft) -> Result<(String, Vec<Vec<Message>>), Failure> {
    let count = args.count as usize;
    if args.data == "builtin" {
        let all = builtin_instructions(args.lesson.seed, count).map_err(from_env)?;
        return Ok((format!("builtin count={count}"), all));
    }
    if let Some(env) = args.data.strip_prefix("env:") {
        let mut env = Environment::open(env).map_err(from_env)?;
        let Lesson { seed, difficulty, slips, .. } = args.lesson;
        let all =
            demonstrations(&mut env, seed, count, difficulty, slips.unwrap_or(0.0)).map_err(from_env)?;
        let slips = slips.map_or_else(String::new, |slips| format!(" slips={slips}"));
        return Ok((format!("{} difficulty={difficulty} count={count}{slips}", args.data), all));
    }
    let path = Path::new(&args.data);
    let all = read_conversations(path).map_err(from_chat)?;
    let name = path.file_name().map_or_else(|| args.data.clone(), |name| name.to_string_lossy().into_owned());
    Ok((name, all))
}

fn from_chat(error: pawl_data::ChatError) -> Failure {
    Failure::from(error).hint(
        "a line is {\"messages\": [{\"role\": \"user\", \"content\": \"..\"}, {\"role\": \"assistant\", \"content\": \"..\"}]}",
    )
}
