//! A campaign whose runs left files, forged in one place at a time.

use crate::fake::{Choice, Fake, asked, ladder, new_lab};
use pawl_ledger::Ledger;
use pawl_record::{Budget, CampaignBudget, RunManifest, RunResult, RunStatus, SCHEMA, Settings};
use pawl_research::campaign;
use pawl_research::options::CampaignOptions;
use pawl_research::verify::verify;
use pawl_research::world::{Checked, Score, Trial, TrialError, World};
use serde_json::{Value, json};
use std::path::Path;

/// The world of formulas, writing what a training run would.
pub(crate) struct Filed<'a> {
    pub(crate) fake: Fake,
    pub(crate) options: &'a CampaignOptions,
}

impl World for Filed<'_> {
    fn check(&self, recipe: &Path, depth: u64, settings: &Settings) -> Result<Checked, String> {
        self.fake.check(recipe, depth, settings)
    }

    fn run(&self, trial: &Trial) -> Result<Score, TrialError> {
        let score = self.fake.run(trial)?;
        let checked = self.check(&trial.recipe, trial.depth, &trial.settings).unwrap();
        let steps = (trial.flops / checked.flops_per_step) as u64;
        let manifest = RunManifest {
            schema: SCHEMA,
            id: score.run.clone(),
            recipe: "fake".to_string(),
            recipe_hash: "0".to_string(),
            fingerprint: checked.fingerprint,
            settings: trial.settings.clone(),
            depth: trial.depth,
            seed: trial.seed,
            init_seed: trial.init_seed.unwrap_or(trial.seed),
            data: self.options.data.clone(),
            budget: Budget::Flops(trial.flops),
            num_steps: steps,
            tokens_per_step: 1,
            seq_len: 1,
            num_params: checked.num_params,
            flops_per_step: checked.flops_per_step,
            seal: trial.seal,
            precision: trial.precision,
            version: "0".to_string(),
            created_unix_s: 0,
            machine: "none".to_string(),
        };
        let result = RunResult {
            schema: SCHEMA,
            id: score.run.clone(),
            status: RunStatus::Finished,
            reason: None,
            val_bpb: score.val_bpb,
            val_bpb_by_domain: Default::default(),
            sealed_bpb: score.sealed_bpb,
            steps,
            tokens: steps,
            flops: score.flops,
            train_seconds: score.train_seconds,
            total_seconds: score.total_seconds,
            tokens_per_sec: score.tokens_per_sec,
            mfu: 0.5,
            peak_memory_bytes: 1,
            checkpoint_hash: None,
            curve: Vec::new(),
        };
        let folder = self.options.lab.join("runs").join(&score.run);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("run.json"), serde_json::to_string(&manifest).unwrap()).unwrap();
        let eval = json!({ "event": "eval", "step": steps, "val_bpb": score.val_bpb, "by_domain": {} });
        std::fs::write(folder.join("events.jsonl"), format!("{eval}\n")).unwrap();
        std::fs::write(folder.join("result.json"), serde_json::to_string(&result).unwrap()).unwrap();
        Ok(score)
    }

    fn seconds(&self) -> f64 {
        self.fake.seconds()
    }

    fn unix_s(&self) -> u64 {
        0
    }

    fn interrupted(&self) -> bool {
        false
    }
}

/// A lab with a campaign that kept something and measured it.
fn lab() -> tempfile::TempDir {
    lab_of(1)
}

/// The same with so many rungs.
fn lab_of(num_rungs: u64) -> tempfile::TempDir {
    let lab = new_lab();
    let choice =
        |name: &str, gains: &[f64]| Choice { name: name.into(), gains: gains.to_vec(), silent: false };
    let mut choices =
        vec![choice("big", &[0.0, 0.12]), choice("bad", &[0.0, -0.1]), choice("idle", &[0.0, 0.0])];
    if num_rungs > 1 {
        choices.push(choice("good", &[0.0, 0.1]));
    }
    let mut fake = Fake::new(3, choices, Vec::new());
    fake.slow = Some(("big", 1.3));
    let budget = CampaignBudget::Trials(if num_rungs == 1 { 60 } else { 90 });
    let options = CampaignOptions { rungs: ladder(num_rungs), ..asked(lab.path(), 3, budget) };
    let world = Filed { fake, options: &options };
    let report = campaign::run(&options, &world, &mut |_| {}).unwrap();
    assert!(report.end.kept >= 1 && report.final_measurement.is_some(), "{:?}", report.end);
    lab
}

pub(crate) fn found(lab: &Path) -> Vec<String> {
    let ledger = Ledger::open(lab).unwrap();
    let verified = verify(lab, &ledger).unwrap();
    assert!(verified.verdicts > 0 && verified.runs > 20, "{verified:?}");
    verified.differences.into_iter().map(|it| format!("{}: {}", it.place, it.what)).collect()
}

pub(crate) fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut document: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut document);
    std::fs::write(path, document.to_string()).unwrap();
}

/// Number of the verdict that promoted, and the pairs of it.
fn promoted(lab: &Path) -> (u64, Vec<Value>) {
    for number in 1..100 {
        let path = lab.join(format!("campaign/verdicts/{number:04}.json"));
        let verdict: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        if verdict["promoted"] == true {
            return (number, verdict["pairs"].as_array().unwrap().clone());
        }
    }
    panic!("nothing was promoted");
}

/// Forges one thing in a fresh lab; something found must name `place` and say `words`.
fn check_forgery(place: &str, words: &str, forge: impl FnOnce(&Path, u64, &[Value])) {
    let lab = lab();
    let (number, pairs) = promoted(lab.path());
    forge(lab.path(), number, &pairs);
    let place = place.replace("N", &number.to_string());
    let found = found(lab.path());
    let named = found.iter().any(|line| line.starts_with(&place) && line.contains(words));
    assert!(named, "no `{place}...{words}` in {found:#?}");
}

fn verdict_file(lab: &Path, number: u64) -> std::path::PathBuf {
    lab.join(format!("campaign/verdicts/{number:04}.json"))
}

fn run_file(lab: &Path, run: &Value, name: &str) -> std::path::PathBuf {
    lab.join("runs").join(run.as_str().unwrap()).join(name)
}

#[test]
fn an_honest_lab_has_no_differences() {
    assert_eq!(found(lab().path()), Vec::<String>::new());
}

#[test]
fn a_forged_metric_is_named() {
    let forge = |lab: &Path, _: u64, pairs: &[Value]| {
        let path = run_file(lab, &pairs[0]["challenger_run"], "result.json");
        edit(&path, |it| it["val_bpb"] = json!(2.0));
    };
    check_forgery("run ", "val_bpb of the result is 2.000000", forge);
    check_forgery("verdict N", "score of run", forge);
}

#[test]
fn a_metric_forged_in_events_too_no_longer_fits_its_verdict() {
    check_forgery("verdict N", "score of run", |lab, _, pairs| {
        let run = &pairs[0]["challenger_run"];
        edit(&run_file(lab, run, "result.json"), |it| it["val_bpb"] = json!(2.0));
        edit(&run_file(lab, run, "events.jsonl"), |it| it["val_bpb"] = json!(2.0));
    });
}

#[test]
fn a_swapped_run_is_named() {
    check_forgery("verdict N", "has another seed", |lab, number, pairs| {
        edit(&verdict_file(lab, number), |it| {
            it["pairs"][0]["challenger_run"] = pairs[1]["challenger_run"].clone()
        });
    });
    check_forgery("verdict N", "has another program", |lab, number, pairs| {
        edit(&verdict_file(lab, number), |it| {
            it["pairs"][0]["challenger_run"] = pairs[0]["champion_run"].clone()
        });
    });
}

#[test]
fn a_run_over_budget_or_gone_is_named() {
    check_forgery("run ", "FLOPs spent", |lab, _, pairs| {
        edit(&run_file(lab, &pairs[0]["champion_run"], "result.json"), |it| it["flops"] = json!(2e12));
    });
    check_forgery("verdict N", "another budget", |lab, _, pairs| {
        edit(&run_file(lab, &pairs[0]["champion_run"], "run.json"), |it| {
            it["budget"] = json!({ "flops": 2e12 })
        });
    });
    check_forgery("run ", "result.json", |lab, _, pairs| {
        std::fs::remove_file(run_file(lab, &pairs[0]["champion_run"], "result.json")).unwrap();
    });
    check_forgery("run ", "events.jsonl cannot be read", |lab, _, pairs| {
        std::fs::remove_file(run_file(lab, &pairs[0]["champion_run"], "events.jsonl")).unwrap();
    });
}

#[test]
fn a_forged_verdict_is_named() {
    check_forgery("verdict N", "decision is reject", |lab, number, _| {
        edit(&verdict_file(lab, number), |it| {
            it["decision"] = json!({ "verdict": "reject", "reason": "no" })
        });
    });
    check_forgery("verdict N", "e-value is", |lab, number, _| {
        edit(&verdict_file(lab, number), |it| it["evidence"]["e_value"] = json!(1e6));
    });
    check_forgery("verdict N", "level is", |lab, number, _| {
        edit(&verdict_file(lab, number), |it| it["evidence"]["level"] = json!(0.5));
    });
    check_forgery("verdict N", "gain at equal seconds", |lab, number, _| {
        edit(&verdict_file(lab, number), |it| it["equal_time"]["mean"] = json!(0.5));
    });
    check_forgery("verdict N", "promoted is false", |lab, number, _| {
        edit(&verdict_file(lab, number), |it| it["promoted"] = json!(false));
    });
}

#[test]
fn a_pair_left_out_is_named() {
    check_forgery("verdict N", "follows", |lab, number, _| {
        edit(&verdict_file(lab, number), |it| {
            it["pairs"].as_array_mut().unwrap().remove(0);
        });
    });
}

#[test]
fn a_forged_noise_champion_or_final_measurement_is_named() {
    check_forgery("noise", "sd of a pair", |lab, _, _| {
        edit(&lab.join("campaign/noise.json"), |it| it["pair_sd"] = json!(1e-4));
    });
    check_forgery("noise", "score of run", |lab, _, _| {
        edit(&lab.join("campaign/noise.json"), |it| it["pairs"][0]["bpb"][0] = json!(3.0));
    });
    check_forgery("champion 1", "another program", |lab, _, _| {
        edit(&lab.join("campaign/champions/0001.json"), |it| it["fingerprint"] = json!("ff"));
    });
    check_forgery("final measurement", "mean on the search split", |lab, _, _| {
        edit(&lab.join("campaign/final.json"), |it| it["search"]["mean"] = json!(1.0));
    });
}

#[test]
fn a_row_that_is_not_its_file_is_named() {
    // The index was made of the honest file; the file is changed afterwards, and the other way round is healed.
    check_forgery("verdict N", "its row in the ledger", |lab, number, _| {
        drop(Ledger::open(lab).unwrap());
        edit(&verdict_file(lab, number), |it| it["elapsed_s"] = json!(1e6));
    });
    check_forgery("run ", "its row in the ledger", |lab, _, pairs| {
        drop(Ledger::open(lab).unwrap());
        edit(&run_file(lab, &pairs[0]["champion_run"], "result.json"), |it| it["mfu"] = json!(0.9));
    });
}

#[test]
fn an_honest_climb_has_no_differences() {
    assert_eq!(found(lab_of(2).path()), Vec::<String>::new());
}

/// Forges one thing in a fresh lab of two rungs.
fn check_climb_forgery(place: &str, words: &str, forge: impl FnOnce(&Path, u64, &[Value])) {
    let lab = lab_of(2);
    let (number, _) = promoted(lab.path());
    let verdict: Value =
        serde_json::from_slice(&std::fs::read(verdict_file(lab.path(), number)).unwrap()).unwrap();
    forge(lab.path(), number, verdict["climbs"][0]["pairs"].as_array().unwrap());
    let place = place.replace("N", &number.to_string());
    let found = found(lab.path());
    let named = found.iter().any(|line| line.starts_with(&place) && line.contains(words));
    assert!(named, "no `{place}...{words}` in {found:#?}");
}

#[test]
fn a_forged_climb_is_named() {
    let edit_climb = |change: fn(&mut Value)| {
        move |lab: &Path, number: u64, _: &[Value]| {
            edit(&verdict_file(lab, number), |it| change(&mut it["climbs"][0]));
        }
    };
    let place = "verdict N, rung 2";
    check_climb_forgery(place, "e-value is", edit_climb(|it| it["evidence"]["e_value"] = json!(1e6)));
    check_climb_forgery(place, "it decides without a pair", edit_climb(|it| it["pairs"] = json!([])));
    check_climb_forgery(place, "follows", |lab, number, _| {
        edit(&verdict_file(lab, number), |it| {
            it["climbs"][0]["pairs"].as_array_mut().unwrap().remove(0);
        });
    });
    check_climb_forgery(
        place,
        "decision is reject",
        edit_climb(|it| it["decision"] = json!({ "verdict": "reject", "reason": "no" })),
    );
    check_climb_forgery(place, "has another program", edit_climb(|it| it["fingerprint"] = json!("ff")));
    check_climb_forgery("verdict ", "its champion is another program than", |lab, number, _| {
        // Who climbs next must meet who climbed before, whatever the runs say they are.
        let next = (number + 1..100).map(|number| verdict_file(lab, number)).find(|path| {
            let verdict: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            verdict["climbs"].as_array().is_some_and(|climbs| !climbs.is_empty())
        });
        edit(&next.unwrap(), |it| {
            let climb = &mut it["climbs"][0];
            climb["champion_fingerprint"] = json!("ff");
            for pair in climb["pairs"].as_array().unwrap() {
                edit(&run_file(lab, &pair["champion_run"], "run.json"), |it| it["fingerprint"] = json!("ff"));
            }
        });
    });
    check_climb_forgery("verdict N", "promoted is true", |lab, number, _| {
        edit(&verdict_file(lab, number), |it| {
            it["climbs"][0]["decision"] = json!({ "verdict": "undecided", "reason": "out of budget" })
        });
    });
    check_climb_forgery("verdict N", "it climbed 0 of 1 rungs", |lab, number, _| {
        edit(&verdict_file(lab, number), |it| it["climbs"] = json!([]));
    });
}

#[test]
fn a_forged_run_of_a_climb_is_named() {
    check_climb_forgery("verdict N, rung 2", "score of run", |lab, _, pairs| {
        let run = &pairs[0]["challenger_run"];
        edit(&run_file(lab, run, "result.json"), |it| it["val_bpb"] = json!(2.0));
        edit(&run_file(lab, run, "events.jsonl"), |it| it["val_bpb"] = json!(2.0));
    });
    check_climb_forgery("verdict N, rung 2", "another depth", |lab, _, pairs| {
        edit(&run_file(lab, &pairs[0]["champion_run"], "run.json"), |it| it["depth"] = json!(4));
    });
    // A run of the first rung in the place of one of the second.
    check_climb_forgery("verdict N, rung 2", "another budget", |lab, number, _| {
        edit(&verdict_file(lab, number), |it| {
            it["climbs"][0]["pairs"][0]["champion_run"] = it["pairs"][0]["champion_run"].clone()
        });
    });
}

#[test]
fn a_forged_worth_is_named() {
    check_climb_forgery("verdict N", "worth in compute is", |lab, number, _| {
        edit(&verdict_file(lab, number), |it| it["worth"]["rungs"][0]["compute"]["value"] = json!(9.0));
    });
    check_climb_forgery("verdict N", "its worth in compute: none is on file", |lab, number, _| {
        edit(&verdict_file(lab, number), |it| it["worth"] = Value::Null);
    });
    check_climb_forgery("final measurement", "worth in compute is", |lab, _, _| {
        edit(&lab.join("campaign/final.json"), |it| it["worth"]["rungs"][1]["compute"]["low"] = json!(1.9));
    });
    check_climb_forgery("final measurement", "the law is fitted to other runs", |lab, _, _| {
        edit(&lab.join("campaign/final.json"), |it| {
            it["worth"]["points"][1]["bpb"][0] = json!(3.9);
        });
    });
    check_climb_forgery("final measurement, rung 2", "score of run", |lab, _, _| {
        edit(&lab.join("campaign/final.json"), |it| it["above"][0]["search"]["champion_bpb"][0] = json!(1.0));
    });
}

#[test]
fn half_the_budget_of_one_rung_is_read_from_its_runs() {
    check_forgery("final measurement", "the law is fitted to other runs", |lab, _, _| {
        edit(&lab.join("campaign/final.json"), |it| it["worth"]["points"][0]["bpb"][0] = json!(3.9));
    });
    check_forgery("final measurement", "another budget", |lab, _, _| {
        edit(&lab.join("campaign/final.json"), |it| {
            it["worth"]["points"][0]["runs"][0] = it["start_runs"][0].clone()
        });
    });
}
