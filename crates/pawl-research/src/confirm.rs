//! Whether a keep shows on fresh seeds what it was kept for, before it may be champion.
//!
//! A challenger that is a little better than its mean mostly, and rarely far worse, deceives any test that has seen
//! only the many: its luck is as steady as a gain. What gives it away is seeds that had no say in the keep. They cost
//! nothing more: a new champion is run on the first of its own pair seeds before it is challenged, and those runs are
//! had before it becomes champion.
//!
//! **Rule.** With g the gain that the duel measured, above the minimum worthwhile effect, and s the sd of an A/A pair,
//! every fresh run must score better than the champion's mean by at least `g / 2 - slack s`, and have a score.
//! The worst of them decides and not their mean: a skewed challenger betrays itself by one bad run in three.
//!
//! **Validity.** It can only take a keep back, as equal seconds and the rungs above can, so every bound on false keeps
//! stands without it ([`crate::levels`]). That the champion's first runs are now known not to be its worst makes its mean
//! look a little better than it is, which a challenger pays for. The same runs enter the scale of its challengers' duels
//! ([`crate::evidence::NoiseScale::with_runs`]), and there it is the other way round: eight runs of which the worst was
//! not far off scatter less than eight runs do, so the scale is a little too small and evidence a little too large while
//! the A/A pairs say the rest. No theorem covers that; the rates below are of the procedure as it is, with it.
//!
//! **Measured** (`cargo xtask judge aa`, `power`; LOG.md has the table that eight runs and 1.75 were taken from): of
//! campaigns of nulls that are skewed and twice as noisy as A/A pairs, far beyond what the e-process assumes, 42 % had a
//! false keep without it and 9 % with it; changes of two pair sds are kept as often, at the same runs a campaign; quiet
//! ones, a third as noisy as an A/A pair, lose 3 to 5 points, since a fresh run is in no pair. The median of fresh runs,
//! their mean, and the pooled evidence of the challenger's own runs were tried and do less for more.

use crate::evidence::{Known, Scores, Stats};
use pawl_record::JudgeSettings;

/// Share of the measured gain that is asked of a fresh run: gains are measured too large when they win.
pub const SHARE: f64 = 0.5;

/// Whether a keep with these `pairs` holds on fresh seeds, where these were its scores; `None` is a run without one.
pub fn holds(settings: &JudgeSettings, known: &Known, pairs: &[Scores], fresh: &[Option<f64>]) -> bool {
    let Some(slack_sds) = settings.fresh_slack_sds else {
        return fresh.iter().any(Option::is_some);
    };
    let gain = Stats::of_arms(known, pairs, settings.min_effect_bpb).mean();
    let least = SHARE * gain - slack_sds * known.scale.sd();
    let mean = known.mean(pairs) - settings.min_effect_bpb;
    fresh.iter().all(|score| score.is_some_and(|score| mean - score >= least))
}
