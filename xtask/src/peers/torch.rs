//! The PyTorch side: which Python, which allocator, one timed run.

use super::{Speed, answer};
use crate::Failure;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where distributions keep shared libraries.
const FOLDERS: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/opt/homebrew/lib",
];

/// Allocators that users of PyTorch on processors preload, the faster first as measured here.
const ALLOCATORS: [&str; 4] =
    ["libjemalloc.so.2", "libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libjemalloc.so"];

/// Keeps freed pages: the same sizes are asked for again at every step.
const JEMALLOC: &str = "dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always";

/// A Python that has PyTorch.
pub(crate) struct Torch {
    python: PathBuf,
    pub(crate) version: String,
    allocator: Option<PathBuf>,
}

impl Torch {
    /// The Python that was named, or the one that an earlier `--install` made; `None` if it has no PyTorch.
    pub(crate) fn find(python: Option<&Path>, install: bool) -> Result<Option<Torch>, Failure> {
        let own = environment().map(|folder| folder.join("bin/python"));
        let Some(python) = python.map(Path::to_path_buf).or(own) else { return Ok(None) };
        let version = match version(&python) {
            None if install => {
                make_environment()?;
                version(&python)
            }
            known => known,
        };
        let allocator = ALLOCATORS
            .iter()
            .flat_map(|name| FOLDERS.iter().map(move |folder| Path::new(folder).join(name)))
            .find(|file| file.exists());
        Ok(version.map(|version| Torch { python, version, allocator }))
    }

    pub(crate) fn allocator_name(&self) -> String {
        let name = self.allocator.as_ref().and_then(|file| file.file_name());
        name.map_or_else(|| "of the system".to_string(), |name| name.to_string_lossy().into_owned())
    }

    /// Times one mode in a process of its own.
    pub(crate) fn run(
        &self,
        script: &Path,
        model: &str,
        mode: &str,
        threads: usize,
    ) -> Result<Speed, Failure> {
        let mut command = Command::new(&self.python);
        command.arg(script).args(["--model", model, "--mode", mode, "--threads", &threads.to_string()]);
        // Threads of the OpenMP runtime follow the framework's own number only if nothing else says another.
        command.env("OMP_NUM_THREADS", threads.to_string());
        if let Some(allocator) = &self.allocator {
            command.env("LD_PRELOAD", allocator).env("MALLOC_CONF", JEMALLOC);
        }
        let found = answer(&mut command, &format!("PyTorch {mode}"))?;
        let mut seconds: Vec<f64> =
            found["seconds"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_f64).collect();
        seconds.sort_by(f64::total_cmp);
        let (Some(tokens), Some(median)) =
            (found["tokens_per_step"].as_f64(), seconds.get(seconds.len() / 2))
        else {
            return Err(Failure::new(format!("PyTorch {mode} gave no speed: {found}")));
        };
        Ok(Speed {
            tokens_per_sec: tokens / median,
            peak_memory_bytes: found["peak_memory_bytes"].as_f64(),
            num_params: found["num_params"].as_u64().unwrap_or(0),
            others: None,
        })
    }
}

fn version(python: &Path) -> Option<String> {
    let output = Command::new(python).args(["-c", "import torch; print(torch.__version__)"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_string()).filter(|version| output.status.success() && !version.is_empty())
}

/// Folder of the environment that `--install` makes, in the user's cache.
fn environment() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("pawl/peers/torch"))
}

/// Some gigabytes from the package registry: only ever on request.
fn make_environment() -> Result<(), Failure> {
    let folder = environment()
        .ok_or_else(|| Failure::new("no cache folder: neither XDG_CACHE_HOME nor HOME is set"))?;
    println!("installing PyTorch into {}, some minutes", folder.display());
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&folder);
    let mut install = Command::new(folder.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "torch", "setuptools"]);
    for command in [&mut make, &mut install] {
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(Failure::new(format!("PyTorch cannot be installed: {status}"))),
            Err(why) => return Err(Failure::new(format!("PyTorch cannot be installed: {why}"))),
        }
    }
    Ok(())
}
