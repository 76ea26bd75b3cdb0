//! From files to rows: reads what is new in a lab and inserts it. Changes no file.

use crate::campaign::{is_missing, sorted_names};
use crate::query::{run_folder, runs_folder};
use crate::{CampaignRecords, LedgerError, Problem, Refresh, campaign_folder, read_campaign, schema};
use pawl_record::{Replication, RunManifest, RunResult, read_json};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What the index already has, so that a refresh reads only new files.
#[derive(Default)]
pub(crate) struct Known {
    runs: BTreeSet<String>,
    results: BTreeSet<String>,
}

impl Known {
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Known> {
        let ids = |sql: &str| -> rusqlite::Result<BTreeSet<String>> {
            connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
        };
        Ok(Known { runs: ids("SELECT id FROM runs")?, results: ids("SELECT run FROM results")? })
    }
}

/// Facts read from files, on their way into the index.
pub(crate) struct Facts {
    pub(crate) runs: Vec<RunManifest>,
    results: Vec<RunResult>,
    campaign: Option<CampaignRecords>,
    pub(crate) problems: Vec<Problem>,
}

impl Facts {
    pub(crate) fn read(lab: &Path, known: &Known) -> Result<Facts, LedgerError> {
        let mut facts = Facts { runs: Vec::new(), results: Vec::new(), campaign: None, problems: Vec::new() };
        for id in sorted_names(&runs_folder(lab))? {
            if !known.results.contains(&id) {
                facts.read_run(lab, &id, known.runs.contains(&id));
            }
        }
        match read_campaign(lab) {
            Ok(None) => {}
            Ok(Some(records)) => {
                facts.problems.extend(records.problems.iter().cloned());
                facts.campaign = Some(records);
            }
            Err(LedgerError::File(error)) => {
                facts.problems.push(Problem::of(campaign_folder(lab).join("campaign.json"), &error));
            }
            Err(error) => return Err(error),
        }
        Ok(facts)
    }

    fn read_run(&mut self, lab: &Path, id: &str, manifest_is_known: bool) {
        let folder = run_folder(lab, id);
        if !manifest_is_known {
            let path = folder.join("run.json");
            match read_json::<RunManifest>(&path) {
                Ok(manifest) if manifest.id == id => self.runs.push(manifest),
                Ok(manifest) => return self.problem(path, &manifest.id),
                // A run that is being created has no manifest yet.
                Err(error) if is_missing(&error) => return,
                Err(error) => return self.problems.push(Problem::of(path, &error)),
            }
        }
        let path = folder.join("result.json");
        match read_json::<RunResult>(&path) {
            Ok(result) if result.id == id => self.results.push(result),
            Ok(result) => self.problem(path, &result.id),
            Err(error) if is_missing(&error) => {}
            Err(error) => self.problems.push(Problem::of(path, &error)),
        }
    }

    fn problem(&mut self, path: PathBuf, id: &str) {
        self.problems.push(Problem { path, message: format!("belongs to run {id}, not to its folder") });
    }

    pub(crate) fn insert(&self, connection: &mut Connection) -> rusqlite::Result<Refresh> {
        let nothing_new = self.runs.is_empty() && self.results.is_empty() && self.campaign.is_none();
        if nothing_new {
            return Ok(Refresh::default());
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let added = Refresh {
            runs: insert_runs(&transaction, &self.runs)?,
            results: insert_results(&transaction, &self.results)?,
            documents: self
                .campaign
                .as_ref()
                .map_or(Ok(0), |records| insert_campaign(&transaction, records))?,
        };
        transaction.commit()?;
        Ok(added)
    }
}

fn insert_runs(transaction: &Transaction<'_>, runs: &[RunManifest]) -> rusqlite::Result<u64> {
    let sql =
        "INSERT INTO runs (id, created_unix_s, fingerprint, document, checksum) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut insert = transaction.prepare(sql)?;
    let mut added = 0;
    for run in runs {
        let (document, checksum) = text_of(run);
        let row = params![run.id, run.created_unix_s as i64, run.fingerprint, document, checksum];
        added += insert.execute(row)? as u64;
    }
    Ok(added)
}

fn insert_results(transaction: &Transaction<'_>, results: &[RunResult]) -> rusqlite::Result<u64> {
    let sql = "INSERT INTO results (run, document, checksum) VALUES (?1, ?2, ?3)";
    let mut insert = transaction.prepare(sql)?;
    let mut added = 0;
    for result in results {
        let (document, checksum) = text_of(result);
        added += insert.execute(params![result.id, document, checksum])? as u64;
    }
    Ok(added)
}

fn insert_campaign(transaction: &Transaction<'_>, records: &CampaignRecords) -> rusqlite::Result<u64> {
    let id = &records.manifest.id;
    let (document, checksum) = text_of(&records.manifest);
    let sql = "INSERT INTO campaigns (id, created_unix_s, document, checksum) VALUES (?1, ?2, ?3, ?4)";
    let row = params![id, records.manifest.created_unix_s as i64, document, checksum];
    let manifests = transaction.execute(sql, row)? as u64;
    let proposals = numbered(transaction, "proposals", "number", id, &records.proposals, |p| p.number)?;
    let verdicts = numbered(transaction, "verdicts", "proposal", id, &records.verdicts, |v| v.proposal)?;
    let promotions =
        numbered(transaction, "promotions", "generation", id, &records.promotions, |p| p.generation)?;
    let prunings = numbered(transaction, "prunings", "number", id, &records.prunings, |p| p.number)?;
    let retractions = numbered(transaction, "retractions", "number", id, &records.retractions, |r| r.number)?;
    let replications = insert_replications(transaction, id, &records.replications)?;
    Ok(manifests + proposals + verdicts + promotions + prunings + retractions + replications)
}

fn insert_replications(
    transaction: &Transaction<'_>,
    campaign: &str,
    records: &[Replication],
) -> rusqlite::Result<u64> {
    let sql = "INSERT INTO replications (campaign, proposal, number, document, checksum) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut insert = transaction.prepare(sql)?;
    let mut added = 0;
    for record in records {
        let (document, checksum) = text_of(record);
        let row = params![campaign, record.proposal as i64, record.number as i64, document, checksum];
        added += insert.execute(row)? as u64;
    }
    Ok(added)
}

fn numbered<T: Serialize>(
    transaction: &Transaction<'_>,
    table: &'static str,
    column: &'static str,
    campaign: &str,
    records: &[T],
    number_of: impl Fn(&T) -> u64,
) -> rusqlite::Result<u64> {
    let sql = format!("INSERT INTO {table} (campaign, {column}, document, checksum) VALUES (?1, ?2, ?3, ?4)");
    let mut insert = transaction.prepare(&sql)?;
    let mut added = 0;
    for record in records {
        let (document, checksum) = text_of(record);
        added += insert.execute(params![campaign, number_of(record) as i64, document, checksum])? as u64;
    }
    Ok(added)
}

fn text_of<T: Serialize>(record: &T) -> (String, i64) {
    let document = serde_json::to_string(record).expect("records have string keys");
    let checksum = schema::checksum(&document);
    (document, checksum)
}
