//! `pawl report`: the lab's campaign as Markdown and as one self-contained page.

use crate::args;
use crate::campaign;
use crate::errors::Failure;
use crate::lab::{from_ledger, ledger};
use crate::output::Answer;
use pawl_ledger::read_campaign;
use pawl_research::report::{Report, ReportError, ReportFiles, gather};
use serde_json::{Value, json};
use std::path::Path;

pub(crate) fn run(args: args::Report) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let (report, files) = write(lab)?;
    let mut text = String::new();
    if let Some(records) = read_campaign(lab).map_err(from_ledger)? {
        let mut block = campaign::block(&records);
        block.line("markdown", files.markdown.display()).line("page", files.html.display());
        text.push_str(block.text());
    }
    let report: Value = serde_json::to_value(&report)?;
    Ok(Answer::new(text, json!({ "report": report, "markdown": files.markdown, "page": files.html })))
}

/// Gathers and writes the report of a lab.
pub(crate) fn write(lab: &Path) -> Result<(Report, ReportFiles), Failure> {
    let ledger = ledger(lab)?;
    let report = gather(lab, &ledger).map_err(from_report)?;
    let files = pawl_research::report::write(lab, &report).map_err(from_report)?;
    Ok((report, files))
}

fn from_report(error: ReportError) -> Failure {
    let hint = error.hint();
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
