//! Proposals, verdicts and champions, from the index and from the files.

use crate::lab;
use pawl_ledger::{Ledger, LedgerError, read_campaign};
use std::fs;

#[test]
fn the_index_and_the_files_tell_the_same_campaign() {
    let lab = lab::new();
    lab::write_campaign(lab.path());
    lab::write_run(lab.path(), 3);
    let ledger = Ledger::open(lab.path()).unwrap();
    let files = read_campaign(lab.path()).unwrap().unwrap();
    assert_eq!(ledger.campaign().unwrap(), files.manifest);
    assert_eq!(ledger.proposals().unwrap(), files.proposals);
    assert_eq!(ledger.verdicts().unwrap(), files.verdicts);
    assert_eq!(ledger.promotions().unwrap(), files.promotions);
    assert_eq!(files.proposals.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(files.verdict(5), Some(&lab::verdict(5)));
    assert_eq!(files.verdict(6), None);
    assert_eq!((files.noise, files.end, files.final_measurement), (None, None, None));
}

#[test]
fn the_champion_is_the_last_promotion_with_its_run() {
    let lab = lab::new();
    lab::write_campaign(lab.path());
    lab::write_run(lab.path(), 3);
    let ledger = Ledger::open(lab.path()).unwrap();
    let champion = ledger.champion().unwrap();
    assert_eq!(champion.promotion.generation, 1);
    assert_eq!(champion.run.unwrap().manifest.id, lab::id_of(3));
    assert_eq!(ledger.run("champion").unwrap().manifest.id, lab::id_of(3));
    // The run of the start is not in the lab: the champion record is still told.
    assert_eq!(ledger.start().unwrap().run, None);
    assert!(matches!(ledger.run("start").unwrap_err(), LedgerError::NoSuchRun { .. }));
}

#[test]
fn a_second_campaign_in_a_lab_does_not_mix_with_the_first() {
    let lab = lab::new();
    lab::write_campaign(lab.path());
    let mut ledger = Ledger::open(lab.path()).unwrap();
    fs::remove_dir_all(lab.path().join("campaign")).unwrap();
    let mut second = lab::campaign_manifest();
    second.id = "000000000002".into();
    second.created_unix_s += 1;
    lab::write_document(lab.path(), "campaign.json", &second);
    lab::write_document(lab.path(), "proposals/0001.json", &lab::proposal(1));
    ledger.refresh().unwrap();
    assert_eq!(ledger.campaign().unwrap().id, "000000000002");
    assert_eq!(ledger.proposals().unwrap().len(), 1);
    assert_eq!(ledger.verdicts().unwrap(), []);
}

#[test]
fn a_lab_without_a_campaign_says_so() {
    let lab = lab::new();
    let ledger = Ledger::open(lab.path()).unwrap();
    assert!(matches!(ledger.champion().unwrap_err(), LedgerError::NoCampaign { .. }));
    assert_eq!(read_campaign(lab.path()).unwrap(), None);
}

#[test]
fn counts_follow_the_words_of_the_verdicts() {
    let lab = lab::new();
    lab::write_campaign(lab.path());
    let counts = Ledger::open(lab.path()).unwrap().counts().unwrap();
    assert_eq!(counts.proposals, 6);
    let by_word = (counts.kept, counts.rejected, counts.undecided, counts.skipped, counts.failed);
    assert_eq!(by_word, (1, 1, 1, 1, 1));
}
