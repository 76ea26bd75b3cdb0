//! Who may ask. On this machine: whoever names it as this machine, so that a page of another site that a browser
//! shows cannot (its name for us, or its origin, gives it away). From elsewhere: whoever has the token.

use crate::State;
use axum::http::HeaderMap;

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It names us as something else.
    Host,
    /// A page of another site asks.
    Origin,
    /// No token, or another.
    Token,
}

pub(crate) fn check(state: &State, headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    if state.is_local {
        if !text("host").is_some_and(is_this_machine) {
            return Err(Refused::Host);
        }
        if let Some(origin) = text("origin") {
            let host = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
            if !host.is_some_and(is_this_machine) {
                return Err(Refused::Origin);
            }
        }
    }
    let Some(token) = &state.token else { return Ok(()) };
    let given = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    // Hashes are compared in constant time.
    match given {
        Some(given) if blake3::hash(given.trim().as_bytes()) == *token => Ok(()),
        Some(_) | None => Err(Refused::Token),
    }
}

/// Whether a `Host` header means the loopback interface.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:1", "[::1]"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            "localhost.evil.com",
            "evil.com:80",
            "127.0.0.1.evil.com",
            "localhost:",
            "localhost:x",
            "127.0.0.10",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
