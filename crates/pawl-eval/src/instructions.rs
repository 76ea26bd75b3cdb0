//! Conversations made by rules, for a first lesson without a download: demonstrations of the built-in environments and
//! questions about the lab's own documentation. They come from training splits alone; the other splits of the
//! environments measure what was learnt.

use crate::env::{BUILTIN, Draws, EnvError, Environment, Problem, ProblemSplit};
use pawl_record::{Message, Role};

/// The table of commands and the promises, of which the questions are made.
const README: &str = include_str!("../../../README.md");

/// Difficulties that the instruction set mixes.
const DIFFICULTIES: u64 = 3;
/// Draws of a demonstration before the environment is said to have none.
const PATIENCE: u64 = 100;

fn exchange(question: impl Into<String>, answer: impl Into<String>) -> Vec<Message> {
    vec![Message::new(Role::User, question), Message::new(Role::Assistant, answer)]
}

/// `count` problems of an environment's training split with their demonstrations. Problems may repeat. A share `slips` of
/// the demonstrations is wrong, by a number that is a little off or two words that have changed places: what a careless
/// teacher gives.
pub fn demonstrations(
    env: &mut Environment,
    seed: u64,
    count: usize,
    difficulty: u32,
    slips: f64,
) -> Result<Vec<Vec<Message>>, EnvError> {
    let mut all = Vec::with_capacity(count);
    for idx in 0..count as u64 * PATIENCE {
        if all.len() == count {
            break;
        }
        let problem = env.problem(ProblemSplit::Train, seed, idx, difficulty)?;
        let mut draws = Draws::new(&["slip", env.name()], &[seed, idx, u64::from(difficulty)]);
        if let Some(right) = &problem.demonstration {
            let careless = draws.below(1 << 32) < (slips * (1u64 << 32) as f64) as u64;
            let answer = if careless { slip(env, &problem, right, &mut draws)? } else { right.clone() };
            all.push(exchange(problem.prompt, answer));
        }
    }
    if all.is_empty() && count > 0 {
        let because = "gives problems without demonstrations; a lesson needs them".to_string();
        return Err(EnvError::Process { command: env.name().to_string(), because });
    }
    Ok(all)
}

/// A wrong answer near a right one; the right one where none is found.
fn slip(
    env: &mut Environment,
    problem: &Problem,
    right: &str,
    draws: &mut Draws,
) -> Result<String, EnvError> {
    for _ in 0..PATIENCE {
        let mut words: Vec<String> = right.split(' ').map(str::to_string).collect();
        let at = draws.below(words.len() as u64) as usize;
        let number = words[at].parse::<i64>();
        match (number, draws.below(2)) {
            (Ok(number), 0) => words[at] = (number + *draws.one(&[-2, -1, 1, 2])).max(0).to_string(),
            (Ok(_) | Err(_), _) => words.swap(at, (at + 1) % right.split(' ').count()),
        }
        let wrong = words.join(" ");
        if env.reward(problem, &wrong)? < 1.0 {
            return Ok(wrong);
        }
    }
    Ok(right.to_string())
}

/// About `count` conversations: the environments in turn at several difficulties, and the documentation.
pub fn builtin_instructions(seed: u64, count: usize) -> Result<Vec<Vec<Message>>, EnvError> {
    let documents = documentation();
    let each = count.saturating_sub(documents.len()).div_ceil(BUILTIN.len() * DIFFICULTIES as usize);
    let mut all = Vec::new();
    for (name, _) in BUILTIN {
        let mut env = Environment::open(name)?;
        for difficulty in 1..=DIFFICULTIES {
            all.extend(demonstrations(&mut env, seed ^ difficulty, each, difficulty as u32, 0.0)?);
        }
    }
    all.extend(documents);
    Ok(all)
}

/// Each row of the README's table of commands as a question, both ways.
fn documentation() -> Vec<Vec<Message>> {
    let mut all = Vec::new();
    for row in README.lines().filter(|line| line.starts_with("| `pawl ")) {
        let mut cells = row.trim_matches('|').split(" | ");
        let (Some(command), Some(does)) = (cells.next(), cells.next()) else { continue };
        let (command, does) = (command.trim(), does.trim());
        all.push(exchange(format!("what does {command} do?"), does));
        all.push(exchange(format!("which command of pawl does this: {does}?"), command));
    }
    for (name, asks) in BUILTIN {
        all.push(exchange(format!("what does the environment {name} ask for?"), asks));
    }
    all
}
