//! `pawl report`.

use crate::args::Report;
use crate::errors::Failure;
use crate::output::Answer;

pub(crate) fn run(_args: Report) -> Result<Answer, Failure> {
    Err(Failure::new("`pawl report` is not wired yet"))
}
