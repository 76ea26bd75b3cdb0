//! `pawl diff`.

use crate::args::Diff;
use crate::errors::Failure;
use crate::output::Answer;

pub(crate) fn run(_args: Diff) -> Result<Answer, Failure> {
    Err(Failure::new("`pawl diff` is not wired yet"))
}
