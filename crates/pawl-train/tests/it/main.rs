//! Training from outside: the same bits at any number of threads, and through any number of deaths.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)] // a fixture that fails fails the test, with the reason

mod lessons;

use pawl_data::AddOptions;
use pawl_recipe::{Overrides, Recipe, Source, std_only};
use pawl_record::{Budget, Event, RunManifest, RunResult, RunStatus, from_json};
use pawl_train::{PreparedData, RunDir, RunRequest, TrainError, TrainOptions, identify, prepare, pretrain};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const RECIPE: &str = r#"
load("std/layers.star", "embedding", "linear", "gelu")
load("std/optim.star", "adamw", "muon")
lr = knob("lr", 0.01, low = 1e-4, high = 1e9, scale = "log")
def model(tokens):
    x = embedding(tokens, "embed", 32, normal(0.5))
    h = rms_norm(x)
    q, k, v = [linear(h, n, 32, normal(0.2)).heads(2) for n in ("q", "k", "v")]
    x += linear(attend(rope(q), rope(k), v).merge_heads(), "out", 32, normal(0.2))
    x += dropout(linear(gelu(linear(rms_norm(x), "up", 64, normal(0.2))), "down", 32, normal(0.1)), 0.1)
    return linear(rms_norm(x), "head", vocab_size(), normal(0.05))
def optimizer(p):
    return muon(lr) if p.name in ("q.weight", "up.weight") else adamw(lr)
recipe(model = model, optimizer = optimizer, seq_len = 32, tokens_per_step = 256, micro_batch = 4,
       vocab_size = 320)
"#;
const NUM_STEPS: u64 = 40;

/// A lab with a small text of words drawn by a fixed rule.
fn lab() -> tempfile::TempDir {
    let lab = tempfile::tempdir().unwrap();
    let words = ["the", "pawl", "holds", "a", "wheel", "that", "turns", "one", "way", "only"];
    let mut state = 1u64;
    let mut text = String::new();
    while text.len() < 60_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(words[(state >> 33) as usize % words.len()]);
        text.push(if (state >> 40).is_multiple_of(13) { '\n' } else { ' ' });
    }
    let file = lab.path().join("words.txt");
    std::fs::write(&file, text).unwrap();
    let options = AddOptions { held_out: Some(0.1), sealed: None };
    let paths = [file.to_string_lossy().into_owned()];
    pawl_data::add(&lab.path().join("data/words"), &paths, options, &|_| ()).unwrap();
    lab
}

fn load(lr: f64) -> Recipe {
    let source = Source { name: "small.star".to_string(), text: RECIPE.to_string() };
    let mut overrides = Overrides::default();
    overrides.values.insert("lr".to_string(), pawl_record::SettingValue::Float(lr));
    Recipe::load(&source, &overrides, &std_only).unwrap()
}

fn ask(lab: &Path, lr: f64) -> (Recipe, RunManifest, PreparedData) {
    let recipe = load(lr);
    let data = prepare(lab, "words", 320, &|_| ()).unwrap();
    let summary = recipe.summary().unwrap();
    let request = RunRequest {
        budget: Budget::Steps(NUM_STEPS),
        seed: 5,
        init_seed: 6,
        seal: false,
        precision: pawl_record::Precision::F32,
        machine: "test".to_string(),
        created_unix_s: 0,
    };
    let reference = data.reference.clone();
    let manifest = identify(&recipe, summary.fingerprint, summary.flops_per_step, reference, &request);
    (recipe, manifest, data)
}

fn train(lab: &Path, num_threads: usize, lr: f64, stop: &AtomicBool) -> Result<RunResult, TrainError> {
    let (recipe, manifest, data) = ask(lab, lr);
    let options = TrainOptions {
        num_threads,
        checkpoint_every: Duration::ZERO,
        eval_every_steps: Some(7),
        keep_checkpoints: true,
        peak_flops: &|| 1e11,
        stop,
        report: &|_| (),
    };
    pretrain(lab, recipe, &manifest, &data, &options)
}

/// Loss of each step as logged last, the way a reader of an interrupted run sees it.
fn losses(lab: &Path) -> BTreeMap<u64, u64> {
    let (_, manifest, _) = ask(lab, 0.01);
    let text = std::fs::read_to_string(RunDir::path(lab, &manifest.id).join("events.jsonl")).unwrap();
    let events = text.lines().map(|line| from_json::<Event>(line.as_bytes()).unwrap());
    events
        .filter_map(
            |e| if let Event::Step { step, loss, .. } = e { Some((step, loss.to_bits())) } else { None },
        )
        .collect()
}

fn straight(num_threads: usize) -> (RunResult, BTreeMap<u64, u64>) {
    let lab = lab();
    let result = train(lab.path(), num_threads, 0.01, &AtomicBool::new(false)).unwrap();
    (result, losses(lab.path()))
}

#[test]
fn losses_and_checkpoint_are_identical_for_any_number_of_threads() {
    let (one, curve) = straight(1);
    assert_eq!((one.status, one.steps, curve.len() as u64), (RunStatus::Finished, NUM_STEPS, NUM_STEPS));
    let first = f64::from_bits(curve[&0]);
    let last = f64::from_bits(curve[&(NUM_STEPS - 1)]);
    assert!(last < 0.7 * first, "it learns: {first} to {last}");
    for num_threads in [2, 3] {
        let (other, other_curve) = straight(num_threads);
        assert_eq!(other.checkpoint_hash, one.checkpoint_hash);
        assert_eq!((other_curve, other.val_bpb), (curve.clone(), one.val_bpb));
    }
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn a_process_to_be_killed() {
    if let Some(lab) = std::env::var_os("PAWL_TEST_LAB") {
        let threads = std::env::var("PAWL_TEST_THREADS").unwrap().parse().unwrap();
        train(Path::new(&lab), threads, 0.01, &AtomicBool::new(false)).unwrap();
    }
}

#[test]
fn a_run_killed_at_twenty_moments_and_resumed_has_the_same_bits() {
    let (want, curve) = straight(2);
    let lab = lab();
    ask(lab.path(), 0.01);
    let mut state = 99u64;
    let mut killed = 0;
    for death in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["a_process_to_be_killed", "--exact"])
            .env("PAWL_TEST_LAB", lab.path())
            .env("PAWL_TEST_THREADS", (1 + death % 3).to_string())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // From before the first step to some steps in: the moment falls anywhere, in a save too.
        std::thread::sleep(Duration::from_micros(20_000 + (state >> 33) % 100_000));
        killed += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(killed > 0, "no process was alive to be killed");
    let result = train(lab.path(), 1, 0.01, &AtomicBool::new(false)).unwrap();
    assert_eq!(result.checkpoint_hash, want.checkpoint_hash);
    assert_eq!((losses(lab.path()), result.val_bpb, result.curve), (curve, want.val_bpb, want.curve));
}

#[test]
fn a_run_that_is_asked_to_stop_says_so_and_goes_on_to_the_same_bits() {
    let (want, _) = straight(1);
    let lab = lab();
    for step in 1..=3 {
        match train(lab.path(), 1, 0.01, &AtomicBool::new(true)) {
            Err(TrainError::Stopped { step: at, .. }) => assert_eq!(at, step),
            other => panic!("{other:?}"),
        }
    }
    let result = train(lab.path(), 3, 0.01, &AtomicBool::new(false)).unwrap();
    assert_eq!(result.checkpoint_hash, want.checkpoint_hash);
}

#[test]
fn a_loss_that_runs_away_ends_the_run_with_a_reason() {
    let lab = lab();
    let result = train(lab.path(), 1, 1e8, &AtomicBool::new(false)).unwrap();
    assert_eq!((result.status, result.val_bpb), (RunStatus::Diverged, None));
    let reason = result.reason.unwrap();
    assert!(reason.contains("loss") && reason.contains("step"), "{reason}");
}

#[test]
fn a_finished_run_is_not_run_again() {
    let lab = lab();
    let first = train(lab.path(), 1, 0.01, &AtomicBool::new(false)).unwrap();
    // A second call that trained would stop at its first step.
    let second = train(lab.path(), 1, 0.01, &AtomicBool::new(true)).unwrap();
    assert_eq!(first, second);
}

#[test]
fn a_budget_of_endless_steps_is_refused_before_anything_is_written() {
    let lab = lab();
    let (recipe, mut manifest, data) = ask(lab.path(), 0.01);
    manifest.num_steps = u64::MAX;
    let stop = AtomicBool::new(false);
    let options = TrainOptions {
        num_threads: 1,
        checkpoint_every: Duration::ZERO,
        eval_every_steps: None,
        keep_checkpoints: false,
        peak_flops: &|| 1e11,
        stop: &stop,
        report: &|_| (),
    };
    let error = pretrain(lab.path(), recipe, &manifest, &data, &options).unwrap_err();
    assert!(matches!(error, TrainError::TooLong { .. }), "{error}");
    assert!(!RunDir::path(lab.path(), &manifest.id).exists());
}
