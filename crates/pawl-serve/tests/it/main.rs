//! The server as a client meets it: over a socket, byte by byte.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod mcp;

use pawl_data::{ChatFormat, Tokenizer, Vocabulary};
use pawl_model::{DecodeOptions, Emitted, Generator, Model, Request, SamplerSettings};
use pawl_recipe::{Overrides, Recipe, Source, shipped, std_only};
use pawl_record::{Message, Role, SettingValue};
use pawl_serve::{Bounds, ServeError, ServeOptions, Served, serve};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

const VOCAB: usize = 290;

fn model() -> Model {
    let source = Source { name: "llama".into(), text: shipped("llama").unwrap().into() };
    let values = [
        ("vocab_size", VOCAB as i64),
        ("seq_len", 64),
        ("tokens_per_step", 64),
        ("width", 32),
        ("head_dim", 8),
    ];
    let values = values.map(|(name, n)| (name.to_string(), SettingValue::Int(n))).into();
    let recipe = Recipe::load(&source, &Overrides { depth: Some(2), values }, &std_only).unwrap();
    let mut model = Model::frozen(recipe, 1).unwrap();
    model.draw(21);
    model.tensor_mut("embed.weight").unwrap().floats_mut().iter_mut().for_each(|x| *x *= 30.0);
    model
}

fn tokenizer() -> Tokenizer {
    Tokenizer::train(&["the cat sat on the mat and the dog ate the hat".repeat(9)], VOCAB, 1).unwrap()
}

fn options() -> ServeOptions {
    ServeOptions {
        address: "127.0.0.1:0".parse().unwrap(),
        token: None,
        batch: 2,
        max_waiting: 6,
        max_request_bytes: 20_000,
        timeout: Duration::from_secs(60),
        bounds: Bounds::default(),
        seed: 0,
    }
}

/// A server that ends with the test.
struct Running {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn new(options: ServeOptions) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, address) = mpsc::channel();
        let asked = stop.clone();
        let thread = std::thread::spawn(move || {
            let served =
                Served { name: "abc".into(), tokenizer: tokenizer(), model: model(), created_unix_s: 7 };
            serve(served, &options, &asked, |at| ready.send(at).unwrap()).unwrap();
        });
        Running { address: address.recv().unwrap(), stop, thread: Some(thread) }
    }

    /// Status and body of one request with these further header lines.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.address).unwrap();
        let host =
            if headers.contains("Host:") { String::new() } else { format!("Host: {}\r\n", self.address) };
        let head = format!("{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n");
        let length = body.len();
        socket.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A server that has refused what it did not read may reset the connection behind its answer.
        let _ = socket.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.ask("POST", path, "", &body.to_string());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn fine(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

const COMPLETIONS: &str = "/v1/completions";

/// Tokens and log-probabilities without a server.
fn directly(prompt: Vec<u32>, max_tokens: usize, settings: SamplerSettings) -> Vec<(u32, f32)> {
    let mut generator = Generator::new(&model(), 1, DecodeOptions::default()).unwrap();
    let ends = tokenizer().roles().ends.clone();
    generator.submit(0, Request { prompt, max_tokens, settings, ends, ..Request::default() }).unwrap();
    let mut tokens = Vec::new();
    generator.run(&mut |_, emitted| {
        if let Emitted::Token { token, .. } = emitted {
            tokens.push((token.token, token.log_prob));
        }
        true
    });
    tokens
}

#[test]
fn completions_are_those_of_the_model() {
    let (server, tokenizer) = (Running::new(options()), tokenizer());
    let prompt = tokenizer.prompt("the cat");
    let greedy = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
    let expected = directly(prompt.clone(), 12, greedy);
    let body = json!({ "prompt": "the cat", "max_tokens": 12, "temperature": 0, "logprobs": 2 });
    let answer = server.fine(COMPLETIONS, &body);
    let choice = &answer["choices"][0];
    let tokens: Vec<u32> = expected.iter().map(|(token, _)| *token).collect();
    assert_eq!(choice["text"], tokenizer.decode(&tokens));
    assert_eq!(choice["logprobs"]["token_ids"], json!(tokens));
    for (told, (_, log_prob)) in
        choice["logprobs"]["token_logprobs"].as_array().unwrap().iter().zip(&expected)
    {
        assert_eq!(told.as_f64().unwrap(), f64::from(*log_prob));
    }
    assert_eq!(answer["usage"]["prompt_tokens"], prompt.len());
    assert_eq!(answer["usage"]["completion_tokens"], expected.len());
    assert_eq!(answer["model"], "abc");

    // Several prompts, several answers each, each drawn by a seed of its own.
    let prompts = json!([prompt, tokenizer.prompt("a dog")]);
    let body = json!({ "prompt": prompts, "max_tokens": 5, "seed": 3, "n": 2, "logprobs": 0 });
    let answer = server.fine(COMPLETIONS, &body);
    for (index, text) in ["the cat", "the cat", "a dog", "a dog"].into_iter().enumerate() {
        let settings = SamplerSettings { seed: 3 + index as u64, ..SamplerSettings::default() };
        let expected: Vec<u32> =
            directly(tokenizer.prompt(text), 5, settings).iter().map(|(token, _)| *token).collect();
        assert_eq!(answer["choices"][index]["logprobs"]["token_ids"], json!(expected), "{index}");
        assert_eq!(answer["choices"][index]["index"], index);
    }
}

#[test]
fn echo_tells_the_log_probabilities_of_the_prompt() {
    let (server, tokenizer) = (Running::new(options()), tokenizer());
    let prompt = tokenizer.prompt("the cat sat");
    let body = json!({ "prompt": [prompt], "max_tokens": 0, "echo": true, "logprobs": 1 });
    let answer = server.fine(COMPLETIONS, &body);
    let told = &answer["choices"][0]["logprobs"];
    assert_eq!(told["token_ids"], json!(prompt));
    assert!(told["token_logprobs"][0].is_null() && told["top_logprobs"][0].is_null());
    // The likeliest of the first place is what a greedy text begins with.
    let greedy = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
    let (token, log_prob) = directly(prompt[..1].to_vec(), 1, greedy)[0];
    let top = told["top_logprobs"][1].as_object().unwrap();
    assert_eq!(top[&tokenizer.decode(&[token])].as_f64().unwrap(), f64::from(log_prob));
    assert_eq!(answer["choices"][0]["text"], tokenizer.decode(&prompt));
    let one = json!({ "prompt": [prompt], "max_tokens": 1, "echo": true, "logprobs": 1, "temperature": 0 });
    let one = server.fine(COMPLETIONS, &one);
    let longer = one["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().clone();
    assert_eq!(longer[..prompt.len()], told["token_logprobs"].as_array().unwrap()[..]);
    assert_eq!(longer.len(), prompt.len() + 1);
}

#[test]
fn a_streamed_answer_is_the_whole_one_in_pieces() {
    let server = Running::new(options());
    let messages =
        json!([{ "role": "system", "content": "short" }, { "role": "user", "content": "the cat" }]);
    for (path, mut body) in [
        ("/v1/chat/completions", json!({ "messages": messages, "max_tokens": 9, "seed": 5 })),
        (COMPLETIONS, json!({ "prompt": "the dog", "max_tokens": 9, "seed": 5 })),
    ] {
        let whole = server.fine(path, &body);
        body["stream"] = true.into();
        body["stream_options"] = json!({ "include_usage": true });
        let (status, text) = server.ask("POST", path, "", &body.to_string());
        assert_eq!(status, 200);
        let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(events.last(), Some(&"[DONE]"));
        let pieces: Vec<Value> =
            events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let said = |piece: &Value| {
            let choice = &piece["choices"][0];
            choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or("").to_string()
        };
        let joined: String = pieces.iter().map(said).collect();
        let choice = &whole["choices"][0];
        let expected = choice["message"]["content"].as_str().or(choice["text"].as_str()).unwrap();
        assert_eq!(joined, expected, "{path}");
        assert!(pieces.len() > 4, "{path}: in pieces");
        assert_eq!(pieces[pieces.len() - 1]["usage"], whole["usage"]);
        assert_eq!(pieces[pieces.len() - 2]["choices"][0]["finish_reason"], choice["finish_reason"]);
    }
}

#[test]
fn stop_strings_end_a_text_before_them() {
    let server = Running::new(options());
    let mut body = json!({ "prompt": "the", "max_tokens": 30, "temperature": 0, "logprobs": 0 });
    let whole = server.fine(COMPLETIONS, &body)["choices"][0]["text"].as_str().unwrap().to_string();
    let middle: Vec<(usize, char)> = whole.char_indices().filter(|(_, c)| c.is_ascii_graphic()).collect();
    let (at, c) = middle[middle.len() / 2];
    let first = whole.find(c).unwrap().min(at);
    body["stop"] = json!([c.to_string()]);
    let stopped = server.fine(COMPLETIONS, &body);
    assert_eq!(stopped["choices"][0]["text"], whole[..first]);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
}

#[test]
fn only_this_machine_and_who_has_the_token_is_answered() {
    let server = Running::new(options());
    let models = |headers: &str| server.ask("GET", "/v1/models", headers, "").0;
    assert_eq!(models(""), 200);
    assert_eq!(models("Host: localhost:1\r\nOrigin: http://localhost:3\r\n"), 200);
    assert_eq!(models("Host: attacker.example\r\n"), 403);
    assert_eq!(models("Origin: https://attacker.example\r\n"), 403);
    assert_eq!(models("Origin: null\r\n"), 403);
    assert_eq!(server.ask("POST", COMPLETIONS, "Host: attacker.example\r\n", "{}").0, 403);
    let guarded = Running::new(ServeOptions { token: Some("a token of some length".into()), ..options() });
    let models = |headers: &str| guarded.ask("GET", "/v1/models", headers, "").0;
    assert_eq!(models(""), 401);
    assert_eq!(models("Authorization: Bearer a token of other length\r\n"), 401);
    assert_eq!(models("Authorization: Bearer a token of some length\r\n"), 200);
    assert_eq!(guarded.ask("GET", "/health", "", "").0, 200);
    let open = ServeOptions { address: "0.0.0.0:0".parse().unwrap(), ..options() };
    let served = Served { name: "abc".into(), tokenizer: tokenizer(), model: model(), created_unix_s: 7 };
    let refused = serve(served, &open, &AtomicBool::new(true), |_| ());
    assert!(matches!(refused, Err(ServeError::NoToken { .. })));
}

#[test]
fn what_is_too_much_or_wrong_is_refused_and_the_server_goes_on() {
    let server = Running::new(options());
    let wrong = |body: Value| server.post(COMPLETIONS, &body).0;
    assert_eq!(wrong(json!({ "prompt": "x".repeat(30_000) })), 413);
    assert_eq!(wrong(json!({ "prompt": "q w ".repeat(40) })), 400, "more tokens than positions");
    assert_eq!(wrong(json!({ "prompt": "a", "n": 9, "max_tokens": 4 })), 429, "more texts than may wait");
    assert_eq!(wrong(json!({ "prompt": [VOCAB] })), 400);
    assert_eq!(wrong(json!({ "prompt": "a", "temperature": 1e9 })), 400);
    assert_eq!(wrong(json!({})), 400);
    assert_eq!(server.ask("POST", COMPLETIONS, "", "{\"prompt\":").0, 400);
    assert_eq!(
        server.post("/v1/chat/completions", &json!({ "messages": [{ "role": "x", "content": "" }] })).0,
        400
    );
    assert_eq!(server.ask("GET", "/v1/nothing", "", "").0, 404);
    assert_eq!(wrong(json!({ "prompt": "a", "n": 8, "max_tokens": 4 })), 200, "as many as may");
    let (_, metrics) = server.ask("GET", "/metrics", "", "");
    assert!(metrics.contains("pawl_answers_total{path=\"/v1/completions\",status=\"429\"} 1\n"), "{metrics}");
    assert!(metrics.contains("pawl_pending 0\n") && metrics.ends_with("# EOF\n"), "{metrics}");
}

/// What transformers 5.24 gives for the template of SmolLM2 and these messages.
#[test]
fn chat_ml_is_written_as_its_template_writes_it() {
    let own = tokenizer().vocabulary();
    let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from).into();
    tokens.extend(own.tokens[..256].iter().cloned());
    let template = "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a \
                    helpful AI assistant<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role']}}";
    let vocabulary = Vocabulary {
        special: (0..tokens.len()).map(|id| id < 3).collect(),
        tokens,
        splitter: "gpt-2".into(),
        bos: Some(1),
        eos: Some(2),
        chat_template: Some(template.into()),
        ..Vocabulary::default()
    };
    let tokenizer = Tokenizer::from_vocabulary(vocabulary).unwrap();
    let format = ChatFormat::of(&tokenizer).unwrap();
    let tokens = format.ask(&tokenizer, &[Message::new(Role::User, "Hi<|im_end|>")]).unwrap();
    assert_eq!(
        tokenizer.decode(&tokens),
        "<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n<|im_start|>user\nHi<|im_end|><|im_end|>\n\
         <|im_start|>assistant\n"
    );
    assert_eq!(tokens.iter().filter(|token| **token == 2).count(), 2, "what a user writes ends nothing");
    let said = [Message::new(Role::System, "S"), Message::new(Role::User, "U")];
    let tokens = format.ask(&tokenizer, &said).unwrap();
    assert!(tokenizer.decode(&tokens).starts_with("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU"));
    assert_eq!(format.ends(&tokenizer)[0], 2);
    // What is taught: the answer and the token that ends it, nothing that a template writes.
    let talk = [Message::new(Role::User, "U"), Message::new(Role::Assistant, "A")];
    let rendered = format.render(&tokenizer, &talk).unwrap();
    let taught: Vec<u32> = rendered
        .tokens
        .iter()
        .zip(&rendered.taught)
        .filter(|(_, taught)| **taught)
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(tokenizer.decode(&taught), "A<|im_end|>");
}

#[test]
fn who_dawdles_is_given_up_and_connections_are_counted() {
    let bounds = Bounds { connections: 1, patience: Duration::from_millis(300) };
    let server = Running::new(ServeOptions { bounds, ..options() });
    let read = |socket: &mut TcpStream| {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).map(|_| answer)
    };
    // No request at all, half a head, half a body, and nothing after an answer.
    let mut silent = TcpStream::connect(server.address).unwrap();
    assert_eq!(read(&mut silent).unwrap(), "");
    let mut half = TcpStream::connect(server.address).unwrap();
    half.write_all(b"GET /health HTTP/1.1\r\nHost: loc").unwrap();
    assert!(!read(&mut half).unwrap().contains("200 OK"));
    let mut slow = TcpStream::connect(server.address).unwrap();
    let head = format!("POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{");
    slow.write_all(head.as_bytes()).unwrap();
    assert!(read(&mut slow).unwrap().starts_with("HTTP/1.1 408"));
    let mut idle = TcpStream::connect(server.address).unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(read(&mut idle).unwrap().starts_with("HTTP/1.1 200"));

    // One place: the second comes in when the first has gone.
    let bounds = Bounds { connections: 1, patience: Duration::from_secs(60) };
    let server = Running::new(ServeOptions { bounds, ..options() });
    let mut first = TcpStream::connect(server.address).unwrap();
    first.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    first.read_exact(&mut [0; 12]).unwrap();
    let mut second = TcpStream::connect(server.address).unwrap();
    second.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    second.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(second.read(&mut [0; 12]).is_err());
    drop(first);
    second.set_read_timeout(None).unwrap();
    assert!(read(&mut second).unwrap().starts_with("HTTP/1.1 200"));
}
