//! `judge cheats`: what has been done to loops and leaderboards of this field, done to pawl. Every cheat must be
//! caught and named by what catches it; every honest look-alike must pass.
//!
//! A case is a row: what it is called, where it comes from, who must catch it, the words that must name it, and how
//! it is planted. Recipes are compiled as a campaign compiles proposals, labs and data sets go through the built
//! binary.

mod bench;
mod data;
mod host;
mod labs;
mod recipes;

pub(crate) use bench::Bench;

/// Who must catch a cheat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Catcher {
    /// The compiler of proposals, before a step is run.
    Compiler,
    /// `pawl data add` and `pawl data check`.
    Data,
    /// Whoever trains, scores and pays: the trial's process and the campaign that started it.
    Host,
    /// `pawl verify`.
    Verify,
}

impl Catcher {
    fn name(self) -> &'static str {
        match self {
            Catcher::Compiler => "compiler",
            Catcher::Data => "data",
            Catcher::Host => "trial host",
            Catcher::Verify => "verify",
        }
    }
}

/// What became of a planted thing.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Whether it was refused or named.
    pub(crate) caught: bool,
    /// What was said.
    pub(crate) said: String,
}

/// How a case is planted and what comes of it.
type Plant = Box<dyn Fn(&Bench) -> Result<Outcome, String> + Send + Sync>;

/// One row of the table.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The incident or the family of incidents.
    pub(crate) from: &'static str,
    pub(crate) catcher: Catcher,
    /// Words that name it; an honest case has none and must not be caught.
    pub(crate) words: &'static [&'static str],
    pub(crate) honest: bool,
    pub(crate) plant: Plant,
}

/// Every case there is.
pub(crate) fn cases() -> Vec<Case> {
    [recipes::cases(), data::cases(), host::cases(), labs::cases()].into_iter().flatten().collect()
}

/// A case that went wrong, in a line; none when it went right.
pub(crate) fn wrong(case: &Case, outcome: &Result<Outcome, String>) -> Option<String> {
    let first_lines = |said: &str| said.lines().take(6).collect::<Vec<_>>().join(" / ");
    match outcome {
        Err(why) => Some(format!("{}: it could not be planted: {why}", case.name)),
        Ok(Outcome { caught: true, said }) if case.honest => {
            Some(format!("{}: honest, and flagged: {}", case.name, first_lines(said)))
        }
        Ok(Outcome { caught: false, said }) if !case.honest => {
            Some(format!("{}: NOT CAUGHT: {}", case.name, first_lines(said)))
        }
        Ok(Outcome { said, .. }) => {
            let missing = case.words.iter().find(|word| !said.contains(**word))?;
            Some(format!("{}: `{missing}` does not name it in: {}", case.name, first_lines(said)))
        }
    }
}

/// Plants every case and prints the table; false when anything went wrong.
pub(crate) fn run(bench: &Bench) -> bool {
    let cases = cases();
    let outcomes = super::parallel::in_parallel(cases.len() as u64, |at| (cases[at as usize].plant)(bench));
    let mut problems = Vec::new();
    println!("{:<10} {:<58} {:<58} said", "caught by", "cheat", "from");
    for (case, outcome) in cases.iter().zip(&outcomes) {
        let line = outcome.as_ref().map_or_else(Clone::clone, |it| naming(case, &it.said));
        let by = if case.honest { "-" } else { case.catcher.name() };
        println!("{by:<10} {:<58} {:<58} {line}", case.name, case.from);
        problems.extend(wrong(case, outcome));
    }
    let honest = cases.iter().filter(|case| case.honest).count();
    let count = |catcher| cases.iter().filter(|case| !case.honest && case.catcher == catcher).count();
    let by = [Catcher::Compiler, Catcher::Data, Catcher::Host, Catcher::Verify];
    let by = by.map(|catcher| format!("{} {}", catcher.name(), count(catcher))).join(", ");
    println!("\n{} cheats ({by}), {honest} honest controls", cases.len() - honest);
    for problem in &problems {
        println!("WRONG {problem}");
    }
    println!("{}", if problems.is_empty() { "each cheat was named, no honest one was flagged" } else { "" });
    problems.is_empty()
}

/// The line that names the cheat.
fn naming(case: &Case, said: &str) -> String {
    let Some(word) = case.words.first() else { return "passes".to_string() };
    let line = said.lines().find(|line| line.contains(word)).or(said.lines().next()).unwrap_or_default();
    line.trim().chars().take(150).collect()
}
