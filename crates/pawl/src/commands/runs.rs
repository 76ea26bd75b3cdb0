//! `pawl runs`: every training run of the lab, newest first.

use crate::args::Runs;
use crate::errors::Failure;
use crate::lab::{from_ledger, ledger};
use crate::output::{Align, Answer, Table, count, duration};
use pawl_ledger::{RunFilter, RunSummary};
use serde_json::json;

pub(crate) fn run(args: Runs) -> Result<Answer, Failure> {
    let ledger = ledger(&args.place.lab)?;
    let runs = ledger.runs(&RunFilter::default()).map_err(from_ledger)?;
    let counts = ledger.counts().map_err(from_ledger)?;
    let mut text = match runs.is_empty() {
        true => String::new(),
        false => table(&runs),
    };
    text.push_str(&format!("runs: {}\n", counts.runs));
    Ok(Answer::new(text, json!({ "runs": runs, "counts": counts })))
}

fn table(runs: &[RunSummary]) -> String {
    let mut table = Table::new(&[
        ("run", Align::Left),
        ("recipe", Align::Left),
        ("depth", Align::Right),
        ("params", Align::Right),
        ("seed", Align::Right),
        ("data", Align::Left),
        ("state", Align::Left),
        ("steps", Align::Right),
        ("val_bpb", Align::Right),
        ("tokens/s", Align::Right),
        ("time", Align::Right),
    ]);
    let blank = || "-".to_string();
    for run in runs {
        let steps = run.steps.map_or_else(|| format!("-/{}", run.num_steps), |steps| steps.to_string());
        table.row(vec![
            run.id.clone(),
            run.recipe.clone(),
            run.depth.to_string(),
            count(run.num_params as f64),
            run.seed.to_string(),
            run.data.clone(),
            run.state.word().to_string(),
            steps,
            run.val_bpb.map_or_else(blank, |bpb| format!("{bpb:.4}")),
            run.tokens_per_sec.map_or_else(blank, count),
            run.train_seconds.map_or_else(blank, duration),
        ]);
    }
    table.text()
}
