//! `pawl chat RUN`: a line in, an answer out, token for token, until the input ends. Ctrl-C ends an answer, or at the
//! prompt the talk.

use crate::args::teach::Chat;
use crate::commands::sample::write;
use crate::commands::train::load_model;
use crate::errors::Failure;
use crate::lab::{from_data, from_ledger, ledger};
use crate::output::{Answer, narrate};
use pawl_data::{ChatFormat, TextStream, Tokenizer};
use pawl_model::{Model, Sampler, SamplerSettings};
use pawl_record::{Message, Role};
use pawl_train::{IMPORTED, RunDir, run_tokenizer};
use serde_json::json;
use signal_hook::consts::SIGINT;
use signal_hook::flag;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a process ended by SIGINT, as shells count.
const INTERRUPTED: i32 = 130;
/// Positions kept free for an answer where there is a choice: older messages give way.
const ROOM: usize = 32;

pub(crate) fn run(args: Chat) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let quiet = args.place.json;
    let manifest = ledger(lab)?.run(&args.run).map_err(from_ledger)?.manifest;
    let model = load_model(lab, &manifest, args.threads, quiet)?;
    let vocab_size = model.recipe().vocab_size();
    let tokenizer = run_tokenizer(lab, &manifest, vocab_size, &|_| {}).map_err(from_data)?;
    let format = ChatFormat::of(&tokenizer)?;
    let taught = manifest.data.name == IMPORTED || RunDir::lesson(lab, &manifest.id)?.is_some();
    if format == ChatFormat::Own && !taught {
        narrate(&format!("run {0} was never taught to talk: pawl sft {0} --data builtin", manifest.id));
    }
    let settings = SamplerSettings {
        temperature: args.temperature as f32,
        seed: args.seed,
        ..SamplerSettings::default()
    };
    let mut talk = Talk {
        sampler: Sampler::new(&model, settings)?,
        model,
        ends: format.ends(&tokenizer),
        format,
        tokenizer,
        max_tokens: args.tokens as usize,
        system: args.system.map(|text| Message::new(Role::System, text)),
        messages: Vec::new(),
        stop: Arc::new(AtomicBool::new(false)),
    };
    talk.messages.extend(talk.system.clone());
    let waiting = watch(&talk.stop)?;
    let live = io::stdin().is_terminal() && io::stderr().is_terminal() && !quiet;
    if live {
        narrate("/reset forgets, /quit or the end of input ends, Ctrl-C ends an answer");
    }
    for at in 1u64.. {
        let Some(line) = next_line(at, live, &waiting)? else { break };
        match line.trim() {
            "" => {}
            "/quit" => break,
            "/reset" => {
                talk.messages.clear();
                talk.messages.extend(talk.system.clone());
            }
            text => {
                if !talk.answer(text, quiet)? {
                    break;
                }
            }
        }
    }
    Ok(Answer::new(String::new(), json!({ "run": manifest.id, "messages": talk.messages })))
}

/// Ctrl-C sets `stop`; while the flag that is returned is true, it ends the process.
fn watch(stop: &Arc<AtomicBool>) -> Result<Arc<AtomicBool>, Failure> {
    let waiting = Arc::new(AtomicBool::new(false));
    flag::register_conditional_shutdown(SIGINT, INTERRUPTED, waiting.clone())
        .and_then(|_| flag::register(SIGINT, stop.clone()))
        .map_err(|why| Failure::new("Ctrl-C cannot be watched for").caused_by(&why))?;
    Ok(waiting)
}

/// A line of stdin; `None` at its end.
fn next_line(at: u64, live: bool, waiting: &AtomicBool) -> Result<Option<String>, Failure> {
    if live {
        // A prompt that cannot be shown stops nobody.
        let _ = io::stderr().write_all(b"> ").and_then(|()| io::stderr().flush());
    }
    let mut bytes = Vec::new();
    waiting.store(true, Ordering::SeqCst);
    let read = io::stdin().lock().read_until(b'\n', &mut bytes);
    waiting.store(false, Ordering::SeqCst);
    let read = read.map_err(|why| Failure::new("stdin cannot be read").caused_by(&why))?;
    if read == 0 {
        return Ok(None);
    }
    match String::from_utf8(bytes) {
        Ok(line) => Ok(Some(line)),
        Err(_) => Err(Failure::misuse(format!("line {at} of stdin is not UTF-8 text"))),
    }
}

/// A conversation under way.
struct Talk {
    sampler: Sampler,
    model: Model,
    tokenizer: Tokenizer,
    format: ChatFormat,
    /// Tokens that end an answer.
    ends: Vec<u32>,
    max_tokens: usize,
    system: Option<Message>,
    messages: Vec<Message>,
    stop: Arc<AtomicBool>,
}

impl Talk {
    /// Says something and writes the answer as it comes. Whether anybody still reads.
    fn answer(&mut self, text: &str, quiet: bool) -> Result<bool, Failure> {
        self.messages.push(Message::new(Role::User, text));
        let Some(mut tokens) = self.context()? else { return Ok(true) };
        let begin = tokens.len();
        let room = self.model.recipe().seq_len().saturating_sub(begin).min(self.max_tokens);
        let mut stream = TextStream::new(Vec::new());
        let mut heard = true;
        self.stop.store(false, Ordering::SeqCst);
        for _ in 0..room {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            let token = self.sampler.next(&self.model, &tokens);
            if self.ends.contains(&token) {
                break;
            }
            tokens.push(token);
            let text = stream.push(&self.tokenizer.decode_bytes(&[token]));
            if !quiet && !write(&text)? {
                heard = false;
                break;
            }
        }
        if !quiet && heard {
            heard = write(&stream.finish())? && write("\n")?;
        }
        self.messages.push(Message::new(Role::Assistant, self.tokenizer.decode(&tokens[begin..])));
        Ok(heard)
    }

    /// The conversation as tokens, without its oldest exchanges where it has grown too long.
    /// A message that is too long by itself is taken back.
    fn context(&mut self) -> Result<Option<Vec<u32>>, Failure> {
        let seq_len = self.model.recipe().seq_len();
        let first = usize::from(self.system.is_some());
        loop {
            let tokens = self.format.ask(&self.tokenizer, &self.messages)?;
            if tokens.len() + ROOM.min(seq_len / 4) <= seq_len {
                return Ok(Some(tokens));
            }
            if self.messages.len() <= first + 1 {
                let said = tokens.len();
                narrate(&format!("not said: it takes {said} tokens, the model has {seq_len} positions"));
                self.messages.pop();
                return Ok(None);
            }
            self.messages.drain(first..first + 2);
            narrate(
                "the oldest exchange is forgotten: the conversation is longer than the model's positions",
            );
        }
    }
}
