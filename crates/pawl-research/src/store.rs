//! The campaign's folder: its documents read, written and numbered, and the lock that keeps it to one
//! process.
//!
//! A document is written once and atomically; nothing here decides.

use crate::campaign::CampaignError;
use pawl_record::{
    CampaignEnd, CampaignManifest, FileError, FinalMeasurement, Noise, Promotion, Proposal, Pruning,
    RecipeRef, Replication, Retraction, Verdict, read_json, write_atomic, write_json,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, TryLockError};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

/// `lab/campaign`.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// Held as long as the campaign runs; the operating system releases it however the process ends.
pub struct Lock {
    _file: File,
}

/// Takes `lab/lock`, or says who may hold it.
pub fn lock(lab: &Path) -> Result<Lock, CampaignError> {
    let io = |source| CampaignError::Io { path: lab.join("lock"), source };
    fs::create_dir_all(lab).map_err(io)?;
    let file = File::options().create(true).append(true).open(lab.join("lock")).map_err(io)?;
    for tries_left in (0..LOCK_TRIES).rev() {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file }),
            // It may be somebody who looks whether it is held.
            Err(TryLockError::WouldBlock) if tries_left > 0 => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
    }
    Err(CampaignError::Locked { lab: lab.to_path_buf() })
}

const LOCK_TRIES: usize = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Whether a process works in the lab, as far as the system says.
pub fn is_worked_in(lab: &Path) -> bool {
    let Ok(file) = File::options().append(true).open(lab.join("lock")) else { return false };
    // The lock is given back with the file.
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

impl Store {
    /// The campaign folder of a lab, which need not exist.
    pub fn new(lab: &Path) -> Store {
        Store { folder: lab.join("campaign") }
    }

    /// A path below the campaign's folder. Records name files; one that leads out of the folder is none.
    pub fn path(&self, below: &str) -> PathBuf {
        let stays = Path::new(below).components().all(|part| matches!(part, Component::Normal(_)));
        if stays { self.folder.join(below) } else { self.folder.join("leads-out-of-the-campaign") }
    }

    /// The manifest, if there is a campaign.
    pub fn manifest(&self) -> Result<Option<CampaignManifest>, FileError> {
        self.read("campaign.json")
    }

    /// The noise, if it was measured.
    pub fn noise(&self) -> Result<Option<Noise>, FileError> {
        self.read("noise.json")
    }

    /// The final measurement, if there is one.
    pub fn final_measurement(&self) -> Result<Option<FinalMeasurement>, FileError> {
        self.read("final.json")
    }

    /// Totals at the last stop, if it has stopped.
    pub fn end(&self) -> Result<Option<CampaignEnd>, FileError> {
        self.read("end.json")
    }

    /// Proposals in order.
    pub fn proposals(&self) -> Result<Vec<Proposal>, FileError> {
        self.read_numbered("proposals", 1)
    }

    /// One proposal.
    pub fn proposal(&self, number: u64) -> Result<Option<Proposal>, FileError> {
        self.read(&format!("proposals/{number:04}.json"))
    }

    /// Verdicts by number of the proposal; a proposal without one was interrupted.
    pub fn verdict(&self, number: u64) -> Result<Option<Verdict>, FileError> {
        self.read(&format!("verdicts/{number:04}.json"))
    }

    /// Champions by generation.
    pub fn champions(&self) -> Result<Vec<Promotion>, FileError> {
        self.read_numbered("champions", 0)
    }

    /// Parts that were left out and tried, in order.
    pub fn prunings(&self) -> Result<Vec<Pruning>, FileError> {
        self.read_numbered("prunings", 1)
    }

    /// Keeps withdrawn, in order.
    pub fn retractions(&self) -> Result<Vec<Retraction>, FileError> {
        self.read_numbered("retractions", 1)
    }

    /// Replications by proposal and number.
    pub fn replications(&self) -> Result<Vec<Replication>, FileError> {
        let mut documents = Vec::new();
        for proposal in self.proposals()? {
            let mut number = 1;
            while let Some(it) = self.read(&format!("replications/{:04}-{number}.json", proposal.number))? {
                documents.push(it);
                number += 1;
            }
        }
        Ok(documents)
    }

    /// Writes the document of that name, once it is complete.
    pub fn write<T: Serialize>(&self, name: &str, document: &T) -> Result<(), CampaignError> {
        let path = self.path(name);
        let folder = path.parent().expect("a document lies in the campaign's folder");
        fs::create_dir_all(folder)
            .map_err(|source| CampaignError::Io { path: folder.to_path_buf(), source })?;
        Ok(write_json(&path, document)?)
    }

    /// Keeps a recipe text with the campaign and returns how it is referred to.
    pub fn keep_recipe(&self, name: &str, text: &str) -> Result<RecipeRef, CampaignError> {
        let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
        let stem = Path::new(name).file_stem().map_or_else(|| "recipe".into(), |stem| stem.to_string_lossy());
        // Two texts of one name may meet in a campaign; the first has the plain name.
        let plain = format!("recipes/{stem}.star");
        let taken = fs::read_to_string(self.path(&plain)).is_ok_and(|other| other != text);
        let file = if taken { format!("recipes/{stem}-{}.star", &hash[..8]) } else { plain };
        let path = self.path(&file);
        let folder = path.parent().expect("recipes lie in a folder");
        fs::create_dir_all(folder)
            .map_err(|source| CampaignError::Io { path: folder.to_path_buf(), source })?;
        write_atomic(&path, text.as_bytes())?;
        Ok(RecipeRef { name: stem.to_string(), hash, file })
    }

    /// Keeps the text of a draft that is only looked at, under a name made of its content.
    pub fn keep_draft(&self, text: &str) -> Result<PathBuf, CampaignError> {
        let hash = blake3::hash(text.as_bytes()).to_hex();
        let folder = self.path("drafts");
        let path = folder.join(format!("draft-{}.star", &hash[..12]));
        // What is asked for again is the last to be forgotten.
        let touch = |file: File| file.set_modified(SystemTime::now());
        if File::options().append(true).open(&path).and_then(touch).is_err() {
            let io = |source| CampaignError::Io { path: folder.clone(), source };
            fs::create_dir_all(&folder).map_err(io)?;
            forget_oldest(&folder, MAX_DRAFTS).map_err(io)?;
            write_atomic(&path, text.as_bytes())?;
        }
        Ok(path)
    }

    /// The numbers of the documents `NNNN.json` of a folder, in order.
    pub fn numbers(&self, folder: &str) -> Result<Vec<u64>, CampaignError> {
        let path = self.path(folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(CampaignError::Io { path, source }),
        };
        let number = |name: &str| name.strip_suffix(".json").and_then(|number| number.parse().ok());
        let mut numbers: Vec<u64> =
            entries.filter_map(|entry| number(entry.ok()?.file_name().to_str()?)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, FileError> {
        let path = self.path(name);
        if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
    }

    fn read_numbered<T: DeserializeOwned>(&self, folder: &str, first: u64) -> Result<Vec<T>, FileError> {
        let mut documents = Vec::new();
        while let Some(document) =
            self.read(&format!("{folder}/{:04}.json", first + documents.len() as u64))?
        {
            documents.push(document);
        }
        Ok(documents)
    }
}

/// Texts that were only looked at and are kept: whoever looks can fill no disk.
const MAX_DRAFTS: usize = 512;

/// Makes room in a folder of `most` files for one more.
fn forget_oldest(folder: &Path, most: usize) -> std::io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Another process may be writing one, or have forgotten it since the folder was listed.
        let is_being_written = entry.file_name().to_string_lossy().starts_with('.');
        let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
        if !is_being_written {
            files.push((modified, entry.path()));
        }
    }
    files.sort();
    for (_, path) in files.iter().take((files.len() + 1).saturating_sub(most)) {
        // Another process may have been first.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_were_looked_at_fill_no_disk() {
        let lab = tempfile::tempdir().unwrap();
        let store = Store::new(lab.path());
        let kept: Vec<PathBuf> =
            (0..MAX_DRAFTS + 3).map(|i| store.keep_draft(&format!("x = {i}")).unwrap()).collect();
        assert_eq!(fs::read_dir(store.path("drafts")).unwrap().count(), MAX_DRAFTS);
        assert!(kept.last().unwrap().exists() && !kept[0].exists());
        // The oldest is the next to go, unless it is asked for again.
        let oldest = &kept[3];
        assert_eq!(&store.keep_draft("x = 3").unwrap(), oldest);
        store.keep_draft("y").unwrap();
        assert!(oldest.exists() && !kept[4].exists());
    }

    #[test]
    fn one_text_may_be_kept_by_many_at_once() {
        let lab = tempfile::tempdir().unwrap();
        let text = "x = 1\n".repeat(1000);
        for round in 0..50 {
            let store = Store::new(&lab.path().join(round.to_string()));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let path = store.keep_draft(&text).unwrap();
                        assert_eq!(fs::read_to_string(path).unwrap(), text);
                    });
                }
            });
        }
    }

    #[test]
    fn a_path_in_a_record_stays_in_the_campaign() {
        let store = Store::new(Path::new("lab"));
        assert_eq!(store.path("recipes/a.star"), Path::new("lab/campaign/recipes/a.star"));
        for out in ["../x", "recipes/../../x", "/etc/passwd"] {
            assert_eq!(store.path(out), Path::new("lab/campaign/leads-out-of-the-campaign"), "{out}");
        }
    }
}
