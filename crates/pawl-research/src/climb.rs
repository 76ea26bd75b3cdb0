//! The climb: whether a keep holds on a rung above the first.
//!
//! A duel of its own on that rung, on seeds that no other decision has seen, by the judge of every duel at the
//! level `climb_level`: a change that is no better there than the minimum worthwhile effect climbs with at most that
//! probability. A climb can only take a keep back, so the bound of a campaign on false keeps stands without it, as
//! long as [`crate::levels`] counts those that became champion and no others.
//!
//! *The noise of a rung above* is not measured with A/A pairs, each of which would cost as much as eight trials of
//! the first rung at four times its FLOPs. It is learnt from the scatter of the climb's own sums, with the first rung's
//! scale as [`PRIOR_DOF`] degrees of freedom beside it. The first rung may be much the quieter one (a recipe that
//! has not begun to learn something scatters less than one that just begins, LOG.md), so the prior counts for no less
//! than the sums say: in simulation a null holds in at most 6 % of climbs at any noise from half to twenty times the
//! first rung's.
//!
//! It knows neither trials nor files: a campaign climbs with training runs, [`crate::simulate`] with drawn numbers,
//! [`crate::verify`] reads what they wrote.

use crate::evidence::{NoiseScale, Scores};
use crate::judge::{self, Known, Ruling};
use pawl_record::{Decision, Evidence, JudgeSettings};

/// Degrees of freedom that the scale of the first rung counts for above it: as few as bound an interval after one
/// pair.
pub const PRIOR_DOF: f64 = 3.0;

/// Where the pairs of a climb come from.
pub trait Rope {
    /// Why pairs cannot be had.
    type Error;

    /// Both arms on each seed so far.
    fn pairs(&self) -> Vec<Scores>;
    /// Why there is no score, once that has happened.
    fn failure(&self) -> Option<String>;
    /// Whether the budget allows one more pair.
    fn can_afford_pair(&self) -> bool;
    /// Runs one more pair or several. A pair may be void.
    fn add_pairs(&mut self) -> Result<(), Self::Error>;
}

/// Adds pairs until it is decided: [`Decision::Keep`] when the change holds on this rung.
pub fn climb<R: Rope>(
    rope: &mut R,
    settings: &JudgeSettings,
    noise: &NoiseScale,
    test_index: u64,
) -> Result<(Decision, Option<Evidence>), R::Error> {
    loop {
        if let Some(failure) = rope.failure() {
            return Ok((Decision::Failed(failure), None));
        }
        let pairs = rope.pairs();
        let ruled = (!pairs.is_empty()).then(|| rule(settings, noise, &pairs, test_index));
        let evidence = ruled.as_ref().map(|(_, evidence)| *evidence);
        match ruled.map_or(Ruling::Continue, |(ruling, _)| ruling) {
            Ruling::Keep => return Ok((Decision::Keep, evidence)),
            Ruling::Reject(reason) => return Ok((Decision::Reject(reason), evidence)),
            Ruling::Undecided(reason) => return Ok((Decision::Undecided(reason), evidence)),
            Ruling::Continue if !rope.can_afford_pair() => {
                return Ok((Decision::Undecided(OUT_OF_BUDGET.to_string()), evidence));
            }
            Ruling::Continue => rope.add_pairs()?,
        }
    }
}

/// Why a climb ended that more pairs could have decided.
pub(crate) const OUT_OF_BUDGET: &str = "out of budget";

/// Rules on a keep after `pairs` on one rung above the first; `noise` is the first rung's.
pub fn rule(
    settings: &JudgeSettings,
    noise: &NoiseScale,
    pairs: &[Scores],
    test_index: u64,
) -> (Ruling, Evidence) {
    judge::rule(
        &duel_settings(settings),
        &Known::of_noise(prior(noise, pairs)),
        pairs,
        settings.climb_level,
        test_index,
    )
}

/// How the judge decides a climb.
pub(crate) fn duel_settings(settings: &JudgeSettings) -> JudgeSettings {
    JudgeSettings { min_pairs: settings.climb_min_pairs, max_pairs: settings.climb_max_pairs, ..*settings }
}

/// The scale of the first rung as something that is half known, or that of the sums where it is larger.
pub(crate) fn prior(noise: &NoiseScale, pairs: &[Scores]) -> NoiseScale {
    let dof = noise.dof.min(PRIOR_DOF);
    let below = noise.sum_squares / noise.dof;
    let sums = NoiseScale { dof: 0.0, sum_squares: 0.0 }.with_sums(pairs);
    let here = if sums.dof > 0.0 { sums.sum_squares / sums.dof } else { 0.0 };
    NoiseScale { dof, sum_squares: dof * below.max(here) }
}
