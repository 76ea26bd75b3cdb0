//! `pawl verify`: every verdict of the lab again, from the files of its runs, and the data they were trained on.

use crate::args;
use crate::errors::Failure;
use crate::lab::{data_folder, from_data, from_ledger, ledger};
use crate::output::{Answer, narrate};
use crate::recipes::check;
use crate::rescore::rescore;
use pawl_ledger::read_campaign;
use pawl_record::DataRef;
use pawl_research::verify::{Difference, verify};
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

pub(crate) fn run(args: args::Verify) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let mut verified = verify(lab, &ledger(lab)?, &check).map_err(from_ledger)?;
    let records = read_campaign(lab).map_err(from_ledger)?.expect("a campaign was verified");
    verified.differences.extend(data(lab, &records.manifest.data)?);
    let mut rescored = None;
    if args.rescore {
        let (scored, differences) = rescore(lab, &records);
        verified.differences.extend(differences);
        rescored = Some(scored);
    }
    let mut text = String::new();
    for difference in &verified.differences {
        writeln!(text, "{}: {}", difference.place, difference.what).expect("a string takes every write");
    }
    let count = verified.differences.len();
    let again = rescored.map_or_else(String::new, |runs| format!(", {runs} scored again"));
    let last = if count == 0 { "nothing differs".to_string() } else { format!("{count} differences") };
    writeln!(text, "verified: {} verdicts from {} runs{again}, {last}", verified.verdicts, verified.runs)
        .expect("a string takes every write");
    Ok(Answer::of(count == 0, text, json!({ "verified": verified, "rescored": rescored })))
}

/// The data set of the campaign, where the lab still has it: the same, and byte for byte what it says.
fn data(lab: &Path, asked: &DataRef) -> Result<Vec<Difference>, Failure> {
    let folder = data_folder(lab, &asked.name);
    if !folder.exists() {
        narrate(&format!("the data set {} is no longer in the lab: it is not checked", asked.name));
        return Ok(Vec::new());
    }
    let dataset = pawl_data::Dataset::open(&folder).map_err(from_data)?;
    let mut differences = Vec::new();
    let mut differs = |place: String, what: String| differences.push(Difference { place, what });
    if dataset.manifest().hash != asked.hash {
        differs(format!("data {}", asked.name), "it is not the data set that the campaign was run on".into());
    }
    for found in pawl_data::check_files(&folder).map_err(from_data)? {
        differs(format!("data {}: {}", asked.name, found.place), found.what);
    }
    Ok(differences)
}
