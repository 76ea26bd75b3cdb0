//! The lab on disk as commands meet it: its ledger opened, with what was repaired told on stderr.

use crate::errors::Failure;
use crate::output::narrate;
use pawl_data::DataError;
use pawl_ledger::{Ledger, LedgerError};
use std::path::{Path, PathBuf};

/// Opens the ledger of a lab.
pub(crate) fn ledger(lab: &Path) -> Result<Ledger, Failure> {
    let ledger = Ledger::open(lab).map_err(from_ledger)?;
    for notice in ledger.notices() {
        narrate(&format!("notice: {notice}"));
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
