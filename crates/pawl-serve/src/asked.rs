//! What a request asks for, read from its JSON; everything that is not understood is refused by name.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the kinds of JSON are no enum of ours, and no more will come"
)]

use pawl_model::SamplerSettings;
use pawl_record::{Message, Role};
use serde_json::Value;

/// Answers to one request at most.
const MAX_CHOICES: usize = 64;
/// Likeliest tokens told at most.
const MAX_TOP: usize = 20;
const MAX_STOPS: usize = 16;

/// Settings that chat and completions share.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) settings: SamplerSettings,
    pub(crate) seed: Option<u64>,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) num_choices: usize,
    pub(crate) stops: Vec<String>,
    pub(crate) stream: bool,
    pub(crate) stream_usage: bool,
    /// Whether log-probabilities are wanted, and of how many beside the one drawn.
    pub(crate) log_probs: Option<usize>,
    pub(crate) echo: bool,
}

/// One prompt of a completion.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// A field that says something else than it can.
pub(crate) type Wrong = String;

impl Asked {
    pub(crate) fn of(body: &Value, is_chat: bool) -> Result<Asked, Wrong> {
        let log_probs = match (is_chat, &body["logprobs"]) {
            (_, Value::Null | Value::Bool(false)) => None,
            (true, Value::Bool(true)) => Some(whole(body, "top_logprobs", 0, MAX_TOP)?.unwrap_or(0)),
            (true, _) => return Err("logprobs is true or false".into()),
            (false, Value::Bool(true)) => Some(1),
            (false, _) => whole(body, "logprobs", 0, MAX_TOP)?,
        };
        let echo = !is_chat && flag(body, "echo")?;
        let newer = if is_chat { whole(body, "max_completion_tokens", 0, usize::MAX)? } else { None };
        let settings = SamplerSettings {
            temperature: real(body, "temperature", 0.0, 100.0)?.unwrap_or(1.0) as f32,
            top_k: whole(body, "top_k", 0, usize::MAX)?.unwrap_or(0),
            top_p: real(body, "top_p", 0.0, 1.0)?.unwrap_or(1.0) as f32,
            min_p: real(body, "min_p", 0.0, 1.0)?.unwrap_or(0.0) as f32,
            seed: 0,
        };
        Ok(Asked {
            settings,
            seed: match &body["seed"] {
                Value::Null => None,
                seed => Some(seed.as_i64().ok_or("seed is a whole number")? as u64),
            },
            max_tokens: newer.or(whole(body, "max_tokens", 0, usize::MAX)?),
            num_choices: whole(body, "n", 1, MAX_CHOICES)?.unwrap_or(1),
            stops: stops(&body["stop"])?,
            stream: flag(body, "stream")?,
            stream_usage: body["stream_options"]["include_usage"] == true,
            log_probs,
            echo,
        })
    }

    /// The settings of one of the answers: each draws by a seed of its own.
    pub(crate) fn settings(&self, seed: u64, choice: usize) -> SamplerSettings {
        SamplerSettings { seed: seed.wrapping_add(choice as u64), ..self.settings }
    }
}

fn flag(body: &Value, name: &str) -> Result<bool, Wrong> {
    match &body[name] {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        _ => Err(format!("{name} is true or false")),
    }
}

fn real(body: &Value, name: &str, low: f64, high: f64) -> Result<Option<f64>, Wrong> {
    if body[name].is_null() {
        return Ok(None);
    }
    let number = body[name].as_f64().filter(|x| (low..=high).contains(x));
    number.map(Some).ok_or_else(|| format!("{name} is a number from {low} to {high}"))
}

fn whole(body: &Value, name: &str, low: usize, high: usize) -> Result<Option<usize>, Wrong> {
    if body[name].is_null() {
        return Ok(None);
    }
    let number = body[name].as_u64().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let fits = number.filter(|n| (low..=high).contains(n));
    fits.map(Some).ok_or_else(|| match high {
        usize::MAX => format!("{name} is a whole number from {low} on"),
        high => format!("{name} is a whole number from {low} to {high}"),
    })
}

fn stops(value: &Value) -> Result<Vec<String>, Wrong> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(stop) => Ok(vec![stop.clone()]),
        Value::Array(stops) if stops.len() <= MAX_STOPS => {
            let texts: Option<Vec<String>> = stops.iter().map(|s| s.as_str().map(str::to_string)).collect();
            texts.ok_or_else(|| "stop is a text or a list of texts".into())
        }
        _ => Err(format!("stop is a text or a list of at most {MAX_STOPS}")),
    }
}

/// The prompts of a completion: a text, a list of texts, of tokens, or of lists of tokens.
pub(crate) fn prompts(value: &Value, vocab_size: usize) -> Result<Vec<Prompt>, Wrong> {
    let wrong = || "prompt is a text, a list of texts, or lists of tokens of this model".to_string();
    let tokens = |list: &Vec<Value>| -> Option<Prompt> {
        let id = |value: &Value| value.as_u64().filter(|id| *id < vocab_size as u64).map(|id| id as u32);
        list.iter().map(id).collect::<Option<_>>().map(Prompt::Tokens)
    };
    let prompts: Vec<Prompt> = match value {
        Value::String(text) => vec![Prompt::Text(text.clone())],
        Value::Array(list) if list.first().is_some_and(Value::is_number) => {
            vec![tokens(list).ok_or_else(wrong)?]
        }
        Value::Array(list) => list
            .iter()
            .map(|one| match one {
                Value::String(text) => Some(Prompt::Text(text.clone())),
                Value::Array(list) => tokens(list),
                _ => None,
            })
            .collect::<Option<_>>()
            .ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    if (1..=MAX_CHOICES).contains(&prompts.len()) { Ok(prompts) } else { Err(wrong()) }
}

/// The messages of a chat.
pub(crate) fn messages(value: &Value) -> Result<Vec<Message>, Wrong> {
    let wrong = || "messages is a list of {role, content}, role one of system, user, assistant".to_string();
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(wrong)?;
    list.iter().map(|message| message_of(message).ok_or_else(wrong)).collect()
}

fn message_of(value: &Value) -> Option<Message> {
    let content = match &value["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .map(|part| part["text"].as_str().filter(|_| part["type"] == "text"))
            .collect::<Option<Vec<_>>>()?
            .concat(),
        _ => return None,
    };
    let role = match value["role"].as_str()? {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => return None,
    };
    Some(Message::new(role, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        for (field, value) in [
            ("temperature", json!(-1)),
            ("top_p", json!(1.5)),
            ("n", json!(0)),
            ("n", json!(1000)),
            ("max_tokens", json!(-3)),
            ("stop", json!([1])),
            ("seed", json!("x")),
            ("stream", json!("yes")),
        ] {
            let wrong = Asked::of(&json!({ field: value }), true).unwrap_err();
            assert!(wrong.starts_with(field), "{wrong}");
        }
    }

    #[test]
    fn prompts_come_in_four_forms() {
        let text = |text: &str| Prompt::Text(text.into());
        assert_eq!(prompts(&json!("a"), 9), Ok(vec![text("a")]));
        assert_eq!(prompts(&json!(["a", "b"]), 9), Ok(vec![text("a"), text("b")]));
        assert_eq!(prompts(&json!([1, 2]), 9), Ok(vec![Prompt::Tokens(vec![1, 2])]));
        assert_eq!(
            prompts(&json!([[1], [8]]), 9),
            Ok(vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![8])])
        );
        for wrong in [json!([[9]]), json!([]), json!(null), json!([null]), json!([1, "a"])] {
            assert!(prompts(&wrong, 9).is_err(), "{wrong}");
        }
    }
}
