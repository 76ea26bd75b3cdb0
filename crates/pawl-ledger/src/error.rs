//! What can go wrong with an index, what was repaired, and which files could not be read.

use pawl_record::FileError;
use serde::Serialize;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// The ledger cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The lab folder does not exist.
    #[error("there is no lab at {lab}")]
    NoLab {
        /// Where it was looked for.
        lab: PathBuf,
    },
    /// No run has this id.
    #[error("no run begins with {wanted:?}")]
    NoSuchRun {
        /// What was asked for.
        wanted: String,
    },
    /// Several runs begin with these digits.
    #[error("{wanted:?} is the beginning of {} runs: {}", .ids.len(), first_few(.ids))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// All that match, in order.
        ids: Vec<String>,
    },
    /// No campaign was started in this lab.
    #[error("there is no campaign in {lab}")]
    NoCampaign {
        /// The lab.
        lab: PathBuf,
    },
    /// The campaign has no such proposal.
    #[error("there is no proposal {number}: the campaign has {total}")]
    NoSuchProposal {
        /// What was asked for.
        number: u64,
        /// How many there are.
        total: u64,
    },
    /// SQLite refused.
    #[error("{action} {path}")]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// The index.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The operating system refused.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A fact in the index does not read back.
    #[error("{path} holds a fact that cannot be read: {what}")]
    BrokenFact {
        /// The index.
        path: PathBuf,
        /// Which one.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl LedgerError {
    /// What a person may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            LedgerError::NoLab { .. } => {
                Some("start one with `pawl research` or `pawl train`, or name another with --lab".into())
            }
            LedgerError::NoSuchRun { .. } => Some("`pawl runs` lists the ids".into()),
            LedgerError::Ambiguous { .. } => Some("give more digits".into()),
            LedgerError::NoCampaign { .. } => Some("`pawl research` starts one".into()),
            LedgerError::NoSuchProposal { .. } => Some("`pawl report` lists them".into()),
            LedgerError::BrokenFact { path, .. } => {
                Some(format!("delete {}: it is built again from the run directories", path.display()))
            }
            LedgerError::Sqlite { .. } | LedgerError::Io { .. } | LedgerError::File(_) => None,
        }
    }
}

fn first_few(ids: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = ids.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if ids.len() > SHOWN {
        text.push_str(", ...");
    }
    text
}

/// Something that opening the ledger repaired or worked around; the caller tells the person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum Notice {
    /// The index was missing although the lab has runs; it was built again.
    Missing {
        /// Runs found.
        runs: u64,
    },
    /// The index was damaged; it was built again.
    Damaged {
        /// How it showed.
        why: String,
        /// Runs found.
        runs: u64,
    },
    /// The index was written by another version of pawl; it was built again.
    OtherVersion {
        /// Runs found.
        runs: u64,
    },
    /// The index cannot be kept on disk (read-only, full, a folder in its place); it is in memory only.
    InMemory {
        /// Why.
        why: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Missing { runs } => write!(f, "ledger.sqlite was missing; built again from {runs} runs"),
            Notice::Damaged { why, runs } => {
                write!(f, "ledger.sqlite was damaged ({why}); built again from {runs} runs")
            }
            Notice::OtherVersion { runs } => {
                write!(f, "ledger.sqlite was of another version of pawl; built again from {runs} runs")
            }
            Notice::InMemory { why } => {
                write!(f, "ledger.sqlite cannot be written ({why}); the index is kept in memory")
            }
        }
    }
}

/// A file that should hold a record and does not. It is left out of the index and never deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, with the reason.
    pub message: String,
}

impl Problem {
    pub(crate) fn of(path: PathBuf, error: &FileError) -> Problem {
        let message = match error {
            FileError::Io { source, .. } => source.to_string(),
            FileError::Malformed { source, .. } => format!("not a valid record: {source}"),
        };
        Problem { path, message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.message)
    }
}
