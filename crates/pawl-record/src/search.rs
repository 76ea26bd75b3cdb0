//! `search.json`: what an optimizer from elsewhere came to on the objective of a campaign.

use crate::{Measured, Settings};
use serde::{Deserialize, Serialize};

/// One configuration that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchTrial {
    /// Settings that differ from the recipe's defaults.
    pub settings: Settings,
    /// Score on the search split, bits per byte; `None` where it gave none.
    pub val_bpb: Option<f64>,
    /// The run; `None` where it did not come to one.
    pub run: Option<String>,
    /// FLOPs spent; none where it did not compile or was tried before.
    pub flops: f64,
}

/// A search without a judge: every configuration once, on one seed, and the best of them measured again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// Name of the optimizer.
    pub name: String,
    /// The program that was asked, with its arguments.
    pub command: Vec<String>,
    /// Keys the seeds of trials, and was told to the program.
    pub seed: u64,
    /// FLOPs of one trial.
    pub trial_flops: f64,
    /// BLAKE3, hex, of all that was asked for: recipe, rung, seeds, runs and program. Searches from before it have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// Training runs that it was allowed.
    pub max_runs: u64,
    /// Training runs that it used.
    pub runs: u64,
    /// FLOPs of those.
    pub flops: f64,
    /// What was tried, in order.
    pub trials: Vec<SearchTrial>,
    /// Settings of the best score.
    pub best: Settings,
    /// Seeds that nothing was chosen by.
    pub seeds: Vec<u64>,
    /// The defaults against the best on those seeds, search split.
    pub search: Measured,
    /// The same on the sealed split.
    pub sealed: Measured,
}
