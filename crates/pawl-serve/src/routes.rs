//! The paths, and the course of a request: checked, read, generated, answered whole or in pieces.

use crate::State;
use crate::answers::{Choice, Form};
use crate::asked::{Asked, Prompt, messages, prompts};
use crate::engine::Tokens;
use crate::guard::{Guard, admit};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pawl_model::Request;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::mpsc;

/// Tokens of a completion that names no number, as the service that set the form does it.
const DEFAULT_TOKENS: usize = 16;
/// Pieces of an answer that may wait for a slow reader before generation of the next waits too.
const PIECES: usize = 64;

pub(crate) fn router(state: Arc<State>, guard: Arc<Guard>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/models", get(models))
        .route("/metrics", get(metrics))
        // The guard has read the body, up to its own limit.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(guard, admit))
        .route("/health", get(health))
        .with_state(state)
}

/// An answer that is no answer, in the form that clients know.
struct Trouble {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl Trouble {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Trouble {
        Trouble { status, kind, message: message.into() }
    }

    fn wrong(message: impl Into<String>) -> Trouble {
        Trouble::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let error = json!({ "message": self.message, "type": self.kind, "param": null, "code": null });
        json_response(self.status, &json!({ "error": error }))
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn health(Shared(state): Shared<Arc<State>>) -> Response {
    let body = json!({ "status": "ok", "pending": state.engine.num_pending() });
    json_response(StatusCode::OK, &body)
}

async fn models(Shared(state): Shared<Arc<State>>) -> Response {
    let model = json!({ "id": state.name, "object": "model", "created": state.created_unix_s, "owned_by": "pawl",
                        "max_model_len": state.seq_len });
    json_response(StatusCode::OK, &json!({ "object": "list", "data": [model] }))
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.metrics.text(state.engine.num_pending())).into_response()
}

async fn chat(state: Shared<Arc<State>>, body: Bytes) -> Response {
    answer(Form::Chat, state, &body).await
}

async fn completions(state: Shared<Arc<State>>, body: Bytes) -> Response {
    answer(Form::Completion, state, &body).await
}

async fn answer(form: Form, Shared(state): Shared<Arc<State>>, body: &[u8]) -> Response {
    let begun = Instant::now();
    let answered = match begin(form, &state, body) {
        Ok((job, tokens)) if job.asked.stream => Ok(streamed(state.clone(), job, tokens)),
        Ok((job, tokens)) => whole(&state, job, tokens).await,
        Err(trouble) => Err(trouble),
    };
    let response = answered.unwrap_or_else(IntoResponse::into_response);
    state.metrics.answered(form.path(), response.status().as_u16(), begun.elapsed());
    response
}

/// A request under way.
struct Job {
    form: Form,
    asked: Asked,
    id: String,
    prompt_tokens: usize,
    choices: Vec<Choice>,
}

fn begin(form: Form, state: &State, body: &[u8]) -> Result<(Job, Vec<Tokens>), Trouble> {
    let body: Value =
        serde_json::from_slice(body).map_err(|why| Trouble::wrong(format!("not JSON: {why}")))?;
    let asked = Asked::of(&body, form == Form::Chat).map_err(Trouble::wrong)?;
    let (prompts, ends) = match form {
        Form::Chat => {
            let chat = state.chat.as_ref().ok_or_else(|| Trouble::wrong("this model has no chat format"))?;
            let messages = messages(&body["messages"]).map_err(Trouble::wrong)?;
            let prompt = chat.ask(&state.tokenizer, &messages);
            let prompt = prompt.map_err(|why| Trouble::wrong(why.to_string()))?;
            (vec![prompt], chat.ends(&state.tokenizer))
        }
        Form::Completion => {
            let prompts = prompts(&body["prompt"], state.vocab_size).map_err(Trouble::wrong)?;
            let tokens = |prompt| match prompt {
                Prompt::Text(text) => state.tokenizer.prompt(&text),
                Prompt::Tokens(tokens) if tokens.is_empty() => state.tokenizer.prompt(""),
                Prompt::Tokens(tokens) => tokens,
            };
            (prompts.into_iter().map(tokens).collect::<Vec<_>>(), state.tokenizer.roles().ends.clone())
        }
    };
    // Counted over all requests, so that two that name no seed differ.
    static NUM_REQUESTS: AtomicU64 = AtomicU64::new(0);
    let number = NUM_REQUESTS.fetch_add(1, Ordering::Relaxed);
    let drawn = blake3::hash(&[state.seed.to_le_bytes(), number.to_le_bytes()].concat());
    let drawn = u64::from_le_bytes(drawn.as_bytes()[..8].try_into().expect("eight bytes"));
    let seed = asked.seed.unwrap_or(drawn);
    let (mut requests, mut choices) = (Vec::new(), Vec::new());
    for prompt in &prompts {
        if prompt.len() > state.seq_len {
            let (has, most) = (prompt.len(), state.seq_len);
            return Err(Trouble::wrong(format!("the prompt has {has} tokens, this model takes {most}")));
        }
        let room = state.seq_len + 1 - prompt.len();
        let default = if form == Form::Chat { room } else { DEFAULT_TOKENS };
        for _ in 0..asked.num_choices {
            let index = choices.len();
            let echo = asked.echo.then_some(&prompt[..]);
            choices.push(Choice::new(index, &asked.stops, echo, &state.tokenizer));
            requests.push(Request {
                prompt: prompt.clone(),
                max_tokens: asked.max_tokens.unwrap_or(default).min(room),
                settings: asked.settings(seed, index),
                ends: ends.clone(),
                num_top: asked.log_probs.unwrap_or(0),
                echo: asked.echo && asked.log_probs.is_some(),
            });
        }
    }
    let tokens = state.engine.submit(requests).ok_or_else(|| {
        Trouble::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            "too many texts wait; ask again later",
        )
    })?;
    let prompt_tokens = prompts.iter().map(Vec::len).sum();
    let id = format!("{}-{number:x}", form.id_prefix());
    Ok((Job { form, asked, id, prompt_tokens, choices }, tokens))
}

impl Job {
    fn log_probs(&self) -> bool {
        self.asked.log_probs.is_some()
    }

    fn usage(&self) -> Value {
        let drawn: usize = self.choices.iter().map(|choice| choice.num_drawn).sum();
        json!({ "prompt_tokens": self.prompt_tokens, "completion_tokens": drawn,
                "total_tokens": self.prompt_tokens + drawn })
    }

    fn document(&self, state: &State, choices: Vec<Value>, streamed: bool) -> Value {
        json!({
            "id": self.id,
            "object": self.form.object(streamed),
            "created": state.created_unix_s,
            "model": state.name,
            "choices": choices,
        })
    }
}

async fn whole(state: &State, mut job: Job, mut tokens: Vec<Tokens>) -> Result<Response, Trouble> {
    let all = async {
        for (choice, tokens) in job.choices.iter_mut().zip(&mut tokens) {
            while choice.finish.is_none() {
                choice.hear(tokens.recv().await, &state.tokenizer);
            }
            // A text that ended by its words still draws: nobody listens any more.
            tokens.close();
        }
    };
    if tokio::time::timeout(state.timeout, all).await.is_err() {
        let message = format!("no answer within {} s", state.timeout.as_secs());
        return Err(Trouble::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message));
    }
    if job.choices.iter().any(|choice| choice.finish == Some("error")) {
        return Err(Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "generation has ended"));
    }
    let (form, log_probs) = (job.form, job.log_probs());
    let choices = job.choices.iter_mut().map(|choice| choice.take(form, false, log_probs, &state.tokenizer));
    let choices = choices.collect();
    let mut document = job.document(state, choices, false);
    document["usage"] = job.usage();
    Ok(json_response(StatusCode::OK, &document))
}

/// Events as a stream of pieces.
struct Pieces(mpsc::Receiver<Event>);

impl futures_core::Stream for Pieces {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|event| event.map(Ok))
    }
}

fn streamed(state: Arc<State>, job: Job, tokens: Vec<Tokens>) -> Response {
    let (pieces, receiver) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let timeout = state.timeout;
        let told = tell(&state, job, tokens, &pieces);
        if let Err(late) = tokio::time::timeout(timeout, told).await {
            let error = json!({ "error": { "message": late.to_string(), "type": "timeout" } });
            // Whoever has gone needs no excuse.
            let _ = pieces.send(Event::default().data(error.to_string())).await;
        }
    });
    Sse::new(Pieces(receiver)).into_response()
}

/// Sends pieces as they come; ends early when the reader has gone.
async fn tell(state: &State, mut job: Job, mut tokens: Vec<Tokens>, pieces: &mpsc::Sender<Event>) {
    let (form, log_probs) = (job.form, job.log_probs());
    let send = |document: Value| pieces.send(Event::default().data(document.to_string()));
    if form == Form::Chat {
        let roles = (0..job.choices.len())
            .map(|index| json!({ "index": index, "delta": { "role": "assistant", "content": "" }, "finish_reason": null }));
        let document = job.document(state, roles.collect(), true);
        if send(document).await.is_err() {
            return;
        }
    }
    while job.choices.iter().any(|choice| choice.finish.is_none()) {
        let (at, emitted) = next(&job.choices, &mut tokens).await;
        let choice = &mut job.choices[at];
        choice.hear(emitted, &state.tokenizer);
        if choice.finish.is_some() {
            tokens[at].close();
        }
        if choice.has_news() {
            let piece = choice.take(form, true, log_probs, &state.tokenizer);
            let document = job.document(state, vec![piece], true);
            if send(document).await.is_err() {
                return;
            }
        }
    }
    if job.asked.stream_usage {
        let mut document = job.document(state, Vec::new(), true);
        document["usage"] = job.usage();
        if send(document).await.is_err() {
            return;
        }
    }
    // The last piece; a reader that has gone misses nothing.
    let _ = pieces.send(Event::default().data("[DONE]")).await;
}

/// The next token of any answer that has not ended.
async fn next(choices: &[Choice], tokens: &mut [Tokens]) -> (usize, Option<pawl_model::Emitted>) {
    std::future::poll_fn(|context| {
        for (at, tokens) in tokens.iter_mut().enumerate().filter(|(at, _)| choices[*at].finish.is_none()) {
            if let Poll::Ready(emitted) = tokens.poll_recv(context) {
                return Poll::Ready((at, emitted));
            }
        }
        Poll::Pending
    })
    .await
}
