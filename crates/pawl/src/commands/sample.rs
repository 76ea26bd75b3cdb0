//! `pawl sample RUN`: a run's last checkpoint continues a prompt. Text appears as it is drawn.

use crate::args::Sample;
use crate::commands::train::load_model;
use crate::errors::Failure;
use crate::lab::{data_folder, from_data, from_ledger, ledger};
use crate::output::{Answer, narrate};
use pawl_data::Tokenizer;
use pawl_model::{Sampler, SamplerSettings};
use serde_json::json;
use std::io::{self, Write};

pub(crate) fn run(args: Sample) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let manifest = ledger(lab)?.run(&args.run).map_err(from_ledger)?.manifest;
    let model = load_model(lab, &manifest, args.threads, args.place.json)?;
    let folder = data_folder(lab, &manifest.data.name);
    let tokenizer = pawl_data::tokenizer(&folder, model.recipe().vocab_size(), &|_| {}).map_err(from_data)?;
    let settings = SamplerSettings { temperature: args.temperature as f32, top_k: 0, seed: args.seed };
    let mut sampler = Sampler::new(&model, settings)?;
    if let Some(why) = sampler.full_pass()
        && !args.place.json
    {
        narrate(&format!("every token costs a pass over the whole sequence: {why}"));
    }
    let mut tokens = vec![tokenizer.bos()];
    tokens.extend(tokenizer.encode(&args.prompt));
    let num_prompt = tokens.len();
    let mut writer = (!args.place.json).then(Writer::default);
    if let Some(writer) = &mut writer {
        writer.write(args.prompt.as_bytes())?;
    }
    for _ in 0..args.tokens {
        let token = sampler.next(&model, &tokens);
        // BOS begins the next document: this one is at its end.
        if token == tokenizer.bos() {
            break;
        }
        tokens.push(token);
        if let Some(writer) = &mut writer
            && !writer.write(&tokenizer.decode_bytes(&[token]))?
        {
            break;
        }
    }
    if let Some(writer) = &mut writer {
        writer.write(b"\n")?;
    }
    Ok(answer(&args, &manifest.id, &tokenizer, &tokens[num_prompt..]))
}

fn answer(args: &Sample, run: &str, tokenizer: &Tokenizer, completion: &[u32]) -> Answer {
    let json = json!({
        "run": run,
        "prompt": args.prompt,
        "completion": tokenizer.decode(completion),
        "num_tokens": completion.len(),
        "temperature": args.temperature,
        "seed": args.seed,
    });
    Answer::new(String::new(), json)
}

/// Writes whole characters to stdout as soon as they are complete.
#[derive(Default)]
pub(crate) struct Writer {
    pending: Vec<u8>,
}

impl Writer {
    /// Whether anybody still reads.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        self.pending.extend_from_slice(bytes);
        let ready = complete(&self.pending);
        let text = String::from_utf8_lossy(&self.pending[..ready]).into_owned();
        self.pending.drain(..ready);
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(true),
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(why) => Err(Failure::new("the text cannot be written").caused_by(&why)),
        }
    }
}

/// Bytes up to the last character that may still be incomplete.
fn complete(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        // Without a length the error is an end too early; with one the bytes are no text and are shown as such.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_waits_until_it_is_whole() {
        let snowman = "a\u{2603}".as_bytes();
        assert_eq!(complete(&snowman[..2]), 1);
        assert_eq!(complete(&snowman[..3]), 1);
        assert_eq!(complete(snowman), 4);
        assert_eq!(complete(&[b'a', 0xff, b'b']), 3);
    }
}
