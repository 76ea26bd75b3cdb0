//! Policy on what we depend on: `cargo deny check` with the repository's `deny.toml`.

pub(crate) mod models;

use crate::{Failure, cargo};
use std::path::Path;

pub(crate) fn run(root: &Path, install: bool) -> Result<(), Failure> {
    if !installed(root) {
        if !install {
            eprintln!("SKIPPED: cargo-deny is not installed, so licences and advisories were not checked");
            eprintln!("  hint: cargo xtask interop --install");
            return Ok(());
        }
        println!("installing cargo-deny, some minutes");
        succeed(root, &["install", "--locked", "cargo-deny"])?;
    }
    succeed(root, &["deny", "check", "licenses", "bans", "sources"])?;
    // The advisory database is fetched over the network: a machine without one is told, not failed.
    let advisories = cargo(root).args(["deny", "check", "advisories"]).status();
    if !advisories.is_ok_and(|status| status.success()) {
        eprintln!("NOT SHOWN CLEAN: advisories; read the lines above for a finding or a missing network");
    }
    Ok(())
}

fn installed(root: &Path) -> bool {
    cargo(root).args(["deny", "--version"]).output().is_ok_and(|output| output.status.success())
}

fn succeed(root: &Path, args: &[&str]) -> Result<(), Failure> {
    match cargo(root).args(args).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Failure::new(format!("cargo {} failed", args.join(" ")))),
        Err(why) => Err(Failure::new(format!("cargo {}: {why}", args.join(" ")))),
    }
}
