//! The scripted server of the tests as a program of its own, for `cargo xtask interop`: the official SDKs talk to it
//! unchanged, so that what our client is tested against is what theirs are made for.
//!
//! Prints its address, and serves until it is ended. The model calls `effects` once and then says what it was told.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the tests")]

#[path = "../tests/it/model_server.rs"]
mod model_server;

use model_server::{Act, Said, Seen, Server, error};
use serde_json::json;
use std::io::Write;

/// The first request of a conversation with `fail first` in it is answered with a failure that clients retry.
fn scripted(seen: &Seen) -> Act {
    let messages = seen.body["messages"].as_array().unwrap();
    let last = messages.last().unwrap();
    let text = last.to_string();
    if text.contains("refuse") {
        return Act::Say(Said { refusal: true, ..Said::text("I decline.") });
    }
    if text.contains("wrong") {
        return error(401, "authentication_error");
    }
    let has_result = last["role"] == "tool" || text.contains("tool_result");
    match has_result {
        true => Act::Say(Said::text("The tool answered; there is nothing to add.")),
        false => {
            Act::Say(Said { text: "I look.".into(), ..Said::call("effects", json!({"category": "data"})) })
        }
    }
}

fn main() {
    let mut failed = false;
    let server = Server::start(move |seen| {
        if seen.body["messages"].to_string().contains("fail first") && !failed {
            failed = true;
            return error(529, "overloaded_error");
        }
        scripted(seen)
    });
    println!("{}", server.address);
    std::io::stdout().flush().unwrap();
    // Until whoever started it closes our input.
    let _ = std::io::stdin().read_line(&mut String::new());
}
