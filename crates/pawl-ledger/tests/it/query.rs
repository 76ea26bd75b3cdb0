//! Lists, look-ups and counts.

use crate::lab;
use pawl_ledger::{Ledger, LedgerError, RunFilter, RunState, Shown};
use pawl_record::{Event, append_line};
use std::fs;
use std::io::Write;

fn filled() -> (tempfile::TempDir, Ledger) {
    let lab = lab::new();
    for n in 0..14 {
        lab::write_run(lab.path(), n);
    }
    lab::write_manifest(lab.path(), 14);
    let ledger = Ledger::open(lab.path()).unwrap();
    (lab, ledger)
}

#[test]
fn runs_are_listed_newest_first() {
    let (_lab, ledger) = filled();
    let runs = ledger.runs(&RunFilter::default()).unwrap();
    assert_eq!(runs.len(), 15);
    let keys: Vec<_> = runs.iter().map(|run| (u64::MAX - run.created_unix_s, run.id.clone())).collect();
    assert!(keys.is_sorted());
    assert_eq!(runs[0].created_unix_s, lab::manifest(14).created_unix_s);
}

#[test]
fn every_field_of_a_filter_narrows_the_list() {
    let (_lab, ledger) = filled();
    let seeds = |filter: RunFilter| {
        let mut seeds: Vec<_> = ledger.runs(&filter).unwrap().iter().map(|run| run.seed).collect();
        seeds.sort();
        seeds
    };
    assert_eq!(
        seeds(RunFilter { recipe: Some("tiny".into()), ..Default::default() }),
        [0, 2, 4, 6, 8, 10, 12, 14]
    );
    assert_eq!(seeds(RunFilter { state: Some(RunState::Diverged), ..Default::default() }), [6, 13]);
    assert_eq!(seeds(RunFilter { state: Some(RunState::Open), ..Default::default() }), [14]);
    assert_eq!(seeds(RunFilter { data: Some("other".into()), ..Default::default() }), [0; 0]);
    let program = lab::manifest(5).fingerprint;
    assert_eq!(seeds(RunFilter { fingerprint: Some(program.clone()), ..Default::default() }), [4, 5]);
    let both =
        RunFilter { fingerprint: Some(program.clone()), recipe: Some("nano".into()), ..Default::default() };
    assert_eq!(seeds(both), [5]);
    assert_eq!(seeds(RunFilter { limit: Some(2), ..Default::default() }).len(), 2);
    assert_eq!(ledger.runs_of(&program).unwrap().len(), 2);
}

#[test]
fn a_run_is_found_by_the_beginning_of_its_id() {
    let (_lab, ledger) = filled();
    for n in 0..15 {
        let id = lab::id_of(n);
        assert_eq!(ledger.run(&id).unwrap().manifest, lab::manifest(n));
        assert_eq!(ledger.run(&id[..8]).unwrap().manifest.seed, n);
    }
    assert_eq!(ledger.run(&lab::id_of(3)).unwrap().result, Some(lab::result(3)));
    assert_eq!(ledger.run(&lab::id_of(14)).unwrap().result, None);
}

#[test]
fn an_id_that_is_unknown_or_shared_is_an_error_with_a_hint() {
    let (_lab, ledger) = filled();
    for wanted in ["ffffffffffff", "", "%", "_", "zz", "'"] {
        let error = ledger.run(wanted).unwrap_err();
        assert!(matches!(error, LedgerError::NoSuchRun { .. }), "{wanted}: {error}");
        assert!(error.hint().is_some());
    }
    let mut firsts: Vec<char> = (0..15).map(|n| lab::id_of(n).chars().next().unwrap()).collect();
    firsts.sort();
    let shared = firsts.windows(2).find(|pair| pair[0] == pair[1]).unwrap()[0].to_string();
    match ledger.run(&shared).unwrap_err() {
        LedgerError::Ambiguous { ids, .. } => assert!(ids.len() >= 2 && ids.is_sorted()),
        error => panic!("{error}"),
    }
}

#[test]
fn show_tells_a_proposal_number_from_a_run_id() {
    let (lab, _) = filled();
    lab::write_campaign(lab.path());
    let ledger = Ledger::open(lab.path()).unwrap();
    for name in ["4", "#4", "004"] {
        match ledger.show(name).unwrap() {
            Shown::Trial(trial) => assert_eq!(trial.verdict, Some(lab::verdict(4)), "{name}"),
            Shown::Run(_) => panic!("{name} is a proposal"),
        }
    }
    assert!(matches!(ledger.show(&lab::id_of(4)).unwrap(), Shown::Run(_)));
    assert!(matches!(ledger.show("#99").unwrap_err(), LedgerError::NoSuchProposal { number: 99, total: 6 }));
}

#[test]
fn a_torn_last_event_is_skipped() {
    let (lab, ledger) = filled();
    let id = lab::id_of(1);
    let path = lab.path().join("runs").join(&id).join("events.jsonl");
    let events =
        [Event::Started { step: 0, threads: 1, unix_s: 5 }, Event::Step { step: 0, loss: 8.3, seconds: 0.1 }];
    for event in &events {
        append_line(&path, event).unwrap();
    }
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"event\":\"st").unwrap();
    assert_eq!(ledger.events(&id).unwrap(), events);
    assert_eq!(ledger.events(&lab::id_of(2)).unwrap(), []);
}

#[test]
fn counts_add_up() {
    let (_lab, ledger) = filled();
    let counts = ledger.counts().unwrap();
    assert_eq!((counts.runs, counts.finished, counts.diverged, counts.open), (15, 12, 2, 1));
    assert_eq!(counts.proposals, 0);
}
