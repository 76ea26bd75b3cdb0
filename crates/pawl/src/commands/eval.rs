//! `pawl eval`.

use crate::args::Eval;
use crate::errors::Failure;
use crate::output::Answer;

pub(crate) fn run(_args: Eval) -> Result<Answer, Failure> {
    Err(Failure::new("`pawl eval` is not wired yet"))
}
