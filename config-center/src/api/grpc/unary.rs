//! Unary calls whose request arrives whole, which is how the calls of every busy client arrive: one
//! buffer in, one buffer out, and none of the buffers that a stream of messages needs.
//!
//! Knows the framing of gRPC messages. Whatever is out of the ordinary (a message in pieces,
//! compressed, too large, not decodable) is handed on as it came, for tonic to judge.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};

/// Before every message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
const ENCODING: &str = "grpc-encoding";

/// What became of a request.
pub(super) enum Taken {
    Answered(Response<Body>),
    /// Unread, as far as the next reader can tell.
    Not(Request<Body>),
}

/// Answers a request by `call`, if its message is there in one piece.
pub(super) async fn answer<Q, A, C>(
    request: Request<Body>,
    max_message_bytes: usize,
    call: impl FnOnce(tonic::Request<Q>) -> C,
) -> Taken
where
    Q: Message + Default,
    A: Message,
    C: Future<Output = Result<tonic::Response<A>, Status>>,
{
    let is_encoded = request.headers().contains_key(ENCODING);
    let (parts, mut body) = request.into_parts();
    let first = if is_encoded { None } else { body.frame().await };
    let message = match &first {
        Some(Ok(frame)) if body.is_end_stream() => frame
            .data_ref()
            .and_then(|data| whole_message(data, max_message_bytes))
            .and_then(|message| Q::decode(message).ok()),
        _ => None,
    };
    let Some(message) = message else {
        let unread = Body::new(Unread { first, rest: body });
        return Taken::Not(Request::from_parts(parts, unread));
    };
    let metadata = MetadataMap::from_headers(parts.headers);
    let request = tonic::Request::from_parts(metadata, parts.extensions, message);
    Taken::Answered(match call(request).await {
        Ok(response) => encoded(response),
        Err(status) => status.into_http(),
    })
}

/// The message, when these bytes are exactly one that may be read.
fn whole_message(data: &Bytes, max_message_bytes: usize) -> Option<Bytes> {
    let prefix = data.first_chunk::<PREFIX_BYTES>()?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    let is_whole = prefix[0] == 0 && length + PREFIX_BYTES == data.len();
    (is_whole && length <= max_message_bytes).then(|| data.slice(PREFIX_BYTES..))
}

fn encoded<A: Message>(response: tonic::Response<A>) -> Response<Body> {
    let (metadata, message, extensions) = response.into_parts();
    let length = message.encoded_len();
    let Ok(prefix) = u32::try_from(length) else {
        return Status::resource_exhausted("the answer is longer than a message can be")
            .into_http();
    };
    let mut data = BytesMut::with_capacity(PREFIX_BYTES + length);
    data.put_u8(0);
    data.put_u32(prefix);
    message.encode_raw(&mut data);
    let body = Answer {
        data: Some(data.freeze()),
        is_ended: false,
    };
    let mut response = Response::new(Body::new(body));
    *response.headers_mut() = metadata.into_headers();
    *response.extensions_mut() = extensions;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

/// One message and the status of a call that went well.
struct Answer {
    data: Option<Bytes>,
    is_ended: bool,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if std::mem::replace(&mut self.is_ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

/// A body of which the first frame was looked at.
struct Unread {
    first: Option<Result<Frame<Bytes>, Status>>,
    rest: Body,
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};
    use schemas::etcdserverpb::{PutRequest, PutResponse, ResponseHeader};

    use super::*;

    const MAX: usize = 64;

    fn put() -> PutRequest {
        PutRequest {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
            ..PutRequest::default()
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((message.len() as u32).to_be_bytes());
        bytes.extend(message);
        bytes
    }

    fn pieces(pieces: Vec<Vec<u8>>) -> Body {
        let frames = pieces
            .into_iter()
            .map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(piece))));
        Body::new(StreamBody::new(futures::stream::iter(frames)))
    }

    async fn take(request: Request<Body>) -> Taken {
        answer(
            request,
            MAX,
            |request: tonic::Request<PutRequest>| async move {
                assert_eq!(request.into_inner(), put());
                let revision = 7;
                Ok(tonic::Response::new(PutResponse {
                    header: Some(ResponseHeader {
                        revision,
                        ..ResponseHeader::default()
                    }),
                    prev_kv: None,
                }))
            },
        )
        .await
    }

    #[tokio::test]
    async fn a_whole_message_is_answered_with_one_frame_and_the_status() {
        let body = Body::new(Full::new(Bytes::from(framed(&put().encode_to_vec()))));
        let Taken::Answered(response) = take(Request::new(body)).await else {
            panic!("handed on");
        };
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let mut body = response.into_body();
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let message = whole_message(&data, MAX).unwrap();
        let answer = PutResponse::decode(message).unwrap();
        assert_eq!(answer.header.unwrap().revision, 7);
        let trailers = body.frame().await.unwrap().unwrap();
        assert_eq!(trailers.into_trailers().unwrap()["grpc-status"], "0");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_refusal_is_the_status_alone() {
        let body = Body::new(Full::new(Bytes::from(framed(&put().encode_to_vec()))));
        let refuse = |_: tonic::Request<PutRequest>| async {
            Err::<tonic::Response<PutResponse>, _>(Status::not_found("gone"))
        };
        let Taken::Answered(response) = answer(Request::new(body), MAX, refuse).await else {
            panic!("handed on");
        };
        assert_eq!(response.headers()["grpc-status"], "5");
        assert_eq!(response.headers()["grpc-message"], "gone");
    }

    #[tokio::test]
    async fn what_is_out_of_the_ordinary_is_handed_on_unread() {
        let whole = framed(&put().encode_to_vec());
        let mut compressed = whole.clone();
        compressed[0] = 1;
        let mut two = whole.clone();
        two.extend(&whole);
        let halves = whole.split_at(4);
        for (name, sent) in [
            ("nothing", vec![]),
            ("in halves", vec![halves.0.to_vec(), halves.1.to_vec()]),
            ("compressed", vec![compressed]),
            ("two messages", vec![two]),
            ("cut off", vec![whole[..whole.len() - 1].to_vec()]),
            ("too large", vec![framed(&[0; MAX + 1])]),
            ("no message of this kind", vec![framed(b"\xff\xff")]),
        ] {
            let Taken::Not(request) = take(Request::new(pieces(sent.clone()))).await else {
                panic!("{name} was answered");
            };
            let read = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(read, sent.concat(), "{name}");
        }
        let mut encoded = Request::new(Body::new(Full::new(Bytes::from(whole.clone()))));
        encoded
            .headers_mut()
            .insert(ENCODING, HeaderValue::from_static("gzip"));
        assert!(matches!(take(encoded).await, Taken::Not(_)));
    }
}
