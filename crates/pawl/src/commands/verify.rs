//! `pawl verify`: every verdict of the lab again, from the files of its runs.

use crate::args;
use crate::errors::Failure;
use crate::lab::{from_ledger, ledger};
use crate::output::Answer;
use pawl_research::verify::verify;
use serde_json::json;
use std::fmt::Write as _;

pub(crate) fn run(args: args::Verify) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let verified = verify(lab, &ledger(lab)?).map_err(from_ledger)?;
    let mut text = String::new();
    for difference in &verified.differences {
        writeln!(text, "{}: {}", difference.place, difference.what).expect("a string takes every write");
    }
    let count = verified.differences.len();
    let last = if count == 0 { "nothing differs".to_string() } else { format!("{count} differences") };
    writeln!(text, "verified: {} verdicts from {} runs, {last}", verified.verdicts, verified.runs)
        .expect("a string takes every write");
    Ok(Answer::of(count == 0, text, json!({ "verified": verified })))
}
