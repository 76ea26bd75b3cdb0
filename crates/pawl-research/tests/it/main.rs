//! Behaviour of the judge, the researcher and whole campaigns, in simulation: no training, no clock.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod brief;
mod campaign;
mod child;
mod confirm;
mod contest;
mod edits;
mod fake;
mod hostile;
mod inbox;
mod independent;
mod judge;
mod keeps;
mod ladder;
mod library;
mod model_server;
mod models;
mod optimizer;
mod prompts;
mod prune;
mod recipe_world;
mod report;
mod report_lab;
mod team;
mod tool;
mod tune;
mod verify;
mod worth;
