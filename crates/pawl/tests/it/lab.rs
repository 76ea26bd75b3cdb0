//! Commands that read a lab, on a lab made of a few records.

use crate::process::{Ended, pawl, pawl_in};
use pawl_record::{
    Budget, DataRef, Event, LearningPoint, RunManifest, RunResult, RunStatus, SCHEMA, SettingValue,
    append_line, write_json,
};
use std::path::Path;
use tempfile::TempDir;

const RECIPE: &str = "\"\"\"A small one.\"\"\"\nwidth = 64\nmlp = \"gelu\"\n";

fn manifest(id: &str, lr: f64) -> RunManifest {
    RunManifest {
        schema: SCHEMA,
        id: id.into(),
        recipe: "tiny".into(),
        recipe_hash: "00".into(),
        fingerprint: format!("f{id}"),
        settings: [("lr".to_string(), SettingValue::Float(lr))].into(),
        depth: 2,
        seed: 7,
        init_seed: 7,
        data: DataRef { name: "crates".into(), hash: "11".into() },
        budget: Budget::Flops(1e9),
        num_steps: 40,
        tokens_per_step: 512,
        seq_len: 64,
        num_params: 123_456,
        flops_per_step: 2.5e7,
        seal: false,
        precision: pawl_record::Precision::F32,
        version: "0.1.0".into(),
        created_unix_s: 1_790_000_000,
        machine: "test".into(),
    }
}

fn result(id: &str, bpb: f64) -> RunResult {
    RunResult {
        schema: SCHEMA,
        id: id.into(),
        status: RunStatus::Finished,
        reason: None,
        val_bpb: Some(bpb),
        val_bpb_by_domain: [("code".to_string(), bpb)].into(),
        sealed_bpb: None,
        steps: 40,
        tokens: 20_480,
        flops: 1e9,
        train_seconds: 4.5,
        total_seconds: 6.0,
        tokens_per_sec: 4551.0,
        mfu: 0.41,
        peak_memory_bytes: 50_000_000,
        checkpoint_hash: Some("22".into()),
        curve: vec![LearningPoint { step: 40, loss: 4.0 }],
        vitals: None,
    }
}

/// Two finished runs and one that was killed.
fn lab() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let runs =
        [("aaa111bbb222", 0.01, Some(2.5)), ("aab111bbb222", 0.02, Some(2.25)), ("ccc111bbb222", 0.03, None)];
    for (id, lr, bpb) in runs {
        let run = folder.path().join("lab/runs").join(id);
        std::fs::create_dir_all(&run).unwrap();
        write_json(&run.join("run.json"), &manifest(id, lr)).unwrap();
        std::fs::write(run.join("recipe.star"), RECIPE.replace("64", if lr > 0.015 { "96" } else { "64" }))
            .unwrap();
        if let Some(bpb) = bpb {
            let by_domain = [("code".to_string(), bpb)].into();
            append_line(&run.join("events.jsonl"), &Event::Eval { step: 40, val_bpb: bpb, by_domain })
                .unwrap();
            write_json(&run.join("result.json"), &result(id, bpb)).unwrap();
        }
    }
    folder
}

fn ask(folder: &Path, args: &[&str]) -> Ended {
    let ended = pawl_in(folder, args);
    assert_eq!(ended.code, 0, "{args:?}: {}", ended.stderr);
    ended
}

#[test]
fn runs_are_listed_with_their_state_and_score() {
    let lab = lab();
    let text = ask(lab.path(), &["runs"]).stdout;
    assert!(text.starts_with("run           recipe  depth"), "{text}");
    assert!(text.lines().any(|line| line.contains("aab111bbb222") && line.contains("2.2500")), "{text}");
    assert!(text.lines().any(|line| line.contains("ccc111bbb222") && line.contains("open")), "{text}");
    assert!(text.ends_with("runs: 3\n"), "{text}");
    let json = ask(lab.path(), &["runs", "--json"]).json();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["runs"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["counts"]["open"], 1);
}

#[test]
fn a_run_is_shown_by_the_beginning_of_its_id() {
    let lab = lab();
    let text = ask(lab.path(), &["show", "aab"]).stdout;
    for line in
        ["run: aab111bbb222", "state: finished", "val_bpb: 2.2500", "settings: lr=0.02", "budget: 1.00 GFLOP"]
    {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    let json = ask(lab.path(), &["show", "aab", "--json"]).json();
    assert_eq!(json["run"]["id"], "aab111bbb222");
    assert_eq!(json["result"]["val_bpb"], 2.25);
}

#[test]
fn a_diff_shows_recipe_settings_and_results() {
    let lab = lab();
    let text = ask(lab.path(), &["diff", "aaa", "aab"]).stdout;
    for part in
        ["-width = 64", "+width = 96", "lr", "0.01", "0.02", "2.5000 -> 2.2500 (-0.2500, b is better)"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json = ask(lab.path(), &["diff", "aaa", "aab", "--json"]).json();
    assert_eq!(json["diff"]["same_program"], false);
}

#[test]
fn what_is_not_there_fails_with_a_hint() {
    let lab = lab();
    for (args, said) in [
        (["show", "fff"].as_slice(), "no run begins with"),
        (&["show", "aa"], "is the beginning of 2 runs"),
        (&["show", "champion"], "no campaign"),
        (&["diff", "aaa", "fff"], "no run begins with"),
        (&["runs", "--lab", "nowhere"], "there is no lab at nowhere"),
        (&["report"], "no campaign"),
    ] {
        let ended = pawl_in(lab.path(), args);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{args:?}");
        assert!(ended.stderr.contains(said), "{args:?}: {}", ended.stderr);
        assert!(
            ended.stderr.lines().last().is_some_and(|line| line.starts_with("  hint: ")),
            "{}",
            ended.stderr
        );
    }
    assert!(pawl(&["runs"]).stderr.contains("there is no lab at lab"));
}
