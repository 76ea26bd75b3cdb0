//! The index depends on the files alone: not on when, in what order or by whom they were seen.

use crate::lab;
use pawl_ledger::{Ledger, Refresh, RunFilter};
use proptest::prelude::*;
use std::fs;
use std::process::Command;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn an_index_grown_run_by_run_equals_one_built_at_once(order in Just((0..20u64).collect::<Vec<_>>()).prop_shuffle()) {
        let lab = lab::new();
        let mut ledger = Ledger::open(lab.path()).unwrap();
        let mut seen = 0;
        for (place, n) in order.iter().enumerate() {
            lab::write_manifest(lab.path(), *n);
            if place % 3 == 0 {
                seen += ledger.refresh().unwrap().runs;
            }
            // Every fourth run stays open.
            if n % 4 != 3 {
                lab::write_result(lab.path(), *n);
            }
            if place == 11 {
                lab::write_campaign(lab.path());
            }
        }
        let last = ledger.refresh().unwrap();
        prop_assert_eq!(seen + last.runs, 20);
        let grown = lab::dump(lab.path());
        prop_assert_eq!(grown.len(), 20 + 15 + 1 + 6 + 5 + 2);
        drop(ledger);
        Ledger::rebuild(lab.path()).unwrap();
        prop_assert_eq!(&lab::dump(lab.path()), &grown);
        fs::remove_file(lab.path().join("ledger.sqlite")).unwrap();
        Ledger::open(lab.path()).unwrap();
        prop_assert_eq!(&lab::dump(lab.path()), &grown);
    }
}

#[test]
fn a_refresh_adds_only_what_is_new() {
    let lab = lab::new();
    let mut ledger = Ledger::open(lab.path()).unwrap();
    lab::write_manifest(lab.path(), 1);
    assert_eq!(ledger.refresh().unwrap(), Refresh { runs: 1, results: 0, documents: 0 });
    lab::write_result(lab.path(), 1);
    lab::write_campaign(lab.path());
    assert_eq!(ledger.refresh().unwrap(), Refresh { runs: 0, results: 1, documents: 14 });
    assert_eq!(ledger.refresh().unwrap(), Refresh::default());
}

#[test]
fn a_fact_cannot_be_changed_deleted_or_replaced() {
    let lab = lab::new();
    lab::write_run(lab.path(), 1);
    lab::write_campaign(lab.path());
    drop(Ledger::open(lab.path()).unwrap());
    let before = lab::dump(lab.path());
    let connection = rusqlite::Connection::open(lab.path().join("ledger.sqlite")).unwrap();
    for table in ["runs", "results", "campaigns", "proposals", "verdicts", "promotions"] {
        for statement in [format!("UPDATE {table} SET document = '{{}}'"), format!("DELETE FROM {table}")] {
            let error = connection.execute(&statement, []).unwrap_err().to_string();
            assert!(error.contains("append-only"), "{statement}: {error}");
        }
    }
    let id = lab::id_of(1);
    connection.execute("INSERT OR REPLACE INTO results VALUES (?1, 'other', 0)", [&id]).unwrap();
    assert_eq!(lab::dump(lab.path()), before);
}

/// Not a test of its own: the other process of the next one.
#[test]
#[ignore = "run by writers_in_several_processes_lose_nothing"]
fn writer_process() {
    let lab = std::path::PathBuf::from(std::env::var_os("PAWL_TEST_LAB").unwrap());
    let first: u64 = std::env::var("PAWL_TEST_FIRST").unwrap().parse().unwrap();
    let mut ledger = Ledger::open(&lab).unwrap();
    for n in first..first + 15 {
        lab::write_run(&lab, n);
        ledger.refresh().unwrap();
        if n % 3 == 0 {
            // Replaces the index under the feet of the others.
            ledger = Ledger::rebuild(&lab).unwrap();
        }
        assert_eq!(Ledger::open(&lab).unwrap().notices(), [], "no one meets half an index");
    }
}

#[test]
fn writers_in_several_processes_lose_nothing() {
    let lab = lab::new();
    for n in 1000..1060 {
        lab::write_run(lab.path(), n);
    }
    drop(Ledger::open(lab.path()).unwrap());
    let spawn = |first: u64| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "order::writer_process"])
            .env("PAWL_TEST_LAB", lab.path())
            .env("PAWL_TEST_FIRST", first.to_string())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = [0, 100, 200].map(spawn).into_iter().collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let ledger = Ledger::open(lab.path()).unwrap();
    assert_eq!(ledger.notices(), []);
    assert_eq!(ledger.runs(&RunFilter::default()).unwrap().len(), 60 + 45);
    let grown = lab::dump(lab.path());
    drop(ledger);
    Ledger::rebuild(lab.path()).unwrap();
    assert_eq!(lab::dump(lab.path()), grown);
}
