//! What becomes of an answer as its tokens come: text, log-probabilities, why it ended; and the JSON of all that.

use pawl_data::{TextStream, Tokenizer};
use pawl_model::{Emitted, Ended, LogProb};
use serde_json::{Map, Value, json};

/// Which of the two forms an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Chat,
    Completion,
}

impl Form {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Form::Chat => "/v1/chat/completions",
            Form::Completion => "/v1/completions",
        }
    }

    pub(crate) fn object(self, streamed: bool) -> &'static str {
        match (self, streamed) {
            (Form::Chat, true) => "chat.completion.chunk",
            (Form::Chat, false) => "chat.completion",
            (Form::Completion, _) => "text_completion",
        }
    }

    pub(crate) fn id_prefix(self) -> &'static str {
        match self {
            Form::Chat => "chatcmpl",
            Form::Completion => "cmpl",
        }
    }
}

/// A token that is told with its log-probability.
struct Told {
    token: u32,
    /// The first token of a prompt has none.
    log_prob: Option<f32>,
    top: Vec<LogProb>,
    /// Bytes of text before it.
    offset: usize,
}

/// One answer under construction.
pub(crate) struct Choice {
    index: usize,
    stream: TextStream,
    /// Text since the last chunk.
    fresh: String,
    told: Vec<Told>,
    /// Bytes of all tokens so far, and of the text that they became.
    offset: usize,
    text_bytes: usize,
    pub(crate) num_drawn: usize,
    pub(crate) finish: Option<&'static str>,
}

impl Choice {
    /// An answer that begins with `echo`, the tokens of its prompt, or with nothing.
    pub(crate) fn new(index: usize, stops: &[String], echo: Option<&[u32]>, tokenizer: &Tokenizer) -> Choice {
        let mut choice = Choice {
            index,
            stream: TextStream::new(stops.to_vec()),
            fresh: String::new(),
            told: Vec::new(),
            offset: 0,
            text_bytes: 0,
            num_drawn: 0,
            finish: None,
        };
        if let Some(prompt) = echo {
            choice.fresh = tokenizer.decode(prompt);
            choice.text_bytes = choice.fresh.len();
            choice.tell(prompt[0], None, Vec::new(), tokenizer);
        }
        choice
    }

    fn tell(&mut self, token: u32, log_prob: Option<f32>, top: Vec<LogProb>, tokenizer: &Tokenizer) {
        self.told.push(Told { token, log_prob, top, offset: self.offset });
        self.offset += tokenizer.decode_bytes(&[token]).len();
    }

    /// Takes what was emitted next; `None` means that nothing more comes, whatever was promised.
    pub(crate) fn hear(&mut self, emitted: Option<Emitted>, tokenizer: &Tokenizer) {
        match emitted {
            Some(Emitted::Prompt { token, top }) => {
                self.tell(token.token, Some(token.log_prob), top, tokenizer)
            }
            Some(Emitted::Token { token, top }) => {
                self.num_drawn += 1;
                let text = self.stream.push(&tokenizer.decode_bytes(&[token.token]));
                self.add(&text);
                self.tell(token.token, Some(token.log_prob), top, tokenizer);
                if self.stream.has_stopped() {
                    let kept = self.text_bytes;
                    self.told.retain(|told| told.offset < kept);
                    self.finish = Some("stop");
                }
            }
            Some(Emitted::End(why)) => {
                let rest = self.stream.finish();
                self.add(&rest);
                self.finish = Some(match why {
                    Ended::Stop => "stop",
                    Ended::Length => "length",
                });
            }
            None => self.finish = Some("error"),
        }
    }

    fn add(&mut self, text: &str) {
        self.fresh.push_str(text);
        self.text_bytes += text.len();
    }

    /// Whether a chunk would say anything.
    pub(crate) fn has_news(&self) -> bool {
        !self.fresh.is_empty() || self.finish.is_some()
    }

    /// What has not been told yet, as one element of `choices`.
    pub(crate) fn take(
        &mut self,
        form: Form,
        streamed: bool,
        log_probs: bool,
        tokenizer: &Tokenizer,
    ) -> Value {
        let (text, told) = (std::mem::take(&mut self.fresh), std::mem::take(&mut self.told));
        let log_probs = match (log_probs, form) {
            (false, _) => Value::Null,
            (true, Form::Chat) => chat_log_probs(&told, tokenizer),
            (true, Form::Completion) => completion_log_probs(&told, tokenizer),
        };
        let mut choice = Map::new();
        choice.insert("index".into(), self.index.into());
        match (form, streamed) {
            (Form::Completion, _) => _ = choice.insert("text".into(), text.into()),
            (Form::Chat, true) => _ = choice.insert("delta".into(), json!({ "content": text })),
            (Form::Chat, false) => {
                let message = json!({ "role": "assistant", "content": text, "refusal": null });
                choice.insert("message".into(), message);
            }
        }
        choice.insert("logprobs".into(), log_probs);
        choice.insert("finish_reason".into(), self.finish.into());
        Value::Object(choice)
    }
}

fn completion_log_probs(told: &[Told], tokenizer: &Tokenizer) -> Value {
    let name = |token: u32| tokenizer.decode(&[token]);
    let top = |told: &Told| {
        let mut top = Map::new();
        // Tokens that are no text on their own may share a name: the likeliest of them is told.
        for one in &told.top {
            top.entry(name(one.token)).or_insert_with(|| number(one.log_prob));
        }
        if told.log_prob.is_some() { Value::Object(top) } else { Value::Null }
    };
    json!({
        "tokens": told.iter().map(|told| name(told.token)).collect::<Vec<_>>(),
        "token_logprobs": told.iter().map(|told| told.log_prob.map_or(Value::Null, number)).collect::<Vec<_>>(),
        "top_logprobs": told.iter().map(top).collect::<Vec<_>>(),
        "text_offset": told.iter().map(|told| told.offset).collect::<Vec<_>>(),
        "token_ids": told.iter().map(|told| told.token).collect::<Vec<_>>(),
    })
}

fn chat_log_probs(told: &[Told], tokenizer: &Tokenizer) -> Value {
    let one = |token: u32, log_prob: f32| {
        json!({ "token": tokenizer.decode(&[token]), "logprob": number(log_prob),
                "bytes": tokenizer.decode_bytes(&[token]) })
    };
    let content = told.iter().filter_map(|told| {
        let mut entry = one(told.token, told.log_prob?);
        entry["top_logprobs"] = told.top.iter().map(|top| one(top.token, top.log_prob)).collect();
        Some(entry)
    });
    json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
}

/// JSON has no infinity: what is impossible is told as very unlikely.
fn number(log_prob: f32) -> Value {
    json!(f64::from(log_prob).max(-1e9))
}
