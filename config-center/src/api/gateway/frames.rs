//! gRPC's framing, from the client's side of a call inside this process: a byte for compression,
//! four for the length, the message. The answer's status comes in its headers or its trailers.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::{Code, Status};

const HEADER_BYTES: usize = 5;

/// A message as it travels.
pub(in crate::api) fn framed(message: &Bytes) -> Result<Bytes, Status> {
    let len = u32::try_from(message.len())
        .map_err(|_| Status::resource_exhausted("a message of 4 GiB or more"))?;
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(len);
    frame.put_slice(message);
    Ok(frame.freeze())
}

/// The messages of an answer, in order. Dropping it ends the call.
pub(in crate::api) struct Messages {
    body: Body,
    arrived: BytesMut,
    ended: bool,
}

impl Messages {
    /// Begins to read an answer; an error that came instead of messages is returned at once.
    pub(in crate::api) fn of(response: Response<Body>) -> Result<Self, Status> {
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != Code::Ok => Err(status),
            known => Ok(Self {
                body: response.into_body(),
                arrived: BytesMut::new(),
                ended: known.is_some(),
            }),
        }
    }

    /// The next message; `None` after the last one of a call that went well.
    pub(in crate::api) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take_whole()? {
                return Ok(Some(message));
            }
            if self.ended {
                return Ok(None);
            }
            let Some(frame) = self.body.frame().await else {
                self.ended = true;
                return Err(Status::internal("the answer ended without a status"));
            };
            match frame?.into_data() {
                Ok(data) => self.arrived.extend_from_slice(&data),
                Err(other) => {
                    let Ok(trailers) = other.into_trailers() else {
                        continue;
                    };
                    self.ended = true;
                    match Status::from_header_map(&trailers) {
                        Some(status) if status.code() != Code::Ok => return Err(status),
                        _ => {}
                    }
                }
            }
        }
    }

    fn take_whole(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(mut header) = self.arrived.get(..HEADER_BYTES) else {
            return Ok(None);
        };
        let (compressed, len) = (header.get_u8(), header.get_u32() as usize);
        if compressed != 0 {
            return Err(Status::internal("an answer was compressed unasked"));
        }
        if self.arrived.len() < HEADER_BYTES + len {
            return Ok(None);
        }
        self.arrived.advance(HEADER_BYTES);
        Ok(Some(self.arrived.split_to(len).freeze()))
    }
}
