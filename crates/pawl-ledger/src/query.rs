//! Questions to the index, answered with plain data.

use crate::answer::{Champion, Counts, RunFilter, RunRecord, RunState, RunSummary, Shown, Trial};
use crate::store::sqlite_error;
use crate::{Ledger, LedgerError, RunDiff, diff_runs, standing};
use pawl_record::{
    CampaignManifest, Decision, Event, Promotion, Proposal, Pruning, Replication, Retraction, Verdict,
    from_json,
};
use rusqlite::{Params, Row};
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// `lab/runs`.
pub(crate) fn runs_folder(lab: &Path) -> PathBuf {
    lab.join("runs")
}

/// The directory of a run.
pub fn run_folder(lab: &Path, id: &str) -> PathBuf {
    runs_folder(lab).join(id)
}

const RUN_COLUMNS: &str =
    "SELECT runs.document, results.document FROM runs LEFT JOIN results ON results.run = runs.id";

impl Ledger {
    /// Runs, newest first; runs of the same second by id.
    pub fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, LedgerError> {
        let runs = self.run_records(&format!("{RUN_COLUMNS} ORDER BY created_unix_s DESC, id"), [])?;
        let chosen = runs.iter().filter(|run| filter.admits(run)).map(RunRecord::summary);
        Ok(chosen.take(filter.limit.unwrap_or(usize::MAX)).collect())
    }

    /// The run with this id or this beginning of an id, or `champion` or `start` of the newest campaign.
    pub fn run(&self, name: &str) -> Result<RunRecord, LedgerError> {
        let id = match name {
            "champion" => self.champion()?.promotion.run,
            "start" => self.start()?.promotion.run,
            _ => name.to_string(),
        };
        let sql = format!("{RUN_COLUMNS} WHERE substr(id, 1, length(?1)) = ?1 ORDER BY id");
        let mut found = self.run_records(&sql, [&id])?;
        match found.len() {
            _ if id.is_empty() => Err(LedgerError::NoSuchRun { wanted: id }),
            0 => Err(LedgerError::NoSuchRun { wanted: id }),
            1 => Ok(found.remove(0)),
            _ => {
                let ids = found.into_iter().map(|run| run.manifest.id).collect();
                Err(LedgerError::Ambiguous { wanted: id, ids })
            }
        }
    }

    /// What `pawl show` means by a name: a proposal by its number (`7`, `#7`; up to three digits without
    /// the sign), otherwise a run as in [`Ledger::run`].
    pub fn show(&self, name: &str) -> Result<Shown, LedgerError> {
        let digits = name.strip_prefix('#').unwrap_or(name);
        let is_number = (name.starts_with('#') || digits.len() <= 3) && digits.parse::<u64>().is_ok();
        if is_number && let Ok(number) = digits.parse() {
            return Ok(Shown::Trial(Box::new(self.trial(number)?)));
        }
        Ok(Shown::Run(Box::new(self.run(name)?)))
    }

    /// Two runs side by side: what was set, what the recipes say, what came out.
    pub fn diff(&self, a: &str, b: &str) -> Result<RunDiff, LedgerError> {
        let (a, b) = (self.run(a)?, self.run(b)?);
        let (text_a, text_b) = (self.recipe_text(&a.manifest.id)?, self.recipe_text(&b.manifest.id)?);
        Ok(diff_runs(a, &text_a, b, &text_b))
    }

    /// The recipe text that lies beside a run.
    pub fn recipe_text(&self, id: &str) -> Result<String, LedgerError> {
        let path = run_folder(&self.lab, id).join("recipe.star");
        fs::read_to_string(&path).map_err(|source| LedgerError::Io { action: "read", path, source })
    }

    /// What a run has told so far, in order. A torn last line, which a killed process leaves, is skipped;
    /// a run that has not begun has told nothing.
    pub fn events(&self, id: &str) -> Result<Vec<Event>, LedgerError> {
        let path = run_folder(&self.lab, id).join("events.jsonl");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().filter_map(|line| from_json(line.as_bytes()).ok()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(LedgerError::Io { action: "read", path, source }),
        }
    }

    /// Runs of the same program, oldest first.
    pub fn runs_of(&self, fingerprint: &str) -> Result<Vec<RunRecord>, LedgerError> {
        let sql = format!("{RUN_COLUMNS} WHERE fingerprint = ?1 ORDER BY created_unix_s, id");
        self.run_records(&sql, [fingerprint])
    }

    /// The newest campaign of the lab.
    pub fn campaign(&self) -> Result<CampaignManifest, LedgerError> {
        let sql = "SELECT document FROM campaigns ORDER BY created_unix_s DESC, id LIMIT 1";
        let newest = self.documents("campaign", sql, [])?.pop();
        newest.ok_or_else(|| LedgerError::NoCampaign { lab: self.lab.clone() })
    }

    /// Proposals of the newest campaign, by number.
    pub fn proposals(&self) -> Result<Vec<Proposal>, LedgerError> {
        let sql = "SELECT document FROM proposals WHERE campaign = ?1 ORDER BY number";
        self.documents("proposal", sql, [self.campaign()?.id])
    }

    /// Verdicts of the newest campaign, by number of the proposal.
    pub fn verdicts(&self) -> Result<Vec<Verdict>, LedgerError> {
        let sql = "SELECT document FROM verdicts WHERE campaign = ?1 ORDER BY proposal";
        self.documents("verdict", sql, [self.campaign()?.id])
    }

    /// A proposal of the newest campaign and its verdict.
    pub fn trial(&self, number: u64) -> Result<Trial, LedgerError> {
        let proposals = self.proposals()?;
        let total = proposals.len() as u64;
        let proposal = proposals.into_iter().find(|proposal| proposal.number == number);
        let proposal = proposal.ok_or(LedgerError::NoSuchProposal { number, total })?;
        let verdict = self.verdicts()?.into_iter().find(|verdict| verdict.proposal == number);
        let (promotions, proposals) = (self.promotions()?, self.proposals()?);
        let prunings = self.prunings()?;
        let standing = standing(&promotions, &proposals, &prunings, &self.retractions()?, number);
        let prunings = prunings.into_iter().filter(|it| it.proposal == number).collect();
        let replications = self.replications()?.into_iter().filter(|it| it.proposal == number).collect();
        Ok(Trial { proposal, verdict, standing, prunings, replications })
    }

    /// Champions of the newest campaign by generation; the first is the starting recipe.
    pub fn promotions(&self) -> Result<Vec<Promotion>, LedgerError> {
        let sql = "SELECT document FROM promotions WHERE campaign = ?1 ORDER BY generation";
        self.documents("promotion", sql, [self.campaign()?.id])
    }

    /// Parts of champions that were left out and tried, in order.
    pub fn prunings(&self) -> Result<Vec<Pruning>, LedgerError> {
        let sql = "SELECT document FROM prunings WHERE campaign = ?1 ORDER BY number";
        self.documents("pruning", sql, [self.campaign()?.id])
    }

    /// Keeps withdrawn, in order.
    pub fn retractions(&self) -> Result<Vec<Retraction>, LedgerError> {
        let sql = "SELECT document FROM retractions WHERE campaign = ?1 ORDER BY number";
        self.documents("retraction", sql, [self.campaign()?.id])
    }

    /// Keeps run again, by proposal and number.
    pub fn replications(&self) -> Result<Vec<Replication>, LedgerError> {
        let sql = "SELECT document FROM replications WHERE campaign = ?1 ORDER BY proposal, number";
        self.documents("replication", sql, [self.campaign()?.id])
    }

    /// The champion of the newest campaign.
    pub fn champion(&self) -> Result<Champion, LedgerError> {
        self.champion_of(self.promotions()?.pop())
    }

    /// The starting recipe of the newest campaign.
    pub fn start(&self) -> Result<Champion, LedgerError> {
        self.champion_of(self.promotions()?.into_iter().next())
    }

    fn champion_of(&self, promotion: Option<Promotion>) -> Result<Champion, LedgerError> {
        let promotion = promotion.ok_or_else(|| LedgerError::NoCampaign { lab: self.lab.clone() })?;
        let run = match self.run(&promotion.run) {
            Ok(run) => Some(run),
            Err(LedgerError::NoSuchRun { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(Champion { promotion, run })
    }

    /// How many facts of each kind there are.
    pub fn counts(&self) -> Result<Counts, LedgerError> {
        let mut counts = Counts::default();
        for run in self.run_records(RUN_COLUMNS, [])? {
            counts.runs += 1;
            match run.state() {
                RunState::Finished => counts.finished += 1,
                RunState::Diverged => counts.diverged += 1,
                RunState::Open => counts.open += 1,
            }
        }
        match self.proposals() {
            Ok(proposals) => counts.proposals = proposals.len() as u64,
            Err(LedgerError::NoCampaign { .. }) => return Ok(counts),
            Err(error) => return Err(error),
        }
        for verdict in self.verdicts()? {
            match verdict.decision {
                Decision::Keep => counts.kept += 1,
                Decision::Reject(_) => counts.rejected += 1,
                Decision::Undecided(_) => counts.undecided += 1,
                Decision::Skipped(_) => counts.skipped += 1,
                Decision::Failed(_) => counts.failed += 1,
            }
        }
        Ok(counts)
    }

    fn run_records(&self, sql: &str, params: impl Params) -> Result<Vec<RunRecord>, LedgerError> {
        let texts = self.rows(sql, params, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let parse = |(manifest, result): (String, Option<String>)| {
            let manifest = self.parse("run", &manifest)?;
            let result = result.map(|text| self.parse("result", &text)).transpose()?;
            Ok(RunRecord { manifest, result })
        };
        texts.into_iter().map(parse).collect()
    }

    fn documents<T: DeserializeOwned>(
        &self,
        kind: &str,
        sql: &str,
        params: impl Params,
    ) -> Result<Vec<T>, LedgerError> {
        let texts = self.rows(sql, params, |row| row.get::<_, String>(0))?;
        texts.iter().map(|text| self.parse(kind, text)).collect()
    }

    fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, LedgerError> {
        let all = || self.connection.prepare(sql)?.query_map(params, read)?.collect::<Result<Vec<T>, _>>();
        all().map_err(sqlite_error("read", &self.lab))
    }

    fn parse<T: DeserializeOwned>(&self, kind: &str, text: &str) -> Result<T, LedgerError> {
        from_json(text.as_bytes()).map_err(|source| LedgerError::BrokenFact {
            path: self.lab.join("ledger.sqlite"),
            what: kind.to_string(),
            source,
        })
    }
}
