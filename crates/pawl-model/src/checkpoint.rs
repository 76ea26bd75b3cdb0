//! Checkpoints: `tensors.safetensors` with parameters and optimizer state, and `checkpoint.json` that
//! names the hash of each tensor and the position of the data. A folder is written under a temporary
//! name, synced, and renamed over the old one.

use crate::model::Model;
use pawl_record::{CheckpointManifest, FileError, TensorHash, read_json, write_json};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A checkpoint could not be written or read back.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A record beside the tensors.
    #[error(transparent)]
    File(#[from] FileError),
    /// The operating system refused.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tensors are not those of the manifest or of the model.
    #[error("{path} does not fit: {because}")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// How.
        because: String,
    },
}

const TENSORS: &str = "tensors.safetensors";
const MANIFEST: &str = "checkpoint.json";

/// Hash of each tensor and over all of them.
fn hashes(model: &Model) -> (Vec<TensorHash>, String) {
    let mut all = blake3::Hasher::new();
    let tensors = model.tensors().into_iter().map(|(name, buffer)| {
        let hash = blake3::hash(buffer.bytes());
        all.update(name.as_bytes()).update(hash.as_bytes());
        TensorHash { name: name.to_string(), blake3: hash.to_hex().to_string() }
    });
    let tensors = tensors.collect();
    (tensors, all.finalize().to_hex().to_string())
}

/// Writes the model's tensors and `manifest` (whose hashes are filled in here) to `folder`. Returns the hash
/// over all tensors.
pub fn save_checkpoint(
    folder: &Path,
    model: &Model,
    mut manifest: CheckpointManifest,
) -> Result<String, CheckpointError> {
    let io = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| CheckpointError::Io { action, path, source }
    };
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_string();
    let fresh = folder.with_file_name(format!(".{name}.new"));
    let stale = folder.with_file_name(format!(".{name}.old"));
    if stale.exists() && !folder.exists() {
        // A crash between the two renames below: what lies there is the only checkpoint.
        fs::rename(&stale, folder).map_err(io("rename", &stale))?;
    }
    for left_over in [&fresh, &stale] {
        if left_over.exists() {
            fs::remove_dir_all(left_over).map_err(io("remove", left_over))?;
        }
    }
    fs::create_dir_all(&fresh).map_err(io("create", &fresh))?;
    let views: Vec<(&str, TensorView<'_>)> = model
        .tensors()
        .into_iter()
        .map(|(name, buffer)| {
            let view = TensorView::new(Dtype::F32, vec![buffer.len()], buffer.bytes());
            (name, view.expect("four bytes an element"))
        })
        .collect();
    let path = fresh.join(TENSORS);
    safetensors::serialize_to_file(views, None, &path).map_err(|error| CheckpointError::Io {
        action: "write",
        path: path.clone(),
        source: io::Error::other(error.to_string()),
    })?;
    File::open(&path).and_then(|file| file.sync_all()).map_err(io("sync", &path))?;
    (manifest.tensors, manifest.hash) = hashes(model);
    write_json(&fresh.join(MANIFEST), &manifest)?;
    if folder.exists() {
        fs::rename(folder, &stale).map_err(io("rename", folder))?;
    }
    fs::rename(&fresh, folder).map_err(io("rename", &fresh))?;
    if let Some(parent) = folder.parent() {
        File::open(parent).and_then(|file| file.sync_all()).map_err(io("sync", parent))?;
    }
    if stale.exists() {
        fs::remove_dir_all(&stale).map_err(io("remove", &stale))?;
    }
    Ok(manifest.hash)
}

/// Reads a checkpoint into the model and returns its manifest; `None` where there is none.
pub fn load_checkpoint(
    folder: &Path,
    model: &mut Model,
) -> Result<Option<CheckpointManifest>, CheckpointError> {
    with_tensors(folder, |tensors| {
        let names: Vec<String> = model.tensors().iter().map(|(name, _)| name.to_string()).collect();
        // A checkpoint of parameters alone, as an import leaves it, begins with fresh optimizer state; a frozen model
        // has no use for the state of a checkpoint. What else is missing or too much belongs to another recipe.
        let parameters_alone = tensors.names().iter().all(|name| is_parameter(name));
        if let Some(unknown) = tensors.names().iter().find(|known| !names.iter().any(|name| name == **known))
            && (is_parameter(unknown) || !model.is_frozen())
        {
            return Err(format!("the recipe has no tensor {unknown}"));
        }
        names
            .iter()
            .filter(|name| is_parameter(name) || !parameters_alone)
            .try_for_each(|name| fill(model, name, tensors))
    })
}

/// Takes the parameters of another run's checkpoint as first values, and its optimizer state where `keep_state` says
/// so; otherwise the state stays at zero. What the checkpoint has beside is left.
pub fn load_start(
    folder: &Path,
    model: &mut Model,
    keep_state: bool,
) -> Result<Option<CheckpointManifest>, CheckpointError> {
    with_tensors(folder, |tensors| {
        let names: Vec<String> = model.tensors().iter().map(|(name, _)| name.to_string()).collect();
        names
            .iter()
            .filter(|name| keep_state || is_parameter(name))
            .try_for_each(|name| fill(model, name, tensors))
    })
}

/// Hands over the tensors of a checkpoint once they are shown to be those of its manifest, which is returned; `None`
/// where there is none. A crash between the two renames of a save leaves the previous checkpoint beside, which is
/// read instead. The error of `take` says what does not fit.
fn with_tensors(
    folder: &Path,
    take: impl FnOnce(&SafeTensors<'_>) -> Result<(), String>,
) -> Result<Option<CheckpointManifest>, CheckpointError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_string();
    let candidates = [folder.to_path_buf(), folder.with_file_name(format!(".{name}.old"))];
    let Some(folder) = candidates.into_iter().find(|f| f.join(MANIFEST).exists()) else { return Ok(None) };
    let manifest: CheckpointManifest = read_json(&folder.join(MANIFEST))?;
    let path = folder.join(TENSORS);
    let mismatch = |because: String| CheckpointError::Mismatch { path: path.clone(), because };
    let bytes = fs::read(&path).map_err(|source| CheckpointError::Io {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| mismatch(e.to_string()))?;
    if hash_of(&tensors) != manifest.hash {
        return Err(mismatch("its bytes differ from the hashes in checkpoint.json".to_string()));
    }
    take(&tensors).map_err(mismatch)?;
    Ok(Some(manifest))
}

/// Optimizer state is named `param#state`.
fn is_parameter(name: &str) -> bool {
    !name.contains('#')
}

/// The hash over all tensors of a file, in name order.
fn hash_of(tensors: &SafeTensors<'_>) -> String {
    let mut named: Vec<_> = tensors.iter().collect();
    named.sort_by_key(|(name, _)| *name);
    let mut all = blake3::Hasher::new();
    for (name, view) in named {
        all.update(name.as_bytes()).update(blake3::hash(view.data()).as_bytes());
    }
    all.finalize().to_hex().to_string()
}

/// Copies one tensor into the model.
fn fill(model: &mut Model, name: &str, tensors: &SafeTensors<'_>) -> Result<(), String> {
    let view = tensors.tensor(name).map_err(|_| format!("it has no tensor {name}"))?;
    let buffer = model.tensor_mut(name).ok_or_else(|| format!("the recipe has no tensor {name}"))?;
    if view.dtype() != Dtype::F32 || view.data().len() != buffer.len() * 4 {
        return Err(format!("{name} has another size than in the recipe"));
    }
    for (value, bytes) in buffer.floats_mut().iter_mut().zip(view.data().chunks_exact(4)) {
        *value = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    }
    Ok(())
}
