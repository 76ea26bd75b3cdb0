//! `pawl show`.

use crate::args::Show;
use crate::errors::Failure;
use crate::output::Answer;

pub(crate) fn run(_args: Show) -> Result<Answer, Failure> {
    Err(Failure::new("`pawl show` is not wired yet"))
}
