//! What each mend is worth against the champion it met, on fresh seeds.

use crate::trained::{Asked, How, binary, lab, verdict_on};
use pawl_ledger::{CampaignRecords, campaign_folder};
use pawl_record::{RecipeRef, Settings};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// Fresh seeds where the campaign itself has measured none.
const SEEDS: [u64; 5] = [7_000_001, 7_000_002, 7_000_003, 7_000_004, 7_000_005];

/// A gain and the standard error of its mean, bits per byte; positive is better.
pub(crate) struct Effect {
    pub(crate) mean: f64,
    pub(crate) error: f64,
}

/// Effects by name, as far as the time went.
#[derive(Default)]
pub(crate) struct Truth {
    pub(crate) effects: BTreeMap<String, Effect>,
    /// Training seconds of what the campaign had not run itself.
    pub(crate) seconds: f64,
    pub(crate) is_whole: bool,
}

/// Trains each mend and its champion on fresh seeds; what the lab has is found, not trained again.
pub(crate) fn measure(
    asked: &Asked<'_>,
    records: &CampaignRecords,
    mends: &[&str],
    how: &How,
) -> Result<Truth, String> {
    let lab = lab(asked)?;
    let mut truth = Truth { is_whole: true, ..Truth::default() };
    let seeds = match &records.final_measurement {
        Some(measured) => measured.seeds.clone(),
        None => SEEDS.to_vec(),
    };
    for mend in mends {
        let Some((proposal, verdict)) = verdict_on(records, mend, "False") else { continue };
        if verdict.pairs.is_empty() {
            continue;
        }
        let champion = &records.promotions[proposal.generation as usize];
        let mut differences = Vec::new();
        for seed in &seeds {
            if how.left().is_zero() {
                truth.is_whole = false;
                return Ok(truth);
            }
            let mut train = |settings: &Settings| {
                let (bpb, seconds) = trained(&lab, asked, &champion.recipe, settings, *seed)?;
                truth.seconds += seconds;
                Ok::<Option<f64>, String>(bpb)
            };
            // A seed on which an arm diverges says nothing of the difference.
            if let (Some(champion), Some(mended)) = (train(&champion.settings)?, train(&proposal.settings)?) {
                differences.push(champion - mended);
            }
        }
        let n = differences.len() as f64;
        if n >= 2.0 {
            let mean = differences.iter().sum::<f64>() / n;
            let variance = differences.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / (n - 1.0);
            truth.effects.insert((*mend).to_string(), Effect { mean, error: (variance / n).sqrt() });
        }
    }
    Ok(truth)
}

/// The score of a run and the seconds it trained now.
fn trained(
    lab: &Path,
    asked: &Asked<'_>,
    recipe: &RecipeRef,
    settings: &Settings,
    seed: u64,
) -> Result<(Option<f64>, f64), String> {
    let mut command = Command::new(binary()?);
    command.arg("train").arg(campaign_folder(lab).join(&recipe.file));
    command.args(["--depth", &asked.depth.to_string(), "--flops", &format!("{:e}", asked.flops)]);
    command.args(["--seed", &seed.to_string(), "--threads", "1", "--json", "--lab"]).arg(lab);
    for (name, value) in settings {
        command.args(["--set", &format!("{name}={value}")]);
    }
    let started = std::time::Instant::now();
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|why| format!("pawl train cannot be started: {why}"))?;
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|_| {
        format!("pawl train in {} failed: {}", lab.display(), String::from_utf8_lossy(&output.stderr))
    })?;
    let result = &document["result"];
    let now = started.elapsed().as_secs_f64();
    let seconds = result["total_seconds"].as_f64().filter(|seconds| *seconds <= now);
    Ok((result["val_bpb"].as_f64(), seconds.unwrap_or(0.0)))
}
