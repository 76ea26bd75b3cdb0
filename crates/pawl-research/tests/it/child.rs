//! Trials as child processes, with shell scripts in the place of the binary.
#![cfg(unix)]

use pawl_record::{Budget, DataRef, RunManifest, RunResult, RunStatus, SCHEMA, SettingValue, Settings};
use pawl_research::child::ChildWorld;
use pawl_research::world::{Score, Trial, TrialError, World};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn trial() -> Trial {
    Trial {
        recipe: PathBuf::from("tiny.star"),
        depth: 3,
        settings: Settings::from([
            ("lr".to_string(), SettingValue::Float(0.02)),
            ("norm".to_string(), SettingValue::Text("rms_norm".to_string())),
        ]),
        flops: 5e11,
        seed: 7,
        init_seed: Some(8),
        seal: true,
        precision: pawl_record::Precision::F32,
        keep: false,
        limit_s: None,
    }
}

fn check_script(script: &str, trial: &Trial) -> (Result<Score, TrialError>, Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    let executable = folder.path().join("pawl");
    std::fs::write(&executable, script).unwrap();
    std::fs::set_permissions(&executable, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.path().join("answer.json"), answer()).unwrap();
    let world = ChildWorld {
        executable,
        lab: folder.path().to_path_buf(),
        data: "crates".to_string(),
        check: &|_: &Path, _, _: &Settings| Err("not asked".to_string()),
        interrupted: &|| false,
        start: Instant::now(),
    };
    let score = world.run(trial);
    (score, std::fs::read_to_string(folder.path().join("said")).ok())
}

fn answer() -> String {
    let run = RunManifest {
        schema: SCHEMA,
        id: "0123456789ab".to_string(),
        recipe: "tiny".to_string(),
        recipe_hash: String::new(),
        fingerprint: String::new(),
        settings: trial().settings,
        depth: 3,
        seed: 7,
        init_seed: 8,
        data: DataRef { name: "crates".to_string(), hash: String::new() },
        budget: Budget::Flops(5e11),
        num_steps: 33,
        tokens_per_step: 4096,
        seq_len: 256,
        num_params: 557_000,
        flops_per_step: 1.5e10,
        seal: true,
        precision: pawl_record::Precision::F32,
        version: "0".to_string(),
        created_unix_s: 0,
        machine: String::new(),
    };
    let result = RunResult {
        schema: SCHEMA,
        id: "0123456789ab".to_string(),
        status: RunStatus::Finished,
        reason: None,
        val_bpb: Some(3.5),
        val_bpb_by_domain: BTreeMap::new(),
        sealed_bpb: Some(3.6),
        steps: 33,
        tokens: 1,
        flops: 5e11,
        train_seconds: 4.0,
        total_seconds: 5.0,
        tokens_per_sec: 1e4,
        mfu: 0.5,
        peak_memory_bytes: 1,
        checkpoint_hash: None,
        curve: Vec::new(),
        vitals: None,
    };
    serde_json::json!({ "schema": 1, "run": run, "result": result }).to_string()
}

/// Says how it was called and answers.
const ANSWERS: &str =
    "#!/bin/sh\nfolder=$(dirname \"$0\")\necho \"$@\" > \"$folder/said\"\ncat \"$folder/answer.json\"\n";

#[test]
fn a_trial_asks_for_exactly_what_determines_it() {
    let (score, said) = check_script(ANSWERS, &trial());
    let score = score.unwrap();
    assert_eq!((score.run.as_str(), score.val_bpb, score.sealed_bpb), ("0123456789ab", Some(3.5), Some(3.6)));
    let said = said.unwrap();
    let expected = "train tiny.star --depth 3 --set lr=0.02 --set norm=rms_norm --flops 5e11 --seed 7 --precision f32 \
                    --init-seed 8 --seal --score-only --threads 1 --data crates --json --lab ";
    assert!(said.starts_with(expected), "{said}");
    let (_, said) = check_script(ANSWERS, &Trial { keep: true, seal: false, init_seed: None, ..trial() });
    let said = said.unwrap();
    assert!(!said.contains("--score-only") && !said.contains("--seal") && !said.contains("--init-seed"));
}

#[test]
fn a_failed_trial_hands_on_its_error() {
    let script =
        "#!/bin/sh\necho 'step 3' >&2\necho 'error: out of disk' >&2\necho '  hint: free some' >&2\nexit 1\n";
    let expected = TrialError::Failed("error: out of disk   hint: free some".to_string());
    assert_eq!(check_script(script, &trial()).0, Err(expected));
}

#[test]
fn a_trial_without_an_answer_has_failed() {
    let (score, _) = check_script("#!/bin/sh\nexit 0\n", &trial());
    assert!(matches!(score, Err(TrialError::Failed(reason)) if reason.contains("no result")));
}

#[test]
fn a_runaway_is_given_up() {
    let endless = "#!/bin/sh\nwhile true; do :; done\n";
    let (score, _) = check_script(endless, &Trial { limit_s: Some(0.1), ..trial() });
    assert!(matches!(score, Err(TrialError::Failed(reason)) if reason.contains("given up")));
}
