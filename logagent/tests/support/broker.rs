//! librdkafka's mock cluster as the broker, and a reader of its topics.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers as _, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::wait_for;

const POLL: Duration = Duration::from_millis(20);
const DRAIN_MAX: Duration = Duration::from_millis(100);

pub(crate) struct Broker {
    pub(crate) cluster: MockCluster<'static, DefaultProducerContext>,
    readers: HashMap<String, Reader>,
}

struct Reader {
    consumer: BaseConsumer,
    records: Vec<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    /// `name=value` of each.
    pub(crate) headers: Vec<String>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self {
            cluster: MockCluster::new(1).unwrap(),
            readers: HashMap::new(),
        }
    }

    pub(crate) fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Everything that the topic holds by now, in order.
    pub(crate) fn records(&mut self, topic: &str) -> &[Record] {
        if !self.readers.contains_key(topic) {
            // Fails when the agent was first and the topic was made for it.
            self.cluster.create_topic(topic, 1, 1).ok();
            let reader = Reader::new(&self.address(), topic);
            self.readers.insert(topic.to_owned(), reader);
        }
        let reader = self.readers.get_mut(topic).unwrap();
        reader.drain();
        &reader.records
    }

    pub(crate) fn lines(&mut self, topic: &str) -> Vec<String> {
        let text = |record: &Record| String::from_utf8(record.value.clone()).unwrap();
        self.records(topic).iter().map(text).collect()
    }

    /// Waits until the topic holds at least so many lines.
    #[track_caller]
    pub(crate) fn wait_lines(&mut self, topic: &str, count: usize) -> Vec<String> {
        wait_for(&format!("{count} lines in {topic}"), || {
            let lines = self.lines(topic);
            (lines.len() >= count).then_some(lines)
        })
    }

    /// Waits until the topic holds these lines; one too many or another one fails at once.
    #[track_caller]
    pub(crate) fn expect(&mut self, topic: &str, expected: &[impl AsRef<str>]) {
        let expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
        let lines = self.wait_lines(topic, expected.len());
        assert_eq!(lines, expected, "{topic}");
    }
}

impl Reader {
    fn new(address: &str, topic: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", address)
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "10")
            .create()
            .unwrap();
        let mut partitions = TopicPartitionList::new();
        let metadata = consumer
            .fetch_metadata(Some(topic), super::DEADLINE)
            .unwrap();
        for partition in metadata.topics()[0].partitions() {
            partitions
                .add_partition_offset(topic, partition.id(), Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&partitions).unwrap();
        Self {
            consumer,
            records: Vec::new(),
        }
    }

    fn drain(&mut self) {
        // Bounded: a topic that is written all the time would never let go.
        let deadline = Instant::now() + DRAIN_MAX;
        while Instant::now() < deadline
            && let Some(polled) = self.consumer.poll(POLL)
        {
            // Errors are those of a broker that is down for a while.
            let Ok(message) = polled else { continue };
            let key = String::from_utf8(message.key().unwrap_or_default().to_vec()).unwrap();
            let value = message.payload().unwrap_or_default().to_vec();
            let text = |bytes: Option<&[u8]>| {
                String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap()
            };
            let headers = message.headers().into_iter().flat_map(|all| all.iter());
            let headers = headers
                .map(|header| format!("{}={}", header.key, text(header.value)))
                .collect();
            self.records.push(Record {
                key,
                value,
                headers,
            });
        }
    }
}
