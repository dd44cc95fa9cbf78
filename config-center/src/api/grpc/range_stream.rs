//! RangeStream: a range in chunks, all read at the revision at which the first one was, so that
//! neither side ever holds the whole result.

use std::pin::Pin;
use std::sync::Arc;

use config_center_core::{Access, Refusal, validation};
use futures::Stream;
use prost::Message as _;
use schemas::etcdserverpb::{RangeRequest, RangeResponse, RangeStreamResponse};
use tonic::{Code, Status};

use crate::api::{Context, Fault};
use crate::auth::Credentials;
use crate::metrics::Rpc;

/// Keys of the first chunk; it says how large the others may be.
const FIRST_CHUNK_KEYS: usize = 10;

pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

/// Checks the request and fixes the revision; the chunks are read as the client takes them.
pub(super) async fn open(
    context: &Arc<Context>,
    credentials: &Credentials,
    range: RangeRequest,
) -> Result<Chunks, Fault> {
    validation::check_range_stream(&range)?;
    if !range.serializable {
        context.node.read_barrier().await?;
    }
    context.permit(credentials, Access::Range(&range)).await?;
    let listing = Listing::new(Arc::clone(context), range)?;
    let chunks = futures::stream::unfold(listing, |mut listing| async move {
        listing.next().map(|chunk| (chunk, listing))
    });
    Ok(Box::pin(chunks))
}

struct Listing {
    context: Arc<Context>,
    /// Its key moves on with every chunk.
    range: RangeRequest,
    /// The store's revision at the beginning: the header's.
    revision: i64,
    chunk_keys: usize,
    /// Keys that the client's limit still allows.
    left: usize,
    sent: i64,
    ended: bool,
    /// The gRPC code to count at the end; Canceled unless something else happened.
    code: Code,
}

impl Listing {
    fn new(context: Arc<Context>, mut range: RangeRequest) -> Result<Self, Refusal> {
        let (found, revision) = context
            .engine()
            .read(|state| (state.range_page(&range, 0), state.revision()));
        found?;
        if range.revision <= 0 {
            range.revision = revision;
        }
        let left = match usize::try_from(range.limit) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(limit) => limit,
        };
        Ok(Self {
            context,
            range,
            revision,
            chunk_keys: FIRST_CHUNK_KEYS.min(left),
            left,
            sent: 0,
            ended: false,
            code: Code::Cancelled,
        })
    }

    fn next(&mut self) -> Option<Result<RangeStreamResponse, Status>> {
        if self.ended {
            return None;
        }
        let answer = if self.range.count_only {
            self.count()
        } else {
            self.chunk()
        };
        match answer {
            Ok(answer) => {
                if answer.header.is_some() {
                    (self.ended, self.code) = (true, Code::Ok);
                }
                Some(Ok(RangeStreamResponse {
                    range_response: Some(answer),
                }))
            }
            // A compaction has overtaken a slow reader.
            Err(refusal) => {
                let status = Status::from(Fault::Refused(refusal));
                (self.ended, self.code) = (true, status.code());
                Some(Err(status))
            }
        }
    }

    fn count(&self) -> Result<RangeResponse, Refusal> {
        let counting = RangeRequest {
            count_only: true,
            limit: 0,
            ..self.range.clone()
        };
        let counted = self.context.engine().read(|state| state.range(&counting))?;
        Ok(RangeResponse {
            header: Some(self.context.header(self.revision)),
            count: counted.count,
            ..RangeResponse::default()
        })
    }

    /// Only the last chunk has a header, and says what the whole range comes to.
    fn chunk(&mut self) -> Result<RangeResponse, Refusal> {
        let engine = self.context.engine();
        let (kvs, more) = engine.read(|state| state.range_page(&self.range, self.chunk_keys))?;
        self.sent += kvs.len() as i64;
        self.left -= kvs.len().min(self.left);
        if let Some(last) = kvs.last() {
            let mut next = last.key.to_vec();
            next.push(0);
            self.range.key = next.into();
        }
        let mut answer = RangeResponse {
            kvs,
            ..RangeResponse::default()
        };
        if !more || self.left == 0 {
            answer.count = self.sent;
            if more {
                answer.more = true;
                answer.count += self.count()?.count;
            }
            answer.header = Some(self.context.header(self.revision));
            return Ok(answer);
        }
        let target = self.context.limits.max_request_bytes;
        self.chunk_keys = next_chunk(self.chunk_keys, answer.encoded_len(), target).min(self.left);
        Ok(answer)
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        let metrics = &self.context.metrics;
        metrics.handled(Rpc::RangeStream, self.code as i32);
    }
}

/// How many keys the next chunk has: twice or half as many when the last one was far from its size.
fn next_chunk(keys: usize, size: usize, target: usize) -> usize {
    if size < target / 2 {
        keys.saturating_mul(2)
    } else if size > target.saturating_mul(2) {
        (keys / 2).max(1)
    } else {
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::next_chunk;

    #[test]
    fn chunks_grow_towards_their_size_and_shrink_above_it() {
        assert_eq!(next_chunk(10, 100, 1000), 20);
        assert_eq!(next_chunk(10, 500, 1000), 10);
        assert_eq!(next_chunk(10, 2000, 1000), 10);
        assert_eq!(next_chunk(10, 2001, 1000), 5);
        assert_eq!(next_chunk(1, 9000, 1000), 1);
    }
}
