//! `pawl mcp`: the lab's tools for agents, over stdin and stdout or over HTTP. What the protocol says goes to stdout,
//! everything else to stderr.

use crate::args::Mcp;
use crate::commands::serve::{from_serve, read_token};
use crate::desk::LabDesk;
use crate::errors::Failure;
use crate::interrupt::interrupt;
use crate::output::{Answer, narrate};
use pawl_serve::Bounds;
use pawl_serve::mcp::{HttpOptions, PATH, over_http, over_stdio};
use serde_json::json;
use std::io::{IsTerminal, stdin};
use std::sync::Arc;

pub(crate) fn run(args: Mcp) -> Result<Answer, Failure> {
    let stop = interrupt()?;
    let desk = Arc::new(LabDesk::new(args.lab)?);
    if !args.http {
        if stdin().is_terminal() {
            narrate(
                "a client of the Model Context Protocol starts this command and speaks to it: claude mcp add pawl -- pawl mcp",
            );
        }
        over_stdio(desk, &stop).map_err(|error| from_serve(error, "--bind"))?;
        return Ok(Answer::new(String::new(), json!({})));
    }
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let options = HttpOptions { address: args.bind, token, bounds: Bounds::default() };
    let ready = |at| narrate(&format!("the lab's tools are at http://{at}{PATH}; Ctrl-C ends it"));
    over_http(desk, &options, &stop, ready).map_err(|error| from_serve(error, "--bind"))?;
    Ok(Answer::new(String::new(), json!({})))
}
