//! Reading and writing records: to a temporary name, synced, renamed, the folder synced.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file could not be read or written, or does not hold what its name promises.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("{action} {path}")]
    Io {
        /// What was tried: "read", "write", ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is not the expected document.
    #[error("{path} is not a valid record: it may be truncated or from another version of pawl")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> FileError + 'a {
    move |source| FileError::Io { action, path: path.to_path_buf(), source }
}

/// Writes `bytes` to `path` so that a reader, or a machine that loses power, sees the old file or the
/// new one and never a part of it.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    write().map_err(|source| {
        // The half-written temporary is of no use to anyone; the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        io_error("write", path)(source)
    })
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Writes one JSON document, indented, atomically.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let mut text = serde_json::to_vec_pretty(value).expect("records have string keys and finite numbers");
    text.push(b'\n');
    write_atomic(path, &text)
}

/// Reads one JSON document.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = fs::read(path).map_err(io_error("read", path))?;
    serde_json::from_slice(&text).map_err(|source| FileError::Malformed { path: path.to_path_buf(), source })
}

/// Appends one JSON line. A torn last line is possible after a crash; readers skip it.
pub fn append_line<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let mut line = serde_json::to_vec(value).expect("records have string keys and finite numbers");
    line.push(b'\n');
    let mut file =
        OpenOptions::new().create(true).append(true).open(path).map_err(io_error("append to", path))?;
    file.write_all(&line).map_err(io_error("append to", path))
}
