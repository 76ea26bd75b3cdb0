//! Keeps that are withdrawn, by a person or by a replication that contradicts them, and what that does to the
//! champion: the last one that does not stand on the keep is champion again, and what was kept on top of it is
//! proposed again when the campaign continues (`upkeep`).
//!
//! Nothing is deleted: verdicts and champions stay on file as they were decided, a retraction is one more file.
//! Withdrawing can only be said of keeps, and cannot be taken back; a change that deserves another trial gets one
//! as a proposal.

use crate::books::Books;
use crate::campaign::CampaignError;
use crate::library::LibraryError;
use crate::store::{self, Store};
use pawl_ledger::{line, made_by};
use pawl_record::{Decision, FileError, Origin, Promotion, Replication, Retraction, SCHEMA};
use std::path::{Path, PathBuf};

/// A keep cannot be run again or withdrawn.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The campaign's files do not serve.
    #[error(transparent)]
    Campaign(#[from] CampaignError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The library does not serve.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// There is no campaign.
    #[error("there is no campaign in {lab}")]
    NoCampaign {
        /// The lab.
        lab: PathBuf,
    },
    /// Neither a proposal nor a run of one has this name.
    #[error("{wanted:?} is neither the number of a proposal nor the id of a run of a keep")]
    NoSuchKeep {
        /// What was asked for.
        wanted: String,
    },
    /// It was not kept.
    #[error("#{number} was not kept: {decision}")]
    NotKept {
        /// The proposal.
        number: u64,
        /// What was decided.
        decision: String,
    },
    /// It is withdrawn already.
    #[error("#{number} is retracted already: {why}")]
    Retracted {
        /// The proposal.
        number: u64,
        /// Why.
        why: String,
    },
    /// A reason is needed.
    #[error("a keep is not retracted without a reason")]
    NoReason,
    /// What is on file cannot be run again.
    #[error("#{number} cannot be replicated: {why}")]
    Unrepeatable {
        /// The proposal.
        number: u64,
        /// Why.
        why: String,
    },
    /// Asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// What withdrawing a keep did.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Withdrawn {
    /// The record.
    pub retraction: Retraction,
    /// Keeps that stood on it.
    pub affected: Vec<u64>,
    /// The champion that is champion again; `None` where the champion did not stand on the keep.
    pub restored: Option<Promotion>,
}

/// Withdraws the keep that `id` names: a proposal's number, or a run of it.
pub fn retract(lab: &Path, id: &str, why: &str, unix_s: u64) -> Result<Withdrawn, KeepError> {
    let why = why.trim();
    if why.is_empty() {
        return Err(KeepError::NoReason);
    }
    let _lock = store::lock(lab)?;
    let (store, mut books) = open(lab)?;
    let number = keep_named(&books, id)?;
    withdraw(&store, &mut books, number, why, None, unix_s)
}

/// The campaign's files, what was begun and not finished done.
pub(crate) fn open(lab: &Path) -> Result<(Store, Books), KeepError> {
    let store = Store::new(lab);
    if store.manifest()?.is_none() {
        return Err(KeepError::NoCampaign { lab: lab.to_path_buf() });
    }
    let mut books = Books::read(&store)?;
    settle(&store, &mut books)?;
    Ok((store, books))
}

/// The kept proposal of that name.
pub(crate) fn keep_named(books: &Books, id: &str) -> Result<u64, KeepError> {
    let no_such = || KeepError::NoSuchKeep { wanted: id.to_string() };
    let digits = id.strip_prefix('#').unwrap_or(id);
    // As `pawl show` reads it: up to three digits are a number, more are the beginning of a run's id.
    let is_number = (id.starts_with('#') || digits.len() <= 3) && digits.parse::<u64>().is_ok();
    let number = match digits.parse::<u64>() {
        Ok(number) if is_number => number,
        Ok(_) | Err(_) => run_of(books, id).ok_or_else(no_such)?,
    };
    let verdict = books.verdicts.get(&number).ok_or_else(no_such)?;
    if verdict.decision != Decision::Keep {
        return Err(KeepError::NotKept { number, decision: verdict.decision.word().to_string() });
    }
    Ok(number)
}

/// The keep that a run belongs to: a run of the champion it made, or of its side in its duel.
fn run_of(books: &Books, id: &str) -> Option<u64> {
    if id.is_empty() {
        return None;
    }
    let made = books.champions.iter().find(|it| {
        it.proposal.is_some()
            && (it.run.starts_with(id) || it.fresh_runs.iter().any(|run| run.starts_with(id)))
    });
    let tried = || {
        let its =
            |pairs: &[pawl_record::PairRecord]| pairs.iter().any(|pair| pair.challenger_run.starts_with(id));
        books.verdicts.values().find(|verdict| its(&verdict.pairs)).map(|verdict| verdict.proposal)
    };
    made.and_then(|it| it.proposal).or_else(tried)
}

/// Files a retraction and restores the champion that it leaves.
pub(crate) fn withdraw(
    store: &Store,
    books: &mut Books,
    number: u64,
    why: &str,
    replication: Option<u64>,
    unix_s: u64,
) -> Result<Withdrawn, KeepError> {
    if let Some(known) = books.retractions.iter().find(|it| it.proposal == number) {
        return Err(KeepError::Retracted { number, why: known.why.clone() });
    }
    let affected = standing_on(books, number);
    let generation = books.champions.last().map(|it| it.generation);
    file(store, books, number, why, replication, unix_s)?;
    settle(store, books)?;
    let restored = books.champions.last().filter(|it| Some(it.generation) != generation).cloned();
    let retraction = books.retractions.last().expect("it was filed").clone();
    Ok(Withdrawn { retraction, affected, restored })
}

fn file(
    store: &Store,
    books: &mut Books,
    number: u64,
    why: &str,
    replication: Option<u64>,
    unix_s: u64,
) -> Result<(), CampaignError> {
    let retraction = Retraction {
        schema: SCHEMA,
        number: books.retractions.len() as u64 + 1,
        proposal: number,
        why: why.to_string(),
        replication,
        elapsed_s: books.last_elapsed_s(store.noise()?.as_ref(), store)?,
        created_unix_s: unix_s,
    };
    store.write(&format!("retractions/{:04}.json", retraction.number), &retraction)?;
    books.retractions.push(retraction);
    Ok(())
}

/// Keeps that stand on that of `number` and are not withdrawn themselves.
fn standing_on(books: &Books, number: u64) -> Vec<u64> {
    let Some(generation) = made_by(&books.champions, number) else { return Vec::new() };
    let above = |it: &&Promotion| {
        it.generation > generation && line(&books.champions, it.generation).contains(&generation)
    };
    let keeps = books.champions.iter().filter(above).filter_map(|it| it.proposal);
    keeps.filter(|keep| !books.is_retracted(*keep)).collect()
}

/// Finishes what a kill may have left half done, or a command has just begun: a replication that contradicts is a
/// retraction, and a retraction below the champion restores the one before.
pub(crate) fn settle(store: &Store, books: &mut Books) -> Result<(), CampaignError> {
    let contradicted: Vec<Replication> =
        books.replications.iter().filter(|it| it.contradicts).cloned().collect();
    for it in contradicted {
        if !books.is_retracted(it.proposal) {
            file(store, books, it.proposal, &contradiction(&it), Some(it.number), it.created_unix_s)?;
        }
    }
    for retraction in books.retractions.clone() {
        let Some(champion) = books.champions.last() else { return Ok(()) };
        let line = line(&books.champions, champion.generation);
        let made = made_by(&books.champions, retraction.proposal);
        let Some(at) = line.iter().position(|generation| Some(*generation) == made) else { continue };
        let before = books.champions[line[at - 1] as usize].clone();
        let generation = champion.generation + 1;
        let restored = Promotion {
            generation,
            proposal: None,
            origin: Some(Origin::Restored { generation: before.generation, retraction: retraction.number }),
            gain: None,
            // Its pair seeds are new, and none of them was run yet.
            fresh_runs: Vec::new(),
            elapsed_s: retraction.elapsed_s,
            ..before
        };
        store.write(&format!("champions/{generation:04}.json"), &restored)?;
        books.champions.push(restored);
    }
    Ok(())
}

/// What a contradicting replication says, in a line.
pub(crate) fn contradiction(replication: &Replication) -> String {
    let e = replication.against.map_or(0.0, |evidence| evidence.e_value);
    let mean = replication.mean.unwrap_or(f64::NAN);
    format!(
        "replication {} contradicts it: {mean:+.4} bits per byte on {} fresh seeds, e-value {e:.0} against a gain",
        replication.number,
        replication.pairs.len()
    )
}
