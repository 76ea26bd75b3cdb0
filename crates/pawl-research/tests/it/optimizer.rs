//! The built-in researcher against chance, on the same budget and under the same judge.

use crate::fake::{Fake, campaign};
use pawl_record::CampaignBudget;
use pawl_research::researcher::Researcher;

fn mean_share(researcher: Researcher, trials: u64, num_campaigns: u64) -> f64 {
    let mut share = 0.0;
    for seed in 0..num_campaigns {
        let fake = Fake::typical(seed);
        let report = campaign(&fake, researcher.clone(), seed, CampaignBudget::Trials(trials)).unwrap();
        let champion = report.champions.last().unwrap();
        share += fake.truth(&champion.settings) / fake.best();
    }
    share / num_campaigns as f64
}

#[test]
fn it_gains_more_than_random_search_on_the_same_budget() {
    for (trials, factor) in [(60, 1.4), (120, 1.2)] {
        let optimizer = mean_share(Researcher::Optimizer, trials, 24);
        let random = mean_share(Researcher::Random, trials, 24);
        println!("{trials} trials: optimizer {optimizer:.3}, random {random:.3} of the gain there is");
        assert!(optimizer > factor * random, "{optimizer} {random}");
    }
}
