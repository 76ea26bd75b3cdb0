//! A campaign on disk: what was asked, proposed, tried, decided, promoted and finally measured.
//!
//! One document a file under `lab/campaign/`; together with the run directories they are the truth, and
//! the ledger is an index of them:
//!
//! ```text
//! campaign.json          CampaignManifest   written first, never changed
//! recipes/NAME.star      text of the recipes, as named by RecipeRef::file
//! noise.json             Noise              A/A pairs
//! proposals/0001.json    Proposal           written before its first trial
//! verdicts/0001.json     Verdict            same number; written once, after its last trial
//! champions/0000.json    Promotion          generation 0 is the starting recipe, on file once the noise is
//! final.json             FinalMeasurement   fresh seeds, sealed split
//! end.json               CampaignEnd        totals when the campaign last stopped
//! ```
//!
//! What becomes of keeps (`prunings/`, `retractions/`, `replications/`) is in `upkeep.rs`.
//!
//! Everywhere a *gain* or *difference* is the champion's bits per byte minus the challenger's, so that
//! positive is better.

use crate::{Climb, DataRef, EqualTime, Fresh, Ladder, Origin, RungMeasured, SettingValue, Settings, Worth};
use serde::{Deserialize, Serialize};

/// A recipe text kept with the campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipeRef {
    /// Name to show: a shipped name or a file name.
    pub name: String,
    /// BLAKE3 of the text, hex.
    pub hash: String,
    /// Path below `lab/campaign/`, `recipes/NAME.star`.
    pub file: String,
}

/// How the judge decides. Effects in units of the noise are in A/A pair standard deviations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeSettings {
    /// Bound on the expected share of false keeps in the whole campaign.
    pub alpha: f64,
    /// Gains at or below this many bits per byte are not worth keeping.
    pub min_effect_bpb: f64,
    /// A/A pairs run to learn the noise.
    pub noise_pairs: u64,
    /// Runs of a new champion before it is challenged; all its challengers share them.
    pub champion_runs: u64,
    /// How far, in pair standard deviations, a run of a champion to be on a fresh seed may fall short of half the gain
    /// it was kept for; `None` where nothing is asked of those runs, as in campaigns from before it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_slack_sds: Option<f64>,
    /// Pairs before a keep is possible.
    pub min_pairs: u64,
    /// Pairs after which an open duel ends undecided.
    pub max_pairs: u64,
    /// Size of effect, in pair standard deviations, that screening must let through...
    pub target_effect_sds: f64,
    /// ...with this probability; and how sure futility must be, at each look, that the pairs left cannot decide.
    pub target_power: f64,
    /// Size of effect, in pair standard deviations, the e-process is tuned for.
    pub mixture_sds: f64,
    /// Level of the test by which a keep must hold on each rung above the first.
    pub climb_level: f64,
    /// Pairs before a keep can hold there.
    pub climb_min_pairs: u64,
    /// Pairs after which it has not held there.
    pub climb_max_pairs: u64,
}

/// When a campaign stops proposing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CampaignBudget {
    /// Minutes of wall clock while the campaign runs, the final measurement included.
    Minutes(f64),
    /// Training runs for noise, champions and challengers, the final measurement not counted.
    Trials(u64),
}

/// `campaign.json`: everything a resumed campaign must agree with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CampaignManifest {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// Content address of the fields that determine the campaign: 12 hex digits.
    pub id: String,
    /// The starting recipe.
    pub recipe: RecipeRef,
    /// Settings the campaign starts from, beside the recipe's own defaults.
    pub settings: Settings,
    /// Scale and budget of trials.
    pub rungs: Ladder,
    /// What the models are trained on.
    pub data: DataRef,
    /// Keys every seed of the campaign.
    pub seed: u64,
    /// Who proposes: `optimizer`, `random`, ...
    pub researcher: String,
    /// How it is judged.
    pub judge: JudgeSettings,
    /// Limit of the command that started it; a later command may extend it.
    pub budget: CampaignBudget,
    /// Version of pawl.
    pub version: String,
    /// Wall-clock start, seconds since 1970.
    pub created_unix_s: u64,
    /// Processor and instruction set.
    pub machine: String,
}

/// One setting that a proposal turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Name of the dial, knob or choice.
    pub setting: String,
    /// The champion's value.
    pub from: SettingValue,
    /// The challenger's value.
    pub to: SettingValue,
}

/// What kind of change is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// One option of a choice.
    Choice,
    /// One number.
    Knob,
    /// Several changes at once.
    Combined,
    /// The recipe's text: what the model computes.
    Architecture,
    /// The recipe's text: the update rule.
    Optimizer,
    /// The recipe's text: learning rates and the like over time.
    Schedule,
    /// The recipe's text: batches, lengths, mixture, order.
    Data,
    /// The recipe's text: what is minimised.
    Objective,
    /// The recipe's text: initial values.
    Init,
    /// The recipe's text, of none or several of these kinds.
    Recipe,
}

impl Category {
    /// Every kind, in the order in which they are listed.
    pub const ALL: [Category; 10] = [
        Category::Choice,
        Category::Knob,
        Category::Combined,
        Category::Architecture,
        Category::Optimizer,
        Category::Schedule,
        Category::Data,
        Category::Objective,
        Category::Init,
        Category::Recipe,
    ];

    /// The word in records and tables.
    pub fn word(self) -> &'static str {
        match self {
            Category::Choice => "choice",
            Category::Knob => "knob",
            Category::Combined => "combined",
            Category::Architecture => "architecture",
            Category::Optimizer => "optimizer",
            Category::Schedule => "schedule",
            Category::Data => "data",
            Category::Objective => "objective",
            Category::Init => "init",
            Category::Recipe => "recipe",
        }
    }

    /// Whether it is a kind of change to the recipe's text.
    pub fn is_text(self) -> bool {
        match self {
            Category::Choice | Category::Knob | Category::Combined => false,
            Category::Architecture
            | Category::Optimizer
            | Category::Schedule
            | Category::Data
            | Category::Objective
            | Category::Init
            | Category::Recipe => true,
        }
    }
}

/// The language model behind a proposal, and what asking it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Author {
    /// The model that was asked.
    pub asked: String,
    /// The model that answered last, as the provider names it.
    pub model: String,
    /// The conversation, a file below `lab/campaign/`.
    pub conversation: String,
    /// Requests sent, those that failed included.
    pub requests: u64,
    /// Tokens sent, cached ones included.
    pub input_tokens: u64,
    /// Tokens of the answers.
    pub output_tokens: u64,
    /// Price of the conversation, US dollars.
    pub cost_usd: f64,
    /// Drafts that were sent back before this one.
    pub repairs: u64,
}

/// What the researcher expected before the trial.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Expected gain, bits per byte; positive is better.
    pub gain_bpb: f64,
    /// Probability that the judge keeps it, 0 to 1.
    pub keep_probability: f64,
}

/// `proposals/NNNN.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// 1, 2, 3, ... in the order proposed.
    pub number: u64,
    /// Generation of the champion it was proposed against.
    pub generation: u64,
    /// Settings turned, in name order; empty when only the text changes.
    pub changes: Vec<Change>,
    /// New recipe text, when the text changes.
    pub recipe: Option<RecipeRef>,
    /// All settings of the challenger that differ from its recipe's defaults.
    pub settings: Settings,
    /// Kind of change.
    pub category: Category,
    /// Why it should help, one sentence.
    pub hypothesis: String,
    /// What was expected.
    pub prediction: Prediction,
    /// Who proposed it.
    pub researcher: String,
    /// The model behind it, when a language model proposed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
    /// Wall clock, seconds since 1970.
    pub created_unix_s: u64,
}

/// Champion and challenger on the same seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairRecord {
    /// Keys data order and initialisation of both.
    pub seed: u64,
    /// Run id of the champion.
    pub champion_run: String,
    /// Run id of the challenger.
    pub challenger_run: String,
    /// Search split, bits per byte.
    pub champion_bpb: f64,
    /// Search split, bits per byte; `None` when it diverged.
    pub challenger_bpb: Option<f64>,
    /// `champion_bpb - challenger_bpb`; `None` when the challenger diverged.
    pub difference: Option<f64>,
    /// The challenger's training seconds over the champion's.
    pub seconds_ratio: f64,
    /// The challenger's training tokens per second over the champion's.
    pub tokens_per_sec_ratio: f64,
}

/// One A/A pair: the same recipe and data order, initialised twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoisePair {
    /// Keys the data order of both, and the first initialisation.
    pub seed: u64,
    /// Keys the second initialisation.
    pub init_seed: u64,
    /// The two run ids.
    pub runs: [String; 2],
    /// Their scores on the search split, bits per byte.
    pub bpb: [f64; 2],
    /// First minus second.
    pub difference: f64,
}

/// `noise.json`: what no change at all looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// The pairs.
    pub pairs: Vec<NoisePair>,
    /// Standard deviation of a paired difference about zero, bits per byte.
    pub pair_sd: f64,
    /// 95 % upper confidence limit of `pair_sd` (chi-square).
    pub pair_sd_upper: f64,
    /// Standard deviation of the difference of two independent runs, bits per byte.
    pub unpaired_sd: f64,
    /// Mean score of the starting recipe, bits per byte.
    pub mean_bpb: f64,
    /// Mean seconds of a run, from start to end of its process.
    pub run_seconds: f64,
    /// FLOPs spent on these pairs.
    pub flops: f64,
    /// Training seconds of these pairs.
    pub train_seconds: f64,
    /// Seconds of campaign time when the noise was known.
    pub elapsed_s: f64,
}

/// What the judge decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "snake_case")]
pub enum Decision {
    /// Better than the champion by more than the minimum worthwhile effect.
    Keep,
    /// An effect worth having is unlikely.
    Reject(String),
    /// Neither was shown within the limits.
    Undecided(String),
    /// Not tried: refused by the recipe compiler, or the same program was tried before.
    Skipped(String),
    /// The trial could not be run to a score: diverged or crashed.
    Failed(String),
}

impl Decision {
    /// The one word shown in tables.
    pub fn word(&self) -> &'static str {
        match self {
            Decision::Keep => "keep",
            Decision::Reject(_) => "reject",
            Decision::Undecided(_) => "undecided",
            Decision::Skipped(_) => "skipped",
            Decision::Failed(_) => "failed",
        }
    }

    /// Why, where the word alone does not say it.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Decision::Keep => None,
            Decision::Reject(reason)
            | Decision::Undecided(reason)
            | Decision::Skipped(reason)
            | Decision::Failed(reason) => Some(reason),
        }
    }
}

/// The numbers behind a decision; absent when nothing was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Mean gain, bits per byte.
    pub mean: f64,
    /// Half-width of the 95 % confidence sequence around `mean`, bits per byte: valid at every look.
    pub half_width: f64,
    /// Value of the e-process against "no better than the minimum worthwhile effect".
    pub e_value: f64,
    /// The e-value a keep needed, `1 / level`.
    pub threshold: f64,
    /// Level spent on this test by the online false-discovery rule.
    pub level: f64,
    /// Place of this test in the campaign's sequence of tests, from 1.
    pub test_index: u64,
    /// Standard deviation of a pair that was used, bits per byte.
    pub sd: f64,
}

/// `verdicts/NNNN.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// Number of the proposal.
    pub proposal: u64,
    /// Generation of the champion it was tried against.
    pub generation: u64,
    /// What was decided.
    pub decision: Decision,
    /// Whether it became champion. A keep that loses at equal seconds, does not hold on a rung above the first, or
    /// does not show on fresh seeds what it was kept for, does not.
    pub promoted: bool,
    /// Fingerprint of the challenger, when it compiled.
    pub fingerprint: Option<String>,
    /// Parameters of the challenger, when it compiled.
    pub num_params: Option<u64>,
    /// The pairs, in the order run.
    pub pairs: Vec<PairRecord>,
    /// The test, when a pair gave a difference.
    pub evidence: Option<Evidence>,
    /// Median over the pairs of the challenger's training seconds over the champion's.
    pub seconds_ratio: Option<f64>,
    /// The equal-seconds control, when the challenger was slower.
    pub equal_time: Option<EqualTime>,
    /// A keep on the rungs above the first, in order, up to the first on which it did not hold.
    pub climbs: Vec<Climb>,
    /// A keep that nothing else stood against, on fresh seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<Fresh>,
    /// What it is worth in compute, once it held on a rung above the first; as measured when it won, which is
    /// too much on average.
    pub worth: Option<Worth>,
    /// FLOPs of the runs that were first needed here (champion runs are shared by all challengers).
    pub flops: f64,
    /// Training runs that were first needed here.
    pub runs: u64,
    /// Training seconds of those runs.
    pub run_seconds: f64,
    /// Seconds of campaign time at the verdict.
    pub elapsed_s: f64,
    /// Wall clock, seconds since 1970.
    pub created_unix_s: u64,
}

impl Verdict {
    /// The rung on which a keep did not hold, if there is one.
    pub fn stayed_below(&self) -> Option<&Climb> {
        self.climbs.iter().find(|climb| !climb.held())
    }

    /// Whether it was kept and did not show on fresh seeds what it was kept for.
    pub fn faded(&self) -> bool {
        self.fresh.as_ref().is_some_and(|fresh| !fresh.holds)
    }

    /// Every pair, those of the rungs above the first included.
    pub fn all_pairs(&self) -> impl Iterator<Item = &PairRecord> {
        self.pairs.iter().chain(self.climbs.iter().flat_map(|climb| &climb.pairs))
    }
}

/// `champions/GGGG.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Promotion {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// 0 is the starting recipe.
    pub generation: u64,
    /// The proposal that won; `None` for generation 0 and where `origin` says how it came about.
    pub proposal: Option<u64>,
    /// How it came about, where no proposal won.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Its recipe.
    pub recipe: RecipeRef,
    /// Settings that differ from the recipe's defaults.
    pub settings: Settings,
    /// Canonical hash of the program.
    pub fingerprint: String,
    /// Trainable parameters.
    pub num_params: u64,
    /// FLOPs of one training step.
    pub flops_per_step: f64,
    /// Gain over the previous champion as it was measured when it won (biased upwards).
    pub gain: Option<Evidence>,
    /// Mean search score on its first fresh seeds (of the A/A runs for generation 0), bits per byte.
    pub mean_bpb: f64,
    /// A run of this champion in `lab/runs`: the first of its own that has a score, with its checkpoint.
    pub run: String,
    /// Its runs on its first fresh seeds, paid for in the verdict that promoted it; empty for generation 0.
    pub fresh_runs: Vec<String>,
    /// Scores of those that did not diverge, in their order, bits per byte: the judge knows the champion by them.
    pub fresh_bpb: Vec<f64>,
    /// Seconds of campaign time.
    pub elapsed_s: f64,
}

/// Means and 95 % t interval of paired differences on fresh seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Scores of the first arm, by seed, bits per byte.
    pub start_bpb: Vec<f64>,
    /// Scores of the second arm, by seed, bits per byte.
    pub champion_bpb: Vec<f64>,
    /// First minus second, by seed: positive is better.
    pub differences: Vec<f64>,
    /// Mean difference.
    pub mean: f64,
    /// Half-width of the 95 % t interval.
    pub half_width: f64,
}

/// A kept change measured again on the fresh seeds: the champion it made against the one it beat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptEffect {
    /// The proposal that brought it.
    pub proposal: u64,
    /// Run ids of the champion it made, by seed.
    pub runs: Vec<String>,
    /// On the search split; the first arm is the champion it beat.
    pub search: Measured,
}

/// `final.json`: the champion against the starting recipe on seeds no decision has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinalMeasurement {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// Generation of the champion that was measured.
    pub generation: u64,
    /// The fresh seeds.
    pub seeds: Vec<u64>,
    /// Run ids of the starting recipe, by seed.
    pub start_runs: Vec<String>,
    /// Run ids of the champion, by seed.
    pub champion_runs: Vec<String>,
    /// Search split.
    pub search: Measured,
    /// Sealed split: the reported number.
    pub sealed: Option<Measured>,
    /// Training seconds, champion over starting recipe, median over the seeds.
    pub seconds_ratio: f64,
    /// Each kept change on its own, as far as time allowed.
    pub kept: Vec<KeptEffect>,
    /// The champion against the starting recipe on the rungs above the first, as far as time allowed.
    pub above: Vec<RungMeasured>,
    /// What all kept changes together are worth in compute.
    pub worth: Option<Worth>,
    /// FLOPs spent on this measurement.
    pub flops: f64,
    /// Seconds of campaign time at its end.
    pub elapsed_s: f64,
}

/// Why a campaign stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its minutes or trials are used up.
    Budget,
    /// The researcher has nothing left to propose.
    Exhausted,
    /// No researcher can be asked now: a cap is reached or a service does not answer.
    Paused,
    /// It was interrupted; the same command continues.
    Interrupted,
}

/// `end.json`: totals, rewritten each time the campaign stops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CampaignEnd {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// Why.
    pub reason: EndReason,
    /// Generation of the champion.
    pub generation: u64,
    /// Proposals written.
    pub proposals: u64,
    /// Decisions by word.
    pub kept: u64,
    /// Decisions by word.
    pub rejected: u64,
    /// Decisions by word.
    pub undecided: u64,
    /// Decisions by word.
    pub skipped: u64,
    /// Decisions by word.
    pub failed: u64,
    /// Distinct training runs used.
    pub runs: u64,
    /// FLOPs of those runs.
    pub flops: f64,
    /// Training seconds of those runs.
    pub run_seconds: f64,
    /// Seconds of campaign time.
    pub elapsed_s: f64,
    /// Trials run side by side.
    pub workers: u64,
    /// Mean squared error of the predicted keep probabilities over the proposals that were tried (Brier).
    pub brier: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_carries_its_reason_in_json() {
        let text = serde_json::to_string(&Decision::Reject("hopeless".into())).unwrap();
        assert_eq!(text, r#"{"verdict":"reject","reason":"hopeless"}"#);
        assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), Decision::Reject("hopeless".into()));
        let keep = serde_json::to_string(&Decision::Keep).unwrap();
        assert_eq!(serde_json::from_str::<Decision>(&keep).unwrap(), Decision::Keep);
    }
}
