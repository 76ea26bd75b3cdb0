//! Who may ask, and how much. On this machine: whoever names it as this machine, so that a page of another site that a
//! browser shows cannot (its name for us, or its origin, gives it away). From elsewhere: whoever has the token, and no
//! page of another site either. Nothing of a request's body is read before that is settled.

use crate::ServeError;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The rules of one server.
pub(crate) struct Guard {
    token: Option<blake3::Hash>,
    is_local: bool,
    max_bytes: usize,
    patience: Duration,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It names us as something else.
    Host,
    /// A page of another site asks.
    Origin,
    /// No token, or another.
    Token,
    /// A longer body than is read, or one that was cut.
    Body(usize),
    /// The body does not come.
    Late(Duration),
}

impl Guard {
    /// The guard of a server at `address`, which may do without a token only where no other machine reaches it.
    pub(crate) fn new(
        address: SocketAddr,
        token: Option<&str>,
        max_bytes: usize,
        patience: Duration,
    ) -> Result<Guard, ServeError> {
        let is_local = address.ip().is_loopback();
        if !is_local && token.is_none() {
            return Err(ServeError::NoToken { address });
        }
        Ok(Guard { token: token.map(|token| blake3::hash(token.as_bytes())), is_local, max_bytes, patience })
    }

    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or(""));
        let host = text("host").unwrap_or("");
        if self.is_local && !is_this_machine(host) {
            return Err(Refused::Host);
        }
        if let Some(origin) = text("origin") {
            let site = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
            let is_ours = |site: &str| site == host || (self.is_local && is_this_machine(site));
            if !site.is_some_and(is_ours) {
                return Err(Refused::Origin);
            }
        }
        let Some(token) = &self.token else { return Ok(()) };
        let given = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
        // Hashes are compared in constant time.
        match given {
            Some(given) if blake3::hash(given.trim().as_bytes()) == *token => Ok(()),
            Some(_) | None => Err(Refused::Token),
        }
    }

    /// The request with its body, once that is here.
    async fn read(&self, request: Request) -> Result<Request, Refused> {
        self.check(request.headers())?;
        let (parts, body) = request.into_parts();
        let bytes = tokio::time::timeout(self.patience, to_bytes(body, self.max_bytes)).await;
        let bytes = bytes.map_err(|_| Refused::Late(self.patience))?;
        let bytes = bytes.map_err(|_| Refused::Body(self.max_bytes))?;
        Ok(Request::from_parts(parts, Body::from(bytes)))
    }
}

/// Lets a request through, or answers it itself.
pub(crate) async fn admit(Shared(guard): Shared<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.read(request).await {
        Ok(request) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, kind, message) = match self {
            Refused::Host => {
                (StatusCode::FORBIDDEN, "forbidden", "this server answers to localhost alone".to_string())
            }
            Refused::Origin => {
                (StatusCode::FORBIDDEN, "forbidden", "pages of other sites may not ask".to_string())
            }
            Refused::Token => (
                StatusCode::UNAUTHORIZED,
                "authentication_error",
                "send the server's token as Authorization: Bearer TOKEN".to_string(),
            ),
            Refused::Body(most) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_request_error",
                format!("the request has more than {most} bytes, or was cut"),
            ),
            Refused::Late(patience) => (
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                format!("the request did not come within {} s", patience.as_secs_f64()),
            ),
        };
        let error = json!({ "message": message, "type": kind, "param": null, "code": null });
        let body = json!({ "error": error }).to_string();
        (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
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

    #[test]
    fn from_elsewhere_only_our_own_pages_with_the_token_ask() {
        let address = "192.0.2.1:80".parse().unwrap();
        assert!(matches!(Guard::new(address, None, 1, Duration::ZERO), Err(ServeError::NoToken { .. })));
        let guard = Guard::new(address, Some("a long secret"), 1, Duration::ZERO).unwrap();
        let check = |lines: &[(&'static str, &'static str)]| {
            let lines = lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            guard.check(&lines.collect::<HeaderMap>())
        };
        let token = ("authorization", "Bearer a long secret");
        assert_eq!(check(&[("host", "lab.example"), token]), Ok(()));
        assert_eq!(check(&[("host", "lab.example"), ("origin", "https://lab.example"), token]), Ok(()));
        let foreign = [("host", "lab.example"), ("origin", "https://localhost"), token];
        assert_eq!(check(&foreign), Err(Refused::Origin));
        assert_eq!(check(&[("host", "lab.example")]), Err(Refused::Token));
    }
}
