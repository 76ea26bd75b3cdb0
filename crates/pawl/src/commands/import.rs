//! `pawl import PATH`: a checkpoint from elsewhere becomes a run of the lab.

use crate::args::Import;
use crate::commands::train::{num_threads, unix_s};
use crate::errors::Failure;
use crate::lab::from_train;
use crate::machine::describe;
use crate::output::{Answer, Block, count};
use pawl_record::{Budget, Precision};
use pawl_train::RunRequest;
use serde_json::json;

pub(crate) fn run(args: Import) -> Result<Answer, Failure> {
    let request = RunRequest {
        budget: Budget::Steps(1),
        seed: 0,
        init_seed: 0,
        seal: false,
        precision: Precision::F32,
        machine: describe(),
        created_unix_s: unix_s(),
    };
    let lab = &args.place.lab;
    let seq_len = args.seq_len as usize;
    let manifest =
        pawl_train::import(lab, &args.path, seq_len, num_threads(None), &request).map_err(from_train)?;
    let mut block = Block::default();
    block
        .line("run", &manifest.id)
        .line("from", args.path.display())
        .line("num_params", count(manifest.num_params as f64))
        .line("depth", manifest.depth)
        .line("seq_len", manifest.seq_len)
        .line("next", format!("pawl sample {0} | pawl eval {0} --tasks blimp --data-dir DIR", manifest.id));
    Ok(Answer::new(block.text().to_string(), json!({ "run": manifest })))
}
