//! Tasks whose answers the model writes, on the command line.

use super::from_task;
use crate::args::Eval;
use crate::commands::rl::sandbox;
use crate::errors::Failure;
use crate::output::{Align, Status, Table};
use pawl_data::Tokenizer;
use pawl_eval::{WRITTEN, WrittenOptions, run_written};
use pawl_model::Model;
use pawl_record::WrittenScore;
use std::path::Path;

/// Temperature of several answers, as in the papers.
const TEMPERATURE: f64 = 0.8;

pub(super) fn is_written(name: &str) -> bool {
    WRITTEN.iter().any(|task| task.name == name)
}

pub(super) fn names() -> String {
    WRITTEN.iter().map(|task| task.name).collect::<Vec<_>>().join(", ")
}

/// The scores of tasks of these names; `folders` are the data's and the run's.
pub(super) fn run(
    args: &Eval,
    names: &[String],
    model: &Model,
    tokenizer: &Tokenizer,
    folders: (&Path, &Path),
    model_hash: &str,
    status: &Status,
) -> Result<Vec<WrittenScore>, Failure> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let sandbox = sandbox(args.allow_partial_sandbox)?;
    let several = if args.samples > 1 { TEMPERATURE } else { 0.0 };
    let cache = folders.1.join("evals");
    let mut scores = Vec::new();
    for task in WRITTEN.iter().filter(|task| names.iter().any(|name| name == task.name)) {
        let options = WrittenOptions {
            data_folder: folders.0,
            limit: args.limit.map(|limit| limit as usize),
            samples: args.samples,
            temperature: args.temperature.unwrap_or(several) as f32,
            cache: Some(&cache),
            model_hash,
            sandbox: &sandbox,
            progress: &|done, all| status.show(format!(" {}  {done}/{all} answers", task.name)),
        };
        scores.push(run_written(task, model, tokenizer, &options).map_err(from_task)?);
    }
    Ok(scores)
}

/// `pass@k` with its standard error, a line each; nothing where nothing was written.
pub(super) fn table(scores: &[WrittenScore]) -> String {
    if scores.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("task", Align::Left),
        ("problems", Align::Right),
        ("answers", Align::Right),
        ("shots", Align::Right),
        ("k", Align::Right),
        ("pass@k %", Align::Right),
        ("+- %", Align::Right),
        ("cut", Align::Right),
        ("tests beside", Align::Right),
    ]);
    for score in scores {
        for pass in &score.pass_at {
            table.row(vec![
                score.task.clone(),
                score.problems.to_string(),
                score.samples.to_string(),
                score.shots.to_string(),
                pass.k.to_string(),
                format!("{:.2}", 100.0 * pass.rate),
                format!("{:.2}", 196.0 * pass.standard_error),
                score.cut.to_string(),
                score.beside.to_string(),
            ]);
        }
    }
    table.text()
}
