//! One HTTP/2 connection, client side, with just the frames that gRPC calls need.
//!
//! Bytes in, bytes out: no socket here. Request headers go through HPACK's dynamic table, so that a
//! server decodes what an ordinary client would send it. Response headers are not decoded: a call
//! that was answered has a message before its end, one that failed has none, and that is all the
//! generator asks.

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const DEFAULT_WINDOW: u32 = 65_535;
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// Received bytes after which the connection's window is opened again.
const REPLENISH_BYTES: u32 = 1 << 30;

/// What the peer said about one of our streams.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Data {
        stream: u32,
        bytes: &'a [u8],
        end: bool,
    },
    Headers {
        stream: u32,
        end: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    GoAway {
        code: u32,
    },
}

/// The state of one connection.
#[derive(Debug)]
pub struct Wire {
    authority: String,
    /// Bytes that wait for the socket.
    pub out: Vec<u8>,
    input: Vec<u8>,
    next_stream: u32,
    /// What the peer still takes on the whole connection.
    send_window: i64,
    received: u32,
    /// Header fields inserted into the dynamic table, oldest first.
    table: Vec<(&'static str, String)>,
}

impl Wire {
    pub fn new(authority: &str) -> Self {
        let mut out = PREFACE.to_vec();
        let mut settings = Vec::new();
        for (id, value) in [(2_u16, 0_u32), (4, LARGEST_WINDOW)] {
            settings.extend_from_slice(&id.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        push_frame(&mut out, SETTINGS, 0, 0, &settings);
        let more = LARGEST_WINDOW - DEFAULT_WINDOW;
        push_frame(&mut out, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        Self {
            authority: authority.to_owned(),
            out,
            input: Vec::new(),
            next_stream: 1,
            send_window: i64::from(DEFAULT_WINDOW),
            received: 0,
            table: Vec::new(),
        }
    }

    /// Whether a message of this size fits into the peer's window now.
    pub fn can_send(&self, message_bytes: usize) -> bool {
        self.send_window >= (message_bytes + 5) as i64
    }

    /// Opens a stream and sends its first message; `end` closes our side.
    pub fn request(&mut self, path: &'static str, message: &[u8], end: bool) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        // The length is known only afterwards: the frame header is patched.
        let at = self.out.len();
        push_frame(&mut self.out, HEADERS, END_HEADERS, stream, &[]);
        self.out.extend_from_slice(&[0x83, 0x86]);
        self.push_field(Some(4), ":path", path);
        let authority = self.authority.clone();
        self.push_field(Some(1), ":authority", &authority);
        self.push_field(Some(31), "content-type", "application/grpc");
        self.push_field(None, "te", "trailers");
        let length = (self.out.len() - at - FRAME_HEADER) as u32;
        self.out[at..at + 3].copy_from_slice(&length.to_be_bytes()[1..]);
        self.message(stream, message, end);
        stream
    }

    /// Sends one more message on an open stream.
    pub fn message(&mut self, stream: u32, message: &[u8], end: bool) {
        let bytes = message.len() + 5;
        self.send_window -= bytes as i64;
        let flags = if end { END_STREAM } else { 0 };
        push_frame_header(&mut self.out, DATA, flags, stream, bytes);
        self.out.push(0);
        self.out
            .extend_from_slice(&(message.len() as u32).to_be_bytes());
        self.out.extend_from_slice(message);
    }

    /// Takes bytes from the socket and tells what they say. Answers settings and pings by itself.
    pub fn receive(&mut self, bytes: &[u8], mut tell: impl FnMut(Event<'_>)) {
        // Usually whole frames arrive: then nothing is copied.
        let carried = std::mem::take(&mut self.input);
        let joined;
        let mut rest = if carried.is_empty() {
            bytes
        } else {
            joined = [carried.as_slice(), bytes].concat();
            joined.as_slice()
        };
        while let Some((header, after)) = rest.split_at_checked(FRAME_HEADER) {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let Some((payload, after)) = after.split_at_checked(length) else {
                break;
            };
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            self.frame(header[3], header[4], stream, payload, &mut tell);
            rest = after;
        }
        self.input = rest.to_vec();
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        tell: &mut impl FnMut(Event<'_>),
    ) {
        let end = flags & END_STREAM != 0;
        let number = |bytes: &[u8]| {
            bytes
                .first_chunk::<4>()
                .map_or(0, |bytes| u32::from_be_bytes(*bytes))
        };
        match kind {
            DATA => {
                self.received += payload.len() as u32;
                if self.received >= REPLENISH_BYTES {
                    let more = std::mem::take(&mut self.received).to_be_bytes();
                    push_frame(&mut self.out, WINDOW_UPDATE, 0, 0, &more);
                }
                let bytes = match payload {
                    [padding, rest @ ..] if flags & PADDED != 0 => {
                        &rest[..rest.len().saturating_sub(usize::from(*padding))]
                    }
                    _ => payload,
                };
                tell(Event::Data { stream, bytes, end });
            }
            HEADERS => tell(Event::Headers { stream, end }),
            RST_STREAM => tell(Event::Reset {
                stream,
                code: number(payload),
            }),
            SETTINGS if flags & ACK == 0 => push_frame(&mut self.out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => push_frame(&mut self.out, PING, ACK, 0, payload),
            GOAWAY => tell(Event::GoAway {
                code: payload.get(4..).map_or(0, number),
            }),
            // The windows of single streams are larger than any message of ours.
            WINDOW_UPDATE if stream == 0 => self.send_window += i64::from(number(payload)),
            _ => {}
        }
    }

    /// One header field: by its index when it was sent before, else in full and remembered.
    fn push_field(&mut self, static_name: Option<u8>, name: &'static str, value: &str) {
        let known = self
            .table
            .iter()
            .position(|(known, text)| *known == name && text == value);
        if let Some(ordinal) = known {
            // The newest entry has index 62. Few fields: it never reaches the two-byte form.
            let index = 62 + (self.table.len() - 1 - ordinal);
            self.out.push(0x80 | index as u8);
            return;
        }
        match static_name {
            Some(index) => self.out.push(0x40 | index),
            None => {
                self.out.extend_from_slice(&[0x40, name.len() as u8]);
                self.out.extend_from_slice(name.as_bytes());
            }
        }
        // Lengths below 127 fit into one byte.
        self.out.push(value.len() as u8);
        self.out.extend_from_slice(value.as_bytes());
        self.table.push((name, value.to_owned()));
    }
}

fn push_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    push_frame_header(out, kind, flags, stream, payload.len());
    out.extend_from_slice(payload);
}

fn push_frame_header(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, length: usize) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_frame(&mut out, kind, flags, stream, payload);
        out
    }

    #[test]
    fn later_requests_send_four_indices_instead_of_texts() {
        let mut wire = Wire::new("127.0.0.1:2379");
        wire.out.clear();
        assert_eq!(wire.request("/etcdserverpb.KV/Put", b"m", true), 1);
        let first = wire.out.len();
        wire.out.clear();
        assert_eq!(wire.request("/etcdserverpb.KV/Put", b"m", true), 3);
        // HEADERS of six one-byte fields, DATA of five bytes of prefix and the message.
        assert_eq!(wire.out.len(), (9 + 6) + (9 + 5 + 1));
        assert!(first > wire.out.len());
        assert_eq!(&wire.out[9..15], [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe]);
    }

    #[test]
    fn frames_may_arrive_in_pieces() {
        let mut wire = Wire::new("h");
        let bytes = [
            frame(HEADERS, END_HEADERS, 1, b"x"),
            frame(DATA, 0, 1, b"\0\0\0\0\x01a"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, b"x"),
        ]
        .concat();
        let mut told = Vec::new();
        for piece in bytes.chunks(4) {
            wire.receive(piece, |event| told.push(format!("{event:?}")));
        }
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[1].contains("end: false"), "{told:?}");
        assert_eq!(told[2], "Headers { stream: 1, end: true }");
    }

    #[test]
    fn windows_settings_and_pings_are_answered() {
        let mut wire = Wire::new("h");
        assert!(!wire.can_send(65_535));
        wire.out.clear();
        let bytes = [
            frame(WINDOW_UPDATE, 0, 0, &100_u32.to_be_bytes()),
            frame(SETTINGS, 0, 0, &[]),
            frame(PING, 0, 0, b"12345678"),
        ]
        .concat();
        wire.receive(&bytes, |event| panic!("{event:?}"));
        assert!(wire.can_send(65_535));
        let answers = [
            frame(SETTINGS, ACK, 0, &[]),
            frame(PING, ACK, 0, b"12345678"),
        ]
        .concat();
        assert_eq!(wire.out, answers);
    }
}
