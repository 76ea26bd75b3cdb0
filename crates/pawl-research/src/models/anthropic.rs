//! The Messages API: what is sent, and what its stream of events comes to.

use super::message::{Ask, Message, Part, Reply, Role, Stop, Usage};
use super::wire::Broken;
use crate::tools::Tool;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The version of the protocol spoken here.
pub(super) const VERSION: &str = "2023-06-01";

/// How a model is asked to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thinking {
    /// As much as it sees fit: models of 2026 on.
    Adaptive,
    /// Up to a number of tokens: earlier ones.
    Budget,
    /// Not at all.
    Off,
}

/// Share of the most tokens of an answer that may go into thought, where a number is asked for.
const THOUGHT_SHARE: f64 = 0.6;

/// The least that may be asked for.
const LEAST_THOUGHT: u64 = 1024;

/// The body of a request. Three places end what is cached: the system prompt with the tools, the state of the
/// campaign, and the conversation so far.
pub(super) fn body(ask: &Ask<'_>, model: &str, thinking: Thinking) -> Value {
    let tools: Vec<Value> = Tool::ALL
        .iter()
        .map(|tool| json!({"name": tool.name(), "description": tool.description(), "input_schema": tool.schema()}))
        .collect();
    let last = ask.messages.len().saturating_sub(1);
    let messages: Vec<Value> = ask
        .messages
        .iter()
        .enumerate()
        .map(|(at, message)| wire_message(message, at == 0 || at == last))
        .collect();
    let mut body = json!({
        "model": model,
        "max_tokens": ask.max_tokens,
        "stream": true,
        "system": [{"type": "text", "text": ask.system, "cache_control": {"type": "ephemeral"}}],
        "tools": tools,
        "messages": messages,
    });
    match thinking {
        Thinking::Adaptive => body["thinking"] = json!({"type": "adaptive"}),
        Thinking::Budget => {
            let budget = ((ask.max_tokens as f64 * THOUGHT_SHARE) as u64).max(LEAST_THOUGHT);
            if budget < ask.max_tokens {
                body["thinking"] = json!({"type": "enabled", "budget_tokens": budget});
            }
        }
        Thinking::Off => {}
    }
    body
}

fn wire_message(message: &Message, cached: bool) -> Value {
    let mut content: Vec<Value> = message.parts.iter().map(wire_part).collect();
    if cached
        && message.role == Role::User
        && let Some(last) = content.last_mut()
    {
        last["cache_control"] = json!({"type": "ephemeral"});
    }
    let role = match message.role {
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    json!({"role": role, "content": content})
}

fn wire_part(part: &Part) -> Value {
    match part {
        Part::Text { text } => json!({"type": "text", "text": text}),
        Part::Thought { block } => block.clone(),
        Part::Call { id, name, arguments } => {
            // What was no object when it came cannot be sent back as one.
            let input = if arguments.is_object() { arguments.clone() } else { json!({}) };
            json!({"type": "tool_use", "id": id, "name": name, "input": input})
        }
        Part::Result { id, text, refused, .. } => {
            json!({"type": "tool_result", "tool_use_id": id, "content": text, "is_error": refused})
        }
    }
}

/// The answer in a body: a stream of events, or one document where a server does not stream.
pub(super) fn reply(body: &str) -> Result<Reply, Broken> {
    let trimmed = body.trim_start();
    if trimmed.starts_with('{') {
        let message: Value =
            serde_json::from_str(trimmed).map_err(|why| Broken::new(format!("no JSON: {why}")))?;
        return whole(&message);
    }
    let mut stream = Stream::default();
    for event in events(body) {
        let event = event.map_err(|why| Broken { usage: stream.usage, ..why })?;
        stream.take(&event)?;
    }
    stream.end()
}

/// The documents in the `data:` lines of a stream.
fn events(body: &str) -> impl Iterator<Item = Result<Value, Broken>> {
    body.split("\n\n").flat_map(|block| block.split("\r\n\r\n")).filter_map(|block| {
        let data: Vec<&str> =
            block.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
        let data = data.join("\n");
        if data.is_empty() || data == "[DONE]" {
            return None;
        }
        Some(serde_json::from_str(&data).map_err(|why| Broken::new(format!("an event is no JSON: {why}"))))
    })
}

#[derive(Default)]
struct Stream {
    model: String,
    usage: Usage,
    blocks: BTreeMap<u64, Value>,
    /// Arguments of calls arrive as pieces of text.
    arguments: BTreeMap<u64, String>,
    stop: Option<String>,
    ended: bool,
}

impl Stream {
    fn take(&mut self, event: &Value) -> Result<(), Broken> {
        let index = event["index"].as_u64().unwrap_or(0);
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => {
                let message = &event["message"];
                self.model = message["model"].as_str().unwrap_or_default().to_string();
                self.count(&message["usage"]);
            }
            "content_block_start" => {
                self.blocks.insert(index, event["content_block"].clone());
            }
            "content_block_delta" => self.delta(index, &event["delta"]),
            "message_delta" => {
                self.stop = event["delta"]["stop_reason"].as_str().map(str::to_string).or(self.stop.take());
                self.count(&event["usage"]);
            }
            "message_stop" => self.ended = true,
            "error" => {
                let error = &event["error"];
                return Err(Broken {
                    what: format!(
                        "the stream says {}: {}",
                        error["type"].as_str().unwrap_or("error"),
                        error["message"].as_str().unwrap_or_default()
                    ),
                    usage: self.usage,
                });
            }
            // ping, content_block_stop, and what later versions add.
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, usage: &Value) {
        let of = |name: &str, before: u64| usage[name].as_u64().unwrap_or(before);
        if usage.is_object() {
            self.usage = Usage {
                input: of("input_tokens", self.usage.input),
                cache_write: of("cache_creation_input_tokens", self.usage.cache_write),
                cache_read: of("cache_read_input_tokens", self.usage.cache_read),
                output: of("output_tokens", self.usage.output),
                known: true,
            };
        }
    }

    fn delta(&mut self, index: u64, delta: &Value) {
        let Some(block) = self.blocks.get_mut(&index) else { return };
        let grow = |block: &mut Value, name: &str| {
            let more = delta[name].as_str().unwrap_or_default();
            let text = format!("{}{more}", block[name].as_str().unwrap_or_default());
            block[name] = json!(text);
        };
        match delta["type"].as_str().unwrap_or_default() {
            "text_delta" if block.is_object() => grow(block, "text"),
            "thinking_delta" if block.is_object() => grow(block, "thinking"),
            "signature_delta" if block.is_object() => grow(block, "signature"),
            "input_json_delta" => {
                self.arguments
                    .entry(index)
                    .or_default()
                    .push_str(delta["partial_json"].as_str().unwrap_or_default());
            }
            _ => {}
        }
    }

    fn end(mut self) -> Result<Reply, Broken> {
        if !self.ended {
            return Err(Broken { what: "the stream ends in the middle".to_string(), usage: self.usage });
        }
        for (index, text) in std::mem::take(&mut self.arguments) {
            if let Some(block) = self.blocks.get_mut(&index).filter(|block| block.is_object())
                && !text.trim().is_empty()
            {
                // What is no JSON stays text: the tool says what is wrong with it.
                block["input"] = serde_json::from_str(&text).unwrap_or(Value::String(text));
            }
        }
        let parts = self.blocks.values().filter_map(part).collect();
        Ok(Reply { parts, stop: stop(self.stop.as_deref()), model: self.model, usage: self.usage })
    }
}

fn whole(message: &Value) -> Result<Reply, Broken> {
    let Some(content) = message["content"].as_array() else {
        return Err(Broken::new("a document without content".to_string()));
    };
    let mut stream = Stream::default();
    stream.count(&message["usage"]);
    Ok(Reply {
        parts: content.iter().filter_map(part).collect(),
        stop: stop(message["stop_reason"].as_str()),
        model: message["model"].as_str().unwrap_or_default().to_string(),
        usage: stream.usage,
    })
}

fn part(block: &Value) -> Option<Part> {
    match block["type"].as_str()? {
        "text" => Some(Part::Text { text: block["text"].as_str().unwrap_or_default().to_string() })
            .filter(|part| *part != Part::Text { text: String::new() }),
        "thinking" | "redacted_thinking" => Some(Part::Thought { block: block.clone() }),
        "tool_use" => Some(Part::Call {
            id: block["id"].as_str().unwrap_or_default().to_string(),
            name: block["name"].as_str().unwrap_or_default().to_string(),
            arguments: block["input"].clone(),
        }),
        _ => None,
    }
}

fn stop(reason: Option<&str>) -> Stop {
    match reason {
        Some("end_turn" | "stop_sequence") => Stop::End,
        Some("tool_use") => Stop::Tools,
        Some("max_tokens" | "model_context_window_exceeded") => Stop::Length,
        Some("refusal") => Stop::Refusal,
        Some(other) => Stop::Other(other.to_string()),
        None => Stop::Other("unknown".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: Value) -> String {
        format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
    }

    fn streamed(blocks: &[Value]) -> String {
        blocks.iter().cloned().map(event).collect()
    }

    #[test]
    fn a_stream_comes_to_its_parts() {
        let body = streamed(&[
            json!({"type": "message_start", "message": {"model": "m-2", "usage": {"input_tokens": 5, "cache_read_input_tokens": 90, "output_tokens": 1}}}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s1"}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "ping"}),
            json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t1", "name": "propose", "input": {}}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{\"a\":"}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": " 1}"}}),
            json!({"type": "content_block_stop", "index": 1}),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 42}}),
            json!({"type": "message_stop"}),
        ]);
        let read = reply(&body).unwrap();
        let thought = json!({"type": "thinking", "thinking": "hm", "signature": "s1"});
        assert_eq!(
            read.parts,
            [
                Part::Thought { block: thought.clone() },
                Part::Call { id: "t1".into(), name: "propose".into(), arguments: json!({"a": 1}) }
            ]
        );
        assert_eq!((read.model.as_str(), read.stop), ("m-2", Stop::Tools));
        assert_eq!(read.usage, Usage { input: 5, cache_write: 0, cache_read: 90, output: 42, known: true });
        assert_eq!(wire_part(&Part::Thought { block: thought.clone() }), thought);
        // Cut anywhere before its end it is no answer, and what it cost so far is known.
        for end in (1..body.len() - 20).step_by(7) {
            let broken = reply(&body[..end]).unwrap_err();
            assert!(end < 200 || broken.usage.input == 5, "{end} {broken:?}");
        }
    }

    #[test]
    fn the_stable_prefix_ends_what_is_cached() {
        let messages =
            [Message::user("state"), Message { role: Role::Assistant, parts: vec![] }, Message::user("more")];
        let ask = Ask { system: "told", messages: &messages, max_tokens: 4000 };
        let body = body(&ask, "m", Thinking::Budget);
        assert_eq!(body["system"][0]["cache_control"]["type"], "ephemeral");
        assert_eq!(body["messages"][0]["content"][0]["cache_control"]["type"], "ephemeral");
        assert_eq!(body["messages"][2]["content"][0]["cache_control"]["type"], "ephemeral");
        assert_eq!(body["thinking"]["budget_tokens"], 2400);
        assert_eq!(body["tools"].as_array().unwrap().len(), Tool::ALL.len());
        assert!(super::body(&ask, "m", Thinking::Off).get("thinking").is_none());
    }

    #[test]
    fn a_refusal_and_a_whole_document_are_read() {
        let document = json!({"model": "m", "content": [{"type": "text", "text": "no"}], "stop_reason": "refusal", "usage": {"input_tokens": 3, "output_tokens": 1}});
        assert_eq!(reply(&document.to_string()).unwrap().stop, Stop::Refusal);
        assert!(reply("{\"error\": 1}").is_err() && reply("").is_err() && reply("<html>").is_err());
    }
}
