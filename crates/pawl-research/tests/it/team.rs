//! Several researchers in one campaign.

use crate::fake::{Fake, asked, new_lab};
use pawl_record::{CampaignBudget, Proposal};
use pawl_research::campaign;
use pawl_research::options::CampaignOptions;
use pawl_research::researcher::Researcher;
use pawl_research::team::{Member, Team};
use std::sync::Arc;

fn team(shares: [Option<f64>; 2]) -> Researcher {
    let members = [Researcher::Steps, Researcher::Random].into_iter().zip(shares);
    let members = members.map(|(researcher, share)| Member { researcher, share }).collect();
    Researcher::Team(Arc::new(Team::new(members).unwrap()))
}

/// How many proposals each of the two made.
fn counts(shares: [Option<f64>; 2], seed: u64, trials: u64) -> (usize, usize) {
    let lab = new_lab();
    let options = CampaignOptions {
        researcher: team(shares),
        ..asked(lab.path(), seed, CampaignBudget::Trials(trials))
    };
    campaign::run(&options, &Fake::typical(seed), &mut |_| {}).unwrap();
    let mut counts = (0, 0);
    for entry in std::fs::read_dir(lab.path().join("campaign/proposals")).unwrap() {
        let proposal: Proposal = pawl_record::read_json(&entry.unwrap().path()).unwrap();
        match proposal.researcher.as_str() {
            "steps" => counts.0 += 1,
            "random" => counts.1 += 1,
            // Bundles of what nobody settled.
            "campaign" => {}
            other => panic!("{other}"),
        }
    }
    counts
}

#[test]
fn shares_are_kept() {
    for (shares, part) in [([Some(0.7), Some(0.3)], 0.7), ([Some(1.0), Some(3.0)], 0.25)] {
        let (steps, random) = counts(shares, 3, 120);
        let expected = part * (steps + random) as f64;
        assert!((steps as f64 - expected).abs() <= 1.0, "{steps} of {}", steps + random);
    }
}

#[test]
fn without_shares_whoever_gains_more_is_asked_more() {
    let (mut steps, mut random) = (0, 0);
    for seed in 0..8 {
        let (a, b) = counts([None, None], seed, 200);
        (steps, random) = (steps + a, random + b);
        assert!(a > 0 && b > 0, "seed {seed}: {a} and {b}");
    }
    assert!(steps as f64 > 1.05 * random as f64, "{steps} and {random}");
}

#[test]
fn a_team_that_cannot_be_is_refused() {
    let member = |share| Member { researcher: Researcher::Random, share };
    assert!(Team::new(vec![]).is_err());
    assert!(Team::new(vec![member(None), member(None)]).unwrap_err().contains("twice"));
    let other = Member { researcher: Researcher::Optimizer, share: None };
    assert!(Team::new(vec![member(Some(0.5)), other]).unwrap_err().contains("some have none"));
    for share in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Team::new(vec![member(Some(share))]).is_err(), "{share}");
    }
}
