//! `pawl check`.

use crate::args::Check;
use crate::errors::Failure;
use crate::output::Answer;

pub(crate) fn run(_args: Check) -> Result<Answer, Failure> {
    Err(Failure::new("`pawl check` is not wired yet"))
}
