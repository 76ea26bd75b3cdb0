//! Behaviour of the judge, the researcher and whole campaigns, in simulation: no training, no clock.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod campaign;
mod child;
mod fake;
mod independent;
mod judge;
mod optimizer;
mod report;
mod report_lab;
mod verify;
