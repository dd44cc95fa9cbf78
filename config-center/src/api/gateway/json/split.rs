//! Cuts a stream of JSON objects where one ends and the next begins, without parsing them: a
//! request body or a conversation arrives in pieces of any size.

use bytes::{Buf as _, Bytes, BytesMut};

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::api::gateway) enum SplitError {
    #[error("a message must be a JSON object, not begin with {0:?}")]
    NotAnObject(char),
    #[error("a JSON object is larger than {0} bytes")]
    TooLarge(usize),
    #[error("unexpected EOF")]
    UnexpectedEnd,
}

/// Takes bytes, gives whole objects. Looks at each byte once.
#[derive(Debug)]
pub(in crate::api::gateway) struct ValueSplitter {
    arrived: BytesMut,
    /// Bytes of `arrived` that were looked at.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    max_bytes: usize,
}

impl ValueSplitter {
    pub(in crate::api::gateway) fn new(max_bytes: usize) -> Self {
        Self {
            arrived: BytesMut::new(),
            seen: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            max_bytes,
        }
    }

    pub(in crate::api::gateway) fn push(&mut self, bytes: &[u8]) {
        self.arrived.extend_from_slice(bytes);
    }

    /// The next whole object, if it has arrived.
    pub(in crate::api::gateway) fn next(&mut self) -> Result<Option<Bytes>, SplitError> {
        while let Some(&byte) = self.arrived.get(self.seen) {
            if self.depth == 0 {
                if byte.is_ascii_whitespace() {
                    self.arrived.advance(1);
                    continue;
                }
                if byte != b'{' {
                    return Err(SplitError::NotAnObject(char::from(byte)));
                }
            }
            self.seen += 1;
            if self.seen > self.max_bytes {
                return Err(SplitError::TooLarge(self.max_bytes));
            }
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        let end = std::mem::take(&mut self.seen);
                        return Ok(Some(self.arrived.split_to(end).freeze()));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Nothing more will arrive.
    pub(in crate::api::gateway) fn finish(&self) -> Result<(), SplitError> {
        if self.arrived.is_empty() {
            Ok(())
        } else {
            Err(SplitError::UnexpectedEnd)
        }
    }
}
