//! `pawl serve RUN`: chat and completions over HTTP until it is interrupted.

use crate::args::Serve;
use crate::commands::train::load_model;
use crate::errors::Failure;
use crate::interrupt::interrupt;
use crate::lab::{from_data, from_ledger, ledger};
use crate::output::{Answer, Block, narrate};
use pawl_serve::{Bounds, ServeError, ServeOptions, Served, serve};
use pawl_train::run_tokenizer;
use serde_json::json;
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

pub(crate) fn run(args: Serve) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let manifest = ledger(lab)?.run(&args.run).map_err(from_ledger)?.manifest;
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let stop = interrupt()?;
    let model = load_model(lab, &manifest, args.threads, args.place.json)?;
    let tokenizer = run_tokenizer(lab, &manifest, model.recipe().vocab_size(), &|_| {}).map_err(from_data)?;
    let options = ServeOptions {
        address: SocketAddr::new(args.host, args.port),
        token,
        batch: args.batch as usize,
        max_waiting: args.max_waiting as usize,
        max_request_bytes: 4 << 20,
        timeout: Duration::from_secs(args.timeout),
        bounds: Bounds::default(),
        seed: args.seed,
    };
    let name = manifest.id.clone();
    let served = Served { name, tokenizer, model, created_unix_s: manifest.created_unix_s };
    let address = Cell::new(options.address);
    let ready = |at: SocketAddr| {
        address.set(at);
        narrate(&format!("run {} at http://{at}/v1; Ctrl-C ends it", manifest.id));
    };
    serve(served, &options, &stop, ready).map_err(|error| from_serve(error, "--port"))?;
    let mut block = Block::default();
    block.line("run", &manifest.id).line("served", address.get());
    Ok(Answer::new(
        block.text().to_string(),
        json!({ "run": manifest.id, "address": address.get().to_string() }),
    ))
}

pub(crate) fn read_token(path: &Path) -> Result<String, Failure> {
    let cannot = || Failure::new(format!("the token in {} cannot be used", path.display()));
    let text = std::fs::read_to_string(path).map_err(|why| cannot().caused_by(&why))?;
    let token = text.trim();
    if token.len() < 16 {
        return Err(cannot().because("it is shorter than 16 characters"));
    }
    Ok(token.to_string())
}

/// The error of a server with what to do about it; `flag` is how it is told where to listen.
pub(crate) fn from_serve(error: ServeError, flag: &str) -> Failure {
    match error {
        ServeError::NoToken { .. } => {
            Failure::misuse(error.to_string()).hint("write a token into a file and name it with --token-file")
        }
        ServeError::Listen { .. } => {
            Failure::from(error).hint(format!("choose another port with {flag}; 0 takes a free one"))
        }
        ServeError::Decode(_) | ServeError::Io(_) | ServeError::Protocol(_) => Failure::from(error),
    }
}
