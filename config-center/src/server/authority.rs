//! Makes the `:authority` of older etcd clients acceptable.
//!
//! etcdctl 3.4 (`endpoint status`, `endpoint hashkv`, `defrag`) sends the whole URL
//! `http://host:port` as authority, and clientv3 3.5.0 sends `#initially=[…]`. Servers written in Go
//! do not care; the HTTP/2 library here resets such a stream before anybody can look at it. So the
//! first header block of a connection is looked at, and only if it carries such an authority, every
//! header block of that connection is rewritten: the bad value is replaced by a short good one.
//! All other connections are passed through untouched from their second request on.
//!
//! Replacing is safe for header compression, because the new value is never longer: the decoder's
//! table then holds at least the entries that the client's table holds, under the same numbers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const FLAG_PADDED: u8 = 0x8;
const FLAG_PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;
/// Larger frames are not announced as acceptable; the library refuses them.
const MAX_FRAME_BYTES: usize = 16_384;
/// Read from the socket at once while frames are looked at.
const READ_BYTES: usize = 4096;
/// `:authority` in the static table of HPACK.
const AUTHORITY_INDEX: usize = 1;
/// What stands for a bad authority. Nobody reads it; shorter than every bad one.
const REPLACEMENT: &[u8] = b"\x04etcd";

/// One letter in HPACK's Huffman code: the code, and how many bits it has.
type LetterCode = (u16, u8);

// The letters that bad authorities begin with.
const H: LetterCode = (0x27, 6);
const T: LetterCode = (0x9, 5);
const P: LetterCode = (0x2b, 6);
const S: LetterCode = (0x8, 5);
const COLON: LetterCode = (0x5c, 7);
const SLASH: LetterCode = (0x18, 6);
const HASH: LetterCode = (0xffa, 12);

/// How a bad authority begins, in plain and in Huffman's code.
const BAD: [(&[u8], &[LetterCode]); 3] = [
    (b"http://", &[H, T, T, P, COLON, SLASH, SLASH]),
    (b"https://", &[H, T, T, P, S, COLON, SLASH, SLASH]),
    (b"#", &[HASH]),
];

/// A connection whose bytes from the client are HTTP/2 frames.
pub(super) struct LenientAuthority<IO> {
    io: IO,
    /// Bytes from the client that are not looked at yet.
    arrived: BytesMut,
    /// Bytes for the library.
    ready: BytesMut,
    preface_left: usize,
    /// Rest of a frame that is none of our business.
    passing: usize,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No header block has been seen.
    Looking,
    /// This client sends bad authorities.
    Rewriting,
    /// Nothing to do any more.
    Transparent,
}

impl<IO> LenientAuthority<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self {
            io,
            arrived: BytesMut::new(),
            ready: BytesMut::new(),
            preface_left: PREFACE_BYTES,
            passing: 0,
            stage: Stage::Looking,
        }
    }

    /// Moves as much as can be judged from `arrived` to `ready`.
    fn judge(&mut self) {
        loop {
            if self.stage == Stage::Transparent {
                self.pass(usize::MAX);
                return;
            }
            if self.preface_left > 0 {
                self.preface_left -= self.pass(self.preface_left);
            }
            if self.passing > 0 {
                self.passing -= self.pass(self.passing);
            }
            let Some(header) = self.arrived.first_chunk::<FRAME_HEADER_BYTES>() else {
                return;
            };
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            if header[3] != HEADERS || length > MAX_FRAME_BYTES {
                self.passing = FRAME_HEADER_BYTES + length;
                continue;
            }
            if self.arrived.len() < FRAME_HEADER_BYTES + length {
                return;
            }
            let frame = self.arrived.split_to(FRAME_HEADER_BYTES + length);
            match rewritten(&frame) {
                Some(frame) => {
                    self.stage = Stage::Rewriting;
                    self.ready.extend_from_slice(&frame);
                }
                None => {
                    if self.stage == Stage::Looking {
                        self.stage = Stage::Transparent;
                    }
                    self.ready.extend_from_slice(&frame);
                }
            }
        }
    }

    fn pass(&mut self, at_most: usize) -> usize {
        let count = at_most.min(self.arrived.len());
        self.ready.extend_from_slice(&self.arrived.split_to(count));
        count
    }
}

/// The frame with a good authority, if it has a bad one.
fn rewritten(frame: &[u8]) -> Option<Vec<u8>> {
    let flags = frame[4];
    let mut start = FRAME_HEADER_BYTES;
    let mut end = frame.len();
    if flags & FLAG_PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.get(start)?))?;
        start += 1;
    }
    if flags & FLAG_PRIORITY != 0 {
        start += PRIORITY_BYTES;
    }
    let block = frame.get(start..end)?;
    let (from, to) = bad_authority(block)?;
    let mut changed = Vec::with_capacity(frame.len());
    changed.extend_from_slice(&frame[..start + from]);
    changed.extend_from_slice(REPLACEMENT);
    changed.extend_from_slice(&frame[start + to..]);
    let length = u32::try_from(changed.len() - FRAME_HEADER_BYTES)
        .ok()?
        .to_be_bytes();
    changed[..3].copy_from_slice(&length[1..]);
    Some(changed)
}

/// Where in a header block the value of a bad `:authority` lies, its length byte included. `None`
/// also for a block that cannot be read: the library will say what is wrong with it.
fn bad_authority(block: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    while at < block.len() {
        let first = block[at];
        let (prefix_bits, is_literal) = match first {
            0x80.. => (7, false),
            0x40..0x80 => (6, true),
            0x20..0x40 => (5, false),
            0..0x20 => (4, true),
        };
        let (index, after) = integer(block, at, prefix_bits)?;
        at = after;
        if !is_literal {
            continue;
        }
        if index == 0 {
            at = string(block, at)?.1;
        }
        let (value, after) = string(block, at)?;
        if index == AUTHORITY_INDEX && is_bad(value, block[at] & 0x80 != 0) {
            return Some((at, after));
        }
        at = after;
    }
    None
}

/// HPACK's integer with a prefix of so many bits: the value, and where it ends.
fn integer(block: &[u8], at: usize, prefix_bits: u8) -> Option<(usize, usize)> {
    let mask = (1_usize << prefix_bits) - 1;
    let mut value = usize::from(*block.get(at)?) & mask;
    let mut at = at + 1;
    if value == mask {
        // Four more bytes are enough for any block that fits into a frame.
        for shift in [0, 7, 14, 21] {
            let byte = usize::from(*block.get(at)?);
            at += 1;
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((value, at));
            }
        }
        return None;
    }
    Some((value, at))
}

/// HPACK's string, still in its code: the bytes, and where it ends.
fn string(block: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (length, start) = integer(block, at, 7)?;
    let end = start.checked_add(length)?;
    Some((block.get(start..end)?, end))
}

fn is_bad(value: &[u8], is_huffman: bool) -> bool {
    BAD.iter().any(|(plain, codes)| {
        if is_huffman {
            begins_with_codes(value, codes)
        } else {
            value.starts_with(plain)
        }
    })
}

fn begins_with_codes(value: &[u8], codes: &[LetterCode]) -> bool {
    let mut bit = 0;
    for (code, bits) in codes {
        for place in (0..*bits).rev() {
            let Some(byte) = value.get(bit / 8) else {
                return false;
            };
            let is_set = byte & (0x80 >> (bit % 8)) != 0;
            if is_set != (code >> place & 1 == 1) {
                return false;
            }
            bit += 1;
        }
    }
    true
}

impl<IO: AsyncRead + Unpin> AsyncRead for LenientAuthority<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.ready.is_empty() {
                let count = this.ready.len().min(buf.remaining());
                buf.put_slice(&this.ready[..count]);
                this.ready.advance(count);
                return Poll::Ready(Ok(()));
            }
            if this.stage == Stage::Transparent {
                return Pin::new(&mut this.io).poll_read(cx, buf);
            }
            let mut space = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // The end, perhaps inside a frame: the library judges what there is.
                this.stage = Stage::Transparent;
            }
            this.arrived.extend_from_slice(read.filled());
            this.judge();
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for LenientAuthority<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
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
mod tests;
