//! Researchers side by side: what is compared, and with what.

use crate::fake::{Choice, Fake, Knob, asked, ladder, new_lab};
use pawl_ledger::{CampaignRecords, read_campaign};
use pawl_record::{CampaignBudget, CampaignManifest, Rung, Search, SettingValue};
use pawl_research::campaign;
use pawl_research::contest::{Course, Entry, other_campaign, standings};
use pawl_research::options::CampaignOptions;
use pawl_research::peer::{self, PeerError, SearchOptions};
use pawl_research::researcher::Researcher;
use serde_json::{Value, json};
use std::path::Path;

fn entry(researcher: Researcher, seed: u64) -> Entry {
    let lab = new_lab();
    let name = researcher.name();
    let asked = asked(lab.path(), seed, CampaignBudget::Trials(80));
    let options = CampaignOptions { researcher, ..asked };
    campaign::run(&options, &Fake::typical(seed), &mut |_| {}).unwrap();
    let records = read_campaign(lab.path()).unwrap().unwrap();
    Entry { researcher: name, seed, course: Course::Campaign(Box::new(records)) }
}

fn records(entry: &Entry) -> &CampaignRecords {
    match &entry.course {
        Course::Campaign(records) => records,
        Course::Search(search) => panic!("{search:?} is no campaign"),
    }
}

fn sealed(entry: &Entry) -> f64 {
    let measured = records(entry).final_measurement.as_ref();
    measured.and_then(|it| it.sealed.as_ref()).map_or(0.0, |sealed| sealed.mean)
}

#[test]
fn the_second_is_compared_with_the_first_seed_by_seed() {
    let of = |researcher: Researcher| (0..3).map(move |seed| entry(researcher.clone(), seed));
    // The order in which campaigns come does not matter to the pairing.
    let entries: Vec<Entry> = of(Researcher::Optimizer).chain(of(Researcher::Random).rev()).collect();
    let standings = standings(&entries);
    assert_eq!(
        standings.iter().map(|it| it.researcher.as_str()).collect::<Vec<_>>(),
        ["optimizer", "random"]
    );
    let gains: Vec<f64> = entries.iter().map(sealed).collect();
    assert_eq!(standings[0].sealed_gains, gains[..3]);
    assert_eq!(standings[1].sealed_gains, [gains[5], gains[4], gains[3]]);
    let differences = [gains[5] - gains[0], gains[4] - gains[1], gains[3] - gains[2]];
    let beyond = standings[1].beyond_first.unwrap();
    assert!(
        (beyond.mean - differences.iter().sum::<f64>() / 3.0).abs() < 1e-12,
        "{beyond:?} {differences:?}"
    );
    assert!(beyond.half_width.is_finite() && beyond.half_width > 0.0);
    assert_eq!(standings[0].beyond_first, None);
    for standing in &standings {
        assert!(standing.tried >= standing.kept && standing.breadth > 1, "{standing:?}");
        assert!(standing.measured_again >= standing.false_keeps + standing.unconfirmed_keeps, "{standing:?}");
    }
    assert!(standings[0].gain_per_petaflop > 0.0 && standings[0].gain_per_usd.is_none());
}

#[test]
fn one_campaign_has_the_brier_score_of_its_records_and_no_interval() {
    let entry = entry(Researcher::OneAtATime, 5);
    let brier = records(&entry).end.as_ref().unwrap().brier.unwrap();
    let standing = &standings(&[entry])[0];
    assert!((standing.brier.unwrap() - brier).abs() < 1e-12);
    assert!(standing.sealed_gain.half_width.is_infinite());
}

#[test]
fn a_campaign_of_another_recipe_or_rung_is_not_taken_for_what_is_asked() {
    let entry = entry(Researcher::Random, 1);
    let (manifest, rung) = (&records(&entry).manifest, ladder(1).first());
    assert_eq!(other_campaign(manifest, "recipe()", &rung), None);
    assert!(other_campaign(manifest, "recipe() # another", &rung).unwrap().contains("another text"));
    let more = Rung { flops: 2.0 * rung.flops, ..rung };
    assert!(other_campaign(manifest, "recipe()", &more).unwrap().contains("FLOPs at depth"));
    let deeper = Rung { depth: rung.depth + 1, ..rung };
    assert!(other_campaign(manifest, "recipe()", &deeper).is_some());
    let two = CampaignManifest { rungs: ladder(2), ..manifest.clone() };
    assert!(other_campaign(&two, "recipe()", &rung).unwrap().contains("2 rungs"));
}

/// A search by a shell script, in a world of one choice and one knob.
fn search(folder: &Path, script: &str) -> Result<Search, PeerError> {
    search_of(folder, script, "recipe()", 4)
}

/// The same of this text, measured on so many seeds.
fn search_of(folder: &Path, script: &str, text: &str, final_seeds: u64) -> Result<Search, PeerError> {
    std::fs::write(folder.join("recipe.star"), text).unwrap();
    let choice = Choice { name: "c".into(), gains: vec![0.0, 0.3, -0.3], silent: false };
    let knob = Knob { name: "k".into(), start: 0.02, optimum: 0.02, curvature: 0.1 };
    let options = SearchOptions {
        folder: folder.to_path_buf(),
        recipe: folder.join("recipe.star"),
        name: "shell".into(),
        command: ["sh", "-c", script, "sh"].map(String::from).into_iter().chain([heard(folder)]).collect(),
        rung: ladder(1).first(),
        max_runs: 3,
        seed: 7,
        final_seeds,
    };
    peer::search(&options, &Fake::new(1, vec![choice], vec![knob]))
}

/// The file in which a script keeps what it is told.
fn heard(folder: &Path) -> String {
    folder.join("heard").display().to_string()
}

/// Asks for settings one after another, and keeps every line that it is told.
fn asking(settings: &[&str]) -> String {
    let hear = "IFS= read -r line && printf '%s\\n' \"$line\" >> \"$1\"";
    let ask = |it: &&str| format!("echo '{{\"settings\": {it}}}'; {hear}");
    format!("{hear}; {}", settings.iter().map(ask).collect::<Vec<_>>().join("; "))
}

#[test]
fn a_peer_says_what_to_try_and_its_best_is_measured_on_fresh_seeds() {
    let folder = new_lab();
    let script = asking(&[
        r#"{}"#,
        r#"{"c": "o2"}"#,
        r#"{"depth": 9}"#,
        r#"{"c": "o2", "k": 0.02}"#,
        r#"{"c": "o1", "k": 0.04}"#,
        r#"{"c": "o1"}"#,
    ]);
    let found = search(folder.path(), &script).unwrap();
    let heard = std::fs::read_to_string(heard(folder.path())).unwrap();
    let lines: Vec<Value> = heard.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines[0]["trials"].as_u64(), lines[0]["seed"].as_u64()), (Some(3), Some(7)));
    let knob = lines[0]["space"].as_array().unwrap().iter().find(|it| it["name"] == "k").unwrap();
    assert_eq!((&knob["kind"], &knob["log"], &knob["whole"]), (&json!("knob"), &json!(true), &json!(false)));
    // What is nothing that can be turned costs nothing, nor does a program that was trained.
    assert!(lines[3]["why"].as_str().unwrap().contains("depth is nothing that can be turned"), "{heard}");
    assert_eq!(lines[2], lines[4]);
    assert_eq!((found.runs, found.trials.len(), lines.len()), (3, 5, 6));
    assert_eq!(found.flops, 3.0 * found.trial_flops);
    assert_eq!(found.best["k"], SettingValue::Float(0.04));
    // 0.3 less what the knob costs at twice its optimum.
    let truth = 0.3 - 0.1 * 2f64.ln().powi(2);
    assert!((found.sealed.mean - truth).abs() < 0.05 && found.sealed.differences.len() == 4, "{found:?}");
    // It is there, and found rather than searched again.
    assert_eq!(search(folder.path(), &script).unwrap(), found);
    assert_eq!(std::fs::read_to_string(self::heard(folder.path())).unwrap(), heard);
    let entry =
        Entry { researcher: "shell".into(), seed: 7, course: Course::Search(Box::new(found.clone())) };
    let standing = &standings(&[entry])[0];
    assert_eq!((standing.tried, standing.kept, standing.breadth, standing.brier), (3, 0, 3, None));
    assert_eq!(standing.sealed_gains, [found.sealed.mean]);
}

#[test]
fn a_search_of_anything_else_is_not_taken_for_what_is_asked() {
    let folder = new_lab();
    let script = asking(&["{}", r#"{"c": "o1"}"#]);
    let found = search(folder.path(), &script).unwrap();
    let lines = || std::fs::read_to_string(heard(folder.path())).unwrap().lines().count();
    let once = lines();
    let text = search_of(folder.path(), &script, "recipe() # another", 4).unwrap();
    assert_eq!((lines(), text.asked == found.asked), (2 * once, false));
    let seeds = search_of(folder.path(), &script, "recipe() # another", 5).unwrap();
    assert_eq!((lines(), seeds.seeds.len()), (3 * once, 5));
    let command = search_of(folder.path(), &asking(&["{}"]), "recipe() # another", 5).unwrap();
    assert_eq!(command.runs, 1);
    // One from before searches said what they were asked.
    let file = folder.path().join("search.json");
    let mut old: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    old.as_object_mut().unwrap().remove("asked");
    std::fs::write(&file, old.to_string()).unwrap();
    let before = lines();
    search_of(folder.path(), &asking(&["{}"]), "recipe() # another", 5).unwrap();
    assert!(lines() > before);
}

#[test]
fn a_peer_that_does_not_keep_to_the_lines_is_named() {
    let said = |script: &str| search(new_lab().path(), script).unwrap_err().to_string();
    assert!(said("read line; echo nonsense; sleep 5").contains("shell: it answered \"nonsense\""));
    assert!(said("read line; echo '{\"settings\": {}, \"seal\": true}'; sleep 5").contains("unknown field"));
    let folder = new_lab();
    let gone = search(folder.path(), "exit 0");
    // One that ends by itself before it has tried anything leaves the defaults.
    assert!(gone.as_ref().is_ok_and(|it| it.runs == 0 && it.best.is_empty()) || gone.is_err(), "{gone:?}");
}
