//! What others speak to. A model over HTTP, in the form that programs for OpenAI's service already speak: chat and
//! completions, streamed or whole, with log-probabilities; and [`mcp`], a desk of tools for agents.
//!
//! It listens where it is told and nowhere else, asks whoever is not on this machine for a token, and bounds what a
//! request may cost. It reads no file and trains nothing.

mod answers;
mod asked;
mod engine;
mod guard;
mod listen;
pub mod mcp;
mod metrics;
mod queue;
mod routes;

use axum::Router;
use engine::Engine;
use guard::Guard;
pub use listen::Bounds;
use metrics::Metrics;
use pawl_data::{ChatFormat, Tokenizer};
use pawl_model::{DecodeError, DecodeOptions, Model};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What is served.
pub struct Served {
    /// The model's name in answers: the id of its run.
    pub name: String,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// The model.
    pub model: Model,
    /// When its run was made, seconds since 1970.
    pub created_unix_s: u64,
}

/// Where, for whom, and how much.
pub struct ServeOptions {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Asked for as `Authorization: Bearer TOKEN`; required off this machine.
    pub token: Option<String>,
    /// Texts in generation at once.
    pub batch: usize,
    /// Texts that may wait beside them.
    pub max_waiting: usize,
    /// Bytes of a request.
    pub max_request_bytes: usize,
    /// Longest that an answer may take.
    pub timeout: Duration,
    /// What those who connect may take.
    pub bounds: Bounds,
    /// Keys the draws of requests that name no seed.
    pub seed: u64,
}

/// Serving failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The recipe cannot be run one position at a time.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Others could reach the address without a token.
    #[error("{address} can be reached from other machines, and no token was given")]
    NoToken {
        /// Which.
        address: SocketAddr,
    },
    /// The operating system refused.
    #[error("the server failed")]
    Io(#[from] std::io::Error),
    /// Whoever started the server does not speak its protocol.
    #[error("the client does not speak the protocol: {0}")]
    Protocol(String),
}

/// What every handler reads.
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) created_unix_s: u64,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) chat: Option<ChatFormat>,
    pub(crate) engine: Engine,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) timeout: Duration,
    pub(crate) seed: u64,
    pub(crate) vocab_size: usize,
    pub(crate) seq_len: usize,
}

/// Serves until `stop` is set. `ready` is told the address once it listens.
pub fn serve(
    served: Served,
    options: &ServeOptions,
    stop: &AtomicBool,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let guard = Guard::new(
        options.address,
        options.token.as_deref(),
        options.max_request_bytes,
        options.bounds.patience,
    )?;
    let decode = DecodeOptions {
        num_threads: served.model.num_threads(),
        max_tokens: 64.max(options.batch),
        ..DecodeOptions::default()
    };
    let metrics = Arc::new(Metrics::default());
    let (vocab_size, seq_len) = (served.model.recipe().vocab_size(), served.model.recipe().seq_len());
    let engine = Engine::start(&served.model, options.batch, options.max_waiting, decode, metrics.clone())?;
    let state = Arc::new(State {
        chat: ChatFormat::of(&served.tokenizer).ok(),
        name: served.name,
        created_unix_s: served.created_unix_s,
        tokenizer: served.tokenizer,
        engine,
        metrics,
        timeout: options.timeout,
        seed: options.seed,
        vocab_size,
        seq_len,
    });
    run(options.address, routes::router(state, Arc::new(guard)), options.bounds, stop, ready)
}

/// Listens and answers until `stop` is set.
fn run(
    address: SocketAddr,
    router: Router,
    bounds: Bounds,
    stop: &AtomicBool,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let refused = |source| ServeError::Listen { address, source };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(refused)?;
        ready(listener.local_addr()?);
        listen::answer(listener, router, bounds, stop).await;
        Ok(())
    });
    // Answers that are still being written end with the process.
    runtime.shutdown_background();
    done
}
