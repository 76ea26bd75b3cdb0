//! One writer per data set. The lock is the operating system's: it goes with the process that held it.

use crate::DataError;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Held until dropped.
pub(crate) struct Lock {
    _file: File,
}

/// Waits until no other process prepares `folder`.
pub(crate) fn lock(folder: &Path) -> Result<Lock, DataError> {
    let path = sibling(folder, "lock");
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(DataError::io("create", parent))?;
    }
    let file = File::create(&path).map_err(DataError::io("create", &path))?;
    file.lock().map_err(DataError::io("lock", &path))?;
    Ok(Lock { _file: file })
}

/// `.NAME.suffix` beside `NAME`.
pub(crate) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{suffix}"))
}

/// Makes the folder `target` appear all at once: `fill` writes into a new folder beside it, which is
/// renamed when all is written. What a killed process left behind is removed first; the caller holds
/// the lock.
pub(crate) fn create_folder<R>(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<R, DataError>,
) -> Result<R, DataError> {
    let temporary = sibling(target, "tmp");
    let remove = || match fs::remove_dir_all(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DataError::io("remove", &temporary)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    };
    remove()?;
    fs::create_dir_all(&temporary).map_err(DataError::io("create", &temporary))?;
    let result = fill(&temporary);
    if result.is_err() {
        remove()?;
        return result;
    }
    fs::rename(&temporary, target).map_err(DataError::io("create", target))?;
    result
}
