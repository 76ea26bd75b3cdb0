//! Environments: problems that a program makes and judges. A problem belongs to one split by the hash of what makes it
//! this problem, so training, validation and test cannot share one; the order of numbers to sort, or of terms to add,
//! does not make another problem. The same (split, seed, index, difficulty) is the same problem everywhere.

mod code;
mod draws;
mod external;
mod file;
mod math;
#[cfg(target_os = "linux")]
mod python;
mod reasoning;
mod stack;

pub use draws::Draws;
pub use external::External;
#[cfg(target_os = "linux")]
pub(crate) use file::final_number;
#[cfg(target_os = "linux")]
pub(crate) use python::{all_same, divide, program};
pub use stack::{Fault, Program};

use std::path::{Path, PathBuf};

/// What a problem is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemSplit {
    /// To learn from: eight tenths.
    Train,
    /// To choose a checkpoint by: a tenth.
    Validation,
    /// To report: a tenth.
    Test,
}

impl ProblemSplit {
    /// The word in records and in the protocol of external environments.
    pub fn name(self) -> &'static str {
        match self {
            ProblemSplit::Train => "train",
            ProblemSplit::Validation => "validation",
            ProblemSplit::Test => "test",
        }
    }

    /// The split of the problem that `key` stands for.
    pub fn of(key: &str) -> ProblemSplit {
        let hash = blake3::hash(key.as_bytes());
        match u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes")) % 10 {
            8 => ProblemSplit::Validation,
            9 => ProblemSplit::Test,
            _ => ProblemSplit::Train,
        }
    }
}

/// Something to solve.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What makes it this problem: decides its split.
    pub key: String,
    /// What is asked.
    pub prompt: String,
    /// An answer that is right, where one is known.
    pub demonstration: Option<String>,
    judge: Judge,
}

/// How an answer is judged.
#[derive(Clone, Debug, PartialEq)]
enum Judge {
    /// Its last word is this.
    LastWord(String),
    /// It is this, spaces aside.
    Words(String),
    /// An expression of some of these numbers, each used at most once, that has this value.
    Expression { numbers: Vec<i64>, target: i64 },
    /// A program that gives these values, which the prompt shows only in part.
    Program { cases: Vec<(i64, i64)> },
    /// Its last number is this.
    LastNumber(String),
    /// A Python program in whose scope each call has its value.
    #[cfg(target_os = "linux")]
    Python { setup: String, calls: Vec<String>, expected: Vec<serde_json::Value> },
    /// Another process knows.
    External(serde_json::Value),
}

/// No problem, or no verdict.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// There is no such environment.
    #[error("there is no environment {name}")]
    Unknown {
        /// As given.
        name: String,
    },
    /// So easy that a split has no problem.
    #[error("{name} at difficulty {difficulty} has no problem to {split} on")]
    Exhausted {
        /// Environment.
        name: String,
        /// As asked.
        difficulty: u32,
        /// Name of the split.
        split: &'static str,
    },
    /// A file of problems cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of a file of problems is none.
    #[error("{path}, line {line}: {because}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        because: String,
    },
    /// The sandbox of programs.
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::SandboxError),
    /// The process of an external environment did not answer as agreed.
    #[error("the environment `{command}` {because}")]
    Process {
        /// As given.
        command: String,
        /// What it did.
        because: String,
    },
}

/// The built-in environments: name and what is asked.
pub const BUILTIN: [(&str, &str); 7] = [
    ("sum", "add and subtract a chain of numbers, with running totals"),
    ("countdown", "make a number of some others"),
    ("linear", "solve a x + b = c"),
    ("sort", "sort numbers"),
    ("edit", "reverse, rotate, double or thin out letters"),
    ("order", "put people in order by who stands before whom"),
    ("program", "write a program for a stack machine from examples; hidden tests judge it"),
];

/// A source of problems.
pub struct Environment {
    name: String,
    kind: Kind,
}

enum Kind {
    Sum,
    Countdown,
    Linear,
    Sort,
    Edit,
    Order,
    Program,
    /// Problems of a file.
    File(Vec<Problem>),
    External(External),
    /// Python problems of a file, judged in a sandbox.
    #[cfg(target_os = "linux")]
    Python(Vec<Problem>, crate::sandbox::Sandbox),
}

/// Draws before a split is said to have no problem.
const MAX_ATTEMPTS: u64 = 10_000;

impl Environment {
    /// `sum` and the like, `gsm8k:FILE`, or `command:PROGRAM ARGUMENTS`.
    pub fn open(name: &str) -> Result<Environment, EnvError> {
        let kind = match (name, name.split_once(':')) {
            ("sum", _) => Kind::Sum,
            ("countdown", _) => Kind::Countdown,
            ("linear", _) => Kind::Linear,
            ("sort", _) => Kind::Sort,
            ("edit", _) => Kind::Edit,
            ("order", _) => Kind::Order,
            ("program", _) => Kind::Program,
            (_, Some(("gsm8k", path))) => Kind::File(file::gsm8k(Path::new(path))?),
            (_, Some(("command", command))) => Kind::External(External::start(command)?),
            _ => return Err(EnvError::Unknown { name: name.to_string() }),
        };
        Ok(Environment { name: name.to_string(), kind })
    }

    /// Python problems of a file in the form of MBPP, whose programs run in `sandbox`.
    #[cfg(target_os = "linux")]
    pub fn mbpp(path: &Path, sandbox: crate::sandbox::Sandbox) -> Result<Environment, EnvError> {
        let problems = python::mbpp(path, &sandbox)?;
        Ok(Environment { name: format!("mbpp:{}", path.display()), kind: Kind::Python(problems, sandbox) })
    }

    /// As it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Problem `idx` of a split. Problems may repeat.
    pub fn problem(
        &mut self,
        split: ProblemSplit,
        seed: u64,
        idx: u64,
        difficulty: u32,
    ) -> Result<Problem, EnvError> {
        let exhausted =
            |name: &str| EnvError::Exhausted { name: name.to_string(), difficulty, split: split.name() };
        for attempt in 0..MAX_ATTEMPTS {
            let mut draws =
                Draws::new(&[&self.name, split.name()], &[seed, idx, attempt, u64::from(difficulty)]);
            let problem = match &mut self.kind {
                Kind::Sum => math::sum(&mut draws, difficulty),
                Kind::Countdown => math::countdown(&mut draws, difficulty),
                Kind::Linear => math::linear(&mut draws, difficulty),
                Kind::Sort => reasoning::sort(&mut draws, difficulty),
                Kind::Edit => reasoning::edit(&mut draws, difficulty),
                Kind::Order => reasoning::order(&mut draws, difficulty),
                Kind::Program => code::program(&mut draws, difficulty),
                Kind::File(problems) => problems[draws.below(problems.len() as u64) as usize].clone(),
                #[cfg(target_os = "linux")]
                Kind::Python(problems, _) => problems[draws.below(problems.len() as u64) as usize].clone(),
                Kind::External(external) => return external.problem(split, seed, idx, difficulty),
            };
            if ProblemSplit::of(&problem.key) == split {
                return Ok(problem);
            }
        }
        Err(exhausted(&self.name))
    }

    /// Up to `count` different problems of a split, those that `seed` gives first.
    pub fn distinct(
        &mut self,
        split: ProblemSplit,
        seed: u64,
        count: usize,
        difficulty: u32,
    ) -> Result<Vec<Problem>, EnvError> {
        let mut problems: Vec<Problem> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for idx in 0..8 * count as u64 {
            if problems.len() == count {
                break;
            }
            let problem = self.problem(split, seed, idx, difficulty)?;
            if seen.insert(problem.key.clone()) {
                problems.push(problem);
            }
        }
        Ok(problems)
    }

    /// 0 to 1: what an answer is worth.
    pub fn reward(&mut self, problem: &Problem, answer: &str) -> Result<f64, EnvError> {
        let right = match &problem.judge {
            Judge::LastWord(word) => answer.split_whitespace().next_back() == Some(word),
            Judge::Words(words) => answer.split_whitespace().eq(words.split_whitespace()),
            Judge::Expression { numbers, target } => math::makes(answer, numbers, *target),
            Judge::Program { cases } => code::solves(answer, cases),
            #[cfg(target_os = "linux")]
            Judge::Python { setup, calls, expected } => {
                let Kind::Python(_, sandbox) = &self.kind else {
                    unreachable!("only an environment with a sandbox gives such a problem")
                };
                python::solves(sandbox, answer, setup, calls, expected)?
            }
            Judge::LastNumber(number) => file::last_number(answer).as_deref() == Some(number),
            Judge::External(value) => {
                let Kind::External(external) = &mut self.kind else {
                    unreachable!("only an external environment gives such a problem")
                };
                return external.reward(value, answer);
            }
        };
        Ok(f64::from(u8::from(right)))
    }
}
