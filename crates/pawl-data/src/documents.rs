//! Documents out of files: which files, of which kind, and what each of them holds.
//!
//! Everything streams: a file of any size is read with a few megabytes of memory. A file that is not
//! what its name says is an error that names the place, not a document full of noise.

mod json_lines;
mod parquet_file;
mod plain;

use crate::DataError;
use flate2::read::MultiGzDecoder;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Given every document in order.
pub(crate) type Each<'a> = &'a mut dyn FnMut(&str) -> Result<(), DataError>;
/// Given the bytes of the file consumed so far.
pub(crate) type OnBytes<'a> = &'a dyn Fn(u64);

/// A file to read documents from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    /// Whether a folder or a pattern led to it: then it may turn out not to be text.
    pub(crate) found: bool,
}

/// The files that `argument` means: a file, every file below a folder, or the matches of a pattern,
/// by path. Hidden files are not looked at.
pub(crate) fn find_inputs(argument: &str) -> Result<Vec<Input>, DataError> {
    let path = Path::new(argument);
    let mut inputs = Vec::new();
    if path.is_dir() {
        walk(path, &mut inputs)?;
    } else if path.exists() {
        return Ok(vec![Input { path: path.to_path_buf(), found: false }]);
    } else {
        let bad = |source| DataError::BadPattern { pattern: argument.to_owned(), source };
        for matched in glob::glob(argument).map_err(bad)? {
            let matched = matched.map_err(|error| DataError::Io {
                action: "read",
                path: error.path().to_path_buf(),
                source: error.into(),
            })?;
            if matched.is_dir() {
                walk(&matched, &mut inputs)?;
            } else {
                inputs.push(Input { path: matched, found: true });
            }
        }
    }
    if inputs.is_empty() {
        return Err(DataError::NoMatch { pattern: argument.to_owned() });
    }
    inputs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(inputs)
}

fn walk(folder: &Path, inputs: &mut Vec<Input>) -> Result<(), DataError> {
    let io = DataError::io("read", folder);
    for entry in std::fs::read_dir(folder).map_err(&io)? {
        let entry = entry.map_err(&io)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kind = entry.file_type().map_err(&io)?;
        if kind.is_dir() {
            walk(&entry.path(), inputs)?;
        } else if entry.path().is_file() {
            inputs.push(Input { path: entry.path(), found: true });
        }
    }
    Ok(())
}

/// Gives `each` every document of the file, judged by its name: `.jsonl` / `.ndjson` / `.json` hold one
/// object per line, `.parquet` a column, all else is plain text; `.gz` and `.zst` around the first and
/// the last.
pub(crate) fn read_file(path: &Path, each: Each<'_>, on_bytes: OnBytes<'_>) -> Result<(), DataError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if name.ends_with(".parquet") {
        return parquet_file::read(path, each, on_bytes);
    }
    let read = Rc::new(Cell::new(0));
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let file = Counted { file, read: Rc::clone(&read) };
    let (reader, inner): (Box<dyn Read>, &str) = if let Some(inner) = name.strip_suffix(".gz") {
        (Box::new(MultiGzDecoder::new(BufReader::new(file))), inner)
    } else if let Some(inner) = name.strip_suffix(".zst") {
        (Box::new(zstd::Decoder::new(file).map_err(DataError::io("read", path))?), inner)
    } else {
        (Box::new(file), &*name)
    };
    let compressed = inner.len() < name.len();
    let source = Source { path, reader, compressed, read: &read, on_bytes, bytes: 0 };
    if [".jsonl", ".ndjson", ".json"].iter().any(|suffix| inner.ends_with(suffix)) {
        json_lines::read(source, each)
    } else {
        plain::read(source, each)
    }
}

/// A file, decompressed.
struct Source<'a> {
    path: &'a Path,
    reader: Box<dyn Read>,
    compressed: bool,
    read: &'a Cell<u64>,
    on_bytes: OnBytes<'a>,
    /// Bytes that came out so far.
    bytes: u64,
}

impl Source<'_> {
    /// Reads more into `buffer`; 0 at the end.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, DataError> {
        let len = loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) if self.compressed => {
                    return Err(DataError::Damaged {
                        path: self.path.to_path_buf(),
                        bytes: self.bytes,
                        source,
                    });
                }
                Err(source) => return Err(DataError::io("read", self.path)(source)),
                Ok(len) => break len,
            }
        };
        if let Some(zero) = buffer[..len].iter().position(|&byte| byte == 0) {
            return Err(DataError::Binary { path: self.path.to_path_buf(), byte: self.bytes + zero as u64 });
        }
        self.bytes += len as u64;
        (self.on_bytes)(self.read.get());
        Ok(len)
    }
}

struct Counted {
    file: File,
    read: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(buffer)?;
        self.read.set(self.read.get() + len as u64);
        Ok(len)
    }
}
