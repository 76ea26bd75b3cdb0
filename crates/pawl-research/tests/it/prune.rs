//! Leaving parts out, by simulation with fixed seeds: what leaves, how often, and what it costs.

use crate::fake::{Choice, Fake, asked, ladder, new_lab};
use crate::verify::{Filed, edit, found};
use pawl_record::{CampaignBudget, Decision, Origin, PartRuling};
use pawl_research::campaign;
use pawl_research::evidence::{NoiseScale, Scores};
use pawl_research::options::{CampaignOptions, judge_settings};
use pawl_research::prune::rule;
use pawl_research::random::Random;
use pawl_research::researcher::Researcher;
use pawl_research::store::Store;
use serde_json::json;

/// How a part of a given worth fares.
#[derive(Debug, Default)]
struct Fate {
    /// Share that leaves.
    leaves: f64,
    /// Mean pairs.
    pairs: f64,
}

/// Trials of parts worth `worth` A/A standard deviations, whose pairs scatter `ratio` times as much as A/A pairs.
fn fate(worth: f64, ratio: f64, heavy: bool, num_parts: u64) -> Fate {
    let judge = judge_settings();
    let unit = 0.01;
    let mut fate = Fate::default();
    for part_idx in 0..num_parts {
        let mut random = Random::new(&[31, part_idx]);
        let mut luck = |share: f64| {
            let chi: f64 = (0..3).map(|_| random.normal().powi(2)).sum();
            let draw = random.normal() / if heavy { chi.sqrt() } else { 1.0 };
            unit * share * draw * 0.5f64.sqrt()
        };
        let aa: Vec<Scores> =
            (0..judge.noise_pairs).map(|_| Scores { champion: luck(1.0), challenger: luck(1.0) }).collect();
        let noise = NoiseScale::new(&aa);
        let mut pairs = Vec::new();
        loop {
            // As much of the luck is common as makes the difference scatter `ratio` times as much.
            let common = luck((1.0 - ratio * ratio).max(0.0).sqrt());
            let (champion, own) = (common + luck(ratio), common + luck(ratio));
            // Without the part the score is worse by what it is worth.
            pairs.push(Scores { champion, challenger: own + worth * unit });
            if let (Some(ruling), _) = rule(&judge, &noise, &pairs, Some(1.0)) {
                fate.leaves += f64::from(u8::from(ruling == PartRuling::Leaves));
                fate.pairs += pairs.len() as f64;
                break;
            }
        }
    }
    Fate { leaves: fate.leaves / num_parts as f64, pairs: fate.pairs / num_parts as f64 }
}

#[test]
fn a_part_that_carries_the_margin_leaves_at_most_as_often_as_stated() {
    let alpha = judge_settings().alpha;
    for (ratio, heavy) in [(1.0, false), (1.0, true), (0.3, false), (0.3, true)] {
        for worth in [1.0, 1.5, 2.0, 4.0] {
            let fate = fate(worth, ratio, heavy, 4000);
            println!("worth {worth} sd, noise x{ratio}, heavy {heavy}: {fate:?}");
            assert!(fate.leaves <= alpha, "{fate:?}");
        }
    }
}

#[test]
fn what_is_worth_nothing_mostly_leaves_and_what_is_worth_little_mostly_stays() {
    for (worth, ratio, least, most) in [
        (-0.5, 1.0, 0.8, 1.0),
        (0.0, 1.0, 0.45, 1.0),
        (0.0, 0.3, 0.45, 1.0),
        (0.5, 1.0, 0.0, 0.2),
        (0.5, 0.3, 0.0, 0.1),
    ] {
        let fate = fate(worth, ratio, false, 4000);
        println!("worth {worth} sd, noise x{ratio}: {fate:?}");
        assert!((least..=most).contains(&fate.leaves), "worth {worth}, noise x{ratio}: {fate:?}");
    }
    // A part that carries much is found to in a pair or two.
    assert!(fate(4.0, 1.0, false, 1000).pairs < 2.0);
}

fn choice(name: &str, gains: &[f64]) -> Choice {
    Choice { name: name.into(), gains: gains.to_vec(), silent: false }
}

/// Many small gains, each below what a duel decides, among as many changes that do nothing.
fn small_gains(seed: u64) -> Fake {
    let mut choices = Vec::new();
    for i in 0..8 {
        choices.push(choice(&format!("small{i}"), &[0.0, 0.025]));
        choices.push(choice(&format!("idle{i}"), &[0.0, 0.0]));
    }
    Fake::new(seed, choices, Vec::new())
}

#[test]
fn small_gains_are_bundled_kept_together_and_passengers_leave() {
    let (mut bundles, mut kept, mut carried, mut idle, mut left, mut wronged) = (0, 0, 0, 0, 0, 0);
    let num_campaigns = 40;
    for seed in 0..num_campaigns {
        let fake = small_gains(seed);
        let lab = new_lab();
        // In steps: a leap is kept with whatever rides along, which is not what is counted here.
        let asked = asked(lab.path(), seed, CampaignBudget::Trials(250));
        let options = CampaignOptions { researcher: Researcher::Steps, ..asked };
        let report = campaign::run(&options, &fake, &mut |_| {}).unwrap();
        let store = Store::new(lab.path());
        for proposal in store.proposals().unwrap().iter().filter(|it| it.researcher == "campaign") {
            assert!(proposal.changes.len() > 1, "{proposal:?}");
            let verdict = store.verdict(proposal.number).unwrap().unwrap();
            bundles += 1;
            kept += usize::from(verdict.decision == Decision::Keep);
        }
        for pruning in store.prunings().unwrap() {
            if pruning.ruling == PartRuling::Leaves {
                left += 1;
                wronged += usize::from(pruning.change.setting.starts_with("small"));
                let after = &store.champions().unwrap()[pruning.generation as usize + 1];
                assert_eq!(after.origin, Some(Origin::Pruned(pruning.number)));
                // The recipe gets shorter: the value is gone, not spelt out.
                assert!(!after.settings.contains_key(&pruning.change.setting));
            }
        }
        let champion = &report.champions.last().unwrap().settings;
        carried += champion.keys().filter(|name| name.starts_with("small")).count();
        idle += champion.keys().filter(|name| name.starts_with("idle")).count();
    }
    println!(
        "{bundles} bundles, {kept} kept; {carried} small gains and {idle} idle changes in {num_campaigns} champions; \
         {left} parts left, {wronged} of them gains"
    );
    assert!(bundles > num_campaigns as usize && kept * 10 > bundles, "{kept} of {bundles}");
    assert!(carried > 4 * idle, "{carried} {idle}");
    assert!(left > 0 && wronged * 4 <= left, "{wronged} of {left}");
}

#[test]
fn a_bundle_is_tried_on_seeds_that_none_of_its_parts_has_seen() {
    let lab = new_lab();
    let fake = small_gains(3);
    campaign::run(&asked(lab.path(), 3, CampaignBudget::Trials(250)), &fake, &mut |_| {}).unwrap();
    let store = Store::new(lab.path());
    let proposals = store.proposals().unwrap();
    let seeds = |number: u64| -> Vec<u64> {
        store.verdict(number).unwrap().unwrap().pairs.iter().map(|pair| pair.seed).collect()
    };
    let mut checked = 0;
    for bundle in proposals.iter().filter(|it| it.researcher == "campaign") {
        let parts = proposals.iter().filter(|it| {
            it.number < bundle.number
                && it.generation == bundle.generation
                && it.changes.iter().any(|change| bundle.changes.contains(change))
        });
        for part in parts {
            assert!(seeds(part.number).iter().all(|seed| !seeds(bundle.number).contains(seed)));
            checked += 1;
        }
    }
    assert!(checked > 0);
}

#[test]
fn trials_of_parts_keep_to_their_share() {
    for seed in 0..10 {
        let lab = new_lab();
        let fake = Fake::typical(seed);
        let report =
            campaign::run(&asked(lab.path(), seed, CampaignBudget::Trials(200)), &fake, &mut |_| {}).unwrap();
        let prunings = Store::new(lab.path()).prunings().unwrap();
        let runs: u64 = prunings.iter().map(|it| it.runs).sum();
        // One trial more than the share may have begun.
        let limit = pawl_research::prune::SHARE * report.end.runs as f64 + 26.0;
        assert!(runs as f64 <= limit, "{runs} of {}", report.end.runs);
    }
}

/// Share of bundles of null changes that the judge keeps at `level`. The best few of twelve nulls by their first
/// three pairs are bundled, and a bundle has as much of its luck from its parts as `inherited` says. Of one part: its
/// text with another setting.
fn lucky_bundles(num_parts: usize, first_pair: usize, inherited: f64, level: f64) -> f64 {
    let judge = judge_settings();
    let num_bundles = 3000;
    let mut kept = 0;
    for idx in 0..num_bundles {
        let mut random = Random::new(&[53, idx]);
        let mut luck = || 0.01 * random.normal();
        let noise = NoiseScale::new(
            &(0..8).map(|_| Scores { champion: luck(), challenger: luck() }).collect::<Vec<_>>(),
        );
        let champion: Vec<f64> = (0..24).map(|_| luck()).collect();
        let mut parts: Vec<Vec<f64>> = (0..12).map(|_| (0..24).map(|_| luck()).collect()).collect();
        // Lower is better, for the same champion's scores.
        parts.sort_by(|a, b| a[..3].iter().sum::<f64>().total_cmp(&b[..3].iter().sum::<f64>()));
        let mut pairs = Vec::new();
        for seed in first_pair..first_pair + judge.max_pairs as usize {
            let shared = parts[..num_parts].iter().map(|part| part[seed]).sum::<f64>();
            let shared = shared / (num_parts as f64).sqrt();
            let own = inherited.sqrt() * shared + (1.0 - inherited).sqrt() * luck();
            pairs.push(Scores { champion: champion[seed], challenger: own - judge.min_effect_bpb });
            let (ruling, _) = pawl_research::judge::rule(
                &judge,
                &pawl_research::judge::Known::of_noise(noise),
                &pairs,
                level,
                1,
            );
            match ruling {
                pawl_research::judge::Ruling::Keep => kept += 1,
                pawl_research::judge::Ruling::Continue => continue,
                pawl_research::judge::Ruling::Reject(_) | pawl_research::judge::Ruling::Undecided(_) => {}
            }
            break;
        }
    }
    f64::from(kept) / num_bundles as f64
}

#[test]
fn bundles_of_lucky_nothings_win_on_the_seeds_of_their_parts_and_not_on_fresh_ones() {
    let level = 0.02;
    let (known, fresh) = (lucky_bundles(4, 0, 0.8, level), lucky_bundles(4, 3, 0.8, level));
    println!(
        "bundles of nothing kept at level {level}: {known} on the seeds of their parts, {fresh} on fresh ones"
    );
    assert!(known > 2.0 * level, "the danger is real: {known}");
    assert!(fresh <= level, "{fresh}");
}

#[test]
fn a_lucky_text_with_another_setting_wins_on_the_seeds_it_has_seen_and_not_on_fresh_ones() {
    let level = 0.02;
    let (known, fresh) = (lucky_bundles(1, 0, 0.9, level), lucky_bundles(1, 3, 0.9, level));
    println!(
        "texts of nothing kept at level {level} with another setting: {known} on their seeds, {fresh} on fresh"
    );
    assert!(known > 1.5 * level, "the danger is real: {known}");
    assert!(fresh <= level, "{fresh}");
}

/// A lab on a ladder of two rungs in which a part was tried above the first, and the number of that trial.
fn lab_with_a_part_above() -> (tempfile::TempDir, u64) {
    for seed in 0..30 {
        let lab = new_lab();
        let options =
            CampaignOptions { rungs: ladder(2), ..asked(lab.path(), seed, CampaignBudget::Trials(450)) };
        let world = Filed { fake: small_gains(seed), options: &options };
        campaign::run(&options, &world, &mut |_| {}).unwrap();
        let prunings = Store::new(lab.path()).prunings().unwrap();
        if let Some(above) = prunings.iter().find(|it| it.climbs.iter().any(|climb| !climb.pairs.is_empty()))
        {
            return (lab, above.number);
        }
    }
    panic!("no part was tried above the first rung");
}

#[test]
fn a_part_tried_on_a_rung_above_follows_from_its_runs_and_a_forged_one_is_named() {
    let (lab, number) = lab_with_a_part_above();
    assert_eq!(found(lab.path()), Vec::<String>::new());
    let file = lab.path().join(format!("campaign/prunings/{number:04}.json"));
    let honest = std::fs::read(&file).unwrap();
    let check = |words: &str, forge: &dyn Fn(&mut serde_json::Value)| {
        edit(&file, forge);
        let found = found(lab.path());
        assert!(found.iter().any(|line| line.contains(words)), "no `{words}` in {found:#?}");
        std::fs::write(&file, &honest).unwrap();
    };
    check("rung 2: score of run", &|it| it["climbs"][0]["pairs"][0]["challenger_bpb"] = json!(1.0));
    check("rung 2: seed 5 is not the next", &|it| it["climbs"][0]["pairs"][0]["seed"] = json!(5));
    check("its ruling does not follow", &|it| {
        let leaves = it["climbs"][0]["ruling"]["part"] == "leaves";
        it["climbs"][0]["ruling"] = match leaves {
            true => json!({ "part": "stays", "reason": "it carries its weight" }),
            false => json!({ "part": "leaves" }),
        };
    });
    check("it was tried on 0 of 1 rungs", &|it| it["climbs"] = json!([]));
}
