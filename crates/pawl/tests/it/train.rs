//! The whole path on a text of some kilobytes: data, training, resuming, scoring, sampling.

use crate::process::{Ended, command, pawl_in};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder with a lab that has the data set `words`.
pub(crate) fn lab() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for n in 0..4000 {
        writeln!(text, "{} times {} is {}", n % 61, n % 37, (n % 61) * (n % 37)).unwrap();
    }
    std::fs::write(folder.path().join("words.txt"), text).unwrap();
    ask(folder.path(), &["data", "add", "words", "words.txt"]);
    folder
}

fn ask(folder: &Path, args: &[&str]) -> Ended {
    let ended = pawl_in(folder, args);
    assert_eq!(ended.code, 0, "{args:?}: {}", ended.stderr);
    ended
}

/// A model of some thousand parameters, for `steps` updates.
fn train<'a>(steps: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", "tiny", "--depth", "1", "--data", "words", "--steps", steps];
    args.extend(["--set", "tokens_per_step=1024", "--set", "seq_len=128", "--threads", "1"]);
    args.extend(more);
    args
}

fn bpb(document: &Value) -> f64 {
    document["result"]["val_bpb"].as_f64().unwrap_or_else(|| panic!("no score in {document}"))
}

#[test]
fn a_run_is_trained_listed_scored_and_sampled() {
    let lab = lab();
    let trained = ask(lab.path(), &train("6", &["--json"]));
    assert_eq!(trained.stderr, "", "a program reads the answer: nobody is told anything");
    let document = trained.json();
    assert_eq!(document["schema"], 1);
    let id = document["run"]["id"].as_str().unwrap().to_string();
    assert_eq!(
        (document["result"]["steps"].as_u64(), document["result"]["status"].as_str()),
        (Some(6), Some("finished"))
    );

    let score = ask(lab.path(), &["eval", &id, "--json"]).json();
    assert_eq!(score["val_bpb"].as_f64(), Some(bpb(&document)), "the stored checkpoint scores as it did");
    let sample = |args: &[&str]| {
        let mut all = vec!["sample", id.as_str(), "--prompt", "3 times", "--tokens", "8"];
        all.extend(args);
        ask(lab.path(), &all).stdout
    };
    assert!(sample(&[]).starts_with("3 times"));
    assert_eq!(sample(&["--seed", "4"]), sample(&["--seed", "4"]));
    assert_eq!(
        sample(&["--temperature", "0", "--seed", "1"]),
        sample(&["--temperature", "0", "--seed", "2"])
    );
    assert!(ask(lab.path(), &["runs"]).stdout.contains(&id));
    assert!(ask(lab.path(), &["show", &id]).stdout.contains("state: finished"));

    let again = ask(lab.path(), &train("6", &["--json"])).json();
    assert_eq!(again, document, "a finished run is not run again");
}

#[test]
fn a_trial_without_a_checkpoint_is_trained_again_to_be_sampled() {
    let lab = lab();
    let trial = ask(
        lab.path(),
        &train("4", &["--seed", "3", "--init-seed", "4", "--seal", "--score-only", "--json"]),
    )
    .json();
    assert_eq!(trial["result"]["checkpoint_hash"], Value::Null);
    assert!(trial["result"]["sealed_bpb"].is_f64(), "{trial}");
    assert_eq!((trial["run"]["seed"].as_u64(), trial["run"]["init_seed"].as_u64()), (Some(3), Some(4)));
    let id = trial["run"]["id"].as_str().unwrap();
    let score = ask(lab.path(), &["eval", id, "--json"]);
    assert!(score.stderr.contains("training it again"), "{}", score.stderr);
    assert_eq!(score.json()["val_bpb"].as_f64(), Some(bpb(&trial)));
    let result = |change: Option<f64>| -> Value {
        let path = lab.path().join("lab/runs").join(id).join("result.json");
        let mut result: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if let Some(bpb) = change {
            (result["val_bpb"], result["checkpoint_hash"]) = (bpb.into(), Value::Null);
            std::fs::write(&path, result.to_string()).unwrap();
            std::fs::remove_dir_all(path.with_file_name("last")).unwrap();
        }
        result
    };
    assert_eq!(
        result(None)["train_seconds"],
        trial["result"]["train_seconds"],
        "what a verdict rests on stays"
    );
    result(Some(1.0));
    let forged = pawl_in(lab.path(), &["sample", id, "--tokens", "2"]);
    assert_eq!(forged.code, 1, "{}", forged.stdout);
    assert!(forged.stderr.contains("its files say 1.000000"), "{}", forged.stderr);
}

#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let (lab, other) = (lab(), lab());
    let whole = ask(other.path(), &train("300", &["--json"])).json();
    let mut child = command(lab.path(), &train("300", &[])).spawn().unwrap();
    let runs = lab.path().join("lab/runs");
    wait_for(|| {
        std::fs::read_dir(&runs)
            .is_ok_and(|runs| runs.flatten().any(|run| run.path().join("run.json").exists()))
    });
    std::thread::sleep(Duration::from_millis(100));
    child.kill().unwrap();
    child.wait().unwrap();
    let id = whole["run"]["id"].as_str().unwrap();
    let resumed = ask(lab.path(), &["train", "--resume", &id[..6], "--json"]).json();
    assert_eq!(resumed["run"]["id"].as_str(), Some(id));
    for key in ["val_bpb", "checkpoint_hash", "curve", "steps"] {
        assert_eq!(resumed["result"][key], whole["result"][key], "{key}");
    }
    for key in ["steps", "groups", "layers"] {
        assert_eq!(resumed["result"]["vitals"][key], whole["result"]["vitals"][key], "{key}");
    }
    let vitals = &whole["result"]["vitals"];
    assert_eq!(vitals["steps"].as_array().unwrap().len(), 8, "{vitals}");
    assert!(vitals["groups"][0]["update_rms"][7].as_f64().unwrap() > 0.0, "{vitals}");
    let shares: f64 = vitals["time"].as_object().unwrap().values().map(|it| it.as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-3, "{vitals}");
}

fn wait_for(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As on a full disk: no file can grow past `blocks` of 512 bytes.
fn with_little_space(folder: &Path, blocks: u64, args: &[&str]) -> Ended {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh"]);
    command.arg(env!("CARGO_BIN_EXE_pawl")).args(args).current_dir(folder);
    Ended::of(&command.output().unwrap())
}

#[test]
fn a_full_disk_is_named_and_costs_nothing_that_was_there() {
    let (lab, other) = (lab(), lab());
    let full = with_little_space(lab.path(), 8, &["data", "add", "more", "words.txt"]);
    assert_eq!((full.code, full.stdout.as_str()), (1, ""), "{}", full.stderr);
    assert!(full.stderr.contains("cannot write lab/data/"), "{}", full.stderr);
    ask(lab.path(), &["data", "add", "more", "words.txt"]);

    let whole = ask(other.path(), &train("6", &["--json"])).json();
    // Room for records, none for a checkpoint.
    let full = with_little_space(lab.path(), 400, &train("6", &[]));
    assert_eq!((full.code, full.stdout.as_str()), (1, ""), "{}", full.stderr);
    assert!(full.stderr.contains("tensors.safetensors"), "{}", full.stderr);
    assert!(full.stderr.contains("File too large"), "{}", full.stderr);
    let resumed = ask(lab.path(), &train("6", &["--json"])).json();
    assert_eq!(resumed["result"]["checkpoint_hash"], whole["result"]["checkpoint_hash"]);
}

#[test]
fn what_cannot_be_trained_fails_with_a_reason() {
    let lab = lab();
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--set", "widht=3"], 1, "no setting `widht`"),
        (&["--data", "nothing"], 1, "no data set"),
        (&["--set", "seq_len=77"], 1, "cannot be 77"),
        (&["--resume", "abc"], 1, "no run begins with"),
        (&["--set", "depth=0"], 1, "depth"),
    ];
    for (more, code, said) in cases {
        let mut args = vec!["train", "tiny", "--steps", "1"];
        args.extend(more);
        let ended = pawl_in(lab.path(), &args);
        assert_eq!((ended.code, ended.stdout.as_str()), (code, ""), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn resuming_with_other_words_is_refused() {
    let lab = lab();
    let id = ask(lab.path(), &train("2", &["--json"])).json()["run"]["id"].as_str().unwrap().to_string();
    for (args, what) in [
        (["--steps", "3"].as_slice(), "budget"),
        (&["--seed", "9"], "seed"),
        (&["--depth", "2"], "depth"),
        (&["--set", "seq_len=256"], "settings"),
        (&["--precision", "bf16"], "precision"),
    ] {
        let mut all = vec!["train", "tiny", "--resume", id.as_str()];
        all.extend(args);
        let ended = pawl_in(lab.path(), &all);
        assert_eq!(ended.code, 2, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(&format!("another {what}")), "{args:?}: {}", ended.stderr);
    }
    ask(lab.path(), &["train", "tiny", "--resume", &id, "--steps", "2", "--set", "seq_len=128"]);
}

#[test]
fn precision_is_part_of_what_a_run_is() {
    let lab = lab();
    let exact = ask(lab.path(), &train("4", &["--json"])).json();
    let rounded = ask(lab.path(), &train("4", &["--precision", "bf16", "--json"])).json();
    assert_eq!((&exact["run"]["precision"], &rounded["run"]["precision"]), (&"f32".into(), &"bf16".into()));
    assert_ne!(exact["run"]["id"], rounded["run"]["id"]);
    let apart = (bpb(&exact) - bpb(&rounded)).abs();
    assert!(apart > 0.0 && apart < 0.01, "{apart}: the same bits, or another model");
    let id = rounded["run"]["id"].as_str().unwrap();
    assert!(ask(lab.path(), &["show", id]).stdout.contains("precision: bf16"));
}
