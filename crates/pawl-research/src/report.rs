//! The report of a campaign: one page for a director first, then the evidence.
//!
//! [`gather`] computes everything that is shown from the records of a lab, [`markdown`] and [`html`] turn it
//! into text, [`write()`] puts both beside the campaign. The report adds no judgement of its own: it repeats
//! what the judge decided, and refuses to call anything proven that the fresh seeds do not bear out. It
//! reads no clock: the same records give the same bytes.

mod figures;
mod gather;
mod html;
mod markdown;
mod words;

pub use gather::gather;
pub use html::html;
pub use markdown::markdown;

use pawl_ledger::{KnobTrials, LedgerError, Problem, RecipeDiff, SettingChange};
use pawl_record::{
    CampaignBudget, CampaignEnd, DataRef, Decision, Evidence, FileError, JudgeSettings, Ladder, Noise,
    Prediction, Pruning, Replication, Settings, Verdict, Worth, write_atomic,
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The ledger has no answer, or the lab no campaign.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The report could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl ReportError {
    /// What a person may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ReportError::Ledger(error) => error.hint(),
            ReportError::File(_) => None,
        }
    }
}

/// Everything the report shows, also the document of `pawl report --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`pawl_record::SCHEMA`] of the writer.
    pub schema: u32,
    /// What was asked.
    pub asked: Asked,
    /// What is proven.
    pub headline: Headline,
    /// How many proposals ended how.
    pub tally: Tally,
    /// What it cost.
    pub cost: Cost,
    /// How the share of false keeps is bounded.
    pub bound: Bound,
    /// What no change at all looks like.
    pub noise: Option<Noise>,
    /// Every proposal, in order.
    pub trials: Vec<TrialRow>,
    /// Every champion, in order; the first is the starting recipe.
    pub champions: Vec<ChampionRow>,
    /// Parts of champions left out and tried, in order.
    pub parts: Vec<Pruning>,
    /// Keeps run again, by proposal and number.
    pub replications: Vec<Replication>,
    /// Settings of the champion that differ from the start.
    pub settings: Vec<SettingChange>,
    /// Recipe text of the champion against that of the start.
    pub recipe: RecipeDiff,
    /// Training loss of the starting recipe, by run.
    pub start_curves: Vec<Curve>,
    /// Training loss of the champion, by run.
    pub champion_curves: Vec<Curve>,
    /// What all kept changes together are worth in compute, on the fresh seeds.
    pub worth: Option<Worth>,
    /// How good the researcher's predictions were.
    pub judgement: Option<Judgement>,
    /// Totals, once the campaign stopped.
    pub end: Option<CampaignEnd>,
    /// Files of the lab that could not be read.
    pub problems: Vec<Problem>,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Asked {
    /// Id of the campaign.
    pub campaign: String,
    /// Name of the starting recipe.
    pub recipe: String,
    /// Settings it starts from, beside its defaults.
    pub settings: Settings,
    /// Data set.
    pub data: DataRef,
    /// Scale and budget of trials.
    pub rungs: Ladder,
    /// Seed of the campaign.
    pub seed: u64,
    /// Who proposes.
    pub researcher: String,
    /// How it is judged.
    pub judge: JudgeSettings,
    /// When it stops.
    pub budget: CampaignBudget,
    /// Processor and instruction set.
    pub machine: String,
    /// Version of pawl.
    pub version: String,
    /// Wall-clock start, seconds since 1970.
    pub created_unix_s: u64,
}

/// What may be said of the champion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Headline {
    /// Nothing was kept so far.
    NothingKept,
    /// Something was kept, and the champion is not yet measured on fresh seeds.
    Unmeasured {
        /// Sum of the gains as measured when they won, bits per byte: biased upwards.
        gain: f64,
    },
    /// The champion was measured on fresh seeds.
    Measured(Final),
}

/// The champion against the starting recipe, on seeds that no decision has seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Final {
    /// Whether the text was the sealed split, which no decision has seen either.
    pub sealed: bool,
    /// Generation that was measured.
    pub generation: u64,
    /// Whether a later champion exists.
    pub stale: bool,
    /// Fresh seeds.
    pub seeds: u64,
    /// Mean score of the starting recipe, bits per byte.
    pub start_bpb: f64,
    /// Mean score of the champion, bits per byte.
    pub champion_bpb: f64,
    /// Mean gain, bits per byte.
    pub mean: f64,
    /// Half-width of its 95 % interval.
    pub half_width: f64,
    /// Training seconds of the champion over those of the start, at equal FLOPs.
    pub seconds_ratio: f64,
}

impl Final {
    /// Whether the 95 % interval lies above zero.
    pub fn is_proven(&self) -> bool {
        self.mean - self.half_width > 0.0
    }
}

/// How many proposals ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// All proposals.
    pub proposals: u64,
    /// Kept and promoted.
    pub kept: u64,
    /// Better at equal FLOPs, not promoted because they lose at equal seconds.
    pub slower: u64,
    /// Better on the first rung, not promoted because they were not shown to be on the next.
    pub stayed: u64,
    /// Better in their duel, not promoted because a fresh seed did not show it.
    pub faded: u64,
    /// Kept and withdrawn since.
    pub retracted: u64,
    /// Not worth keeping.
    pub rejected: u64,
    /// Not decided within the limits.
    pub undecided: u64,
    /// Not run to a score.
    pub failed: u64,
    /// Not tried.
    pub skipped: u64,
    /// Without a verdict yet.
    pub open: u64,
}

/// One line of the cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CostRow {
    /// What it was spent on.
    pub what: String,
    /// Training runs.
    pub runs: u64,
    /// FLOPs of those runs.
    pub flops: f64,
    /// Seconds of training of those runs, each on one core.
    pub core_seconds: f64,
}

/// What the campaign cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Noise, trials by outcome, final measurement; empty lines left out.
    pub rows: Vec<CostRow>,
    /// Sum of the rows.
    pub runs: u64,
    /// Sum of the rows.
    pub flops: f64,
    /// Sum of the rows.
    pub core_seconds: f64,
    /// Campaign time, seconds of wall clock.
    pub elapsed_s: f64,
    /// Trials side by side, when the campaign has told.
    pub workers: Option<u64>,
    /// Money paid to services, US dollars: the built-in researchers use none.
    pub money_usd: f64,
}

/// How the share of false keeps is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// Bound on the expected share of false keeps in the whole campaign.
    pub alpha: f64,
    /// Gains at or below this are not worth keeping, bits per byte.
    pub min_effect_bpb: f64,
    /// Proposals that were tested.
    pub tests: u64,
    /// Keeps among them.
    pub keeps: u64,
    /// What was spent on knobs.
    pub knobs: KnobTrials,
    /// Of the keeps, the smallest e-value over the one it needed: above 1.
    pub closest_margin: Option<f64>,
    /// Kept changes that were measured again on fresh seeds.
    pub remeasured: u64,
    /// Of those, the ones whose 95 % interval lies above zero.
    pub confirmed: u64,
}

/// What became of a proposal, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Kept and promoted.
    Kept,
    /// Better at equal FLOPs, not promoted because it loses at equal seconds.
    Slower,
    /// Better on the first rung, not promoted because it was not shown to be on the next.
    Stayed,
    /// Better in its duel, not promoted because a fresh seed did not show it.
    Faded,
    /// Kept and withdrawn since.
    Retracted,
    /// Not decided within the limits.
    Undecided,
    /// Not worth keeping.
    Rejected,
    /// Not run to a score.
    Failed,
    /// Not tried.
    Skipped,
    /// Without a verdict yet.
    Open,
}

impl Outcome {
    /// All, in the order of the report.
    pub const ALL: [Outcome; 10] = [
        Outcome::Kept,
        Outcome::Slower,
        Outcome::Stayed,
        Outcome::Faded,
        Outcome::Retracted,
        Outcome::Undecided,
        Outcome::Rejected,
        Outcome::Failed,
        Outcome::Skipped,
        Outcome::Open,
    ];

    /// The word shown in tables and used as a style name.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Kept => "kept",
            Outcome::Slower => "slower",
            Outcome::Stayed => "stayed",
            Outcome::Faded => "faded",
            Outcome::Retracted => "retracted",
            Outcome::Undecided => "undecided",
            Outcome::Rejected => "rejected",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
            Outcome::Open => "open",
        }
    }

    /// What the word means, for a reader who is new to it.
    pub fn meaning(self) -> &'static str {
        match self {
            Outcome::Kept => "shown to be better, now part of the champion",
            Outcome::Slower => "better at equal FLOPs, but not at equal seconds: not promoted",
            Outcome::Stayed => "better on the first rung, not shown to be on the next: not promoted",
            Outcome::Faded => "better in its duel, but not on every fresh seed: not promoted",
            Outcome::Retracted => "kept once, and withdrawn since",
            Outcome::Undecided => "neither a gain nor its absence was shown within the limits",
            Outcome::Rejected => "a gain worth having is unlikely",
            Outcome::Failed => "no score: diverged, crashed or did not fit",
            Outcome::Skipped => "not tried: refused by the compiler, or tried before",
            Outcome::Open => "no verdict yet",
        }
    }
}

/// A mean with the half-width of its 95 % interval, bits per byte.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Mean gain.
    pub mean: f64,
    /// Half-width of the 95 % interval.
    pub half_width: f64,
}

impl Interval {
    fn of(evidence: &Evidence) -> Interval {
        Interval { mean: evidence.mean, half_width: evidence.half_width }
    }
}

/// A proposal and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrialRow {
    /// 1, 2, 3, ...
    pub number: u64,
    /// The change in one line.
    pub change: String,
    /// Why it should help.
    pub hypothesis: String,
    /// Who proposed it.
    pub researcher: String,
    /// What was expected.
    pub prediction: Prediction,
    /// Generation of the champion it was tried against.
    pub generation: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, where the word alone does not say it.
    pub reason: Option<String>,
    /// Pairs run.
    pub pairs: u64,
    /// The test, when a pair gave a difference.
    pub evidence: Option<Evidence>,
    /// The gain on fresh seeds, for kept changes as far as time allowed.
    pub remeasured: Option<Interval>,
    /// A keep on the rungs above the first.
    pub climbs: Vec<ClimbRow>,
    /// What it is worth in compute, as measured when it won.
    pub worth: Option<Worth>,
    /// Training seconds over the champion's at equal FLOPs.
    pub seconds_ratio: Option<f64>,
    /// Gain against a champion that was given as many seconds, when that was measured.
    pub equal_time_gain: Option<f64>,
    /// Parameters of the challenger.
    pub num_params: Option<u64>,
    /// Training runs first needed here.
    pub runs: u64,
    /// FLOPs first spent here.
    pub flops: f64,
    /// FLOPs of the campaign at the verdict, the noise included.
    pub flops_so_far: f64,
    /// Seconds of campaign time at the verdict.
    pub elapsed_s: Option<f64>,
}

/// A keep on a rung above the first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClimbRow {
    /// The scale dial there.
    pub depth: u64,
    /// Pairs run there.
    pub pairs: u64,
    /// The gain there, when a pair gave a difference.
    pub gain: Option<Interval>,
    /// Whether it held.
    pub held: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// A champion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChampionRow {
    /// 0 is the starting recipe.
    pub generation: u64,
    /// The proposal that won.
    pub proposal: Option<u64>,
    /// The change in one line.
    pub change: String,
    /// Level: the start's mean score less the gains so far, each measured pair by pair, bits per byte.
    pub level_bpb: f64,
    /// Gain over the previous champion as measured when it won.
    pub gain: Option<Interval>,
    /// Trainable parameters.
    pub num_params: u64,
    /// A run of it.
    pub run: String,
    /// FLOPs of the campaign when it won.
    pub flops_so_far: f64,
    /// Seconds of campaign time when it won.
    pub elapsed_s: f64,
}

/// Training loss of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// The run.
    pub run: String,
    /// FLOPs spent and mean loss since the previous point, nats per token.
    pub points: Vec<(f64, f64)>,
}

/// How good the researcher's predictions were, over the proposals that were tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// Proposals tried.
    pub tried: u64,
    /// Mean predicted probability of a keep.
    pub predicted: f64,
    /// Share that was kept.
    pub observed: f64,
    /// Mean squared error of the probabilities; lower is better.
    pub brier: f64,
    /// The same for always predicting the observed share: what it takes to be of any use.
    pub brier_of_constant: f64,
}

/// Where a report was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportFiles {
    /// For a terminal or a repository.
    pub markdown: PathBuf,
    /// For a browser or a printer; needs no other file.
    pub html: PathBuf,
}

/// Writes `report.md` and `report.html` into the lab.
pub fn write(lab: &Path, report: &Report) -> Result<ReportFiles, ReportError> {
    let files = ReportFiles { markdown: lab.join("report.md"), html: lab.join("report.html") };
    write_atomic(&files.markdown, markdown(report).as_bytes())?;
    write_atomic(&files.html, html(report).as_bytes())?;
    Ok(files)
}

fn outcome_of(verdict: &Verdict) -> Outcome {
    match verdict.decision {
        Decision::Keep if verdict.promoted => Outcome::Kept,
        Decision::Keep if verdict.stayed_below().is_some() => Outcome::Stayed,
        Decision::Keep if verdict.faded() => Outcome::Faded,
        Decision::Keep => Outcome::Slower,
        Decision::Reject(_) => Outcome::Rejected,
        Decision::Undecided(_) => Outcome::Undecided,
        Decision::Skipped(_) => Outcome::Skipped,
        Decision::Failed(_) => Outcome::Failed,
    }
}
