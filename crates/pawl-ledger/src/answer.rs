//! What the ledger answers with: plain data that can be printed or serialised.

use crate::Standing;
use pawl_record::{
    Budget, Promotion, Proposal, Pruning, Replication, RunManifest, RunResult, RunStatus, Verdict,
};
use serde::Serialize;

/// Where a run stands, as its files tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// The budget was spent.
    Finished,
    /// The loss left the finite numbers or ran away.
    Diverged,
    /// There is no result: it is still training, or was stopped and can be resumed.
    Open,
}

impl RunState {
    /// The one word shown in tables.
    pub fn word(self) -> &'static str {
        match self {
            RunState::Finished => "finished",
            RunState::Diverged => "diverged",
            RunState::Open => "open",
        }
    }
}

/// One line of `pawl runs`. Holds nothing of the sealed split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunSummary {
    /// 12 hex digits.
    pub id: String,
    /// Wall-clock start, seconds since 1970.
    pub created_unix_s: u64,
    /// Recipe name.
    pub recipe: String,
    /// Canonical hash of the program, hex.
    pub fingerprint: String,
    /// The scale dial.
    pub depth: u64,
    /// Seed of data order and, unless `init_seed` differs, initialisation.
    pub seed: u64,
    /// Seed of initialisation.
    pub init_seed: u64,
    /// Data set.
    pub data: String,
    /// The limit that was asked for.
    pub budget: Budget,
    /// Trainable parameters.
    pub num_params: u64,
    /// Where it stands.
    pub state: RunState,
    /// Why, when it did not finish.
    pub reason: Option<String>,
    /// Search split, bits per UTF-8 byte.
    pub val_bpb: Option<f64>,
    /// Updates done of those that the budget allows.
    pub steps: Option<u64>,
    /// Updates the budget allows.
    pub num_steps: u64,
    /// FLOPs spent.
    pub flops: Option<f64>,
    /// Seconds of training.
    pub train_seconds: Option<f64>,
    /// Training tokens per second.
    pub tokens_per_sec: Option<f64>,
}

/// Everything the index knows of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunRecord {
    /// What was asked.
    pub manifest: RunManifest,
    /// How it ended; `None` while it is open.
    pub result: Option<RunResult>,
}

impl RunRecord {
    /// Where the run stands.
    pub fn state(&self) -> RunState {
        match &self.result {
            None => RunState::Open,
            Some(result) => match result.status {
                RunStatus::Finished => RunState::Finished,
                RunStatus::Diverged => RunState::Diverged,
            },
        }
    }

    /// The run as one line of a list.
    pub fn summary(&self) -> RunSummary {
        let manifest = &self.manifest;
        let result = self.result.as_ref();
        RunSummary {
            id: manifest.id.clone(),
            created_unix_s: manifest.created_unix_s,
            recipe: manifest.recipe.clone(),
            fingerprint: manifest.fingerprint.clone(),
            depth: manifest.depth,
            seed: manifest.seed,
            init_seed: manifest.init_seed,
            data: manifest.data.name.clone(),
            budget: manifest.budget,
            num_params: manifest.num_params,
            state: self.state(),
            reason: result.and_then(|result| result.reason.clone()),
            val_bpb: result.and_then(|result| result.val_bpb),
            steps: result.map(|result| result.steps),
            num_steps: manifest.num_steps,
            flops: result.map(|result| result.flops),
            train_seconds: result.map(|result| result.train_seconds),
            tokens_per_sec: result.map(|result| result.tokens_per_sec),
        }
    }
}

/// Which runs to list; every field that is given must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunFilter {
    /// Recipe name, exactly.
    pub recipe: Option<String>,
    /// Where the run stands.
    pub state: Option<RunState>,
    /// Data set.
    pub data: Option<String>,
    /// Beginning of the program's fingerprint.
    pub fingerprint: Option<String>,
    /// At most this many, the newest.
    pub limit: Option<usize>,
}

impl RunFilter {
    pub(crate) fn admits(&self, run: &RunRecord) -> bool {
        let manifest = &run.manifest;
        self.recipe.as_ref().is_none_or(|recipe| *recipe == manifest.recipe)
            && self.data.as_ref().is_none_or(|data| *data == manifest.data.name)
            && self.state.is_none_or(|state| state == run.state())
            && self.fingerprint.as_ref().is_none_or(|start| manifest.fingerprint.starts_with(start.as_str()))
    }
}

/// How many facts of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Runs of the lab.
    pub runs: u64,
    /// Runs that spent their budget.
    pub finished: u64,
    /// Runs that diverged.
    pub diverged: u64,
    /// Runs without a result.
    pub open: u64,
    /// Proposals of the newest campaign.
    pub proposals: u64,
    /// Verdicts of the newest campaign, by word.
    pub kept: u64,
    /// Verdicts of the newest campaign, by word.
    pub rejected: u64,
    /// Verdicts of the newest campaign, by word.
    pub undecided: u64,
    /// Verdicts of the newest campaign, by word.
    pub skipped: u64,
    /// Verdicts of the newest campaign, by word.
    pub failed: u64,
}

/// A proposal and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// What was proposed.
    pub proposal: Proposal,
    /// What was decided; `None` while it is being tried.
    pub verdict: Option<Verdict>,
    /// Whether it still stands, where it made a champion or was withdrawn.
    pub standing: Option<Standing>,
    /// Its parts left out again and tried.
    pub prunings: Vec<Pruning>,
    /// Its replications.
    pub replications: Vec<Replication>,
}

/// A champion and the run that stands for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Champion {
    /// How it came to be.
    pub promotion: Promotion,
    /// A run of it, when its directory is in the lab.
    pub run: Option<RunRecord>,
}

/// What `pawl show` found under a name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Shown {
    /// A run.
    Run(Box<RunRecord>),
    /// A proposal of the newest campaign.
    Trial(Box<Trial>),
}
