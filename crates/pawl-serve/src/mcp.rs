//! A desk of tools, pages and openings for agents, by the Model Context Protocol: over stdin and stdout for whoever
//! started this process, and over streamable HTTP. Both eras of the protocol are spoken: the handshake of the revisions
//! up to 2025-11-25, and the one without (2026-07-28).
//!
//! What the tools do is the [`Desk`]'s. Here it is bounded how many calls are at work, how many wait, and for how long;
//! no session is kept over HTTP, so that there is none to flood, and none to lose when the server is started anew.

use crate::guard::{Guard, admit};
use crate::listen::stopped;
pub use crate::queue::Lane;
use crate::queue::{Queues, Unanswered};
use crate::{Bounds, ServeError, run};
use axum::Router;
use axum::http::request::Parts;
use axum::middleware::from_fn_with_state;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, GetPromptRequestParams,
    GetPromptResponse, GetPromptResult, Implementation, ListPromptsResult, ListResourcesResult,
    ListToolsResult, PaginatedRequestParams, Prompt, PromptMessage, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, Resource, ResourceContents, Role, ServerCapabilities,
    ServerConfig, Tool as ToolShown, ToolAnnotations,
};
use rmcp::service::{RequestContext, RoleServer, ServerInitializeError};
use rmcp::transport::StreamableHttpServerConfig;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use serde_json::{Map, Value};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::time::Instant;

/// A tool as clients are told of it.
#[derive(Clone, Debug)]
pub struct Tool {
    /// The name it is called by.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// JSON schema of its arguments, an object.
    pub schema: Value,
    /// Whether it leaves everything as it is.
    pub reads_only: bool,
}

/// A text that can be read, a resource of the protocol.
#[derive(Clone, Debug)]
pub struct Page {
    /// What it is asked by.
    pub uri: String,
    /// Its name.
    pub name: String,
    /// What it says.
    pub description: String,
}

/// A text that a conversation may begin with, a prompt of the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// What it is asked by.
    pub name: &'static str,
    /// What for.
    pub description: &'static str,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the client is told.
    pub text: String,
    /// Whether the call was wrong.
    pub refused: bool,
    /// It is not over: worth asking again, until so much time has passed since it was asked first.
    pub again: Option<Duration>,
}

/// What is behind the protocol. All calls may block, and come on several threads.
pub trait Desk: Send + Sync + 'static {
    /// What a client is told first.
    fn instructions(&self) -> String;
    /// The tools there are.
    fn tools(&self) -> Vec<Tool>;
    /// The pages there are.
    fn pages(&self) -> Vec<Page>;
    /// The openings there are.
    fn openings(&self) -> Vec<Opening>;
    /// The queue in which calls of a tool stand: with those that compile, unless the desk knows better.
    fn lane(&self, _tool: &str) -> Lane {
        Lane::Compiles
    }
    /// Calls one of the tools, for a client that says what it is called.
    fn call(&self, client: &str, tool: &str, arguments: &Value) -> Answer;
    /// A page; `None` when there is none of that name.
    fn page(&self, uri: &str) -> Option<Result<String, String>>;
    /// An opening; `None` when there is none of that name.
    fn opening(&self, name: &str) -> Option<Result<String, String>>;
}

/// Where HTTP is spoken, and for whom.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Asked for as `Authorization: Bearer TOKEN`; required off this machine.
    pub token: Option<String>,
    /// What those who connect may take, in at most [`MAX_CONNECTIONS`] connections.
    pub bounds: Bounds,
}

/// Longest that a call waits, for its turn or for a result: clients give up soon after. What it does once it is its
/// turn takes as long as it takes.
pub const LONGEST_WAIT: Duration = Duration::from_secs(25);

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// Connections at once. A message takes many times its bytes once it is read, so there are fewer than of a model.
pub const MAX_CONNECTIONS: usize = 64;

/// Bytes of a message: 1 MiB of arguments and what is around them.
pub const MAX_MESSAGE: usize = 5 << 18;

/// Bytes of a client's name that are looked at.
const MAX_NAME: usize = 200;

/// The path of HTTP.
pub const PATH: &str = "/mcp";

/// Serves whoever holds the other ends of stdin and stdout, until they are closed or `stop` is set.
pub fn over_stdio(desk: Arc<dyn Desk>, stop: &AtomicBool) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let (stdin, stdout) = rmcp::transport::stdio();
        let transport = AsyncRwTransport::new_server(stdin, stdout).with_max_line_length(MAX_MESSAGE);
        let served = async {
            match rmcp::serve_server(Face::new(desk), transport).await {
                Ok(service) => {
                    // It ends when the client goes, however it goes.
                    let _ = service.waiting().await;
                    Ok(())
                }
                Err(error) if has_gone(&error) => Ok(()),
                Err(error) => Err(ServeError::Protocol(error.to_string())),
            }
        };
        tokio::select! {
            done = served => done,
            () = stopped(stop) => Ok(()),
        }
    });
    // A read of stdin cannot be called back: it ends with the process.
    runtime.shutdown_background();
    done
}

/// Whether a client left before it said anything.
fn has_gone(error: &ServerInitializeError) -> bool {
    matches!(error, ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled)
}

/// Serves over HTTP until `stop` is set. `ready` is told the address once it listens.
pub fn over_http(
    desk: Arc<dyn Desk>,
    options: &HttpOptions,
    stop: &AtomicBool,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let HttpOptions { address, token, bounds } = options;
    let guard = Guard::new(*address, token.as_deref(), MAX_MESSAGE, bounds.patience)?;
    let face = Face::new(desk);
    // Host and origin are the guard's.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .disable_allowed_hosts()
        .with_max_request_body_bytes(MAX_MESSAGE);
    let sessions = Arc::new(NeverSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(face.clone()), sessions, config);
    let router = Router::new().route_service(PATH, service).layer(from_fn_with_state(Arc::new(guard), admit));
    let bounds = Bounds { connections: bounds.connections.min(MAX_CONNECTIONS), ..*bounds };
    run(*address, router, bounds, stop, ready)
}

/// The desk as the protocol sees it.
#[derive(Clone)]
struct Face {
    desk: Arc<dyn Desk>,
    queues: Queues,
}

impl Face {
    fn new(desk: Arc<dyn Desk>) -> Face {
        Face { desk, queues: Queues::new() }
    }

    /// Has the desk do something, when it is its turn, if that comes in time.
    async fn work<T: Send + 'static>(
        &self,
        lane: Lane,
        until: Instant,
        work: impl FnOnce(&dyn Desk) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let seat = self.queues.turn(lane, until).await?;
        let desk = self.desk.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _seat = seat;
            work(&*desk)
        });
        done.await.map_err(|_| Unanswered::Broken)
    }

    /// Calls a tool, again and again while it is worth asking again. When the turn for another look does not come in
    /// time, the look before is the answer.
    async fn called(
        &self,
        client: String,
        request: CallToolRequestParams,
        begun: Instant,
    ) -> Result<Answer, Unanswered> {
        let lane = self.desk.lane(&request.name);
        let arguments = Arc::new(Value::Object(request.arguments.unwrap_or_default()));
        let name: Arc<str> = request.name.as_ref().into();
        let client: Arc<str> = client.into();
        let mut until = begun + LONGEST_WAIT;
        let mut before = None;
        loop {
            let (client, name, arguments) = (client.clone(), name.clone(), arguments.clone());
            let looked = self.work(lane, until, move |desk| desk.call(&client, &name, &arguments)).await;
            let answer = match (looked, before) {
                (Err(Unanswered::Busy), Some(before)) => return Ok(before),
                (looked, _) => looked?,
            };
            until = begun + answer.again.map_or(Duration::ZERO, |again| again.min(LONGEST_WAIT));
            if Instant::now() + LOOK > until {
                return Ok(answer);
            }
            before = Some(answer);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A text of the desk, which is `missing` when the desk has none.
    async fn read(
        &self,
        context: &RequestContext<RoleServer>,
        missing: ErrorData,
        text: impl FnOnce(&dyn Desk) -> Option<Result<String, String>> + Send + 'static,
    ) -> Result<String, ErrorData> {
        let reading = self.work(Lane::Reads, Instant::now() + LONGEST_WAIT, text);
        match self.queues.stand(Lane::Reads, context.ct.cancelled(), reading).await? {
            Some(text) => text.map_err(|why| ErrorData::internal_error(why, None)),
            None => Err(missing),
        }
    }
}

/// What a client calls itself. Over HTTP a request of the older revisions says it nowhere but in its headers.
fn client_name(context: &RequestContext<RoleServer>) -> String {
    let said = context.meta.client_info();
    let name = match context.extensions.get::<Parts>() {
        Some(parts) if said.is_none() => {
            parts.headers.get("user-agent").and_then(|agent| agent.to_str().ok()).map(str::to_string)
        }
        Some(_) | None => {
            said.or_else(|| context.client_info()).map(|it| format!("{} {}", it.name, it.version))
        }
    };
    name.unwrap_or_default().chars().take(MAX_NAME).collect()
}

impl ServerHandler for Face {
    fn get_info(&self) -> ServerConfig {
        let capabilities =
            ServerCapabilities::builder().enable_tools().enable_resources().enable_prompts().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("pawl", env!("CARGO_PKG_VERSION")))
            .with_instructions(self.desk.instructions())
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.desk.tools().into_iter().map(shown).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if !self.desk.tools().iter().any(|tool| tool.name == request.name) {
            return Err(ErrorData::invalid_params("there is no tool of that name", None));
        }
        let lane = self.desk.lane(&request.name);
        let call = self.called(client_name(&context), request, Instant::now());
        match self.queues.stand(lane, context.ct.cancelled(), call).await {
            Ok(answer) => Ok(told(answer.text, answer.refused).into()),
            Err(why @ (Unanswered::Full | Unanswered::Busy)) => Ok(told(why.words(), true).into()),
            Err(why @ (Unanswered::Gone | Unanswered::Broken)) => Err(why.into()),
        }
    }

    async fn list_resources(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resource = |page: Page| {
            Resource::new(page.uri, page.name).with_description(page.description).with_mime_type(MARKDOWN)
        };
        Ok(ListResourcesResult::with_all_items(self.desk.pages().into_iter().map(resource).collect()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let missing = ErrorData::resource_not_found("there is no resource of that name", None);
        if !self.desk.pages().iter().any(|page| page.uri == request.uri) {
            return Err(missing);
        }
        let uri = request.uri.clone();
        let text = self.read(&context, missing, move |desk| desk.page(&uri)).await?;
        let contents = ResourceContents::text(text, request.uri).with_mime_type(MARKDOWN);
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn list_prompts(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let prompt = |it: Opening| Prompt::new(it.name, Some(it.description), None);
        Ok(ListPromptsResult::with_all_items(self.desk.openings().into_iter().map(prompt).collect()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let missing = ErrorData::invalid_params("there is no prompt of that name", None);
        if !self.desk.openings().iter().any(|opening| opening.name == request.name) {
            return Err(missing);
        }
        let text = self.read(&context, missing, move |desk| desk.opening(&request.name)).await?;
        Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).into())
    }
}

const MARKDOWN: &str = "text/markdown";

fn shown(tool: Tool) -> ToolShown {
    let schema = tool.schema.as_object().cloned().unwrap_or_else(Map::new);
    let hints = ToolAnnotations::new()
        .read_only(tool.reads_only)
        .destructive(false)
        .idempotent(tool.reads_only)
        .open_world(false);
    ToolShown::new(tool.name, tool.description, Arc::new(schema)).with_annotations(hints)
}

fn told(text: String, refused: bool) -> CallToolResult {
    let content = vec![ContentBlock::text(text)];
    if refused { CallToolResult::error(content) } else { CallToolResult::success(content) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A desk whose one tool is never over.
    #[derive(Default)]
    struct Endless(AtomicUsize);

    impl Desk for Endless {
        fn instructions(&self) -> String {
            String::new()
        }

        fn tools(&self) -> Vec<Tool> {
            Vec::new()
        }

        fn pages(&self) -> Vec<Page> {
            Vec::new()
        }

        fn openings(&self) -> Vec<Opening> {
            Vec::new()
        }

        fn lane(&self, _tool: &str) -> Lane {
            Lane::Waits
        }

        fn call(&self, _client: &str, _tool: &str, _arguments: &Value) -> Answer {
            let look = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            Answer { text: format!("look {look}"), refused: false, again: Some(LONGEST_WAIT) }
        }

        fn page(&self, _uri: &str) -> Option<Result<String, String>> {
            None
        }

        fn opening(&self, _name: &str) -> Option<Result<String, String>> {
            None
        }
    }

    /// What a wait comes to that began so long ago, when nobody's turn comes after so many looks.
    fn waited(ago: Duration, looks: usize) -> Result<Answer, Unanswered> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let desk = Arc::new(Endless::default());
            let face = Face::new(desk.clone());
            let call = face.called(String::new(), CallToolRequestParams::new("wait"), Instant::now() - ago);
            let busy = async {
                while desk.0.load(Ordering::Relaxed) < looks {
                    tokio::task::yield_now().await;
                }
                let _seats = face.queues.block(Lane::Waits).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = busy => unreachable!("it does not end"),
                answer = call => answer,
            }
        })
    }

    #[test]
    fn a_turn_that_does_not_come_in_time_ends_a_call() {
        assert_eq!(waited(LONGEST_WAIT, 0), Err(Unanswered::Busy));
        // Time enough for the pause after one look and no more.
        let answer = waited(LONGEST_WAIT - LOOK - LOOK / 2, 1).unwrap();
        assert_eq!(answer.text, "look 1");
    }
}
