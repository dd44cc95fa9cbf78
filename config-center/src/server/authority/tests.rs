//! Header blocks as grpc-go encodes them, whole and in small pieces.

use tokio::io::AsyncReadExt as _;

use super::*;

/// `:method POST`, `:scheme http`, and a literal `:path` before the authority.
const BEFORE: &str = "8386459760a924882d9dcb6571afa066a925a87510ac6e48d36a3f";
/// `content-type` and the rest.
const AFTER: &str = "5f8b1d75d0620d263d4c4d6564";
const HTTP_URL: &str = "418f9d29aee30c044eae05c0b86e09975f";
const HTTPS_URL: &str = "41889d29ad1718627b81";
const INITIALLY: &str = "419bffa35464987451ea0ffdce94d7718628390744e7426e09975fffe7";
const HOST_PORT: &str = "418a089d5c0b8170dc132ebf";
const REPLACED: &str = "410465746364";

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
    frame.extend_from_slice(payload);
    frame
}

fn headers(authority: &str) -> Vec<u8> {
    frame(HEADERS, 4, &unhex(&format!("{BEFORE}{authority}{AFTER}")))
}

fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
    [vec![b'P'; PREFACE_BYTES], frames.concat()].concat()
}

/// What the library reads when the client's bytes come in pieces of this size.
async fn through(bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut guarded = LenientAuthority::new(Pieces {
        left: bytes.to_vec(),
        piece,
    });
    let mut read = Vec::new();
    guarded.read_to_end(&mut read).await.unwrap();
    read
}

/// A client that sends a few bytes at a time.
struct Pieces {
    left: Vec<u8>,
    piece: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.piece.min(self.left.len()).min(buf.remaining());
        let sent: Vec<u8> = self.left.drain(..count).collect();
        buf.put_slice(&sent);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn bad_authorities_are_replaced_wherever_the_bytes_are_cut() {
    let settings = frame(4, 0, &[0; 6]);
    let data = frame(0, 1, &[0; 5]);
    for bad in [HTTP_URL, HTTPS_URL, INITIALLY] {
        let sent = stream(&[settings.clone(), headers(bad), data.clone(), headers(bad)]);
        let expected = stream(&[
            settings.clone(),
            headers(REPLACED),
            data.clone(),
            headers(REPLACED),
        ]);
        for piece in [1, 2, 7, 64, 10_000] {
            assert_eq!(
                through(&sent, piece).await,
                expected,
                "{bad} in pieces of {piece}"
            );
        }
    }
    // The same without Huffman's code.
    let plain = "4112687474703a2f2f6c6f63616c686f73743a31";
    assert_eq!(
        through(&stream(&[headers(plain)]), 9).await,
        stream(&[headers(REPLACED)])
    );
}

#[tokio::test]
async fn everything_else_passes_untouched() {
    let good = stream(&[headers(HOST_PORT), headers(HTTP_URL), vec![1, 2, 3]]);
    for piece in [1, 5, 10_000] {
        assert_eq!(through(&good, piece).await, good);
    }
    // Nonsense is the library's business.
    for nonsense in [
        vec![],
        vec![0xff; 10],
        stream(&[]),
        stream(&[frame(HEADERS, 4, &[0x41])]),
        stream(&[frame(
            HEADERS,
            4,
            &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff],
        )]),
        stream(&[frame(HEADERS, FLAG_PADDED, &[200, 1, 2])]),
        stream(&[frame(HEADERS, FLAG_PRIORITY, &[1, 2])]),
        stream(&[vec![0xff; 500]]),
        stream(&[headers(HTTP_URL)[..20].to_vec()]),
    ] {
        for piece in [1, 10_000] {
            assert_eq!(through(&nonsense, piece).await, nonsense);
        }
    }
}

#[tokio::test]
async fn padding_and_priority_are_stepped_over() {
    let block = |authority: &str| unhex(&format!("{BEFORE}{authority}{AFTER}"));
    let wrapped = |authority: &str| {
        let payload = [
            vec![3],
            vec![0; PRIORITY_BYTES],
            block(authority),
            vec![0; 3],
        ]
        .concat();
        frame(HEADERS, 4 | FLAG_PADDED | FLAG_PRIORITY, &payload)
    };
    assert_eq!(
        through(&stream(&[wrapped(HTTP_URL)]), 10_000).await,
        stream(&[wrapped(REPLACED)])
    );
}
