//! `pawl data add`: files to a data set.

use crate::dataset::{CARRIED, Dataset, finish};
use crate::documents::{Input, find_inputs, read_file};
use crate::lock::{create_folder, lock};
use crate::store::Staging;
use crate::{DataError, OnProgress, Progress, Stage};
use pawl_record::{DataSource, SkippedFile, SourceFile, SplitRule};
use std::path::Path;

/// The domain of text that was not given one.
const DEFAULT_DOMAIN: &str = "text";
/// Share held out when only the sealed share was given.
const DEFAULT_HELD_OUT: f64 = 0.1;

/// How to divide a data set. By default sets of at least 50 documents are divided by the hash of each
/// document, about 98 % train, 1 % search, 1 % sealed, and smaller ones by position, 90 % train, then
/// 5 % search, then 5 % sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AddOptions {
    /// Divide by position instead, and hold out this share at the end, all of it to search on.
    pub held_out: Option<f64>,
    /// Seal this share of the whole text, the last part of what is held out.
    pub sealed: Option<f64>,
}

impl AddOptions {
    fn rule(self) -> Result<Option<SplitRule>, DataError> {
        if self.held_out.is_none() && self.sealed.is_none() {
            return Ok(None);
        }
        let held_out = self.held_out.unwrap_or(DEFAULT_HELD_OUT);
        let sealed = self.sealed.unwrap_or(0.0);
        if !(held_out > 0.0 && held_out <= 0.5) {
            return Err(DataError::BadShare { what: "held_out", value: held_out, limit: 0.5 });
        }
        if !(sealed >= 0.0 && sealed < held_out) {
            return Err(DataError::BadShare { what: "sealed", value: sealed, limit: held_out });
        }
        Ok(Some(SplitRule::Position { held_out, sealed }))
    }
}

/// Makes the data set of `folder` (whose last part is its name) out of `paths`: files, folders and
/// patterns, each read in order; `DOMAIN=PATH` puts the text of a path into a domain of its own.
///
/// Files that a folder or a pattern led to and that are not text are left out and listed in the
/// manifest; a file named by itself must be text.
pub fn add(
    folder: &Path,
    paths: &[String],
    options: AddOptions,
    progress: OnProgress<'_>,
) -> Result<Dataset, DataError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !is_name(&name) || name == CARRIED {
        return Err(DataError::BadName { name });
    }
    let rule = options.rule()?;
    let mut inputs = Vec::new();
    for argument in paths {
        let (domain, path) = domain_and_path(argument);
        inputs.extend(find_inputs(path)?.into_iter().map(|input| (domain, input)));
    }
    let _lock = lock(folder)?;
    if folder.exists() {
        return Err(DataError::Exists { name });
    }
    create_folder(folder, |temporary| {
        let mut staging = Staging::new(temporary)?;
        let source = read_inputs(&inputs, &mut staging, progress)?;
        finish(temporary, &name, staging, rule, source, progress)
    })?;
    Dataset::open(folder)
}

/// Letters, digits, `-` and `_`.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn domain_and_path(argument: &str) -> (&str, &str) {
    match argument.split_once('=') {
        Some((domain, path)) if is_name(domain) && !Path::new(argument).exists() => (domain, path),
        Some(_) | None => (DEFAULT_DOMAIN, argument),
    }
}

fn read_inputs(
    inputs: &[(&str, Input)],
    staging: &mut Staging<'_>,
    progress: OnProgress<'_>,
) -> Result<DataSource, DataError> {
    let mut sizes = Vec::new();
    for (_, input) in inputs {
        let metadata = std::fs::metadata(&input.path).map_err(DataError::io("read", &input.path))?;
        sizes.push(metadata.len());
    }
    let total = sizes.iter().sum();
    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    let mut before = 0;
    for ((domain, input), bytes) in inputs.iter().zip(sizes) {
        let on_bytes =
            |read: u64| progress(Progress { stage: Stage::Read, done: before + read.min(bytes), total });
        let mut documents = 0;
        let mut each = |text: &str| {
            documents += 1;
            staging.push(domain, text)
        };
        let path = input.path.display().to_string();
        match read_file(&input.path, &mut each, &on_bytes) {
            Ok(()) => files.push(SourceFile { path, bytes, documents }),
            Err(error) if input.found && documents == 0 && is_not_text(&error) => {
                skipped.push(SkippedFile { path, reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
        before += bytes;
    }
    Ok(DataSource::Files { files, skipped })
}

fn is_not_text(error: &DataError) -> bool {
    matches!(error, DataError::Empty { .. } | DataError::Binary { .. } | DataError::NotUtf8 { .. })
}
