//! A run directory: `run.json`, `recipe.star` and what it loads, `events.jsonl`, `result.json`, `last/`, `best/`.

use crate::lesson::recipe_lesson;
use crate::pretrain::TrainError;
use pawl_model::{Model, load_checkpoint};
use pawl_recipe::{Overrides, Recipe, Source};
use pawl_record::{
    CheckpointManifest, Event, FileError, LessonManifest, RunManifest, RunResult, read_json, write_atomic,
    write_json,
};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The files of a tokenizer.
const TOKENIZER: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

/// What makes a run a lesson.
const LESSON: &str = "lesson.json";

/// Paths of one run and its open event log.
pub struct RunDir {
    folder: PathBuf,
    lock: File,
    events: Option<BufWriter<File>>,
}

impl RunDir {
    /// Where run `id` of a lab lies.
    pub fn path(lab: &Path, id: &str) -> PathBuf {
        lab.join("runs").join(id)
    }

    /// The finished result of a run, if there is one.
    pub fn result(lab: &Path, id: &str) -> Result<Option<RunResult>, FileError> {
        let path = RunDir::path(lab, id).join("result.json");
        if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
    }

    /// The manifest of a run.
    pub fn manifest(lab: &Path, id: &str) -> Result<RunManifest, FileError> {
        read_json(&RunDir::path(lab, id).join("run.json"))
    }

    /// Makes the directory, or opens the one that an interrupted process left, for this process alone.
    pub(crate) fn open(
        lab: &Path,
        manifest: &RunManifest,
        recipe: &Recipe,
        lesson: Option<&LessonManifest>,
    ) -> Result<RunDir, TrainError> {
        let folder = RunDir::path(lab, &manifest.id);
        let io = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| TrainError::File(FileError::Io { action, path, source })
        };
        fs::create_dir_all(&folder).map_err(io("create", &folder))?;
        let lock_path = folder.join("lock");
        let lock = File::create(&lock_path).map_err(io("create", &lock_path))?;
        if lock.try_lock().is_err() {
            return Err(TrainError::Busy { id: manifest.id.clone() });
        }
        if !folder.join("run.json").exists() {
            write_atomic(&folder.join("recipe.star"), recipe.text().as_bytes())?;
            write_json(&folder.join("loads.json"), recipe.texts())?;
            if let Some(lesson) = lesson {
                write_json(&folder.join(LESSON), lesson)?;
                // A tokenizer that came with a checkpoint lies beside its run, and so beside what that is taught.
                for name in TOKENIZER {
                    let of_parent = RunDir::path(lab, &lesson.parent).join(name);
                    if of_parent.exists() {
                        let text = fs::read(&of_parent).map_err(io("read", &of_parent))?;
                        write_atomic(&folder.join(name), &text)?;
                    }
                }
            }
            write_json(&folder.join("run.json"), manifest)?;
        }
        Ok(RunDir { folder, lock, events: None })
    }

    /// What the run was taught, if it is a lesson.
    pub fn lesson(lab: &Path, id: &str) -> Result<Option<LessonManifest>, FileError> {
        let path = RunDir::path(lab, id).join(LESSON);
        if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
    }

    /// A file of the directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder of the last, or the best, checkpoint.
    pub(crate) fn checkpoint(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Appends to `events.jsonl`. Lines are buffered until [`RunDir::flush`].
    pub(crate) fn log(&mut self, event: &Event) -> Result<(), FileError> {
        let path = self.folder.join("events.jsonl");
        let io = |action: &'static str| {
            let path = path.clone();
            move |source| FileError::Io { action, path, source }
        };
        if self.events.is_none() {
            let file = open_whole_lines(&path).map_err(io("append to"))?;
            self.events = Some(BufWriter::new(file));
        }
        let writer = self.events.as_mut().expect("opened above");
        let mut line = serde_json::to_vec(event).expect("events have string keys and finite numbers");
        line.push(b'\n');
        writer.write_all(&line).map_err(io("append to"))
    }

    /// Hands buffered events to the operating system.
    pub(crate) fn flush(&mut self) -> Result<(), FileError> {
        let path = self.folder.join("events.jsonl");
        match self.events.as_mut() {
            Some(writer) => {
                writer.flush().map_err(|source| FileError::Io { action: "append to", path, source })
            }
            None => Ok(()),
        }
    }

    /// Writes the result: the run is over.
    pub(crate) fn finish(&mut self, result: &RunResult) -> Result<(), FileError> {
        self.flush()?;
        write_json(&self.folder.join("result.json"), result)
    }

    /// Deletes the checkpoints of a run that is only wanted for its score.
    pub(crate) fn discard_checkpoints(&self) -> Result<(), FileError> {
        for name in ["last", "best"] {
            let path = self.folder.join(name);
            if path.exists() {
                fs::remove_dir_all(&path).map_err(|source| FileError::Io {
                    action: "remove",
                    path,
                    source,
                })?;
            }
        }
        Ok(())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Closing the file releases the lock in any case; an error here changes nothing.
        let _ = self.lock.unlock();
    }
}

/// Opens a log for appending, first cutting a line that a crash left unfinished.
pub(crate) fn open_whole_lines(path: &Path) -> std::io::Result<File> {
    let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    let mut end = file.metadata()?.len();
    let mut byte = [0];
    while end > 0 {
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            break;
        }
        end -= 1;
    }
    file.set_len(end)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

/// The model of a run at its last checkpoint, on `num_threads` threads.
pub fn load_model(
    lab: &Path,
    id: &str,
    num_threads: usize,
) -> Result<(Model, CheckpointManifest), TrainError> {
    let folder = RunDir::path(lab, id);
    let manifest = RunDir::manifest(lab, id)?;
    let mut model = Model::new(stored_recipe(&folder, &manifest)?, num_threads, manifest.init_seed)?;
    match load_checkpoint(&folder.join("last"), &mut model)? {
        Some(checkpoint) => Ok((model, checkpoint)),
        None => Err(TrainError::NoCheckpoint { id: id.to_string() }),
    }
}

/// The same without what trains it, for scores and text.
pub fn load_frozen(lab: &Path, id: &str, num_threads: usize) -> Result<Model, TrainError> {
    let folder = RunDir::path(lab, id);
    let manifest = RunDir::manifest(lab, id)?;
    let mut model = Model::frozen(stored_recipe(&folder, &manifest)?, num_threads)?;
    match load_checkpoint(&folder.join("last"), &mut model)? {
        Some(_) => Ok(model),
        None => Err(TrainError::NoCheckpoint { id: id.to_string() }),
    }
}

/// The recipe of a run as it was.
pub fn recipe_of(lab: &Path, id: &str) -> Result<Recipe, TrainError> {
    stored_recipe(&RunDir::path(lab, id), &RunDir::manifest(lab, id)?)
}

/// The recipe of a run as it was, with everything it loaded.
pub(crate) fn stored_recipe(folder: &Path, manifest: &RunManifest) -> Result<Recipe, TrainError> {
    let texts: BTreeMap<String, String> = read_json(&folder.join("loads.json"))?;
    let path = folder.join("recipe.star");
    let text = fs::read_to_string(&path).map_err(|source| FileError::Io { action: "read", path, source })?;
    let source = Source { name: manifest.recipe.clone(), text };
    let mut values = manifest.settings.clone();
    values.remove("depth");
    let depth = (manifest.depth > 0).then_some(manifest.depth);
    let load =
        |name: &str| texts.get(name).cloned().ok_or_else(|| format!("{name} is not stored with the run"));
    let path = folder.join(LESSON);
    let lesson: Option<LessonManifest> = if path.exists() { Some(read_json(&path)?) } else { None };
    let lesson = lesson.map(|lesson| recipe_lesson(&lesson, texts.get(&lesson.objective).cloned()));
    Ok(Recipe::load_lesson(&source, &Overrides { depth, values }, &load, lesson.as_ref())?)
}
