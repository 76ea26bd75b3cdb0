//! The protocol of agents over a socket, in both of its eras, with a desk that has one tool of each kind.

use pawl_serve::mcp::{
    Answer, Desk, HttpOptions, Lane, MAX_CONNECTIONS, MAX_MESSAGE, Opening, Page, Tool, over_http,
};
use pawl_serve::{Bounds, ServeError};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

#[derive(Default)]
struct Toy {
    looks: AtomicUsize,
    gate: Mutex<Gate>,
    changed: Condvar,
}

/// What holds calls up.
#[derive(Default)]
struct Gate {
    open: bool,
    before_it: usize,
}

impl Toy {
    /// Comes back once the gate is open.
    fn pass(&self) {
        let mut gate = self.gate.lock().unwrap();
        gate.before_it += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(gate, |gate| !gate.open).unwrap());
    }

    /// Comes back once so many calls are held up.
    fn is_before_the_gate(&self, calls: usize) {
        drop(self.changed.wait_while(self.gate.lock().unwrap(), |gate| gate.before_it < calls).unwrap());
    }

    fn open(&self) {
        self.gate.lock().unwrap().open = true;
        self.changed.notify_all();
    }
}

impl Desk for Toy {
    fn instructions(&self) -> String {
        "A toy.".to_string()
    }

    fn tools(&self) -> Vec<Tool> {
        let tool = |name, reads_only| Tool {
            name,
            description: "one of the tools of a toy",
            schema: json!({"type": "object", "properties": {"x": {"type": "number"}}}),
            reads_only,
        };
        vec![
            tool("echo", true),
            tool("wrong", true),
            tool("later", true),
            tool("stuck", false),
            tool("waits", true),
        ]
    }

    fn pages(&self) -> Vec<Page> {
        let page = |name: &str| Page {
            uri: format!("toy://{name}"),
            name: name.into(),
            description: "a page".into(),
        };
        vec![page("page"), page("stuck")]
    }

    fn openings(&self) -> Vec<Opening> {
        let opening = |name| Opening { name, description: "a beginning" };
        vec![opening("begin"), opening("stuck")]
    }

    fn lane(&self, tool: &str) -> Lane {
        match tool {
            "stuck" => Lane::Compiles,
            "later" | "waits" => Lane::Waits,
            _ => Lane::Reads,
        }
    }

    fn call(&self, client: &str, tool: &str, arguments: &Value) -> Answer {
        let told = |text: String| Answer { text, refused: false, again: None };
        match tool {
            "echo" => told(format!("{client}: {arguments}")),
            "later" => {
                let looks = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
                Answer {
                    again: (looks < 3).then_some(Duration::from_secs(60)),
                    ..told(format!("look {looks}"))
                }
            }
            "stuck" | "waits" => {
                self.pass();
                told("free".into())
            }
            _ => Answer { refused: true, ..told("it is wrong".into()) },
        }
    }

    fn page(&self, uri: &str) -> Option<Result<String, String>> {
        if uri == "toy://stuck" {
            self.pass();
        }
        uri.starts_with("toy://").then(|| Ok("text".into()))
    }

    fn opening(&self, name: &str) -> Option<Result<String, String>> {
        if name == "stuck" {
            self.pass();
        }
        Some(Ok("words".into()))
    }
}

struct Running {
    desk: Arc<Toy>,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn new(token: Option<&str>) -> Running {
        let desk = Arc::new(Toy::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, address) = mpsc::channel();
        let options = HttpOptions {
            address: "127.0.0.1:0".parse().unwrap(),
            token: token.map(str::to_string),
            bounds: Bounds { connections: 128, patience: Duration::from_secs(30) },
        };
        let (asked, served) = (stop.clone(), desk.clone());
        let thread = std::thread::spawn(move || {
            over_http(served, &options, &asked, |at| ready.send(at).unwrap()).unwrap();
        });
        Running { desk, address: address.recv().unwrap(), stop, thread: Some(thread) }
    }

    /// Status and body of a message with these further header lines.
    fn post(&self, headers: &str, body: &str) -> (u16, String) {
        let host =
            if headers.contains("Host:") { String::new() } else { format!("Host: {}\r\n", self.address) };
        let head = format!(
            "POST /mcp HTTP/1.1\r\n{host}{headers}Connection: close\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        answer_to(self.address, format!("{head}{body}").as_bytes())
    }

    fn ask(&self, headers: &str, method: &str, params: Value) -> Value {
        let message = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let (status, text) = self.post(headers, &message.to_string());
        assert_eq!(status, 200, "{method}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["id"], 7, "{answer}");
        answer
    }

    /// A request of the era without a handshake.
    fn ask_new(&self, method: &str, mut params: Value) -> Value {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "newer", "version": "9"},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let name = params["name"].as_str().or(params["uri"].as_str());
        let name = name.map_or_else(String::new, |name| format!("Mcp-Name: {name}\r\n"));
        self.ask(
            &format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n{name}"),
            method,
            params,
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn answer_to(address: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A server that has refused what it did not read may reset the connection behind its answer.
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
}

fn initialize(version: &str) -> Value {
    json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "older", "version": "1"}})
}

#[test]
fn both_eras_are_spoken() {
    let server = Running::new(None);
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let told = server.ask("", "initialize", initialize(version));
        assert_eq!(told["result"]["protocolVersion"], version, "{told}");
        assert_eq!(told["result"]["serverInfo"]["name"], "pawl", "{told}");
    }
    let unknown = server.ask("", "initialize", initialize("1999-01-01"));
    assert_eq!(unknown["result"]["protocolVersion"], "2025-11-25", "{unknown}");
    let old = "MCP-Protocol-Version: 2025-06-18\r\nUser-Agent: older/1\r\n";
    let echo = json!({"name": "echo", "arguments": {"x": 0.5}});
    let told = server.ask(old, "tools/call", echo.clone());
    assert_eq!(told["result"]["content"][0]["text"], "older/1: {\"x\":0.5}", "{told}");

    let told = server.ask_new("server/discover", json!({}));
    assert!(told["result"]["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")), "{told}");
    let told = server.ask_new("tools/call", echo);
    assert_eq!(told["result"]["content"][0]["text"], "newer 9: {\"x\":0.5}", "{told}");
}

#[test]
fn tools_pages_and_openings_are_listed_and_used() {
    let server = Running::new(None);
    let tools = server.ask("", "tools/list", json!({}));
    let tools = tools["result"]["tools"].as_array().unwrap();
    assert_eq!(tools.len(), 5);
    assert_eq!((&tools[0]["name"], &tools[0]["annotations"]["readOnlyHint"]), (&json!("echo"), &json!(true)));
    assert_eq!(tools[3]["annotations"]["readOnlyHint"], false);
    let wrong = server.ask("", "tools/call", json!({"name": "wrong"}));
    assert_eq!(wrong["result"]["isError"], true, "{wrong}");
    assert_eq!(server.ask("", "tools/call", json!({"name": "promote"}))["error"]["code"], -32602);
    let page = server.ask("", "resources/read", json!({"uri": "toy://page"}));
    assert_eq!(page["result"]["contents"][0]["text"], "text", "{page}");
    assert!(server.ask("", "resources/read", json!({"uri": "file:///etc/passwd"}))["error"].is_object());
    assert!(server.ask("", "resources/read", json!({"uri": "toy://unlisted"}))["error"].is_object());
    let opening = server.ask("", "prompts/get", json!({"name": "begin"}));
    assert_eq!(opening["result"]["messages"][0]["content"]["text"], "words", "{opening}");
    assert!(server.ask("", "prompts/get", json!({"name": "end"}))["error"].is_object());
}

#[test]
fn what_is_not_over_is_looked_at_again() {
    let server = Running::new(None);
    let told = server.ask("", "tools/call", json!({"name": "later"}));
    assert_eq!(told["result"]["content"][0]["text"], "look 3", "{told}");
}

#[test]
fn strangers_are_refused_before_their_request_is_read() {
    let server = Running::new(Some("a token of some length"));
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    let status = |headers: &str| server.post(headers, &message).0;
    let token = "Authorization: Bearer a token of some length\r\n";
    assert_eq!(status(token), 200);
    assert_eq!(status(""), 401);
    assert_eq!(status("Authorization: Bearer a token of some lengtI\r\n"), 401);
    assert_eq!(status(&format!("{token}Host: attacker.example\r\n")), 403);
    assert_eq!(status(&format!("{token}Origin: https://attacker.example\r\n")), 403);
    assert_eq!(status(&format!("{token}Origin: null\r\n")), 403);
    assert_eq!(status(&format!("{token}Origin: http://localhost:3000\r\n")), 200);
    // The body that this head announces never comes, and is not waited for.
    let head = format!("POST /mcp HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000000\r\n\r\n", server.address);
    assert_eq!(answer_to(server.address, head.as_bytes()).0, 401);
    assert_eq!(server.post(token, &"x".repeat(MAX_MESSAGE + 1)).0, 413);
    let arguments = json!({"x": "y".repeat(1 << 20)});
    let call = json!({"name": "echo", "arguments": arguments});
    assert!(server.ask(token, "tools/call", call)["result"].is_object());
    let address = "0.0.0.0:0".parse().unwrap();
    let open = HttpOptions { address, token: None, bounds: Bounds::default() };
    let refused = over_http(server.desk.clone(), &open, &AtomicBool::new(true), |_| {});
    assert!(matches!(refused, Err(ServeError::NoToken { .. })));
}

/// Of 80 calls at once, those beyond the places of their queue are told so, and the others are done.
fn check_pile_up(method: &str, params: &Value) {
    let server = Running::new(None);
    let told: Vec<Value> = std::thread::scope(|scope| {
        let (sent, come) = mpsc::channel();
        for _ in 0..80 {
            let (sent, server) = (sent.clone(), &server);
            scope.spawn(move || sent.send(server.ask("", method, params.clone())).unwrap());
        }
        drop(sent);
        // Those that are sent away come first; then the others are let go.
        let mut told: Vec<Value> = (0..64).map(|_| come.recv().unwrap()).collect();
        server.desk.open();
        told.extend(come);
        told
    });
    let is_away = |told: &&Value| told.to_string().contains("16 calls wait already");
    let is_wrong = |told: &Value| told["error"].is_object() || told["result"]["isError"] == true;
    let (away, done): (Vec<&Value>, Vec<&Value>) = told.iter().partition(is_away);
    assert_eq!((away.len(), done.len()), (64, 16), "{method}: {told:?}");
    assert!(away.into_iter().all(is_wrong) && !done.into_iter().any(is_wrong), "{method}: {told:?}");
}

#[test]
fn calls_that_pile_up_are_sent_away() {
    check_pile_up("tools/call", &json!({"name": "stuck"}));
    check_pile_up("tools/call", &json!({"name": "waits"}));
    check_pile_up("resources/read", &json!({"uri": "toy://stuck"}));
    check_pile_up("prompts/get", &json!({"name": "stuck"}));
}

#[test]
fn no_queue_stands_in_the_way_of_another() {
    let server = Running::new(None);
    let call = |name: &str| server.ask("", "tools/call", json!({"name": name}))["result"].clone();
    std::thread::scope(|scope| {
        // Of each kind more than are at work at once: all seats of their queues are taken.
        let stuck: Vec<_> = (0..5).map(|_| scope.spawn(|| call("stuck"))).collect();
        server.desk.is_before_the_gate(2);
        assert_eq!(call("later")["content"][0]["text"], "look 3");
        let waits: Vec<_> = (0..5).map(|_| scope.spawn(|| call("waits"))).collect();
        server.desk.is_before_the_gate(4);
        assert_eq!(call("echo")["isError"], false);
        assert!(server.ask("", "resources/read", json!({"uri": "toy://page"}))["result"].is_object());
        assert!(server.ask("", "prompts/get", json!({"name": "begin"}))["result"].is_object());
        server.desk.open();
        for call in stuck.into_iter().chain(waits) {
            assert_eq!(call.join().unwrap()["content"][0]["text"], "free");
        }
    });
}

#[test]
fn connections_are_fewer_than_those_of_a_model() {
    let server = Running::new(None);
    let mut idle: Vec<TcpStream> =
        (0..MAX_CONNECTIONS).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let mut next = TcpStream::connect(server.address).unwrap();
    next.write_all(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).as_bytes()).unwrap();
    next.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(next.read(&mut [0]).is_err(), "it was answered beside {MAX_CONNECTIONS} others");
    idle.pop();
    next.set_read_timeout(None).unwrap();
    assert_eq!(next.read(&mut [0]).unwrap(), 1);
}
