//! The lab on disk as commands meet it: its ledger opened, with what was repaired told on stderr.

use crate::errors::Failure;
use crate::output::narrate;
use crate::recipes::from_recipe;
use pawl_data::DataError;
use pawl_eval::EvalError;
use pawl_eval::env::EnvError;
use pawl_ledger::{Ledger, LedgerError, Notice};
use pawl_train::TrainError;
use std::path::{Path, PathBuf};

/// Opens the ledger of a lab.
pub(crate) fn ledger(lab: &Path) -> Result<Ledger, Failure> {
    let ledger = Ledger::open(lab).map_err(from_ledger)?;
    for notice in ledger.notices() {
        match notice {
            // Nothing was lost: a lab has no index until it is first asked.
            Notice::Missing { .. } => {}
            Notice::Damaged { .. } | Notice::OtherVersion { .. } | Notice::InMemory { .. } => {
                narrate(&format!("notice: {notice}"));
            }
        }
    }
    for problem in ledger.problems() {
        narrate(&format!("left out: {problem}"));
    }
    Ok(ledger)
}

/// The error of a ledger with what to do about it.
pub(crate) fn from_ledger(error: LedgerError) -> Failure {
    let hint = error.hint();
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Where a lab keeps a data set.
pub(crate) fn data_folder(lab: &Path, name: &str) -> PathBuf {
    lab.join("data").join(name)
}

/// The error of a data set with what to do about it.
pub(crate) fn from_data(error: DataError) -> Failure {
    let hint = error.hint();
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The error of a training run or its checkpoint with what to do about it.
pub(crate) fn from_train(error: TrainError) -> Failure {
    match error {
        TrainError::Data(error) => from_data(error),
        TrainError::Eval(error) => from_eval(error),
        TrainError::Recipe(error) => from_recipe(&error.file.clone(), error),
        TrainError::Busy { .. } => {
            Failure::from(error).hint("wait for it, or end it: this command then goes on")
        }
        TrainError::Chat(_) | TrainError::Lesson(_) | TrainError::Decode(_) => Failure::from(error),
        TrainError::Env(error) => from_env(error),
        TrainError::Stopped { ref id, .. } => {
            let hint = format!("pawl train --resume {id}");
            Failure::from(error).hint(hint)
        }
        TrainError::NoCheckpoint { .. } => {
            Failure::from(error).hint("`pawl train` keeps the checkpoints of a run")
        }
        TrainError::Model(_)
        | TrainError::File(_)
        | TrainError::Checkpoint(_)
        | TrainError::Foreign(_)
        | TrainError::Tokenizer { .. }
        | TrainError::TooLong { .. }
        | TrainError::Vocabulary { .. } => Failure::from(error),
    }
}

/// The error of an environment with what to do about it.
pub(crate) fn from_env(error: EnvError) -> Failure {
    let hint = match &error {
        EnvError::Unknown { .. } => {
            let names = pawl_eval::env::BUILTIN.map(|(name, _)| name).join(", ");
            Some(format!("there are {names}, gsm8k:FILE and command:PROGRAM"))
        }
        EnvError::Exhausted { .. } => Some("choose a higher --difficulty".to_string()),
        EnvError::Process { .. } => {
            Some("one JSON document a line on stdout answers each line on stdin; see the README".to_string())
        }
        #[cfg(target_os = "linux")]
        EnvError::Sandbox(_) => {
            Some("--allow-partial-sandbox runs programs with what the kernel has; do so only with programs you trust".into())
        }
        EnvError::Io { .. } | EnvError::Line { .. } => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The error of a score with what to do about it.
pub(crate) fn from_eval(error: EvalError) -> Failure {
    match error {
        EvalError::Data(error) => from_data(error),
        EvalError::Model(_) | EvalError::Empty { .. } => Failure::from(error),
    }
}
