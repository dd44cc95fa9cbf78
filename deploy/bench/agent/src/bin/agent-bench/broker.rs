//! The broker's side: topics, how much has arrived, and what it was.

use std::time::{Duration, Instant};

use anyhow::Context;
use bench_agent::corpus::{Corpus, Tally};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

const CALL: Duration = Duration::from_secs(10);
/// Between two questions of how much has arrived; the broker hardly feels it.
const POLL: Duration = Duration::from_millis(20);

fn admin(bootstrap: &str) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()?)
}

fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(future))
}

pub(crate) fn create_topic(bootstrap: &str, topic: &str) -> anyhow::Result<()> {
    create(
        bootstrap,
        NewTopic::new(topic, 1, TopicReplication::Fixed(1)),
    )
}

/// A topic whose records carry the time at which the broker appended them.
pub(crate) fn create_stamping_topic(bootstrap: &str, topic: &str) -> anyhow::Result<()> {
    let wanted = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    create(
        bootstrap,
        wanted.set("message.timestamp.type", "LogAppendTime"),
    )
}

fn create(bootstrap: &str, wanted: NewTopic<'_>) -> anyhow::Result<()> {
    let admin = admin(bootstrap)?;
    let options = AdminOptions::new();
    for result in block_on(admin.create_topics([&wanted], &options))?? {
        result.map_err(|(topic, code)| anyhow::anyhow!("create {topic}: {code}"))?;
    }
    Ok(())
}

pub(crate) fn delete_topic(bootstrap: &str, topic: &str) -> anyhow::Result<()> {
    let admin = admin(bootstrap)?;
    for result in block_on(admin.delete_topics(&[topic], &AdminOptions::new()))?? {
        result.map_err(|(topic, code)| anyhow::anyhow!("delete {topic}: {code}"))?;
    }
    Ok(())
}

fn consumer(bootstrap: &str) -> anyhow::Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .create()
        .context("make a consumer")
}

/// Asks how many records the topic's one partition holds.
pub(crate) struct Probe {
    consumer: BaseConsumer,
    topic: String,
}

impl Probe {
    pub(crate) fn new(bootstrap: &str, topic: &str) -> anyhow::Result<Self> {
        let mut probe = Self {
            consumer: consumer(bootstrap)?,
            topic: topic.to_owned(),
        };
        // Connects before the clock runs.
        probe.high_watermark()?;
        Ok(probe)
    }

    pub(crate) fn wait_for(&mut self, records: u64, deadline: Duration) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let arrived = self.high_watermark()?;
            if arrived >= records {
                return Ok(());
            }
            anyhow::ensure!(
                since.elapsed() < deadline,
                "{arrived} of {records} records of {} after {} s",
                self.topic,
                deadline.as_secs()
            );
        }
    }

    pub(crate) fn high_watermark(&mut self) -> anyhow::Result<u64> {
        std::thread::sleep(POLL);
        let (_, high) = self
            .consumer
            .fetch_watermarks(&self.topic, 0, CALL)
            .with_context(|| format!("ask for the end of {}", self.topic))?;
        Ok(u64::try_from(high)?)
    }
}

/// Reads the whole topic and counts.
pub(crate) fn read_back(bootstrap: &str, topic: &str, corpus: Corpus) -> anyhow::Result<Tally> {
    let mut tally = Tally::new(corpus);
    read(bootstrap, topic, |message| {
        tally.take(message.payload().unwrap_or_default());
    })?;
    Ok(tally)
}

/// The records of a stamping topic, each with its stamp in milliseconds.
pub(crate) fn stamped(bootstrap: &str, topic: &str) -> anyhow::Result<Vec<(Vec<u8>, f64)>> {
    let mut records = Vec::new();
    read(bootstrap, topic, |message| {
        let stamp_ms = message.timestamp().to_millis().unwrap_or_default();
        let payload = message.payload().unwrap_or_default().to_vec();
        records.push((payload, stamp_ms as f64));
    })?;
    Ok(records)
}

fn read(
    bootstrap: &str,
    topic: &str,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> anyhow::Result<()> {
    let consumer = consumer(bootstrap)?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    let (_, high) = consumer.fetch_watermarks(topic, 0, CALL)?;
    let mut offset = -1;
    while offset + 1 < high {
        let message = consumer
            .poll(CALL)
            .with_context(|| format!("nothing more after offset {offset} of {high}"))??;
        offset = message.offset();
        each(&message);
    }
    Ok(())
}
