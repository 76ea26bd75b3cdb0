//! The arguments of `pawl mcp`.

use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Mcp {
    /// Speak streamable HTTP, at /mcp, instead of stdin and stdout
    #[arg(long)]
    pub(crate) http: bool,
    /// Address and port of HTTP; port 0 takes a free one, other machines reach what is not a loopback address
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8787", requires = "http")]
    pub(crate) bind: SocketAddr,
    /// File with the token that clients of HTTP must send; required off the loopback interface
    #[arg(long, value_name = "FILE", requires = "http")]
    pub(crate) token_file: Option<PathBuf>,
    /// Folder of the lab
    #[arg(long, value_name = "DIR", default_value = "lab")]
    pub(crate) lab: PathBuf,
}
