//! The order of decisions in a round: one pair for every candidate, the hopeless closed, then duels one at a
//! time, the most promising first, until one makes a new champion or all are closed.
//!
//! It knows neither trials nor files. A campaign holds court with training runs, [`crate::simulate`] with
//! drawn numbers: what is measured in simulation is the procedure that decides, not a copy of it.

use crate::evidence::Scores;
use crate::judge::{self, Known, Ruling};
use crate::levels;
use pawl_record::{Evidence, JudgeSettings};

/// What a ruling reads of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Place in the campaign's sequence of tests, from 1.
    pub test_index: u64,
    /// Generation of the champion it is tried against.
    pub generation: u64,
    /// Both arms on each seed so far.
    pub pairs: Vec<Scores>,
    /// Why its trial has no score, once that has happened.
    pub failure: Option<String>,
}

/// Where pairs come from and rulings go.
pub trait Court {
    /// A proposal under trial.
    type Candidate;
    /// Why pairs cannot be had.
    type Error;

    /// How to judge.
    fn settings(&self) -> JudgeSettings;
    /// What is known of the noise and of the champion that a candidate is tried against.
    fn known(&self, candidate: &Self::Candidate) -> Known;
    /// Keeps that became champion so far.
    fn num_promoted(&self) -> u64;
    /// Generation of the present champion.
    fn generation(&self) -> u64;
    /// Whether the budget allows one more pair of a candidate: a budget of time only with what its keep would take, a
    /// budget of runs while any are left.
    fn can_afford_pair(&self, candidate: &Self::Candidate) -> bool;
    /// What is known of a candidate.
    fn case(&self, candidate: &Self::Candidate) -> Case;
    /// How many pairs of a duel run together.
    fn pairs_at_once(&self, candidate: &Self::Candidate) -> usize;
    /// Runs one more pair for each mention in `wanted`, indices into `candidates`. A pair may be void.
    fn add_pairs(&mut self, candidates: &mut [Self::Candidate], wanted: &[usize]) -> Result<(), Self::Error>;
    /// Hears of the evidence after each look.
    fn look(&mut self, candidate: &Self::Candidate, evidence: &Evidence);
    /// Files what was ruled; a keep must first hold on the rungs above ([`crate::climb`]) and on fresh seeds
    /// ([`crate::confirm`]). Whether there is a new champion shows in [`Court::generation`].
    fn close(
        &mut self,
        candidate: Self::Candidate,
        ruling: Ruling,
        evidence: Option<Evidence>,
    ) -> Result<(), Self::Error>;
}

/// Decides every candidate of a round.
pub fn hold<C: Court>(court: &mut C, candidates: Vec<C::Candidate>) -> Result<(), C::Error> {
    for candidate in screen(court, candidates)? {
        duel(court, candidate)?;
    }
    Ok(())
}

/// One pair for each candidate. The hopeless are closed; the rest come back, best first.
fn screen<C: Court>(court: &mut C, candidates: Vec<C::Candidate>) -> Result<Vec<C::Candidate>, C::Error> {
    let mut screened = Vec::new();
    let mut open = candidates;
    while !open.is_empty() {
        let wanted: Vec<usize> = (0..open.len()).collect();
        court.add_pairs(&mut open, &wanted)?;
        let (done, void): (Vec<_>, Vec<_>) = open.into_iter().partition(|candidate| {
            let case = court.case(candidate);
            !case.pairs.is_empty() || case.failure.is_some()
        });
        screened.extend(done);
        open = void;
    }
    let mut survivors = Vec::new();
    for candidate in screened {
        let (ruling, evidence) = rule(court, &candidate);
        match ruling {
            Ruling::Continue | Ruling::Keep => survivors.push(candidate),
            Ruling::Reject(_) | Ruling::Undecided(_) => court.close(candidate, ruling, evidence)?,
        }
    }
    let gain = |candidate: &C::Candidate| court.case(candidate).pairs[0].difference();
    survivors.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
    Ok(survivors)
}

/// Adds pairs until the judge decides.
fn duel<C: Court>(court: &mut C, mut candidate: C::Candidate) -> Result<(), C::Error> {
    loop {
        let (ruling, evidence) = rule(court, &candidate);
        let superseded = court.case(&candidate).generation != court.generation();
        let ruling = match ruling {
            Ruling::Continue if superseded => Ruling::Undecided("the champion changed".to_string()),
            Ruling::Continue if !court.can_afford_pair(&candidate) => {
                Ruling::Undecided("out of budget".to_string())
            }
            decided @ (Ruling::Keep | Ruling::Reject(_) | Ruling::Undecided(_) | Ruling::Continue) => decided,
        };
        if ruling != Ruling::Continue {
            return court.close(candidate, ruling, evidence);
        }
        let num_pairs = court.pairs_at_once(&candidate);
        let mut one = vec![candidate];
        court.add_pairs(&mut one, &vec![0; num_pairs])?;
        candidate = one.remove(0);
    }
}

/// Rules on a candidate. A challenger without a score is ruled out by its failure.
fn rule<C: Court>(court: &mut C, candidate: &C::Candidate) -> (Ruling, Option<Evidence>) {
    let case = court.case(candidate);
    if let Some(failure) = case.failure {
        return (Ruling::Reject(failure), None);
    }
    let settings = court.settings();
    let level = levels::level(settings.alpha, case.test_index, court.num_promoted());
    let (ruling, evidence) =
        judge::rule(&settings, &court.known(candidate), &case.pairs, level, case.test_index);
    court.look(candidate, &evidence);
    (ruling, Some(evidence))
}
