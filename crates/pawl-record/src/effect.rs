//! The effect library on disk: what changes were worth, and where. A lab derives its own effects from its
//! campaign; those of other labs lie in `lab/effects/SOURCE.json`, one file a source.

use crate::{Category, Change, DataRef, Precision};
use serde::{Deserialize, Serialize};

/// Where an effect was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectContext {
    /// Name of the recipe.
    pub recipe: String,
    /// The scale dial.
    pub depth: u64,
    /// Budget of a trial, FLOPs.
    pub flops: f64,
    /// Number format of the products.
    pub precision: Precision,
    /// Data set.
    pub data: DataRef,
    /// Value of the setting `optimizer`, where the recipe has one and the run is still there.
    pub optimizer: Option<String>,
    /// Training tokens a parameter of the champion, where its run is still there.
    pub tokens_per_param: Option<f64>,
}

/// What one proposal showed. Gains in bits per byte, positive is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Number of the proposal in its campaign.
    pub proposal: u64,
    /// What was changed.
    pub changes: Vec<Change>,
    /// Kind of change.
    pub category: Category,
    /// Where.
    pub context: EffectContext,
    /// The judge's word: `keep`, `reject`, `undecided`.
    pub decision: String,
    /// Pairs it was seen on.
    pub pairs: u64,
    /// Whether those were fresh seeds, which no decision has seen.
    pub fresh: bool,
    /// Mean gain.
    pub mean: f64,
    /// Standard error of that mean.
    pub standard_error: f64,
    /// Posterior mean of the gain.
    pub posterior_mean: f64,
    /// Half-width of its 95 % interval.
    pub half_width: f64,
}

/// Effects of one campaign: `lab/effects/SOURCE.json`, and the entries of an exported file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectSource {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// Id of the campaign that saw them: 12 hex digits.
    pub source: String,
    /// Wall clock when they were gathered, seconds since 1970.
    pub gathered_unix_s: u64,
    /// Standard deviation of an A/A pair there, bits per byte.
    pub pair_sd: f64,
    /// The effects, by number of the proposal.
    pub effects: Vec<Effect>,
}

/// A file of `pawl effects export`: the lab's own effects and those it imported, each under its source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectFile {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// By id.
    pub sources: Vec<EffectSource>,
}
