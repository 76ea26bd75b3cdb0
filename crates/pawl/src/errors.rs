//! What a person is told when a command cannot do what was asked: what happened, why, what to do.

use std::error::Error;
use std::fmt;

/// The end of a command that did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    because: Vec<String>,
    hint: Option<String>,
    exit: Exit,
}

/// Whose fault it was, as the exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command was right and could not be done.
    Failed,
    /// The command was wrong.
    Misused,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), because: Vec::new(), hint: None, exit: Exit::Failed }
    }

    pub(crate) fn misuse(what: impl Into<String>) -> Failure {
        Failure { exit: Exit::Misused, ..Failure::new(what) }
    }

    /// Adds a reason that is a sentence already.
    pub(crate) fn because(mut self, why: impl Into<String>) -> Failure {
        self.because.push(why.into());
        self
    }

    /// Adds an error and everything that caused it.
    pub(crate) fn caused_by(mut self, error: &(dyn Error + 'static)) -> Failure {
        self.because.push(error.to_string());
        self.with_sources(error)
    }

    pub(crate) fn hint(mut self, what_to_do: impl Into<String>) -> Failure {
        self.hint = Some(what_to_do.into());
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    fn with_sources(mut self, error: &(dyn Error + 'static)) -> Failure {
        let mut source = error.source();
        while let Some(error) = source {
            self.because.push(error.to_string());
            source = error.source();
        }
        self
    }
}

/// An error that says itself what happened.
impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::new(error.to_string()).with_sources(&error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.what.lines();
        writeln!(f, "error: {}", lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(f, "  {line}")?;
        }
        let mut said = &self.what;
        for because in &self.because {
            // Some libraries repeat their source in their own text.
            if said.contains(because.as_str()) {
                continue;
            }
            labelled(f, "because", because)?;
            said = because;
        }
        if let Some(hint) = &self.hint {
            labelled(f, "hint:", hint)?;
        }
        Ok(())
    }
}

fn labelled(f: &mut fmt::Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    for (at, line) in text.lines().enumerate() {
        match at {
            0 => writeln!(f, "  {label} {line}")?,
            _ => writeln!(f, "  {:width$} {line}", "", width = label.len())?,
        }
    }
    Ok(())
}

/// Turns a panic, which is always a defect of ours, into an error like any other.
pub(crate) fn without_panics<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let place = std::sync::Arc::new(std::sync::Mutex::new(None));
    let seen = place.clone();
    std::panic::set_hook(Box::new(move |panic| {
        // The first panic is the cause; those that follow on other threads are its echo.
        if let Ok(mut seen) = seen.lock()
            && seen.is_none()
        {
            *seen = panic.location().map(|at| format!("{}:{}", at.file(), at.line()));
        }
    }));
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Ok(done) => done,
        Err(payload) => {
            let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
                (Some(text), _) => (*text).to_string(),
                (None, Some(text)) => text.clone(),
                (None, None) => "a panic without words".to_string(),
            };
            let at = place.lock().ok().and_then(|place| place.clone()).unwrap_or_default();
            Err(Failure::new("pawl has a defect")
                .because(format!("{text} ({at})"))
                .hint("please report the command and the lines above"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn sources_become_reasons_and_are_not_repeated() {
        let inner = io::Error::other("the disk is full");
        let failure = Failure::new("run abc stopped").caused_by(&inner).hint("free some space");
        assert_eq!(
            failure.to_string(),
            "error: run abc stopped\n  because the disk is full\n  hint: free some space\n"
        );
        let failure = Failure::new("stopped: the disk is full").caused_by(&inner);
        assert_eq!(failure.to_string(), "error: stopped: the disk is full\n");
    }

    #[test]
    fn further_lines_are_set_under_the_first() {
        let failure = Failure::misuse("a\nb").because("c\nd");
        assert_eq!(failure.to_string(), "error: a\n  b\n  because c\n          d\n");
        assert_eq!(failure.exit(), Exit::Misused);
    }
}
