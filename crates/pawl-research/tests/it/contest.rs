//! Researchers side by side: what is compared, and with what.

use crate::fake::{Fake, asked, new_lab};
use pawl_ledger::read_campaign;
use pawl_record::CampaignBudget;
use pawl_research::campaign;
use pawl_research::contest::{Entry, standings};
use pawl_research::options::CampaignOptions;
use pawl_research::researcher::Researcher;

fn entry(researcher: Researcher, seed: u64) -> Entry {
    let lab = new_lab();
    let name = researcher.name();
    let asked = asked(lab.path(), seed, CampaignBudget::Trials(80));
    let options = CampaignOptions { researcher, ..asked };
    campaign::run(&options, &Fake::typical(seed), &mut |_| {}).unwrap();
    Entry { researcher: name, seed, records: read_campaign(lab.path()).unwrap().unwrap() }
}

fn sealed(entry: &Entry) -> f64 {
    let measured = entry.records.final_measurement.as_ref();
    measured.and_then(|it| it.sealed.as_ref()).map_or(0.0, |sealed| sealed.mean)
}

#[test]
fn the_second_is_compared_with_the_first_seed_by_seed() {
    let of = |researcher: Researcher| (0..3).map(move |seed| entry(researcher.clone(), seed));
    // The order in which campaigns come does not matter to the pairing.
    let entries: Vec<Entry> = of(Researcher::Optimizer).chain(of(Researcher::Random).rev()).collect();
    let standings = standings(&entries);
    assert_eq!(
        standings.iter().map(|it| it.researcher.as_str()).collect::<Vec<_>>(),
        ["optimizer", "random"]
    );
    let gains: Vec<f64> = entries.iter().map(sealed).collect();
    assert_eq!(standings[0].sealed_gains, gains[..3]);
    assert_eq!(standings[1].sealed_gains, [gains[5], gains[4], gains[3]]);
    let differences = [gains[5] - gains[0], gains[4] - gains[1], gains[3] - gains[2]];
    let beyond = standings[1].beyond_first.unwrap();
    assert!(
        (beyond.mean - differences.iter().sum::<f64>() / 3.0).abs() < 1e-12,
        "{beyond:?} {differences:?}"
    );
    assert!(beyond.half_width.is_finite() && beyond.half_width > 0.0);
    assert_eq!(standings[0].beyond_first, None);
    for standing in &standings {
        assert!(standing.tried >= standing.kept && standing.breadth > 1, "{standing:?}");
        assert!(standing.measured_again >= standing.false_keeps + standing.unconfirmed_keeps, "{standing:?}");
    }
    assert!(standings[0].gain_per_petaflop > 0.0 && standings[0].gain_per_usd.is_none());
}

#[test]
fn one_campaign_has_the_brier_score_of_its_records_and_no_interval() {
    let entry = entry(Researcher::OneAtATime, 5);
    let brier = entry.records.end.as_ref().unwrap().brier.unwrap();
    let standing = &standings(&[entry])[0];
    assert!((standing.brier.unwrap() - brier).abs() < 1e-12);
    assert!(standing.sealed_gain.half_width.is_infinite());
}
