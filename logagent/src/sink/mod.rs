//! Where lines go. Knows topics, keys and the answer per block; must not touch files.
//!
//! One `BlockToken` stands for all records made of one read block. Each record carries a clone; the
//! last one to be answered reports the whole block. That is one atomic decrement per line and one
//! message to the tailer per block.

pub mod kafka;
pub mod plain;

use std::sync::{Arc, OnceLock};

use logagent_core::tailer::Ticket;

use crate::inbox::{AckTarget, BlockAck, BlockLoad, Failure};

/// Where the records of one file go. Built once per file, so that no line pays for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub topic: String,
    /// `host:path`: the same key is the same partition, which keeps the file's order.
    pub key: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

impl Destination {
    /// What each record carries besides the line.
    pub fn overhead_bytes(&self) -> u64 {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len());
        (self.key.len() + headers.sum::<usize>()) as u64
    }
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No space now; the same record will be taken later.
    Full,
    /// The topic does not take this record; waiting alone does not help.
    Record(Failure),
}

/// What became of some lines that were offered together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// So many of the first ones were taken.
    pub taken: usize,
    /// Why the next one was not.
    pub refusal: Option<Refusal>,
}

impl Sent {
    pub fn all(taken: usize) -> Self {
        Self {
            taken,
            refusal: None,
        }
    }
}

/// A destination of lines that answers through `BlockToken`s.
pub trait Sink: Send {
    /// Takes copies of the lines, in order, up to the first that is refused. Never waits for a broker.
    fn send(&self, destination: &Destination, lines: &[&[u8]], token: &Arc<BlockToken>) -> Sent;

    /// Asks the broker again about a topic that refused records. Returns at once.
    fn probe(&self, topic: &str);

    /// Waits until everything taken is answered; false when `timeout` passes before.
    fn flush(&self, timeout: std::time::Duration) -> bool;

    /// Gives up everything taken (each block is answered with a failure) and starts anew.
    fn restart(&mut self) -> Result<(), String>;

    /// Trouble with the brokers as a whole, in words; `None` when all is well.
    fn trouble(&self) -> Option<String>;
}

/// Answers for all records of one block when the last clone is dropped.
#[derive(Debug)]
pub struct BlockToken {
    route: u64,
    ticket: Ticket,
    lane: usize,
    /// Written once, when the last line was handed over: before that the tail holds a clone.
    load: OnceLock<BlockLoad>,
    failure: OnceLock<Failure>,
    target: Arc<dyn AckTarget>,
}

impl BlockToken {
    pub fn new(target: &Arc<dyn AckTarget>, route: u64, ticket: Ticket, lane: usize) -> Arc<Self> {
        let target = Arc::clone(target);
        Arc::new(Self {
            route,
            ticket,
            lane,
            load: OnceLock::new(),
            failure: OnceLock::new(),
            target,
        })
    }

    /// Notes what was handed over, before the tail gives up its clone.
    pub fn set_load(&self, load: BlockLoad) {
        self.load.get_or_init(|| load);
    }

    /// Notes that a record of this block failed; the first reason stays.
    pub fn fail(&self, failure: impl FnOnce() -> Failure) {
        self.failure.get_or_init(failure);
    }
}

impl Drop for BlockToken {
    fn drop(&mut self) {
        self.target.push_ack(BlockAck {
            route: self.route,
            ticket: self.ticket,
            lane: self.lane,
            load: self.load.take().unwrap_or_default(),
            failure: self.failure.take(),
        });
    }
}
