//! Whatever happens to the index file, the next opening has everything again and says what happened.

use crate::lab;
use pawl_ledger::{Ledger, LedgerError, Notice, RunFilter};
use std::fs;
use std::path::Path;

/// A lab with runs and a campaign, and its index as it should be.
fn filled() -> (tempfile::TempDir, Vec<String>) {
    let lab = lab::new();
    for n in 0..12 {
        lab::write_run(lab.path(), n);
    }
    lab::write_campaign(lab.path());
    drop(Ledger::open(lab.path()).unwrap());
    let dump = lab::dump(lab.path());
    (lab, dump)
}

/// Opens the ledger after `harm` was done to its file and expects one notice and every fact.
fn check_heals(harm: impl FnOnce(&Path), expected: impl Fn(&Notice) -> bool) {
    let (lab, before) = filled();
    harm(&lab.path().join("ledger.sqlite"));
    let ledger = Ledger::open(lab.path()).unwrap();
    assert_eq!(ledger.notices().len(), 1, "{:?}", ledger.notices());
    assert!(expected(&ledger.notices()[0]), "{:?}", ledger.notices());
    assert_eq!(ledger.runs(&RunFilter::default()).unwrap().len(), 12);
    drop(ledger);
    assert_eq!(lab::dump(lab.path()), before);
    assert_eq!(Ledger::open(lab.path()).unwrap().notices(), [], "healed for good");
}

fn damaged(notice: &Notice) -> bool {
    matches!(notice, Notice::Damaged { runs: 12, .. })
}

#[test]
fn a_deleted_index_is_built_again() {
    check_heals(|path| fs::remove_file(path).unwrap(), |notice| *notice == Notice::Missing { runs: 12 });
}

#[test]
fn a_truncated_index_is_built_again() {
    for keep in [0, 1, 50, 100, 4096, 5000, 20_000] {
        check_heals(
            |path| {
                let bytes = fs::read(path).unwrap();
                assert!(bytes.len() > keep);
                fs::write(path, &bytes[..keep]).unwrap();
            },
            damaged,
        );
    }
}

#[test]
fn garbage_in_the_place_of_the_index_is_replaced() {
    for text in ["x", "this is not a database, it only lies where one should be\n"] {
        check_heals(|path| fs::write(path, text.repeat(500)).unwrap(), damaged);
    }
}

#[test]
fn an_overwritten_page_is_found_before_it_is_read() {
    for page in 1..8 {
        check_heals(
            |path| {
                let mut bytes = fs::read(path).unwrap();
                bytes[page * 4096..][..4096].fill(b'7');
                fs::write(path, &bytes).unwrap();
            },
            damaged,
        );
    }
}

#[test]
fn an_altered_digit_is_found() {
    check_heals(
        |path| {
            let mut bytes = fs::read(path).unwrap();
            let key = b"\"val_bpb\":2";
            let places: Vec<_> =
                (0..bytes.len() - key.len()).filter(|&at| bytes[at..].starts_with(key)).collect();
            assert!(places.len() >= 10);
            for place in places {
                bytes[place + key.len() - 1] = b'1';
            }
            fs::write(path, &bytes).unwrap();
        },
        damaged,
    );
}

#[test]
fn an_index_of_another_version_is_built_again() {
    check_heals(
        |path| {
            let connection = rusqlite::Connection::open(path).unwrap();
            connection.execute("DROP TRIGGER runs_refuse_UPDATE", []).unwrap();
        },
        |notice| *notice == Notice::OtherVersion { runs: 12 },
    );
}

#[test]
fn an_index_that_cannot_be_written_is_kept_in_memory() {
    let (lab, _) = filled();
    let path = lab.path().join("ledger.sqlite");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let mut ledger = Ledger::open(lab.path()).unwrap();
    assert!(matches!(ledger.notices(), [Notice::InMemory { .. }]), "{:?}", ledger.notices());
    lab::write_run(lab.path(), 50);
    assert_eq!(ledger.refresh().unwrap().runs, 1);
    assert_eq!(ledger.runs(&RunFilter::default()).unwrap().len(), 13);
}

#[test]
fn a_process_moves_to_the_index_that_another_built() {
    let (lab, _) = filled();
    let mut old = Ledger::open(lab.path()).unwrap();
    fs::remove_file(lab.path().join("ledger.sqlite")).unwrap();
    let new = Ledger::open(lab.path()).unwrap();
    lab::write_run(lab.path(), 50);
    assert_eq!(old.refresh().unwrap().runs, 1);
    assert_eq!(new.runs(&RunFilter::default()).unwrap().len(), 13, "both use one file again");
}

#[test]
fn an_empty_lab_opens_without_a_word() {
    let lab = lab::new();
    let ledger = Ledger::open(lab.path()).unwrap();
    assert_eq!(ledger.notices(), []);
    assert_eq!(ledger.runs(&RunFilter::default()).unwrap(), []);
}

#[test]
fn a_lab_that_is_not_there_is_not_created() {
    let lab = lab::new();
    let missing = lab.path().join("none");
    let error = Ledger::open(&missing).unwrap_err();
    assert!(matches!(error, LedgerError::NoLab { .. }));
    assert!(error.hint().is_some());
    assert!(!missing.exists());
}

#[test]
fn broken_records_are_named_and_the_rest_is_indexed() {
    let lab = lab::new();
    for n in 0..4 {
        lab::write_run(lab.path(), n);
    }
    lab::write_campaign(lab.path());
    let run = |n| lab.path().join("runs").join(lab::id_of(n));
    fs::write(run(0).join("run.json"), "{\"schema\": 1, \"id\"").unwrap();
    fs::write(run(1).join("result.json"), "").unwrap();
    fs::copy(run(3).join("run.json"), run(2).join("run.json")).unwrap();
    fs::create_dir(lab.path().join("runs/aaaaaaaaaaaa")).unwrap();
    fs::write(lab.path().join("campaign/verdicts/0002.json"), "garbage").unwrap();

    let ledger = Ledger::open(lab.path()).unwrap();
    let mut names: Vec<_> = ledger.problems().iter().map(|problem| problem.path.clone()).collect();
    names.sort();
    let mut expected = vec![
        run(0).join("run.json"),
        run(1).join("result.json"),
        run(2).join("run.json"),
        lab.path().join("campaign/verdicts/0002.json"),
    ];
    expected.sort();
    assert_eq!(names, expected);
    let runs = ledger.runs(&RunFilter::default()).unwrap();
    assert_eq!(runs.iter().map(|run| run.seed).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(ledger.verdicts().unwrap().len(), 4);
}
