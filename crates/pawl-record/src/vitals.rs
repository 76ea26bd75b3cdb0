//! What a run looked like from inside: sizes of parameters, gradients, updates and activations, and where time went.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Part of `result.json`. All but `time` follow from the run's bits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vitals {
    /// Updates done when groups were looked at, about eight over the run.
    pub steps: Vec<u64>,
    /// Parameters by group, in name order.
    pub groups: Vec<GroupVitals>,
    /// Activations between layers at the end of the run, first to last.
    pub layers: Vec<LayerScale>,
    /// Share of the time of one training step by part: products, attention, optimizer, ...
    pub time: BTreeMap<String, f64>,
}

/// Root mean squares of the parameters of a group, one number for each of [`Vitals::steps`]; `None` where it was no
/// finite number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupVitals {
    /// Names that differ in the number of the layer alone: `blocks.*.attn.q.weight`.
    pub name: String,
    /// Elements.
    pub num_params: u64,
    /// Of the parameters after the update.
    pub weight_rms: Vec<Option<f64>>,
    /// Of their gradient in that update.
    pub gradient_rms: Vec<Option<f64>>,
    /// Of the difference that the update made.
    pub update_rms: Vec<Option<f64>>,
}

/// The scale of what runs between layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerScale {
    /// `into blocks.0`, ..., `out of blocks.5`.
    pub name: String,
    /// Root mean square over held-out tokens; `None` where it was no finite number.
    pub rms: Option<f64>,
}

impl Vitals {
    /// Whether nothing was looked at.
    pub fn is_empty(&self) -> bool {
        *self == Vitals::default()
    }
}
