//! Researchers against each other: the same start, the same budget and the same seeds, one campaign each.
//!
//! What counts is the score of the final champion on text and seeds that no decision has seen; a campaign that kept
//! nothing gained nothing. Differences between researchers are paired by the campaign's seed. An optimizer from
//! elsewhere ([`crate::peer`]) searches on as many trials without a judge, and its best stands for a champion. Reads
//! records only.

use crate::books::was_tested;
use crate::evidence::t_half_width;
use pawl_ledger::CampaignRecords;
use pawl_record::{CampaignManifest, Decision, Proposal, Rung, Search};
use serde::Serialize;
use std::collections::BTreeSet;

/// One campaign of a contest.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who proposed, as on the command line.
    pub researcher: String,
    /// The campaign's seed.
    pub seed: u64,
    /// All it left.
    pub course: Course,
}

/// How somebody got to a result.
#[derive(Clone, Debug)]
pub enum Course {
    /// By proposals to the judge.
    Campaign(Box<CampaignRecords>),
    /// By a search of its own, without one.
    Search(Box<Search>),
}

impl Entry {
    /// Gain of what it came to over the start on the sealed split; nothing where nothing was promoted.
    pub fn sealed_gain(&self) -> f64 {
        match &self.course {
            Course::Campaign(records) => {
                let measured = records.final_measurement.as_ref();
                measured.and_then(|it| it.sealed.as_ref()).map_or(0.0, |sealed| sealed.mean)
            }
            Course::Search(search) => search.sealed.mean,
        }
    }

    /// FLOPs of its trials, the final measurement not counted.
    pub fn flops(&self) -> f64 {
        match &self.course {
            Course::Campaign(records) => records.end.as_ref().map_or(0.0, |end| end.flops),
            Course::Search(search) => search.flops,
        }
    }

    /// Training runs, the final measurement not counted.
    pub fn runs(&self) -> u64 {
        match &self.course {
            Course::Campaign(records) => records.end.as_ref().map_or(0, |end| end.runs),
            Course::Search(search) => search.runs,
        }
    }

    fn records(&self) -> Option<&CampaignRecords> {
        match &self.course {
            Course::Campaign(records) => Some(records),
            Course::Search(_) => None,
        }
    }

    fn search(&self) -> Option<&Search> {
        match &self.course {
            Course::Campaign(_) => None,
            Course::Search(search) => Some(search),
        }
    }
}

/// A mean over seeds with the half-width of its 95 % t interval; infinite for one seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half-width.
    pub half_width: f64,
}

/// What one researcher came to over all seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// Who.
    pub researcher: String,
    /// Campaigns.
    pub campaigns: usize,
    /// Gain of the final champion over the start on the sealed split, fresh seeds, bits per byte.
    pub sealed_gain: Estimate,
    /// By the seed of the campaign, in the order of seeds.
    pub sealed_gains: Vec<f64>,
    /// The same less that of the researcher named first, paired by seed; `None` for the first.
    pub beyond_first: Option<Estimate>,
    /// Sealed gain by 10^15 FLOPs of all its campaigns.
    pub gain_per_petaflop: f64,
    /// Sealed gain by US dollar; `None` where nothing was paid.
    pub gain_per_usd: Option<f64>,
    /// US dollars paid.
    pub cost_usd: f64,
    /// Proposals that were tried.
    pub tried: usize,
    /// Of these, kept.
    pub kept: usize,
    /// Promoted and measured again on fresh seeds.
    pub measured_again: usize,
    /// Of these, with an interval that lies below zero: kept wrongly.
    pub false_keeps: usize,
    /// Of these, with an interval that holds zero: not confirmed.
    pub unconfirmed_keeps: usize,
    /// Different things that were tried: settings, and kinds of change to the text.
    pub breadth: usize,
    /// Mean squared error of the predicted probability of a keep; `None` where nothing was tried.
    pub brier: Option<f64>,
}

/// The standings, in the order in which researchers first appear.
pub fn standings(entries: &[Entry]) -> Vec<Standing> {
    let mut names: Vec<&str> = Vec::new();
    for entry in entries {
        if !names.contains(&entry.researcher.as_str()) {
            names.push(&entry.researcher);
        }
    }
    let of = |name: &str| -> Vec<&Entry> {
        let mut own: Vec<&Entry> = entries.iter().filter(|entry| entry.researcher == name).collect();
        own.sort_by_key(|entry| entry.seed);
        own
    };
    names.iter().map(|name| standing(&of(name), (*name != names[0]).then(|| of(names[0])))).collect()
}

fn standing(own: &[&Entry], first: Option<Vec<&Entry>>) -> Standing {
    let sealed_gains: Vec<f64> = own.iter().map(|entry| entry.sealed_gain()).collect();
    let gained: f64 = sealed_gains.iter().sum();
    let beyond_first = first.map(|first| {
        let same_seed = |entry: &&Entry| first.iter().find(|other| other.seed == entry.seed);
        let paired =
            own.iter().filter_map(|entry| Some(entry.sealed_gain() - same_seed(entry)?.sealed_gain()));
        estimate(&paired.collect::<Vec<f64>>())
    });
    let flops: f64 = own.iter().map(|entry| entry.flops()).sum();
    let campaigns = || own.iter().filter_map(|entry| entry.records());
    let searches = || own.iter().filter_map(|entry| entry.search());
    let proposals = || campaigns().flat_map(|records| &records.proposals);
    let cost_usd: f64 =
        proposals().filter_map(|it| it.author.as_ref()).map(|author| author.cost_usd).sum::<f64>() + 0.0;
    let tried: Vec<(&Proposal, bool)> = campaigns().flat_map(tried).collect();
    let searched: u64 = searches().map(|search| search.runs).sum();
    let again = || {
        let measured = campaigns().filter_map(|records| records.final_measurement.as_ref());
        measured.flat_map(|it| &it.kept).map(|kept| &kept.search)
    };
    let errors = tried
        .iter()
        .map(|(proposal, kept)| (proposal.prediction.keep_probability - f64::from(u8::from(*kept))).powi(2));
    let turned = searches().flat_map(|search| &search.trials).flat_map(|trial| trial.settings.keys());
    Standing {
        researcher: own[0].researcher.clone(),
        campaigns: own.len(),
        sealed_gain: estimate(&sealed_gains),
        beyond_first,
        gain_per_petaflop: gained / (flops / 1e15),
        gain_per_usd: (cost_usd > 0.0).then(|| gained / cost_usd),
        cost_usd,
        tried: tried.len() + searched as usize,
        kept: tried.iter().filter(|(_, kept)| *kept).count(),
        measured_again: again().count(),
        false_keeps: again().filter(|it| it.mean + it.half_width < 0.0).count(),
        unconfirmed_keeps: again().filter(|it| it.mean.abs() <= it.half_width).count(),
        breadth: breadth(tried.iter().map(|(proposal, _)| *proposal), turned),
        brier: (!tried.is_empty()).then(|| errors.sum::<f64>() / tried.len() as f64),
        sealed_gains,
    }
}

/// Proposals that took a test, and whether each was kept.
fn tried(records: &CampaignRecords) -> Vec<(&Proposal, bool)> {
    let verdict = |proposal: &Proposal| records.verdict(proposal.number).filter(|it| was_tested(it));
    let with = |proposal| Some((proposal, verdict(proposal)?.decision == Decision::Keep));
    records.proposals.iter().filter_map(with).collect()
}

fn breadth<'a>(
    proposals: impl Iterator<Item = &'a Proposal>,
    turned: impl Iterator<Item = &'a String>,
) -> usize {
    let mut kinds: BTreeSet<String> = turned.cloned().collect();
    for proposal in proposals {
        kinds.extend(proposal.changes.iter().map(|change| change.setting.clone()));
        if proposal.recipe.is_some() {
            kinds.insert(format!("text: {}", proposal.category.word()));
        }
    }
    kinds.len()
}

fn estimate(values: &[f64]) -> Estimate {
    let half_width = if values.len() < 2 { f64::INFINITY } else { t_half_width(values) };
    Estimate { mean: values.iter().sum::<f64>() / values.len() as f64, half_width }
}

/// In what a campaign is another than one of this recipe on this rung, if it is.
pub fn other_campaign(manifest: &CampaignManifest, text: &str, rung: &Rung) -> Option<String> {
    if manifest.recipe.hash != blake3::hash(text.as_bytes()).to_hex().as_str() {
        return Some("its recipe has another text".to_string());
    }
    let same = |known: &Rung| known.depth == rung.depth && known.flops == rung.flops;
    match manifest.rungs.all() {
        [known] if same(known) => None,
        [known] => Some(format!("its trials are of {:e} FLOPs at depth {}", known.flops, known.depth)),
        rungs => Some(format!("it has {} rungs", rungs.len())),
    }
}
