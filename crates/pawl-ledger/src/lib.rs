//! The ledger: an append-only SQLite index over the run directories and campaign files of a lab.
//!
//! The files are the truth. The index holds nothing that they do not, so it may be deleted, truncated or
//! overwritten at any time: the next [`Ledger::open`] notices, says so and builds it again. It refuses to
//! change or delete a fact, to judge, to train, and to print.
//!
//! Facts are immutable files: run manifests, results, campaign manifests, proposals, verdicts,
//! promotions, prunings, retractions, replications. Documents that are rewritten while a campaign lives (its end, its final measurement) are
//! read from their files by [`read_campaign`] and are not in the index.

mod answer;
mod campaign;
mod diff;
mod error;
mod facts;
mod lineage;
mod query;
mod schema;
mod store;

pub use answer::{Champion, Counts, RunFilter, RunRecord, RunState, RunSummary, Shown, Trial};
pub use campaign::{CampaignRecords, KnobTrials, campaign_folder, read_campaign};
pub use diff::{
    DiffLine, Hunk, LineTag, RecipeDiff, ResultChange, RunDiff, SettingChange, diff_runs, diff_settings,
    diff_text,
};
pub use error::{LedgerError, Notice, Problem};
pub use lineage::{Part, Standing, line, made_by, parts, standing};
pub use query::run_folder;
pub use store::{Ledger, Refresh};
