//! Programs for the stack machine, from examples of what they give. Tests that the prompt does not show judge them.

use super::{Draws, Judge, Problem, Program};

/// Arguments that the prompt shows the values of.
const SHOWN: [i64; 3] = [0, 1, 2];
/// Arguments of the hidden tests: a table of the shown values is no program.
const HIDDEN: [i64; 6] = [3, 4, 7, 10, -1, -6];

/// `f 0 = 2, f 1 = 5, f 2 = 8`, answered by `x 3 * 2 +`. Lines, with larger coefficients the more difficult; from 3 on
/// squares too.
pub(super) fn program(draws: &mut Draws, difficulty: u32) -> Problem {
    let most = 10 * i64::from(difficulty.clamp(1, 20)) + 9;
    let (a, b) = (draws.within(1, most), draws.within(-most, most));
    let square = if difficulty >= 3 && draws.below(2) == 0 { "x dup *" } else { "x" };
    let text = match b.signum() {
        1 => format!("{square} {a} * {b} +"),
        0 => format!("{square} {a} *"),
        _ => format!("{square} {a} * {} -", -b),
    };
    let read = Program::read(&text).expect("a program of the machine's words");
    let value = |x: i64| (x, read.run(x).expect("small numbers"));
    let shown: Vec<String> = SHOWN.iter().map(|x| format!("f {x} = {}", value(*x).1)).collect();
    Problem {
        key: format!("program {:?}", SHOWN.iter().chain(&HIDDEN).map(|x| value(*x)).collect::<Vec<_>>()),
        prompt: shown.join(", "),
        demonstration: Some(text),
        judge: Judge::Program { cases: HIDDEN.iter().map(|x| value(*x)).collect() },
    }
}

/// Whether a program gives every value.
pub(super) fn solves(text: &str, cases: &[(i64, i64)]) -> bool {
    let Ok(program) = Program::read(text) else { return false };
    cases.iter().all(|(x, value)| program.run(*x) == Ok(*value))
}
