//! Run directories and records edited after the fact, in a copy of an honest lab.

use super::bench::{Lab, told};
use super::{Bench, Case, Catcher, Outcome};
use pawl_research::evidence::t_half_width;
use serde_json::{Value, json};
use std::fs;

const FORGED: &str = "forged metrics files";
const SHOPPING: &str = "seed shopping and selective reporting";
const LEDGER: &str = "edited leaderboards and ledgers";
const BUDGET: &str = "budget overruns";

type Forge = fn(&Lab) -> Result<(), String>;

fn run(id: &str, name: &str) -> String {
    format!("runs/{id}/{name}")
}

/// Lowers the score of a run in every file of its folder.
fn lower_score(lab: &Lab, id: &str, by: f64) -> Result<(), String> {
    let lower = |it: &mut Value| {
        *it = json!(it.as_f64().unwrap_or(f64::NAN) - by);
    };
    let lower_all = |it: &mut Value, domains: &str| {
        lower(&mut it["val_bpb"]);
        it[domains].as_object_mut().into_iter().flatten().for_each(|(_, bpb)| lower(bpb));
    };
    lab.edit(&run(id, "result.json"), |it| lower_all(it, "val_bpb_by_domain"))?;
    let steps = lab.read(&run(id, "result.json"))?["steps"].clone();
    lab.edit_events(id, |event| {
        if event["event"] == "eval" && event["step"] == steps {
            lower_all(event, "by_domain");
        }
    })
}

/// Everything that depends on the first fresh run of the champion, made to fit a lower score.
fn forge_everywhere(lab: &Lab) -> Result<(), String> {
    const BY: f64 = 0.02;
    let measured = lab.read("campaign/final.json")?;
    let id = measured["champion_runs"][0].as_str().ok_or("no final measurement")?.to_string();
    lower_score(lab, &id, BY)?;
    let score = lab.read(&run(&id, "result.json"))?["val_bpb"].clone();
    let refit = |search: &mut Value| {
        search["champion_bpb"][0] = score.clone();
        let numbers = |it: &Value| -> Vec<f64> {
            it.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
        };
        let (start, champion) = (numbers(&search["start_bpb"]), numbers(&search["champion_bpb"]));
        let differences: Vec<f64> = start.iter().zip(&champion).map(|(a, b)| a - b).collect();
        search["mean"] = json!(differences.iter().sum::<f64>() / differences.len() as f64);
        search["half_width"] = json!(t_half_width(&differences));
        search["differences"] = json!(differences);
    };
    lab.edit("campaign/final.json", |it| {
        refit(&mut it["search"]);
        refit(&mut it["kept"][0]["search"]);
    })?;
    // The index would still know the honest score; without it, it is made again from the forged files.
    fs::remove_file(lab.path("ledger.sqlite")).map_err(told)
}

/// Changes bytes of the index where it lies, as somebody with a hex editor would.
fn patch_index(lab: &Lab, from: &str, to: &str) -> Result<(), String> {
    assert_eq!(from.len(), to.len(), "a patch keeps the length");
    let mut patched = 0;
    for name in ["ledger.sqlite", "ledger.sqlite-wal"] {
        let path = lab.path(name);
        if !path.exists() {
            continue;
        }
        let mut bytes = fs::read(&path).map_err(told)?;
        let places: Vec<usize> = bytes
            .windows(from.len())
            .enumerate()
            .filter(|(_, it)| *it == from.as_bytes())
            .map(|(at, _)| at)
            .collect();
        for at in &places {
            bytes[*at..*at + to.len()].copy_from_slice(to.as_bytes());
        }
        patched += places.len();
        fs::write(&path, bytes).map_err(told)?;
    }
    if patched == 0 { Err(format!("the index does not hold {from}")) } else { Ok(()) }
}

/// Totals that fit the verdicts that are left.
fn recount(lab: &Lab) -> Result<(), String> {
    let mut counts = std::collections::BTreeMap::from([("proposals", 0), ("kept", 0), ("rejected", 0)]);
    counts.extend([("undecided", 0), ("skipped", 0), ("failed", 0)]);
    for entry in fs::read_dir(lab.path("campaign/verdicts")).map_err(told)? {
        let name = entry.map_err(told)?.file_name().to_string_lossy().into_owned();
        let verdict = lab.read(&format!("campaign/verdicts/{name}"))?;
        let word = match verdict["decision"]["verdict"].as_str() {
            Some("keep") => "kept",
            Some("reject") => "rejected",
            Some("undecided") => "undecided",
            Some("skipped") => "skipped",
            _ => "failed",
        };
        *counts.entry(word).or_default() += 1;
        *counts.entry("proposals").or_default() += 1;
    }
    lab.edit("campaign/end.json", |it| counts.iter().for_each(|(name, count)| it[name] = json!(count)))
}

#[rustfmt::skip]
const CHEATS: &[(&str, &str, &[&str], Forge)] = &[
    ("result.json with a better score", FORGED, &["val_bpb of the result"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        lab.edit(&run(&challenger, "result.json"), |it| it["val_bpb"] = json!(1.0))
    }),
    ("result and log with a better score", FORGED, &["score of run"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        lower_score(lab, &challenger, 0.1)
    }),
    ("result.json whose score is null", "NaN that compares as lower", &["which is none"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        lab.edit(&run(&challenger, "result.json"), |it| it["val_bpb"] = Value::Null)
    }),
    ("result.json whose score is negative", FORGED, &["which is none"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        lab.edit(&run(&challenger, "result.json"), |it| it["val_bpb"] = json!(-1.0))
    }),
    ("a learning curve of another run", FORGED, &["learning curve"], |lab| {
        let ([champion, challenger], name) = (lab.pair(0)?, "result.json");
        let other = lab.read(&run(&champion, name))?["curve"].clone();
        lab.edit(&run(&challenger, name), |it| it["curve"] = other)
    }),
    ("a log without the steps that failed", FORGED, &["is not in events.jsonl"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        let path = lab.path(&run(&challenger, "events.jsonl"));
        let text = fs::read_to_string(&path).map_err(told)?;
        let kept: Vec<&str> = text.lines().enumerate().filter(|(at, _)| *at != 5).map(|(_, line)| line).collect();
        fs::write(path, kept.join("\n") + "\n").map_err(told)
    }),
    ("a verdict turned into a keep", LEDGER, &["decision is keep"], |lab| {
        lab.edit(&lab.verdict("mixer")?, |it| it["decision"] = json!({ "verdict": "keep" }))
    }),
    ("a stronger e-value", LEDGER, &["e-value is"], |lab| {
        lab.edit(&lab.verdict("rate")?, |it| it["evidence"]["e_value"] = json!(1e9))
    }),
    ("a level that was not to be spent", LEDGER, &["level is"], |lab| {
        lab.edit(&lab.verdict("rate")?, |it| it["evidence"]["level"] = json!(0.5))
    }),
    ("a test moved to the front", LEDGER, &["test index is"], |lab| {
        lab.edit(&lab.verdict("scale")?, |it| it["evidence"]["test_index"] = json!(1))
    }),
    ("a pair left out", SHOPPING, &["verdict "], |lab| {
        lab.edit(&lab.verdict("rate")?, |it| { it["pairs"].as_array_mut().map(|pairs| pairs.remove(0)); })
    }),
    ("a pair counted twice", SHOPPING, &["is not the next of this champion"], |lab| {
        lab.edit(&lab.verdict("rate")?, |it| {
            let pair = it["pairs"][0].clone();
            it["pairs"].as_array_mut().into_iter().for_each(|pairs| pairs.push(pair.clone()));
        })
    }),
    ("a seed of one's own choosing", SHOPPING, &["seed 7 is not the next"], |lab| {
        lab.edit(&lab.verdict("rate")?, |it| it["pairs"][0]["seed"] = json!(7))
    }),
    ("the challenger on another seed", SHOPPING, &["has another seed"], |lab| {
        let [_, other] = lab.pair(1)?;
        lab.edit(&lab.verdict("rate")?, |it| it["pairs"][0]["challenger_run"] = json!(other))
    }),
    ("champion and challenger exchanged", SHOPPING, &["has another program"], |lab| {
        let [champion, challenger] = lab.pair(0)?;
        lab.edit(&lab.verdict("rate")?, |it| {
            it["pairs"][0]["champion_run"] = json!(challenger);
            it["pairs"][0]["challenger_run"] = json!(champion);
        })
    }),
    ("a failing run deleted", SHOPPING, &["run.json"], |lab| {
        let loser = lab.read(&lab.verdict("mixer")?)?["pairs"][0]["challenger_run"].as_str().ok_or("no pair")?.to_string();
        fs::remove_dir_all(lab.path(&format!("runs/{loser}"))).map_err(told)
    }),
    ("a rejected proposal deleted", SHOPPING, &["it is missing"], |lab| {
        let paths = [lab.path(&lab.proposal("mixer")?), lab.path(&lab.verdict("mixer")?)];
        paths.iter().try_for_each(|path| fs::remove_file(path).map_err(told))
    }),
    ("a verdict deleted", SHOPPING, &["it is missing"], |lab| {
        fs::remove_file(lab.path(&lab.verdict("mixer")?)).map_err(told)
    }),
    ("the last failures deleted, totals too", SHOPPING, &["no verdict names it"], |lab| {
        for number in lab.number("hidden")?.. {
            let names = ["proposals", "verdicts"].map(|kind| lab.path(&format!("campaign/{kind}/{number:04}.json")));
            if !names[0].exists() {
                break;
            }
            names.iter().try_for_each(|path| fs::remove_file(path).map_err(told))?;
        }
        recount(lab)
    }),
    ("a rejection called skipped", SHOPPING, &["it was tried and is called skipped"], |lab| {
        lab.edit(&lab.verdict("mixer")?, |it| it["decision"] = json!({ "verdict": "skipped", "reason": "the same program as the champion" }))
    }),
    ("a rejection whose pairs are gone, called skipped", SHOPPING, &["nothing stood against trying it"], |lab| {
        lab.edit(&lab.verdict("mixer")?, |it| {
            it["decision"] = json!({ "verdict": "skipped", "reason": "the same program as the champion" });
            (it["pairs"], it["evidence"], it["seconds_ratio"]) = (json!([]), Value::Null, Value::Null);
        })
    }),
    ("noise made small", "claims below the noise", &["sd of a pair"], |lab| {
        lab.edit("campaign/noise.json", |it| it["pair_sd"] = json!(1e-6))
    }),
    ("noisy A/A pairs left out", "claims below the noise", &["A/A pairs, 8 were asked"], |lab| {
        lab.edit("campaign/noise.json", |it| { it["pairs"].as_array_mut().map(|pairs| pairs.remove(2)); })
    }),
    ("an A/A pair of one run", "claims below the noise", &["has another initial seed"], |lab| {
        lab.edit("campaign/noise.json", |it| {
            it["pairs"][0]["runs"][1] = it["pairs"][0]["runs"][0].clone();
            it["pairs"][0]["bpb"][1] = it["pairs"][0]["bpb"][0].clone();
            it["pairs"][0]["difference"] = json!(0.0);
        })
    }),
    ("a champion that was never tried", LEDGER, &["champion 1", "not those that were tried"], |lab| {
        lab.edit("campaign/champions/0001.json", |it| it["settings"]["shift"] = json!(1.5))
    }),
    ("a champion that no verdict made", LEDGER, &["no verdict promoted it"], |lab| {
        lab.edit("campaign/champions/0001.json", |it| it["proposal"] = json!(4000))
    }),
    ("a fingerprint under another name", "rediscovered and renamed improvements", &["another program"], |lab| {
        let other = lab.read(&lab.verdict("mixer")?)?["fingerprint"].clone();
        lab.edit(&lab.verdict("scale")?, |it| it["fingerprint"] = other)
    }),
    ("a proposal rewritten after its verdict", LEDGER, &["another program than the one its verdict is on"], |lab| {
        lab.edit(&lab.proposal("mixer")?, |it| {
            it["changes"][0]["to"] = json!("heads");
            it["settings"]["mixer"] = json!("heads");
        })
    }),
    ("the recipe exchanged after the campaign", LEDGER, &["another text than the one that was tried"], |lab| {
        let path = lab.path("campaign/recipes/small.star");
        let text = fs::read_to_string(&path).map_err(told)?;
        fs::write(path, text.replace("0.003", "0.004")).map_err(told)
    }),
    ("the rules changed after the campaign", LEDGER, &["its id does not follow"], |lab| {
        lab.edit("campaign/campaign.json", |it| it["judge"]["alpha"] = json!(0.5))
    }),
    ("a better final measurement", FORGED, &["mean on the search split"], |lab| {
        lab.edit("campaign/final.json", |it| it["search"]["mean"] = json!(2.0))
    }),
    ("a better sealed score", FORGED, &["sealed split"], |lab| {
        lab.edit("campaign/final.json", |it| it["sealed"]["champion_bpb"][0] = json!(0.5))
    }),
    ("a narrower interval", FORGED, &["half-width on the search split"], |lab| {
        lab.edit("campaign/final.json", |it| it["search"]["half_width"] = json!(1e-6))
    }),
    ("fresh seeds that were chosen", SHOPPING, &["is not fresh seed"], |lab| {
        lab.edit("campaign/final.json", |it| it["seeds"][0] = json!(42))
    }),
    ("totals that count more keeps", LEDGER, &["are counted"], |lab| {
        lab.edit("campaign/end.json", |it| it["kept"] = json!(9))
    }),
    ("a row of the index with a better score", LEDGER, &["was altered"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        let said = lab.read(&run(&challenger, "result.json"))?["val_bpb"].to_string();
        let mut forged = said.clone().into_bytes();
        forged[0] = if forged[0] == b'1' { b'2' } else { b'1' };
        patch_index(lab, &format!("\"val_bpb\":{said}"), &format!("\"val_bpb\":{}", String::from_utf8(forged).map_err(told)?))
    }),
    ("more FLOPs than were allowed", BUDGET, &["FLOPs"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        lab.edit(&run(&challenger, "result.json"), |it| it["flops"] = json!(8e9))
    }),
    ("more steps than the budget buys", BUDGET, &["follow from its budget"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        lab.edit(&run(&challenger, "run.json"), |it| it["num_steps"] = json!(10_000))
    }),
    ("a step that is said to cost less", BUDGET, &["are said"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        lab.edit(&run(&challenger, "run.json"), |it| it["flops_per_step"] = json!(1e6))
    }),
    ("another budget for the challenger", BUDGET, &["another budget"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        lab.edit(&run(&challenger, "run.json"), |it| it["budget"] = json!({ "flops": 8e9 }))
    }),
    ("more threads than a trial has", "hardware that differs between entries", &["it had 8 threads"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        lab.edit_events(&challenger, |event| if event["event"] == "started" { event["threads"] = json!(8) })
    }),
    ("a slow challenger said to be fast", "timers that were stopped, speedruns", &["its steps took"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        lab.edit(&run(&challenger, "result.json"), |it| it["train_seconds"] = json!(0.001))
    }),
    ("another precision, silently", "precision lowered without a word", &["another precision"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        lab.edit(&run(&challenger, "run.json"), |it| it["precision"] = json!("bf16"))
    }),
    ("another data set under the run", "data sets swapped under a name", &["another data set"], |lab| {
        let [_, challenger] = lab.pair(0)?;
        lab.edit(&run(&challenger, "run.json"), |it| it["data"]["hash"] = json!("00"))
    }),
    ("the recipe of a run exchanged", FORGED, &["another program than the one it names"], |lab| {
        let ([champion, _], path) = (lab.pair(0)?, |id: &str| lab.path(&run(id, "recipe.star")));
        let text = fs::read_to_string(path(&champion)).map_err(told)?;
        fs::write(path(&champion), text.replace("seq_len = 64", "seq_len = 32")).map_err(told)
    }),
    ("a checkpoint of another run", "stale checkpoints swapped in", &["checkpoint last is of run"], |lab| {
        let (own, other) = checkpoints(lab)?;
        fs::copy(lab.path(&run(&other, "last/checkpoint.json")), lab.path(&run(&own, "last/checkpoint.json"))).map_err(told)?;
        fs::copy(lab.path(&run(&other, "last/tensors.safetensors")), lab.path(&run(&own, "last/tensors.safetensors"))).map(|_| ()).map_err(told)
    }),
    ("the tensors of another run", "stale checkpoints swapped in", &["not those of its hashes"], |lab| {
        let (own, other) = checkpoints(lab)?;
        fs::copy(lab.path(&run(&other, "last/tensors.safetensors")), lab.path(&run(&own, "last/tensors.safetensors"))).map(|_| ()).map_err(told)
    }),
    ("another data set in the lab", "data sets swapped under a name", &["not the data set that the campaign was run on"], |lab| {
        lab.edit("data/words/manifest.json", |it| it["hash"] = json!("00"))
    }),
    ("inflated byte counts under a campaign", "bits per byte over inflated bytes", &["bytes of text are said"], |lab| {
        let set = lab.path("data/words");
        let mut names = fs::read_dir(&set).map_err(told)?.filter_map(|it| it.ok()?.file_name().into_string().ok());
        let tokens = names.find(|name| name.starts_with("tokens-")).ok_or("no token files")?;
        lab.edit(&format!("data/words/{tokens}/manifest.json"), |it| it["files"][1]["bytes"] = json!(1_000_000))
    }),
];

/// Two runs with checkpoints: the start's and the champion's.
fn checkpoints(lab: &Lab) -> Result<(String, String), String> {
    let own = |generation: u64| {
        let champion = lab.read(&format!("campaign/champions/{generation:04}.json"))?;
        Ok::<String, String>(champion["run"].as_str().ok_or("no run")?.to_string())
    };
    Ok((own(0)?, own(1)?))
}

fn honest(name: &'static str, plant: fn(&Bench, &Lab) -> Result<Outcome, String>) -> Case {
    Case {
        name,
        from: "ordinary use of a lab",
        catcher: Catcher::Verify,
        words: &[],
        honest: true,
        plant: Box::new(move |bench: &Bench| plant(bench, &bench.lab()?)),
    }
}

fn folder(lab: &Lab) -> Result<&std::path::Path, String> {
    lab.root.parent().ok_or("a lab lies in a folder".to_string())
}

pub(super) fn cases() -> Vec<Case> {
    let catcher = Catcher::Verify;
    let forged = CHEATS.iter().map(|&(name, from, words, forge)| {
        let plant: super::Plant = Box::new(move |bench: &Bench| {
            let lab = bench.lab()?;
            forge(&lab)?;
            let mut outcome = lab.verify(bench, &[])?;
            // A row of the index that was altered is made again from the files, and said so.
            outcome.caught |= outcome.said.contains("was altered");
            Ok(outcome)
        });
        Case { name, from, catcher, words, honest: false, plant }
    });
    let everywhere = Case {
        name: "a score forged in every file that holds it",
        from: FORGED,
        catcher,
        words: &["scored again"],
        honest: false,
        plant: Box::new(|bench: &Bench| {
            let lab = bench.lab()?;
            forge_everywhere(&lab)?;
            let outcome = lab.verify(bench, &["--rescore"])?;
            Ok(Outcome { caught: outcome.caught && outcome.said.contains("val_bpb is"), ..outcome })
        }),
    };
    let honest = [
        honest("a lab as it was left", |bench, lab| lab.verify(bench, &[])),
        honest("a lab whose deciding runs are trained again", |bench, lab| {
            let outcome = lab.verify(bench, &["--rescore"])?;
            match outcome.said.contains(", 0 scored again") || !outcome.said.contains("scored again") {
                true => Err(format!("nothing was trained again: {}", outcome.said)),
                false => Ok(outcome),
            }
        }),
        honest("a lab whose index was deleted", |bench, lab| {
            fs::remove_file(lab.path("ledger.sqlite")).map_err(told)?;
            lab.verify(bench, &[])
        }),
        honest("a lab with runs of one's own beside", |bench, lab| {
            let args =
                ["train", "tiny", "--depth", "1", "--data", "words", "--steps", "2", "--set", "seq_len=128"];
            bench.ask(folder(lab)?, &args)?;
            lab.verify(bench, &[])
        }),
        honest("a trial trained again to be sampled", |bench, lab| {
            let [_, challenger] = lab.pair(0)?;
            bench.ask(folder(lab)?, &["sample", &challenger, "--tokens", "2"])?;
            lab.verify(bench, &[])
        }),
        honest("a campaign asked to go on that had ended", |bench, lab| {
            let args = ["research", "--recipe", "small.star", "--script", "script", "--data", "words"];
            let at = folder(lab)?;
            fs::write(at.join("small.star"), super::bench::RECIPE).map_err(told)?;
            fs::write(at.join("script"), super::bench::SCRIPT).map_err(told)?;
            bench.ask(at, &[&args[..], &["--trials", "1000", "--workers", "2", "--json"]].concat())?;
            lab.verify(bench, &[])
        }),
        honest("a lab whose data were deleted", |bench, lab| {
            fs::remove_dir_all(lab.path("data/words")).map_err(told)?;
            lab.verify(bench, &[])
        }),
    ];
    forged.chain([everywhere]).chain(honest).collect()
}
