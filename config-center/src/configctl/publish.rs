//! Changing a host's document by compare-and-swap: read, edit, write only if nobody else wrote.
//!
//! Edits must be repeatable: one that finds its work done reports no change. That makes it safe to
//! go again after a lost race, and after an answer that never came.

use std::time::{Duration, Instant};

use bytes::Bytes;
use schemas::etcdserverpb::{
    Compare, PutRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};
use schemas_client::{Client, ClientError};

use super::{
    document::Document,
    exit::{Exit, Failure},
    sha256_hex,
};

/// Writers who meet on one key sort themselves out in a few rounds; more means something is wrong.
const ROUNDS: u32 = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The outcome of editing a document: the new one, and what to tell about it.
#[derive(Debug, Clone)]
pub(crate) struct Edited<N> {
    pub(crate) document: Document,
    pub(crate) notes: N,
}

/// A document as it now is in the store.
#[derive(Debug, Clone)]
pub(crate) struct Published<N> {
    pub(crate) revision: i64,
    pub sha256: String,
    /// False when the store already had it this way and nothing was written.
    pub(crate) written: bool,
    pub(crate) notes: N,
    pub(crate) sent_at: Instant,
}

/// Applies `edit` to the document under `key`; an absent key is passed as `None`.
pub(crate) async fn publish<N: Clone>(
    client: &Client,
    host: &str,
    key: &str,
    edit: impl Fn(Option<&Document>) -> Result<Edited<N>, Failure>,
) -> Result<Published<N>, Failure> {
    let mut unanswered: Option<(ClientError, N)> = None;
    let mut pause = FIRST_PAUSE;
    for _ in 0..ROUNDS {
        let found = client.get(key.to_owned()).await?;
        let (document, revision, lease) = match &found.kv {
            None => (None, 0, 0),
            Some(kv) => {
                let document = Document::parse(&kv.value)
                    .map_err(|error| Failure::not_a_document(host, key, kv.mod_revision, &error))?;
                (Some(document), kv.mod_revision, kv.lease)
            }
        };
        let sent_at = Instant::now();
        let edited = match edit(document.as_ref()) {
            Ok(edited) => edited,
            // The edit cannot find what it changed itself: the unanswered write was applied.
            Err(failure) => match unanswered {
                Some((_, notes)) if failure.exit == Exit::NotFound => {
                    return Ok(published(document.as_ref(), revision, true, notes, sent_at));
                }
                _ => return Err(failure),
            },
        };
        if document.as_ref() == Some(&edited.document) {
            let written = unanswered.is_some();
            let notes = unanswered.map_or(edited.notes, |(_, notes)| notes);
            return Ok(published(
                document.as_ref(),
                revision,
                written,
                notes,
                sent_at,
            ));
        }
        let value = Bytes::from(edited.document.text().to_owned());
        match client.txn(swap(key, revision, value, lease)).await {
            Ok(answer) if answer.succeeded => {
                let revision = answer.header.map_or(0, |header| header.revision);
                let document = Some(&edited.document);
                return Ok(published(document, revision, true, edited.notes, sent_at));
            }
            Ok(_) => {}
            Err(error @ ClientError::OutcomeUnknown { .. }) => {
                // Reading again tells what became of it.
                unanswered = Some((error, edited.notes));
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    match unanswered {
        Some((error, _)) => Err(error.into()),
        None => Err(Failure::new(
            Exit::RaceLost,
            format!(
                "{host}: others changed {key} in each of {ROUNDS} rounds; nothing of this change \
                 was written. Try again"
            ),
        )),
    }
}

fn published<N>(
    document: Option<&Document>,
    revision: i64,
    written: bool,
    notes: N,
    sent_at: Instant,
) -> Published<N> {
    Published {
        revision,
        sha256: sha256_hex(document.map_or("", Document::text).as_bytes()),
        written,
        notes,
        sent_at,
    }
}

/// Puts the value if the key still has this revision; 0 means that it must not exist.
fn swap(key: &str, revision: i64, value: Bytes, lease: i64) -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.to_owned().into(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Default::default()
        }],
        success: vec![RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: key.to_owned().into(),
                value,
                // A key that somebody bound to a lease stays bound to it.
                lease,
                ..Default::default()
            })),
        }],
        failure: Vec::new(),
    }
}
