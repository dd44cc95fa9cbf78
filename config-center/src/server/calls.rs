//! A connection and its short calls on one task.
//!
//! hyper starts a task for each call of an HTTP/2 connection. For a call that only waits for the
//! disk this costs more than the call: each answer wakes a task, which wakes the connection's, on
//! whichever thread is free, and the connection writes whatever is there at that moment. Here the
//! calls of a connection are polled by the connection's own task: all answers that are ready go out
//! with one write, and however many of them come together, one task is woken.
//!
//! Calls that last, or work long without awaiting, keep a task of their own: see
//! [`CallQueue::next_is_apart`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::stream::{FuturesUnordered, StreamExt as _};
use futures::task::AtomicWaker;
use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;

use super::gather::Outlet;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How often connection and calls are polled in turn before other tasks get theirs.
const MAX_TURNS: usize = 8;

/// Where hyper puts the calls of one connection.
#[derive(Clone, Default)]
pub(super) struct CallQueue(Arc<Queue>);

#[derive(Default)]
struct Queue {
    /// Taken by the connection's task in the same poll; bounded by its concurrent streams.
    calls: Mutex<Vec<Call>>,
    is_apart: AtomicBool,
}

impl CallQueue {
    /// Whether the next call gets a task of its own. Said while its request is taken.
    pub(super) fn next_is_apart(&self, is_apart: bool) {
        self.0.is_apart.store(is_apart, Ordering::Relaxed);
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for CallQueue {
    fn execute(&self, call: F) {
        if self.0.is_apart.load(Ordering::Relaxed) {
            tokio::spawn(call);
        } else {
            self.0.calls.lock().push(Box::pin(call));
        }
    }
}

/// The connection with its calls: ends when the connection does.
pub(super) struct WithCalls<C, IO> {
    connection: Pin<Box<C>>,
    outlet: Outlet<IO>,
    queue: CallQueue,
    running: FuturesUnordered<Call>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<C: Future, IO: AsyncWrite + Unpin> WithCalls<C, IO> {
    pub(super) fn new(connection: C, queue: CallQueue, outlet: Outlet<IO>) -> Self {
        let bell = Arc::new(Bell::default());
        Self {
            connection: Box::pin(connection),
            outlet,
            queue,
            running: FuturesUnordered::new(),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }

    pub(super) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }

    /// `false` when the connection is to be polled again, because sending failed.
    fn send_off(&mut self) -> bool {
        self.outlet.send(&mut Context::from_waker(&self.waker))
    }

    fn poll_both(&mut self) -> Poll<C::Output> {
        let mut cx = Context::from_waker(&self.waker);
        let ended = self.connection.as_mut().poll(&mut cx);
        if ended.is_ready() {
            return ended;
        }
        self.running.extend(self.queue.0.calls.lock().drain(..));
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(&mut cx) {}
        Poll::Pending
    }
}

impl<C: Future, IO: AsyncWrite + Unpin> Future for WithCalls<C, IO> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = &mut *self;
        this.bell.task.register(cx.waker());
        this.bell.is_attended.store(true, Ordering::SeqCst);
        let mut ended = Poll::Pending;
        for _ in 0..MAX_TURNS {
            this.bell.has_rung.store(false, Ordering::SeqCst);
            ended = this.poll_both();
            if ended.is_ready() {
                this.send_off();
                break;
            }
            if !this.bell.has_rung.load(Ordering::SeqCst) && this.send_off() {
                break;
            }
        }
        this.bell.is_attended.store(false, Ordering::SeqCst);
        // Rung after the last look, or there is more to do than one turn should take; what is there
        // already does not wait for it.
        if ended.is_pending() && this.bell.has_rung.load(Ordering::SeqCst) {
            this.send_off();
            cx.waker().wake_by_ref();
        }
        ended
    }
}

/// Rung by whatever the connection and its calls wait for. While they are being polled, nobody
/// needs to be woken: they are polled again before the task goes to sleep.
#[derive(Default)]
struct Bell {
    task: AtomicWaker,
    has_rung: AtomicBool,
    is_attended: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order: either the poller sees the ring, or the ringer sees nobody attending.
        let had_rung = self.has_rung.swap(true, Ordering::SeqCst);
        if !self.is_attended.load(Ordering::SeqCst) && !had_rung {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::server::gather::gathering;

    fn outlet() -> Outlet<tokio::io::Sink> {
        gathering(tokio::io::sink()).1
    }

    /// Accepts calls from a channel, as hyper does from its socket.
    async fn connection(
        mut calls: mpsc::Receiver<oneshot::Receiver<()>>,
        queue: CallQueue,
        answered: mpsc::Sender<()>,
    ) {
        while let Some(call) = calls.recv().await {
            let answered = answered.clone();
            queue.execute(async move {
                call.await.unwrap();
                answered.send(()).await.unwrap();
            });
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn calls_answered_by_other_threads_are_all_heard() {
        const CALLS: usize = 2_000;
        let (accepted, calls) = mpsc::channel(16);
        let (answered, mut answers) = mpsc::channel(CALLS);
        let queue = CallQueue::default();
        let served = tokio::spawn(WithCalls::new(
            connection(calls, queue.clone(), answered),
            queue,
            outlet(),
        ));
        let asking = tokio::spawn(async move {
            for _ in 0..CALLS {
                let (answer, call) = oneshot::channel();
                accepted.send(call).await.unwrap();
                tokio::spawn(async move { answer.send(()).unwrap() });
            }
            accepted
        });
        let patience = std::time::Duration::from_secs(60);
        for _ in 0..CALLS {
            let answer = tokio::time::timeout(patience, answers.recv()).await;
            answer.expect("a ring was lost").unwrap();
        }
        drop(asking.await.unwrap());
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_call_apart_outlives_the_connection() {
        let queue = CallQueue::default();
        queue.next_is_apart(true);
        let (go, gone) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let for_connection = queue.clone();
        let connection = async move {
            for_connection.execute(async move {
                gone.await.unwrap();
                done.send(()).unwrap();
            });
        };
        WithCalls::new(connection, queue, outlet()).await;
        go.send(()).unwrap();
        is_done.await.unwrap();
    }
}
