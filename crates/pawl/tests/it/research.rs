//! Campaigns as a person starts, interrupts and resumes them, at the smallest size that is one.

use crate::process::{Ended, command, pawl_in};
use crate::train::lab;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The plain starting point, shrunk until a trial takes a tenth of a second.
pub(crate) fn small_recipe(folder: &Path) {
    let text = include_str!("../../../../recipes/tiny.star");
    let small = text.replace("\"tokens_per_step\", [4096, 1024,", "\"tokens_per_step\", [1024, 4096,");
    assert_ne!(small, text, "tiny.star says its tokens per step in other words now");
    std::fs::write(folder.join("small.star"), small).unwrap();
}

const CAMPAIGN: [&str; 9] =
    ["research", "--recipe", "small.star", "--data", "words", "--depth", "1", "--flops", "7e9"];

pub(crate) fn research<'a>(more: &[&'a str]) -> Vec<&'a str> {
    CAMPAIGN.iter().chain(more).copied().collect()
}

fn start(folder: &Path, args: &[&str]) -> Child {
    command(folder, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_for_file(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_campaign_is_told_interrupted_resumed_and_reported() {
    let lab = lab();
    small_recipe(lab.path());
    let child = start(lab.path(), &research(&["--trials", "400"]));
    wait_for_file(&lab.path().join("lab/campaign/campaign.json"));
    let second = pawl_in(lab.path(), &research(&["--trials", "16"]));
    assert_eq!((second.code, second.stdout.as_str()), (1, ""), "{}", second.stderr);
    assert!(second.stderr.contains("another pawl process"), "{}", second.stderr);

    wait_for_file(&lab.path().join("lab/campaign/verdicts"));
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).unwrap();
    let stopped = Ended::of(&child.wait_with_output().unwrap());
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    assert!(stopped.stdout.contains("ended: interrupted"), "{}", stopped.stdout);
    for line in ["machine   ", "corpus    words", "start     small", "noise     "] {
        assert!(stopped.stderr.lines().any(|said| said.starts_with(line)), "{line} in {}", stopped.stderr);
    }

    let resumed = pawl_in(lab.path(), &research(&["--trials", "16", "--json"]));
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    assert_eq!(resumed.json()["schema"], 1);
    assert!(
        resumed.json()["campaign"]["end"]["runs"].as_u64().is_some_and(|runs| runs >= 12),
        "{}",
        resumed.stdout
    );
    let report = pawl_in(lab.path(), &["report"]);
    assert_eq!(report.code, 0, "{}", report.stderr);
    assert!(report.stdout.lines().any(|line| line.starts_with("champion: ")), "{}", report.stdout);
    assert!(lab.path().join("lab/report.html").exists() && lab.path().join("lab/report.md").exists());
    let verified = pawl_in(lab.path(), &["verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    assert!(verified.stdout.contains("nothing differs"), "{}", verified.stdout);
    let champion = pawl_in(lab.path(), &["sample", "champion", "--tokens", "3"]);
    assert_eq!(champion.code, 0, "{}", champion.stderr);
    let first = pawl_in(lab.path(), &["show", "1"]);
    assert!(
        first.stdout.lines().any(|line| line.starts_with("verdict: ")),
        "{} {}",
        first.stdout,
        first.stderr
    );

    // A score that was made better in its file is named, and so is the verdict that it no longer fits.
    let noise = std::fs::read(lab.path().join("lab/campaign/noise.json")).unwrap();
    let noise: serde_json::Value = serde_json::from_slice(&noise).unwrap();
    let run = noise["pairs"][0]["runs"][0].as_str().unwrap();
    let path = lab.path().join("lab/runs").join(run).join("result.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut result: serde_json::Value = serde_json::from_str(&text).unwrap();
    result["val_bpb"] = serde_json::json!(1.0);
    std::fs::write(&path, result.to_string()).unwrap();
    let verified = pawl_in(lab.path(), &["verify"]);
    assert_eq!(verified.code, 1, "{}", verified.stdout);
    let named = |start: &str| verified.stdout.lines().any(|line| line.starts_with(start));
    assert!(named(&format!("run {run}: ")) && named("noise: "), "{}", verified.stdout);
}

/// What a proposal of `campaign` would change, by its number.
fn changed(campaign: &serde_json::Value, number: &serde_json::Value) -> String {
    let proposals = campaign["proposals"].as_array().unwrap();
    let proposal = proposals.iter().find(|proposal| proposal["number"] == *number).unwrap();
    proposal["changes"][0]["setting"].as_str().unwrap().to_string()
}

#[test]
fn the_real_gain_is_kept_and_no_planted_no_op() {
    let lab = lab();
    std::fs::write(lab.path().join("no_ops.star"), include_str!("no_ops.star")).unwrap();
    let mut args = vec!["research", "--recipe", "no_ops.star", "--data", "words", "--flops", "4e9"];
    args.extend(["--trials", "70", "--json"]);
    let ended = pawl_in(lab.path(), &args);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let document = ended.json();
    let campaign = &document["campaign"];
    let verdicts = campaign["verdicts"].as_array().unwrap();
    let of = |word: &str| -> Vec<String> {
        let such = verdicts.iter().filter(|verdict| verdict["decision"]["verdict"] == word);
        such.map(|verdict| changed(campaign, &verdict["proposal"])).collect()
    };
    assert_eq!(of("keep"), ["rate"], "{}", ended.stderr);
    let not_kept = [of("reject"), of("undecided")].concat();
    for no_op in ["mixer", "hidden", "table", "scale", "shift"] {
        assert!(not_kept.iter().any(|setting| setting == no_op), "{no_op} was not tried: {}", ended.stderr);
    }
    assert!(of("skip").iter().all(|setting| setting == "unused"), "{}", ended.stderr);
    // The gain is there on the next rung too, and so became champion; all of it follows from the runs.
    let kept = verdicts.iter().find(|verdict| verdict["decision"]["verdict"] == "keep").unwrap();
    assert_eq!(kept["climbs"][0]["decision"]["verdict"], "keep", "{kept}");
    assert_eq!(kept["promoted"], true, "{kept}");
    assert!(kept["worth"]["rungs"][1]["compute"]["value"].as_f64() > Some(1.0), "{kept}");
    let worth = &campaign["final"]["worth"];
    assert!(worth["rungs"].as_array().is_some_and(|rungs| rungs.len() == 2), "{worth}");
    let verified = pawl_in(lab.path(), &["verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    // The one that keeps what scored lower once would have been fooled many times.
    let lower_once = verdicts.iter().filter(|verdict| verdict["pairs"][0]["difference"].as_f64() > Some(0.0));
    assert!(lower_once.count() > 3, "{}", ended.stderr);
}

#[test]
fn a_campaign_file_is_read_explained_and_run() {
    let lab = lab();
    small_recipe(lab.path());
    let file = "recipe = \"small.star\"\ndata = \"words\"\n[judge]\nnoise_pairs = 3\n[[rung]]\ndepth = 1\nflops = 7e9\n";
    std::fs::write(lab.path().join("campaign.toml"), file).unwrap();
    let explained = pawl_in(lab.path(), &["research", "--explain", "--seed", "3", "--trials", "9"]);
    assert_eq!(explained.code, 0, "{}", explained.stderr);
    let line = |key: &str| explained.stdout.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    assert!(line("seed = 3 ").ends_with("# --seed"), "{}", explained.stdout);
    assert!(line("noise_pairs = 3 ").ends_with("# campaign.toml:4"), "{}", explained.stdout);
    assert!(line("alpha = ").ends_with("# default"), "{}", explained.stdout);
    assert_eq!(explained.stdout.matches("[[rung]]").count(), 1);
    assert!(!lab.path().join("lab/campaign").exists(), "an explanation runs nothing");

    let ran = pawl_in(lab.path(), &["research", "--seed", "3", "--trials", "9", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let manifest = &ran.json()["campaign"]["manifest"];
    assert_eq!((&manifest["judge"]["noise_pairs"], &manifest["seed"]), (&3.into(), &3.into()), "{manifest}");
    assert_eq!(manifest["rungs"], serde_json::json!([{ "depth": 1, "flops": 7e9, "precision": "f32" }]));

    // What the lab's campaign was asked stands where neither file nor flag says otherwise.
    std::fs::remove_file(lab.path().join("campaign.toml")).unwrap();
    let again = pawl_in(lab.path(), &["research", "--explain", "--json"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    let keys = again.json()["keys"].as_array().unwrap().clone();
    let key = |name: &str| keys.iter().find(|it| it["key"] == name).unwrap();
    assert_eq!(key("judge.noise_pairs")["value"], 3);
    assert_eq!(key("seed")["source"], "the lab's campaign");
    let resumed = pawl_in(lab.path(), &["research", "--trials", "10", "--json"]);
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    assert_eq!(resumed.json()["campaign"]["manifest"], *manifest);

    // A file elsewhere names its recipe from where it lies.
    let project = lab.path().join("project");
    std::fs::create_dir(&project).unwrap();
    std::fs::write(project.join("c.toml"), "recipe = \"own.star\"\n").unwrap();
    std::fs::copy(lab.path().join("small.star"), project.join("own.star")).unwrap();
    let args = ["research", "--campaign", "project/c.toml", "--explain", "--lab", "other"];
    let elsewhere = pawl_in(lab.path(), &args);
    assert_eq!(elsewhere.code, 0, "{}", elsewhere.stderr);
    assert!(elsewhere.stdout.contains("recipe = \"own.star\""), "{}", elsewhere.stdout);
}
