//! Walks over HTTP/2 frames in a stream of bytes that comes in pieces; knows headers, not contents.

/// What every client sends before its first frame.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const FLAG_END_STREAM: u8 = 0x1;
pub(super) const FLAG_ACK: u8 = 0x1;

/// The head of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct FrameWalker {
    head: [u8; HEADER_BYTES],
    head_filled: usize,
    /// Bytes of the preface, or of the frame whose head was seen.
    passing: usize,
}

impl FrameWalker {
    /// For what a client sends.
    pub(super) fn of_client() -> Self {
        Self {
            passing: PREFACE_BYTES,
            ..Self::of_server()
        }
    }

    /// For what a server sends.
    pub(super) fn of_server() -> Self {
        Self {
            head: [0; HEADER_BYTES],
            head_filled: 0,
            passing: 0,
        }
    }

    /// Whether the next byte begins a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.passing == 0 && self.head_filled == 0
    }

    /// Goes on over these bytes and hands out each head that is complete.
    pub(super) fn walk(&mut self, mut bytes: &[u8], mut seen: impl FnMut(FrameHead)) {
        while !bytes.is_empty() {
            if self.passing > 0 {
                let count = self.passing.min(bytes.len());
                self.passing -= count;
                bytes = &bytes[count..];
                continue;
            }
            let count = (HEADER_BYTES - self.head_filled).min(bytes.len());
            self.head[self.head_filled..self.head_filled + count].copy_from_slice(&bytes[..count]);
            self.head_filled += count;
            bytes = &bytes[count..];
            if self.head_filled == HEADER_BYTES {
                let [a, b, c, kind, flags, stream @ ..] = self.head;
                self.head_filled = 0;
                self.passing = u32::from_be_bytes([0, a, b, c]) as usize;
                seen(FrameHead {
                    kind,
                    flags,
                    // The first bit is reserved.
                    stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
        let mut bytes = (u32::try_from(payload).unwrap() << 8 | u32::from(kind))
            .to_be_bytes()
            .to_vec();
        bytes.push(flags);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(vec![0xff; payload]);
        bytes
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let mut bytes = vec![b'x'; PREFACE_BYTES];
        bytes.extend(frame(4, 0, 0, 0));
        bytes.extend(frame(HEADERS, FLAG_END_STREAM, 0x8000_0001, 300));
        bytes.extend(frame(PING, FLAG_ACK, 0, 8));
        for piece in [1, 2, 7, 9, 33, 1000] {
            let mut walker = FrameWalker::of_client();
            let mut heads = Vec::new();
            for part in bytes.chunks(piece) {
                walker.walk(part, |head| {
                    heads.push((head.kind, head.flags, head.stream))
                });
            }
            assert_eq!(
                heads,
                [(4, 0, 0), (1, 1, 1), (6, 1, 0)],
                "pieces of {piece}"
            );
            assert!(walker.is_between_frames());
        }
        let mut walker = FrameWalker::of_server();
        walker.walk(&frame(DATA, 0, 1, 10)[..15], |_| ());
        assert!(!walker.is_between_frames());
    }
}
