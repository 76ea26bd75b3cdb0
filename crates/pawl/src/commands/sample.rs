//! `pawl sample`.

use crate::args::Sample;
use crate::errors::Failure;
use crate::output::Answer;

pub(crate) fn run(_args: Sample) -> Result<Answer, Failure> {
    Err(Failure::new("`pawl sample` is not wired yet"))
}
