//! From the records of a lab to what the report shows.

use super::words::change_line;
use super::{
    Asked, Bound, ChampionRow, ClimbRow, Cost, CostRow, Curve, Final, Headline, Interval, Judgement, Outcome,
    Report, ReportError, Tally, TrialRow, outcome_of,
};
use pawl_ledger::{
    CampaignRecords, Ledger, LedgerError, RecipeDiff, RunRecord, SettingChange, Standing, campaign_folder,
    diff_settings, diff_text, read_campaign,
};
use pawl_record::{Climb, FinalMeasurement, Ladder, Origin, Promotion, Proposal, Rung, SCHEMA, Verdict};
use std::fs;
use std::path::Path;

/// Reads the campaign of a lab and computes what its report shows.
pub fn gather(lab: &Path, ledger: &Ledger) -> Result<Report, ReportError> {
    let records = read_campaign(lab)?.ok_or_else(|| LedgerError::NoCampaign { lab: lab.to_path_buf() })?;
    let trials = trial_rows(&records);
    let champions = champion_rows(&records, &trials);
    let (start_curves, champion_curves) = curves(&records, ledger)?;
    Ok(Report {
        schema: SCHEMA,
        asked: asked(&records),
        headline: headline(&records, &champions),
        tally: tally(&trials),
        cost: cost(&records, &trials, ledger)?,
        bound: bound(&records, &trials),
        settings: settings(&records, ledger)?,
        recipe: recipe_diff(lab, &records),
        start_curves,
        champion_curves,
        worth: records.final_measurement.as_ref().and_then(|measured| measured.worth.clone()),
        judgement: judgement(&trials),
        parts: records.prunings,
        replications: records.replications,
        noise: records.noise,
        trials,
        champions,
        end: records.end,
        problems: records.problems,
    })
}

fn asked(records: &CampaignRecords) -> Asked {
    let manifest = records.manifest.clone();
    Asked {
        campaign: manifest.id,
        recipe: manifest.recipe.name,
        settings: manifest.settings,
        data: manifest.data,
        rungs: manifest.rungs,
        seed: manifest.seed,
        researcher: manifest.researcher,
        judge: manifest.judge,
        budget: manifest.budget,
        machine: manifest.machine,
        version: manifest.version,
        created_unix_s: manifest.created_unix_s,
    }
}

fn trial_rows(records: &CampaignRecords) -> Vec<TrialRow> {
    let mut flops_so_far = records.noise.as_ref().map_or(0.0, |noise| noise.flops);
    let mut rows = Vec::new();
    for proposal in &records.proposals {
        let verdict = records.verdict(proposal.number);
        flops_so_far += verdict.map_or(0.0, |verdict| verdict.flops);
        let row = trial_row(records, proposal, verdict, flops_so_far);
        rows.push(match records.standing(proposal.number) {
            None => row,
            Some(standing) => since(row, &standing),
        });
    }
    rows
}

/// What has become of a keep since.
fn since(row: TrialRow, standing: &Standing) -> TrialRow {
    let words = standing.words();
    match standing {
        Standing::Stands => row,
        Standing::Retracted { .. } => {
            TrialRow { outcome: Outcome::Retracted, reason: words, remeasured: None, ..row }
        }
        Standing::Affected { .. } | Standing::LeftOut => {
            let change = format!("{} ({})", row.change, words.as_deref().unwrap_or_default());
            TrialRow { change, reason: words, ..row }
        }
    }
}

fn trial_row(
    records: &CampaignRecords,
    proposal: &Proposal,
    verdict: Option<&Verdict>,
    flops_so_far: f64,
) -> TrialRow {
    let ladder = &records.manifest.rungs;
    let kept = records
        .final_measurement
        .as_ref()
        .and_then(|m| m.kept.iter().find(|kept| kept.proposal == proposal.number));
    TrialRow {
        number: proposal.number,
        change: change_line(proposal),
        hypothesis: proposal.hypothesis.clone(),
        researcher: proposal.researcher.clone(),
        prediction: proposal.prediction,
        generation: proposal.generation,
        outcome: verdict.map_or(Outcome::Open, outcome_of),
        reason: verdict.and_then(reason),
        pairs: verdict.map_or(0, |v| v.pairs.len() as u64),
        evidence: verdict.and_then(|v| v.evidence),
        remeasured: kept.map(|kept| Interval { mean: kept.search.mean, half_width: kept.search.half_width }),
        climbs: verdict.map_or_else(Vec::new, |v| v.climbs.iter().map(|it| climb_row(ladder, it)).collect()),
        worth: verdict.and_then(|v| v.worth.clone()),
        seconds_ratio: verdict.and_then(|v| v.seconds_ratio),
        equal_time_gain: verdict.and_then(|v| v.equal_time.as_ref()).map(|control| control.mean),
        num_params: verdict.and_then(|v| v.num_params),
        runs: verdict.map_or(0, |v| v.runs),
        flops: verdict.map_or(0.0, |v| v.flops),
        flops_so_far,
        elapsed_s: verdict.map(|v| v.elapsed_s),
    }
}

/// Why the verdict is what it is, where the word alone does not say it.
fn reason(verdict: &Verdict) -> Option<String> {
    match verdict.stayed_below() {
        Some(climb) => climb.decision.reason().map(str::to_string),
        None => verdict.decision.reason().map(str::to_string),
    }
}

fn climb_row(ladder: &Ladder, climb: &Climb) -> ClimbRow {
    ClimbRow {
        // A record of a rung that the ladder does not have is named by `pawl verify`.
        depth: ladder.all().get(climb.rung as usize).map_or(0, |rung| rung.depth),
        pairs: climb.pairs.len() as u64,
        gain: climb.evidence.as_ref().map(Interval::of),
        held: climb.held(),
        reason: climb.decision.reason().map(str::to_string),
    }
}

fn champion_rows(records: &CampaignRecords, trials: &[TrialRow]) -> Vec<ChampionRow> {
    let mut level_bpb = f64::NAN;
    let mut rows = Vec::new();
    for promotion in &records.promotions {
        let trial = promotion.proposal.and_then(|number| trials.iter().find(|row| row.number == number));
        level_bpb = match &promotion.gain {
            // Gains are paired, so they add up with less noise than scores on different seeds compare.
            Some(gain) if level_bpb.is_finite() => level_bpb - gain.mean,
            _ => start_level(records, promotion),
        };
        rows.push(ChampionRow {
            generation: promotion.generation,
            proposal: promotion.proposal,
            change: trial.map_or_else(|| derived(records, promotion), |row| row.change.clone()),
            level_bpb,
            gain: promotion.gain.as_ref().map(Interval::of),
            num_params: promotion.num_params,
            run: promotion.run.clone(),
            flops_so_far: trial
                .map_or_else(|| records.noise.as_ref().map_or(0.0, |n| n.flops), |row| row.flops_so_far),
            elapsed_s: promotion.elapsed_s,
        });
    }
    rows
}

/// How a champion came about that no proposal made; the name of its recipe for the start.
fn derived(records: &CampaignRecords, promotion: &Promotion) -> String {
    match promotion.origin {
        None => promotion.recipe.name.clone(),
        Some(Origin::Restored { generation, .. }) => format!("champion {generation} again"),
        Some(Origin::Pruned(number)) => {
            let pruning = records.prunings.iter().find(|it| it.number == number);
            pruning
                .map_or_else(|| "a part left out".to_string(), |it| format!("without {}", it.change.setting))
        }
    }
}

/// The start is best known from its noise pairs; a later champion without a gain from its own runs.
fn start_level(records: &CampaignRecords, promotion: &Promotion) -> f64 {
    match &records.noise {
        Some(noise) if promotion.generation == 0 => noise.mean_bpb,
        _ => promotion.mean_bpb,
    }
}

fn headline(records: &CampaignRecords, champions: &[ChampionRow]) -> Headline {
    let generation = champions.last().map_or(0, |champion| champion.generation);
    let Some(measured) = records.measured().filter(|m| m.generation > 0) else {
        let gain = champions.iter().filter_map(|champion| champion.gain).map(|gain| gain.mean).sum();
        let is_start = champions.is_empty() || is_start_again(records);
        return if is_start { Headline::NothingKept } else { Headline::Unmeasured { gain } };
    };
    let arm = measured.sealed.as_ref().unwrap_or(&measured.search);
    Headline::Measured(Final {
        sealed: measured.sealed.is_some(),
        generation: measured.generation,
        stale: measured.generation != generation,
        seeds: arm.differences.len() as u64,
        start_bpb: mean(&arm.start_bpb),
        champion_bpb: mean(&arm.champion_bpb),
        mean: arm.mean,
        half_width: arm.half_width,
        seconds_ratio: measured.seconds_ratio,
    })
}

/// Whether the champion is the starting recipe, from the first or after a retraction.
fn is_start_again(records: &CampaignRecords) -> bool {
    let fingerprint = |it: Option<&Promotion>| it.map(|it| it.fingerprint.clone());
    fingerprint(records.promotions.first()) == fingerprint(records.promotions.last())
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

fn tally(trials: &[TrialRow]) -> Tally {
    let mut tally = Tally { proposals: trials.len() as u64, ..Tally::default() };
    for trial in trials {
        match trial.outcome {
            Outcome::Kept => tally.kept += 1,
            Outcome::Slower => tally.slower += 1,
            Outcome::Stayed => tally.stayed += 1,
            Outcome::Faded => tally.faded += 1,
            Outcome::Retracted => tally.retracted += 1,
            Outcome::Undecided => tally.undecided += 1,
            Outcome::Rejected => tally.rejected += 1,
            Outcome::Failed => tally.failed += 1,
            Outcome::Skipped => tally.skipped += 1,
            Outcome::Open => tally.open += 1,
        }
    }
    tally
}

fn cost(records: &CampaignRecords, trials: &[TrialRow], ledger: &Ledger) -> Result<Cost, ReportError> {
    let mut rows = Vec::new();
    if let Some(noise) = &records.noise {
        let runs = 2 * noise.pairs.len() as u64;
        rows.push(CostRow {
            what: "learning the noise".into(),
            runs,
            flops: noise.flops,
            core_seconds: noise.train_seconds,
        });
    }
    for outcome in Outcome::ALL {
        let mut row =
            CostRow { what: format!("changes {}", outcome.word()), runs: 0, flops: 0.0, core_seconds: 0.0 };
        match outcome {
            Outcome::Slower => row.what = "changes kept but slower".into(),
            Outcome::Stayed => row.what = "changes kept that stayed below".into(),
            Outcome::Faded => row.what = "changes kept that faded on fresh seeds".into(),
            Outcome::Retracted => row.what = "changes kept and withdrawn since".into(),
            Outcome::Kept
            | Outcome::Undecided
            | Outcome::Rejected
            | Outcome::Failed
            | Outcome::Skipped
            | Outcome::Open => {}
        }
        for trial in trials.iter().filter(|trial| trial.outcome == outcome) {
            row.runs += trial.runs;
            row.flops += trial.flops;
            row.core_seconds += records.verdict(trial.number).map_or(0.0, |verdict| verdict.run_seconds);
        }
        rows.push(row);
    }
    if !records.prunings.is_empty() {
        rows.push(CostRow {
            what: "leaving parts out".into(),
            runs: records.prunings.iter().map(|it| it.runs).sum(),
            flops: total(records.prunings.iter().map(|it| it.flops)),
            core_seconds: total(records.prunings.iter().map(|it| it.run_seconds)),
        });
    }
    if let Some(measured) = &records.final_measurement {
        rows.push(final_cost(measured, records.manifest.rungs.first(), ledger)?);
    }
    rows.retain(|row| row.runs > 0 || row.flops > 0.0);
    let last_verdict = records.verdicts.last().map_or(0.0, |verdict| verdict.elapsed_s);
    let measured_at = records.final_measurement.as_ref().map_or(0.0, |measured| measured.elapsed_s);
    let ended_at = records.end.as_ref().map_or(0.0, |end| end.elapsed_s);
    Ok(Cost {
        runs: rows.iter().map(|row| row.runs).sum(),
        flops: total(rows.iter().map(|row| row.flops)),
        core_seconds: total(rows.iter().map(|row| row.core_seconds)),
        elapsed_s: last_verdict.max(measured_at).max(ended_at),
        workers: records.end.as_ref().map(|end| end.workers),
        money_usd: 0.0,
        rows,
    })
}

/// `sum` of nothing is -0.
fn total(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |sum, number| sum + number)
}

fn final_cost(measured: &FinalMeasurement, first: Rung, ledger: &Ledger) -> Result<CostRow, ReportError> {
    let again = measured.kept.iter().flat_map(|kept| &kept.runs);
    let above = measured.above.iter().flat_map(|above| above.start_runs.iter().chain(&above.champion_runs));
    let ids = measured.start_runs.iter().chain(&measured.champion_runs).chain(again).chain(above);
    // Runs of less than the first rung's budget are the law's alone; the others are counted here or with a verdict.
    let points = measured.worth.iter().flat_map(|worth| &worth.points);
    let shorter = points.filter(|point| point.flops < first.flops).flat_map(|point| &point.runs);
    let ids: Vec<&String> = ids.chain(shorter).collect();
    let mut core_seconds = 0.0;
    for id in &ids {
        core_seconds += find_run(ledger, id)?.and_then(|run| run.result).map_or(0.0, |r| r.train_seconds);
    }
    let runs = ids.len() as u64;
    Ok(CostRow { what: "measuring again on fresh seeds".into(), runs, flops: measured.flops, core_seconds })
}

/// A run of the lab; `None` when its directory was removed.
fn find_run(ledger: &Ledger, id: &str) -> Result<Option<RunRecord>, ReportError> {
    match ledger.run(id) {
        Ok(run) => Ok(Some(run)),
        Err(LedgerError::NoSuchRun { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn bound(records: &CampaignRecords, trials: &[TrialRow]) -> Bound {
    let is_keep = |trial: &&TrialRow| {
        matches!(trial.outcome, Outcome::Kept | Outcome::Slower | Outcome::Stayed | Outcome::Faded)
    };
    let margins = trials.iter().filter(is_keep).filter_map(|trial| trial.evidence);
    let margins = margins.map(|evidence| evidence.e_value / evidence.threshold);
    let again: Vec<Interval> = trials.iter().filter_map(|trial| trial.remeasured).collect();
    Bound {
        alpha: records.manifest.judge.alpha,
        min_effect_bpb: records.manifest.judge.min_effect_bpb,
        knobs: records.knob_trials(),
        tests: trials.iter().filter(|trial| trial.evidence.is_some()).count() as u64,
        keeps: trials.iter().filter(is_keep).count() as u64,
        closest_margin: margins.reduce(f64::min),
        remeasured: again.len() as u64,
        confirmed: again.iter().filter(|gain| gain.mean - gain.half_width > 0.0).count() as u64,
    }
}

/// Settings of the champion against the start: all of them where the runs are still there, otherwise
/// those that differ from the recipe's defaults.
fn settings(records: &CampaignRecords, ledger: &Ledger) -> Result<Vec<SettingChange>, ReportError> {
    let (Some(start), Some(champion)) = (records.promotions.first(), records.promotions.last()) else {
        return Ok(Vec::new());
    };
    Ok(match (find_run(ledger, &start.run)?, find_run(ledger, &champion.run)?) {
        (Some(a), Some(b)) => diff_settings(&a.manifest.settings, &b.manifest.settings),
        _ => diff_settings(&start.settings, &champion.settings),
    })
}

/// Empty when the champion has the starting text or a text is no longer there.
fn recipe_diff(lab: &Path, records: &CampaignRecords) -> RecipeDiff {
    let (Some(start), Some(champion)) = (records.promotions.first(), records.promotions.last()) else {
        return RecipeDiff::default();
    };
    if start.recipe.hash == champion.recipe.hash {
        return RecipeDiff::default();
    }
    let read = |file: &str| fs::read_to_string(campaign_folder(lab).join(file));
    match (read(&start.recipe.file), read(&champion.recipe.file)) {
        (Ok(a), Ok(b)) => diff_text(&a, &b),
        _ => RecipeDiff::default(),
    }
}

/// Curves of the fresh seeds where they were measured, otherwise of the runs that stand for the champions.
fn curves(records: &CampaignRecords, ledger: &Ledger) -> Result<(Vec<Curve>, Vec<Curve>), ReportError> {
    let of_promotion = |promotion: Option<&Promotion>| promotion.map(|p| p.run.clone()).into_iter().collect();
    let (start, champion): (Vec<String>, Vec<String>) = match &records.final_measurement {
        Some(measured) => (measured.start_runs.clone(), measured.champion_runs.clone()),
        None => (
            of_promotion(records.promotions.first()),
            of_promotion(records.promotions.last().filter(|p| p.generation > 0)),
        ),
    };
    let read = |ids: &[String]| -> Result<Vec<Curve>, ReportError> {
        let mut curves = Vec::new();
        for id in ids {
            if let Some(RunRecord { manifest, result: Some(result) }) = find_run(ledger, id)? {
                let point =
                    |p: &pawl_record::LearningPoint| (p.step as f64 * manifest.flops_per_step, p.loss);
                let points = result.curve.iter().map(point).filter(|(_, loss)| loss.is_finite()).collect();
                curves.push(Curve { run: id.clone(), points });
            }
        }
        Ok(curves)
    };
    Ok((read(&start)?, read(&champion)?))
}

fn judgement(trials: &[TrialRow]) -> Option<Judgement> {
    let tried: Vec<(f64, f64)> = trials
        .iter()
        .filter(|trial| trial.pairs > 0 || trial.outcome == Outcome::Failed)
        .map(|trial| {
            let kept = matches!(
                trial.outcome,
                Outcome::Kept | Outcome::Slower | Outcome::Stayed | Outcome::Faded | Outcome::Retracted
            );
            (trial.prediction.keep_probability, if kept { 1.0 } else { 0.0 })
        })
        .collect();
    if tried.is_empty() {
        return None;
    }
    let n = tried.len() as f64;
    let observed = tried.iter().map(|(_, kept)| kept).sum::<f64>() / n;
    Some(Judgement {
        tried: tried.len() as u64,
        predicted: tried.iter().map(|(p, _)| p).sum::<f64>() / n,
        observed,
        brier: tried.iter().map(|(p, kept)| (p - kept).powi(2)).sum::<f64>() / n,
        brier_of_constant: observed * (1.0 - observed),
    })
}
