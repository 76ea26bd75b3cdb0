//! The thread that generates: requests come in by a channel, tokens go out by one each. A reader that has gone is
//! noticed at its next token, and its sequence given to the next request.

use crate::metrics::Metrics;
use pawl_model::{DecodeError, DecodeOptions, Emitted, Generator, Model, Request};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use tokio::sync::mpsc as async_mpsc;

/// Tokens of one request, as they are drawn.
pub(crate) type Tokens = async_mpsc::UnboundedReceiver<Emitted>;

/// The way to the thread.
pub(crate) struct Engine {
    jobs: mpsc::Sender<Job>,
    /// Requests that have not ended.
    pending: Arc<AtomicUsize>,
    most: usize,
}

struct Job {
    request: Request,
    reader: async_mpsc::UnboundedSender<Emitted>,
}

impl Engine {
    pub(crate) fn start(
        model: &Model,
        batch: usize,
        max_waiting: usize,
        options: DecodeOptions,
        metrics: Arc<Metrics>,
    ) -> Result<Engine, DecodeError> {
        let generator = Generator::new(model, batch, options)?;
        let (jobs, inbox) = mpsc::channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let counted = pending.clone();
        std::thread::spawn(move || generate(generator, &inbox, &counted, &metrics));
        Ok(Engine { jobs, pending, most: batch + max_waiting })
    }

    /// Requests in generation and waiting.
    pub(crate) fn num_pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Begins all of `requests`, or none when there is no room for them.
    pub(crate) fn submit(&self, requests: Vec<Request>) -> Option<Vec<Tokens>> {
        let num = requests.len();
        let room = |pending: usize| (pending + num <= self.most).then_some(pending + num);
        self.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        let begin = |request| {
            let (reader, tokens) = async_mpsc::unbounded_channel();
            // A thread that has ended drops the reader, which the receiver sees as an answer cut short.
            let _ = self.jobs.send(Job { request, reader });
            tokens
        };
        Some(requests.into_iter().map(begin).collect())
    }
}

fn generate(mut generator: Generator, inbox: &mpsc::Receiver<Job>, pending: &AtomicUsize, metrics: &Metrics) {
    let mut readers: HashMap<u64, async_mpsc::UnboundedSender<Emitted>> = HashMap::new();
    let mut next = 0;
    loop {
        let mut job = match generator.is_busy() {
            true => inbox.try_recv().ok(),
            // Nothing to do until somebody asks; nobody is left to ask when the server has ended.
            false => match inbox.recv() {
                Ok(job) => Some(job),
                Err(mpsc::RecvError) => return,
            },
        };
        while let Some(Job { request, reader }) = job {
            Metrics::add(&metrics.prompt_tokens, request.prompt.len());
            match generator.submit(next, request) {
                Ok(()) => _ = readers.insert(next, reader),
                // Checked before it was sent: the reader sees an answer cut short.
                Err(_) => _ = pending.fetch_sub(1, Ordering::Relaxed),
            }
            next += 1;
            job = inbox.try_recv().ok();
        }
        generator.step(&mut |id, emitted| {
            let Some(reader) = readers.get(&id) else { return false };
            Metrics::add(&metrics.completion_tokens, usize::from(matches!(emitted, Emitted::Token { .. })));
            let ended = matches!(emitted, Emitted::End(_));
            let heard = reader.send(emitted).is_ok();
            if ended || !heard {
                readers.remove(&id);
                pending.fetch_sub(1, Ordering::Relaxed);
            }
            heard
        });
    }
}
