//! librdkafka's batch call: many lines of one topic and key under one lock, with one look-up.
//!
//! The only unsafe code of the agent. rdkafka's own `send` looks the topic up by name, makes a C string
//! and an atomic clone for each line, which together cost more than the line's copy. Knows pointers and
//! their owners; what an error means is decided by the parent.

#![expect(
    unsafe_code,
    reason = "rdkafka has no safe form of rd_kafka_produce_batch"
)]

use std::ffi::{CString, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rdkafka::IntoOpaque;
use rdkafka::bindings;
use rdkafka::producer::{Producer as _, ThreadedProducer};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaMessage, RDKafkaRespErr, RDKafkaTopic};

use super::Context;
use crate::sink::BlockToken;

/// Lines of one call; the array of their descriptions lies on the stack.
const CALL_LINES_MAX: usize = 128;
/// `RD_KAFKA_PARTITION_UA`: librdkafka's partitioner chooses by the key.
const ANY_PARTITION: i32 = -1;

/// One count for all records of one call, so that the block's own count is touched once per call.
#[derive(Debug)]
struct Batch {
    unanswered: AtomicUsize,
    token: Arc<BlockToken>,
}

/// What librdkafka carries with a record: one of the shares of its batch. The last one that is
/// dropped gives the block's token back.
#[derive(Debug)]
pub(super) struct Share(NonNull<Batch>);

// SAFETY: a batch is only read, and its count is atomic; the token in it is Send and Sync.
unsafe impl Send for Share {}
// SAFETY: as above.
unsafe impl Sync for Share {}

impl Share {
    /// The first share of a batch that has `further` more, which the caller makes or takes back.
    fn new(token: &Arc<BlockToken>, further: usize) -> Self {
        let batch = Box::new(Batch {
            unanswered: AtomicUsize::new(further + 1),
            token: Arc::clone(token),
        });
        Self(NonNull::from(Box::leak(batch)))
    }

    /// A share of a batch of its own.
    pub(super) fn alone(token: &Arc<BlockToken>) -> Self {
        Self::new(token, 0)
    }

    pub(super) fn token(&self) -> &BlockToken {
        &self.batch().token
    }

    fn batch(&self) -> &Batch {
        // SAFETY: the batch lives until its last share is dropped, and this one is not.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.batch().unanswered.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: this was the last share, and the pointer came from a Box.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl IntoOpaque for Share {
    fn into_ptr(self) -> *mut c_void {
        let pointer = self.0.as_ptr().cast();
        std::mem::forget(self);
        pointer
    }

    unsafe fn from_ptr(pointer: *mut c_void) -> Self {
        // Each record carries the pointer of a share.
        match NonNull::new(pointer.cast()) {
            Some(batch) => Self(batch),
            None => unreachable!("a record without a share"),
        }
    }
}

/// librdkafka's handle of a topic, made once.
pub(super) struct Topic {
    handle: NonNull<RDKafkaTopic>,
    /// Must outlive the handle.
    _producer: ThreadedProducer<Context>,
}

// SAFETY: librdkafka's topic handles may be used from any thread.
unsafe impl Send for Topic {}

/// What a call took.
pub(super) struct Outcome {
    pub(super) taken: usize,
    /// Of the first line that was not taken.
    pub(super) error: Option<RDKafkaErrorCode>,
}

impl Topic {
    pub(super) fn new(
        producer: &ThreadedProducer<Context>,
        name: &str,
    ) -> Result<Self, RDKafkaErrorCode> {
        let c_name = CString::new(name).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        let client = producer.client().native_ptr();
        // SAFETY: the client lives, the name ends with NUL and is copied; without a configuration the
        // client's own is used.
        let handle =
            unsafe { bindings::rd_kafka_topic_new(client, c_name.as_ptr(), std::ptr::null_mut()) };
        match NonNull::new(handle) {
            Some(handle) => Ok(Self {
                handle,
                _producer: producer.clone(),
            }),
            // SAFETY: reads this thread's last error.
            None => Err(unsafe { bindings::rd_kafka_last_error() }.into()),
        }
    }

    /// Hands copies of the lines to librdkafka, in order, up to the first that it refuses.
    pub(super) fn produce(&self, key: &[u8], lines: &[&[u8]], token: &Arc<BlockToken>) -> Outcome {
        let mut taken = 0;
        for lines in lines.chunks(CALL_LINES_MAX) {
            let outcome = self.call(key, lines, token);
            taken += outcome.taken;
            if outcome.error.is_some() {
                return Outcome { taken, ..outcome };
            }
        }
        Outcome { taken, error: None }
    }

    fn call(&self, key: &[u8], lines: &[&[u8]], token: &Arc<BlockToken>) -> Outcome {
        let own = Share::new(token, lines.len());
        // SAFETY: a message of zeros and null pointers is a valid one.
        let empty: RDKafkaMessage = unsafe { std::mem::zeroed() };
        let mut messages = [empty; CALL_LINES_MAX];
        for (message, line) in messages.iter_mut().zip(lines) {
            message.payload = line.as_ptr().cast_mut().cast();
            message.len = line.len();
            message.key = key.as_ptr().cast_mut().cast();
            message.key_len = key.len();
            message._private = own.0.as_ptr().cast();
        }
        let count = lines.len().min(CALL_LINES_MAX);
        // SAFETY: `count` messages are there; with F_COPY librdkafka copies lines and keys before it
        // returns. Each record that it takes carries the batch's pointer to the delivery callback,
        // where it becomes the share that was counted for it.
        let good = unsafe {
            bindings::rd_kafka_produce_batch(
                self.handle.as_ptr(),
                ANY_PARTITION,
                bindings::RD_KAFKA_MSG_F_COPY,
                messages.as_mut_ptr(),
                count as i32,
            )
        };
        let good = usize::try_from(good).unwrap_or(0);
        // The shares of records that were not taken. `own` is still there, so this is not the end.
        let refused = lines.len() - good;
        own.batch().unanswered.fetch_sub(refused, Ordering::AcqRel);
        let is_taken =
            |message: &&RDKafkaMessage| message.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        let taken = messages[..count].iter().take_while(is_taken).count();
        // All lines of a call have one topic and one key, so what is refused is refused to the end.
        debug_assert_eq!(taken, good, "a record was taken after a refused one");
        Outcome {
            taken,
            error: messages[..count].get(taken).map(|first| first.err.into()),
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and the client lives as long as the producer that is held.
        unsafe { bindings::rd_kafka_topic_destroy(self.handle.as_ptr()) };
    }
}
