//! What is wrong with a recipe, where, and what would mend it.
//!
//! A line in the recipe is preferred to a line in the standard library: it is the one its author can change.

use crate::context::Context;
use pawl_graph::ShapeError;
use starlark::ErrorKind;
use starlark::codemap::FileSpan;
use std::fmt;

/// Why a recipe cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RecipeError {
    /// Name of the file the line is in.
    pub file: String,
    /// 1-based line.
    pub line: Option<u32>,
    /// 1-based column.
    pub column: Option<u32>,
    /// What is wrong.
    pub message: String,
    /// What would mend it, when that is known.
    pub hint: Option<String>,
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl RecipeError {
    pub(crate) fn new(file: &str, message: impl Into<String>) -> RecipeError {
        RecipeError { file: file.to_string(), line: None, column: None, message: message.into(), hint: None }
    }

    pub(crate) fn refused(file: &str, refusal: Refusal) -> RecipeError {
        RecipeError { hint: refusal.hint, ..RecipeError::new(file, refusal.because) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> RecipeError {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn at(mut self, line: u32) -> RecipeError {
        self.line = Some(line);
        self
    }
}

/// What a builtin refuses, before it is known where it was called.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{because}")]
pub(crate) struct Refusal {
    pub(crate) because: String,
    pub(crate) hint: Option<String>,
}

impl From<ShapeError> for Refusal {
    fn from(error: ShapeError) -> Refusal {
        Refusal { because: error.because, hint: error.hint }
    }
}

impl From<Refusal> for starlark::Error {
    fn from(refusal: Refusal) -> starlark::Error {
        starlark::Error::new_other(refusal)
    }
}

/// A refusal as a result, to return from a builtin.
pub(crate) fn refuse<T>(because: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { because: because.into(), hint: None })
}

/// A refusal with what would mend it.
pub(crate) fn refuse_with<T>(because: impl Into<String>, hint: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { because: because.into(), hint: Some(hint.into()) })
}

/// A refusal as the result of a builtin.
pub(crate) fn raise<T>(because: impl Into<String>) -> starlark::Result<T> {
    Ok(refuse(because)?)
}

/// A refusal with what would mend it, as the result of a builtin.
pub(crate) fn raise_with<T>(because: impl Into<String>, hint: impl Into<String>) -> starlark::Result<T> {
    Ok(refuse_with(because, hint)?)
}

/// The interpreter's error with its best location and our hint.
pub(crate) fn convert(error: &starlark::Error, ctx: &Context) -> RecipeError {
    let (message, hint) = message_of(error.kind());
    let mut places: Vec<FileSpan> = error.span().into_iter().cloned().collect();
    places.extend(error.call_stack().frames.iter().rev().filter_map(|frame| frame.location.clone()));
    if places.is_empty() && is_limit(&error.without_diagnostic().to_string()) {
        places.extend(ctx.last_place.borrow().clone());
    }
    let own = places.iter().find(|place| place.filename() == ctx.recipe_file);
    let Some(place) = own.or(places.first()) else {
        return RecipeError { hint, ..RecipeError::new(&ctx.recipe_file, message) };
    };
    let (line, column) = ctx.position(place);
    let deepest = &places[0];
    let message = if deepest.filename() == place.filename() {
        message
    } else {
        format!("{message} (in {}:{})", deepest.filename(), ctx.position(deepest).0)
    };
    RecipeError { file: place.filename().to_string(), line: Some(line), column: Some(column), message, hint }
}

#[allow(clippy::wildcard_enum_match_arm)] // the interpreter's kinds, not a set of ours
fn message_of(kind: &ErrorKind) -> (String, Option<String>) {
    let (text, hint) = match kind {
        ErrorKind::Other(error) | ErrorKind::Native(error) => match error.downcast_ref::<Refusal>() {
            Some(refusal) => (refusal.because.clone(), refusal.hint.clone()),
            None => (error.to_string(), None),
        },
        ErrorKind::Fail(error) => (error.to_string().trim_start().to_string(), None),
        other => (other.to_string(), None),
    };
    plain_words(text, hint)
}

/// The interpreter's own limits, which it reports without a place.
fn is_limit(text: &str) -> bool {
    text.contains("ticks has been exceeded") || text.starts_with("Heap memory limit")
}

/// The interpreter's own sentences, in the words of this project.
fn plain_words(text: String, hint: Option<String>) -> (String, Option<String>) {
    if text.contains("ticks has been exceeded") {
        return (
            "the recipe does not come to an end: it took more than the allowed number of steps".to_string(),
            Some("a recipe only describes the graph; loops over more than some thousand items do not belong in it".to_string()),
        );
    }
    if text.starts_with("Heap memory limit") {
        return (
            "the recipe uses more memory than a recipe may".to_string(),
            Some("big tables belong in tensors: values([...]), iota(n), full(shape, value)".to_string()),
        );
    }
    if let Some((before, name)) = text.split_once(", did you mean ") {
        let name = name.trim_end_matches('?').trim_matches('`');
        return (before.to_string(), Some(format!("did you mean `{name}`?")));
    }
    (text, hint)
}
