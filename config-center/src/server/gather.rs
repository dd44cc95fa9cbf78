//! Gathers what a connection writes, so that it leaves with one system call per turn.
//!
//! The HTTP/2 library writes each larger frame by itself and flushes as often. Here writing and
//! flushing only fill a buffer; the task that drives the connection empties it when nothing is left
//! to be done at the moment: see `calls`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// When so much is there, it leaves before more is taken.
const MAX_GATHERED_BYTES: usize = 64 * 1024;
/// An idle connection keeps no larger buffer.
const MAX_IDLE_BYTES: usize = 4 * 1024;

/// The stream as the HTTP/2 library sees it.
pub(super) struct Gathering<IO>(Arc<Mutex<Gathered<IO>>>);

/// The other end: where what was gathered is sent off.
pub(super) struct Outlet<IO>(Arc<Mutex<Gathered<IO>>>);

struct Gathered<IO> {
    io: IO,
    buffer: BytesMut,
    /// Sending off failed; the library is told when it next reads or writes.
    failed: Option<io::Error>,
}

pub(super) fn gathering<IO>(io: IO) -> (Gathering<IO>, Outlet<IO>) {
    let gathered = Arc::new(Mutex::new(Gathered {
        io,
        buffer: BytesMut::new(),
        failed: None,
    }));
    (Gathering(Arc::clone(&gathered)), Outlet(gathered))
}

impl<IO: AsyncWrite + Unpin> Gathered<IO> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.buffer.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.buffer))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.buffer.advance(written),
            }
        }
        if self.buffer.capacity() > MAX_IDLE_BYTES {
            self.buffer = BytesMut::new();
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn check(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Makes room; then any amount may be added.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        if self.buffer.len() >= MAX_GATHERED_BYTES {
            return self.poll_send(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> Outlet<IO> {
    /// Sends off what was gathered, as far as the peer takes it; wakes the task when it takes more.
    /// `false` when that failed: the connection is to be polled, and will end.
    pub(super) fn send(&self, cx: &mut Context<'_>) -> bool {
        let mut gathered = self.0.lock();
        match gathered.poll_send(cx) {
            Poll::Ready(Err(error)) => {
                gathered.buffer.clear();
                gathered.failed = Some(error);
                false
            }
            Poll::Ready(Ok(())) | Poll::Pending => true,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathering<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut gathered = self.0.lock();
        gathered.check()?;
        Pin::new(&mut gathered.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gathering<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = self.0.lock();
        ready!(gathered.poll_room(cx))?;
        gathered.buffer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = self.0.lock();
        ready!(gathered.poll_room(cx))?;
        let before = gathered.buffer.len();
        for slice in slices {
            gathered.buffer.extend_from_slice(slice);
        }
        Poll::Ready(Ok(gathered.buffer.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is sent off here: that is what this is for.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.lock().check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.0.lock();
        gathered.check()?;
        ready!(gathered.poll_send(cx))?;
        Pin::new(&mut gathered.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    async fn send(outlet: &Outlet<tokio::io::DuplexStream>) -> bool {
        poll_fn(|cx| Poll::Ready(outlet.send(cx))).await
    }

    #[tokio::test]
    async fn nothing_leaves_before_it_is_sent_off() {
        let (near, mut far) = duplex(1024);
        let (mut stream, outlet) = gathering(near);
        stream.write_all(b"one").await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(b"two").await.unwrap();
        let mut arrived = [0; 6];
        let waiting = futures::FutureExt::now_or_never(far.read(&mut arrived));
        assert!(waiting.is_none());
        assert!(send(&outlet).await);
        far.read_exact(&mut arrived).await.unwrap();
        assert_eq!(&arrived, b"onetwo");
    }

    #[tokio::test]
    async fn much_leaves_by_itself_and_an_end_sends_the_rest() {
        let (near, mut far) = duplex(MAX_GATHERED_BYTES / 8);
        let (mut stream, _outlet) = gathering(near);
        let sent: Vec<u8> = (0..10 * MAX_GATHERED_BYTES).map(|n| n as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut arrived = Vec::new();
        far.read_to_end(&mut arrived).await.unwrap();
        writing.await.unwrap();
        assert!(arrived == expected);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_the_reader() {
        let (near, far) = duplex(1024);
        let (mut stream, outlet) = gathering(near);
        stream.write_all(b"lost").await.unwrap();
        drop(far);
        assert!(!send(&outlet).await);
        assert!(stream.read_u8().await.is_err());
    }
}
