//! Language models as researchers. A proposal is a conversation with tools, led by the same loop for every provider:
//!
//! - [`message`]: what is said, as no provider writes it; `anthropic` and `chat` are how two protocols do.
//! - `conversation`: from the state of the campaign to a proposal.
//! - `send`, `http`: a request until it is answered, or it is enough.
//! - [`spend`], [`record`], `secret`: what it costs, what was said, what nobody may see.
//!
//! Memory is the ledger: every proposal is a conversation of its own.

mod anthropic;
mod chat;
mod conversation;
mod http;
pub mod message;
pub mod record;
mod secret;
mod send;
pub mod spend;
mod wire;

pub use anthropic::Thinking;
pub use http::{Patience, check_url, is_loopback};
pub use secret::Secret;

use crate::campaign::CampaignError;
use crate::prompt;
use crate::researcher::{Answer, Context};
use crate::store::Store;
use chat::{Calling, Quirks};
use conversation::{Bounds, Ended, Made};
use message::Reply;
use pawl_record::{Author, FileError};
use record::{Entry, Recorder};
use send::{Failure, Line, Totals};
use spend::{Caps, Price, Prices, Purse};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// The protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The Messages API.
    Messages,
    /// Chat completions.
    Chat,
}

/// How long and how often a model is asked.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most tokens of an answer, thought included.
    pub max_tokens: u64,
    /// Answers in a conversation.
    pub turns: usize,
    /// Proposals that are sent back in a conversation.
    pub repairs: u64,
    /// Times a request is sent before it is given up.
    pub attempts: u64,
    /// Conversations that may lead nowhere before the researcher pauses.
    pub conversations: u64,
    /// Seconds before a request is sent again for the first time; they double.
    pub backoff_s: f64,
    /// Seconds of any wait.
    pub longest_wait_s: f64,
    /// Of a request.
    pub patience: Patience,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_tokens: 16_000,
            turns: 30,
            repairs: 5,
            attempts: 6,
            conversations: 2,
            backoff_s: 1.0,
            longest_wait_s: 120.0,
            patience: Patience { idle: Duration::from_secs(300), total: Duration::from_secs(1200) },
        }
    }
}

/// A language model that is asked for proposals.
#[derive(Debug)]
pub struct Model {
    name: String,
    service: Service,
    model: String,
    base_url: String,
    key: Option<Secret>,
    price: Price,
    prices: Prices,
    caps: Caps,
    limits: Limits,
    quirks: Mutex<Manner>,
}

/// How requests have to be written for a service, as learnt in this process.
#[derive(Clone, Copy, Debug)]
struct Manner {
    thinking: Thinking,
    chat: Quirks,
}

/// What a [`Model`] is made of.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The name in `--researcher` and in records.
    pub name: String,
    /// Its protocol.
    pub service: Service,
    /// The model.
    pub model: String,
    /// Where it is: without `/v1/messages` for the Messages API, with `/v1` for chat completions.
    pub base_url: String,
    /// The key, where one is needed.
    pub key: Option<Secret>,
    /// What models cost.
    pub prices: Prices,
    /// What may be spent.
    pub caps: Caps,
    /// How long and how often.
    pub limits: Limits,
}

impl Model {
    /// A model that may be asked: its address is safe for a key, and its price is known where it counts.
    pub fn new(asked: Asked) -> Result<Model, String> {
        let Asked { name, service, model, base_url, key, prices, caps, limits } = asked;
        check_url(&base_url)?;
        let price = match prices.of(&model) {
            Some(price) => price.clone(),
            None if is_loopback(&base_url) || caps.usd.is_none() => Price::free(),
            None => return Err(format!("the price of {model} is not known, so its cost cannot be capped")),
        };
        // A later model of the same family thinks like the latest that is known.
        let thinking = match service {
            Service::Messages if prices.of(&model).is_none() => Thinking::Adaptive,
            Service::Messages | Service::Chat => price.thinking,
        };
        let quirks = Mutex::new(Manner {
            thinking,
            chat: Quirks { calling: Calling::Tools, new_limit: false, divisor: 1 },
        });
        Ok(Model { name, service, model, base_url, key, price, prices, caps, limits, quirks })
    }

    /// The name in `--researcher` and in records.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A proposal, from as many conversations as it takes and may.
    pub(crate) fn propose(&self, context: &Context<'_>) -> Answer {
        let mut why = String::new();
        for _ in 0..self.limits.conversations {
            (context.say)(&format!("{} is asked for #{}", self.name, context.number));
            match self.converse(context) {
                Ok(Ok(answer)) => return answer,
                Ok(Err(nowhere)) => {
                    (context.say)(&format!("{}: {nowhere}", self.name));
                    why = nowhere;
                }
                Err(error) => return Answer::Paused(error.to_string()),
            }
        }
        Answer::Paused(why)
    }

    /// One conversation: an answer, or how it led nowhere.
    fn converse(&self, context: &Context<'_>) -> Result<Result<Answer, String>, CampaignError> {
        let store = Store::new(context.lab);
        let recorder = Recorder::new(&store)?;
        let system = prompt::system();
        recorder.write(&began(&self.name, &self.model, context, &system))?;
        let mut line = Line::new(self, context, Purse::open(&store, self.caps)?, &recorder);
        let bounds = Bounds {
            max_tokens: self.limits.max_tokens,
            turns: self.limits.turns,
            repairs: self.limits.repairs,
        };
        let held =
            conversation::hold(context, &system, prompt::round(context), bounds, &mut |ask| line.ask(ask));
        let totals = line.totals;
        finish(&self.name, &self.model, held, &totals, &recorder)
    }
}

fn began(researcher: &str, model: &str, context: &Context<'_>, system: &str) -> Entry {
    Entry::Began {
        schema: pawl_record::SCHEMA,
        researcher: researcher.to_string(),
        model: model.to_string(),
        proposal: context.number,
        unix_s: context.unix_s,
        system: system.to_string(),
    }
}

/// Writes the last line, and signs what was made.
fn finish(
    researcher: &str,
    asked: &str,
    held: Result<Made, Ended>,
    totals: &Totals,
    recorder: &Recorder,
) -> Result<Result<Answer, String>, CampaignError> {
    let (outcome, result) = match held {
        Ok(Made { mut draft, repairs }) => {
            draft.researcher = researcher.to_string();
            draft.author = Some(Author {
                asked: asked.to_string(),
                model: totals.model.clone(),
                conversation: recorder.name().to_string(),
                requests: totals.requests,
                input_tokens: totals.input_tokens,
                output_tokens: totals.output_tokens,
                cost_usd: totals.cost_usd,
                repairs,
            });
            ("proposed".to_string(), Ok(Answer::Draft(Box::new(draft))))
        }
        Err(Ended::Nowhere(why)) => (why.clone(), Err(why)),
        Err(Ended::Sending(Failure::GaveUp(why))) => {
            (format!("no answer: {why}"), Err(format!("no answer: {why}")))
        }
        Err(Ended::Sending(Failure::Paused(why))) => (why.clone(), Ok(Answer::Paused(why))),
        Err(Ended::Sending(Failure::Interrupted)) => {
            ("interrupted".to_string(), Ok(Answer::Paused("interrupted".to_string())))
        }
        Err(Ended::Sending(Failure::File(error))) => return Err(CampaignError::File(error)),
    };
    recorder.write(&Entry::Ended {
        proposed: matches!(result, Ok(Answer::Draft(_))),
        outcome,
        model: totals.model.clone(),
        requests: totals.requests,
        input_tokens: totals.input_tokens,
        output_tokens: totals.output_tokens,
        cost_usd: totals.cost_usd,
    })?;
    Ok(result)
}

/// Recorded conversations, held again: what the model said comes from the record, what tools answer from this lab.
#[derive(Debug)]
pub struct Replay {
    name: String,
    files: Vec<PathBuf>,
}

impl Replay {
    /// The conversations of a file or a folder, in order.
    pub fn new(name: String, path: &std::path::Path) -> Result<Replay, FileError> {
        let files = if path.is_dir() { record::files(path)? } else { vec![path.to_path_buf()] };
        for file in &files {
            record::read(file)?;
        }
        Ok(Replay { name, files })
    }

    /// The name in `--researcher` and in records.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn propose(&self, context: &Context<'_>) -> Answer {
        loop {
            match self.converse(context) {
                Ok(Some(Ok(answer))) => return answer,
                Ok(Some(Err(nowhere))) => (context.say)(&format!("{}: {nowhere}", self.name)),
                Ok(None) => return Answer::Exhausted,
                Err(error) => return Answer::Paused(error.to_string()),
            }
        }
    }

    /// The next conversation; `None` after the last.
    fn converse(&self, context: &Context<'_>) -> Result<Option<Result<Answer, String>>, CampaignError> {
        let store = Store::new(context.lab);
        // As many as this lab has from this researcher have been held again.
        let mut held = 0;
        for file in record::files(&store.path("conversations"))? {
            let first = record::read(&file)?.into_iter().next();
            held += usize::from(
                matches!(first, Some(Entry::Began { researcher, .. }) if researcher == self.name),
            );
        }
        let Some(file) = self.files.get(held) else { return Ok(None) };
        let entries = record::read(file)?;
        let asked = entries.iter().find_map(|entry| match entry {
            Entry::Began { model, .. } => Some(model.clone()),
            Entry::Sent { .. } | Entry::Received { .. } | Entry::Failed { .. } | Entry::Ended { .. } => None,
        });
        let asked = asked.unwrap_or_default();
        let mut replies = entries.into_iter().filter_map(|entry| match entry {
            Entry::Received { reply, .. } => Some(reply),
            Entry::Began { .. } | Entry::Sent { .. } | Entry::Failed { .. } | Entry::Ended { .. } => None,
        });
        let recorder = Recorder::new(&store)?;
        let system = prompt::system();
        recorder.write(&began(&self.name, &asked, context, &system))?;
        let mut totals = Totals::default();
        let mut recorded = 0;
        let limits = Limits::default();
        let bounds = Bounds { max_tokens: limits.max_tokens, turns: limits.turns, repairs: limits.repairs };
        let opening = prompt::round(context);
        let made = conversation::hold(context, &system, opening, bounds, &mut |ask| {
            let request = totals.requests + 1;
            let added = ask.messages[recorded..].to_vec();
            recorded = ask.messages.len();
            recorder.write(&Entry::Sent { request, attempt: 1, bytes: 0, added })?;
            let reply: Reply = replies
                .next()
                .ok_or_else(|| Failure::GaveUp("the recorded conversation ends here".to_string()))?;
            totals.requests = request;
            totals.add(&reply.usage, 0.0);
            totals.model.clone_from(&reply.model);
            recorder.write(&Entry::Received {
                request,
                reply: reply.clone(),
                cost_usd: 0.0,
                seconds: 0.0,
            })?;
            Ok(reply)
        });
        finish(&self.name, &asked, made, &totals, &recorder).map(Some)
    }
}
