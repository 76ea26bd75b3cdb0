//! What becomes of keeps: withdrawn, what stood on them tried again, run again, and verified.

use crate::fake::{Choice, Fake, asked, documents, new_lab};
use crate::verify::{Filed, edit, found};
use pawl_ledger::{Ledger, Shown, Standing, read_campaign};
use pawl_record::{CampaignBudget, Decision, Origin, PartRuling};
use pawl_research::campaign;
use pawl_research::options::CampaignOptions;
use pawl_research::replicate;
use pawl_research::retract::{KeepError, retract};
use pawl_research::store::Store;
use serde_json::json;
use std::path::Path;

fn choice(name: &str, gains: &[f64]) -> Choice {
    Choice { name: name.into(), gains: gains.to_vec(), silent: false }
}

/// Three changes that are kept, each for sure, and some that do nothing.
fn world(seed: u64) -> Fake {
    let mut choices = vec![choice("a", &[0.0, 0.15]), choice("b", &[0.0, 0.12]), choice("c", &[0.0, 0.14])];
    choices.extend((0..3).map(|i| choice(&format!("idle{i}"), &[0.0, 0.0])));
    Fake::new(seed, choices, Vec::new())
}

/// A lab with a campaign of this many trials, whose runs left files.
fn campaign_of(lab: &Path, fake: Fake, trials: u64) -> CampaignOptions {
    let options = asked(lab, 3, CampaignBudget::Trials(trials));
    campaign::run(&options, &Filed { fake, options: &options }, &mut |_| {}).unwrap();
    options
}

/// Numbers of the proposals that made champions, in order.
fn keeps(lab: &Path) -> Vec<u64> {
    Store::new(lab).champions().unwrap().iter().filter_map(|it| it.proposal).collect()
}

fn standing(lab: &Path, number: u64) -> Option<Standing> {
    match Ledger::open(lab).unwrap().show(&format!("#{number}")).unwrap() {
        Shown::Trial(trial) => trial.standing,
        Shown::Run(run) => panic!("{run:?}"),
    }
}

#[test]
fn a_retraction_restores_the_champion_before_and_what_stood_on_it_is_tried_again() {
    let lab = new_lab();
    campaign_of(lab.path(), world(3), 70);
    let kept = keeps(lab.path());
    assert!(kept.len() >= 3, "{kept:?}");
    let before = Store::new(lab.path()).champions().unwrap();
    let withdrawn = retract(lab.path(), &kept[0].to_string(), "a leak was found", 7).unwrap();
    assert_eq!(withdrawn.affected, kept[1..]);
    let restored = withdrawn.restored.unwrap();
    assert_eq!(restored.settings, before[0].settings);
    assert_eq!(restored.origin, Some(Origin::Restored { generation: 0, retraction: 1 }));
    assert_eq!(standing(lab.path(), kept[0]), Some(Standing::Retracted { why: "a leak was found".into() }));
    assert_eq!(standing(lab.path(), kept[1]), Some(Standing::Affected { by: kept[0] }));
    assert_eq!(found(lab.path()), Vec::<String>::new());
    let records = read_campaign(lab.path()).unwrap().unwrap();
    assert!(records.measured().is_none(), "the measured champion stood on what was withdrawn");

    // The campaign goes on: each affected keep once more, as a proposal with a test of its own.
    campaign_of(lab.path(), world(3), 200);
    let records = read_campaign(lab.path()).unwrap().unwrap();
    let again: Vec<_> =
        records.proposals.iter().filter(|it| it.hypothesis.contains("which is withdrawn")).collect();
    assert_eq!(again.len(), kept.len() - 1);
    for (proposal, old) in again.iter().zip(&kept[1..]) {
        let changed = |number: u64| {
            let proposal = &records.proposals[number as usize - 1];
            proposal.changes.iter().map(|it| (it.setting.clone(), it.to.clone())).collect::<Vec<_>>()
        };
        assert_eq!(changed(proposal.number), changed(*old));
        let verdict = records.verdict(proposal.number).unwrap();
        assert_eq!(verdict.decision, Decision::Keep, "the gain is real in this world");
        assert!(verdict.evidence.unwrap().test_index > 1);
    }
    let champion = records.promotions.last().unwrap();
    let withdrawn = &records.proposals[kept[0] as usize - 1].changes[0].setting;
    assert!(!champion.settings.contains_key(withdrawn), "{:?}", champion.settings);
    assert_eq!(found(lab.path()), Vec::<String>::new());
}

#[test]
fn a_retracted_keep_earns_no_level() {
    let lab = new_lab();
    campaign_of(lab.path(), world(3), 70);
    let kept = keeps(lab.path());
    retract(lab.path(), &kept[0].to_string(), "wrong", 0).unwrap();
    campaign_of(lab.path(), world(3), 100);
    let records = read_campaign(lab.path()).unwrap().unwrap();
    let first = records.proposals.iter().find(|it| it.hypothesis.contains("withdrawn")).unwrap().number;
    let evidence = records.verdict(first).unwrap().evidence.unwrap();
    let keeps = kept.len() as u64 - 1;
    let level = pawl_research::levels::level(0.05, evidence.test_index, keeps);
    assert!((evidence.level / level - 1.0).abs() < 1e-12, "{evidence:?} {level}");
}

#[test]
fn a_kill_between_a_retraction_and_its_champion_loses_nothing() {
    let lab = new_lab();
    campaign_of(lab.path(), world(3), 70);
    let kept = keeps(lab.path());
    retract(lab.path(), &kept[1].to_string(), "wrong", 0).unwrap();
    let expected = documents(lab.path());
    let last = expected.keys().rfind(|name| name.starts_with("champions/")).unwrap().clone();
    std::fs::remove_file(lab.path().join("campaign").join(&last)).unwrap();
    // Any command that opens the campaign finishes it: here one that is refused.
    let refused = retract(lab.path(), &kept[1].to_string(), "wrong", 0);
    assert!(matches!(refused, Err(KeepError::Retracted { .. })), "{refused:?}");
    assert_eq!(documents(lab.path()), expected);
}

#[test]
fn only_keeps_are_retracted_and_only_with_a_reason() {
    let lab = new_lab();
    assert!(matches!(retract(lab.path(), "1", "x", 0), Err(KeepError::NoCampaign { .. })));
    campaign_of(lab.path(), world(3), 70);
    let kept = keeps(lab.path());
    let records = read_campaign(lab.path()).unwrap().unwrap();
    let other = records.verdicts.iter().find(|it| it.decision != Decision::Keep).unwrap().proposal;
    let refused = |id: &str, why: &str| retract(lab.path(), id, why, 0).unwrap_err();
    assert!(matches!(refused(&other.to_string(), "x"), KeepError::NotKept { .. }));
    assert!(matches!(refused("999", "x"), KeepError::NoSuchKeep { .. }));
    assert!(matches!(refused("", "x"), KeepError::NoSuchKeep { .. }));
    assert!(matches!(refused("zzzz", "x"), KeepError::NoSuchKeep { .. }));
    assert!(matches!(refused(&kept[0].to_string(), "  "), KeepError::NoReason));
    // By a run of the champion it made.
    let run = &records.promotions.iter().find(|it| it.proposal == Some(kept[1])).unwrap().run;
    assert_eq!(retract(lab.path(), run, "x", 0).unwrap().retraction.proposal, kept[1]);
}

/// Replicates a keep; the first seed in `anew`, the others in `fresh`.
fn replicated(
    lab: &Path,
    options: &CampaignOptions,
    id: u64,
    seeds: u64,
    anew: Fake,
    fresh: Fake,
) -> replicate::Replicated {
    let plan = replicate::plan(lab, &id.to_string()).unwrap();
    let scratch = CampaignOptions { lab: plan.scratch.clone(), ..options.clone() };
    let anew = Filed { fake: anew, options: &scratch };
    let fresh = Filed { fake: fresh, options };
    plan.run(seeds, 2, &anew, &fresh, &mut |_| {}).unwrap()
}

/// The world of formulas reads no recipe; a replication does.
fn write_data(lab: &Path) {
    std::fs::create_dir_all(lab.join("data")).unwrap();
}

#[test]
fn a_true_keep_is_reproduced_to_the_last_bit_and_not_contradicted() {
    let lab = new_lab();
    let options = campaign_of(lab.path(), world(3), 70);
    write_data(lab.path());
    let kept = keeps(lab.path());
    let done = replicated(lab.path(), &options, kept[1], 6, world(3), world(3));
    assert!(done.replication.reproduced.iter().all(|it| it.same), "{:?}", done.replication.reproduced);
    assert_eq!(done.replication.pairs.len(), 5);
    assert!(!done.replication.contradicts && done.withdrawn.is_none());
    assert!(done.replication.mean.unwrap() > done.replication.half_width.unwrap());
    // A second replication has seeds of its own.
    let again = replicated(lab.path(), &options, kept[1], 3, world(3), world(3));
    assert_eq!(again.replication.number, 2);
    let seeds = |it: &replicate::Replicated| -> Vec<u64> {
        it.replication.pairs.iter().map(|pair| pair.seed).collect()
    };
    assert!(seeds(&again).iter().all(|seed| !seeds(&done).contains(seed)));
    assert_eq!(found(lab.path()), Vec::<String>::new());
}

#[test]
fn other_bits_are_told() {
    let lab = new_lab();
    let options = campaign_of(lab.path(), world(3), 70);
    let kept = keeps(lab.path());
    // Another machine: the same inputs come out otherwise.
    let mut other = world(3);
    other.pair_sd *= 1.0 + 1e-12;
    let done = replicated(lab.path(), &options, kept[0], 1, other, world(3));
    assert!(done.replication.reproduced.iter().any(|it| !it.same), "{:?}", done.replication.reproduced);
    assert_eq!((done.replication.mean, done.replication.against), (None, None));
    assert_eq!(found(lab.path()), Vec::<String>::new());
}

#[test]
fn a_replication_that_contradicts_retracts() {
    let lab = new_lab();
    let options = campaign_of(lab.path(), world(3), 70);
    let kept = keeps(lab.path());
    let setting =
        Store::new(lab.path()).proposals().unwrap()[kept[0] as usize - 1].changes[0].setting.clone();
    // On fresh seeds it is a loss: what was kept was luck.
    let mut fresh = world(11);
    for choice in fresh.choices.iter_mut().filter(|choice| choice.name == setting) {
        choice.gains[1] = -0.05;
    }
    let done = replicated(lab.path(), &options, kept[0], 13, world(3), fresh);
    assert!(done.replication.contradicts, "{:?}", done.replication.against);
    let withdrawn = done.withdrawn.unwrap();
    assert_eq!((withdrawn.retraction.proposal, withdrawn.retraction.replication), (kept[0], Some(1)));
    assert!(withdrawn.retraction.why.contains("replication 1 contradicts it"), "{withdrawn:?}");
    assert!(withdrawn.restored.is_some());
    assert_eq!(found(lab.path()), Vec::<String>::new());
}

#[test]
fn replications_rarely_retract_what_gains_and_often_what_loses() {
    use pawl_research::evidence::{NoiseScale, Scores};
    use pawl_research::random::Random;
    let judge = pawl_research::options::judge_settings();
    let rate = |gain: f64| {
        let mut contradicted = 0;
        for idx in 0..2000 {
            let mut random = Random::new(&[41, idx]);
            let mut pair = |gain: f64| {
                let (a, b) = (0.01 * random.normal(), 0.01 * random.normal());
                Scores { champion: a, challenger: b - gain }
            };
            let noise = NoiseScale::new(&(0..8).map(|_| pair(0.0)).collect::<Vec<_>>());
            let pairs: Vec<Scores> = (0..24).map(|_| pair(gain)).collect();
            // Whoever looks after each of eight replications of three seeds has eight chances.
            let looks = (1..=8).map(|k| replicate::against(&judge, &noise, &pairs[..3 * k]).0);
            contradicted += u32::from(looks.into_iter().any(|it| it));
        }
        f64::from(contradicted) / 2000.0
    };
    let sd = 0.01 * 2f64.sqrt();
    let rates: Vec<f64> = [judge.min_effect_bpb, 0.0, -0.5 * sd, -sd, -2.0 * sd].map(rate).to_vec();
    println!("retracted at a gain of the least worthwhile, 0, -0.5, -1, -2 sd: {rates:?}");
    assert!(rates[0] <= replicate::LEVEL, "{rates:?}");
    assert!(rates[3] > 0.8 && rates[4] > 0.99, "{rates:?}");
}

/// Forges one document of a lab that has every kind; something found must name `place` and say `words`.
fn check_forgery(place: &str, words: &str, file: &str, forge: impl FnOnce(&mut serde_json::Value)) {
    let lab = new_lab();
    let options = campaign_of(lab.path(), world(3), 110);
    let kept = keeps(lab.path());
    replicated(lab.path(), &options, kept[0], 4, world(3), world(3));
    retract(lab.path(), &kept[1].to_string(), "for the test", 0).unwrap();
    let records = read_campaign(lab.path()).unwrap().unwrap();
    assert!(!records.prunings.is_empty());
    assert_eq!(found(lab.path()), Vec::<String>::new());
    let restored = records.promotions.len() - 1;
    let file = file.replace("NNNN", &format!("{:04}", kept[0])).replace("RRRR", &format!("{restored:04}"));
    edit(&lab.path().join("campaign").join(file), forge);
    let found = found(lab.path());
    let named = found.iter().any(|line| line.starts_with(place) && line.contains(words));
    assert!(named, "no `{place}...{words}` in {found:#?}");
}

#[test]
fn forged_records_of_keeps_are_named() {
    check_forgery("part 1", "its ruling does not follow", "prunings/0001.json", |it| {
        it["ruling"] = serde_json::to_value(PartRuling::Leaves).unwrap();
    });
    check_forgery("part 1", "it leaves and no champion", "prunings/0001.json", |it| {
        it["ruling"] = serde_json::to_value(PartRuling::Leaves).unwrap();
    });
    check_forgery("part 1", "score of run", "prunings/0001.json", |it| {
        it["pairs"][0]["challenger_bpb"] = json!(2.0);
    });
    check_forgery("part 1", "margin", "prunings/0001.json", |it| it["margin_bpb"] = json!(1.0));
    check_forgery("part 1", "no such part", "prunings/0001.json", |it| it["change"]["setting"] = json!("x"));
    check_forgery("replication", "mean is", "replications/NNNN-1.json", |it| it["mean"] = json!(0.5));
    check_forgery("replication", "again scored", "replications/NNNN-1.json", |it| {
        it["reproduced"][0]["again_bpb"] = json!(2.0);
    });
    check_forgery("replication", "whether run", "replications/NNNN-1.json", |it| {
        it["reproduced"][0]["same"] = json!(false);
    });
    check_forgery("replication", "is not the next of this replication", "replications/NNNN-1.json", |it| {
        it["pairs"][0]["seed"] = json!(5);
    });
    check_forgery("replication", "contradicts is true", "replications/NNNN-1.json", |it| {
        it["contradicts"] = json!(true);
    });
    check_forgery("retraction 1", "was not kept", "retractions/0001.json", |it| it["proposal"] = json!(999));
    check_forgery("retraction 1", "the champion stands on", "champions/RRRR.json", |it| {
        it["origin"]["restored"]["generation"] = json!(2);
    });
    check_forgery("champion", "it is not champion", "champions/RRRR.json", |it| {
        it["settings"]["idle0"] = json!("o1");
    });
    check_forgery("champion", "no retraction leaves", "champions/RRRR.json", |it| {
        it["origin"]["restored"]["retraction"] = json!(7);
    });
}
