//! `pawl data`.

use crate::args::Data;
use crate::errors::Failure;
use crate::output::Answer;

pub(crate) fn run(_args: Data) -> Result<Answer, Failure> {
    Err(Failure::new("`pawl data` is not wired yet"))
}
