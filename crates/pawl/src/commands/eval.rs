//! `pawl eval RUN`: the score of a run's last checkpoint on the search split, measured again, or on published tasks.

mod written;

use crate::args::Eval;
use crate::commands::train::load_model;
use crate::errors::Failure;
use crate::lab::{data_folder, from_data, from_eval, from_ledger, ledger};
use crate::output::{Align, Answer, Block, Status, Table, duration};
use crate::prepare::prepare;
use pawl_eval::{CoreScore, Evaluator, TaskError, TaskOptions, core_score, run_task, tasks_named};
use pawl_model::Model;
use pawl_record::{CheckpointManifest, RunManifest, TaskScore, read_json};
use pawl_train::{IMPORTED, RunDir, run_tokenizer};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

pub(crate) fn run(args: Eval) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let manifest = ledger(lab)?.run(&args.run).map_err(from_ledger)?.manifest;
    let model = load_model(lab, &manifest, args.threads, args.place.json)?;
    match &args.data_dir {
        Some(folder) => on_tasks(&args, &manifest, &model, folder),
        None => on_text(&args, &manifest, &model),
    }
}

fn on_text(args: &Eval, manifest: &RunManifest, model: &Model) -> Result<Answer, Failure> {
    let (lab, vocab_size) = (&args.place.lab, model.recipe().vocab_size());
    let name = match &args.data {
        Some(name) => name,
        None if manifest.data.name == IMPORTED => {
            return Err(Failure::misuse(format!("run {} was not trained on a data set", manifest.id))
                .hint(format!("pawl eval {} --data NAME", manifest.id)));
        }
        None => &manifest.data.name,
    };
    let start = Instant::now();
    let score = if *name == manifest.data.name {
        let data = prepare(lab, name, vocab_size, args.place.json)?;
        Evaluator::search(model, &data.shards, &data.tokenizer).map_err(from_eval)?.score(model)
    } else {
        let folder = data_folder(lab, name);
        if *name == pawl_data::CARRIED {
            pawl_data::ensure_builtin(&folder, &|_| {}).map_err(from_data)?;
        }
        let tokenizer = run_tokenizer(lab, manifest, vocab_size, &|_| {}).map_err(from_data)?;
        let shards = pawl_data::tokens(&folder, &tokenizer, &|_| {}).map_err(from_data)?;
        Evaluator::search(model, &shards, &tokenizer).map_err(from_eval)?.score(model)
    };
    let mut block = Block::default();
    block.line("run", &manifest.id).line("data", name).line("val_bpb", format!("{:.4}", score.all));
    for (domain, bpb) in &score.by_domain {
        block.line(&format!("val_bpb {domain}"), format!("{bpb:.4}"));
    }
    block.line("time", duration(start.elapsed().as_secs_f64()));
    let json = json!({
        "run": manifest.id,
        "data": name,
        "val_bpb": score.all,
        "val_bpb_by_domain": score.by_domain,
    });
    Ok(Answer::new(block.text().to_string(), json))
}

fn on_tasks(args: &Eval, manifest: &RunManifest, model: &Model, folder: &Path) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let (written, named): (Vec<String>, Vec<String>) =
        args.tasks.iter().cloned().partition(|name| written::is_written(name));
    let tasks = tasks_named(&named).map_err(from_task)?;
    let tokenizer = run_tokenizer(lab, manifest, model.recipe().vocab_size(), &|_| {}).map_err(from_data)?;
    let run_folder = RunDir::path(lab, &manifest.id);
    let checkpoint: CheckpointManifest = read_json(&run_folder.join("last/checkpoint.json"))?;
    let status = Status::new(args.place.json);
    let mut scores = Vec::new();
    for task in tasks {
        let start = Instant::now();
        let progress = |done: usize, all: usize| {
            let share = done as f64 / all.max(1) as f64;
            let left = start.elapsed().as_secs_f64() * (1.0 - share) / share.max(1e-9);
            status.show(format!(" {}  {done}/{all} sequences  {} left", task.name, duration(left)));
        };
        let options = TaskOptions {
            data_folder: folder,
            limit: args.limit.map(|limit| limit as usize),
            cache: Some(&run_folder.join("evals")),
            model_hash: &checkpoint.hash,
            progress: &progress,
        };
        scores.push(run_task(task, model, &tokenizer, &options).map_err(from_task)?);
    }
    let written =
        written::run(args, &written, model, &tokenizer, (folder, &run_folder), &checkpoint.hash, &status)?;
    status.clear();
    let core = core_score(&scores);
    let mut text = if scores.is_empty() { String::new() } else { table(&scores) };
    text.push_str(&written::table(&written));
    if let Some(core) = &core {
        text.push_str(&core_line(core));
    }
    let json: Vec<Value> = scores.iter().map(score_json).collect();
    let core = core.map(|core| {
        json!({ "mean": core.mean, "standard_error": core.error, "tasks": core.num_tasks, "of": core.num_core })
    });
    Ok(Answer::new(text, json!({ "run": manifest.id, "tasks": json, "core": core, "written": written })))
}

fn core_line(core: &CoreScore) -> String {
    let CoreScore { mean, error, num_tasks, num_core } = core;
    format!("core: {mean:.4} +- {:.4}, mean of {num_tasks} of {num_core} tasks\n", 1.96 * error)
}

fn table(scores: &[TaskScore]) -> String {
    let mut table = Table::new(&[
        ("task", Align::Left),
        ("items", Align::Right),
        ("shots", Align::Right),
        ("accuracy %", Align::Right),
        ("+- %", Align::Right),
        ("chance %", Align::Right),
        ("centered", Align::Right),
        ("cut", Align::Right),
    ]);
    for score in scores {
        table.row(vec![
            score.task.clone(),
            score.all.items.to_string(),
            score.shots.to_string(),
            format!("{:.2}", 100.0 * score.all.accuracy()),
            format!("{:.2}", 196.0 * score.all.standard_error()),
            format!("{:.1}", 100.0 * score.chance),
            format!("{:.4}", score.centered()),
            score.cut.to_string(),
        ]);
    }
    table.text()
}

fn score_json(score: &TaskScore) -> Value {
    let share = |share: &pawl_record::Share| {
        json!({ "items": share.items, "right": share.right, "accuracy": share.accuracy(),
                "standard_error": share.standard_error() })
    };
    let parts: serde_json::Map<String, Value> =
        score.parts.iter().map(|(part, of)| (part.clone(), share(of))).collect();
    json!({
        "task": score.task,
        "score": share(&score.all),
        "chance": score.chance,
        "centered": score.centered(),
        "shots": score.shots,
        "cut": score.cut,
        "parts": parts,
    })
}

pub(crate) fn from_task(error: TaskError) -> Failure {
    let hint = match &error {
        TaskError::Missing { .. } => {
            Some("name the folder that holds core/, blimp/, hellaswag/, gsm8k/ with --data-dir")
        }
        TaskError::Unknown { .. }
        | TaskError::Io { .. }
        | TaskError::Malformed { .. }
        | TaskError::Model(_)
        | TaskError::Decode(_)
        | TaskError::File(_) => None,
        #[cfg(target_os = "linux")]
        TaskError::Sandbox(_) => None,
    };
    let failure = if matches!(error, TaskError::Unknown { .. }) {
        Failure::misuse(format!("{error}, {}", written::names()))
    } else {
        Failure::from(error)
    };
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
