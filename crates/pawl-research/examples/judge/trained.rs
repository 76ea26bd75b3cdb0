//! Campaigns with real training, driven through the built binary as a person would, in a lab that the same
//! command goes on with: each call works for some minutes and reports what there is.

use pawl_ledger::{CampaignRecords, read_campaign};
use pawl_record::{CampaignEnd, Decision, EndReason, Proposal, Verdict};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a call works, minutes, and how long the campaign in progress gets to stop.
const MINUTES: f64 = 8.0;
const GRACE: Duration = Duration::from_secs(60);

/// What `--seed N --seeds K --minutes M --workers W --jobs J` say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) seed: u64,
    /// Seeds from that one on.
    pub(crate) seeds: u64,
    pub(crate) workers: u64,
    /// Campaigns at once.
    pub(crate) jobs: usize,
    minutes: f64,
    begun: Instant,
}

impl How {
    pub(crate) fn read(args: &[&str]) -> Result<How, String> {
        let mut how = How { seed: 0, seeds: 1, workers: 1, jobs: 1, minutes: MINUTES, begun: Instant::now() };
        for pair in args.chunks(2) {
            let [name, value] = *pair else { return Err(format!("{} has no value", pair.join(" "))) };
            let wrong = |_| format!("{name} {value} is not understood");
            match name {
                "--seed" => how.seed = value.parse().map_err(|_| wrong(()))?,
                "--seeds" => how.seeds = value.parse().map_err(|_| wrong(()))?,
                "--jobs" => how.jobs = value.parse().map_err(|_| wrong(()))?,
                "--workers" => how.workers = value.parse().map_err(|_| wrong(()))?,
                "--minutes" => how.minutes = value.parse().map_err(|_| wrong(()))?,
                _ => return Err(wrong(())),
            }
        }
        Ok(how)
    }

    pub(crate) fn left(&self) -> Duration {
        Duration::from_secs_f64(60.0 * self.minutes).saturating_sub(self.begun.elapsed())
    }
}

/// A campaign to run: a recipe and, in order, what is proposed.
pub(crate) struct Asked<'a> {
    /// Folder of the lab below `target/judge`.
    pub(crate) name: String,
    pub(crate) recipe: &'a str,
    pub(crate) script: Vec<String>,
    pub(crate) depth: u64,
    pub(crate) flops: f64,
    pub(crate) seed: u64,
}

/// The binary beside this example, which `cargo xtask judge` has built.
pub(crate) fn binary() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|why| why.to_string())?;
    let release = own.parent().and_then(Path::parent).ok_or("the example lies in no target folder")?;
    let binary = release.join(format!("pawl{}", std::env::consts::EXE_SUFFIX));
    if !binary.exists() {
        return Err(format!("{} is not built: cargo build --release", binary.display()));
    }
    Ok(binary)
}

/// Starts the campaign or goes on with it, and returns what it has come to, finished or not; nothing where the
/// time was up before it began.
pub(crate) fn campaign(asked: &Asked<'_>, how: &How) -> Result<Option<CampaignRecords>, String> {
    let binary = binary()?;
    let folder = folder(asked)?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|why| format!("{}: {why}", path.display()))?;
        Ok::<PathBuf, String>(path)
    };
    std::fs::create_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let recipe = write("recipe.star", asked.recipe)?;
    let script = write("script", &(asked.script.join("\n") + "\n"))?;
    let lab = lab(asked)?;
    if ended(&lab)? {
        return records(&lab).map(Some);
    }
    if how.left().is_zero() {
        return read_campaign(&lab).map_err(|error| error.to_string());
    }
    let mut command = Command::new(binary);
    command.arg("research").arg("--recipe").arg(recipe).arg("--script").arg(script);
    command.args(["--depth", &asked.depth.to_string(), "--flops", &format!("{:e}", asked.flops)]);
    command.args(["--seed", &asked.seed.to_string(), "--workers", &how.workers.to_string()]);
    // Every proposal of the script is tried: what stops the campaign is that none is left.
    command.args(["--rungs", "1", "--trials", "100000", "--json", "--lab"]).arg(&lab);
    let log = folder.join("log");
    let told = std::fs::File::create(&log).map_err(|why| format!("{}: {why}", log.display()))?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(told).spawn();
    let mut child = child.map_err(|why| format!("pawl research cannot be started: {why}"))?;
    let status = wait(&mut child, how.left())?;
    if !status.success() {
        return Err(format!("pawl research in {} failed: see {}", lab.display(), log.display()));
    }
    records(&lab).map(Some)
}

/// Where the campaign lies.
pub(crate) fn lab(asked: &Asked<'_>) -> Result<PathBuf, String> {
    Ok(folder(asked)?.join("lab"))
}

fn folder(asked: &Asked<'_>) -> Result<PathBuf, String> {
    let binary = binary()?;
    let target = binary.parent().and_then(Path::parent).ok_or("the binary lies in no target folder")?;
    Ok(target.join("judge").join(&asked.name))
}

fn records(lab: &Path) -> Result<CampaignRecords, String> {
    let records = read_campaign(lab).map_err(|error| error.to_string())?;
    records.ok_or_else(|| format!("{} holds no campaign", lab.display()))
}

fn ended(lab: &Path) -> Result<bool, String> {
    Ok(lab.join("campaign/end.json").exists() && is_over(&records(lab)?))
}

/// Whether every proposal of the script was settled.
pub(crate) fn is_over(records: &CampaignRecords) -> bool {
    records.end.as_ref().is_some_and(|end: &CampaignEnd| end.reason == EndReason::Exhausted)
}

/// Lets the campaign work for so long, then asks it to stop as Ctrl-C does.
fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus, String> {
    let (start, mut asked) = (Instant::now(), false);
    loop {
        if let Some(status) = child.try_wait().map_err(|why| why.to_string())? {
            return Ok(status);
        }
        if start.elapsed() > limit + GRACE {
            child.kill().map_err(|why| why.to_string())?;
        } else if start.elapsed() > limit && !asked {
            asked = true;
            let stopped = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
            stopped.map_err(|why| format!("kill cannot be started: {why}"))?;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The verdict on a line of the script: the proposal that turned `setting` to `to`.
pub(crate) fn verdict_on<'a>(
    records: &'a CampaignRecords,
    setting: &str,
    to: &str,
) -> Option<(&'a Proposal, &'a Verdict)> {
    let turns = |proposal: &&Proposal| {
        proposal.changes.iter().any(|change| change.setting == setting && change.to.to_string() == to)
    };
    let proposal = records.proposals.iter().find(turns)?;
    Some((proposal, records.verdict(proposal.number)?))
}

/// `keep  4 pairs  -0.0312 +- 0.0049`
pub(crate) fn shown(verdict: &Verdict) -> String {
    let word = match &verdict.decision {
        Decision::Skipped(reason) => format!("skipped: {reason}"),
        Decision::Failed(reason) => format!("failed: {reason}"),
        other @ (Decision::Keep | Decision::Reject(_) | Decision::Undecided(_)) => other.word().to_string(),
    };
    match &verdict.evidence {
        Some(it) => {
            format!("{word:<9} {:>2} pairs  {:+.4} +- {:.4}", verdict.pairs.len(), -it.mean, it.half_width)
        }
        None => word,
    }
}
