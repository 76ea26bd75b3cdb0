//! Scores measured again, which no edit of a file survives: every run that decided something is trained again, in a
//! lab of its own. A checkpoint would not do: it can be exchanged together with what is said of it.

use crate::commands::train::score_again;
use crate::machine::describe;
use crate::output::narrate;
use pawl_ledger::{CampaignRecords, run_folder};
use pawl_record::{Decision, RunManifest, RunResult, read_json};
use pawl_research::verify::Difference;
use std::collections::BTreeSet;
use std::path::Path;

/// On another machine float32 sums have another order; a score moves by less than this, bits per byte.
const OTHER_MACHINE: f64 = 0.02;

/// How many runs were scored again, and what differed.
pub(crate) fn rescore(lab: &Path, records: &CampaignRecords) -> (u64, Vec<Difference>) {
    let mut scored = 0;
    let mut differences = Vec::new();
    for id in wanted(records) {
        let folder = run_folder(lab, &id);
        // What is missing or does not read was named before.
        let (Ok(manifest), Ok(result)) = (
            read_json::<RunManifest>(&folder.join("run.json")),
            read_json::<RunResult>(&folder.join("result.json")),
        ) else {
            continue;
        };
        narrate(&format!("training run {id} again"));
        let again = match score_again(lab, &manifest) {
            Ok(again) => again.val_bpb,
            Err(why) => {
                differences.push(Difference { place: format!("run {id}"), what: why.to_string() });
                continue;
            }
        };
        scored += 1;
        let tolerance = if manifest.machine == describe() { 1e-9 } else { OTHER_MACHINE };
        let fits = match (result.val_bpb, again) {
            (Some(said), Some(is)) => (said - is).abs() <= tolerance,
            (said, is) => said.is_none() && is.is_none(),
        };
        if !fits {
            let shown = |bpb: Option<f64>| bpb.map_or_else(|| "none".to_string(), |bpb| format!("{bpb:.6}"));
            let what = format!("val_bpb is {}, scored again {}", shown(result.val_bpb), shown(again));
            differences.push(Difference { place: format!("run {id}"), what });
        }
    }
    (scored, differences)
}

/// Runs that decided: both arms of each pair of a keep, each champion's own, and what the final measurement says.
fn wanted(records: &CampaignRecords) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for verdict in records.verdicts.iter().filter(|verdict| verdict.decision == Decision::Keep) {
        let pairs = verdict.pairs.iter();
        ids.extend(pairs.flat_map(|pair| [pair.champion_run.clone(), pair.challenger_run.clone()]));
    }
    for promotion in &records.promotions {
        ids.insert(promotion.run.clone());
        ids.extend(promotion.fresh_runs.iter().cloned());
    }
    if let Some(measured) = &records.final_measurement {
        ids.extend(measured.start_runs.iter().chain(&measured.champion_runs).cloned());
    }
    ids
}
