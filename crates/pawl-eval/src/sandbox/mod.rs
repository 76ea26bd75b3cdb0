//! Programs that a model wrote, run where they can do no harm: Python in a process of its own that reaches no file but
//! Python's library, no network and no other process, under limits on time, memory, output and processes.
//!
//! A program is judged by values, here. The process gets calls and gives back what they returned, over a socket of its
//! own with a number that nobody else knows; what is right never enters it. Exit codes and printed text decide nothing.

mod lock;
mod probe;

pub use lock::{LockError, enter};
pub use probe::Python;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What the Python process runs first.
const HARNESS: &str = include_str!("harness.py");

/// What a program may use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds from start to end.
    pub seconds: f64,
    /// Bytes of address space.
    pub memory: u64,
    /// Bytes of printed text, and of the values it gives back.
    pub output: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { seconds: 5.0, memory: 512 << 20, output: 1 << 20 }
    }
}

/// How much of the sandbox must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Locks {
    /// All of it, or nothing is run.
    All,
    /// What the kernel has: the user has said so.
    Available,
    /// None: to see what a program does without.
    Off,
}

/// What the process is told before it locks itself in: everything that it needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The interpreter.
    pub python: Python,
    /// What a program may use.
    pub limits: Limits,
    /// How much of the sandbox must be there.
    pub locks: Locks,
}

/// Why a program was not run. That it failed is no error.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No interpreter.
    #[error("there is no Python to run programs with: {because}")]
    Python {
        /// What was tried.
        because: String,
    },
    /// The process cannot be started or talked to.
    #[error("the sandbox cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A part of the sandbox is missing.
    #[error("the sandbox is not whole: {because}")]
    Refused {
        /// Which part.
        because: String,
    },
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// For each call its value, or the kind of error that it raised.
    Values(Vec<Result<Value, String>>),
    /// It was not done in time.
    TimedOut,
    /// It printed, or gave back, more than it may.
    TooMuchOutput,
    /// It ended without an answer: killed by a limit, or by itself.
    NoAnswer,
}

/// A place to run programs.
pub struct Sandbox {
    /// The command that enters a [`Cell`], which is its last argument.
    worker: Vec<OsString>,
    cell: Cell,
}

impl Sandbox {
    /// `worker` is a command that hands its last argument to [`enter`]. A first program shows that it works.
    pub fn new(worker: Vec<OsString>, limits: Limits, locks: Locks) -> Result<Sandbox, SandboxError> {
        assert!(!worker.is_empty(), "a command has a program");
        let sandbox = Sandbox { worker, cell: Cell { python: Python::find()?, limits, locks } };
        match sandbox.run("import math", &["math.isqrt(49)".to_string()])? {
            Outcome::Values(values) if values == [Ok(json!(7))] => Ok(sandbox),
            outcome @ (Outcome::Values(_)
            | Outcome::TimedOut
            | Outcome::TooMuchOutput
            | Outcome::NoAnswer) => {
                Err(SandboxError::Refused { because: format!("a first program came to {outcome:?}") })
            }
        }
    }

    /// Runs a program, then evaluates each call in its scope.
    pub fn run(&self, program: &str, calls: &[String]) -> Result<Outcome, SandboxError> {
        let io = |action| move |source| SandboxError::Io { action, source };
        let (mut here, there) = UnixStream::pair().map_err(io("make a socket"))?;
        let cell = serde_json::to_string(&self.cell).expect("a cell has finite numbers");
        let mut child = Command::new(&self.worker[0])
            .args(&self.worker[1..])
            .arg(cell)
            .env_clear()
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(there)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io("be started"))?;
        let end = Instant::now() + Duration::from_secs_f64(self.cell.limits.seconds);
        let nonce = nonce();
        let job = json!({ "nonce": nonce, "program": program, "calls": calls });
        // A process that has refused does not listen; its refusal is read below.
        let _ = here.write_all(job.to_string().as_bytes());
        let _ = here.shutdown(std::net::Shutdown::Write);
        let outcome = self.wait(&mut child, here, end, &nonce, calls.len());
        // It may have ended already. Its processes are one group.
        let _ = child.kill();
        child.wait().map_err(io("end"))?;
        outcome
    }

    /// Reads what the process says until it has answered, is out of time, or says too much.
    fn wait(
        &self,
        child: &mut Child,
        here: UnixStream,
        end: Instant,
        nonce: &str,
        num_calls: usize,
    ) -> Result<Outcome, SandboxError> {
        let (send, events) = channel();
        let limit = self.cell.limits.output;
        let streams: [(bool, Box<dyn Read + Send>); 3] = [
            (true, Box::new(here)),
            (false, Box::new(child.stdout.take().expect("piped above"))),
            (false, Box::new(child.stderr.take().expect("piped above"))),
        ];
        for (is_answer, stream) in streams {
            let send = send.clone();
            // Ends with the process: its ends of the streams close.
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let read = stream.take(limit + 1).read_to_end(&mut bytes);
                // An answer that is cut off is none; whoever waited may have gone.
                let _ = send.send((is_answer, read.map_or(Vec::new(), |_| bytes)));
            });
        }
        drop(send);
        let outcome = listen(&events, end, limit, nonce, num_calls);
        match outcome {
            Ok(outcome) => Ok(outcome),
            Err(because) => Err(SandboxError::Refused { because }),
        }
    }
}

/// The first of: an answer, too much text, the end of time. The error is a refusal of the process.
fn listen(
    events: &Receiver<(bool, Vec<u8>)>,
    end: Instant,
    limit: u64,
    nonce: &str,
    num_calls: usize,
) -> Result<Outcome, String> {
    loop {
        match events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((_, bytes)) if bytes.len() as u64 > limit => return Ok(Outcome::TooMuchOutput),
            Ok((true, bytes)) => return answer(&bytes, nonce, num_calls),
            Ok((false, _)) => {}
            Err(RecvTimeoutError::Timeout) => return Ok(Outcome::TimedOut),
            Err(RecvTimeoutError::Disconnected) => return Ok(Outcome::NoAnswer),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    nonce: String,
    values: Vec<Value>,
}

fn answer(bytes: &[u8], nonce: &str, num_calls: usize) -> Result<Outcome, String> {
    // One of the two was said before there was a program, which cannot take it back.
    if let Some(because) = bytes.strip_prefix(REFUSED.as_bytes()) {
        return Err(String::from_utf8_lossy(because).into_owned());
    }
    let Some(bytes) = bytes.strip_prefix(LOCKED.as_bytes()) else { return Ok(Outcome::NoAnswer) };
    let Ok(Answer { nonce: given, values }) = pawl_record::from_json(bytes) else {
        return Ok(Outcome::NoAnswer);
    };
    if given != nonce || values.len() != num_calls {
        return Ok(Outcome::NoAnswer);
    }
    let value = |value: Value| match value.get("value") {
        Some(value) => Ok(value.clone()),
        None => Err(value.get("fault").and_then(Value::as_str).unwrap_or("no value").to_string()),
    };
    Ok(Outcome::Values(values.into_iter().map(value).collect()))
}

/// Begins what a process says that would not lock itself in.
const REFUSED: &str = "refused: ";
/// Said by a process that is locked in, before it becomes Python.
const LOCKED: &str = "locked\n";

/// A number that nobody can guess.
fn nonce() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = blake3::Hasher::new();
    let mut random = [0u8; 32];
    // Without the device the number is still new each time; it is no secret that the verdict rests on.
    if let Ok(mut device) = std::fs::File::open("/dev/urandom") {
        let _ = device.read_exact(&mut random);
    }
    hasher.update(&random).update(&COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    hasher.finalize().to_hex().to_string()
}

/// Files and folders that may be read.
pub(crate) type Paths = Vec<PathBuf>;
