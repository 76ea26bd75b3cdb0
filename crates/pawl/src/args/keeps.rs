//! The arguments of commands about keeps and what changes were worth.

use super::Place;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Replicate {
    /// Number of a kept proposal, or the id of a run of it
    pub(crate) id: String,
    /// Seeds: one to reproduce, the others fresh
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) seeds: u64,
    /// Trials side by side, each on one thread [default: one a core]
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) workers: Option<u64>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct Retract {
    /// Number of a kept proposal, or the id of a run of it
    pub(crate) id: String,
    /// Why it no longer counts
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Effects {
    #[command(subcommand)]
    pub(crate) action: Option<EffectsAction>,
    /// Only changes of this setting
    #[arg(long, value_name = "NAME")]
    pub(crate) setting: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Subcommand)]
pub(crate) enum EffectsAction {
    /// Write the lab's effects, and those it imported, into a file for another lab
    Export(EffectsFile),
    /// Take in what another lab exported, as what is expected of changes before they are tried here
    Import(EffectsFile),
    /// Remove what was imported from a source
    Revoke(EffectsRevoke),
}

#[derive(Args)]
pub(crate) struct EffectsFile {
    /// The file, JSON
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args)]
pub(crate) struct EffectsRevoke {
    /// Id of the campaign they came from
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) place: Place,
}
