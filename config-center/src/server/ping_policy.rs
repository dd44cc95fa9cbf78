//! The keepalive policy of gRPC servers: a client that pings more often than it is allowed to is
//! sent away with "too_many_pings", and its library then pings less often. The HTTP/2 library here
//! has no such policy, so it is enforced where the bytes pass.
//!
//! As in gRPC for Go: a ping is a strike when it comes sooner after the last one than
//! `--grpc-keepalive-min-time`, or, on a connection without a call, sooner than two hours. Every
//! answer of the server forgives the strikes. The third strike is the last.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, BytesMut};
use rustc_hash::FxHashSet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{
    DATA, FLAG_ACK, FLAG_END_STREAM, FrameHead, FrameWalker, GOAWAY, HEADERS, PING, RST_STREAM,
};

/// Between two pings of a client without a call.
const IDLE_PING_TIME: Duration = Duration::from_secs(2 * 3600);
const FORGIVEN_STRIKES: u32 = 2;
const ENHANCE_YOUR_CALM: u32 = 0xb;
const REASON: &[u8] = b"too_many_pings";

/// What one client has done; a function of the frames and the time they came at.
#[derive(Debug)]
struct Policy {
    min_time: Duration,
    last_ping: Option<Instant>,
    strikes: u32,
    forgiven: bool,
    /// Streams on which a call is going on.
    calls: FxHashSet<u32>,
    newest_call: u32,
}

impl Policy {
    fn new(min_time: Duration) -> Self {
        Self {
            min_time,
            last_ping: None,
            strikes: 0,
            forgiven: false,
            calls: FxHashSet::default(),
            newest_call: 0,
        }
    }

    /// `true` when the client has to go.
    fn received(&mut self, frame: FrameHead, now: Instant) -> bool {
        match frame.kind {
            // Trailers come on a stream that is known.
            HEADERS if frame.stream > self.newest_call => {
                self.newest_call = frame.stream;
                self.calls.insert(frame.stream);
            }
            RST_STREAM => {
                self.calls.remove(&frame.stream);
            }
            PING if frame.flags & FLAG_ACK == 0 => return self.pinged(now),
            _ => {}
        }
        false
    }

    fn pinged(&mut self, now: Instant) -> bool {
        let before = self.last_ping.replace(now);
        if std::mem::take(&mut self.forgiven) {
            self.strikes = 0;
            return false;
        }
        let least = if self.calls.is_empty() {
            IDLE_PING_TIME
        } else {
            self.min_time
        };
        if before.is_some_and(|before| now.duration_since(before) < least) {
            self.strikes += 1;
        }
        self.strikes > FORGIVEN_STRIKES
    }

    fn sent(&mut self, frame: FrameHead) {
        match frame.kind {
            HEADERS | DATA => {
                self.forgiven = true;
                if frame.flags & FLAG_END_STREAM != 0 {
                    self.calls.remove(&frame.stream);
                }
            }
            RST_STREAM => {
                self.calls.remove(&frame.stream);
            }
            _ => {}
        }
    }
}

/// A connection under the policy.
pub(super) struct PingPolicy<IO> {
    io: IO,
    policy: Policy,
    incoming: FrameWalker,
    outgoing: FrameWalker,
    /// The client has to go; said as soon as the frame being written is complete.
    is_condemned: bool,
    /// What is left to say before the end.
    farewell: Option<BytesMut>,
}

impl<IO: AsyncWrite + Unpin> PingPolicy<IO> {
    pub(super) fn new(io: IO, min_time: Duration) -> Self {
        Self {
            io,
            policy: Policy::new(min_time),
            incoming: FrameWalker::of_client(),
            outgoing: FrameWalker::of_server(),
            is_condemned: false,
            farewell: None,
        }
    }

    fn condemn_if_between_frames(&mut self) {
        if self.is_condemned && self.farewell.is_none() && self.outgoing.is_between_frames() {
            tracing::debug!("a client pings too often and is sent away");
            let mut frame = BytesMut::new();
            frame.put_uint(8 + REASON.len() as u64, 3);
            frame.put_u8(GOAWAY);
            frame.put_u8(0);
            frame.put_u32(0);
            frame.put_u32(self.policy.newest_call);
            frame.put_u32(ENHANCE_YOUR_CALM);
            frame.put_slice(REASON);
            self.farewell = Some(frame);
        }
    }

    /// Ready with the error that ends the connection once the client was told why.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(farewell) = &mut self.farewell else {
            return Poll::Pending;
        };
        while !farewell.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, farewell)) {
                Ok(0) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                Ok(written) => farewell.advance(written),
                Err(error) => return Poll::Ready(error),
            }
        }
        if let Err(error) = ready!(Pin::new(&mut self.io).poll_shutdown(cx)) {
            return Poll::Ready(error);
        }
        Poll::Ready(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the client pings too often",
        ))
    }

    fn wrote(&mut self, written: &[u8]) {
        let policy = &mut self.policy;
        self.outgoing.walk(written, |frame| policy.sent(frame));
        self.condemn_if_between_frames();
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for PingPolicy<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.farewell.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            let policy = &mut this.policy;
            let mut is_condemned = false;
            this.incoming.walk(&buf.filled()[before..], |frame| {
                is_condemned |= policy.received(frame, Instant::now());
            });
            this.is_condemned |= is_condemned;
            this.condemn_if_between_frames();
        }
        if this.farewell.is_some() {
            return this.poll_farewell(cx).map(Err);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PingPolicy<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.farewell.is_some() {
            return this.poll_farewell(cx).map(Err);
        }
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.wrote(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.farewell.is_some() {
            return this.poll_farewell(cx).map(Err);
        }
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let count = left.min(buf.len());
            left -= count;
            this.wrote(&buf[..count]);
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN_TIME: Duration = Duration::from_secs(5);

    fn frame(kind: u8, flags: u8, stream: u32) -> FrameHead {
        FrameHead {
            kind,
            flags,
            stream,
        }
    }

    /// Pings every `gap` seconds until the client has to go; how many it took, up to 10.
    fn pings(policy: &mut Policy, gap: u64) -> usize {
        let mut now = Instant::now();
        for count in 1..=10 {
            if policy.received(frame(PING, 0, 0), now) {
                return count;
            }
            now += Duration::from_secs(gap);
        }
        10
    }

    #[test]
    fn with_a_call_the_fourth_hasty_ping_is_the_last() {
        let mut policy = Policy::new(MIN_TIME);
        policy.received(frame(HEADERS, FLAG_END_STREAM, 1), Instant::now());
        assert_eq!(pings(&mut policy, 4), 4);
        let mut policy = Policy::new(MIN_TIME);
        policy.received(frame(HEADERS, 0, 1), Instant::now());
        assert_eq!(pings(&mut policy, 5), 10, "as often as allowed");
        assert!(!policy.received(frame(PING, FLAG_ACK, 0), Instant::now()));
    }

    #[test]
    fn without_a_call_pings_are_hardly_allowed() {
        assert_eq!(pings(&mut Policy::new(MIN_TIME), 60), 4);
        for ended in [frame(HEADERS, FLAG_END_STREAM, 1), frame(RST_STREAM, 0, 1)] {
            let mut policy = Policy::new(MIN_TIME);
            policy.received(frame(HEADERS, 0, 1), Instant::now());
            policy.sent(ended);
            policy.forgiven = false;
            assert_eq!(pings(&mut policy, 60), 4, "{ended:?}");
        }
    }

    #[test]
    fn an_answer_forgives() {
        let mut policy = Policy::new(MIN_TIME);
        let mut now = Instant::now();
        policy.received(frame(HEADERS, 0, 1), now);
        for _ in 0..20 {
            for _ in 0..3 {
                assert!(!policy.received(frame(PING, 0, 0), now));
                now += Duration::from_secs(1);
            }
            policy.sent(frame(DATA, 0, 1));
        }
    }
}
