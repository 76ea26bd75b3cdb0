//! `pawl bench lessons`: what reinforcement learning gained, beside the three controls at equal FLOPs.
//!
//! Each arm is a `pawl rl` of its own on one thread, with the same budget of operations, so that an arm can be repeated
//! alone; finished ones are found. What is known so far lies in `lessons.json` of the lab after every arm.

use crate::args::BenchLessons;
use crate::errors::Failure;
use crate::machine::{cores, describe};
use crate::output::{Align, Answer, Table, narrate};
use pawl_record::{Control, EnvScore, LessonResult, PassRate, from_json, write_json};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// More batches than any budget pays for: the operations end an arm.
const BATCHES: &str = "100000";

/// The arms of a comparison; the first is what the others are compared with.
const ARMS: [Option<Control>; 4] =
    [None, Some(Control::Sft), Some(Control::Rejection), Some(Control::Random)];

fn name(arm: Option<Control>) -> &'static str {
    match arm {
        None => "rl",
        Some(Control::Sft) => "sft",
        Some(Control::Rejection) => "rejection",
        Some(Control::Random) => "random",
    }
}

/// One arm with one seed.
struct Arm {
    lesson: String,
    arm: &'static str,
    seed: u64,
    run: String,
    seconds: f64,
    best_batch: Option<u64>,
    flops: f64,
    before: EnvScore,
    after: EnvScore,
}

pub(crate) fn run(args: &BenchLessons) -> Result<Answer, Failure> {
    // All arms of a seed before the next seed: what is cut short is still a comparison.
    let mut waiting = VecDeque::new();
    for seed in 0..args.seeds {
        for arm in ARMS {
            waiting.extend(args.lessons.iter().map(|lesson| (lesson.as_str(), arm, seed)));
        }
    }
    let jobs = args.jobs.map_or_else(cores, |jobs| jobs as usize).min(waiting.len());
    let waiting = Mutex::new(waiting);
    let done: Mutex<Vec<Result<Arm, Failure>>> = Mutex::new(Vec::new());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("no worker panics").pop_front();
                    let Some((lesson, arm, seed)) = next else { return };
                    let result = teach(args, lesson, arm, seed);
                    let mut done = done.lock().expect("no worker panics");
                    done.push(result);
                    let written = document(args, &done, begun.elapsed().as_secs_f64());
                    if let Err(why) = write_json(&args.place.lab.join("lessons.json"), &written) {
                        narrate(&format!("lessons.json is not written: {why}"));
                    }
                    if let Some(Ok(arm)) = done.last() {
                        let (before, after) = (arm.before.pass_at_1(), arm.after.pass_at_1());
                        narrate(&format!(
                            "{:.0} s  {} {} seed {}: {:.1} -> {:.1} %",
                            arm.seconds,
                            short(&arm.lesson),
                            arm.arm,
                            arm.seed,
                            100.0 * before,
                            100.0 * after
                        ));
                    }
                }
            });
        }
    });
    let done = done.into_inner().expect("no worker panics");
    let json = document(args, &done, begun.elapsed().as_secs_f64());
    Ok(told(done, json))
}

/// The arms there are, and below them those that failed, for which the answer does not hold.
fn told(done: Vec<Result<Arm, Failure>>, json: Value) -> Answer {
    let (mut arms, mut failed) = (Vec::new(), String::new());
    for result in done {
        match result {
            Ok(arm) => arms.push(arm),
            Err(failure) => failed.push_str(&format!("\n{failure}")),
        }
    }
    Answer::of(failed.is_empty(), table(&arms) + &failed, json)
}

/// Runs an arm, or finds that it has run.
fn teach(args: &BenchLessons, lesson: &str, arm: Option<Control>, seed: u64) -> Result<Arm, Failure> {
    let begun = Instant::now();
    let program =
        std::env::current_exe().map_err(|why| Failure::new("pawl cannot find itself").caused_by(&why))?;
    let mut command = Command::new(program);
    command.arg("rl").args(lesson.split_whitespace()).arg("--lab").arg(&args.place.lab);
    command.args(["--steps", BATCHES, "--flops", &args.flops.to_string(), "--seed", &seed.to_string()]);
    command.args(["--threads", "1", "--json"]);
    if arm.is_some() {
        command.args(["--control", name(arm)]);
    }
    let more = match arm {
        None | Some(Control::Random) => &args.reinforce,
        Some(Control::Sft | Control::Rejection) => &args.imitate,
    };
    command.args(more.split_whitespace());
    let failed = || Failure::new(format!("{} of `{lesson}`, seed {seed}, did not end well", name(arm)));
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|why| failed().caused_by(&why))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(failed().because(said).hint("the same command goes on"));
    }
    let printed: Value = from_json(&output.stdout).map_err(|why| failed().caused_by(&why))?;
    let run = printed["run"]["id"].as_str().unwrap_or_default().to_string();
    let outcome: LessonResult = serde_json::from_value(printed["outcome"].clone())
        .map_err(|why| failed().because("it was not measured").caused_by(&why))?;
    let LessonResult { best_batch, flops, .. } = outcome;
    let (Some(before), Some(after)) = (outcome.test_before, outcome.test_after) else {
        return Err(failed().because("it was not measured"));
    };
    let seconds = begun.elapsed().as_secs_f64();
    let lesson = lesson.to_string();
    Ok(Arm { lesson, arm: name(arm), seed, run, seconds, best_batch, flops, before, after })
}

/// Everything that is known.
fn document(args: &BenchLessons, done: &[Result<Arm, Failure>], seconds: f64) -> Value {
    let told = |it: &Arm| {
        json!({
            "lesson": it.lesson, "arm": it.arm, "seed": it.seed, "run": it.run, "seconds": it.seconds,
            "best_batch": it.best_batch, "flops": it.flops, "before": it.before, "after": it.after,
        })
    };
    let arms: Vec<Value> = done.iter().flatten().map(told).collect();
    let failed: Vec<String> =
        done.iter().filter_map(|arm| arm.as_ref().err()).map(ToString::to_string).collect();
    let (reinforce, imitate) = (&args.reinforce, &args.imitate);
    json!({
        "machine": describe(), "seconds": seconds, "flops": args.flops, "reinforce": reinforce, "imitate": imitate,
        "arms": arms, "failed": failed,
    })
}

/// What an environment and its difficulty are called in a table.
fn short(lesson: &str) -> String {
    let words: Vec<&str> = lesson.split_whitespace().collect();
    let after = |flag: &str| words.windows(2).find(|pair| pair[0] == flag).map(|pair| pair[1]);
    format!("{} {}", after("--env").unwrap_or("?"), after("--difficulty").unwrap_or("1"))
}

fn pass(score: &EnvScore, k: u64) -> Option<PassRate> {
    score.pass_at.iter().find(|pass| pass.k == k).copied()
}

/// Means over seeds, with 95 % intervals of Student's t over seeds: seeds are what would differ in another try.
fn table(arms: &[Arm]) -> String {
    let mut table = Table::new(&[
        ("lesson", Align::Left),
        ("arm", Align::Left),
        ("seeds", Align::Right),
        ("k", Align::Right),
        ("before %", Align::Right),
        ("after %", Align::Right),
        ("gain, points", Align::Right),
        ("rl gains more", Align::Right),
    ]);
    let mut grouped: BTreeMap<(&str, usize), Vec<&Arm>> = BTreeMap::new();
    for arm in arms {
        let at = ARMS.iter().position(|known| name(*known) == arm.arm).expect("an arm of the list");
        grouped.entry((&arm.lesson, at)).or_default().push(arm);
    }
    for ((lesson, at), those) in &grouped {
        for k in [1, 16] {
            let gains = gains(those, k);
            if gains.is_empty() {
                continue;
            }
            let mean = |of: fn(&Arm) -> &EnvScore| {
                let rates: Vec<f64> =
                    those.iter().filter_map(|arm| pass(of(arm), k)).map(|p| p.rate).collect();
                100.0 * rates.iter().sum::<f64>() / rates.len() as f64
            };
            let beside = match grouped.get(&(*lesson, 0)) {
                Some(rl) if *at > 0 => {
                    let rl = self::gains(rl, k);
                    let both = rl.iter().filter_map(|(seed, gain)| Some(gain - gains.get(seed)?));
                    interval(&both.collect::<Vec<f64>>())
                }
                Some(_) | None => String::new(),
            };
            table.row(vec![
                short(lesson),
                name(ARMS[*at]).to_string(),
                gains.len().to_string(),
                k.to_string(),
                format!("{:.1}", mean(|arm| &arm.before)),
                format!("{:.1}", mean(|arm| &arm.after)),
                interval(&gains.into_values().collect::<Vec<f64>>()),
                beside,
            ]);
        }
    }
    table.text() + "\n"
}

/// What each seed gained, points of pass@k.
fn gains(arms: &[&Arm], k: u64) -> BTreeMap<u64, f64> {
    let gain =
        |arm: &&Arm| Some((arm.seed, 100.0 * (pass(&arm.after, k)?.rate - pass(&arm.before, k)?.rate)));
    arms.iter().filter_map(gain).collect()
}

/// Mean +- half of the 95 % interval.
fn interval(values: &[f64]) -> String {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    match student(values.len()) {
        Some(t) => {
            let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
            format!("{mean:+.1} +- {:.1}", t * (variance / n).sqrt())
        }
        None => format!("{mean:+.1}"),
    }
}

/// 97.5 % quantile of Student's t for so many values.
fn student(count: usize) -> Option<f64> {
    const QUANTILES: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];
    match count {
        0 | 1 => None,
        n => Some(QUANTILES.get(n - 2).copied().unwrap_or(1.96)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_over_seeds_is_students() {
        // sd 2, 3 values: 4.303 * 2 / sqrt(3).
        assert_eq!(interval(&[8.0, 10.0, 12.0]), "+10.0 +- 5.0");
        assert_eq!(interval(&[3.0]), "+3.0");
    }

    #[test]
    fn an_arm_that_failed_stands_below_those_that_did_not() {
        let score = |rate: f64| EnvScore {
            problems: 10,
            samples: 1,
            pass_at: vec![PassRate { k: 1, rate, low: 0.0, high: 1.0 }],
            mean_tokens: 4.0,
            truncated: 0.0,
        };
        let arm = || Arm {
            lesson: "12ab --env sort".into(),
            arm: "rl",
            seed: 0,
            run: "34cd".into(),
            seconds: 1.0,
            best_batch: None,
            flops: 1e9,
            before: score(0.25),
            after: score(0.5),
        };
        let answer = told(vec![Err(Failure::new("random did not end well")), Ok(arm())], json!({}));
        assert!(!answer.holds);
        let (table, failed) = answer.text.split_once("\n\n").unwrap();
        assert!(table.contains("+25.0"), "{table}");
        assert_eq!(failed, "\nerror: random did not end well\n");
        assert!(told(vec![Ok(arm())], json!({})).holds);
    }

    #[test]
    fn a_lesson_is_called_by_its_environment() {
        assert_eq!(short("12ab --env sum --difficulty 3 --group 4"), "sum 3");
        assert_eq!(short("12ab --env sort"), "sort 1");
    }
}
