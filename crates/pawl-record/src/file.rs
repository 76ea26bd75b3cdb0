//! Reading and writing records: to a temporary name, synced, renamed, the folder synced.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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
    // Threads of one process may write the same file at once, as processes may.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let write_idx = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{name}.{}.{write_idx}.tmp", std::process::id()));
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
    from_json(&text).map_err(|source| FileError::Malformed { path: path.to_path_buf(), source })
}

/// Reads a record from JSON text. Every record is read through this function: one of our dependencies
/// turns on `serde_json/arbitrary_precision` for the whole build, with which a number that is read
/// straight into an untagged or internally tagged enum arrives as a map. By way of a [`Value`] it does not.
pub fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    T::deserialize(serde_json::from_slice::<Value>(text)?)
}

/// Appends one JSON line. A torn last line is possible after a crash; readers skip it.
pub fn append_line<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let mut line = serde_json::to_vec(value).expect("records have string keys and finite numbers");
    line.push(b'\n');
    let mut file =
        OpenOptions::new().create(true).append(true).open(path).map_err(io_error("append to", path))?;
    file.write_all(&line).map_err(io_error("append to", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, SettingValue};

    #[test]
    fn numbers_in_enums_are_read_whatever_another_crate_turns_on() {
        for number in [0.9, 100.0, 5e11, 1e22, -1e-7, 0.1 + 0.2] {
            let value = SettingValue::Float(number);
            let text = serde_json::to_vec(&value).unwrap();
            assert_eq!(from_json::<SettingValue>(&text).unwrap(), value);
            let event = Event::Step { step: 3, loss: number, seconds: 0.5 };
            assert_eq!(from_json::<Event>(&serde_json::to_vec(&event).unwrap()).unwrap(), event);
        }
    }
}
