//! `pawl sample RUN`: a run's last checkpoint continues a prompt. Text appears as it is drawn.

use crate::args::Sample;
use crate::commands::train::load_model;
use crate::errors::Failure;
use crate::lab::{from_data, from_ledger, ledger};
use crate::output::{Answer, narrate};
use pawl_data::{TextStream, Tokenizer};
use pawl_model::{Sampler, SamplerSettings};
use pawl_train::run_tokenizer;
use serde_json::json;
use std::io::{self, Write};

pub(crate) fn run(args: Sample) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let manifest = ledger(lab)?.run(&args.run).map_err(from_ledger)?.manifest;
    let model = load_model(lab, &manifest, args.threads, args.place.json)?;
    let vocab_size = model.recipe().vocab_size();
    let tokenizer = run_tokenizer(lab, &manifest, vocab_size, &|_| {}).map_err(from_data)?;
    let settings = SamplerSettings {
        temperature: args.temperature as f32,
        top_k: args.top_k,
        top_p: args.top_p as f32,
        min_p: args.min_p as f32,
        seed: args.seed,
    };
    let mut sampler = Sampler::new(&model, settings)?;
    if let Some(why) = sampler.full_pass()
        && !args.place.json
    {
        narrate(&format!("every token costs a pass over the whole sequence: {why}"));
    }
    let mut tokens = tokenizer.prompt(&args.prompt);
    let num_prompt = tokens.len();
    if !args.place.json {
        write(&args.prompt)?;
    }
    let (mut stream, mut completion) = (TextStream::new(args.stop.clone()), String::new());
    for _ in 0..args.tokens {
        let token = sampler.next(&model, &tokens);
        // A token that ends texts: this one is at its end.
        if tokenizer.roles().ends.contains(&token) {
            break;
        }
        tokens.push(token);
        let text = stream.push(&tokenizer.decode_bytes(&[token]));
        completion.push_str(&text);
        if (!args.place.json && !write(&text)?) || stream.has_stopped() {
            break;
        }
    }
    let rest = stream.finish();
    completion.push_str(&rest);
    if !args.place.json {
        write(&rest)?;
        write("\n")?;
    }
    Ok(answer(&args, &manifest.id, &tokenizer, &tokens[num_prompt..], &completion))
}

fn answer(args: &Sample, run: &str, tokenizer: &Tokenizer, tokens: &[u32], completion: &str) -> Answer {
    let json = json!({
        "run": run,
        "prompt": args.prompt,
        "prompt_tokens": tokenizer.prompt(&args.prompt),
        "completion": completion,
        "tokens": tokens,
        "num_tokens": tokens.len(),
        "temperature": args.temperature,
        "seed": args.seed,
    });
    Answer::new(String::new(), json)
}

/// Writes to stdout at once; whether anybody still reads.
pub(crate) fn write(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(why) => Err(Failure::new("the text cannot be written").caused_by(&why)),
    }
}
