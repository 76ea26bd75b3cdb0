//! Tasks whose answers a model writes, in the published formats: what is right, what is not, and what a score says.

use crate::process::pawl_in;
use crate::train::lab;
use pawl_eval::WRITTEN;
use pawl_eval::sandbox::{Limits, Locks, Sandbox};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// A folder with a few problems of each task.
fn published(folder: &Path) {
    for name in ["gsm8k", "mbpp", "humaneval"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let word = |n: u32| json!({"question": format!("What is {n} and {n}?"), "answer": format!("It is {n}+{n}.\n#### {},000", 2 * n)});
    fs::write(folder.join("gsm8k/train.jsonl"), lines(&[word(3), word(4)])).unwrap();
    fs::write(folder.join("gsm8k/test.jsonl"), lines(&[word(1), word(2)])).unwrap();
    let function = |id: u32, tests: &[&str]| json!({"task_id": id, "text": "Write a function.", "code": "def f(x):\r\n  return x + 1", "test_list": tests, "test_setup_code": ""});
    let plain = ["assert f(1) == 2", "assert f(5) == 6"];
    let rows = [
        function(2, &plain),
        function(11, &plain),
        function(12, &["assert abs(f(1.0) - 2.0) < 1e-6"]),
        function(600, &plain),
    ];
    fs::write(folder.join("mbpp/mbpp.jsonl"), lines(&rows)).unwrap();
    let human = |test: &str| {
        json!({"task_id": "HumanEval/0", "entry_point": "f", "prompt": "def f(x):\n    \"\"\" One more. \"\"\"\n",
               "canonical_solution": "    return x + 1\n", "test": format!("\n\ndef check(candidate):\n{test}\n")})
    };
    let rows = [
        human("    assert candidate(1) == 2"),
        human("    for i in range(3):\n        assert candidate(i) == i + 1"),
    ];
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(lines(&rows).as_bytes()).unwrap();
    fs::write(folder.join("humaneval/HumanEval.jsonl.gz"), packed.finish().unwrap()).unwrap();
}

#[test]
fn answers_are_right_by_number_and_by_value() {
    let folder = tempfile::tempdir().unwrap();
    published(folder.path());
    let worker = vec![env!("CARGO_BIN_EXE_pawl").into(), "sandbox-cell".into()];
    let sandbox = Sandbox::new(worker, Limits::default(), Locks::All).unwrap();
    let judge = |name: &str, answers: &[&str]| {
        let task = WRITTEN.iter().find(|task| task.name == name).unwrap();
        task.judge(folder.path(), answers, &sandbox).unwrap()
    };
    assert_eq!(judge("gsm8k", &[" 1+1.\n#### 2000", " so\n#### 4,000.00"]), [true, true]);
    assert_eq!(judge("gsm8k", &[" it is 2000", "\n#### 4001"]), [false, false]);
    let right = "def f(x):\n    return x + 1\n";
    assert_eq!(judge("mbpp", &[right, right]), [true, true]);
    assert_eq!(judge("mbpp", &["def f(x):\n    return 2\n", "def g(x): return x"]), [false, false]);
    let forged = "class Same:\n    __eq__ = lambda self, other: True\ndef f(x):\n    return Same()\n";
    assert_eq!(judge("mbpp", &[forged]), [false, false], "what is right never enters the process");
    assert_eq!(judge("humaneval", &["    return x + 1\n", "    return x + 1"]), [true, true]);
    assert_eq!(judge("humaneval", &["    return 2 * x\n", "    return 2 * x\n"]), [true, false]);
    assert_eq!(
        judge("humaneval", &["    import os\n    os._exit(0)\n", "    raise SystemExit(0)"]),
        [false, false]
    );
}

#[test]
fn a_run_is_scored_with_standard_errors_and_the_score_is_kept() {
    let lab = lab();
    published(lab.path());
    let ask = |args: &[&str]| {
        let ended = pawl_in(lab.path(), args);
        assert_eq!(ended.code, 0, "{args:?}: {}", ended.stderr);
        ended
    };
    let train =
        ["train", "tiny", "--depth", "1", "--data", "words", "--steps", "2", "--threads", "1", "--json"];
    let more = ["--set", "tokens_per_step=1024", "--set", "seq_len=128"];
    let run = ask(&[&train[..], &more[..]].concat()).json()["run"]["id"].as_str().unwrap().to_string();
    let eval = ["eval", &run, "--tasks", "gsm8k,mbpp,humaneval", "--data-dir", ".", "--samples", "2"];
    let first = ask(&[&eval[..], &["--json"]].concat()).json();
    let written = first["written"].as_array().unwrap();
    assert_eq!(written.len(), 3, "{first}");
    for (score, beside) in written.iter().zip([0, 1, 1]) {
        assert_eq!((&score["problems"], &score["samples"]), (&json!(2), &json!(2)), "{score}");
        assert_eq!(score["beside"], beside, "{score}");
        assert_eq!(score["temperature"], 0.800_000_011_920_929, "{score}");
        // Hardly trained, it solves nothing, and is sure of it.
        assert_eq!(score["pass_at"][1], json!({"k": 2, "rate": 0.0, "standard_error": 0.0}), "{score}");
    }
    assert!(written[1]["cut"].as_u64() > Some(0), "three examples do not fit 128 positions: {first}");
    let folder = lab.path().join("lab/runs").join(&run).join("evals");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 3);
    assert_eq!(ask(&[&eval[..], &["--json"]].concat()).json(), first);
    let table = ask(&eval).stdout;
    assert!(table.contains("gsm8k") && table.contains("pass@k %"), "{table}");

    fs::write(lab.path().join("gsm8k/test.jsonl"), "{\"question\": \"a\", \"answer\": \"b\"}\n").unwrap();
    let ended = pawl_in(lab.path(), &["eval", &run, "--tasks", "gsm8k", "--data-dir", "."]);
    assert!(
        ended.code == 1 && ended.stderr.contains("test.jsonl, line 1: no number after ####"),
        "{}",
        ended.stderr
    );
}
