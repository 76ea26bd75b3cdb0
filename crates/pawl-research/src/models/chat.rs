//! Chat completions, as OpenAI, Ollama, vLLM and llama.cpp's server speak them, each a little differently.

use super::message::{Ask, Message, Part, Reply, Role, Stop, Usage};
use super::wire::Broken;
use crate::prompt;
use crate::tools::Tool;
use serde_json::{Value, json};

/// How a server is brought to call tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calling {
    /// It has tools.
    Tools,
    /// It answers in a JSON schema.
    Schema,
    /// It is asked for JSON, and hopefully writes some.
    Text,
}

/// What a server is known to want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quirks {
    pub(super) calling: Calling,
    /// `max_completion_tokens` instead of `max_tokens`.
    pub(super) new_limit: bool,
    /// What the most tokens of an answer are divided by: some windows are short.
    pub(super) divisor: u64,
}

/// The window of a server is not worth asking when this share of an answer does not fit.
const MAX_DIVISOR: u64 = 16;

impl Quirks {
    /// What to try after a request was refused with these words; `None` when they say nothing of it.
    pub(super) fn after(self, refusal: &str) -> Option<Quirks> {
        let said = refusal.to_lowercase();
        if said.contains("max_completion_tokens") && !self.new_limit {
            return Some(Quirks { new_limit: true, ..self });
        }
        let too_long = ["max_tokens", "max_completion_tokens", "context length", "context size"];
        if too_long.iter().any(|words| said.contains(words)) && self.divisor < MAX_DIVISOR {
            return Some(Quirks { divisor: 2 * self.divisor, ..self });
        }
        match self.calling {
            Calling::Tools if said.contains("tool") || said.contains("function") => {
                Some(Quirks { calling: Calling::Schema, ..self })
            }
            Calling::Schema
                if said.contains("response_format")
                    || said.contains("json_schema")
                    || said.contains("schema") =>
            {
                Some(Quirks { calling: Calling::Text, ..self })
            }
            Calling::Tools | Calling::Schema | Calling::Text => None,
        }
    }
}

/// The body of a request.
pub(super) fn body(ask: &Ask<'_>, model: &str, quirks: Quirks) -> Value {
    let with_tools = quirks.calling == Calling::Tools;
    let system = match with_tools {
        true => ask.system.to_string(),
        false => format!("{}\n{}", ask.system, prompt::text_mode()),
    };
    let mut messages = vec![json!({"role": "system", "content": system})];
    messages.extend(ask.messages.iter().flat_map(|message| match with_tools {
        true => wire_message(message),
        false => vec![plain_message(message)],
    }));
    let mut body = json!({"model": model, "messages": messages, "stream": false});
    body[if quirks.new_limit { "max_completion_tokens" } else { "max_tokens" }] =
        json!((ask.max_tokens / quirks.divisor).max(1));
    match quirks.calling {
        Calling::Tools => {
            body["tools"] = Tool::ALL
                .iter()
                .map(|tool| {
                    json!({"type": "function", "function": {
                        "name": tool.name(), "description": tool.description(), "parameters": tool.schema()}})
                })
                .collect();
        }
        Calling::Schema => {
            let names: Vec<&str> = Tool::ALL.iter().map(|tool| tool.name()).collect();
            body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "call", "schema": {
                "type": "object",
                "properties": {"tool": {"type": "string", "enum": names}, "arguments": {"type": "object"}},
                "required": ["tool", "arguments"]}}});
        }
        Calling::Text => {}
    }
    body
}

fn wire_message(message: &Message) -> Vec<Value> {
    let mut text = String::new();
    let mut calls = Vec::new();
    let mut results = Vec::new();
    for part in &message.parts {
        match part {
            Part::Text { text: more } => {
                text.push_str(more);
            }
            Part::Thought { .. } => {}
            Part::Call { id, name, arguments } => calls.push(json!({
                "id": id, "type": "function", "function": {"name": name, "arguments": as_text(arguments)}})),
            Part::Result { id, text, .. } => {
                results.push(json!({"role": "tool", "tool_call_id": id, "content": text}));
            }
        }
    }
    match message.role {
        Role::Assistant => {
            let mut wire = json!({"role": "assistant", "content": text});
            if !calls.is_empty() {
                wire["tool_calls"] = json!(calls);
            }
            vec![wire]
        }
        Role::User => {
            if !text.is_empty() {
                results.push(json!({"role": "user", "content": text}));
            }
            results
        }
    }
}

/// Without tools, calls are what was written and results are told.
fn plain_message(message: &Message) -> Value {
    let pieces: Vec<String> = message
        .parts
        .iter()
        .filter_map(|part| match part {
            Part::Text { text } => Some(text.clone()),
            Part::Thought { .. } => None,
            Part::Call { name, arguments, .. } => {
                Some(json!({"tool": name, "arguments": arguments}).to_string())
            }
            Part::Result { name, text, .. } => Some(format!("Result of {name}:\n{text}")),
        })
        .collect();
    let role = match message.role {
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    json!({"role": role, "content": pieces.join("\n")})
}

fn as_text(arguments: &Value) -> String {
    match arguments {
        Value::String(text) => text.clone(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            other.to_string()
        }
    }
}

/// The answer in a body. `turn` keys the ids of calls that came without one.
pub(super) fn reply(body: &str, calling: Calling, turn: usize) -> Result<Reply, Broken> {
    let document: Value =
        serde_json::from_str(body.trim()).map_err(|why| Broken::new(format!("no JSON: {why}")))?;
    let usage = usage(&document["usage"]);
    let Some(choice) = document["choices"].as_array().and_then(|choices| choices.first()) else {
        return Err(Broken { what: format!("a document without choices{}", error_of(&document)), usage });
    };
    let message = &choice["message"];
    let mut calls = wire_calls(message, turn);
    let mut text = content(&message["content"]);
    // A call that a server left in the text, or that was asked for there.
    if calls.is_empty()
        && let Some((name, arguments)) = written_call(&text, calling)
    {
        calls.push(Part::Call { id: format!("call_{turn}"), name, arguments });
        text.clear();
    }
    let refused = message["refusal"].as_str().is_some_and(|refusal| !refusal.is_empty());
    let stop = match choice["finish_reason"].as_str() {
        Some("content_filter") => Stop::Refusal,
        _ if refused => Stop::Refusal,
        _ if !calls.is_empty() => Stop::Tools,
        Some("length") => Stop::Length,
        Some("stop" | "tool_calls" | "function_call") | None => Stop::End,
        Some(other) => Stop::Other(other.to_string()),
    };
    let mut parts = Vec::new();
    if !text.trim().is_empty() {
        parts.push(Part::Text { text });
    }
    parts.extend(calls);
    let model = document["model"].as_str().unwrap_or_default().to_string();
    Ok(Reply { parts, stop, model, usage })
}

fn error_of(document: &Value) -> String {
    let message = document["error"]["message"].as_str().or(document["error"].as_str());
    message.map_or(String::new(), |message| format!(": {message}"))
}

fn usage(usage: &Value) -> Usage {
    let of = |name: &str| usage[name].as_u64();
    match (of("prompt_tokens"), of("completion_tokens")) {
        (None, None) => Usage::default(),
        (sent, output) => {
            let sent = sent.unwrap_or(0);
            let cache_read = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0).min(sent);
            Usage {
                input: sent - cache_read,
                cache_write: 0,
                cache_read,
                output: output.unwrap_or(0),
                known: true,
            }
        }
    }
}

fn wire_calls(message: &Value, turn: usize) -> Vec<Part> {
    let listed = message["tool_calls"].as_array().cloned().unwrap_or_default();
    // The form before there were several.
    let single = message["function_call"].is_object().then(|| json!({"function": message["function_call"]}));
    let all = listed.into_iter().chain(single);
    let call = |(at, call): (usize, Value)| {
        let function = &call["function"];
        let id = call["id"].as_str().filter(|id| !id.is_empty());
        let arguments = match &function["arguments"] {
            Value::String(text) => {
                serde_json::from_str(text).ok().filter(Value::is_object).unwrap_or_else(|| json!(text))
            }
            other
            @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                other.clone()
            }
        };
        Part::Call {
            id: id.map_or_else(|| format!("call_{turn}_{at}"), str::to_string),
            name: function["name"].as_str().unwrap_or_default().to_string(),
            arguments,
        }
    };
    all.enumerate().map(call).collect()
}

/// The text of a message: a string, or a list of pieces.
fn content(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(pieces) => {
            pieces.iter().filter_map(|piece| piece["text"].as_str()).collect::<Vec<_>>().join("")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

/// Places at which an object is looked for in a text.
const MAX_STARTS: usize = 64;

/// The first JSON object in a text that is a call: {"tool" or "name": .., "arguments" or "parameters": ..}.
fn written_call(text: &str, calling: Calling) -> Option<(String, Value)> {
    // What a model thinks aloud is not what it says.
    let text = text.rsplit_once("</think>").map_or(text, |(_, said)| said);
    for (start, _) in text.match_indices('{').take(MAX_STARTS) {
        let mut documents = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        let Some(Ok(Value::Object(object))) = documents.next() else { continue };
        let word = |names: [&str; 2]| names.iter().find_map(|name| object.get(*name)).cloned();
        let name = word(["tool", "name"]).and_then(|name| name.as_str().map(str::to_string));
        let arguments = word(["arguments", "parameters"]);
        match (name, arguments) {
            (Some(name), Some(arguments)) => return Some((name, arguments)),
            // Where text is the only way, a call without arguments is one too.
            (Some(name), None) if calling != Calling::Tools => return Some((name, json!({}))),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(message: Value, calling: Calling) -> Reply {
        reply(
            &json!({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}).to_string(),
            calling,
            3,
        )
        .unwrap()
    }

    fn check_call(message: Value, calling: Calling, id: &str) {
        let read = answered(message.clone(), calling);
        let expected = Part::Call { id: id.into(), name: "effects".into(), arguments: json!({"a": 1}) };
        assert_eq!(read.parts, [expected], "{message}");
        assert_eq!((read.stop, read.usage.known), (Stop::Tools, false));
    }

    #[test]
    fn calls_are_found_in_every_form() {
        let function = |arguments: Value| json!({"function": {"name": "effects", "arguments": arguments}});
        check_call(
            json!({"content": null, "tool_calls": [function(json!("{\"a\": 1}"))]}),
            Calling::Tools,
            "call_3_0",
        );
        check_call(
            json!({"content": "", "tool_calls": [function(json!({"a": 1}))]}),
            Calling::Tools,
            "call_3_0",
        );
        check_call(
            json!({"function_call": {"name": "effects", "arguments": "{\"a\":1}"}}),
            Calling::Tools,
            "call_3_0",
        );
        let said = "<think>{\"tool\": \"propose\"}</think>Sure:\n```json\n{\"tool\": \"effects\", \"arguments\": {\"a\": 1}}\n```";
        check_call(json!({"content": said}), Calling::Text, "call_3");
        let said = "<tool_call>\n{\"name\": \"effects\", \"arguments\": {\"a\": 1}}\n</tool_call>";
        check_call(json!({"content": [{"type": "text", "text": said}]}), Calling::Tools, "call_3");
    }

    #[test]
    fn arguments_that_are_no_json_stay_text() {
        let message =
            json!({"tool_calls": [{"id": "x", "function": {"name": "effects", "arguments": "{\"a\": "}}]});
        let read = answered(message, Calling::Tools);
        assert_eq!(
            read.parts,
            [Part::Call { id: "x".into(), name: "effects".into(), arguments: json!("{\"a\": ") }]
        );
    }

    #[test]
    fn a_server_without_tools_is_asked_otherwise() {
        let start = Quirks { calling: Calling::Tools, new_limit: false, divisor: 1 };
        let schema = start.after("registry.ollama.ai/x does not support tools").unwrap();
        assert_eq!(schema.calling, Calling::Schema);
        assert_eq!(schema.after("unknown field response_format").unwrap().calling, Calling::Text);
        assert!(start.after("use 'max_completion_tokens' instead").unwrap().new_limit);
        assert_eq!(start.after("exceeds the maximum context length").unwrap().divisor, 2);
        assert_eq!(start.after("model not found"), None);
        let messages = [Message::user("go")];
        let ask = Ask { system: "told", messages: &messages, max_tokens: 9 };
        let body = body(&ask, "m", schema);
        assert!(body.get("tools").is_none() && body["response_format"]["type"] == "json_schema");
        assert!(body["messages"][0]["content"].as_str().unwrap().contains("budget_left"));
    }

    #[test]
    fn what_is_no_answer_is_said_to_be_none() {
        for body in ["", "{", "[]", "{\"choices\": []}", "{\"error\": {\"message\": \"busy\"}}", "<html>"] {
            assert!(reply(body, Calling::Tools, 0).is_err(), "{body}");
        }
    }
}
