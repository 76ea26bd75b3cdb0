//! Runs the binary in an empty folder of its own.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a run of the binary left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: &Output) -> Ended {
        Ended {
            code: output.status.code().expect("ended by itself"),
            stdout: String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr.clone()).expect("stderr is UTF-8"),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|why| panic!("{why}: {}", self.stdout))
    }
}

pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pawl"));
    command.current_dir(folder).args(args).stdin(Stdio::null());
    command
}

pub(crate) fn pawl_in(folder: &Path, args: &[&str]) -> Ended {
    Ended::of(&command(folder, args).output().expect("the binary starts"))
}

pub(crate) fn pawl(args: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    pawl_in(folder.path(), args)
}
