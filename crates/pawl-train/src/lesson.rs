//! What supervised fine-tuning and reinforcement learning share: a run that begins from another run's checkpoint, with
//! the objective, the batch and the identity of a lesson.

use crate::identity::{RunRequest, identify};
use crate::pretrain::{State, TrainError};
use crate::run_dir::{RunDir, stored_recipe};
use pawl_model::{Model, load_start};
use pawl_recipe::{Lesson, Overrides, Recipe, Source, std_only};
use pawl_record::{
    CheckpointManifest, DataRef, FileError, LessonEvent, LessonManifest, LessonTask, RunManifest, SCHEMA,
    Settings, read_json,
};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What is asked of a lesson.
pub struct LessonRequest {
    /// Id of the run to begin from.
    pub parent: String,
    /// The file with the loss.
    pub objective: Source,
    /// Numbers for each target that the loss is given.
    pub signals: &'static [&'static str],
    /// Settings of the recipe and of the objective.
    pub values: Settings,
    /// Rows of an update.
    pub num_rows: usize,
    /// Tokens of a row.
    pub row_len: usize,
    /// Whether the recipe drops out.
    pub dropout: bool,
    /// Go on with the parent's optimizer state.
    pub keep_state: bool,
    /// What is taught.
    pub task: LessonTask,
    /// Budget and seeds.
    pub request: RunRequest,
}

/// A lesson that is ready to be given.
pub struct Taught {
    /// Model, optimizer and objective.
    pub recipe: Recipe,
    /// The run.
    pub manifest: RunManifest,
    /// What makes it a lesson.
    pub lesson: LessonManifest,
    /// Id of the parent, as its checkpoint lies there.
    start: PathBuf,
}

/// Compiles the lesson that a parent run is to be given.
pub fn lesson(lab: &Path, asked: LessonRequest) -> Result<Taught, TrainError> {
    let folder = RunDir::path(lab, &asked.parent);
    let parent = RunDir::manifest(lab, &asked.parent)?;
    let start = folder.join("last");
    let checkpoint_path = start.join("checkpoint.json");
    if !checkpoint_path.exists() {
        return Err(TrainError::NoCheckpoint { id: asked.parent });
    }
    let checkpoint: CheckpointManifest = read_json(&checkpoint_path)?;
    let before = stored_recipe(&folder, &parent)?;
    let mut values = parent.settings.clone();
    values.remove("depth");
    for setting in before.lesson_settings() {
        values.remove(&setting.name);
    }
    values.extend(asked.values);
    let given = Lesson {
        source: asked.objective,
        signals: asked.signals.iter().map(ToString::to_string).collect(),
        num_rows: asked.num_rows,
        row_len: asked.row_len,
        dropout: asked.dropout,
    };
    let stored = before.texts().clone();
    let load = |name: &str| stored.get(name).map_or_else(|| std_only(name), |text| Ok(text.clone()));
    let source = Source { name: before.name().to_string(), text: before.text().to_string() };
    let overrides = Overrides { depth: (parent.depth > 0).then_some(parent.depth), values };
    // The recipe is what it was; the library that it loaded lies beside it, and what the objective loads comes fresh.
    let recipe = Recipe::load_lesson(&source, &overrides, &load, Some(&given))?;
    let summary = recipe.summary()?;
    let age =
        checkpoint.step + RunDir::lesson(lab, &asked.parent)?.and_then(|l| l.kept_state_age).unwrap_or(0);
    let lesson = LessonManifest {
        schema: SCHEMA,
        parent: asked.parent,
        parent_hash: checkpoint.hash,
        kept_state_age: asked.keep_state.then_some(age),
        objective: given.source.name,
        signals: given.signals,
        num_rows: given.num_rows as u64,
        row_len: given.row_len as u64,
        dropout: given.dropout,
        max_grad_norm: recipe.max_grad_norm(),
        task: asked.task,
    };
    let text = serde_json::to_vec(&lesson).expect("lessons have string keys and finite numbers");
    let data = DataRef { name: parent.data.name, hash: blake3::hash(&text).to_hex().to_string() };
    let manifest = identify(&recipe, summary.fingerprint, summary.flops_per_step, data, &asked.request);
    Ok(Taught { recipe, manifest, lesson, start })
}

/// A stored lesson as recipes know it.
pub(crate) fn recipe_lesson(lesson: &LessonManifest, text: Option<String>) -> Lesson {
    Lesson {
        source: Source { name: lesson.objective.clone(), text: text.unwrap_or_default() },
        signals: lesson.signals.clone(),
        num_rows: lesson.num_rows as usize,
        row_len: lesson.row_len as usize,
        dropout: lesson.dropout,
    }
}

/// The model where the lesson stands: at its own last checkpoint, or at its parent's.
pub(crate) fn begin(
    dir: &RunDir,
    start: &Start,
    model: &mut Model,
    manifest: &RunManifest,
) -> Result<State, TrainError> {
    let state = State::begin(dir, model, manifest)?;
    if state.step == 0 {
        start.load(model)?;
    }
    Ok(state)
}

/// Where a lesson begins.
pub(crate) struct Start {
    folder: PathBuf,
    hash: String,
    id: String,
    keep_state: bool,
}

impl Start {
    /// The parent's parameters, and its optimizer state where it is kept.
    pub(crate) fn load(&self, model: &mut Model) -> Result<(), TrainError> {
        let found = load_start(&self.folder, model, self.keep_state)?;
        match found {
            Some(checkpoint) if checkpoint.hash == self.hash => Ok(()),
            Some(_) => Err(TrainError::Lesson(format!(
                "run {} has another checkpoint now than the one that the lesson began from",
                self.id
            ))),
            None => Err(TrainError::NoCheckpoint { id: self.id.clone() }),
        }
    }
}

impl Taught {
    /// Where it begins.
    pub(crate) fn start(&self) -> Start {
        Start {
            folder: self.start.clone(),
            hash: self.lesson.parent_hash.clone(),
            id: self.lesson.parent.clone(),
            keep_state: self.lesson.kept_state_age.is_some(),
        }
    }
}

/// `lesson.jsonl`, open at its end.
pub(crate) struct LessonLog {
    path: PathBuf,
    file: std::fs::File,
}

impl LessonLog {
    /// Opens the file; a line that a crash left unfinished is cut off.
    pub(crate) fn open(path: PathBuf) -> Result<LessonLog, FileError> {
        let opened = crate::run_dir::open_whole_lines(&path);
        match opened {
            Ok(file) => Ok(LessonLog { path, file }),
            Err(source) => Err(FileError::Io { action: "append to", path, source }),
        }
    }

    /// Every event that is in the file; a line that a crash left unfinished is none.
    pub(crate) fn read(path: &Path) -> Result<Vec<LessonEvent>, FileError> {
        let Ok(text) = std::fs::read_to_string(path) else { return Ok(Vec::new()) };
        let text = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let malformed = |source| FileError::Malformed { path: path.to_path_buf(), source };
        text.lines().map(|line| pawl_record::from_json(line.as_bytes()).map_err(malformed)).collect()
    }

    pub(crate) fn log<T: serde::Serialize>(&mut self, event: &T) -> Result<(), FileError> {
        let mut line = serde_json::to_vec(event).expect("events have string keys and finite numbers");
        line.push(b'\n');
        self.file.write_all(&line).map_err(|source| FileError::Io {
            action: "append to",
            path: self.path.clone(),
            source,
        })
    }

    /// Waits until everything logged is on the disk.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        self.file.sync_data().map_err(|source| FileError::Io {
            action: "sync",
            path: self.path.clone(),
            source,
        })
    }
}
