//! The campaign's error budget: which level each test may spend, so that the expected share of false
//! keeps over the whole campaign stays below `alpha`.
//!
//! **Rule.** e-LOND (Xu and Ramdas, "Online multiple testing with e-values", AISTATS 2024): the t-th test
//! gets `alpha_t = alpha * gamma_t * (R + 1)`, `R` the promotions so far and `gamma` non-negative with sum at
//! most 1, and keeps when its e-value reaches `1 / alpha_t`.
//!
//! **Why it is valid here.** With `E_t` the e-value of test t and `R_T` the promotions at any later time T, a
//! false promotion at t has `1{E_t >= 1/alpha_t} <= alpha_t E_t` and `R_T >= R + 1`, so it adds at most
//! `alpha gamma_t E_t` to the false share `V_T / R_T`. A keep may still lose at equal seconds, on the next rung or on
//! fresh seeds: that removes it from V and from R, whatever the reason, and the same line holds, because R counts promotions
//! alone. Were keeps counted that were taken back, each would pay for level that no promotion stands for. (It holds
//! for the larger set of all keeps too.) Summing over true nulls, where `E[E_t] <= 1`, gives
//! FDR <= alpha, at every T, however the `E_t` depend on each other. That matters: all challengers of one
//! champion share its runs, so their e-values move together. Three more conditions, each met by
//! construction in `campaign.rs`:
//!
//! - every proposal that gets a pair takes an index, also when screening drops it after one pair: indices
//!   spent only on survivors would select on the data that the e-value is made of;
//! - `R` is read before the proposal's first pair; an R that lags only lowers the level;
//! - a proposal is fixed before its challenger's first run. The researcher may have learnt that the
//!   champion was unlucky on the shared seeds and choose to propose nulls then. For nulls of one law given
//!   the champion's runs, `E[E_t 1{t null}] <= E[E_t]` still, whatever the choice depends on; fresh seeds
//!   for every new champion keep what there is to learn small. Tests simulate it.
//!
//! Stopping a duel early (futility, budget, interruption) only removes keeps.
//!
//! **What is chosen by earlier tests**, and what the campaign proposes itself, takes places in the same sequence, after
//! everything before it:
//!
//! - *Bundles* are chosen because of what their parts showed. Their pairs are on seeds that the parts have not seen
//!   beside this champion, so that given the past a bundle that gains nothing has `E[E_t] <= 1` as any other.
//! - *A text tried again* with another setting, by the optimizer (`tune.rs`) or by anybody, is chosen by what it showed as a bundle
//!   is, and likewise begins past the pairs that it has used beside this champion.
//! - *Settings* are not held to that: a researcher who proposes nearly the same setting again in one generation has a
//!   weaker form of the same hole. Its choice knows the first one's luck on the seeds, and so much of that as the two
//!   programs share is inherited. The same program is not tried twice.
//! - *Keeps tried again* after a retraction are new hypotheses, about a gain over another champion, on its new seeds.
//!   What they showed before is not used.
//! - *Retractions* lower R: a withdrawn keep earns no level from then on. An R that is smaller than the keeps ever made only
//!   lowers levels, so FDR <= alpha still holds for all keeps ever made, the withdrawn among them. Of those that stand
//!   it holds as long as withdrawing does not favour the false, and replications withdraw what fresh seeds speak against.
//! - *Parts left out* ([`crate::prune`]) are no keeps and take no place: easy removals cannot buy generous levels.

/// Offset of the gamma sequence: how long the early, generous levels last.
const OFFSET: f64 = 9.0;

/// `1 / sum_{t >= 1} 1 / ((t + 9) ln(t + 9)^2)`, rounded down so that the sum stays at most 1.
const SCALE: f64 = 2.2521;

/// Share of the budget that test `t` (from 1) gets before any keep: falls like `1 / (t log^2 t)`, the
/// slowest simple sequence with a finite sum, so that test 100 still has a fortieth of what test 1 had.
fn gamma(t: u64) -> f64 {
    let x = t as f64 + OFFSET;
    SCALE / (x * x.ln().powi(2))
}

/// Level of test number `test_index` (from 1) after `promoted` promotions. A keep needs an e-value of `1 / level`.
pub fn level(alpha: f64, test_index: u64, promoted: u64) -> f64 {
    assert!(test_index >= 1, "tests are numbered from 1");
    alpha * gamma(test_index) * (promoted + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_spent_and_not_overspent() {
        let n = 1_000_000u64;
        let head: f64 = (1..=n).map(gamma).sum();
        // The tail lies between the integrals of 1 / (x ln^2 x) = -(1 / ln x)'.
        let (below, above) = (1.0 / (n as f64 + 1.0 + OFFSET).ln(), 1.0 / (n as f64 + OFFSET).ln());
        assert!(head + SCALE * above <= 1.0, "{}", head + SCALE * above);
        assert!(head + SCALE * below > 0.999, "{}", head + SCALE * below);
    }

    #[test]
    fn a_promotion_earns_back_level() {
        assert_eq!(level(0.05, 10, 1), 2.0 * level(0.05, 10, 0));
        assert!(level(0.05, 11, 0) < level(0.05, 10, 0));
    }
}
