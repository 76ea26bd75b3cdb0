//! Ctrl-C and a polite kill: the first asks the work to come to an end it can be resumed from, the
//! second ends the process where it stands.

use crate::errors::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Exit code of a process ended by SIGINT, as shells count.
const INTERRUPTED: i32 = 130;

/// A flag that becomes true when the person wants an end.
pub(crate) fn interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the signal that finds the flag set ends the process, the first one sets it.
        flag::register_conditional_shutdown(signal, INTERRUPTED, asked.clone())
            .and_then(|_| flag::register(signal, asked.clone()))
            .map_err(|why| Failure::new("Ctrl-C cannot be watched for").caused_by(&why))?;
    }
    Ok(asked)
}
