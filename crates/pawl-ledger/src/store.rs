//! Opening, healing and filling the index.
//!
//! Opening is serialised by a lock on `ledger.lock`, held only while the index is checked or replaced, so
//! a reader never meets half an index. A process that holds an index which another replaced keeps a
//! consistent old one and moves to the new file at its next [`Ledger::refresh`].

use crate::facts::{Facts, Known};
use crate::{LedgerError, Notice, Problem, schema};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a process waits for another one's write; writes take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

/// The index of one lab.
#[derive(Debug)]
pub struct Ledger {
    pub(crate) lab: PathBuf,
    pub(crate) connection: Connection,
    /// Device and inode of the index; `None` in memory.
    file: Option<(u64, u64)>,
    notices: Vec<Notice>,
    problems: Vec<Problem>,
}

/// What a refresh added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Refresh {
    /// Runs seen for the first time.
    pub runs: u64,
    /// Results seen for the first time.
    pub results: u64,
    /// Campaign manifests, proposals, verdicts and promotions seen for the first time.
    pub documents: u64,
}

impl Ledger {
    /// Opens the index of a lab, builds it again if it is missing, damaged or of another version, and
    /// adds what is new. What was repaired is in [`Ledger::notices`].
    pub fn open(lab: &Path) -> Result<Ledger, LedgerError> {
        let mut ledger = Ledger::open_checked(lab, false)?;
        match ledger.refresh() {
            Ok(_) => Ok(ledger),
            // The index is sound and the disk is full: what is new can still be told.
            Err(error) if cannot_write(&error) => in_memory(lab, &error),
            Err(error) => Err(error),
        }
    }

    /// Builds the index afresh from the files of the lab and puts it in the place of the old one.
    pub fn rebuild(lab: &Path) -> Result<Ledger, LedgerError> {
        Ledger::open_checked(lab, true)
    }

    /// What opening repaired or worked around.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Files of the lab that should hold a record and do not, as of the last refresh.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Adds to the index what the run directories and the campaign have gained.
    pub fn refresh(&mut self) -> Result<Refresh, LedgerError> {
        if self.file.is_some() && self.file != identity(&index_path(&self.lab)) {
            *self = Ledger::open_checked(&self.lab, false)?;
        }
        let facts =
            Facts::read(&self.lab, &Known::read(&self.connection).map_err(sqlite_error("read", &self.lab))?)?;
        let added = facts.insert(&mut self.connection).map_err(sqlite_error("write", &self.lab))?;
        self.problems = facts.problems;
        Ok(added)
    }

    fn open_checked(lab: &Path, rebuild: bool) -> Result<Ledger, LedgerError> {
        if !lab.is_dir() {
            return Err(LedgerError::NoLab { lab: lab.to_path_buf() });
        }
        match on_disk(lab, rebuild) {
            Ok(ledger) => Ok(ledger),
            Err(error) if cannot_write(&error) => in_memory(lab, &error),
            Err(error) => Err(error),
        }
    }
}

fn index_path(lab: &Path) -> PathBuf {
    lab.join("ledger.sqlite")
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

pub(crate) fn sqlite_error(
    action: &'static str,
    lab: &Path,
) -> impl Fn(rusqlite::Error) -> LedgerError + use<> {
    let path = index_path(lab);
    move |source| LedgerError::Sqlite { action, path: path.clone(), source }
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> LedgerError + use<> {
    let path = path.to_path_buf();
    move |source| LedgerError::Io { action, path: path.clone(), source }
}

/// Whether the place, not the content, is the trouble: read-only, full, or a folder in the way.
fn cannot_write(error: &LedgerError) -> bool {
    match error {
        LedgerError::Io { .. } => true,
        LedgerError::Sqlite { source, .. } => matches!(
            source.sqlite_error_code(),
            Some(
                ErrorCode::ReadOnly
                    | ErrorCode::DiskFull
                    | ErrorCode::CannotOpen
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::PermissionDenied
            )
        ),
        LedgerError::NoLab { .. }
        | LedgerError::NoSuchRun { .. }
        | LedgerError::Ambiguous { .. }
        | LedgerError::NoCampaign { .. }
        | LedgerError::NoSuchProposal { .. }
        | LedgerError::File(_)
        | LedgerError::BrokenFact { .. } => false,
    }
}

fn on_disk(lab: &Path, rebuild: bool) -> Result<Ledger, LedgerError> {
    let path = index_path(lab);
    let lock_path = lab.join("ledger.lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
    let lock = lock.map_err(io_error("open", &lock_path))?;
    lock.lock().map_err(io_error("lock", &lock_path))?;

    let mut notices = Vec::new();
    let mut problems = Vec::new();
    let state = if path.exists() { check(&path)? } else { State::Missing };
    if rebuild || state != State::Current {
        let facts = build(lab)?;
        let runs = facts.runs.len() as u64;
        match state {
            // Nothing was lost when there was nothing to index, and a rebuild that was asked for is no news.
            State::Missing if rebuild || runs == 0 => {}
            State::Missing => notices.push(Notice::Missing { runs }),
            State::Damaged(why) => notices.push(Notice::Damaged { why, runs }),
            State::OtherVersion => notices.push(Notice::OtherVersion { runs }),
            State::Current => {}
        }
        problems = facts.problems;
    }
    let connection = connect(&path).map_err(sqlite_error("open", lab))?;
    // The first read opens the write-ahead log: it must happen before another process may replace the file.
    schema::is_empty(&connection).map_err(sqlite_error("read", lab))?;
    let file = identity(&path);
    Ok(Ledger { lab: lab.to_path_buf(), connection, file, notices, problems })
}

fn in_memory(lab: &Path, why: &LedgerError) -> Result<Ledger, LedgerError> {
    let to_error = sqlite_error("index in memory instead of", lab);
    let mut connection = Connection::open_in_memory().map_err(&to_error)?;
    schema::create(&connection).map_err(&to_error)?;
    let facts = Facts::read(lab, &Known::default())?;
    facts.insert(&mut connection).map_err(&to_error)?;
    let reason = match std::error::Error::source(why) {
        Some(source) => source.to_string(),
        None => why.to_string(),
    };
    let notices = vec![Notice::InMemory { why: reason }];
    Ok(Ledger { lab: lab.to_path_buf(), connection, file: None, notices, problems: facts.problems })
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A lost last transaction is found again by the next refresh, so the log need not be synced each time.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Missing,
    Damaged(String),
    OtherVersion,
    Current,
}

/// Reads the whole index once; a damaged page must not surface in the middle of a campaign.
fn check(path: &Path) -> Result<State, LedgerError> {
    let examine = || -> rusqlite::Result<State> {
        let connection = connect(path)?;
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            let first_line = verdict.lines().find(|line| !line.starts_with("***")).unwrap_or("not ok");
            return Ok(State::Damaged(first_line.to_string()));
        }
        if schema::is_empty(&connection)? {
            return Ok(State::Damaged("empty".into()));
        }
        if !schema::is_current(&connection)? {
            return Ok(State::OtherVersion);
        }
        Ok(match schema::find_altered(&connection)? {
            Some(table) => State::Damaged(format!("a document of {table} was altered")),
            None => State::Current,
        })
    };
    match examine() {
        Ok(state) => Ok(state),
        Err(rusqlite::Error::Utf8Error(..) | rusqlite::Error::InvalidColumnType(..)) => {
            Ok(State::Damaged("a document is not text".into()))
        }
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Ok(State::Damaged("not a database, or a part of one".into()))
            }
            // A page that is not there reads as an I/O error; the folder was readable a moment ago.
            Some(ErrorCode::SystemIoFailure) if path.is_file() => Ok(State::Damaged("truncated".into())),
            _ => Err(LedgerError::Sqlite { action: "open", path: path.to_path_buf(), source: error }),
        },
    }
}

/// Builds a complete index beside the old one and renames it into place. The caller holds the lock.
fn build(lab: &Path) -> Result<Facts, LedgerError> {
    let path = index_path(lab);
    let temporary = lab.join(".ledger.sqlite.tmp");
    remove_if_there(&temporary)?;
    let facts = Facts::read(lab, &Known::default())?;
    let write = || -> rusqlite::Result<()> {
        let mut connection = Connection::open(&temporary)?;
        connection.pragma_update(None, "journal_mode", "OFF")?;
        schema::create(&connection)?;
        facts.insert(&mut connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.close().map_err(|(_, error)| error)
    };
    if let Err(source) = write() {
        remove_if_there(&temporary)?;
        return Err(sqlite_error("build", lab)(source));
    }
    File::open(&temporary).and_then(|file| file.sync_all()).map_err(io_error("sync", &temporary))?;
    // A log of the old index must not be replayed into the new one.
    for suffix in ["ledger.sqlite-wal", "ledger.sqlite-shm"] {
        remove_if_there(&lab.join(suffix))?;
    }
    fs::rename(&temporary, &path).map_err(io_error("replace", &path))?;
    Ok(facts)
}

fn remove_if_there(path: &Path) -> Result<(), LedgerError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}
