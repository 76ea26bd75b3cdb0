//! Campaigns: a researcher proposes, trials run on paired seeds as child processes, a judge decides, and
//! what is kept becomes the next champion.
//!
//! Start at [`campaign::run`]. This crate never links the engine, never parses arguments and never prints.

mod ascent;
mod baselines;
pub mod belief;
pub mod books;
pub mod brief;
mod bundle;
pub mod campaign;
pub mod child;
pub mod climb;
pub mod cma;
pub mod compiler;
pub mod confirm;
pub mod contest;
pub mod court;
mod duel;
pub mod edits;
pub mod events;
pub mod evidence;
pub mod inbox;
pub mod judge;
pub mod judgement;
#[cfg(test)]
mod keeping;
pub mod levels;
pub mod library;
mod measure;
pub mod models;
mod optimizer;
pub mod options;
pub mod peer;
pub mod plots;
pub mod prompt;
pub mod prune;
pub mod random;
pub mod replicate;
pub mod report;
pub mod researcher;
pub mod retract;
pub mod simulate;
pub mod store;
pub mod team;
pub mod tools;
pub mod tpe;
mod tune;
mod upkeep;
pub mod verify;
pub mod view;
pub mod world;
pub mod worth;
