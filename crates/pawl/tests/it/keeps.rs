//! What becomes of a keep, on a lab that really trained: run again, known elsewhere, withdrawn, the campaign continued.

use crate::process::{Ended, pawl_in};
use crate::train::lab;
use std::path::Path;

const CAMPAIGN: [&str; 7] = ["research", "--recipe", "no_ops.star", "--data", "words", "--flops", "4e9"];

fn ask(folder: &Path, args: &[&str]) -> Ended {
    let ended = pawl_in(folder, args);
    assert_eq!(ended.code, 0, "{args:?}: {}{}", ended.stdout, ended.stderr);
    ended
}

fn research(folder: &Path, trials: &str) -> serde_json::Value {
    let args: Vec<&str> = CAMPAIGN.iter().copied().chain(["--trials", trials, "--json"]).collect();
    ask(folder, &args).json()
}

fn has_line(text: &str, start: &str) -> bool {
    text.lines().any(|line| line.starts_with(start))
}

#[test]
fn a_keep_is_run_again_to_the_last_bit_known_elsewhere_and_withdrawn() {
    let lab = lab();
    let here = lab.path();
    std::fs::write(here.join("no_ops.star"), include_str!("no_ops.star")).unwrap();
    let document = research(here, "56");
    let verdicts = document["campaign"]["verdicts"].as_array().unwrap();
    let keep = verdicts.iter().find(|it| it["decision"]["verdict"] == "keep").expect("rate is kept");
    let id = keep["proposal"].to_string();

    let again = ask(here, &["replicate", &id, "--seeds", "3"]);
    for line in ["champion: run ", "challenger: run "] {
        let found = again.stdout.lines().find(|it| it.starts_with(line)).unwrap();
        assert!(found.ends_with("the same to the last bit"), "{found}");
    }
    assert!(has_line(&again.stdout, "verdict: reproduced"), "{}", again.stdout);
    let scratch = here.join(format!("lab/campaign/replications/{:0>4}-1", id));
    assert_eq!(std::fs::read_dir(scratch.join("runs")).unwrap().count(), 2, "trained, not found");

    let effects = ask(here, &["effects", "--setting", "rate", "--json"]).json();
    let effect = &effects["sources"][0]["effects"][0];
    assert!(effect["posterior_mean"].as_f64().unwrap() > 0.0, "{effects}");
    assert!(effect["context"]["tokens_per_param"].as_f64().unwrap() > 0.0, "{effects}");
    ask(here, &["effects", "export", "known.json"]);
    let known = ["effects", "import", "known.json", "--lab", "other"];
    let imported = ask(here, &known);
    assert!(has_line(&imported.stdout, "imported: "), "{}", imported.stdout);
    std::fs::create_dir_all(here.join("other/runs")).unwrap();
    let listed = ask(here, &["effects", "--lab", "other"]);
    assert!(has_line(&listed.stdout, "rate: "), "{}", listed.stdout);
    let source = document["campaign"]["manifest"]["id"].as_str().unwrap();
    ask(here, &["effects", "revoke", source, "--lab", "other"]);
    assert!(ask(here, &["effects", "--lab", "other"]).stdout.starts_with("effects: 0 changes"));

    assert_eq!(pawl_in(here, &["retract", &id, "--why", " "]).code, 1);
    let withdrawn = ask(here, &["retract", &id, "--why", "the corpus leaked"]);
    assert!(has_line(&withdrawn.stdout, &format!("retracted: #{id}")), "{}", withdrawn.stdout);
    let shown = ask(here, &["show", &id]).stdout;
    assert!(has_line(&shown, "since: retracted: the corpus leaked"), "{shown}");
    assert!(has_line(&shown, "replicated: "), "{shown}");
    let told = ask(here, &["report"]).stdout;
    assert!(has_line(&told, &format!("retracted: #{id}: the corpus leaked")), "{told}");
    let page = std::fs::read_to_string(here.join("lab/report.md")).unwrap();
    assert!(page.contains("## Retracted (1)"), "{page}");

    let document = research(here, "66");
    let champions = document["campaign"]["promotions"].as_array().unwrap();
    assert!(champions.iter().any(|it| it["origin"]["restored"]["retraction"] == 1), "{champions:?}");
    let verified = ask(here, &["verify"]);
    assert!(verified.stdout.contains("nothing differs"), "{}", verified.stdout);

    // Another score in the files of the second training is named.
    let run = std::fs::read_dir(scratch.join("runs")).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(run.join("result.json")).unwrap();
    let mut result: serde_json::Value = serde_json::from_str(&text).unwrap();
    result["val_bpb"] = serde_json::json!(1.0);
    std::fs::write(run.join("result.json"), result.to_string()).unwrap();
    let verified = pawl_in(here, &["verify"]);
    assert_eq!(verified.code, 1, "{}", verified.stdout);
    assert!(has_line(&verified.stdout, "replication "), "{}", verified.stdout);
}

#[test]
fn what_is_no_keep_is_said_with_a_hint() {
    let lab = lab();
    std::fs::create_dir_all(lab.path().join("lab/runs")).unwrap();
    for (args, said) in [
        (["replicate", "3"].as_slice(), "no campaign"),
        (&["retract", "3", "--why", "x"], "no campaign"),
        (&["effects", "export", "out.json"], "no effects to export"),
        (&["effects", "revoke", "abc"], "nothing from"),
        (&["effects", "import", "nothing.json"], "nothing.json"),
    ] {
        let ended = pawl_in(lab.path(), args);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{args:?}");
        assert!(ended.stderr.contains(said), "{args:?}: {}", ended.stderr);
    }
}
