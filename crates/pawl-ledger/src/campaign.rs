//! Reading the documents of a campaign from `lab/campaign`. Writes nothing.

use crate::{LedgerError, Problem, Standing, line, standing};
use pawl_record::{
    CampaignEnd, CampaignManifest, Category, FileError, FinalMeasurement, Noise, Promotion, Proposal,
    Pruning, Replication, Retraction, Verdict, read_json,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// All documents of the campaign of a lab, in order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CampaignRecords {
    /// What was asked.
    pub manifest: CampaignManifest,
    /// A/A pairs, once they are run.
    pub noise: Option<Noise>,
    /// By number.
    pub proposals: Vec<Proposal>,
    /// By number of the proposal.
    pub verdicts: Vec<Verdict>,
    /// By generation; 0 is the starting recipe.
    pub promotions: Vec<Promotion>,
    /// Parts of champions left out and tried, in order.
    pub prunings: Vec<Pruning>,
    /// Keeps withdrawn, in order.
    pub retractions: Vec<Retraction>,
    /// Keeps run again, by proposal and number.
    pub replications: Vec<Replication>,
    /// Champion against start on fresh seeds, once measured.
    #[serde(rename = "final")]
    pub final_measurement: Option<FinalMeasurement>,
    /// Totals, once it stopped.
    pub end: Option<CampaignEnd>,
    /// Files that could not be read.
    pub problems: Vec<Problem>,
}

/// Trials of knobs. All of them are on the champion's: a challenger is tried with the values it is proposed with, and
/// no record could hold a trial of others before its duel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KnobTrials {
    /// Settings of the champion's knobs that were tried.
    pub settings: u64,
    /// Trials of those.
    pub trials: u64,
    /// Texts that came with values of their own, one each.
    pub with_a_text: u64,
}

impl KnobTrials {
    /// In a line.
    pub fn words(&self) -> String {
        let KnobTrials { settings, trials, with_a_text } = self;
        format!(
            "{trials} trials of {settings} settings of the champion's knobs, none of a challenger's before its duel \
             ({with_a_text} texts came with values of their own)"
        )
    }
}

impl CampaignRecords {
    /// The verdict on a proposal, when there is one.
    pub fn verdict(&self, proposal: u64) -> Option<&Verdict> {
        self.verdicts.iter().find(|verdict| verdict.proposal == proposal)
    }

    /// What was spent on knobs, and on whose.
    pub fn knob_trials(&self) -> KnobTrials {
        let mut spent = KnobTrials::default();
        for proposal in &self.proposals {
            let Some(verdict) = self.verdict(proposal.number).filter(|it| !it.pairs.is_empty()) else {
                continue;
            };
            if proposal.recipe.is_some() && !proposal.changes.is_empty() {
                spent.with_a_text += 1;
            } else if proposal.category == Category::Knob {
                spent.settings += 1;
                spent.trials += verdict.pairs.len() as u64;
            }
        }
        spent
    }

    /// Whether the keep of a proposal was withdrawn.
    pub fn is_retracted(&self, proposal: u64) -> bool {
        self.retractions.iter().any(|retraction| retraction.proposal == proposal)
    }

    /// What has become of a proposal's keep since.
    pub fn standing(&self, proposal: u64) -> Option<Standing> {
        let CampaignRecords { promotions, proposals, prunings, retractions, .. } = self;
        standing(promotions, proposals, prunings, retractions, proposal)
    }

    /// The final measurement, unless what it measured was withdrawn: its champion is one that the present one
    /// stands on.
    pub fn measured(&self) -> Option<&FinalMeasurement> {
        let generation = self.promotions.last()?.generation;
        let line = line(&self.promotions, generation);
        self.final_measurement.as_ref().filter(|measured| line.contains(&measured.generation))
    }
}

/// Where a lab keeps its campaign.
pub fn campaign_folder(lab: &Path) -> PathBuf {
    lab.join("campaign")
}

/// Reads the campaign of a lab; `None` when none was started. A document that cannot be read is a
/// [`Problem`], except `campaign.json`, without which nothing else has a meaning.
pub fn read_campaign(lab: &Path) -> Result<Option<CampaignRecords>, LedgerError> {
    let folder = campaign_folder(lab);
    let mut problems = Vec::new();
    let manifest = match read_json(&folder.join("campaign.json")) {
        Ok(manifest) => manifest,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let records = CampaignRecords {
        manifest,
        noise: read_optional(&folder.join("noise.json"), &mut problems),
        proposals: read_numbered(&folder.join("proposals"), |p: &Proposal| p.number, &mut problems)?,
        verdicts: read_numbered(&folder.join("verdicts"), |v: &Verdict| v.proposal, &mut problems)?,
        promotions: read_numbered(&folder.join("champions"), |p: &Promotion| p.generation, &mut problems)?,
        prunings: read_numbered(&folder.join("prunings"), |p: &Pruning| p.number, &mut problems)?,
        retractions: read_numbered(&folder.join("retractions"), |r: &Retraction| r.number, &mut problems)?,
        replications: read_replications(&folder.join("replications"), &mut problems)?,
        final_measurement: read_optional(&folder.join("final.json"), &mut problems),
        end: read_optional(&folder.join("end.json"), &mut problems),
        problems: Vec::new(),
    };
    Ok(Some(CampaignRecords { problems, ..records }))
}

pub(crate) fn is_missing(error: &FileError) -> bool {
    match error {
        FileError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        FileError::Malformed { .. } => false,
    }
}

fn read_optional<T: DeserializeOwned>(path: &Path, problems: &mut Vec<Problem>) -> Option<T> {
    match read_json(path) {
        Ok(document) => Some(document),
        Err(error) => {
            if !is_missing(&error) {
                problems.push(Problem::of(path.to_path_buf(), &error));
            }
            None
        }
    }
}

/// Documents `NNNN.json` of a folder by number; a number that does not match its file name is a problem.
fn read_numbered<T: DeserializeOwned>(
    folder: &Path,
    number_of: impl Fn(&T) -> u64,
    problems: &mut Vec<Problem>,
) -> Result<Vec<T>, LedgerError> {
    let mut documents = Vec::new();
    for name in sorted_names(folder)? {
        let Some(number) = name.strip_suffix(".json").and_then(|stem| stem.parse::<u64>().ok()) else {
            continue;
        };
        let path = folder.join(&name);
        match read_json::<T>(&path) {
            Ok(document) if number_of(&document) == number => documents.push((number, document)),
            Ok(document) => problems.push(Problem {
                path,
                message: format!("holds number {}, not the one of its name", number_of(&document)),
            }),
            Err(error) => problems.push(Problem::of(path, &error)),
        }
    }
    documents.sort_by_key(|(number, _)| *number);
    documents.dedup_by_key(|(number, _)| *number);
    Ok(documents.into_iter().map(|(_, document)| document).collect())
}

/// Documents `NNNN-K.json` by proposal and number of the replication.
fn read_replications(folder: &Path, problems: &mut Vec<Problem>) -> Result<Vec<Replication>, LedgerError> {
    let mut documents: Vec<Replication> = Vec::new();
    for name in sorted_names(folder)?.into_iter().filter(|name| name.ends_with(".json")) {
        let path = folder.join(&name);
        match read_json::<Replication>(&path) {
            Ok(it) if name == format!("{:04}-{}.json", it.proposal, it.number) => documents.push(it),
            Ok(it) => problems.push(Problem {
                path,
                message: format!("holds replication {} of {}, not its name's", it.number, it.proposal),
            }),
            Err(error) => problems.push(Problem::of(path, &error)),
        }
    }
    documents.sort_by_key(|it| (it.proposal, it.number));
    Ok(documents)
}

/// Names in a folder in byte order, so that the order of a directory never reaches the index; empty
/// when there is no folder. Names that are not text or begin with a dot are temporaries, not records.
pub(crate) fn sorted_names(folder: &Path) -> Result<Vec<String>, LedgerError> {
    let io_error = |source| LedgerError::Io { action: "list", path: folder.to_path_buf(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(io_error)?.file_name();
        if let Some(name) = name.to_str()
            && !name.starts_with('.')
        {
            names.push(name.to_string());
        }
    }
    names.sort();
    Ok(names)
}
