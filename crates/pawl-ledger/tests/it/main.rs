//! Tests of the ledger through its public face, on labs written by hand.

// Helpers of tests fail with the reason, as tests do; a match on one error names that one.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod campaign;
mod diff;
mod heal;
mod lab;
mod order;
mod query;
