//! Batches to train on.

use crate::{Prepared, prepared, quiet};
use pawl_data::{DataError, Loader, LoaderSettings, Packing, TokenShards};
use std::collections::BTreeMap;
use std::fs;

const SMALL_CROP: Packing = Packing::Crop { buffer: 8, refill: 4 };

fn settings(seed: u64, seq_len: usize, packing: Packing) -> LoaderSettings {
    LoaderSettings { seed, seq_len, batch: 4, mixture: BTreeMap::new(), packing }
}

fn batches(shards: &TokenShards, settings: &LoaderSettings, positions: &[u64]) -> Vec<(Vec<i32>, Vec<i32>)> {
    let mut loader = Loader::new(shards, settings.clone()).unwrap();
    let size = settings.batch * settings.seq_len;
    let batch = |&position: &u64| {
        let (mut inputs, mut targets) = (vec![-1; size], vec![-1; size]);
        loader.batch(position, &mut inputs, &mut targets).unwrap();
        (inputs, targets)
    };
    positions.iter().map(batch).collect()
}

#[test]
fn a_batch_depends_on_its_position_alone() {
    let prepared = prepared();
    for packing in [Packing::BestFit, SMALL_CROP] {
        let settings = settings(5, 48, packing);
        // Far enough for several epochs of this small set.
        let positions: Vec<u64> = (0..700).collect();
        let in_order = batches(&prepared.shards, &settings, &positions);
        for position in [0, 1, 299, 699, 350, 2] {
            let alone = batches(&prepared.shards, &settings, &[position]);
            assert_eq!(alone[0], in_order[position as usize], "{packing:?} at {position}");
        }
        let back_and_forth = batches(&prepared.shards, &settings, &[650, 3, 651, 0, 4]);
        let expected = [650, 3, 651, 0, 4].map(|position: usize| in_order[position].clone());
        assert_eq!(back_and_forth, expected, "{packing:?}");
    }
}

#[test]
fn targets_are_inputs_moved_by_one() {
    let prepared = prepared();
    for (inputs, targets) in batches(&prepared.shards, &settings(1, 32, Packing::BestFit), &[0, 17]) {
        for (inputs, targets) in inputs.chunks(32).zip(targets.chunks(32)) {
            assert_eq!(inputs[1..], targets[..31]);
            assert!(inputs.iter().chain(targets).all(|&token| (0..300).contains(&token)));
        }
    }
}

#[test]
fn seeds_give_other_orders_and_vocabulary_free_settings_the_same() {
    let prepared = prepared();
    let first = |seed| batches(&prepared.shards, &settings(seed, 32, Packing::BestFit), &[0]).remove(0);
    assert_eq!(first(1), first(1));
    assert_ne!(first(1), first(2));
}

/// All rows of the first epoch of `domain`.
fn epoch_rows(prepared: &Prepared, domain: &str, seq_len: usize) -> Vec<Vec<i32>> {
    let rows = prepared.shards.train_tokens(domain) / (seq_len as u64 + 1);
    let mixture = BTreeMap::from([(domain.to_owned(), 1.0)]);
    let settings = LoaderSettings { batch: 1, mixture, ..settings(9, seq_len, Packing::BestFit) };
    let positions: Vec<u64> = (0..rows).collect();
    let row = |(inputs, targets): (Vec<i32>, Vec<i32>)| [&inputs[..], &targets[seq_len - 1..]].concat();
    batches(&prepared.shards, &settings, &positions).into_iter().map(row).collect()
}

#[test]
fn an_epoch_holds_every_token_once_but_the_last_part_row() {
    let prepared = prepared();
    let seq_len = 40;
    let mut counts = BTreeMap::<i32, i64>::new();
    for row in epoch_rows(&prepared, "left", seq_len) {
        row.iter().for_each(|&token| *counts.entry(token).or_default() += 1);
    }
    let total: i64 = counts.values().sum();
    let available = prepared.shards.train_tokens("left") as i64;
    assert!(available - total < seq_len as i64 + 1, "{total} of {available}");
    let documents = prepared.shards.manifest().files[0].documents as i64;
    let bos = counts[&(prepared.shards.bos() as i32)];
    assert!(bos <= documents && documents - bos <= seq_len as i64, "{bos} BOS for {documents} documents");
}

#[test]
fn two_epochs_hold_the_same_text_in_another_order() {
    let prepared = prepared();
    let first = epoch_rows(&prepared, "right", 30);
    let mixture = BTreeMap::from([("right".to_owned(), 1.0)]);
    let settings = LoaderSettings { batch: 1, mixture, ..settings(9, 30, Packing::BestFit) };
    let positions: Vec<u64> = (first.len() as u64..2 * first.len() as u64).collect();
    let second: Vec<Vec<i32>> =
        batches(&prepared.shards, &settings, &positions).into_iter().map(|(inputs, _)| inputs).collect();
    let same_place = first.iter().zip(&second).filter(|(a, b)| a[..30] == b[..]).count();
    assert!(same_place * 10 < first.len(), "{same_place} of {} rows stayed where they were", first.len());
}

#[test]
fn a_long_document_is_cut_elsewhere_in_each_epoch() {
    let lab = tempfile::tempdir().unwrap();
    let path = lab.path().join("one.txt");
    let text: String = (0..3000).map(|n| format!("{n} ")).collect();
    fs::write(&path, text).unwrap();
    let options = pawl_data::AddOptions { held_out: Some(0.1), sealed: None };
    let folder = lab.path().join("data/one");
    pawl_data::add(&folder, &[path.display().to_string()], options, &quiet).unwrap();
    let tokenizer = pawl_data::tokenizer(&folder, 265, &quiet).unwrap();
    let shards = pawl_data::tokens(&folder, &tokenizer, &quiet).unwrap();
    let rows = shards.train_tokens("text") / 41;
    let settings = LoaderSettings { batch: 1, ..settings(4, 40, Packing::BestFit) };
    let epoch = |first: u64| -> Vec<Vec<i32>> {
        let positions: Vec<u64> = (first..first + rows - 1).collect();
        batches(&shards, &settings, &positions).into_iter().map(|(inputs, _)| inputs).collect()
    };
    let first: std::collections::BTreeSet<Vec<i32>> = epoch(0).into_iter().collect();
    let again = epoch(rows).iter().filter(|row| first.contains(*row)).count();
    assert_eq!(again, 0, "of {rows} rows");
}

/// The share of rows that come from `right`, whose text is in capitals.
fn share_of_right(prepared: &Prepared, mixture: &[(&str, f64)], num_batches: u64) -> f64 {
    let mixture = mixture.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect();
    let settings = LoaderSettings { mixture, ..settings(3, 32, Packing::BestFit) };
    let positions: Vec<u64> = (0..num_batches).collect();
    let mut capital_rows = 0;
    for (inputs, _) in batches(&prepared.shards, &settings, &positions) {
        for row in inputs.chunks(32) {
            let tokens: Vec<u32> =
                row.iter().map(|&token| token as u32).filter(|&token| token != 291).collect();
            let text = prepared.tokenizer.decode(&tokens);
            capital_rows +=
                u32::from(text.chars().filter(char::is_ascii_uppercase).count() * 2 > tokens.len() / 2);
        }
    }
    f64::from(capital_rows) / (num_batches * 4) as f64
}

#[test]
fn the_mixture_decides_the_share_of_each_domain_in_every_stretch() {
    let prepared = prepared();
    assert_eq!(prepared.shards.bos(), 291);
    for weight in [0.0, 0.25, 0.5, 1.0] {
        let mixture = [("left", 1.0 - weight), ("right", weight)];
        for num_batches in [4, 64] {
            let share = share_of_right(&prepared, &mixture, num_batches);
            assert!((share - weight).abs() <= 1.0 / (num_batches * 4) as f64, "{weight} gave {share}");
        }
    }
    let sizes = ["left", "right"].map(|domain| prepared.shards.train_tokens(domain) as f64);
    let share = share_of_right(&prepared, &[], 256);
    assert!((share - sizes[1] / (sizes[0] + sizes[1])).abs() < 0.01, "by size gave {share}");
}

#[test]
fn mixtures_that_name_nothing_or_weigh_nothing_are_refused() {
    let prepared = prepared();
    let refused = |mixture: &[(&str, f64)], seq_len: usize| {
        let mixture = mixture.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect();
        let settings = LoaderSettings { mixture, ..settings(3, seq_len, Packing::BestFit) };
        let error = Loader::new(&prepared.shards, settings).unwrap_err();
        assert!(error.hint().is_some());
        error
    };
    assert!(matches!(refused(&[("up", 1.0)], 8), DataError::UnknownDomain { .. }));
    assert!(refused(&[("up", 1.0)], 8).to_string().contains("left, right"));
    assert!(matches!(refused(&[("left", -1.0)], 8), DataError::BadWeight { .. }));
    assert!(matches!(refused(&[("left", f64::NAN)], 8), DataError::BadWeight { .. }));
    assert!(matches!(refused(&[("left", 0.0)], 8), DataError::BadWeight { .. }));
    assert!(matches!(refused(&[("left", 1.0)], 10_000_000), DataError::TooFewTokens { .. }));
}

#[test]
fn crop_rows_begin_with_bos() {
    let prepared = prepared();
    for (inputs, _) in batches(&prepared.shards, &settings(1, 32, SMALL_CROP), &[0, 9]) {
        assert!(inputs.chunks(32).all(|row| row[0] == prepared.shards.bos() as i32));
    }
}

#[test]
fn token_files_are_made_once_and_damage_is_found() {
    let prepared = prepared();
    let again = pawl_data::tokens(&prepared.folder, &prepared.tokenizer, &|_| panic!("made again")).unwrap();
    assert_eq!(again.manifest(), prepared.shards.manifest());
    again.verify().unwrap();

    let folder = fs::read_dir(&prepared.folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("tokens-"))
        .unwrap();
    let path = folder.join("left.train.tokens");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(again.verify(), Err(DataError::Corrupt { .. })));
    fs::write(&path, &bytes[..bytes.len() - 2]).unwrap();
    let error = pawl_data::tokens(&prepared.folder, &prepared.tokenizer, &quiet).unwrap_err();
    assert!(error.to_string().contains("left.train.tokens"), "{error}");
}
