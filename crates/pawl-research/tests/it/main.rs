//! Behaviour of the judge, the researcher and whole campaigns, in simulation: no training, no clock.

mod campaign;
mod child;
mod fake;
mod judge;
mod optimizer;
mod report;
mod report_lab;
