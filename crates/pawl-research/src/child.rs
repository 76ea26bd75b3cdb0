//! Trials as child processes of the binary: a crash, an out-of-memory or a runaway costs one trial.
//!
//! Content addressing makes a finished run free: the child finds it in `lab/runs` and prints its result.

use crate::world::{Checked, Score, Trial, TrialError, World};
use pawl_record::{RunManifest, RunResult, RunStatus, Settings, from_json};
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Compiles a recipe file at a depth under settings.
pub type Check<'a> = dyn Fn(&Path, u64, &Settings) -> Result<Checked, String> + Sync + 'a;

/// Variables of the environment that hold keys: no child is handed one.
pub use pawl_record::KEY_VARIABLES;

/// The world in which trials are `pawl train` processes with one thread each.
pub struct ChildWorld<'a> {
    /// The binary.
    pub executable: PathBuf,
    /// The lab.
    pub lab: PathBuf,
    /// Name of the data set in the lab.
    pub data: String,
    /// The compiler.
    pub check: &'a Check<'a>,
    /// Becomes true when the user asks to stop.
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
    /// The moment that [`World::seconds`] counts from.
    pub start: Instant,
}

/// What `pawl train --json` prints.
#[derive(Deserialize)]
struct Printed {
    run: RunManifest,
    result: RunResult,
}

/// How often a child is looked at: short against a trial, long against a system call.
const POLL: Duration = Duration::from_millis(20);

/// Time that an interrupted child gets to finish its write.
const GRACE: Duration = Duration::from_secs(5);

impl World for ChildWorld<'_> {
    fn check(&self, recipe: &Path, depth: u64, settings: &Settings) -> Result<Checked, String> {
        (self.check)(recipe, depth, settings)
    }

    fn run(&self, trial: &Trial) -> Result<Score, TrialError> {
        let mut child = self
            .command(trial)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| TrialError::Failed(format!("{}: {error}", self.executable.display())))?;
        // Both pipes are drained by threads: a child that fills one would wait forever.
        let stdout = drain(child.stdout.take().expect("stdout is piped"));
        let stderr = drain(child.stderr.take().expect("stderr is piped"));
        let ended = self.wait(&mut child, trial.limit_s);
        let (stdout, stderr) = (
            stdout.join().expect("a reader does not panic"),
            stderr.join().expect("a reader does not panic"),
        );
        if !ended?.success() {
            return Err(TrialError::Failed(last_lines(&stderr)));
        }
        let printed: Printed = from_json(stdout.as_bytes())
            .map_err(|error| TrialError::Failed(format!("the trial printed no result: {error}")))?;
        Ok(score(printed))
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn unix_s(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn interrupted(&self) -> bool {
        (self.interrupted)()
    }
}

impl ChildWorld<'_> {
    fn command(&self, trial: &Trial) -> Command {
        let mut command = Command::new(&self.executable);
        for variable in KEY_VARIABLES {
            command.env_remove(variable);
        }
        command.arg("train").arg(&trial.recipe);
        command.args(["--depth", &trial.depth.to_string()]);
        for (name, value) in &trial.settings {
            command.args(["--set", &format!("{name}={value}")]);
        }
        command.args(["--flops", &format!("{:e}", trial.flops), "--seed", &trial.seed.to_string()]);
        command.args(["--precision", trial.precision.name()]);
        if let Some(init_seed) = trial.init_seed {
            command.args(["--init-seed", &init_seed.to_string()]);
        }
        if trial.seal {
            command.arg("--seal");
        }
        if !trial.keep {
            command.arg("--score-only");
        }
        command.args(["--threads", "1", "--data", &self.data, "--json", "--lab"]).arg(&self.lab);
        command
    }

    fn wait(&self, child: &mut Child, limit_s: Option<f64>) -> Result<std::process::ExitStatus, TrialError> {
        let start = Instant::now();
        let mut asked_to_stop: Option<Instant> = None;
        loop {
            let ended = child.try_wait().map_err(|error| TrialError::Failed(error.to_string()))?;
            if let Some(status) = ended {
                // A child in the terminal's group gets Ctrl-C too and may end before we look.
                let stopped = !status.success() && self.interrupted();
                return if stopped { Err(TrialError::Interrupted) } else { Ok(status) };
            }
            if self.interrupted() {
                let since = *asked_to_stop.get_or_insert_with(Instant::now);
                if since.elapsed() > GRACE {
                    end(child);
                    return Err(TrialError::Interrupted);
                }
            }
            if limit_s.is_some_and(|limit| start.elapsed().as_secs_f64() > limit) {
                end(child);
                return Err(TrialError::Failed(format!(
                    "given up after {:.0} s",
                    start.elapsed().as_secs_f64()
                )));
            }
            std::thread::sleep(POLL);
        }
    }
}

fn end(child: &mut Child) {
    // Either fails only if the child has ended by itself, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

fn drain(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still the best account of the child there is.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The end of what a failed child said: enough for its error, because, hint.
fn last_lines(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let from =
        lines.iter().rposition(|line| line.starts_with("error")).unwrap_or(lines.len().saturating_sub(3));
    match lines.get(from..) {
        Some(said) if !said.is_empty() => said.join(" "),
        _ => "the trial ended without a word".to_string(),
    }
}

fn score(printed: Printed) -> Score {
    let Printed { run, result } = printed;
    let finished = match result.status {
        RunStatus::Finished => result.val_bpb.filter(|bpb| bpb.is_finite()),
        RunStatus::Diverged => None,
    };
    Score {
        run: run.id,
        val_bpb: finished,
        sealed_bpb: result.sealed_bpb,
        reason: result.reason,
        flops: result.flops,
        train_seconds: result.train_seconds,
        total_seconds: result.total_seconds,
        tokens_per_sec: result.tokens_per_sec,
    }
}
