//! The queues before a desk: how many calls are at work, how many wait, and for how long. Each kind of call has a queue
//! of its own, so that none of them stands in another's way. What a call does is nothing of theirs.

use rmcp::model::ErrorData;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// The queue that a call stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Of calls that compile, or that nothing better is known of.
    Compiles,
    /// Of calls that read what is there.
    Reads,
    /// Of calls that look again and again until something is over, and keep their place all the while.
    Waits,
}

/// Calls of a queue at work at once. Those that compile are felt by trials.
const AT_WORK: usize = 2;

/// Calls of a queue at work and before it: what more there is, is sent away. All queues together have fewer places than
/// there are connections, so that one is left to be told so.
pub(crate) const MAX_CALLS: usize = 16;

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The queue has no place.
    Full,
    /// Its turn did not come in time.
    Busy,
    /// Nobody waits for it any longer.
    Gone,
    /// The desk panicked.
    Broken,
}

impl Unanswered {
    /// What the client is told.
    pub(crate) fn words(self) -> String {
        match self {
            Unanswered::Full => format!("{MAX_CALLS} calls wait already: ask again later"),
            Unanswered::Busy => "busy: ask again".to_string(),
            Unanswered::Gone => "cancelled".to_string(),
            Unanswered::Broken => "the lab has a defect".to_string(),
        }
    }
}

impl From<Unanswered> for ErrorData {
    fn from(why: Unanswered) -> ErrorData {
        ErrorData::internal_error(why.words(), None)
    }
}

#[derive(Clone)]
struct Queue {
    places: Arc<Semaphore>,
    seats: Arc<Semaphore>,
}

impl Queue {
    fn new() -> Queue {
        let of = |number| Arc::new(Semaphore::new(number));
        Queue { places: of(MAX_CALLS), seats: of(AT_WORK) }
    }
}

/// All queues.
#[derive(Clone)]
pub(crate) struct Queues {
    compiles: Queue,
    reads: Queue,
    waits: Queue,
}

impl Queues {
    pub(crate) fn new() -> Queues {
        Queues { compiles: Queue::new(), reads: Queue::new(), waits: Queue::new() }
    }

    fn of(&self, lane: Lane) -> &Queue {
        match lane {
            Lane::Compiles => &self.compiles,
            Lane::Reads => &self.reads,
            Lane::Waits => &self.waits,
        }
    }

    /// Lets a call stand in its queue until it is answered, or until its client is `gone`.
    pub(crate) async fn stand<T>(
        &self,
        lane: Lane,
        gone: impl Future<Output = ()>,
        call: impl Future<Output = Result<T, Unanswered>>,
    ) -> Result<T, Unanswered> {
        let Ok(_place) = self.of(lane).places.try_acquire() else { return Err(Unanswered::Full) };
        tokio::select! {
            answer = call => answer,
            () = gone => Err(Unanswered::Gone),
        }
    }

    /// A call's turn to be at work, which ends when the permit is dropped.
    pub(crate) async fn turn(&self, lane: Lane, until: Instant) -> Result<OwnedSemaphorePermit, Unanswered> {
        let seat = timeout_at(until, self.of(lane).seats.clone().acquire_owned()).await;
        Ok(seat.map_err(|_| Unanswered::Busy)?.expect("nobody closes it"))
    }

    /// Keeps everybody of a queue from work.
    #[cfg(test)]
    pub(crate) async fn block(&self, lane: Lane) -> OwnedSemaphorePermit {
        self.of(lane).seats.clone().acquire_many_owned(AT_WORK as u32).await.expect("nobody closes it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[test]
    fn who_has_gone_keeps_no_place() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let queues = Queues::new();
        for _ in 0..2 * MAX_CALLS {
            let call = pending::<Result<(), Unanswered>>();
            assert_eq!(runtime.block_on(queues.stand(Lane::Reads, ready(()), call)), Err(Unanswered::Gone));
        }
    }
}
