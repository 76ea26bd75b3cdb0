//! What a champion is made of, and whether a keep still stands. Computed from records; reads no file.

use pawl_record::{Change, Origin, Promotion, Proposal, Pruning, Retraction};
use serde::Serialize;

/// A setting that a champion owes to a kept proposal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// The proposal that brought it.
    pub proposal: u64,
    /// Generation that it came with.
    pub generation: u64,
    /// From the value before to the champion's.
    pub change: Change,
}

/// What has become of a keep since.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum Standing {
    /// The champion has it.
    Stands,
    /// It was withdrawn.
    Retracted {
        /// Why.
        why: String,
    },
    /// It was tried on top of a keep that was withdrawn: what it is worth without is open.
    Affected {
        /// The proposal that was withdrawn.
        by: u64,
    },
    /// The champion no longer has it: all its parts were left out.
    LeftOut,
}

impl Standing {
    /// In words; nothing where there is nothing to say.
    pub fn words(&self) -> Option<String> {
        match self {
            Standing::Stands => None,
            Standing::Retracted { why } => Some(format!("retracted: {why}")),
            Standing::Affected { by } => Some(format!("stood on #{by}, which is retracted")),
            Standing::LeftOut => Some("left out again".to_string()),
        }
    }
}

/// Generations on which champion `generation` stands, the start first, itself last. A restored champion stands on
/// what the one that it is again stood on.
pub fn line(promotions: &[Promotion], generation: u64) -> Vec<u64> {
    let of = |generation: u64| promotions.iter().find(|it| it.generation == generation);
    let mut line = vec![generation];
    let mut at = generation;
    // A generation stands on smaller ones alone; a record that says otherwise ends the walk.
    while let Some(promotion) = of(at) {
        let below = match promotion.origin {
            Some(Origin::Restored { generation, .. }) => Some(generation),
            Some(Origin::Pruned(_)) | None => at.checked_sub(1),
        };
        match below.filter(|below| *below < at) {
            Some(below) => at = below,
            None => break,
        }
        line.push(at);
    }
    line.reverse();
    line
}

/// The generation that a proposal made, if it made one.
pub fn made_by(promotions: &[Promotion], proposal: u64) -> Option<u64> {
    promotions.iter().find(|it| it.proposal == Some(proposal)).map(|it| it.generation)
}

/// Settings that champion `generation` owes to keeps and that were not left out since, in the order they came. A
/// setting that was moved twice is two parts, the later on top of the earlier.
pub fn parts(
    promotions: &[Promotion],
    proposals: &[Proposal],
    prunings: &[Pruning],
    generation: u64,
) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for generation in line(promotions, generation) {
        let Some(promotion) = promotions.iter().find(|it| it.generation == generation) else { continue };
        if let Some(Origin::Pruned(number)) = promotion.origin
            && let Some(left_out) = prunings.iter().find(|it| it.number == number)
            && let Some(at) = parts.iter().rposition(|part| part.change.setting == left_out.change.setting)
        {
            parts.remove(at);
        }
        let Some(number) = promotion.proposal else { continue };
        let changes = proposals.iter().find(|it| it.number == number).map(|it| it.changes.clone());
        let part = |change| Part { proposal: number, generation, change };
        parts.extend(changes.unwrap_or_default().into_iter().map(part));
    }
    parts
}

/// What has become of a proposal's keep; `None` for one that made no champion and was not withdrawn.
pub fn standing(
    promotions: &[Promotion],
    proposals: &[Proposal],
    prunings: &[Pruning],
    retractions: &[Retraction],
    proposal: u64,
) -> Option<Standing> {
    if let Some(retraction) = retractions.iter().find(|it| it.proposal == proposal) {
        return Some(Standing::Retracted { why: retraction.why.clone() });
    }
    let made = made_by(promotions, proposal)?;
    let below = line(promotions, made);
    let withdrawn = |it: &&Retraction| {
        made_by(promotions, it.proposal).is_some_and(|generation| below.contains(&generation))
    };
    if let Some(retraction) = retractions.iter().find(withdrawn) {
        return Some(Standing::Affected { by: retraction.proposal });
    }
    let champion = promotions.iter().map(|it| it.generation).max()?;
    let is_part = |part: &Part| part.proposal == proposal;
    let brought = proposals.iter().find(|it| it.number == proposal).map_or(0, |it| it.changes.len());
    let left = parts(promotions, proposals, prunings, champion);
    Some(if brought > 0 && !left.iter().any(is_part) { Standing::LeftOut } else { Standing::Stands })
}
