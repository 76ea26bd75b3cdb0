//! `pawl research`.

use crate::args::Research;
use crate::errors::Failure;
use crate::output::Answer;

pub(crate) fn run(_args: Research) -> Result<Answer, Failure> {
    Err(Failure::new("`pawl research` is not wired yet"))
}
