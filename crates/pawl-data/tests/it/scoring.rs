//! Held-out text for bits per byte.

use crate::{Prepared, prepared};
use pawl_data::{DataError, Validation, ValidationSettings, sealed_validation, search_validation};
use pawl_record::Split;

fn search(prepared: &Prepared, batch: usize, seq_len: usize, limit_bytes: Option<u64>) -> Validation {
    let settings = ValidationSettings { domain: "left".into(), batch, seq_len, limit_bytes };
    search_validation(&prepared.shards, &prepared.tokenizer, &settings).unwrap()
}

/// The targets of all batches, and the bytes they count for.
fn targets(prepared: &Prepared, validation: &Validation, size: usize) -> (Vec<u32>, u64) {
    let mut all = Vec::new();
    let (mut inputs, mut targets) = (vec![-1; size], vec![-1; size]);
    for idx in 0..validation.num_batches() {
        validation.batch(idx, &mut inputs, &mut targets);
        assert_eq!(inputs[1..], targets[..size - 1], "a batch is one stretch of text");
        all.extend(targets.iter().map(|&token| token as u32));
    }
    let bytes = all.iter().map(|&token| u64::from(prepared.tokenizer.token_bytes()[token as usize])).sum();
    (all, bytes)
}

#[test]
fn every_byte_is_scored_once_whatever_the_shape() {
    let prepared = prepared();
    let entry = prepared.shards.manifest().files.iter().find(|file| file.split == Split::Search).unwrap();
    let (reference, _) = targets(&prepared, &search(&prepared, 1, 64, None), 64);
    for (batch, seq_len) in [(1, 64), (3, 7), (8, 256), (2, 1)] {
        let validation = search(&prepared, batch, seq_len, None);
        let (found, bytes) = targets(&prepared, &validation, batch * seq_len);
        assert_eq!((bytes, validation.bytes()), (entry.bytes, entry.bytes), "{batch} x {seq_len}");
        let text = validation.num_targets();
        assert_eq!(found[..text], reference[..text]);
        assert!(found[text..].iter().all(|&token| token == prepared.shards.bos()));
    }
}

#[test]
fn a_limit_scores_a_prefix_of_almost_that_many_bytes() {
    let prepared = prepared();
    let (whole, _) = targets(&prepared, &search(&prepared, 2, 16, None), 32);
    for limit in [1, 100, 1000] {
        let validation = search(&prepared, 2, 16, Some(limit));
        let (found, bytes) = targets(&prepared, &validation, 32);
        assert_eq!(bytes, validation.bytes());
        assert!(bytes <= limit && limit - bytes < 24, "{bytes} of {limit}");
        assert_eq!(found[..validation.num_targets()], whole[..validation.num_targets()]);
    }
    let nothing = search(&prepared, 2, 16, Some(0));
    assert_eq!((nothing.num_batches(), nothing.bytes()), (0, 0));
}

#[test]
fn search_and_sealed_are_different_documents() {
    let prepared = prepared();
    let settings = ValidationSettings { domain: "left".into(), batch: 1, seq_len: 4096, limit_bytes: None };
    let sealed = sealed_validation(&prepared.shards, &prepared.tokenizer, &settings).unwrap();
    let (sealed, bytes) = targets(&prepared, &sealed, 4096);
    assert!(bytes > 0);
    let (search, _) = targets(&prepared, &search(&prepared, 1, 4096, None), 4096);
    let first_line = |tokens: &[u32]| prepared.tokenizer.decode(tokens).lines().next().unwrap().to_owned();
    assert!(!prepared.tokenizer.decode(&search).contains(&first_line(&sealed)));
}

#[test]
fn an_unknown_domain_is_named_with_those_there_are() {
    let prepared = prepared();
    let settings = ValidationSettings { domain: "up".into(), batch: 1, seq_len: 8, limit_bytes: None };
    let error = search_validation(&prepared.shards, &prepared.tokenizer, &settings).unwrap_err();
    assert!(matches!(error, DataError::UnknownDomain { .. }));
    assert!(error.to_string().contains("left, right"), "{error}");
}
