//! From an ask to a reply, through everything that can go wrong on the way: refused, overloaded, cut, garbled. Every
//! request is paid for in the purse before it is sent, and written down before and after.

use super::message::{Ask, Message, Reply, Usage};
use super::record::{Entry, Recorder};
use super::spend::{self, Price, Purse, Refused, Reservation};
use super::wire::Broken;
use super::{Model, Service, anthropic, chat, http};
use crate::random::Random;
use crate::researcher::Context;
use crate::tools::line;
use pawl_record::FileError;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Why there is no reply.
pub(super) enum Failure {
    /// A cap forbids the request, or it may never be sent like this: asking again does not help.
    Paused(String),
    /// It was tried as often as is sensible.
    GaveUp(String),
    /// The campaign is to stop.
    Interrupted,
    /// The record cannot be written.
    File(FileError),
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Failure {
        Failure::File(error)
    }
}

/// Longest wait before another try, whatever a service asks for.
const LONGEST_WAIT_S: f64 = 120.0;

/// Status that is worth another try: too many requests, and everything that is the server's fault.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429) || status >= 500
}

/// The requests of one conversation.
pub(super) struct Line<'a> {
    pub(super) model: &'a Model,
    pub(super) context: &'a Context<'a>,
    pub(super) purse: Purse,
    pub(super) recorder: &'a Recorder,
    pub(super) totals: Totals,
    /// Messages written down already.
    recorded: usize,
}

/// Sums over a conversation.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) cost_usd: f64,
    pub(super) model: String,
}

impl Totals {
    pub(super) fn add(&mut self, usage: &Usage, cost_usd: f64) {
        self.input_tokens = self.input_tokens.saturating_add(usage.sent());
        self.output_tokens = self.output_tokens.saturating_add(usage.output);
        self.cost_usd += cost_usd;
    }
}

/// What one try came to.
enum Tried {
    Reply(Box<Reply>),
    /// Again, at once, since the request was refused for how it was written.
    Otherwise,
    /// Again, after so many seconds at least.
    Later(String, Option<f64>),
}

impl<'a> Line<'a> {
    pub(super) fn new(
        model: &'a Model,
        context: &'a Context<'a>,
        purse: Purse,
        recorder: &'a Recorder,
    ) -> Line<'a> {
        Line { model, context, purse, recorder, totals: Totals::default(), recorded: 0 }
    }

    /// A reply to the conversation so far.
    pub(super) fn ask(&mut self, ask: &Ask<'_>) -> Result<Reply, Failure> {
        let mut random = Random::new(&[self.context.seed, 0x7772, self.context.number, self.totals.requests]);
        let request = self.totals.requests + 1;
        let mut last = String::new();
        for attempt in 1..=self.model.limits.attempts {
            if (self.context.interrupted)() {
                return Err(Failure::Interrupted);
            }
            match self.once(ask, request, attempt)? {
                Tried::Reply(reply) => return Ok(*reply),
                Tried::Otherwise => {}
                Tried::Later(what, after_s) => {
                    last = what;
                    if attempt < self.model.limits.attempts {
                        let doubling = self.model.limits.backoff_s * 2f64.powi(attempt as i32 - 1);
                        let wanted = after_s.unwrap_or(0.0).max(doubling * (0.5 + random.uniform()));
                        (self.context.say)(&format!("{}: {last}; again in {wanted:.0} s", self.model.name));
                        self.wait(wanted.min(LONGEST_WAIT_S).min(self.model.limits.longest_wait_s))?;
                    }
                }
            }
        }
        Err(Failure::GaveUp(last))
    }

    fn wait(&self, seconds: f64) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < until {
            if (self.context.interrupted)() {
                return Err(Failure::Interrupted);
            }
            std::thread::sleep((until - Instant::now()).min(Duration::from_millis(50)));
        }
        Ok(())
    }

    fn once(&mut self, ask: &Ask<'_>, request: u64, attempt: u64) -> Result<Tried, Failure> {
        let quirks = *self.model.quirks.lock().expect("nobody panics with the lock");
        let body = match self.model.service {
            Service::Messages => anthropic::body(ask, &self.model.model, quirks.thinking),
            Service::Chat => chat::body(ask, &self.model.model, quirks.chat),
        };
        let body = body.to_string().into_bytes();
        let worst = spend::worst(body.len(), ask.max_tokens);
        let price = self.model.price.clone();
        let reservation = self
            .purse
            .reserve(self.recorder.name(), price.cost(&worst), worst.total())
            .map_err(|refused| match refused {
                Refused::Cap(why) => Failure::Paused(why),
                Refused::File(error) => Failure::File(error),
            })?;
        self.totals.requests += 1;
        let added: Vec<Message> = ask.messages[self.recorded.min(ask.messages.len())..].to_vec();
        self.recorded = ask.messages.len();
        self.recorder.write(&Entry::Sent { request, attempt, bytes: body.len() as u64, added })?;
        let sent_bytes = body.len();
        let post = self.post(body);
        match http::post(post, self.context.interrupted) {
            Err(http::Lost::Interrupted) => Err(Failure::Interrupted),
            Err(http::Lost::NoAnswer(what, seconds)) => {
                // It may have been read and answered all the same.
                self.failed(request, None, &what, reservation, None, seconds)?;
                Ok(Tried::Later(what, None))
            }
            Ok(answered) => self.judge(answered, request, reservation, &price, sent_bytes),
        }
    }

    fn post(&self, body: Vec<u8>) -> http::Post {
        let model = self.model;
        let mut headers = vec![("content-type", "application/json".to_string())];
        let path = match model.service {
            Service::Messages => {
                headers.push(("anthropic-version", anthropic::VERSION.to_string()));
                headers.push(("accept", "text/event-stream".to_string()));
                if let Some(key) = &model.key {
                    headers.push(("x-api-key", key.header().to_string()));
                }
                "/v1/messages"
            }
            Service::Chat => {
                if let Some(key) = &model.key {
                    headers.push(("authorization", format!("Bearer {}", key.header())));
                }
                "/chat/completions"
            }
        };
        let mut patience = model.limits.patience;
        // What does not stream has its first byte when it is done.
        if model.service == Service::Chat {
            patience.idle = patience.total;
        }
        if let Some(left) = self.purse.seconds_left() {
            patience.total = patience.total.min(Duration::from_secs_f64(left.max(1.0)));
        }
        let url = format!("{}{path}", model.base_url.trim_end_matches('/'));
        http::Post { url, headers, body, patience }
    }

    /// What an answer is worth.
    fn judge(
        &mut self,
        answered: http::Answered,
        request: u64,
        reservation: Reservation,
        price: &Price,
        sent_bytes: usize,
    ) -> Result<Tried, Failure> {
        let http::Answered { status, retry_after_s, body, cut, seconds } = answered;
        let body = self.hidden(String::from_utf8_lossy(&body).into_owned());
        if !(200..300).contains(&status) {
            // Once more: what was escaped in the answer is not in what it says.
            let what = self.hidden(format!("status {status}{}", said(&body)));
            // An error is not charged for.
            self.failed(request, Some(status), &what, reservation, Some((0.0, 0)), seconds)?;
            if is_passing(status) {
                return Ok(Tried::Later(what, retry_after_s));
            }
            return if self.adapt(&body) { Ok(Tried::Otherwise) } else { Err(Failure::Paused(what)) };
        }
        let read = match self.model.service {
            Service::Messages => anthropic::reply(&body),
            Service::Chat => {
                let calling = self.model.quirks.lock().expect("nobody panics with the lock").chat.calling;
                chat::reply(&body, calling, self.totals.requests as usize)
            }
        };
        match (read, cut) {
            (Ok(reply), None) => {
                // Again, now that it is put together: a stream may cut a key in two.
                let mut reply = self.without_key(reply);
                if !reply.usage.known {
                    // A server that does not count: by size, as text in tokens of three bytes.
                    reply.usage.input = sent_bytes as u64 / 3;
                    reply.usage.output = body.len() as u64 / 3;
                }
                let answered = self.model.prices.of(&reply.model).filter(|_| price.output > 0.0);
                let cost_usd = answered.unwrap_or(price).cost(&reply.usage);
                self.purse.settle(reservation, Some((cost_usd, reply.usage.total())), seconds)?;
                self.totals.add(&reply.usage, cost_usd);
                self.note_model(&reply);
                self.recorder.write(&Entry::Received { request, reply: reply.clone(), cost_usd, seconds })?;
                Ok(Tried::Reply(Box::new(reply)))
            }
            (Ok(_), Some(cut)) => {
                let what = format!("the answer was cut: {cut}");
                self.failed(request, Some(status), &what, reservation, None, seconds)?;
                Ok(Tried::Later(what, None))
            }
            (Err(Broken { what, .. }), cut) => {
                let what = cut.map_or(what.clone(), |cut| format!("{what} ({cut})"));
                self.failed(request, Some(status), &what, reservation, None, seconds)?;
                Ok(Tried::Later(what, None))
            }
        }
    }

    /// Writes down a request that came to nothing; `cost` is `None` where it is unknown.
    fn failed(
        &mut self,
        request: u64,
        status: Option<u16>,
        what: &str,
        reservation: Reservation,
        cost: Option<(f64, u64)>,
        seconds: f64,
    ) -> Result<(), Failure> {
        let cost_usd = cost.map_or(reservation.usd(), |(usd, _)| usd);
        self.totals.cost_usd += cost_usd;
        self.purse.settle(reservation, cost, seconds)?;
        let what = self.hidden(what.to_string());
        self.recorder.write(&Entry::Failed { request, status, what, cost_usd })?;
        Ok(())
    }

    fn hidden(&self, text: String) -> String {
        match &self.model.key {
            Some(key) => key.hide(text),
            None => text,
        }
    }

    fn without_key(&self, reply: Reply) -> Reply {
        let text = serde_json::to_string(&reply).expect("a reply has string keys and finite numbers");
        let hidden = self.hidden(text.clone());
        if hidden == text {
            return reply;
        }
        // A key of digits alone may have stood in a number: then nothing of the reply is kept.
        pawl_record::from_json(hidden.as_bytes()).unwrap_or_else(|_| reply.without_parts())
    }

    /// Another way to write the request, after a refusal that speaks of how it was written.
    fn adapt(&self, body: &str) -> bool {
        let mut quirks = self.model.quirks.lock().expect("nobody panics with the lock");
        match self.model.service {
            Service::Messages => {
                let said = body.to_lowercase();
                let next = match quirks.thinking {
                    _ if !said.contains("thinking") => return false,
                    anthropic::Thinking::Adaptive => anthropic::Thinking::Budget,
                    anthropic::Thinking::Budget => anthropic::Thinking::Off,
                    anthropic::Thinking::Off => return false,
                };
                quirks.thinking = next;
            }
            Service::Chat => match quirks.chat.after(body) {
                Some(next) => quirks.chat = next,
                None => return false,
            },
        }
        true
    }

    /// Says so when another model answers than was asked: providers reroute.
    fn note_model(&mut self, reply: &Reply) {
        let (asked, answered) = (&self.model.model, &reply.model);
        if !answered.is_empty() && *answered != self.totals.model {
            if !answered.starts_with(asked.as_str()) && !asked.starts_with(answered.as_str()) {
                let answered = line(answered, 80);
                (self.context.say)(&format!("{}: {answered} answers in place of {asked}", self.model.name));
            }
            self.totals.model = answered.clone();
        }
    }
}

/// The message of an error document, shortened.
fn said(body: &str) -> String {
    let document: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let message = document["error"]["message"].as_str().or(document["error"].as_str()).unwrap_or(body);
    let message = line(message, 300);
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
