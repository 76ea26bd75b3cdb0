//! The compiler of proposals, which is this binary in a process of its own, with a memory: the same question is asked
//! several times a proposal.

use crate::errors::Failure;
use crate::machine::machine;
use pawl_record::Settings;
use pawl_research::compiler::{ChildCompiler, LIMIT};
use pawl_research::world::Checked;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Answers that are remembered at most.
const REMEMBERED: usize = 1000;

pub(crate) struct Compiling {
    compiler: ChildCompiler,
    answers: Mutex<BTreeMap<String, Checked>>,
}

impl Compiling {
    pub(crate) fn new() -> Result<Compiling, Failure> {
        let executable =
            std::env::current_exe().map_err(|why| Failure::new("pawl cannot find itself").caused_by(&why))?;
        let compiler = ChildCompiler { executable, most_memory: machine().memory_bytes, limit: LIMIT };
        Ok(Compiling { compiler, answers: Mutex::default() })
    }

    /// This binary.
    pub(crate) fn executable(&self) -> PathBuf {
        self.compiler.executable.clone()
    }

    pub(crate) fn check(&self, path: &Path, depth: u64, settings: &Settings) -> Result<Checked, String> {
        let question = format!("{} {depth} {settings:?}", path.display());
        let known = || self.answers.lock().expect("no thread panics with it");
        if let Some(answer) = known().get(&question) {
            return Ok(answer.clone());
        }
        // Errors are not remembered: a busy machine makes some.
        let answer = self.compiler.check(path, depth, settings)?;
        let mut answers = known();
        if answers.len() >= REMEMBERED {
            answers.clear();
        }
        answers.insert(question, answer.clone());
        Ok(answer)
    }
}
