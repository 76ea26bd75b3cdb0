//! `cargo xtask sanitize`: the tests of the engine, the one crate with unsafe code, with AddressSanitizer and the
//! assertions of the standard library about pointers.
//!
//! Where there is no sanitizer it fails and says so: what was not checked did not pass. It does not see what AMX
//! tiles and inline assembly touch, nor an overrun from one block of an arena into the next.

use crate::ci::{Tally, counted};
use crate::{Failure, cargo};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target whose runtime is looked for; a target must be named, or build scripts would be instrumented as well.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// pawl_sanitize makes buffers poison their slack (`buffer.rs` of the engine).
const FLAGS: &str = "-Zsanitizer=address -Cdebug-assertions=on --cfg pawl_sanitize";

pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    if let Err(why) = runtime() {
        return Err(Failure::new(format!("SKIPPED, nothing was checked: {why}")));
    }
    let mut tests = Tally::default();
    // The stable compiler has the flag and ships the runtime, but lets only the bootstrap of Rust use it. Objects
    // with other flags get a folder of their own.
    let args = ["test", "--release", "--locked", "-p", "pawl-engine", "--lib", "--tests", "--no-fail-fast"];
    let mut command = cargo(root);
    command
        .args(args)
        .args(["--target", TARGET, "--target-dir"])
        .arg(root.join("target").join("sanitize"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", FLAGS);
    let done = counted(&mut command, &mut tests);
    println!("sanitize: {tests}");
    done
}

/// AddressSanitizer's runtime among the libraries of the compiler.
fn runtime() -> Result<PathBuf, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|why| format!("rustc cannot be started: {why}"))?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let files = std::fs::read_dir(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    files
        .flatten()
        .map(|file| file.path())
        .find(|path| is_runtime(path))
        .ok_or_else(|| format!("{} holds no runtime of AddressSanitizer", folder.display()))
}

/// librustc-stable_rt.asan.a, with the name of the channel.
fn is_runtime(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("_rt.asan.a"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_is_told_from_those_of_other_sanitizers() {
        assert!(is_runtime(Path::new("lib/librustc-stable_rt.asan.a")));
        assert!(!is_runtime(Path::new("lib/librustc-stable_rt.tsan.a")));
        assert!(!is_runtime(Path::new("lib/libstd.so")));
    }
}
