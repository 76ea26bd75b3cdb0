//! The corpus in the binary, and the folder it is written to.

use crate::cleaning::licence::is_permissive;
use crate::quiet;
use pawl_data::{CARRIED, DataError, Dataset, carried_corpus, ensure_builtin};
use pawl_record::{SplitRule, TextSize};
use std::fs;

#[test]
fn the_carried_corpus_is_large_permissive_and_none_of_ours() {
    let corpus = carried_corpus();
    let code: u64 = corpus.crates.iter().map(|entry| entry.code_bytes).sum();
    let prose: u64 = corpus.crates.iter().map(|entry| entry.prose_bytes).sum();
    assert!(code + prose >= 20_000_000, "{code} + {prose} bytes");
    assert!(prose >= 2_000_000, "{prose} bytes of prose");
    for entry in &corpus.crates {
        assert!(is_permissive(&entry.licence), "{} {}", entry.name, entry.licence);
        assert!(!entry.name.starts_with("pawl") && entry.name != "libc", "{}", entry.name);
    }
    assert!(corpus.crates.is_sorted_by(|a, b| a.name <= b.name));
}

#[test]
fn the_corpus_is_written_once_whole_and_the_same_by_racing_writers() {
    let lab = tempfile::tempdir().unwrap();
    let folder = lab.path().join(CARRIED);
    fs::create_dir_all(lab.path().join(".crates.tmp/documents")).unwrap(); // of a writer that was killed
    let hashes: Vec<String> = std::thread::scope(|scope| {
        let open = || ensure_builtin(&folder, &quiet).unwrap().manifest().hash.clone();
        let writers = [scope.spawn(open), scope.spawn(open)];
        writers.map(|writer| writer.join().unwrap()).into()
    });
    let dataset = Dataset::open(&folder).unwrap();
    assert!(hashes.iter().all(|hash| *hash == dataset.manifest().hash));
    assert!(!lab.path().join(".crates.tmp").exists());
    assert_eq!(dataset.manifest().split, SplitRule::Hash);
    for domain in &dataset.manifest().domains {
        let TextSize { documents, bytes } = domain.search;
        assert!(
            bytes >= 150_000 && documents >= 20,
            "search of {}: {documents} of {bytes} bytes",
            domain.name
        );
        let TextSize { documents, bytes } = domain.sealed;
        assert!(
            bytes >= 150_000 && documents >= 20,
            "sealed of {}: {documents} of {bytes} bytes",
            domain.name
        );
        assert!(domain.train.bytes > 9 * (domain.search.bytes + domain.sealed.bytes));
    }
}

#[test]
fn a_folder_without_a_data_set_says_what_to_do() {
    let lab = tempfile::tempdir().unwrap();
    let error = Dataset::open(&lab.path().join("nothing")).unwrap_err();
    assert!(matches!(error, DataError::Missing { .. }), "{error}");
    assert!(error.hint().unwrap().contains("pawl data add"));
    assert!(pawl_data::list(&lab.path().join("nothing")).unwrap().is_empty());
}
