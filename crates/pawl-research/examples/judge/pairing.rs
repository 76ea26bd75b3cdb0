//! `judge pairing`: what common seeds buy, and what else would cut the noise of a difference, on runs trained for
//! it. Without arguments the runs are those of `pairs.tsv`; `--lab DIR` reads what the example `pairs` of
//! `pawl-train` left in `DIR/pairs`, and `--write FILE` keeps them as such a table.

use pawl_research::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Scores of a run by name.
type Row = BTreeMap<String, f64>;

/// Runs by study, arm and seed.
type Runs = BTreeMap<(String, String, u64), Row>;

const RESAMPLES: u64 = 2000;
const SCORE: &str = "final 128";
/// A little text is scored along the way: methods compare with the end on the same text.
const LITTLE: &str = "at 100";
const NUDGES: [&str; 4] = ["lr", "warmup", "beta2", "decay"];

pub(crate) fn run(args: &[&str]) -> Result<bool, String> {
    let mut runs = None;
    let mut target = None;
    for pair in args.chunks(2) {
        match *pair {
            ["--lab", lab] => runs = Some(from_lab(&Path::new(lab).join("pairs"))?),
            ["--write", path] => target = Some(path),
            // For the trainer, which has run before.
            ["--seeds" | "--minutes" | "--study", _] => {}
            _ => return Err(format!("{} is not understood", pair.join(" "))),
        }
    }
    let runs = match runs {
        Some(runs) => runs,
        None => from_table(include_str!("pairs.tsv"))?,
    };
    if let Some(path) = target {
        std::fs::write(path, table(&runs)).map_err(|why| format!("{path}: {why}"))?;
    }
    let names: BTreeSet<&String> = runs.keys().map(|(study, _, _)| study).collect();
    let studies: Vec<Study> = names.into_iter().filter_map(|name| Study::of(&runs, name)).collect();
    for study in &studies {
        study.pairing();
    }
    for study in &studies {
        study.methods();
        study.text();
    }
    budgets(&studies);
    Ok(true)
}

fn from_lab(folder: &Path) -> Result<Runs, String> {
    let failed = |why: String| format!("{}: {why}", folder.display());
    let mut runs = Runs::new();
    for entry in std::fs::read_dir(folder).map_err(|why| failed(why.to_string()))? {
        let path = entry.map_err(|why| failed(why.to_string()))?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let parts: Vec<&str> = name.split('.').collect();
        let ([study, arm, seed], Ok(text)) = (&parts[..], std::fs::read_to_string(&path)) else { continue };
        let seen: Seen = serde_json::from_str(&text).map_err(|why| failed(format!("{name}: {why}")))?;
        let seed = seed.parse().map_err(|_| failed(format!("{name} names no seed")))?;
        runs.insert(((*study).to_string(), (*arm).to_string(), seed), seen.row());
    }
    Ok(runs)
}

/// What the trainer writes.
#[derive(serde::Deserialize)]
struct Seen {
    flops_per_step: f64,
    losses: Vec<f64>,
    scores: Row,
}

impl Seen {
    /// Scores, mean training losses of the first and last shares of the run, and its GFLOPs.
    fn row(mut self) -> Row {
        let n = self.losses.len();
        for share in [10, 25] {
            let length = (share * n).div_ceil(100);
            self.scores.insert(format!("first {share}"), mean(&self.losses[..length]));
            self.scores.insert(format!("last {share}"), mean(&self.losses[n - length..]));
        }
        self.scores.insert("gflops".to_string(), self.flops_per_step * n as f64 / 1e9);
        self.scores
    }
}

fn table(runs: &Runs) -> String {
    let names: BTreeSet<&String> = runs.values().flat_map(BTreeMap::keys).collect();
    let mut text =
        format!("study\tarm\tseed\t{}\n", names.iter().map(|it| it.as_str()).collect::<Vec<_>>().join("\t"));
    for ((study, arm, seed), row) in runs {
        let cells: Vec<String> =
            names.iter().map(|name| row.get(*name).map_or("-".to_string(), |x| format!("{x:.5}"))).collect();
        text += &format!("{study}\t{arm}\t{seed}\t{}\n", cells.join("\t"));
    }
    text
}

fn from_table(text: &str) -> Result<Runs, String> {
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = lines.next().ok_or("the table is empty")?.split('\t').skip(3).collect();
    let mut runs = Runs::new();
    for line in lines {
        let mut cells = line.split('\t');
        let (Some(study), Some(arm), Some(seed)) = (cells.next(), cells.next(), cells.next()) else {
            return Err(format!("`{line}` is no row"));
        };
        let seed = seed.parse().map_err(|_| format!("`{line}` has no seed"))?;
        let row =
            names.iter().zip(cells).filter_map(|(name, x)| Some(((*name).to_string(), x.parse().ok()?)));
        runs.insert((study.to_string(), arm.to_string(), seed), row.collect());
    }
    Ok(runs)
}

/// All arms of a study on the seeds that every arm has.
struct Study {
    name: String,
    seeds: usize,
    champion: Vec<Row>,
    arms: Vec<(String, Vec<Row>)>,
}

impl Study {
    fn of(runs: &Runs, name: &str) -> Option<Study> {
        let own = || runs.keys().filter(|(study, _, _)| study == name);
        let arms: BTreeSet<&String> = own().map(|(_, arm, _)| arm).collect();
        let seeds: BTreeSet<u64> = own().map(|(_, _, seed)| *seed).collect();
        let row = |arm: &str, seed: u64| runs.get(&(name.to_string(), arm.to_string(), seed));
        let whole: Vec<u64> =
            seeds.into_iter().filter(|&seed| arms.iter().all(|arm| row(arm, seed).is_some())).collect();
        let rows = |arm: &str| whole.iter().filter_map(|&seed| row(arm, seed).cloned()).collect::<Vec<_>>();
        let others = arms.iter().filter(|arm| arm.as_str() != "champion");
        let study = Study {
            name: name.to_string(),
            seeds: whole.len(),
            champion: rows("champion"),
            arms: others.map(|arm| ((*arm).clone(), rows(arm))).collect(),
        };
        (study.seeds >= 3).then_some(study)
    }

    fn of_kind(&self, structural: bool) -> Vec<&[Row]> {
        let kind = |arm: &str| arm != "aa" && structural != NUDGES.contains(&arm);
        self.arms.iter().filter(|(arm, _)| kind(arm)).map(|(_, rows)| &rows[..]).collect()
    }

    /// Statistic of resampled seeds: its value and 95 % interval.
    fn interval(&self, of: &dyn Fn(&[usize]) -> f64) -> (f64, f64, f64) {
        let all: Vec<usize> = (0..self.seeds).collect();
        let mut drawn: Vec<f64> = (0..RESAMPLES)
            .filter_map(|i| {
                let mut random = Random::new(&[i, 0xb0]);
                let seeds: Vec<usize> = all.iter().map(|_| random.below(self.seeds)).collect();
                // Fewer than three different seeds say nothing of a variance.
                let different = seeds.iter().collect::<BTreeSet<_>>().len();
                (different >= 3).then(|| of(&seeds))
            })
            .collect();
        drawn.sort_by(f64::total_cmp);
        let at = |share: f64| drawn[((drawn.len() - 1) as f64 * share).round() as usize];
        (of(&all), at(0.025), at(0.975))
    }

    fn pairing(&self) {
        println!("\n{}: {} seeds; gain and sd of a pair in bits per byte", self.name, self.seeds);
        println!(
            "change             gain     sd   correlation of arms      variance paired / unpaired   known champion"
        );
        for (arm, rows) in &self.arms {
            let [x, y] = [&self.champion, rows].map(|rows| column(rows, SCORE));
            let apart = |seeds: &[usize]| of_seeds(&differences(&x, &y), seeds);
            let both = |seeds: &[usize]| (of_seeds(&x, seeds), of_seeds(&y, seeds));
            let correlation = self.interval(&|seeds| {
                let (x, y) = both(seeds);
                correlation(&x, &y)
            });
            let ratio = self.interval(&|seeds| {
                let (x, y) = both(seeds);
                variance(&apart(seeds)) / (variance(&x) + variance(&y))
            });
            let known = variance(&y) / variance(&differences(&x, &y));
            let apart = differences(&x, &y);
            println!(
                "{arm:<14} {:+.4} {:.4}   {}   {}   {known:>10.2}",
                mean(&apart),
                variance(&apart).sqrt(),
                shown(correlation),
                shown(ratio)
            );
        }
        println!("(known champion: variance of the challenger alone over that of the pair)");
    }

    fn methods(&self) {
        for structural in [true, false] {
            let arms = self.of_kind(structural);
            let kind = if structural { "structural changes" } else { "nudges" };
            println!(
                "\n{}, {kind}: other scores against the end of the run on the same little text",
                self.name
            );
            println!(
                "method                 variance of a pair, ratio      effect / sd, ratio   largest bias, pair sds"
            );
            let methods: [(&str, &[&str]); 5] = [
                ("tail 5 %", &["tail 5"]),
                ("tail 10 %", &["tail 10"]),
                ("tail 20 %", &["tail 20"]),
                ("tail 40 %", &["tail 40"]),
                ("mean of 85 to 100 %", &["at 85", "at 90", "at 95", "at 100"]),
            ];
            for (name, columns) in methods {
                self.method(name, &arms, &|rows| mean_columns(rows, columns));
            }
            println!("covariate              variance left if its mean were known");
            for covariate in ["first 10", "first 25", "at 10", "at 25", "at 50", "last 10", "last 25"] {
                let left = self.interval(&|seeds| {
                    geometric(arms.iter().map(|rows| {
                        let d = self.apart(rows, &|rows| column(rows, LITTLE), seeds);
                        let c = self.apart(rows, &|rows| column(rows, covariate), seeds);
                        // One degree of freedom goes to the coefficient.
                        let spent = (seeds.len() as f64 - 1.0) / (seeds.len() as f64 - 2.0);
                        (1.0 - correlation(&d, &c).powi(2)) * spent
                    }))
                });
                println!("{covariate:<20}   {}", shown(left));
            }
        }
    }

    fn apart(&self, rows: &[Row], of: &dyn Fn(&[Row]) -> Vec<f64>, seeds: &[usize]) -> Vec<f64> {
        of_seeds(&differences(&of(&self.champion), &of(rows)), seeds)
    }

    fn method(&self, name: &str, arms: &[&[Row]], of: &dyn Fn(&[Row]) -> Vec<f64>) {
        let end = |rows: &[Row]| column(rows, LITTLE);
        let ratio = self.interval(&|seeds| {
            geometric(arms.iter().map(|rows| {
                variance(&self.apart(rows, of, seeds)) / variance(&self.apart(rows, &end, seeds))
            }))
        });
        let power = self.interval(&|seeds| {
            let sds = |d: Vec<f64>| mean(&d).abs() / variance(&d).sqrt();
            geometric(
                arms.iter().map(|rows| sds(self.apart(rows, of, seeds)) / sds(self.apart(rows, &end, seeds))),
            )
        });
        let all: Vec<usize> = (0..self.seeds).collect();
        let bias = arms.iter().map(|rows| {
            let (d, e) = (self.apart(rows, of, &all), self.apart(rows, &end, &all));
            let apart = differences(&d, &e);
            let sd = variance(&e).sqrt();
            (mean(&apart) / sd, 2.0 * (variance(&apart) / self.seeds as f64).sqrt() / sd)
        });
        let (most, spread) =
            bias.max_by(|a, b| a.0.abs().total_cmp(&b.0.abs())).expect("a study has changes of both kinds");
        println!("{name:<20}   {}   {}   {most:+.2} +- {spread:.2}", shown(ratio), shown(power));
    }

    fn text(&self) {
        println!("\n{}: variance of a pair by KiB of held-out text a domain, over that at 128", self.name);
        for size in [8, 16, 32, 64] {
            let name = format!("final {size}");
            let [structural, nudges] = [true, false].map(|structural| {
                self.interval(&|seeds| {
                    geometric(self.of_kind(structural).iter().map(|rows| {
                        variance(&self.apart(rows, &|rows| column(rows, &name), seeds))
                            / variance(&self.apart(rows, &|rows| column(rows, SCORE), seeds))
                    }))
                })
            });
            println!("{size:>4}   structural {}   nudges {}", shown(structural), shown(nudges));
        }
    }
}

/// Effect over noise, squared, per FLOP: what a budget is worth.
fn budgets(studies: &[Study]) {
    println!("\neffect / sd of a pair, and its square per TFLOP of a run, by study");
    let arms: BTreeSet<&String> =
        studies.iter().flat_map(|study| study.arms.iter().map(|(arm, _)| arm)).collect();
    for arm in arms {
        let mut line = format!("{arm:<14}");
        for study in studies {
            let Some((_, rows)) = study.arms.iter().find(|(name, _)| name == arm) else { continue };
            let d = differences(&column(&study.champion, SCORE), &column(rows, SCORE));
            let sds = mean(&d) / variance(&d).sqrt();
            let tflops = study.champion[0]["gflops"] / 1000.0;
            line += &format!("   {} {sds:+6.2} sds, {:7.1} a TFLOP", study.name, sds * sds / tflops);
        }
        println!("{line}");
    }
}

fn column(rows: &[Row], name: &str) -> Vec<f64> {
    rows.iter().map(|row| row.get(name).copied().unwrap_or(f64::NAN)).collect()
}

fn mean_columns(rows: &[Row], names: &[&str]) -> Vec<f64> {
    let columns: Vec<Vec<f64>> = names.iter().map(|name| column(rows, name)).collect();
    (0..rows.len())
        .map(|i| columns.iter().map(|column| column[i]).sum::<f64>() / names.len() as f64)
        .collect()
}

fn differences(x: &[f64], y: &[f64]) -> Vec<f64> {
    x.iter().zip(y).map(|(x, y)| x - y).collect()
}

fn of_seeds(values: &[f64], seeds: &[usize]) -> Vec<f64> {
    seeds.iter().map(|&seed| values[seed]).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)
}

fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let (a, b) = (mean(x), mean(y));
    let product: f64 = x.iter().zip(y).map(|(x, y)| (x - a) * (y - b)).sum();
    product / (x.len() as f64 - 1.0) / (variance(x) * variance(y)).sqrt()
}

/// Geometric mean: ratios of many changes in one number.
fn geometric(values: impl Iterator<Item = f64>) -> f64 {
    let logs: Vec<f64> = values.map(f64::ln).collect();
    mean(&logs).exp()
}

fn shown((value, low, high): (f64, f64, f64)) -> String {
    format!("{value:6.3}  ({low:6.3} to {high:6.3})")
}
