//! Every verdict of a lab again, from the raw files of its runs: what does not follow from them is named.
//!
//! Reads and compares; repairs nothing. What a run's score *is* can only be shown by training it again
//! (`pawl verify --rescore`); that the files of a run fit each other is shown in `runs`, that the records of the
//! campaign do in `records`, and that every verdict follows from the scores here.

mod keeps;
mod ladder;
mod records;
mod runs;

use crate::books::was_tested;
use crate::campaign::known_of;
use crate::duel::{MAX_VOID, SLOWER, pair_seed, scores_of};
use crate::evidence::NoiseScale;
use crate::judge::{self, Ruling};
use crate::levels;
use crate::world::Checked;
use pawl_ledger::{CampaignRecords, Ledger, LedgerError, read_campaign, run_folder};
use pawl_record::{
    Budget, Decision, Evidence, NoisePair, PairRecord, Promotion, RunManifest, RunResult, RunStatus, Rung,
    Settings, Verdict, read_json,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// One thing that does not follow from the raw files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Difference {
    /// Where: `run 1a2b...`, `verdict 3`, `noise`, ...
    pub place: String,
    /// What is there and what follows.
    pub what: String,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Verified {
    /// Verdicts computed again.
    pub verdicts: u64,
    /// Runs read.
    pub runs: u64,
    /// In order of place.
    pub differences: Vec<Difference>,
}

/// Computes every verdict of the lab's campaign again. `compile` compiles a recipe, a run's with what the run
/// stored beside it.
pub fn verify(lab: &Path, ledger: &Ledger, compile: &Compile<'_>) -> Result<Verified, LedgerError> {
    let records = read_campaign(lab)?.ok_or_else(|| LedgerError::NoCampaign { lab: lab.to_path_buf() })?;
    let (runs, compiled, found) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut check = Check { lab, records: &records, compile, compiled, runs, found };
    for problem in &records.problems {
        check.differs("campaign", problem.to_string());
    }
    let few = records.noise.as_ref().is_some_and(|noise| noise.pairs.len() < 3);
    match judge::check_settings(&records.manifest.judge) {
        Err(why) => check.differs("campaign", format!("nothing can be judged like this: {why}")),
        Ok(()) if few => check.differs("noise", "fewer than three A/A pairs: nothing follows from them"),
        Ok(()) => {
            check.noise();
            for verdict in &records.verdicts {
                check.verdict(verdict);
            }
            check.promotions();
            check.prunings();
            check.retractions();
            check.replications();
            records::look_through(&mut check);
        }
    }
    check.rows(ledger)?;
    let runs = check.runs.len() as u64;
    let mut differences = check.found;
    differences.sort();
    differences.dedup();
    Ok(Verified { verdicts: records.verdicts.len() as u64, runs, differences })
}

/// Compiles a recipe file at a depth under settings.
pub type Compile<'a> = dyn Fn(&Path, u64, &Settings) -> Result<Checked, String> + 'a;

/// A run's files.
#[derive(Clone)]
struct Run {
    manifest: RunManifest,
    result: RunResult,
}

impl Run {
    fn score(&self) -> Option<f64> {
        match self.result.status {
            RunStatus::Finished => self.result.val_bpb.filter(|bpb| bpb.is_finite()),
            RunStatus::Diverged => None,
        }
    }
}

/// What a run of this campaign must have been asked.
struct Asked<'a> {
    seed: u64,
    init_seed: u64,
    rung: Rung,
    fingerprint: Option<&'a str>,
}

struct Check<'a> {
    lab: &'a Path,
    records: &'a CampaignRecords,
    compile: &'a Compile<'a>,
    /// What compiling came to, by text, depth and settings.
    compiled: BTreeMap<String, Result<Checked, String>>,
    runs: BTreeMap<String, Option<Run>>,
    found: Vec<Difference>,
}

/// Numbers that were computed the same way may differ by rounding and no more.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// Whether a run was given so many FLOPs.
fn budget_is(manifest: &RunManifest, asked: f64) -> bool {
    match manifest.budget {
        Budget::Flops(flops) => same(flops, asked),
        Budget::Tokens(_) | Budget::Steps(_) => false,
    }
}

fn same_option(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "none".to_string(), |value| format!("{value:.6}"))
}

impl Check<'_> {
    fn differs(&mut self, place: &str, what: impl Into<String>) {
        self.found.push(Difference { place: place.to_string(), what: what.into() });
    }

    /// The number on file against the one that follows.
    fn compare(&mut self, place: &str, name: &str, on_file: Option<f64>, follows: Option<f64>) {
        if !same_option(on_file, follows) {
            self.differs(place, format!("{name} is {}, {} follows", shown(on_file), shown(follows)));
        }
    }

    /// The recipe of a file, compiled; the same text under the same settings is compiled once.
    fn compile(&mut self, path: &Path, depth: u64, settings: &Settings) -> Result<Checked, String> {
        let hash = |path: &Path| fs::read(path).map(|text| blake3::hash(&text).to_hex()).ok();
        let loads = hash(&path.with_file_name("loads.json"));
        let key = format!("{:?} {loads:?} {depth} {settings:?}", hash(path));
        let compile = self.compile;
        self.compiled.entry(key).or_insert_with(|| compile(path, depth, settings)).clone()
    }

    /// The run of that id as its files say it, looked through when first met.
    fn run(&mut self, id: &str) -> Option<Run> {
        if let Some(known) = self.runs.get(id) {
            return known.clone();
        }
        let run = self.read_run(id);
        self.runs.insert(id.to_string(), run.clone());
        run
    }

    fn read_run(&mut self, id: &str) -> Option<Run> {
        let place = format!("run {id}");
        let folder = run_folder(self.lab, id);
        let manifest: Result<RunManifest, _> = read_json(&folder.join("run.json"));
        let result: Result<RunResult, _> = read_json(&folder.join("result.json"));
        let (manifest, result) = match (manifest, result) {
            (Ok(manifest), Ok(result)) => (manifest, result),
            (Err(error), _) | (_, Err(error)) => {
                self.differs(&place, error.to_string());
                return None;
            }
        };
        for (file, other) in [("run.json", &manifest.id), ("result.json", &result.id)] {
            if other != id {
                self.differs(&place, format!("{file} belongs to run {other}"));
            }
        }
        if let Budget::Flops(budget) = manifest.budget
            && result.flops > budget.max(manifest.flops_per_step) * (1.0 + 1e-9)
        {
            self.differs(&place, format!("{:.4e} FLOPs spent, {budget:.4e} allowed", result.flops));
        }
        if result.status == RunStatus::Finished {
            if result.steps != manifest.num_steps {
                self.differs(&place, format!("{} steps done, {} asked", result.steps, manifest.num_steps));
            }
            let text = fs::read_to_string(folder.join("events.jsonl")).unwrap_or_default();
            if let Some(last) = runs::last_score(&text, &result) {
                self.compare(&place, "val_bpb of the result", result.val_bpb, last);
            }
        }
        runs::look_through(self, &folder, &manifest, &result);
        Some(Run { manifest, result })
    }

    /// The score of a run that must have been asked this.
    fn score(&mut self, place: &str, id: &str, asked: &Asked<'_>) -> Option<f64> {
        let run = self.run(id)?;
        let (manifest, campaign) = (&run.manifest, &self.records.manifest);
        let flops = budget_is(manifest, asked.rung.flops);
        let rules = [
            (manifest.seed == asked.seed, "seed"),
            (manifest.init_seed == asked.init_seed, "initial seed"),
            (flops, "budget"),
            (manifest.depth == asked.rung.depth, "depth"),
            (manifest.precision == asked.rung.precision, "precision"),
            (manifest.data == campaign.data, "data set"),
            (asked.fingerprint.is_none_or(|program| program == manifest.fingerprint), "program"),
        ];
        for (_, what) in rules.into_iter().filter(|(holds, _)| !holds) {
            self.differs(place, format!("run {id} has another {what}"));
        }
        run.score()
    }

    /// On the first rung.
    fn asked(&self, seed: u64) -> Asked<'static> {
        Asked { seed, init_seed: seed, rung: self.records.manifest.rungs.first(), fingerprint: None }
    }

    fn noise(&mut self) {
        let Some(noise) = &self.records.noise else { return };
        let program = self.records.promotions.first().map(|start| start.fingerprint.as_str());
        for (pair_idx, pair) in (0..).zip(&noise.pairs) {
            let NoisePair { seed, init_seed, runs, bpb, difference } = pair;
            if *seed != pair_seed(self.records.manifest.seed, 0, pair_idx) {
                self.differs("noise", format!("seed {seed} is not the one of A/A pair {}", pair_idx + 1));
            }
            for (arm, init_seed) in [(0, seed), (1, init_seed)] {
                let asked = Asked { init_seed: *init_seed, fingerprint: program, ..self.asked(*seed) };
                let follows = self.score("noise", &runs[arm], &asked);
                self.compare("noise", &format!("score of run {}", runs[arm]), Some(bpb[arm]), follows);
            }
            self.compare("noise", "difference of a pair", Some(*difference), Some(bpb[0] - bpb[1]));
        }
        let differences: Vec<f64> = noise.pairs.iter().map(|pair| pair.bpb[0] - pair.bpb[1]).collect();
        let sd = NoiseScale::of_differences(&differences).sd();
        self.compare("noise", "sd of a pair", Some(noise.pair_sd), Some(sd));
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let place = format!("verdict {}", verdict.proposal);
        for pair in &verdict.pairs {
            self.pair(&place, verdict.generation, verdict.fingerprint.as_deref(), pair);
        }
        let first = self.first_pair(verdict.proposal);
        self.seeds(&place, verdict.generation, first, &verdict.pairs);
        match (&verdict.decision, &verdict.evidence) {
            (Decision::Keep | Decision::Reject(_) | Decision::Undecided(_), Some(evidence)) => {
                self.ruling(&place, verdict, evidence);
            }
            (Decision::Keep | Decision::Reject(_) | Decision::Undecided(_), None) => {
                self.differs(&place, "it decides without evidence");
            }
            (Decision::Skipped(_), _) if !verdict.pairs.is_empty() => {
                self.differs(&place, "it was tried and is called skipped");
            }
            (Decision::Skipped(_) | Decision::Failed(_), _) => {}
        }
        let wins_time = self.wins_time(&place, verdict);
        let stands = verdict.decision == Decision::Keep && self.climbs(&place, verdict, wins_time);
        let follows = self.is_confirmed(&place, verdict, stands) && stands;
        if verdict.promoted != follows {
            self.differs(&place, format!("promoted is {}, {follows} follows", verdict.promoted));
        }
    }

    /// A pair of a champion and a challenger of that program.
    fn pair(&mut self, place: &str, generation: u64, challenger: Option<&str>, pair: &PairRecord) {
        let champion = self.records.promotions.iter().find(|it| it.generation == generation);
        let program = champion.map(|it| it.fingerprint.as_str());
        let asked = self.asked(pair.seed);
        self.arms(place, pair, [program, challenger], &asked);
    }

    /// A pair whose arms must have been these programs.
    fn arms(&mut self, place: &str, pair: &PairRecord, programs: [Option<&str>; 2], asked: &Asked<'_>) {
        let asked = Asked { fingerprint: programs[0], ..*asked };
        let follows = self.score(place, &pair.champion_run, &asked);
        let name = format!("score of run {}", pair.champion_run);
        self.compare(place, &name, Some(pair.champion_bpb), follows);
        let asked = Asked { fingerprint: programs[1], ..asked };
        let follows = self.score(place, &pair.challenger_run, &asked);
        let name = format!("score of run {}", pair.challenger_run);
        self.compare(place, &name, pair.challenger_bpb, follows);
        let difference = pair.challenger_bpb.map(|bpb| pair.champion_bpb - bpb);
        self.compare(place, "difference of a pair", pair.difference, difference);
        if let (Some(a), Some(b)) = (self.run(&pair.champion_run), self.run(&pair.challenger_run)) {
            let ratio = b.result.train_seconds / a.result.train_seconds;
            self.compare(place, "ratio of seconds", Some(pair.seconds_ratio), Some(ratio));
        }
    }

    /// Pairs use the seeds of their champion in order; one may be passed over where the champion diverged, and
    /// no run shows that here, so at most as many as a campaign bears.
    fn seeds(&mut self, place: &str, generation: u64, first: u64, pairs: &[PairRecord]) {
        let limit = first + self.records.manifest.judge.max_pairs + MAX_VOID as u64;
        let mut seeds = (first..=limit).map(|idx| pair_seed(self.records.manifest.seed, generation, idx));
        for pair in pairs {
            if !seeds.any(|seed| seed == pair.seed) {
                self.differs(place, format!("seed {} is not the next of this champion", pair.seed));
            }
        }
    }

    fn ruling(&mut self, place: &str, verdict: &Verdict, evidence: &Evidence) {
        let (Some(noise), judge) = (&self.records.noise, &self.records.manifest.judge) else { return };
        let champion = self.records.promotions.iter().find(|it| it.generation == verdict.generation);
        let Some(champion) = champion else {
            self.differs(place, format!("champion {} is not on file", verdict.generation));
            return;
        };
        let pairs: Vec<_> = verdict.pairs.iter().filter_map(scores_of).collect();
        if pairs.is_empty() {
            self.differs(place, "it decides without a pair");
            return;
        }
        let others = self.records.verdicts.iter();
        let before = others.filter(|other| other.proposal < verdict.proposal && was_tested(other)).count();
        let test_index = before as u64 + 1;
        let known = known_of(noise, champion).starting_at(self.first_pair(verdict.proposal));
        let (least, most) = self.kept_before(verdict);
        let level = |kept| levels::level(judge.alpha, test_index, kept);
        let kept = (least..=most).find(|kept| same(level(*kept), evidence.level)).unwrap_or(least);
        let (ruling, follows) = judge::rule(judge, &known, &pairs, level(kept), test_index);
        if evidence.test_index != test_index {
            self.differs(place, format!("test index is {}, {test_index} follows", evidence.test_index));
        }
        self.evidence(place, Some(evidence), Some(&follows));
        self.decision(place, &verdict.decision, ruling);
    }

    /// Evidence on file against the one that follows.
    fn evidence(&mut self, place: &str, on_file: Option<&Evidence>, follows: Option<&Evidence>) {
        let numbers: [(&str, fn(&Evidence) -> f64); 6] = [
            ("mean", |it| it.mean),
            ("half-width", |it| it.half_width),
            ("e-value", |it| it.e_value),
            ("threshold", |it| it.threshold),
            ("level", |it| it.level),
            ("sd", |it| it.sd),
        ];
        for (name, of) in numbers {
            self.compare(place, name, on_file.map(of), follows.map(of));
        }
    }

    fn decision(&mut self, place: &str, on_file: &Decision, ruling: Ruling) {
        let follows = match ruling {
            Ruling::Keep => Decision::Keep,
            Ruling::Reject(reason) => Decision::Reject(reason),
            Ruling::Undecided(reason) => Decision::Undecided(reason),
            // An open duel ends when its champion does, or the budget: neither is in the numbers.
            Ruling::Continue => match on_file {
                open @ Decision::Undecided(_) => open.clone(),
                Decision::Keep | Decision::Reject(_) | Decision::Skipped(_) | Decision::Failed(_) => {
                    Decision::Undecided("more pairs were needed".to_string())
                }
            },
        };
        if *on_file != follows {
            let words = |it: &Decision| match it.reason() {
                Some(reason) => format!("{} ({reason})", it.word()),
                None => it.word().to_string(),
            };
            self.differs(place, format!("decision is {}, {} follows", words(on_file), words(&follows)));
        }
    }

    /// Whether a keep wins, or need not win, at equal seconds.
    fn wins_time(&mut self, place: &str, verdict: &Verdict) -> bool {
        let ratio = verdict.pairs.iter().map(|pair| pair.seconds_ratio).fold(f64::INFINITY, f64::min);
        let is_slower = verdict.decision == Decision::Keep && ratio > SLOWER;
        let Some(control) = &verdict.equal_time else {
            if is_slower {
                self.differs(
                    place,
                    format!("it took {ratio:.2} times as long and was not tried at equal seconds"),
                );
            }
            return true;
        };
        let mut gains = Vec::new();
        for (id, pair) in control.champion_runs.iter().zip(&verdict.pairs) {
            let asked = self.asked(pair.seed);
            let flops = asked.rung.flops * control.seconds_ratio;
            let asked = Asked { rung: Rung { flops, ..asked.rung }, ..asked };
            if let (Some(champion), Some(challenger)) = (self.score(place, id, &asked), pair.challenger_bpb) {
                gains.push(champion - challenger);
            }
        }
        let follows = if gains.is_empty() { 0.0 } else { mean(&gains) };
        self.compare(place, "gain at equal seconds", Some(control.mean), Some(follows));
        follows > 0.0
    }

    fn promotions(&mut self) {
        let records = self.records;
        let promoted: Vec<&Verdict> = records.verdicts.iter().filter(|verdict| verdict.promoted).collect();
        for promotion in records.promotions.iter().filter(|it| it.generation > 0) {
            let place = format!("champion {}", promotion.generation);
            if let Some(origin) = promotion.origin {
                self.derived(&place, promotion, origin);
                continue;
            }
            let Some(verdict) = promoted.iter().find(|it| Some(it.proposal) == promotion.proposal) else {
                self.differs(&place, "no verdict promoted it");
                continue;
            };
            if verdict.generation + 1 != promotion.generation {
                self.differs(&place, format!("it beat champion {}", verdict.generation));
            }
            if verdict.fingerprint.as_deref() != Some(&promotion.fingerprint) {
                self.differs(&place, "it is another program than the one that was tried");
            }
            if verdict.evidence != promotion.gain {
                self.differs(&place, "its gain is not the one of its verdict");
            }
            if verdict.fresh.as_ref().is_some_and(|fresh| fresh.runs != promotion.fresh_runs) {
                self.differs(&place, "its fresh runs are not those that confirmed it");
            }
            self.fresh_runs(&place, promotion);
        }
        for verdict in promoted {
            if !records.promotions.iter().any(|it| it.proposal == Some(verdict.proposal)) {
                self.differs(
                    &format!("verdict {}", verdict.proposal),
                    "it promoted and no champion is on file",
                );
            }
        }
    }

    /// A champion's first own runs, which its mean score is of.
    fn fresh_runs(&mut self, place: &str, promotion: &Promotion) {
        let mut scores = Vec::new();
        for (idx, id) in (0..).zip(&promotion.fresh_runs) {
            let seed = pair_seed(self.records.manifest.seed, promotion.generation, idx);
            let asked = Asked { fingerprint: Some(&promotion.fingerprint), ..self.asked(seed) };
            scores.extend(self.score(place, id, &asked));
        }
        let follows = (!scores.is_empty()).then(|| mean(&scores));
        self.compare(place, "mean score", Some(promotion.mean_bpb), follows);
        let on_file = &promotion.fresh_bpb;
        if on_file.len() != scores.len() || !on_file.iter().zip(&scores).all(|(a, b)| same(*a, *b)) {
            self.differs(place, format!("its scores are {on_file:?}, {scores:?} follow"));
        }
        if promotion.fresh_runs.len() as u64 != self.records.manifest.judge.champion_runs {
            let times = promotion.fresh_runs.len();
            self.differs(place, format!("it was run {times} times before it was challenged"));
        }
    }

    /// The index against the files it is made of.
    fn rows(&mut self, ledger: &Ledger) -> Result<(), LedgerError> {
        let records = self.records;
        for row in ledger.verdicts()? {
            if records.verdict(row.proposal).is_some_and(|file| *file != row) {
                self.differs(
                    &format!("verdict {}", row.proposal),
                    "its row in the ledger says something else",
                );
            }
        }
        for row in ledger.proposals()? {
            if records.proposals.iter().any(|file| file.number == row.number && *file != row) {
                self.differs(
                    &format!("proposal {}", row.number),
                    "its row in the ledger says something else",
                );
            }
        }
        for row in ledger.promotions()? {
            if records.promotions.iter().any(|file| file.generation == row.generation && *file != row) {
                self.differs(
                    &format!("champion {}", row.generation),
                    "its row in the ledger says something else",
                );
            }
        }
        self.keep_rows(ledger)?;
        let ids: Vec<String> = self.runs.keys().cloned().collect();
        for id in ids {
            let file = self.run(&id).map(|run| run.result);
            if let (Some(file), Ok(row)) = (file, ledger.run(&id))
                // A trial trained again to be sampled has a checkpoint since.
                && row.result.is_some_and(|row| {
                    RunResult { checkpoint_hash: file.checkpoint_hash.clone(), ..row } != file
                })
            {
                self.differs(&format!("run {id}"), "its row in the ledger says something else");
            }
        }
        Ok(())
    }
}
