//! Campaigns: a researcher proposes, trials run on paired seeds as child processes, a judge decides, and
//! what is kept becomes the next champion.
//!
//! Start at [`campaign::run`]. This crate never links the engine, never parses arguments and never prints.

pub mod books;
pub mod campaign;
pub mod child;
pub mod compiler;
pub mod court;
mod duel;
pub mod effects;
pub mod events;
pub mod evidence;
pub mod judge;
pub mod levels;
mod measure;
mod optimizer;
pub mod options;
pub mod plots;
pub mod random;
pub mod report;
pub mod researcher;
pub mod simulate;
pub mod store;
pub mod tpe;
pub mod verify;
pub mod world;
