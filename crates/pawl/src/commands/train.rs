//! `pawl train`.

use crate::args::Train;
use crate::errors::Failure;
use crate::output::Answer;

pub(crate) fn run(_args: Train) -> Result<Answer, Failure> {
    Err(Failure::new("`pawl train` is not wired yet"))
}
