//! Which Python there is, and which files it must read: asked of the interpreter itself, before any program.

use super::{Paths, SandboxError};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::Command;

/// An interpreter and what it reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Python {
    /// The program itself, no link.
    pub program: PathBuf,
    /// The loader of shared libraries.
    pub loader: Option<PathBuf>,
    /// Its library, and the shared libraries it maps.
    pub reads: Paths,
}

/// Prints what is asked. The modules are those whose shared libraries programs commonly want.
const QUESTION: &str = r#"
import sys, os, json, sysconfig
for name in ("math", "decimal", "ctypes", "hashlib", "zlib", "socket", "bisect", "random", "datetime", "struct", "re"):
    try:
        __import__(name)
    except ImportError:
        pass
maps = {line.split()[-1] for line in open("/proc/self/maps") if "/" in line}
libraries = sorted(path for path in maps if ".so" in path)
loader = [path for path in libraries if "ld-linux" in path or "ld-musl" in path]
reads = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), "/etc/ld.so.cache"}
reads |= set(libraries)
print(json.dumps({
    "program": os.path.realpath(sys.executable),
    "loader": os.path.realpath(loader[0]) if loader else None,
    "reads": sorted(path for path in reads if path and os.path.exists(path)),
}))
"#;

impl Python {
    /// `python3` as the search path finds it.
    pub fn find() -> Result<Python, SandboxError> {
        let failed = |because: String| SandboxError::Python { because };
        let output = Command::new("python3")
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .args(["-I", "-S", "-c", QUESTION])
            .output()
            .map_err(|why| failed(format!("python3: {why}")))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_string()));
        }
        pawl_record::from_json(&output.stdout).map_err(|why| failed(format!("python3 answered: {why}")))
    }
}
