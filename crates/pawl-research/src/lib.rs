//! Campaigns: who proposes, what is tried, what is kept.
pub mod judge;
pub mod levels;
pub mod options;
pub mod random;
