//! What has been done to loops and leaderboards of this field, done to this binary: each cheat is named, no honest
//! look-alike is flagged. The table is that of `cargo xtask judge cheats`.

#[path = "../../../pawl-research/examples/judge/parallel.rs"]
mod parallel;
#[path = "../../../pawl-research/examples/judge/cheats/mod.rs"]
#[allow(clippy::print_stdout)] // the table, shown when it fails
mod planted;

use std::path::Path;

#[test]
fn each_cheat_is_named_and_no_honest_one_is_flagged() {
    let folder = tempfile::tempdir().unwrap();
    let bench = planted::Bench::new(Path::new(env!("CARGO_BIN_EXE_pawl")), folder.path());
    let cases = planted::cases();
    let (honest, cheats): (Vec<_>, Vec<_>) = cases.iter().partition(|case| case.honest);
    assert!(cheats.len() >= 40 && honest.len() >= 20, "{} and {}", cheats.len(), honest.len());
    assert!(planted::run(&bench), "see the table above");
}
