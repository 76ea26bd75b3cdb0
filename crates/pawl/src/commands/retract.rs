//! `pawl retract ID --why TEXT`: a keep withdrawn. What follows is decided elsewhere; this file says it.

use crate::args::Retract;
use crate::commands::research::from_campaign;
use crate::errors::Failure;
use crate::output::{Answer, Block};
use pawl_research::retract::{KeepError, Withdrawn, retract};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn run(args: Retract) -> Result<Answer, Failure> {
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let withdrawn = retract(&args.place.lab, &args.id, &args.why, unix_s).map_err(from_keep)?;
    let mut block = Block::default();
    lines(&mut block, &withdrawn);
    Ok(Answer::new(block.text().to_string(), json!({ "withdrawn": withdrawn })))
}

/// What a withdrawal did.
pub(crate) fn lines(block: &mut Block, withdrawn: &Withdrawn) {
    let Withdrawn { retraction, affected, restored } = withdrawn;
    block.line("retracted", format!("#{}", retraction.proposal)).line("why", &retraction.why);
    for keep in affected {
        block.line("affected", format!("#{keep} stood on it"));
    }
    match restored {
        Some(champion) => block.line(
            "champion",
            format!("{:.4} val_bpb, run {}, as before it", champion.mean_bpb, champion.run),
        ),
        None => block.line("champion", "unchanged: it does not stand on it"),
    };
    if !affected.is_empty() {
        block.line("next", "pawl research tries them again without it");
    }
}

/// The error of a keep with what to do about it.
pub(crate) fn from_keep(error: KeepError) -> Failure {
    let hint = match &error {
        KeepError::Campaign(_) => None,
        KeepError::NoCampaign { .. } => Some("`pawl research` starts one"),
        KeepError::NoSuchKeep { .. } | KeepError::NotKept { .. } => {
            Some("`pawl report` lists what was kept, with its number")
        }
        KeepError::Retracted { .. } => Some("a change that deserves another trial gets one as a proposal"),
        KeepError::NoReason => Some("say it with --why"),
        KeepError::Unrepeatable { .. } => Some("`pawl verify` says what else differs from what was decided"),
        KeepError::Library(_) => Some("`pawl effects revoke SOURCE` removes what was imported"),
        KeepError::File(_) | KeepError::Interrupted => None,
    };
    let failure = match error {
        KeepError::Campaign(error) => from_campaign(error),
        error @ (KeepError::File(_)
        | KeepError::Library(_)
        | KeepError::NoCampaign { .. }
        | KeepError::NoSuchKeep { .. }
        | KeepError::NotKept { .. }
        | KeepError::Retracted { .. }
        | KeepError::NoReason
        | KeepError::Unrepeatable { .. }
        | KeepError::Interrupted) => Failure::from(error),
    };
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
