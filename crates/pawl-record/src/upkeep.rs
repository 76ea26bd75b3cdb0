//! What a campaign does with its keeps after the fact, one document a file under `lab/campaign/`:
//!
//! ```text
//! prunings/0001.json           Pruning      a part of the champion left out and tried; 1, 2, 3, ... as tried
//! retractions/0001.json        Retraction   a keep withdrawn; 1, 2, 3, ... as withdrawn, never removed
//! replications/0007-1.json     Replication  proposal 7 run again, the first time
//! replications/0007-1/runs/ID               the runs of its first seed, trained anew
//! ```

use crate::{Change, Evidence, PairRecord};
use serde::{Deserialize, Serialize};

/// How a champion came about where no proposal won.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A part of the champion before it was left out: number of the [`Pruning`].
    Pruned(u64),
    /// A keep below it was withdrawn, so that an earlier champion is champion again.
    Restored {
        /// Generation that it is again.
        generation: u64,
        /// Number of the [`Retraction`].
        retraction: u64,
    },
}

/// What became of a part that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "part", content = "reason", rename_all = "snake_case")]
pub enum PartRuling {
    /// It was shown to be worth less than the margin, and looked worth nothing: the next champion is without it.
    Leaves,
    /// It was not, and stays.
    Stays(String),
}

/// A part on a rung above the first: the champion there against itself without the part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartClimb {
    /// Place of the rung in the ladder; the first is 0.
    pub rung: u64,
    /// Fingerprint of the champion there.
    pub champion_fingerprint: String,
    /// Fingerprint of the champion without the part there, when that compiled.
    pub fingerprint: Option<String>,
    /// The pairs; the challenger is the champion without the part.
    pub pairs: Vec<PairRecord>,
    /// The test, when a pair gave a difference.
    pub evidence: Option<Evidence>,
    /// Whether it may leave as far as this rung goes.
    pub ruling: PartRuling,
}

/// `prunings/NNNN.json`: the champion against itself without one of its parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pruning {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// 1, 2, 3, ... in the order tried.
    pub number: u64,
    /// Generation of the champion that was tried without it.
    pub generation: u64,
    /// The proposal that brought the part.
    pub proposal: u64,
    /// Back from the champion's value to the one before the part came.
    pub change: Change,
    /// What became of it.
    pub ruling: PartRuling,
    /// Fingerprint of the champion without it, when that compiled.
    pub fingerprint: Option<String>,
    /// The pairs; the challenger is the champion without the part.
    pub pairs: Vec<PairRecord>,
    /// The test. Its null is that the part is worth at least the margin; the part's own effect is minus its mean.
    pub evidence: Option<Evidence>,
    /// Worth, in bits per byte, that a part must be shown to fall short of before it may leave.
    pub margin_bpb: f64,
    /// On the rungs above the first, in order, up to the first on which it stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub climbs: Vec<PartClimb>,
    /// The champion without it on the first of its own pair seeds, where it leaves or one of them diverged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fresh_runs: Vec<String>,
    /// Training seconds without the part over those with it, median over the pairs.
    pub seconds_ratio: Option<f64>,
    /// FLOPs of the runs that were first needed here.
    pub flops: f64,
    /// Training runs that were first needed here.
    pub runs: u64,
    /// Training seconds of those runs.
    pub run_seconds: f64,
    /// Seconds of campaign time.
    pub elapsed_s: f64,
    /// Wall clock, seconds since 1970.
    pub created_unix_s: u64,
}

impl Pruning {
    /// Every pair, those of the rungs above the first included.
    pub fn all_pairs(&self) -> impl Iterator<Item = &PairRecord> {
        self.pairs.iter().chain(self.climbs.iter().flat_map(|climb| &climb.pairs))
    }
}

/// `retractions/NNNN.json`: a keep that no longer counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retraction {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// 1, 2, 3, ... in the order withdrawn.
    pub number: u64,
    /// The proposal whose keep it was.
    pub proposal: u64,
    /// Why, in a person's words or the replication's numbers.
    pub why: String,
    /// Which replication contradicted it; `None` where a person withdrew it.
    pub replication: Option<u64>,
    /// Seconds of campaign time at the last thing on file before it.
    pub elapsed_s: f64,
    /// Wall clock, seconds since 1970.
    pub created_unix_s: u64,
}

/// A run trained a second time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reproduced {
    /// Run id on file.
    pub run: String,
    /// Id that the same inputs have now; another one where the inputs are no longer the same.
    pub again: String,
    /// Score on file, bits per byte.
    pub bpb: Option<f64>,
    /// Score now, bits per byte.
    pub again_bpb: Option<f64>,
    /// Whether id and score are the same to the last bit.
    pub same: bool,
}

/// `replications/NNNN-K.json`: a keep run again from its row alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replication {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// The proposal.
    pub proposal: u64,
    /// 1, 2, 3, ...: which replication of it.
    pub number: u64,
    /// Champion and challenger of its first pair, trained anew.
    pub reproduced: [Reproduced; 2],
    /// Pairs on seeds of this replication alone.
    pub pairs: Vec<PairRecord>,
    /// Mean gain over these pairs, bits per byte.
    pub mean: Option<f64>,
    /// Half-width of its 95 % t interval, from two pairs on.
    pub half_width: Option<f64>,
    /// The test against "better by at least the minimum worthwhile effect", over the pairs of this and all earlier
    /// replications of the proposal.
    pub against: Option<Evidence>,
    /// Whether that test says that the keep is no gain.
    pub contradicts: bool,
    /// Wall clock, seconds since 1970.
    pub created_unix_s: u64,
}
