//! `pawl eval RUN`: the score of a run's last checkpoint on the search split, measured again.

use crate::args::Eval;
use crate::errors::Failure;
use crate::lab::{from_eval, from_ledger, from_train, ledger};
use crate::machine::cores;
use crate::output::{Answer, Block, duration};
use crate::prepare::prepare;
use pawl_eval::Evaluator;
use serde_json::json;
use std::time::Instant;

pub(crate) fn run(args: Eval) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let manifest = ledger(lab)?.run(&args.run).map_err(from_ledger)?.manifest;
    let threads = args.threads.map_or_else(cores, |threads| threads as usize);
    let (model, checkpoint) = pawl_train::load_model(lab, &manifest.id, threads).map_err(from_train)?;
    let data = prepare(lab, &manifest.data.name, model.recipe().vocab_size(), args.place.json)?;
    let start = Instant::now();
    let mut evaluator = Evaluator::search(&model, &data.shards, &data.tokenizer).map_err(from_eval)?;
    let score = evaluator.score(&model);
    let mut block = Block::default();
    block
        .line("run", &manifest.id)
        .line("step", checkpoint.step)
        .line("val_bpb", format!("{:.4}", score.all));
    for (domain, bpb) in &score.by_domain {
        block.line(&format!("val_bpb {domain}"), format!("{bpb:.4}"));
    }
    block.line("time", duration(start.elapsed().as_secs_f64()));
    let json = json!({
        "run": manifest.id,
        "step": checkpoint.step,
        "val_bpb": score.all,
        "val_bpb_by_domain": score.by_domain,
    });
    Ok(Answer::new(block.text().to_string(), json))
}
