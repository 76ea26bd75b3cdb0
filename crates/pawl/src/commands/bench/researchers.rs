//! `pawl bench researchers`: campaigns that differ in who proposes, and what each came to.
//!
//! Each campaign is a `pawl research` of its own, in a lab below this lab that shares its data and nothing else. An
//! optimizer from elsewhere searches in such a lab. What is finished is found, not repeated.

use crate::args::{BUILTIN_DATA, BenchResearchers, Peer};
use crate::errors::Failure;
use crate::interrupt::interrupt;
use crate::lab::from_ledger;
use crate::machine::{cores, describe, machine};
use crate::output::{Align, Answer, Block, Table, duration, flops, narrate};
use crate::prepare;
use crate::recipes::{RecipeText, compile, depth, find, from_recipe};
use pawl_ledger::read_campaign;
use pawl_recipe::Overrides;
use pawl_record::{CampaignBudget, CampaignEnd, EndReason, Precision, Rung, Settings, write_atomic};
use pawl_research::child::ChildWorld;
use pawl_research::compiler::{ChildCompiler, LIMIT};
use pawl_research::contest::{Course, Entry, Estimate, Standing, other_campaign, standings};
use pawl_research::peer::{self, PeerError, SearchOptions};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often a campaign is looked at.
const POLL: Duration = Duration::from_millis(50);

/// One campaign to hold.
struct Job<'a> {
    seed: u64,
    name: &'a str,
    /// Its program, where it is an optimizer from elsewhere.
    peer: Option<&'a Peer>,
}

/// How a job ended, if it did not fail.
enum Ended {
    Finished(Entry, f64),
    /// By the clock or by the person.
    Stopped,
}

/// All that campaigns have in common.
struct Contest<'a> {
    args: &'a BenchResearchers,
    /// The recipe, kept beside the labs: a peer's trials read it there.
    recipe: PathBuf,
    /// Its text.
    text: &'a str,
    /// What campaigns are asked beside flags.
    asked: PathBuf,
    rung: Rung,
    workers: usize,
    program: PathBuf,
    begun: Instant,
    stop: &'a AtomicBool,
}

pub(crate) fn run(args: &BenchResearchers) -> Result<Answer, Failure> {
    let begun = Instant::now();
    let stop = interrupt()?;
    let text = find(&args.recipe)?;
    let contest = prepared(args, &text, begun, &stop)?;
    let jobs = jobs(args);
    let ended = side_by_side(&contest, &jobs)?;
    let (mut entries, mut seconds, mut unfinished) = (Vec::new(), Vec::new(), Vec::new());
    for (job, ended) in jobs.iter().zip(ended) {
        match ended {
            Ended::Finished(entry, took) => {
                seconds.push(took);
                entries.push(entry);
            }
            Ended::Stopped => unfinished.push((job.name.to_string(), job.seed)),
        }
    }
    let missing = |seed: u64| unfinished.iter().any(|(_, other)| *other == seed);
    let (whole, partial): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| !missing(entry.seed));
    if whole.is_empty() {
        return Err(Failure::new("no seed was finished by everybody, so nothing is compared")
            .hint("give more --minutes, fewer --trials or fewer competitors; the same command goes on"));
    }
    let standings = standings(&whole);
    let shown: Vec<Value> = whole.iter().chain(&partial).map(entry_json).collect();
    let text = format!("{}\n{}", table(&standings), block(&contest, &standings, &unfinished).text());
    let document = json!({
        "machine": describe(), "cores": cores(), "trials": args.trials, "trial_flops": args.flops,
        "depth": contest.rung.depth, "seeds": args.seeds, "final_seeds": args.final_seeds,
        "seconds": begun.elapsed().as_secs_f64(), "unfinished": unfinished, "standings": standings,
        "campaigns": shown,
    });
    Ok(Answer::new(text, document))
}

/// Who does what, all of one seed before the next: what is cut short by the clock are whole seeds.
fn jobs(args: &BenchResearchers) -> Vec<Job<'_>> {
    let of = |seed: u64| {
        let peers = args.peers.iter().map(move |peer| Job { seed, name: &peer.name, peer: Some(peer) });
        let own = args.researchers.iter().map(move |name| Job { seed, name, peer: None });
        own.chain(peers)
    };
    (0..args.seeds).flat_map(of).collect()
}

/// Makes what campaigns share, before the first of them could.
fn prepared<'a>(
    args: &'a BenchResearchers,
    text: &'a RecipeText,
    begun: Instant,
    stop: &'a AtomicBool,
) -> Result<Contest<'a>, Failure> {
    let named: Vec<&str> = jobs(args).iter().filter(|job| job.seed == 0).map(|job| job.name).collect();
    if let Some(twice) = named.iter().enumerate().find(|(at, name)| named[..*at].contains(name)) {
        return Err(Failure::misuse(format!("{} competes twice", twice.1)));
    }
    let overrides = Overrides { depth: args.depth, ..Overrides::default() };
    let compiled = compile(text, &overrides).map_err(|error| from_recipe(&text.name, error))?;
    let depth =
        depth(&compiled).ok_or_else(|| Failure::new(format!("recipe {} has no dial `depth`", text.name)))?;
    prepare::prepare(&args.place.lab, BUILTIN_DATA, compiled.vocab_size(), args.place.json)?;
    let folder = args.place.lab.join("bench");
    fs::create_dir_all(&folder).map_err(cannot_make(&folder))?;
    let (recipe, asked) = (folder.join("recipe.star"), folder.join("asked.toml"));
    write_atomic(&recipe, text.text.as_bytes()).map_err(Failure::from)?;
    let words = format!("[final]\nseeds = {}\n", args.final_seeds);
    write_atomic(&asked, words.as_bytes()).map_err(Failure::from)?;
    let program =
        std::env::current_exe().map_err(|why| Failure::new("pawl cannot find itself").caused_by(&why))?;
    let rung = Rung { depth, flops: args.flops, precision: Precision::F32 };
    let workers = if args.jobs.is_some() { 1 } else { cores() };
    Ok(Contest { args, recipe, text: &text.text, asked, rung, workers, program, begun, stop })
}

/// Runs jobs on as many threads as are asked for; the answers are in the order of the jobs.
fn side_by_side(contest: &Contest<'_>, jobs: &[Job<'_>]) -> Result<Vec<Ended>, Failure> {
    let next = AtomicUsize::new(0);
    let ended: Mutex<Vec<(usize, Result<Ended, Failure>)>> = Mutex::default();
    let threads = contest.args.jobs.unwrap_or(1) as usize;
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(|| {
                while let Some((at, job)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    jobs.get(at).map(|job| (at, job))
                } {
                    let how = if contest.is_over() { Ok(Ended::Stopped) } else { contest.hold(job) };
                    if how.is_err() {
                        // What failed says so at the end; nothing new is begun.
                        next.store(jobs.len(), Ordering::Relaxed);
                    }
                    ended.lock().expect("no thread panics").push((at, how));
                }
            });
        }
    });
    let mut ended = ended.into_inner().expect("no thread panics");
    ended.sort_by_key(|(at, _)| *at);
    ended.into_iter().map(|(_, how)| how).collect()
}

impl Contest<'_> {
    fn is_over(&self) -> bool {
        let limit_s = self.args.minutes.map_or(f64::INFINITY, |minutes| 60.0 * minutes);
        self.stop.load(Ordering::Relaxed) || self.begun.elapsed().as_secs_f64() >= limit_s
    }

    /// Holds a campaign, or finds that it was held.
    fn hold(&self, job: &Job<'_>) -> Result<Ended, Failure> {
        let lab = self.lab(job)?;
        let began = Instant::now();
        let course = match job.peer {
            Some(peer) => self.search(peer, job.seed, &lab)?,
            None => self.campaign(job, &lab)?,
        };
        let Some(course) = course else { return Ok(Ended::Stopped) };
        let entry = Entry { researcher: job.name.to_string(), seed: job.seed, course };
        let took = began.elapsed().as_secs_f64();
        narrate(&format!(
            "{}, seed {}: {:+.4} val_bpb, {} runs, {}",
            job.name,
            job.seed,
            0.0 - entry.sealed_gain(),
            entry.runs(),
            duration(took)
        ));
        Ok(Ended::Finished(entry, took))
    }

    /// The lab of one campaign: its own records and runs, the data of all.
    fn lab(&self, job: &Job<'_>) -> Result<PathBuf, Failure> {
        let of = &self.args.place.lab;
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' };
        let name: String = job.name.chars().map(plain).collect();
        let lab = of.join("bench").join(format!("{name}-{}", job.seed));
        fs::create_dir_all(&lab).map_err(cannot_make(&lab))?;
        let (here, there) = (lab.join("data"), of.join("data"));
        if fs::symlink_metadata(&here).is_err() {
            let there = fs::canonicalize(&there).map_err(cannot_make(&lab))?;
            std::os::unix::fs::symlink(there, &here).map_err(cannot_make(&lab))?;
        }
        Ok(lab)
    }

    /// Runs a campaign to the end of its budget; nothing where it was stopped.
    fn campaign(&self, job: &Job<'_>, lab: &Path) -> Result<Option<Course>, Failure> {
        let args = self.args;
        if !self.is_done(lab)? {
            let mut command = Command::new(&self.program);
            command.arg("research").arg("--lab").arg(lab).arg("--recipe").arg(&args.recipe);
            command.args(["--researcher", job.name, "--seed", &job.seed.to_string(), "--rungs", "1"]);
            command.args(["--trials", &args.trials.to_string(), "--flops", &format!("{:e}", args.flops)]);
            command.args(["--depth", &self.rung.depth.to_string(), "--data", BUILTIN_DATA]);
            command.args(["--workers", &self.workers.to_string()]).arg("--campaign").arg(&self.asked);
            let failed =
                || Failure::new(format!("the campaign of {}, seed {}, did not end well", job.name, job.seed));
            let log = lab.join("log.txt");
            let heard = fs::File::create(&log).map_err(|why| failed().caused_by(&why))?;
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(heard);
            let mut child = command.spawn().map_err(|why| failed().caused_by(&why))?;
            let status = loop {
                if let Some(status) = child.try_wait().map_err(|why| failed().caused_by(&why))? {
                    break status;
                }
                if self.is_over() {
                    // A campaign that is killed anywhere goes on where it was.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Ok(None);
                }
                std::thread::sleep(POLL);
            };
            if !status.success() {
                let why = format!("the last lines of {} say why", log.display());
                return Err(failed().because(why).hint("the same command goes on"));
            }
            if !self.is_done(lab)? {
                return Err(failed()
                    .because("it stopped before its trials were used")
                    .hint("the same command goes on"));
            }
        }
        let records = read_campaign(lab).map_err(from_ledger)?;
        let records = records.expect("a campaign that ran has left its files");
        Ok(Some(Course::Campaign(Box::new(records))))
    }

    /// Runs the search of a peer to the end of its trials; nothing where it was stopped.
    fn search(&self, peer: &Peer, seed: u64, lab: &Path) -> Result<Option<Course>, Failure> {
        let compiler = ChildCompiler {
            executable: self.program.clone(),
            most_memory: machine().memory_bytes,
            limit: LIMIT,
        };
        let check = |path: &Path, depth: u64, settings: &Settings| compiler.check(path, depth, settings);
        let world = ChildWorld {
            executable: self.program.clone(),
            lab: lab.to_path_buf(),
            data: BUILTIN_DATA.to_string(),
            check: &check,
            interrupted: &|| self.is_over(),
            start: self.begun,
        };
        let options = SearchOptions {
            folder: lab.to_path_buf(),
            recipe: self.recipe.clone(),
            name: peer.name.clone(),
            command: peer.command.clone(),
            rung: self.rung,
            max_runs: self.args.trials,
            seed,
            final_seeds: self.args.final_seeds,
        };
        match peer::search(&options, &world) {
            Ok(search) => Ok(Some(Course::Search(Box::new(search)))),
            Err(PeerError::Interrupted) => Ok(None),
            Err(error) => Err(Failure::from(error)),
        }
    }
}

impl Contest<'_> {
    /// Whether the campaign of a lab has used up these trials, or had nothing left to propose. One of anything else
    /// than is asked is refused: it would be taken for an answer.
    fn is_done(&self, lab: &Path) -> Result<bool, Failure> {
        let Some(records) = read_campaign(lab).map_err(from_ledger)? else { return Ok(false) };
        let stale = |what: String| {
            Failure::new(format!("{} holds another campaign", lab.display()))
                .because(what)
                .hint("move the folder away, or compare in another --lab")
        };
        if let Some(what) = other_campaign(&records.manifest, self.text, &self.rung) {
            return Err(stale(what));
        }
        let is_done =
            records.end.as_ref().is_some_and(|end| is_used(end, records.manifest.budget, self.args.trials));
        let seeds = records.final_measurement.map_or(self.args.final_seeds, |it| it.seeds.len() as u64);
        match is_done && seeds != self.args.final_seeds {
            true => Err(stale(format!("its champion was measured on {seeds} seeds"))),
            false => Ok(is_done),
        }
    }
}

fn is_used(end: &CampaignEnd, budget: CampaignBudget, trials: u64) -> bool {
    match (end.reason, budget) {
        (EndReason::Exhausted, _) => true,
        (EndReason::Budget, CampaignBudget::Trials(_)) => end.runs >= trials,
        (EndReason::Budget, CampaignBudget::Minutes(_)) => false,
        (EndReason::Interrupted | EndReason::Paused, _) => false,
    }
}

fn cannot_make(folder: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |why| Failure::new(format!("cannot make {}", folder.display())).caused_by(&why)
}

/// One campaign for programs that read: what it came to, and by what steps.
fn entry_json(entry: &Entry) -> Value {
    let (settings, steps) = match &entry.course {
        Course::Campaign(records) => {
            let champion = records.promotions.last();
            let steps: Vec<Value> = records
                .verdicts
                .iter()
                .scan(0, |runs, verdict| {
                    *runs += verdict.runs;
                    Some((*runs, verdict))
                })
                .filter(|(_, verdict)| verdict.promoted)
                .map(|(runs, verdict)| json!({"runs": runs, "proposal": verdict.proposal, "gain": verdict.evidence.map(|it| it.mean)}))
                .collect();
            (champion.map(|it| it.settings.clone()), steps)
        }
        Course::Search(search) => (Some(search.best.clone()), Vec::new()),
    };
    json!({
        "researcher": entry.researcher, "seed": entry.seed, "sealed_gain": entry.sealed_gain(),
        "runs": entry.runs(), "flops": entry.flops(), "settings": settings, "steps": steps,
    })
}

fn table(standings: &[Standing]) -> String {
    let mut table = Table::new(&[
        ("researcher", Align::Left),
        ("sealed val_bpb", Align::Right),
        ("beside the first", Align::Right),
        ("per PFLOP", Align::Right),
        ("per $", Align::Right),
        ("tried", Align::Right),
        ("kept", Align::Right),
        ("wrong", Align::Right),
        ("unconfirmed", Align::Right),
        ("breadth", Align::Right),
        ("Brier", Align::Right),
    ]);
    for it in standings {
        table.row(vec![
            it.researcher.clone(),
            change(&it.sealed_gain),
            it.beyond_first.as_ref().map_or(String::new(), change),
            format!("{:+.4}", 0.0 - it.gain_per_petaflop),
            it.gain_per_usd.map_or(String::new(), |gain| format!("{:+.4}", 0.0 - gain)),
            it.tried.to_string(),
            it.kept.to_string(),
            format!("{} of {}", it.false_keeps, it.measured_again),
            it.unconfirmed_keeps.to_string(),
            it.breadth.to_string(),
            it.brier.map_or(String::new(), |brier| format!("{brier:.3}")),
        ]);
    }
    table.text()
}

/// A change in bits per byte: negative is better.
fn change(gain: &Estimate) -> String {
    match gain.half_width.is_finite() {
        true => format!("{:+.4} +- {:.4}", 0.0 - gain.mean, gain.half_width),
        false => format!("{:+.4}", 0.0 - gain.mean),
    }
}

fn block(contest: &Contest<'_>, standings: &[Standing], unfinished: &[(String, u64)]) -> Block {
    let (args, mut block) = (contest.args, Block::default());
    let each = format!(
        "{} trials of {} at depth {}, {} each, the same seeds",
        args.trials,
        args.recipe,
        contest.rung.depth,
        flops(args.flops)
    );
    block
        .line("campaigns", standings.iter().map(|it| it.campaigns).sum::<usize>())
        .line("each", each)
        .line("took", duration(contest.begun.elapsed().as_secs_f64()))
        .line("labs", args.place.lab.join("bench").display());
    if !unfinished.is_empty() {
        block.line("unfinished", format!("{} campaigns; their seeds are left out", unfinished.len()));
    }
    block
}
