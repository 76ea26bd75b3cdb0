//! `pawl runs`.

use crate::args::Runs;
use crate::errors::Failure;
use crate::output::Answer;

pub(crate) fn run(_args: Runs) -> Result<Answer, Failure> {
    Err(Failure::new("`pawl runs` is not wired yet"))
}
