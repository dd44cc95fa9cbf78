//! RangeStream over the network: chunks, the fixed revision, and what a compaction does to it.

use schemas::etcdserverpb::range_request::{SortOrder, SortTarget};
use schemas::etcdserverpb::{CompactionRequest, RangeRequest, RangeResponse};
use tonic::{Code, Streaming};

use crate::fixture::{Fixture, assert_status, bytes, range, within};

type Chunks = Streaming<schemas::etcdserverpb::RangeStreamResponse>;

fn everything() -> RangeRequest {
    RangeRequest {
        range_end: bytes("\0"),
        ..range("\0")
    }
}

async fn open(fixture: &Fixture, request: RangeRequest) -> Chunks {
    let opened = fixture.kv().range_stream(request).await;
    opened.unwrap().into_inner()
}

async fn next(chunks: &mut Chunks) -> Option<RangeResponse> {
    let chunk = within("chunk", chunks.message()).await.unwrap();
    chunk.map(|chunk| chunk.range_response.unwrap())
}

/// All chunks; only the last one has a header.
async fn all(fixture: &Fixture, request: RangeRequest) -> Vec<RangeResponse> {
    let mut chunks = open(fixture, request).await;
    let mut got = Vec::new();
    while let Some(chunk) = next(&mut chunks).await {
        got.push(chunk);
    }
    let (last, others) = got.split_last().unwrap();
    assert!(last.header.is_some());
    for other in others {
        assert!(other.header.is_none() && other.count == 0 && !other.more);
    }
    got
}

/// Keys that say how many they are.
async fn fill(fixture: &Fixture, count: usize) {
    for n in 0..count {
        fixture.put(&format!("k{n:04}"), "v").await;
    }
}

#[tokio::test]
async fn chunks_come_in_key_order_and_the_last_one_counts() {
    let fixture = Fixture::start().await;
    fill(&fixture, 100).await;
    let got = all(&fixture, everything()).await;
    let sizes: Vec<usize> = got.iter().map(|chunk| chunk.kvs.len()).collect();
    assert_eq!(sizes, [10, 20, 40, 30]);
    let keys: Vec<_> = got.iter().flat_map(|chunk| &chunk.kvs).collect();
    assert!(keys.windows(2).all(|pair| pair[0].key < pair[1].key));
    let last = got.last().unwrap();
    assert_eq!((last.count, last.more), (100, false));
    assert_eq!(last.header.as_ref().unwrap().revision, 101);

    let limited = RangeRequest {
        limit: 25,
        keys_only: true,
        ..everything()
    };
    let got = all(&fixture, limited).await;
    let sizes: Vec<usize> = got.iter().map(|chunk| chunk.kvs.len()).collect();
    assert_eq!(sizes, [10, 15]);
    assert!(
        got.iter()
            .flat_map(|c| &c.kvs)
            .all(|kv| kv.value.is_empty())
    );
    let last = got.last().unwrap();
    assert_eq!((last.count, last.more), (100, true));

    let counted = RangeRequest {
        count_only: true,
        limit: 3,
        ..everything()
    };
    let got = all(&fixture, counted).await;
    assert_eq!((got.len(), got[0].count, got[0].kvs.len()), (1, 100, 0));
    let got = all(&fixture, range("k0007")).await;
    assert_eq!((got.len(), got[0].count), (1, 1));
    let got = all(&fixture, range("none")).await;
    assert_eq!((got.len(), got[0].count, got[0].more), (1, 0, false));
    fixture.stop().await;
}

#[tokio::test]
async fn writes_after_the_beginning_are_not_seen_and_a_compaction_ends_it() {
    let fixture = Fixture::start().await;
    // Chunks larger than what a connection buffers: the server reads on only as the client takes.
    let large = "x".repeat(100_000);
    for n in 0..100 {
        fixture.put(&format!("k{n:04}"), &large).await;
    }
    let mut chunks = open(&fixture, everything()).await;
    let mut got = next(&mut chunks).await.unwrap().kvs.len();
    fixture.put("k0001", "changed").await;
    fixture.put("z", "new").await;
    let last = loop {
        let chunk = next(&mut chunks).await.unwrap();
        got += chunk.kvs.len();
        assert!(chunk.kvs.iter().all(|kv| kv.mod_revision <= 101));
        if chunk.header.is_some() {
            break chunk;
        }
    };
    assert_eq!((got, last.count), (100, 100));
    assert_eq!(last.header.unwrap().revision, 101);

    let old = RangeRequest {
        revision: 101,
        ..everything()
    };
    let mut chunks = open(&fixture, old).await;
    next(&mut chunks).await.unwrap();
    let compaction = CompactionRequest {
        revision: 103,
        physical: false,
    };
    fixture.kv().compact(compaction).await.unwrap();
    let status = loop {
        match within("chunk", chunks.message()).await {
            Ok(Some(chunk)) => assert!(chunk.range_response.unwrap().header.is_none()),
            Ok(None) => panic!("the stream ended as if it were whole"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted"
        )
    );
    fixture.stop().await;
}

#[tokio::test]
async fn what_needs_the_whole_result_is_not_streamed() {
    let fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    let sorted = |target: SortTarget, order: SortOrder| RangeRequest {
        sort_target: target as i32,
        sort_order: order as i32,
        ..everything()
    };
    let mut kv = fixture.kv();
    for request in [
        sorted(SortTarget::Key, SortOrder::Descend),
        sorted(SortTarget::Mod, SortOrder::Ascend),
    ] {
        assert_status(
            kv.range_stream(request).await,
            Code::Unimplemented,
            "RangeStream does not support custom sort orders",
        );
    }
    for request in [
        sorted(SortTarget::Key, SortOrder::Ascend),
        sorted(SortTarget::Value, SortOrder::None),
    ] {
        assert_eq!(all(&fixture, request).await[0].count, 1);
    }
    let filtered = RangeRequest {
        min_mod_revision: 1,
        ..everything()
    };
    assert_status(
        kv.range_stream(filtered).await,
        Code::Unimplemented,
        "RangeStream does not support revision filters",
    );
    assert_status(
        kv.range_stream(range("")).await,
        Code::InvalidArgument,
        "etcdserver: key is not provided",
    );
    let future = RangeRequest {
        revision: 9,
        ..everything()
    };
    assert_status(
        kv.range_stream(future).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    fixture.stop().await;
}
