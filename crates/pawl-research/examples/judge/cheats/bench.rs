//! Where cheats are planted: the binary, a folder for each case, and one honest lab of which each case that needs
//! one gets a copy.

use super::Outcome;
use pawl_record::Settings;
use pawl_research::compiler::{ChildCompiler, LIMIT};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The place.
pub(crate) struct Bench {
    pawl: PathBuf,
    folder: PathBuf,
    count: AtomicU64,
    honest: OnceLock<Result<PathBuf, String>>,
}

/// The recipe of the honest lab: a small GPT in which one thing matters, and what is proposed.
pub(super) const RECIPE: &str = include_str!("../../../../pawl/tests/it/no_ops.star");
pub(super) const SCRIPT: &str = "rate=0.003\nunused=b\nmixer=lookup\nscale=2\ndepth=2\nhidden=ffn\n";

pub(crate) fn told(why: impl std::fmt::Display) -> String {
    why.to_string()
}

impl Bench {
    /// In `folder`, which may be thrown away afterwards.
    pub(crate) fn new(pawl: &Path, folder: &Path) -> Bench {
        let (pawl, folder) = (pawl.to_path_buf(), folder.to_path_buf());
        Bench { pawl, folder, count: AtomicU64::new(0), honest: OnceLock::new() }
    }

    /// An empty folder.
    pub(crate) fn fresh(&self) -> Result<PathBuf, String> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(format!("case{number}"));
        fs::create_dir_all(&folder).map_err(told)?;
        Ok(folder)
    }

    /// Runs the binary in a folder; caught is a code other than 0.
    pub(crate) fn pawl(&self, folder: &Path, args: &[&str]) -> Result<Outcome, String> {
        let mut command = Command::new(&self.pawl);
        command.current_dir(folder).args(args).stdin(Stdio::null());
        let output = command.output().map_err(|why| format!("{}: {why}", self.pawl.display()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        Ok(Outcome { caught: !output.status.success(), said })
    }

    /// The same, when it must succeed; what it printed on stdout.
    pub(crate) fn ask(&self, folder: &Path, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.pawl);
        let output = command.current_dir(folder).args(args).stdin(Stdio::null()).output().map_err(told)?;
        if !output.status.success() {
            return Err(format!(
                "pawl {} failed: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        String::from_utf8(output.stdout).map_err(told)
    }

    /// Compiles a text as a campaign compiles a proposal.
    pub(crate) fn compile(&self, text: &str) -> Result<Result<String, String>, String> {
        let folder = self.fresh()?;
        let path = folder.join("case.star");
        fs::write(&path, text).map_err(told)?;
        // What a machine of the usual size would give a trial, and a tenth of what a campaign waits.
        let (most_memory, limit) = (Some(16 << 30), LIMIT / 10);
        let compiler = ChildCompiler { executable: self.pawl.clone(), most_memory, limit };
        Ok(compiler.check(&path, 1, &Settings::new()).map(|checked| checked.fingerprint))
    }

    /// A lab of one's own with an honest campaign in it: a keep, rejections, a skip, and a final measurement.
    pub(crate) fn lab(&self) -> Result<Lab, String> {
        let honest = self.honest.get_or_init(|| self.make_honest()).clone()?;
        let folder = self.fresh()?;
        copy(&honest.join("lab"), &folder.join("lab"))?;
        Ok(Lab { root: folder.join("lab") })
    }

    fn make_honest(&self) -> Result<PathBuf, String> {
        let folder = self.fresh()?;
        fs::write(folder.join("words.txt"), words()).map_err(told)?;
        fs::write(folder.join("small.star"), RECIPE).map_err(told)?;
        fs::write(folder.join("script"), SCRIPT).map_err(told)?;
        self.ask(&folder, &["data", "add", "words", "words.txt"])?;
        let mut args = vec!["research", "--recipe", "small.star", "--script", "script", "--data", "words"];
        args.extend(["--flops", "4e9", "--trials", "1000", "--workers", "2", "--json"]);
        self.ask(&folder, &args)?;
        Ok(folder)
    }
}

/// Some kilobytes of text.
pub(crate) fn words() -> String {
    let mut text = String::new();
    for n in 0..4000 {
        writeln!(text, "{} times {} is {}", n % 61, n % 37, (n % 61) * (n % 37)).expect("a string takes it");
    }
    text
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to).map_err(told)?;
    for entry in fs::read_dir(from).map_err(told)? {
        let entry = entry.map_err(told)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(told)?.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(told)?;
        }
    }
    Ok(())
}

/// A lab, and its documents by name.
pub(crate) struct Lab {
    pub(crate) root: PathBuf,
}

impl Lab {
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    pub(crate) fn read(&self, below: &str) -> Result<Value, String> {
        let bytes = fs::read(self.path(below)).map_err(|why| format!("{below}: {why}"))?;
        serde_json::from_slice(&bytes).map_err(told)
    }

    pub(crate) fn edit(&self, below: &str, change: impl FnOnce(&mut Value)) -> Result<(), String> {
        let mut document = self.read(below)?;
        let before = document.clone();
        change(&mut document);
        if document == before {
            return Err(format!("the edit of {below} changes nothing"));
        }
        fs::write(self.path(below), document.to_string()).map_err(told)
    }

    /// Number of the script's proposal that turned `setting` and nothing else.
    pub(crate) fn number(&self, setting: &str) -> Result<u64, String> {
        for number in 1.. {
            let proposal = self.read(&format!("campaign/proposals/{number:04}.json"))?;
            if proposal["researcher"] == "script" && proposal["changes"][0]["setting"] == setting {
                return Ok(number);
            }
        }
        unreachable!("a proposal that is not there ends the search")
    }

    /// Its file.
    pub(crate) fn proposal(&self, setting: &str) -> Result<String, String> {
        Ok(format!("campaign/proposals/{:04}.json", self.number(setting)?))
    }

    /// The file of the verdict on it.
    pub(crate) fn verdict(&self, setting: &str) -> Result<String, String> {
        Ok(format!("campaign/verdicts/{:04}.json", self.number(setting)?))
    }

    /// The verdict that promoted: the script begins with the one real gain.
    pub(crate) fn keep(&self) -> Result<Value, String> {
        let verdict = self.read(&self.verdict("rate")?)?;
        match verdict["promoted"] == true {
            true => Ok(verdict),
            false => Err(format!("the real gain was not kept: {verdict}")),
        }
    }

    /// Run ids of the keep's pair: champion's and challenger's.
    pub(crate) fn pair(&self, idx: usize) -> Result<[String; 2], String> {
        let pair = &self.keep()?["pairs"][idx];
        let id = |name: &str| pair[name].as_str().map(str::to_string).ok_or("no such pair".to_string());
        Ok([id("champion_run")?, id("challenger_run")?])
    }

    /// Changes the lines of a run's log.
    pub(crate) fn edit_events(&self, run: &str, change: impl Fn(&mut Value)) -> Result<(), String> {
        let path = self.path(&format!("runs/{run}/events.jsonl"));
        let text = fs::read_to_string(&path).map_err(told)?;
        let mut out = String::new();
        for line in text.lines() {
            let mut event: Value = serde_json::from_str(line).map_err(told)?;
            change(&mut event);
            writeln!(out, "{event}").expect("a string takes it");
        }
        if out == text {
            return Err(format!("the edit of the log of {run} changes nothing"));
        }
        fs::write(path, out).map_err(told)
    }

    pub(crate) fn verify(&self, bench: &Bench, more: &[&str]) -> Result<Outcome, String> {
        let folder = self.root.parent().ok_or("a lab lies in a folder")?;
        bench.pawl(folder, &[&["verify"], more].concat())
    }
}
