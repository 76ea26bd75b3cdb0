//! `pawl eval RUN`: the score of a run's last checkpoint on the search split, measured again.

use crate::args::Eval;
use crate::commands::train::load_model;
use crate::errors::Failure;
use crate::lab::{from_eval, from_ledger, ledger};
use crate::output::{Answer, Block, duration};
use crate::prepare::prepare;
use pawl_eval::Evaluator;
use serde_json::json;
use std::time::Instant;

pub(crate) fn run(args: Eval) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let manifest = ledger(lab)?.run(&args.run).map_err(from_ledger)?.manifest;
    let model = load_model(lab, &manifest, args.threads, args.place.json)?;
    let data = prepare(lab, &manifest.data.name, model.recipe().vocab_size(), args.place.json)?;
    let start = Instant::now();
    let mut evaluator = Evaluator::search(&model, &data.shards, &data.tokenizer).map_err(from_eval)?;
    let score = evaluator.score(&model);
    let mut block = Block::default();
    block.line("run", &manifest.id).line("val_bpb", format!("{:.4}", score.all));
    for (domain, bpb) in &score.by_domain {
        block.line(&format!("val_bpb {domain}"), format!("{bpb:.4}"));
    }
    block.line("time", duration(start.elapsed().as_secs_f64()));
    let json = json!({
        "run": manifest.id,
        "val_bpb": score.all,
        "val_bpb_by_domain": score.by_domain,
    });
    Ok(Answer::new(block.text().to_string(), json))
}
