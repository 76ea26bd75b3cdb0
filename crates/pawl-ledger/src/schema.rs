//! The tables of the index and the triggers that make them append-only.
//!
//! Every table is keyed by what the fact is about, never by the order of insertion, so that an index
//! built at once and one grown run by run hold the same rows in the same order.

use rusqlite::{Connection, Result};

/// Table and key columns of each kind of fact.
const TABLES: [(&str, &str, &str); 9] = [
    ("runs", "id", "id TEXT NOT NULL, created_unix_s INTEGER NOT NULL, fingerprint TEXT NOT NULL"),
    ("results", "run", "run TEXT NOT NULL"),
    ("campaigns", "id", "id TEXT NOT NULL, created_unix_s INTEGER NOT NULL"),
    ("proposals", "campaign, number", "campaign TEXT NOT NULL, number INTEGER NOT NULL"),
    ("verdicts", "campaign, proposal", "campaign TEXT NOT NULL, proposal INTEGER NOT NULL"),
    ("promotions", "campaign, generation", "campaign TEXT NOT NULL, generation INTEGER NOT NULL"),
    ("prunings", "campaign, number", "campaign TEXT NOT NULL, number INTEGER NOT NULL"),
    ("retractions", "campaign, number", "campaign TEXT NOT NULL, number INTEGER NOT NULL"),
    (
        "replications",
        "campaign, proposal, number",
        "campaign TEXT NOT NULL, proposal INTEGER NOT NULL, number INTEGER NOT NULL",
    ),
];

/// The statements that make an empty database a ledger, in order.
fn statements() -> Vec<String> {
    let mut all = Vec::new();
    for (table, key, columns) in TABLES {
        all.push(format!(
            "CREATE TABLE {table} ({columns}, document TEXT NOT NULL, checksum INTEGER NOT NULL, \
             PRIMARY KEY ({key})) STRICT, WITHOUT ROWID"
        ));
        for action in ["UPDATE", "DELETE"] {
            all.push(format!(
                "CREATE TRIGGER {table}_refuse_{action} BEFORE {action} ON {table} \
                 BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
            ));
        }
        // INSERT OR REPLACE deletes without firing a delete trigger: the first fact stays instead.
        let same = key.split(", ").map(|column| format!("{column} = NEW.{column}")).collect::<Vec<_>>();
        all.push(format!(
            "CREATE TRIGGER {table}_keep_first BEFORE INSERT ON {table} \
             WHEN EXISTS (SELECT 1 FROM {table} WHERE {}) BEGIN SELECT RAISE(IGNORE); END",
            same.join(" AND ")
        ));
    }
    all.push("CREATE INDEX runs_newest ON runs (created_unix_s DESC, id)".into());
    all.push("CREATE INDEX runs_program ON runs (fingerprint)".into());
    all
}

pub(crate) fn create(connection: &Connection) -> Result<()> {
    for statement in statements() {
        connection.execute(&statement, [])?;
    }
    Ok(())
}

/// Whether the database has exactly our tables, triggers and indices, as this version writes them.
pub(crate) fn is_current(connection: &Connection) -> Result<bool> {
    let mut found = connection
        .prepare("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")?
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>>>()?;
    let mut expected = statements();
    found.sort();
    expected.sort();
    Ok(found == expected)
}

/// FNV-1a of a document: SQLite checks its own structure, not the text in it, and a document whose
/// digits were overwritten would still read as a number.
pub(crate) fn checksum(document: &str) -> i64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    document.bytes().fold(0xcbf2_9ce4_8422_2325, mix) as i64
}

/// The first table that holds a document other than the one that was written.
pub(crate) fn find_altered(connection: &Connection) -> Result<Option<&'static str>> {
    for (table, _, _) in TABLES {
        let mut select = connection.prepare(&format!("SELECT document, checksum FROM {table}"))?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            if checksum(row.get_ref(0)?.as_str()?) != row.get::<_, i64>(1)? {
                return Ok(Some(table));
            }
        }
    }
    Ok(None)
}

/// Whether the database has no table at all, as a truncated file has.
pub(crate) fn is_empty(connection: &Connection) -> Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_master", [], |row| row.get(0))
}
