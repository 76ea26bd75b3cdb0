//! A server on this machine that speaks the Messages API and chat completions, with a script for a model. It
//! refuses what the real ones refuse, and fails in every way they do when it is told to.
#![allow(dead_code)] // each user needs a part of it

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
    /// 1, 2, ... over all requests.
    pub(crate) number: usize,
}

/// What a scripted model says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) calls: Vec<(String, Value)>,
    pub(crate) refusal: bool,
    /// The model that answers, when it is not the one asked.
    pub(crate) model: Option<String>,
    /// Tokens it reports: sent and answered.
    pub(crate) usage: Option<(u64, u64)>,
}

impl Said {
    pub(crate) fn text(text: &str) -> Said {
        Said { text: text.to_string(), ..Said::default() }
    }

    pub(crate) fn call(name: &str, arguments: Value) -> Said {
        Said { calls: vec![(name.to_string(), arguments)], ..Said::default() }
    }
}

/// What the server does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// The model answers.
    Say(Said),
    /// A document with a status and headers.
    Document(u16, Vec<(&'static str, String)>, String),
    /// The answer, cut after this share of its bytes.
    Cut(Said, f64),
    /// The answer, a few bytes at a time.
    Slow(Said, Duration),
    /// The connection is closed without a word.
    Drop,
}

/// A document of an error, as both services write it.
pub(crate) fn error(status: u16, kind: &str) -> Act {
    let body = json!({"type": "error", "error": {"type": kind, "message": format!("{kind} for a test")}});
    Act::Document(status, Vec::new(), body.to_string())
}

/// A running server; it ends with the process.
pub(crate) struct Server {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Script = dyn FnMut(&Seen) -> Act + Send;

impl Server {
    /// Starts on a free port.
    pub(crate) fn start(script: impl FnMut(&Seen) -> Act + Send + 'static) -> Server {
        Server::at("127.0.0.1:0", script)
    }

    pub(crate) fn at(address: &str, script: impl FnMut(&Seen) -> Act + Send + 'static) -> Server {
        let listener = TcpListener::bind(address).expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let script: Arc<Mutex<Box<Script>>> = Arc::new(Mutex::new(Box::new(script)));
        let log = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, script) = (log.clone(), script.clone());
                std::thread::spawn(move || serve(stream, &log, &script));
            }
        });
        Server { address, seen }
    }

    /// For the Messages API.
    pub(crate) fn messages_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For chat completions.
    pub(crate) fn chat_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Seen>>, script: &Mutex<Box<Script>>) {
    let mut reader = BufReader::new(stream);
    while let Some(mut seen) = read_request(&mut reader) {
        let act = {
            let mut log = log.lock().unwrap();
            seen.number = log.len() + 1;
            log.push(seen.clone());
            drop(log);
            match refusal(&seen) {
                Some(why) => {
                    let body =
                        json!({"type": "error", "error": {"type": "invalid_request_error", "message": why}});
                    Act::Document(400, Vec::new(), body.to_string())
                }
                None => (script.lock().unwrap())(&seen),
            }
        };
        if !perform(reader.get_mut(), &seen, act) {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let path = line.split_whitespace().nth(1)?.to_string();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_string());
    }
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some(Seen { path, headers, body, number: 0 })
}

fn is_messages(seen: &Seen) -> bool {
    seen.path.starts_with("/v1/messages")
}

/// What the real services refuse.
fn refusal(seen: &Seen) -> Option<String> {
    let body = &seen.body;
    if !is_messages(seen) && !seen.path.ends_with("/chat/completions") {
        return Some(format!("no such path {}", seen.path));
    }
    if !body["model"].is_string() {
        return Some("model: field required".to_string());
    }
    let Some(messages) = body["messages"].as_array().filter(|messages| !messages.is_empty()) else {
        return Some("messages: at least one message is required".to_string());
    };
    if is_messages(seen) { messages_refusal(seen, messages) } else { chat_refusal(messages) }
}

fn messages_refusal(seen: &Seen, messages: &[Value]) -> Option<String> {
    if !seen.headers.contains_key("anthropic-version") {
        return Some("anthropic-version: header is required".to_string());
    }
    if seen.body["max_tokens"].as_u64().is_none() && !seen.path.ends_with("count_tokens") {
        return Some("max_tokens: field required".to_string());
    }
    if messages[0]["role"] != "user" {
        return Some("messages: first message must use the user role".to_string());
    }
    let mut open: Vec<String> = Vec::new();
    let mut marks = 0;
    for message in messages {
        let empty = Vec::new();
        let blocks = message["content"].as_array().unwrap_or(&empty);
        if message["content"].as_str().is_none_or(str::is_empty) && blocks.is_empty() {
            return Some("messages: all messages must have non-empty content".to_string());
        }
        let results: Vec<String> = blocks
            .iter()
            .filter(|block| block["type"] == "tool_result")
            .map(|block| block["tool_use_id"].as_str().unwrap_or_default().to_string())
            .collect();
        if results != open {
            return Some(format!("tool_use ids {open:?} were found without tool_result blocks: {results:?}"));
        }
        open = blocks
            .iter()
            .filter(|block| block["type"] == "tool_use")
            .map(|block| block["id"].as_str().unwrap_or_default().to_string())
            .collect();
        marks += blocks.iter().filter(|block| block["cache_control"].is_object()).count();
        for block in blocks {
            match block["type"].as_str() {
                Some("tool_use") if !block["input"].is_object() => {
                    return Some("tool_use.input: Input should be a valid dictionary".to_string());
                }
                Some("text") if block["text"].as_str().is_none_or(str::is_empty) => {
                    return Some("text content blocks must be non-empty".to_string());
                }
                Some("thinking") if block["signature"] != "signed" => {
                    return Some("Invalid signature in thinking block".to_string());
                }
                _ => {}
            }
        }
    }
    marks += seen.body["system"]
        .as_array()
        .map_or(0, |blocks| blocks.iter().filter(|block| block["cache_control"].is_object()).count());
    (marks > 4).then(|| format!("A maximum of 4 blocks with cache_control may be provided. Found {marks}."))
}

fn chat_refusal(messages: &[Value]) -> Option<String> {
    let mut open: Vec<&str> = Vec::new();
    for message in messages {
        match message["role"].as_str() {
            Some("tool") => {
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                let Some(at) = open.iter().position(|known| *known == id) else {
                    return Some(format!("tool_call_id {id} answers no call"));
                };
                open.remove(at);
            }
            Some("system" | "developer" | "user" | "assistant") if open.is_empty() => {
                let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
                open.extend(calls.iter().filter_map(|call| call["id"].as_str()));
                if calls.iter().any(|call| !call["function"]["arguments"].is_string()) {
                    return Some("function.arguments must be a string".to_string());
                }
            }
            Some(_) if !open.is_empty() => {
                return Some(format!("tool_calls {open:?} must be followed by tool messages"));
            }
            _ => return Some("messages: role is required".to_string()),
        }
    }
    None
}

/// Does it; whether the connection goes on.
fn perform(stream: &mut TcpStream, seen: &Seen, act: Act) -> bool {
    let (status, headers, body, pace) = match act {
        Act::Document(status, headers, body) => {
            let mut all = vec![("content-type", "application/json".to_string())];
            all.extend(headers);
            (status, all, body, Pace::Whole)
        }
        Act::Say(said) => said_body(seen, &said, Pace::Whole),
        Act::Cut(said, share) => said_body(seen, &said, Pace::Cut(share)),
        Act::Slow(said, pause) => said_body(seen, &said, Pace::Slow(pause)),
        Act::Drop => return false,
    };
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in &headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let bytes = body.as_bytes();
    let sent = match pace {
        Pace::Whole => stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(bytes)),
        Pace::Cut(share) => {
            let end = (bytes.len() as f64 * share) as usize;
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes[..end]));
            return false;
        }
        Pace::Slow(pause) => stream.write_all(head.as_bytes()).and_then(|()| {
            for piece in bytes.chunks(64) {
                stream.write_all(piece)?;
                std::thread::sleep(pause);
            }
            Ok(())
        }),
    };
    sent.is_ok()
}

enum Pace {
    Whole,
    Cut(f64),
    Slow(Duration),
}

type Response = (u16, Vec<(&'static str, String)>, String, Pace);

fn said_body(seen: &Seen, said: &Said, pace: Pace) -> Response {
    let stream = seen.body["stream"] == true;
    let body = match (is_messages(seen), stream) {
        (true, _) if seen.path.ends_with("count_tokens") => {
            json!({"input_tokens": usage(seen, said).0}).to_string()
        }
        (true, true) => messages_stream(seen, said),
        (true, false) => messages_document(seen, said).to_string(),
        (false, true) => chat_stream(seen, said),
        (false, false) => chat_document(seen, said).to_string(),
    };
    let kind = if stream { "text/event-stream" } else { "application/json" };
    (200, vec![("content-type", kind.to_string())], body, pace)
}

fn usage(seen: &Seen, said: &Said) -> (u64, u64) {
    said.usage.unwrap_or((seen.body.to_string().len() as u64 / 4, 50))
}

fn model(seen: &Seen, said: &Said) -> String {
    said.model.clone().unwrap_or_else(|| seen.body["model"].as_str().unwrap_or_default().to_string())
}

fn blocks(seen: &Seen, said: &Said) -> Vec<Value> {
    let mut blocks = Vec::new();
    if seen.body["thinking"].is_object() && seen.body["thinking"]["type"] != "disabled" {
        blocks.push(json!({"type": "thinking", "thinking": "let me see", "signature": "signed"}));
    }
    if !said.text.is_empty() {
        blocks.push(json!({"type": "text", "text": said.text}));
    }
    for (at, (name, input)) in said.calls.iter().enumerate() {
        blocks.push(json!({"type": "tool_use", "id": format!("toolu_{}_{at}", seen.number), "name": name, "input": input}));
    }
    blocks
}

fn stop_reason(said: &Said) -> &'static str {
    match (said.refusal, said.calls.is_empty()) {
        (true, _) => "refusal",
        (false, true) => "end_turn",
        (false, false) => "tool_use",
    }
}

fn messages_document(seen: &Seen, said: &Said) -> Value {
    let (input, output) = usage(seen, said);
    json!({
        "id": format!("msg_{}", seen.number), "type": "message", "role": "assistant", "model": model(seen, said),
        "content": blocks(seen, said), "stop_reason": stop_reason(said), "stop_sequence": null,
        "usage": {"input_tokens": input, "output_tokens": output}
    })
}

/// Two halves of a text, as streams deliver it.
fn halves(text: &str) -> [String; 2] {
    let at = text.chars().count() / 2;
    [text.chars().take(at).collect(), text.chars().skip(at).collect()]
}

fn messages_stream(seen: &Seen, said: &Said) -> String {
    let (input, output) = usage(seen, said);
    let mut start = messages_document(seen, said);
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"] = json!({"input_tokens": input, "output_tokens": 1});
    let mut events = vec![json!({"type": "message_start", "message": start}), json!({"type": "ping"})];
    for (index, block) in blocks(seen, said).into_iter().enumerate() {
        let delta = |delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        let (empty, deltas): (Value, Vec<Value>) = match block["type"].as_str().unwrap() {
            "thinking" => (
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                vec![
                    delta(json!({"type": "thinking_delta", "thinking": block["thinking"]})),
                    delta(json!({"type": "signature_delta", "signature": "signed"})),
                ],
            ),
            "text" => (
                json!({"type": "text", "text": ""}),
                halves(block["text"].as_str().unwrap())
                    .map(|text| delta(json!({"type": "text_delta", "text": text})))
                    .to_vec(),
            ),
            _ => (
                json!({"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}}),
                halves(&block["input"].to_string())
                    .map(|text| delta(json!({"type": "input_json_delta", "partial_json": text})))
                    .to_vec(),
            ),
        };
        events.push(json!({"type": "content_block_start", "index": index, "content_block": empty}));
        events.extend(deltas);
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    let delta = json!({"stop_reason": stop_reason(said), "stop_sequence": null});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": output}}));
    events.push(json!({"type": "message_stop"}));
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
        .collect()
}

fn chat_message(seen: &Seen, said: &Said) -> Value {
    let call = |(at, (name, arguments)): (usize, &(String, Value))| {
        json!({"id": format!("call_{}_{at}", seen.number), "type": "function",
            "function": {"name": name, "arguments": arguments.to_string()}})
    };
    let calls: Vec<Value> = said.calls.iter().enumerate().map(call).collect();
    let mut message = json!({"role": "assistant", "content": said.text});
    if seen.body["tools"].is_array() && !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    } else if let Some((name, arguments)) = said.calls.first() {
        message["content"] = json!(json!({"tool": name, "arguments": arguments}).to_string());
    }
    message
}

fn finish_reason(said: &Said) -> &'static str {
    match (said.refusal, said.calls.is_empty()) {
        (true, _) => "content_filter",
        (false, true) => "stop",
        (false, false) => "tool_calls",
    }
}

fn chat_document(seen: &Seen, said: &Said) -> Value {
    let (input, output) = usage(seen, said);
    json!({
        "id": format!("chatcmpl-{}", seen.number), "object": "chat.completion", "created": 0, "model": model(seen, said),
        "choices": [{"index": 0, "message": chat_message(seen, said), "finish_reason": finish_reason(said), "logprobs": null}],
        "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output}
    })
}

fn chat_stream(seen: &Seen, said: &Said) -> String {
    let mut delta = chat_message(seen, said);
    if let Some(calls) = delta["tool_calls"].as_array_mut() {
        for (index, call) in calls.iter_mut().enumerate() {
            call["index"] = json!(index);
        }
    }
    let chunk = |delta: Value, reason: Value| {
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": model(seen, said),
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
    };
    let chunks = [chunk(delta, Value::Null), chunk(json!({}), json!(finish_reason(said)))];
    chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect::<String>() + "data: [DONE]\n\n"
}
