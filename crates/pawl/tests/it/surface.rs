//! Help, version, forms of output.

use crate::process::{command, pawl};
use std::io::Read;
use std::process::Stdio;

const COMMANDS: [&str; 24] = [
    "research",
    "train",
    "sft",
    "rl",
    "chat",
    "check",
    "eval",
    "import",
    "export",
    "sample",
    "serve",
    "mcp",
    "runs",
    "show",
    "diff",
    "report",
    "researchers",
    "replicate",
    "retract",
    "effects",
    "verify",
    "data",
    "bench",
    "doctor",
];

#[test]
fn help_names_every_command_on_stdout() {
    let help = pawl(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    for name in COMMANDS {
        assert!(
            help.stdout.lines().any(|line| line.trim_start().starts_with(name)),
            "{name} in {}",
            help.stdout
        );
        let own = pawl(&[name, "--help"]);
        assert_eq!(own.code, 0, "{name}");
        assert!(own.stdout.contains("Usage: pawl"), "{name}: {}", own.stdout);
    }
}

#[test]
fn help_of_train_shows_the_public_options_and_hides_the_others() {
    let help = pawl(&["train", "--help"]).stdout;
    for shown in [
        "--depth <D>",
        "--set <NAME=VALUE>",
        "--flops <F>",
        "--tokens <N>",
        "--steps <N>",
        "--seed <S>",
        "--threads <N>",
        "--lab <DIR>",
        "--resume <RUN>",
        "--precision <PRECISION>",
        "--json",
    ] {
        assert!(help.contains(shown), "{shown} in {help}");
    }
    for hidden in ["--init-seed", "--seal"] {
        assert!(!help.contains(hidden), "{hidden} in {help}");
    }
}

#[test]
fn doctor_answers_in_lines_and_as_one_document() {
    let text = pawl(&["doctor"]);
    assert_eq!(text.code, 0, "{}", text.stderr);
    for key in ["cores: ", "memory: ", "disk_free: ", "kernel: ", "verdict: "] {
        assert!(text.stdout.lines().any(|line| line.starts_with(key)), "{key} in {}", text.stdout);
    }
    let json = pawl(&["doctor", "--json"]);
    assert_eq!(json.json()["schema"], 1);
    assert!(json.json()["cores"].as_u64().is_some_and(|cores| cores >= 1));
    assert_eq!(json.stdout.lines().count(), 1);
}

#[test]
fn a_reader_that_leaves_is_not_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        command(folder.path(), &["doctor"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}
