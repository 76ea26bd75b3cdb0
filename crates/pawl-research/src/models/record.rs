//! Conversations on disk: `campaign/conversations/NNNN.jsonl`, a line for each thing sent, received, or gone wrong.
//! They are for audits and for running again; nothing of a key is in them.

use super::message::{Message, Reply};
use crate::campaign::CampaignError;
use crate::store::Store;
use pawl_record::{FileError, append_line, from_json};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// The first line.
    Began {
        /// Version of these lines.
        schema: u32,
        /// Who asks.
        researcher: String,
        /// The model asked for.
        model: String,
        /// The number that the proposal will have.
        proposal: u64,
        /// Seconds since 1970.
        unix_s: u64,
        /// The stable prefix.
        system: String,
    },
    /// A request is about to be sent.
    Sent {
        /// 1, 2, ... in the conversation.
        request: u64,
        /// 1 for the first time, 2 for the first time again...
        attempt: u64,
        /// Bytes of its body.
        bytes: u64,
        /// The messages since the request before; empty when it is sent again.
        added: Vec<Message>,
    },
    /// Its answer.
    Received {
        /// Which request.
        request: u64,
        /// The answer.
        reply: Reply,
        /// US dollars.
        cost_usd: f64,
        /// Seconds.
        seconds: f64,
    },
    /// It has no answer that can be used.
    Failed {
        /// Which request.
        request: u64,
        /// Status of the answer, if one came.
        status: Option<u16>,
        /// What went wrong.
        what: String,
        /// US dollars that it is counted with.
        cost_usd: f64,
    },
    /// The last line.
    Ended {
        /// `proposed`, or why not.
        outcome: String,
        /// Whether there is a proposal.
        proposed: bool,
        /// The model that answered last.
        model: String,
        /// Requests, those that failed included.
        requests: u64,
        /// Tokens sent.
        input_tokens: u64,
        /// Tokens answered.
        output_tokens: u64,
        /// US dollars.
        cost_usd: f64,
    },
}

/// Writes one conversation.
pub(super) struct Recorder {
    path: PathBuf,
    name: String,
}

impl Recorder {
    /// The next conversation of a campaign.
    pub(super) fn new(store: &Store) -> Result<Recorder, CampaignError> {
        let folder = store.path("conversations");
        fs::create_dir_all(&folder).map_err(|source| CampaignError::Io { path: folder.clone(), source })?;
        let mut number = files(&folder)?.len() + 1;
        // One that was deleted in between leaves its number to nobody.
        while folder.join(format!("{number:04}.jsonl")).exists() {
            number += 1;
        }
        let name = format!("conversations/{number:04}.jsonl");
        Ok(Recorder { path: store.path(&name), name })
    }

    /// Below `lab/campaign/`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn write(&self, entry: &Entry) -> Result<(), FileError> {
        append_line(&self.path, entry)
    }
}

/// The conversations in a folder, in order; none when there is no such folder.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(FileError::Io { action: "read", path: folder.to_path_buf(), source }),
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    Ok(files)
}

/// The lines of a conversation; one torn by a crash is left out.
pub fn read(path: &Path) -> Result<Vec<Entry>, FileError> {
    let text = fs::read_to_string(path).map_err(|source| FileError::Io {
        action: "read",
        path: path.to_path_buf(),
        source,
    })?;
    Ok(text.lines().filter_map(|line| from_json(line.as_bytes()).ok()).collect())
}
