//! One POST: headers, body, an answer or why there is none. No retries, no redirects (a key must not travel), no
//! protocol: what the bytes mean is said elsewhere.
//!
//! `ureq` rather than an asynchronous client: a researcher asks one question at a time, and needs no runtime.

use std::io::Read;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What is sent.
pub(super) struct Post {
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) patience: Patience,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until its first byte, and between two of them.
    pub idle: Duration,
    /// From start to end.
    pub total: Duration,
}

/// An answer, perhaps cut.
pub(super) struct Answered {
    pub(super) status: u16,
    /// Seconds, when the service says how long to wait.
    pub(super) retry_after_s: Option<f64>,
    pub(super) body: Vec<u8>,
    /// Why the body is not whole.
    pub(super) cut: Option<String>,
    pub(super) seconds: f64,
}

/// Why there is no answer.
pub(super) enum Lost {
    /// The campaign is to stop.
    Interrupted,
    /// No connection, or none that answered; seconds it took.
    NoAnswer(String, f64),
}

/// Bytes of an answer; a language model's longest is far below.
const MAX_BODY: usize = 8 << 20;

/// How often an interruption is looked for.
const POLL: Duration = Duration::from_millis(50);

/// Sends and waits, but no longer than until `interrupted`.
pub(super) fn post(post: Post, interrupted: &dyn Fn() -> bool) -> Result<Answered, Lost> {
    let start = Instant::now();
    let (sender, receiver) = channel();
    let total = post.patience.total;
    // The thread outlives an interruption by its own patience at most; its answer then goes nowhere.
    std::thread::spawn(move || {
        let _ = sender.send(exchange(&post));
    });
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(Ok(mut answered)) => {
                answered.seconds = start.elapsed().as_secs_f64();
                return Ok(answered);
            }
            Ok(Err(why)) => return Err(Lost::NoAnswer(why, start.elapsed().as_secs_f64())),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Lost::NoAnswer(
                    "the request ended without an answer".into(),
                    start.elapsed().as_secs_f64(),
                ));
            }
            Err(RecvTimeoutError::Timeout) if interrupted() => return Err(Lost::Interrupted),
            // A second more than the thread gives itself.
            Err(RecvTimeoutError::Timeout) if start.elapsed() > total + Duration::from_secs(1) => {
                return Err(Lost::NoAnswer("it took too long".to_string(), start.elapsed().as_secs_f64()));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn exchange(post: &Post) -> Result<Answered, String> {
    let loopback = is_loopback(&post.url);
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .https_only(!loopback)
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(post.patience.idle))
        .timeout_per_read(Some(post.patience.idle))
        .timeout_global(Some(post.patience.total))
        .user_agent(concat!("pawl/", env!("CARGO_PKG_VERSION")));
    if loopback {
        config = config.proxy(None);
    }
    let agent = ureq::Agent::new_with_config(config.build());
    let mut request = agent.post(&post.url);
    for (name, value) in &post.headers {
        request = request.header(*name, value);
    }
    let mut response = request.send(&post.body[..]).map_err(|error| error.to_string())?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after_s = header("retry-after").and_then(|value| value.trim().parse::<f64>().ok());
    let status = response.status().as_u16();
    let (body, cut) = read(response.body_mut().as_reader());
    Ok(Answered { status, retry_after_s: retry_after_s.filter(|s| *s >= 0.0), body, cut, seconds: 0.0 })
}

fn read(mut from: impl Read) -> (Vec<u8>, Option<String>) {
    let mut body = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return (body, None),
            Ok(n) => body.extend_from_slice(&buffer[..n]),
            Err(error) => return (body, Some(error.to_string())),
        }
        if body.len() > MAX_BODY {
            return (body, Some(format!("it is longer than {} MiB", MAX_BODY >> 20)));
        }
    }
}

/// Whether an address stays on this machine: the only case in which it may be plain http.
pub fn is_loopback(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // What stands before an @ is not the host.
    let host = authority.rsplit('@').next().unwrap_or_default();
    if let Some(v6) = host.strip_prefix('[') {
        return v6.split(']').next() == Some("::1");
    }
    let name = host.split(':').next().unwrap_or_default();
    name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// The address a key may be sent to: https, or http on this machine.
pub fn check_url(url: &str) -> Result<(), String> {
    let plain = url.starts_with("http://");
    match (url.starts_with("https://"), plain && is_loopback(url)) {
        (true, _) | (_, true) => Ok(()),
        (false, false) if plain => Err(format!("{url} is plain http, which is for this machine only")),
        (false, false) => Err(format!("{url} is not an http or https address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine() {
        for fine in
            ["https://api.example", "http://localhost:11434/v1", "http://127.0.0.1:8", "http://[::1]:80/x"]
        {
            assert_eq!(check_url(fine), Ok(()), "{fine}");
        }
        for wrong in [
            "http://api.example",
            "http://localhost.example",
            "http://localhost@example",
            "http://127.0.0.1.example/",
            "ftp://localhost",
            "localhost:80",
            "http://128.0.0.1",
            "http://example/?http://localhost",
        ] {
            assert!(check_url(wrong).is_err(), "{wrong}");
        }
    }
}
