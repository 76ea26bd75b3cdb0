//! Two training processes of one thread each at the same time, against one: what trials of a campaign leave each
//! other of caches and memory.

use super::steps::Stepper;
use super::{How, median, word};
use crate::errors::Failure;
use crate::output::{Align, Answer, Block, Table, count};
use crate::recipes::{RecipeText, compile, from_recipe};
use pawl_engine::Precision;
use pawl_recipe::Overrides;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

/// What campaigns start from.
const RECIPE: &str = "tiny";
/// Settings of a quick measurement.
const QUICK_SETTINGS: [&str; 4] = ["--depth", "1", "--set", "tokens_per_step=1024"];
/// Rounds of one alone, both, the other alone.
const ROUNDS: usize = 4;
const QUICK_ROUNDS: usize = 1;
/// Seconds of steps for each answer of a process.
const WINDOW: f64 = 0.6;
const QUICK_WINDOW: f64 = 0.02;

/// Tokens/s by round.
pub(super) struct Pair {
    precision: Precision,
    rounds: Vec<Round>,
}

struct Round {
    /// Each process while the other waits.
    alone: [f64; 2],
    /// Each while the other works too.
    together: [f64; 2],
}

pub(super) fn measure(how: &How<'_>, precision: Precision) -> Result<Pair, Failure> {
    how.status.show(format!("two processes of {RECIPE} in {}", word(precision)));
    let mut first = Process::start(how, precision)?;
    let mut second = Process::start(how, precision)?;
    // The first window of each is not counted: it waits for the model to be built.
    first.window()?;
    second.window()?;
    let mut rounds = Vec::new();
    for _ in 0..if how.quick { QUICK_ROUNDS } else { ROUNDS } {
        let before = first.window()?;
        first.ask()?;
        second.ask()?;
        let together = [first.answer()?, second.answer()?];
        rounds.push(Round { alone: [before, second.window()?], together });
    }
    first.end()?;
    second.end()?;
    Ok(Pair { precision, rounds })
}

/// A process that times steps when it is asked to.
struct Process {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn start(how: &How<'_>, precision: Precision) -> Result<Process, Failure> {
        let pawl =
            std::env::current_exe().map_err(|why| Failure::new("pawl cannot find itself").caused_by(&why))?;
        let mut command = Command::new(pawl);
        for variable in pawl_research::child::KEY_VARIABLES {
            command.env_remove(variable);
        }
        command.args(["bench", RECIPE, "--beside", "--threads", "1", "--precision", word(precision)]);
        if how.quick {
            command.arg("--quick").args(QUICK_SETTINGS);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|why| Failure::new("a second pawl cannot be started").caused_by(&why))?;
        let questions = child.stdin.take().expect("stdin was piped");
        let answers = BufReader::new(child.stdout.take().expect("stdout was piped"));
        Ok(Process { child, questions, answers })
    }

    fn ask(&mut self) -> Result<(), Failure> {
        writeln!(self.questions).map_err(|why| lost().caused_by(&why))
    }

    /// Tokens/s of the window that was asked for.
    fn answer(&mut self) -> Result<f64, Failure> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|why| lost().caused_by(&why))?;
        line.trim().parse().map_err(|_| lost().because(format!("it answered {line:?}, not a number")))
    }

    fn window(&mut self) -> Result<f64, Failure> {
        self.ask()?;
        self.answer()
    }

    /// Without further questions it ends.
    fn end(self) -> Result<(), Failure> {
        let Process { mut child, questions, answers } = self;
        drop((questions, answers));
        child.wait().map(|_| ()).map_err(|why| lost().caused_by(&why))
    }
}

fn lost() -> Failure {
    Failure::new("a process side by side with another was lost")
}

/// The other end of [`Process`].
pub(super) fn serve(how: &How<'_>, text: &RecipeText, overrides: &Overrides) -> Result<Answer, Failure> {
    let recipe = compile(text, overrides).map_err(|error| from_recipe(&text.name, error))?;
    let tokens_per_step = recipe.tokens_per_step() as f64;
    let mut stepper = Stepper::new(recipe, how.num_threads, how.precisions[0])?;
    stepper.step();
    let window = if how.quick { QUICK_WINDOW } else { WINDOW };
    let mut stdout = std::io::stdout().lock();
    for question in std::io::stdin().lock().lines() {
        question.map_err(|why| Failure::new("stdin cannot be read").caused_by(&why))?;
        let begun = Instant::now();
        let mut seconds = vec![stepper.step().0];
        while begun.elapsed().as_secs_f64() < window {
            seconds.push(stepper.step().0);
        }
        seconds.sort_by(f64::total_cmp);
        writeln!(stdout, "{}", tokens_per_step / median(&seconds))
            .and_then(|()| stdout.flush())
            .map_err(|why| Failure::new("stdout cannot be written").caused_by(&why))?;
    }
    Ok(Answer::new(String::new(), json!({})))
}

impl Pair {
    /// The median over rounds.
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let mut numbers: Vec<f64> = self.rounds.iter().map(of).collect();
        numbers.sort_by(f64::total_cmp);
        median(&numbers)
    }

    fn alone(&self) -> f64 {
        self.median(Round::alone)
    }

    fn together(&self) -> f64 {
        self.median(Round::together)
    }

    fn ratio(&self) -> f64 {
        self.median(|round| round.together() / round.alone())
    }

    pub(super) fn summary(&self, block: &mut Block) {
        let key = format!("two of {RECIPE} side by side {}", word(self.precision));
        block.line(&key, format!("{:.2} times one", self.ratio()));
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "recipe": RECIPE,
            "precision": word(self.precision),
            "alone_tokens_per_sec": self.alone(),
            "together_tokens_per_sec": self.together(),
            "ratio": self.ratio(),
            "rounds": self.rounds.iter().map(|round| json!({
                "alone_tokens_per_sec": round.alone,
                "together_tokens_per_sec": round.together,
            })).collect::<Vec<_>>(),
        })
    }
}

impl Round {
    /// Of one process.
    fn alone(&self) -> f64 {
        f64::midpoint(self.alone[0], self.alone[1])
    }

    /// Of both processes.
    fn together(&self) -> f64 {
        self.together[0] + self.together[1]
    }
}

pub(super) fn table(pairs: &[Pair]) -> String {
    let mut table = Table::new(&[
        ("side by side", Align::Left),
        ("", Align::Left),
        ("one alone tokens/s", Align::Right),
        ("two together", Align::Right),
        ("ratio", Align::Right),
        ("worst", Align::Right),
        ("best", Align::Right),
    ]);
    for pair in pairs {
        let ratios = pair.rounds.iter().map(|round| round.together() / round.alone());
        let (worst, best) = ratios.fold((f64::INFINITY, 0.0_f64), |(low, high), x| (low.min(x), high.max(x)));
        table.row(vec![
            format!("{RECIPE}, 1 thread each"),
            word(pair.precision).to_string(),
            count(pair.alone()),
            count(pair.together()),
            format!("{:.2}", pair.ratio()),
            format!("{worst:.2}"),
            format!("{best:.2}"),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_both_over_one() {
        let round = |alone, together| Round { alone, together };
        let rounds = vec![
            round([100.0, 120.0], [99.0, 110.0]),
            round([100.0, 100.0], [100.0, 100.0]),
            round([50.0, 50.0], [20.0, 20.0]),
        ];
        let pair = Pair { precision: Precision::F32, rounds };
        assert_eq!((pair.alone(), pair.together()), (100.0, 200.0));
        assert_eq!(pair.ratio(), 1.9);
    }
}
