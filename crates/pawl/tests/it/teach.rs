//! After pretraining, from outside: a run is taught by conversations, then by rewards, measured and talked to.

use crate::process::{Ended, command, pawl_in};
use crate::train::lab;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

fn ask(folder: &Path, args: &[&str]) -> Ended {
    let ended = pawl_in(folder, args);
    assert_eq!(ended.code, 0, "{args:?}: {}", ended.stderr);
    ended
}

fn id(document: &Value) -> String {
    document["run"]["id"].as_str().unwrap_or_else(|| panic!("no run in {document}")).to_string()
}

fn base(folder: &Path) -> String {
    let args =
        ["train", "tiny", "--depth", "1", "--data", "words", "--steps", "6", "--threads", "1", "--json"];
    let settings = ["--set", "tokens_per_step=1024", "--set", "seq_len=128"];
    id(&ask(folder, &[&args[..], &settings[..]].concat()).json())
}

#[test]
fn a_run_is_taught_rewarded_measured_and_talked_to() {
    let lab = lab();
    let base = base(lab.path());
    let sft =
        ["sft", &base, "--data", "env:sort", "--count", "300", "--steps", "30", "--rows", "8", "--json"];
    let more = ["--row-len", "64", "--threads", "1", "--set", "sft_lr=3"];
    let taught = ask(lab.path(), &[&sft[..], &more[..]].concat()).json();
    let sft_id = id(&taught);
    assert_eq!(taught["lesson"]["parent"], base.as_str());
    let events =
        std::fs::read_to_string(lab.path().join("lab/runs").join(&sft_id).join("lesson.jsonl")).unwrap();
    let losses: Vec<f64> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap())
        .collect();
    assert!(losses[losses.len() - 1] < 0.8 * losses[0], "it learns what is held out: {losses:?}");

    let rl = ["rl", &sft_id, "--env", "sort", "--steps", "3", "--prompts", "4", "--group", "4", "--json"];
    let more = [
        "--max-tokens",
        "12",
        "--row-len",
        "64",
        "--eval-problems",
        "5",
        "--eval-samples",
        "4",
        "--eval-every",
        "2",
        "--threads",
        "1",
    ];
    let rewarded = ask(lab.path(), &[&rl[..], &more[..]].concat()).json();
    let rl_id = id(&rewarded);
    assert_eq!(rewarded["outcome"]["test_after"]["problems"], 5);
    assert_eq!(rewarded["outcome"]["test_before"]["pass_at"][2]["k"], 4);
    let folder = lab.path().join("lab/runs").join(&rl_id);
    let rollouts = std::fs::read_to_string(folder.join("rollouts.jsonl")).unwrap();
    assert_eq!(rollouts.lines().count(), 3 * 4 * 4);
    let again = ask(lab.path(), &[&rl[..], &more[..]].concat()).json();
    assert_eq!(again["outcome"], rewarded["outcome"], "what is done is not done again");

    let shown = ask(lab.path(), &["show", &rl_id]).stdout;
    assert!(shown.contains(&format!("parent: {sft_id}\ntaught: rl in sort at difficulty 1\n")), "{shown}");
    let score = ask(lab.path(), &["eval", &rl_id, "--json"]).json();
    assert!(score["val_bpb"].as_f64().is_some_and(f64::is_finite), "{score}");
    let talk = |lines: &str, more: &[&str]| {
        let mut child = command(lab.path(), &[&["chat", rl_id.as_str(), "--tokens", "6"], more].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        Ended::of(&child.wait_with_output().unwrap())
    };
    let said = talk("sort 3 1 2\n\n/reset\nsort 3 1 2\n", &["--temperature", "0"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let answers: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(answers[0], answers[1], "a talk that is forgotten leaves no trace");
    let document = talk("sort 3 1 2\n", &["--json"]).json();
    assert_eq!(document["messages"][1]["role"], "assistant");
    let long = talk(&format!("{}\nhi\n", "word ".repeat(200)), &[]);
    assert!(long.code == 0 && long.stderr.contains("not said"), "{}", long.stderr);
}

#[test]
fn the_whole_path_leads_from_a_campaign_to_a_talk() {
    let lab = lab();
    crate::research::small_recipe(lab.path());
    ask(lab.path(), &crate::research::research(&["--trials", "12"]));
    // What a campaign leaves is trained again where somebody wants its parameters.
    ask(lab.path(), &["sample", "champion", "--tokens", "3", "--threads", "1"]);
    let sft = ["sft", "champion", "--data", "env:sort", "--slips", "0.5", "--count", "200", "--steps", "20"];
    let taught = ask(lab.path(), &[&sft[..], &["--rows", "8", "--row-len", "64", "--json"]].concat()).json();
    let sft_id = id(&taught);
    assert!(taught["lesson"]["task"]["sft"]["data"].as_str().unwrap().ends_with("slips=0.5"), "{taught}");
    let lesson = format!(
        "{sft_id} --env sort --prompts 4 --group 4 --max-tokens 12 --row-len 64 --eval-problems 3 --eval-samples 2"
    );
    let bench = ["bench", "lessons", &lesson, "--flops", "1e8", "--seeds", "2", "--jobs", "2", "--json"];
    let compared = ask(lab.path(), &bench).json();
    let arms = compared["arms"].as_array().unwrap();
    assert_eq!(arms.len(), 2 * 4, "{compared}");
    for name in ["rl", "sft", "rejection", "random"] {
        let seeds = arms.iter().filter(|arm| arm["arm"] == name).map(|arm| arm["seed"].as_u64().unwrap());
        assert_eq!(seeds.collect::<std::collections::BTreeSet<u64>>().len(), 2, "{name}: {compared}");
    }
    assert!(arms.iter().all(|arm| arm["flops"].as_f64() >= Some(1e8)), "{compared}");
    let rl_id = arms.iter().find(|arm| arm["arm"] == "rl").unwrap()["run"].as_str().unwrap();
    let score = ask(lab.path(), &["eval", rl_id, "--json"]).json();
    assert!(score["val_bpb"].as_f64().is_some_and(f64::is_finite), "{score}");
    let mut child = command(lab.path(), &["chat", rl_id, "--tokens", "6"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"sort 3 1 2\n").unwrap();
    let talk = Ended::of(&child.wait_with_output().unwrap());
    assert_eq!((talk.code, talk.stdout.lines().count()), (0, 1), "{}", talk.stderr);
}

#[test]
fn each_control_of_rl_runs_and_counts_its_flops() {
    let lab = lab();
    let base = base(lab.path());
    let args = |control: Option<&'static str>| {
        let mut args: Vec<String> =
            ["rl", &base, "--env", "edit", "--steps", "2", "--prompts", "2", "--group", "4"]
                .into_iter()
                .map(str::to_string)
                .collect();
        let more = ["--max-tokens", "8", "--row-len", "64", "--eval-problems", "2", "--eval-samples", "2"];
        args.extend(more.into_iter().chain(["--threads", "1", "--json"]).map(str::to_string));
        args.extend(control.into_iter().flat_map(|name| ["--control".to_string(), name.to_string()]));
        args
    };
    for control in ["sft", "rejection", "random"] {
        let args = args(Some(control));
        let document = ask(lab.path(), &args.iter().map(String::as_str).collect::<Vec<_>>()).json();
        assert_eq!(document["lesson"]["task"]["rl"]["control"], control);
        assert!(document["outcome"]["flops"].as_f64().is_some_and(|flops| flops > 0.0), "{document}");
    }
}

#[test]
fn what_cannot_be_taught_is_said_with_file_and_line() {
    let lab = lab();
    let base = base(lab.path());
    let good = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
    for (line, said) in [
        ("{", "talk.jsonl, line 3: not a conversation"),
        (r#"{"messages":[{"role":"robot","content":"a"}]}"#, "unknown variant `robot`"),
        (r#"{"messages":[]}"#, "line 3: no user message"),
        (r#"{"messages":[{"role":"user","content":"a"}]}"#, "line 3: no message of the assistant"),
        (
            r#"{"messages":[{"role":"assistant","content":"a"}]}"#,
            "line 3: message 1 is of the assistant, where the user is to speak",
        ),
    ] {
        std::fs::write(lab.path().join("talk.jsonl"), format!("{good}\n\n{line}\n")).unwrap();
        let ended = pawl_in(lab.path(), &["sft", &base, "--data", "talk.jsonl", "--steps", "1"]);
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{said} in {}", ended.stderr);
    }
    let long = format!(
        r#"{{"messages":[{{"role":"user","content":"{}"}},{{"role":"assistant","content":"b"}}]}}"#,
        "word ".repeat(500)
    );
    std::fs::write(lab.path().join("talk.jsonl"), long).unwrap();
    let ended = pawl_in(lab.path(), &["sft", &base, "--data", "talk.jsonl", "--steps", "1"]);
    assert!(ended.code == 1 && ended.stderr.contains("no answer to learn from"), "{}", ended.stderr);
    let ended = pawl_in(lab.path(), &["rl", &base, "--env", "chess"]);
    assert!(ended.code == 1 && ended.stderr.contains("there is no environment chess"), "{}", ended.stderr);
}
