//! Connections: so many at once, each of which has to send its request, and to take its answer, without dawdling.
//! What a request says is read by nobody here.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

/// What those who connect may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once; further ones wait until one ends.
    pub connections: usize,
    /// Time in which a request has to come, its head and then its body, counted from when the last was answered, and
    /// in which some of an answer has to be taken.
    pub patience: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { connections: 256, patience: Duration::from_secs(30) }
    }
}

/// Bytes of the head of a request.
const MAX_HEAD: usize = 64 << 10;

/// Between looks at `stop`, and after the system refused a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until `stop` is set.
pub(crate) async fn answer(listener: TcpListener, router: Router, bounds: Bounds, stop: &AtomicBool) {
    let seats = Arc::new(Semaphore::new(bounds.connections));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.patience).max_buf_size(MAX_HEAD);
    let accept_all = async {
        loop {
            let seat = seats.clone().acquire_owned().await.expect("nobody closes it");
            let Ok((stream, _)) = listener.accept().await else {
                // A client that has gone, or no descriptor left: both pass.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let service = TowerToHyperService::new(router.clone());
            let stream = TokioIo::new(Patient { stream, patience: bounds.patience, stalled: None });
            let connection = http.serve_connection(stream, service);
            tokio::spawn(async move {
                let _seat = seat;
                // Whatever ends a connection early is the client's own affair.
                let _ = connection.await;
            });
        }
    };
    tokio::select! {
        () = accept_all => {}
        () = stopped(stop) => {}
    }
}

/// Comes back once `stop` is set.
pub(crate) async fn stopped(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(PAUSE).await;
    }
}

/// A connection that is given up when nothing of what is written is taken for too long.
struct Patient {
    stream: TcpStream,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Poll::Ready(written) = Pin::new(&mut this.stream).poll_write(context, bytes) {
            this.stalled = None;
            return Poll::Ready(written);
        }
        let patience = this.patience;
        let stalled = this.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn who_takes_nothing_of_an_answer_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let _reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let patience = Duration::from_millis(100);
            let mut patient = Patient { stream, patience, stalled: None };
            let piece = vec![0; 1 << 20];
            let error = loop {
                if let Err(error) = patient.write_all(&piece).await {
                    break error;
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }
}
