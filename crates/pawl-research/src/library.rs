//! The effect library: what changes were worth, in this lab and in others.
//!
//! A lab's own effects are derived from the files of its campaign each time they are asked for; nothing is stored that
//! could disagree with them, and a keep that is withdrawn is gone. Effects of other labs are files under `lab/effects/`,
//! one a source, which `revoke` removes. Nothing here is evidence: the judge does not read it.
//!
//! # One effect
//!
//! From k paired differences of mean y: `s^2 = (n0 sd^2 + scatter) / (n0 + k - 1)` with the A/A standard deviation as
//! n0 = 2 degrees of freedom beside the pairs' own, because pairs of a change may scatter far less than A/A pairs and
//! few pairs may lie close together by chance; standard error `s / sqrt k`. The *posterior* is normal with the prior
//! N(0, (2 sd)^2): `v = 1 / (1/se^2 + 1/prior^2)`, mean `v y / se^2`, and its interval takes the t quantile of
//! n0 + k - 1 degrees of freedom. It does not depend on why a duel ended, and takes back part of the luck of what
//! was kept (Efron, "Tweedie's formula and selection bias", 2011). Where pairs on fresh seeds exist, the final measurement
//! or replications, they alone are used.
//!
//! # Several labs
//!
//! Trials of one change in one lab are averaged with weights `1 / se^2`. Between labs there is a true spread tau, by
//! the random-effects model of DerSimonian and Laird ("Meta-analysis in clinical trials", 1986): with lab means
//! `y_i`, variances `v_i`, weights `w_i = 1 / v_i` and their mean y,
//!
//! ```text
//! Q = sum w_i (y_i - y)^2,   tau^2 = max(0, (Q - (m - 1)) / (sum w_i - sum w_i^2 / sum w_i))
//! mean = sum y_i / (v_i + tau^2) / W,   variance = 1 / W,   W = sum 1 / (v_i + tau^2)
//! ```
//!
//! Assumed: labs are independent; effects in bits per byte compare between them. Trials of one lab share its champion's
//! runs, so that their mean is a little less certain than stated.

use crate::evidence::{NoiseScale, Scores, Stats};
use pawl_ledger::{CampaignRecords, Ledger, LedgerError, read_campaign};
use pawl_record::{
    Change, Decision, Effect, EffectContext, EffectFile, EffectSource, FileError, PartRuling, Proposal,
    Pruning, SCHEMA, SettingValue, Verdict, read_json, write_json,
};
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Degrees of freedom that the A/A standard deviation counts beside a change's own pairs.
const PRIOR_DOF: f64 = 2.0;

/// Spread of gains before anything is seen, pair sds.
const PRIOR_SDS: f64 = 2.0;

/// What some pairs say of a mean gain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Mean.
    pub mean: f64,
    /// Standard error of that mean.
    pub standard_error: f64,
    /// Degrees of freedom behind the standard error.
    pub dof: f64,
}

/// The estimate from paired differences, beside A/A pairs of standard deviation `sd`; `None` without pairs.
pub fn estimate(differences: &[f64], sd: f64) -> Option<Estimate> {
    if differences.is_empty() {
        return None;
    }
    let stats = Stats::new(differences, 0.0);
    let dof = PRIOR_DOF + stats.k - 1.0;
    let variance = (PRIOR_DOF * sd * sd + stats.scatter()) / dof;
    Some(Estimate { mean: stats.mean(), standard_error: (variance / stats.k).sqrt(), dof })
}

/// Mean and variance of a gain under a normal prior about zero, given a mean and its variance.
pub fn posterior(mean: f64, variance: f64, prior_sd: f64) -> (f64, f64) {
    let left = 1.0 / (1.0 / variance + 1.0 / prior_sd.powi(2));
    (left * mean / variance, left)
}

/// A change over all labs that tried it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pooled {
    /// The change.
    pub changes: Vec<Change>,
    /// Campaigns that tried it.
    pub labs: u64,
    /// Trials of it.
    pub trials: u64,
    /// Pairs in all.
    pub pairs: u64,
    /// Mean gain, bits per byte.
    pub mean: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Spread of the true gain between labs, bits per byte; 0 where one lab alone tried it.
    pub tau: f64,
    /// Posterior mean, bits per byte.
    pub posterior_mean: f64,
    /// Half-width of its 95 % interval.
    pub half_width: f64,
}

/// The changes of all sources, best first.
pub fn pool(sources: &[EffectSource]) -> Vec<Pooled> {
    let mut by_change: BTreeMap<String, Vec<(&EffectSource, Vec<&Effect>)>> = BTreeMap::new();
    for source in sources {
        for effect in &source.effects {
            let labs = by_change.entry(words(&effect.changes)).or_default();
            match labs.last_mut() {
                Some((last, effects)) if last.source == source.source => effects.push(effect),
                Some(_) | None => labs.push((source, vec![effect])),
            }
        }
    }
    let mut pooled: Vec<Pooled> = by_change.values().map(|labs| pool_one(labs)).collect();
    pooled.sort_by(|a, b| b.posterior_mean.total_cmp(&a.posterior_mean));
    pooled
}

fn pool_one(labs: &[(&EffectSource, Vec<&Effect>)]) -> Pooled {
    let means: Vec<(f64, f64)> = labs
        .iter()
        .map(|(_, effects)| weighted(effects.iter().map(|it| (it.mean, it.standard_error.powi(2)))))
        .collect();
    let tau2 = between_labs(&means);
    let (mean, variance) = weighted(means.iter().map(|(mean, variance)| (*mean, variance + tau2)));
    let sd = labs.iter().map(|(source, _)| source.pair_sd).sum::<f64>() / labs.len() as f64;
    let (posterior_mean, left) = posterior(mean, variance, PRIOR_SDS * sd);
    let effects = || labs.iter().flat_map(|(_, effects)| effects);
    let pairs = effects().map(|it| it.pairs).sum::<u64>();
    let dof = PRIOR_DOF + pairs.saturating_sub(1) as f64;
    Pooled {
        changes: labs[0].1[0].changes.clone(),
        labs: labs.len() as u64,
        trials: effects().count() as u64,
        pairs,
        mean,
        standard_error: variance.sqrt(),
        tau: tau2.sqrt(),
        posterior_mean,
        half_width: quantile(dof) * left.sqrt(),
    }
}

/// Mean and variance of independent estimates, weighted by their precision.
fn weighted(estimates: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    let (sum, weight) = estimates
        .fold((0.0, 0.0), |(sum, weight), (mean, variance)| (sum + mean / variance, weight + 1.0 / variance));
    (sum / weight, 1.0 / weight)
}

/// The variance between labs, by the moments of DerSimonian and Laird.
fn between_labs(means: &[(f64, f64)]) -> f64 {
    let (mean, _) = weighted(means.iter().copied());
    let weights: Vec<f64> = means.iter().map(|(_, variance)| 1.0 / variance).collect();
    let total: f64 = weights.iter().sum();
    let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
    let q: f64 = means.iter().zip(&weights).map(|((y, _), weight)| weight * (y - mean).powi(2)).sum();
    let rest = total - squares / total;
    if means.len() < 2 { 0.0 } else { ((q - (means.len() as f64 - 1.0)) / rest).max(0.0) }
}

fn quantile(dof: f64) -> f64 {
    StudentsT::new(0.0, 1.0, dof).expect("the prior has degrees of freedom").inverse_cdf(0.975)
}

/// A change in one line.
pub fn words(changes: &[Change]) -> String {
    let one = |it: &Change| format!("{}: {} -> {}", it.setting, it.from, it.to);
    changes.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The effects that a lab's own campaign showed; `None` without a campaign or before its noise is known.
pub fn own(lab: &Path, ledger: &Ledger) -> Result<Option<EffectSource>, LedgerError> {
    let Some(records) = read_campaign(lab)? else { return Ok(None) };
    let Some(noise) = &records.noise else { return Ok(None) };
    let scores = |pair: &pawl_record::NoisePair| Scores { champion: pair.bpb[0], challenger: pair.bpb[1] };
    let sd = NoiseScale::new(&noise.pairs.iter().map(scores).collect::<Vec<_>>()).sd();
    let mut effects = Vec::new();
    for proposal in &records.proposals {
        if proposal.changes.is_empty() || records.is_retracted(proposal.number) {
            continue;
        }
        if let Some(verdict) = records.verdict(proposal.number)
            && let Some(effect) = of_verdict(&records, ledger, proposal, verdict, sd)?
        {
            effects.push(effect);
        }
        for pruning in records.prunings.iter().filter(|it| it.proposal == proposal.number) {
            effects.extend(of_pruning(&records, ledger, proposal, pruning, sd)?);
        }
    }
    let last = records.verdicts.iter().map(|it| it.created_unix_s).max();
    Ok(Some(EffectSource {
        schema: SCHEMA,
        source: records.manifest.id.clone(),
        gathered_unix_s: last.unwrap_or(records.manifest.created_unix_s),
        pair_sd: sd,
        effects,
    }))
}

fn of_verdict(
    records: &CampaignRecords,
    ledger: &Ledger,
    proposal: &Proposal,
    verdict: &Verdict,
    sd: f64,
) -> Result<Option<Effect>, LedgerError> {
    match verdict.decision {
        Decision::Keep | Decision::Reject(_) | Decision::Undecided(_) => {}
        Decision::Skipped(_) | Decision::Failed(_) => return Ok(None),
    }
    let measured = records.measured().into_iter().flat_map(|measured| &measured.kept);
    let measured = measured.filter(|kept| kept.proposal == proposal.number);
    let mut fresh: Vec<f64> = measured.flat_map(|kept| kept.search.differences.clone()).collect();
    let again = records.replications.iter().filter(|it| it.proposal == proposal.number);
    fresh.extend(again.flat_map(|it| &it.pairs).filter_map(|pair| pair.difference));
    let judged: Vec<f64> = verdict.pairs.iter().filter_map(|pair| pair.difference).collect();
    let differences = if fresh.is_empty() { &judged } else { &fresh };
    let Some(seen) = estimate(differences, sd) else { return Ok(None) };
    let run = verdict.pairs.first().map(|pair| pair.champion_run.as_str());
    Ok(Some(Effect {
        context: context(records, ledger, run)?,
        decision: verdict.decision.word().to_string(),
        pairs: differences.len() as u64,
        fresh: !fresh.is_empty(),
        ..effect(proposal, proposal.changes.clone(), seen, sd, records)
    }))
}

/// A part left out shows what it is worth beside everything that came later.
fn of_pruning(
    records: &CampaignRecords,
    ledger: &Ledger,
    proposal: &Proposal,
    pruning: &Pruning,
    sd: f64,
) -> Result<Option<Effect>, LedgerError> {
    let gains: Vec<f64> = pruning.pairs.iter().filter_map(|pair| pair.difference).map(|d| -d).collect();
    let Some(seen) = estimate(&gains, sd) else { return Ok(None) };
    let back = &pruning.change;
    let change = Change { setting: back.setting.clone(), from: back.to.clone(), to: back.from.clone() };
    let run = pruning.pairs.first().map(|pair| pair.champion_run.as_str());
    let word = match pruning.ruling {
        PartRuling::Leaves => "left out",
        PartRuling::Stays(_) => "part",
    };
    Ok(Some(Effect {
        context: context(records, ledger, run)?,
        decision: word.to_string(),
        pairs: gains.len() as u64,
        fresh: false,
        ..effect(proposal, vec![change], seen, sd, records)
    }))
}

fn effect(
    proposal: &Proposal,
    changes: Vec<Change>,
    seen: Estimate,
    sd: f64,
    records: &CampaignRecords,
) -> Effect {
    let (posterior_mean, variance) = posterior(seen.mean, seen.standard_error.powi(2), PRIOR_SDS * sd);
    Effect {
        proposal: proposal.number,
        changes,
        category: proposal.category,
        context: bare_context(records),
        decision: String::new(),
        pairs: 0,
        fresh: false,
        mean: seen.mean,
        standard_error: seen.standard_error,
        posterior_mean,
        half_width: quantile(seen.dof) * variance.sqrt(),
    }
}

fn bare_context(records: &CampaignRecords) -> EffectContext {
    let manifest = &records.manifest;
    EffectContext {
        recipe: manifest.recipe.name.clone(),
        depth: manifest.rungs.first().depth,
        flops: manifest.rungs.first().flops,
        precision: manifest.rungs.first().precision,
        data: manifest.data.clone(),
        optimizer: None,
        tokens_per_param: None,
    }
}

/// With what the champion's run adds, where it is still there.
fn context(
    records: &CampaignRecords,
    ledger: &Ledger,
    run: Option<&str>,
) -> Result<EffectContext, LedgerError> {
    let bare = bare_context(records);
    let Some(run) = run else { return Ok(bare) };
    let manifest = match ledger.run(run) {
        Ok(found) => found.manifest,
        Err(LedgerError::NoSuchRun { .. }) => return Ok(bare),
        Err(error) => return Err(error),
    };
    let tokens = (manifest.num_steps * manifest.tokens_per_step) as f64;
    Ok(EffectContext {
        optimizer: manifest.settings.get("optimizer").map(SettingValue::to_string),
        tokens_per_param: (manifest.num_params > 0).then(|| tokens / manifest.num_params as f64),
        ..bare
    })
}

/// An exported file cannot be taken in, or a source not be found.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The ledger has no answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A folder or file cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file says something that no lab writes.
    #[error("{path} cannot be imported: {what}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Nothing was imported under this name.
    #[error("nothing from {wanted:?} is in the library")]
    NoSuchSource {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: Vec<String>,
    },
    /// There is nothing to export.
    #[error("{lab} has no effects to export")]
    Empty {
        /// The lab.
        lab: PathBuf,
    },
}

fn folder(lab: &Path) -> PathBuf {
    lab.join("effects")
}

/// What was imported, by source.
pub fn imported(lab: &Path) -> Result<Vec<EffectSource>, LibraryError> {
    let folder = folder(lab);
    let io = |source| LibraryError::Io { path: folder.clone(), source };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let source: EffectSource = read_json(&path)?;
        check(&path, &source)?;
        sources.push(source);
    }
    Ok(sources)
}

/// What other labs say, one entry a change.
pub fn elsewhere(lab: &Path) -> Result<Vec<Pooled>, LibraryError> {
    Ok(pool(&imported(lab)?))
}

/// Writes the lab's own effects and those it imported, each under its own source, so that a lab that gets them twice
/// counts them once. Returns what was written.
pub fn export(lab: &Path, ledger: &Ledger, file: &Path) -> Result<EffectFile, LibraryError> {
    let mut sources: Vec<EffectSource> = own(lab, ledger)?.into_iter().collect();
    sources.extend(imported(lab)?);
    sources.retain(|source| !source.effects.is_empty());
    if sources.is_empty() {
        return Err(LibraryError::Empty { lab: lab.to_path_buf() });
    }
    sources.sort_by(|a, b| a.source.cmp(&b.source));
    let document = EffectFile { schema: SCHEMA, sources };
    write_json(file, &document)?;
    Ok(document)
}

/// Takes in what another lab exported: sources that are new, or newer than what is here. The lab's own effects are
/// passed over. Returns what was taken in.
pub fn import(lab: &Path, file: &Path) -> Result<Vec<EffectSource>, LibraryError> {
    let document: EffectFile = read_json(file)?;
    let own = read_campaign(lab)?.map(|records| records.manifest.id);
    for source in &document.sources {
        check(file, source)?;
    }
    let known = imported(lab)?;
    let folder = folder(lab);
    fs::create_dir_all(&folder).map_err(|source| LibraryError::Io { path: folder.clone(), source })?;
    let mut taken = Vec::new();
    for source in document.sources {
        let here = known.iter().find(|it| it.source == source.source);
        let is_newer = here.is_none_or(|it| *it != source && it.gathered_unix_s <= source.gathered_unix_s);
        if Some(&source.source) != own.as_ref() && is_newer {
            write_json(&folder.join(format!("{}.json", source.source)), &source)?;
            taken.push(source);
        }
    }
    Ok(taken)
}

/// Removes what was imported from a source, and returns it.
pub fn revoke(lab: &Path, wanted: &str) -> Result<EffectSource, LibraryError> {
    let known = imported(lab)?;
    let names = || known.iter().map(|it| it.source.clone()).collect();
    let Some(source) = known.iter().find(|it| it.source == wanted) else {
        return Err(LibraryError::NoSuchSource { wanted: wanted.to_string(), known: names() });
    };
    let path = folder(lab).join(format!("{}.json", source.source));
    fs::remove_file(&path).map_err(|source| LibraryError::Io { path, source })?;
    Ok(source.clone())
}

/// Files come from elsewhere: a name that is a path, or a number that is none, must not get further.
fn check(path: &Path, source: &EffectSource) -> Result<(), LibraryError> {
    let wrong = |what: String| Err(LibraryError::Wrong { path: path.to_path_buf(), what });
    let is_id = source.source.len() == 12 && source.source.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        return wrong(format!("{:?} is no id of a campaign", source.source));
    }
    if !(source.pair_sd.is_finite() && source.pair_sd > 0.0) {
        return wrong(format!("{}: the sd of a pair is not positive", source.source));
    }
    for effect in &source.effects {
        let is_sound = effect.mean.is_finite()
            && effect.standard_error.is_finite()
            && effect.standard_error > 0.0
            && effect.pairs > 0
            && !effect.changes.is_empty();
        if !is_sound {
            return wrong(format!("{}: effect #{} has no sound numbers", source.source, effect.proposal));
        }
    }
    Ok(())
}
