//! A campaign whose runs left files, forged in one place at a time.

use crate::fake::{Choice, Fake, Knob, asked, ladder, new_lab};
use pawl_ledger::Ledger;
use pawl_record::{
    Budget, CampaignBudget, GroupVitals, LayerScale, LearningPoint, RunManifest, RunResult, RunStatus,
    SCHEMA, Settings, Vitals,
};
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
        let checked = self.fake.check(recipe, depth, settings)?;
        // A tenth of the fake's steps: each is a line of a file.
        Ok(Checked { flops_per_step: 10.0 * checked.flops_per_step, ..checked })
    }

    fn run(&self, trial: &Trial) -> Result<Score, TrialError> {
        let score = self.fake.run(trial)?;
        self.remember();
        let checked = self.check(&trial.recipe, trial.depth, &trial.settings).unwrap();
        let steps = (trial.flops / checked.flops_per_step) as u64;
        let mut manifest = RunManifest {
            schema: SCHEMA,
            id: String::new(),
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
        manifest.id = manifest.content_id();
        let score = Score { run: manifest.id.clone(), ..score };
        let losses: Vec<f64> = (0..steps).map(|step| 5.0 - step as f64 / steps as f64).collect();
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
            flops: steps as f64 * checked.flops_per_step,
            train_seconds: score.train_seconds,
            total_seconds: score.total_seconds,
            tokens_per_sec: score.tokens_per_sec,
            mfu: 0.5,
            peak_memory_bytes: 1,
            checkpoint_hash: None,
            curve: curve(&losses),
            vitals: Some(vitals(steps, manifest.num_params)),
        };
        let folder = self.options.lab.join("runs").join(&score.run);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("run.json"), serde_json::to_string(&manifest).unwrap()).unwrap();
        let mut events = format!("{}\n", json!({ "event": "started", "step": 0, "threads": 1, "unix_s": 0 }));
        for (step, loss) in losses.iter().enumerate() {
            let seconds =
                (score.train_seconds * (step as f64 + 1.0) / steps as f64 * 1000.0).round() / 1000.0;
            let line = json!({ "event": "step", "step": step, "loss": loss, "seconds": seconds });
            events += &format!("{line}\n");
        }
        let eval = json!({ "event": "eval", "step": steps, "val_bpb": score.val_bpb, "by_domain": {} });
        std::fs::write(folder.join("events.jsonl"), format!("{events}{eval}\n")).unwrap();
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

/// What a run of so many steps and parameters looks like from inside.
fn vitals(steps: u64, num_params: u64) -> Vitals {
    let group = GroupVitals {
        name: "blocks.*.w".to_string(),
        num_params,
        weight_rms: vec![Some(0.02), Some(0.03)],
        gradient_rms: vec![Some(1e-4), None],
        update_rms: vec![Some(1e-3), Some(1e-5)],
    };
    Vitals {
        steps: vec![1, steps],
        groups: vec![group],
        layers: vec![LayerScale { name: "into blocks.0".to_string(), rms: Some(0.5) }],
        time: [("products".to_string(), 0.7), ("optimizer".to_string(), 0.3)].into(),
    }
}

/// The points of a learning curve that training keeps: fifty, at even distances.
fn curve(losses: &[f64]) -> Vec<LearningPoint> {
    let n = losses.len();
    let ends: Vec<usize> = (1..=n).filter(|step| step * 50 / n > (step - 1) * 50 / n).collect();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let points = starts.zip(&ends);
    points.map(|(from, to)| LearningPoint { step: *to as u64, loss: mean(&losses[from..*to]) }).collect()
}

impl Filed<'_> {
    /// Leaves what compiling takes beside the runs: names, and how many options there are.
    fn remember(&self) {
        let choices = self.fake.choices.iter().map(|it| json!([it.name, it.gains, it.silent]));
        let knobs = self.fake.knobs.iter().map(|it| json!([it.name, it.start]));
        let all = json!([choices.collect::<Vec<_>>(), knobs.collect::<Vec<_>>()]);
        std::fs::create_dir_all(&self.options.lab).unwrap();
        std::fs::write(self.options.lab.join("fake.json"), all.to_string()).unwrap();
    }
}

/// The compiler of the world that filled a lab.
fn remembered(lab: &Path) -> Fake {
    let text = std::fs::read(lab.join("fake.json")).unwrap();
    let (choices, knobs): (Vec<(String, Vec<f64>, bool)>, Vec<(String, f64)>) =
        serde_json::from_slice(&text).unwrap();
    let choices = choices.into_iter().map(|(name, gains, silent)| Choice { name, gains, silent });
    let knobs = knobs.into_iter().map(|(name, start)| Knob { name, start, optimum: start, curvature: 0.0 });
    Fake::new(0, choices.collect(), knobs.collect())
}

/// A lab with a campaign that kept something and measured it.
pub(crate) fn lab() -> tempfile::TempDir {
    lab_of(1)
}

/// The same with so many rungs.
fn lab_of(num_rungs: u64) -> tempfile::TempDir {
    let lab = lab_where(num_rungs, Vec::new(), 3);
    assert!(lab.path().join("campaign/final.json").exists(), "something was kept and measured");
    lab
}

/// The same, where these gains are there on the first rung alone.
fn lab_where(num_rungs: u64, fading: Vec<&'static str>, seed: u64) -> tempfile::TempDir {
    let lab = new_lab();
    let choice =
        |name: &str, gains: &[f64]| Choice { name: name.into(), gains: gains.to_vec(), silent: false };
    let mut choices =
        vec![choice("big", &[0.0, 0.12]), choice("bad", &[0.0, -0.1]), choice("idle", &[0.0, 0.0])];
    if num_rungs > 1 {
        choices.push(choice("good", &[0.0, 0.1]));
    }
    let mut fake = Fake::new(seed, choices, Vec::new());
    fake.slow = Some(("big", 1.3));
    fake.fading = fading;
    let budget = CampaignBudget::Trials(if num_rungs == 1 { 60 } else { 90 });
    let options = CampaignOptions { rungs: ladder(num_rungs), ..asked(lab.path(), seed, budget) };
    let world = Filed { fake, options: &options };
    campaign::run(&options, &world, &mut |_| {}).unwrap();
    lab
}

pub(crate) fn found(lab: &Path) -> Vec<String> {
    let ledger = Ledger::open(lab).unwrap();
    let (options, fake) = (asked(lab, 3, CampaignBudget::Trials(60)), remembered(lab));
    let world = Filed { fake, options: &options };
    let compile = |path: &Path, depth: u64, settings: &Settings| world.check(path, depth, settings);
    let verified = verify(lab, &ledger, &compile).unwrap();
    assert!(verified.verdicts > 0 && verified.runs > 20, "{verified:?}");
    verified.differences.into_iter().map(|it| format!("{}: {}", it.place, it.what)).collect()
}

pub(crate) fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut document: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut document);
    std::fs::write(path, document.to_string()).unwrap();
}

/// Number of the verdict that promoted, and the pairs of it.
pub(crate) fn promoted(lab: &Path) -> (u64, Vec<Value>) {
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
        edit_last_score(&run_file(lab, run, "events.jsonl"));
    });
}

/// The last line of a log with another score.
fn edit_last_score(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let (before, eval) = text.trim_end().rsplit_once('\n').unwrap();
    let mut eval: Value = serde_json::from_str(eval).unwrap();
    eval["val_bpb"] = json!(2.0);
    std::fs::write(path, format!("{before}\n{eval}\n")).unwrap();
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
fn what_cannot_be_seen_inside_a_run_is_named() {
    let check = |words: &str, forge: &dyn Fn(&mut Value)| {
        check_forgery("run ", words, |lab, _, pairs| {
            edit(&run_file(lab, &pairs[0]["challenger_run"], "result.json"), |it| forge(&mut it["vitals"]));
        });
    };
    check("steps that it did not do", &|it| it["steps"][1] = json!(1_000_000));
    check("group blocks.*.w are not one size a look", &|it| it["groups"][0]["update_rms"] = json!([0.1]));
    check("group blocks.*.w are not one size a look", &|it| it["groups"][0]["weight_rms"][0] = json!(-1.0));
    check("its groups have 5 parameters", &|it| it["groups"][0]["num_params"] = json!(5));
    check("an activation is no size", &|it| it["layers"][0]["rms"] = json!(-0.5));
    check("shares of its time add up to", &|it| it["time"]["products"] = json!(0.9));
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
    check_forgery("champion 1", "its scores are", |lab, _, _| {
        edit(&lab.join("campaign/champions/0001.json"), |it| it["fresh_bpb"][0] = json!(9.0));
    });
    check_forgery("champion 1", "before it was challenged", |lab, _, _| {
        edit(&lab.join("campaign/champions/0001.json"), |it| {
            it["fresh_runs"].as_array_mut().unwrap().pop();
        });
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

#[test]
fn a_keep_that_was_taken_back_earns_no_level_for_the_tests_after_it() {
    let mut later = 0;
    for seed in 3..11 {
        let lab = lab_where(2, vec!["good"], seed);
        let verdicts: Vec<Value> = (1..100)
            .map_while(|number| std::fs::read(verdict_file(lab.path(), number)).ok())
            .map(|bytes| serde_json::from_slice(&bytes).unwrap())
            .collect();
        let stayed = |it: &Value| it["decision"]["verdict"] == "keep" && it["promoted"] == false;
        if let Some(at) = verdicts.iter().position(stayed) {
            let tested = |it: &&Value| it["evidence"]["level"].is_number();
            later += verdicts[at + 1..].iter().filter(tested).count();
        }
        // The levels on file are those that promotions alone earn.
        assert_eq!(found(lab.path()), Vec::<String>::new(), "seed {seed}");
    }
    assert!(later > 0, "no test came after a keep that was taken back");
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
        edit_last_score(&run_file(lab, run, "events.jsonl"));
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

#[test]
fn files_of_a_run_that_do_not_fit_each_other_are_named() {
    let file = |lab: &Path, pairs: &[Value], name: &str| run_file(lab, &pairs[0]["challenger_run"], name);
    check_forgery("run ", "its id does not follow", |lab, _, pairs| {
        edit(&file(lab, pairs, "run.json"), |it| it["seal"] = json!(true));
    });
    check_forgery("run ", "follow from its budget", |lab, _, pairs| {
        edit(&file(lab, pairs, "run.json"), |it| it["num_steps"] = json!(1000));
    });
    check_forgery("run ", "are said", |lab, _, pairs| {
        edit(&file(lab, pairs, "run.json"), |it| it["flops_per_step"] = json!(1e9));
    });
    check_forgery("run ", "learning curve", |lab, _, pairs| {
        edit(&file(lab, pairs, "result.json"), |it| it["curve"][0]["loss"] = json!(1.0));
    });
    check_forgery("run ", "its steps took", |lab, _, pairs| {
        edit(&file(lab, pairs, "result.json"), |it| it["train_seconds"] = json!(1.0));
    });
    check_forgery("run ", "which is none", |lab, _, pairs| {
        edit(&file(lab, pairs, "result.json"), |it| it["val_bpb"] = Value::Null);
    });
}

#[test]
fn records_that_do_not_fit_each_other_are_named() {
    let campaign = |lab: &Path, name: &str| lab.join("campaign").join(name);
    check_forgery("campaign", "its id does not follow", |lab, _, _| {
        edit(&campaign(lab, "campaign.json"), |it| it["judge"]["alpha"] = json!(0.4));
    });
    check_forgery("campaign", "another text", |lab, _, _| {
        std::fs::write(campaign(lab, "recipes/fake.star"), "other").unwrap();
    });
    check_forgery("noise", "initial seed 1 is not", |lab, _, _| {
        edit(&campaign(lab, "noise.json"), |it| it["pairs"][0]["init_seed"] = json!(1));
    });
    check_forgery("noise", "7 A/A pairs, 8 were asked", |lab, _, _| {
        edit(&campaign(lab, "noise.json"), |it| drop(it["pairs"].as_array_mut().unwrap().remove(0)));
    });
    check_forgery("verdict 1", "it is missing", |lab, _, _| {
        std::fs::remove_file(campaign(lab, "verdicts/0001.json")).unwrap();
    });
    check_forgery("proposal 1", "it is missing", |lab, _, _| {
        std::fs::remove_file(campaign(lab, "proposals/0001.json")).unwrap();
    });
    check_forgery("champion 1", "not those that were tried", |lab, _, _| {
        edit(&campaign(lab, "champions/0001.json"), |it| it["settings"]["bad"] = json!("o1"));
    });
    check_forgery("final measurement", "is not fresh seed 1", |lab, _, _| {
        edit(&campaign(lab, "final.json"), |it| it["seeds"][0] = json!(1));
    });
    check_forgery("final measurement", "learnt by heart", |lab, _, _| {
        edit(&campaign(lab, "final.json"), |it| {
            (it["search"]["mean"], it["search"]["half_width"]) = (json!(0.2), json!(0.01));
            (it["sealed"]["mean"], it["sealed"]["half_width"]) = (json!(0.01), json!(0.01));
        });
    });
    check_forgery("end", "99 kept are counted", |lab, _, _| {
        edit(&campaign(lab, "end.json"), |it| it["kept"] = json!(99));
    });
    check_forgery("proposal N", "another program than the one its verdict is on", |lab, number, _| {
        edit(&campaign(lab, &format!("proposals/{number:04}.json")), |it| {
            it["settings"]["bad"] = json!("o1")
        });
    });
}
