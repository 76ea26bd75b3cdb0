//! What a campaign tells its caller: events as they happen, why it cannot go on, what it leaves.
//!
//! Nothing here is printed or decided; `pawl` does the one, the rest of this crate the other.

use crate::library::LibraryError;
use crate::world::Checked;
use pawl_record::{
    CampaignEnd, CampaignManifest, Evidence, FileError, FinalMeasurement, Noise, PairRecord, Promotion,
    Proposal, Pruning, Verdict,
};
use std::io;
use std::path::PathBuf;

/// What happens in a campaign, as it happens.
#[derive(Debug)]
pub enum CampaignEvent<'a> {
    /// A campaign began, or goes on from its files.
    Started {
        /// What was asked.
        manifest: &'a CampaignManifest,
        /// The starting recipe, compiled.
        start: &'a Checked,
        /// The proposals already on file.
        num_proposals: u64,
        /// Its champion, once the noise was known.
        champion: Option<&'a Promotion>,
    },
    /// Trials are about to run; none of them is known.
    Trials {
        /// What for: "noise", "#12", "final measurement", ...
        purpose: &'a str,
        /// How many.
        num_trials: usize,
        /// How many at once.
        workers: usize,
        /// Seconds one is expected to take, once known.
        trial_s: Option<f64>,
        /// Seconds of campaign time.
        elapsed_s: f64,
        /// Training runs so far.
        num_runs: u64,
    },
    /// The noise is known.
    Noise(&'a Noise),
    /// What a researcher is doing.
    Said(&'a str),
    /// No researcher can be asked now, and why.
    Paused(&'a str),
    /// A proposal is on file.
    Proposed(&'a Proposal),
    /// A pair is done and the duel is open or about to be decided.
    Pair {
        /// The proposal.
        proposal: &'a Proposal,
        /// Its pairs so far.
        pairs: &'a [PairRecord],
        /// The test so far.
        evidence: &'a Evidence,
    },
    /// A verdict is on file.
    Verdict {
        /// The proposal.
        proposal: &'a Proposal,
        /// The verdict.
        verdict: &'a Verdict,
    },
    /// A part of the champion was left out and tried; the ruling is on file.
    Pruned(&'a Pruning),
    /// There is a new champion.
    Promotion(&'a Promotion),
    /// The champion is measured.
    Final(&'a FinalMeasurement),
    /// The campaign stops.
    Ended(&'a CampaignEnd),
}

/// Why a campaign cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// A document of the campaign cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// What other labs exported cannot be read.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A folder or the lock cannot be had.
    #[error("cannot use {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process works in this lab.
    #[error("another pawl process works in {lab}; wait for it to end or choose another lab")]
    Locked {
        /// The lab.
        lab: PathBuf,
    },
    /// The options contradict themselves.
    #[error("{0}")]
    Options(String),
    /// The lab has a campaign that was asked differently.
    #[error("the campaign in {lab} has another {what}; go on with its own or choose another lab")]
    OtherCampaign {
        /// The lab.
        lab: PathBuf,
        /// The first difference.
        what: &'static str,
    },
    /// The recipe does not compile.
    #[error("{0}")]
    Recipe(String),
    /// A trial that every comparison needs could not be run.
    #[error("a trial of {what} failed: {reason}")]
    Trial {
        /// The starting recipe or the champion.
        what: String,
        /// The trial's last words.
        reason: String,
    },
    /// Asked to stop; everything is on file. `campaign::run` turns it into a report.
    #[error("interrupted")]
    Interrupted,
}

/// What a campaign leaves its caller.
#[derive(Clone, Debug)]
pub struct CampaignReport {
    /// What was asked.
    pub manifest: CampaignManifest,
    /// Totals.
    pub end: CampaignEnd,
    /// All champions, the starting recipe first.
    pub champions: Vec<Promotion>,
    /// The final measurement, if the champion changed and it was reached.
    pub final_measurement: Option<FinalMeasurement>,
}
