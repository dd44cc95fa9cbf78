//! Kafka as the destination: the only file that names rdkafka.
//!
//! Knows librdkafka's properties, its errors and its threads. Must not know files or offsets: it
//! answers blocks. Retries are librdkafka's (`message.timeout.ms=0` never gives a record up); what
//! comes back as an error is for the tailer to hold and send again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::{BlockToken, Destination, Refusal, Sink};
use crate::inbox::AckTarget;

/// What a record may have at most, unless `message.max.bytes` says otherwise; librdkafka's default.
const MESSAGE_MAX_BYTES: usize = 1_000_000;
/// Key, record and batch headers that share the limit with the line.
const MESSAGE_OVERHEAD_BYTES: usize = 8 * 1024;
/// Bytes in flight, lines and bookkeeping together, unless `queue.buffering.max.kbytes` is set.
const QUEUE_MAX_KBYTES: usize = 32 * 1024;
/// One question to the broker about a topic takes at most this long.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Our defaults where they differ from librdkafka's, each with the other names of the property.
const DEFAULTS: [(&str, &[&str], &str); 11] = [
    // No duplicate and no reordering when the client retries.
    ("enable.idempotence", &[], "true"),
    ("acks", &["request.required.acks"], "all"),
    // A record is never given up: the broker may be down for hours.
    ("message.timeout.ms", &["delivery.timeout.ms"], "0"),
    // Batches without a wait that anybody would notice.
    ("linger.ms", &["queue.buffering.max.ms"], "5"),
    // Halves the system calls and costs less than it saves.
    ("compression.codec", &["compression.type"], "lz4"),
    ("queue.buffering.max.kbytes", &[], "32768"),
    // The budget in bytes, which counts bookkeeping too, is reached first.
    ("queue.buffering.max.messages", &[], "200000"),
    // An unknown topic is reported after this long instead of 30 s.
    ("topic.metadata.propagation.max.ms", &[], "5000"),
    ("reconnect.backoff.max.ms", &[], "2000"),
    ("socket.nagle.disable", &[], "true"),
    ("log.connection.close", &[], "false"),
];

/// What the rest of the agent has to know of the producer's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_line_bytes: usize,
    pub in_flight_max_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("kafka: {0}")]
pub struct KafkaConfigError(String);

/// See the module's words.
pub struct KafkaSink {
    config: ClientConfig,
    target: Arc<dyn AckTarget>,
    trouble: Arc<Mutex<Option<String>>>,
    /// Always present but for the moment of a restart.
    producer: Option<ThreadedProducer<Context>>,
    probing: Arc<AtomicBool>,
}

impl KafkaSink {
    /// Checks every property; needs no broker.
    pub fn new(
        properties: &BTreeMap<String, String>,
        client_id: &str,
        target: Arc<dyn AckTarget>,
    ) -> Result<Self, KafkaConfigError> {
        let config = client_config(properties, client_id);
        let trouble = Arc::default();
        let producer = start_producer(&config, &target, &trouble)
            .map_err(|error| KafkaConfigError(config_error_text(&error)))?;
        let probing = Arc::default();
        Ok(Self {
            config,
            target,
            trouble,
            producer: Some(producer),
            probing,
        })
    }

    pub fn limits(&self) -> Limits {
        limits(&self.config)
    }
}

impl Sink for KafkaSink {
    fn send(
        &self,
        destination: &Destination,
        line: &[u8],
        token: &Arc<BlockToken>,
    ) -> Result<(), Refusal> {
        let Some(producer) = &self.producer else {
            return Err(Refusal::Full);
        };
        let record = BaseRecord::with_opaque_to(&destination.topic, Arc::clone(token))
            .key(destination.key.as_slice())
            .payload(line);
        let record = if destination.headers.is_empty() {
            record
        } else {
            record.headers(headers_of(destination))
        };
        match producer.send(record) {
            Ok(()) => Ok(()),
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull | RDKafkaErrorCode::Fatal) => Err(Refusal::Full),
                _ => Err(Refusal::Record(error_text(&error))),
            },
        }
    }

    fn probe(&self, topic: &str) {
        let Some(producer) = self.producer.clone() else {
            return;
        };
        if self.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let topic = topic.to_owned();
        let probing = Arc::clone(&self.probing);
        let probe = move || {
            if let Err(error) = producer
                .client()
                .fetch_metadata(Some(&topic), PROBE_TIMEOUT)
            {
                tracing::debug!(topic, %error, "the broker did not answer about the topic");
            }
            probing.store(false, Ordering::Release);
        };
        if std::thread::Builder::new()
            .name("kafka-metadata".to_owned())
            .spawn(probe)
            .is_err()
        {
            self.probing.store(false, Ordering::Release);
        }
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.producer
            .as_ref()
            .is_none_or(|producer| producer.flush(timeout).is_ok())
    }

    fn restart(&mut self) -> Result<(), String> {
        // Dropping purges what is queued or in flight: every token is answered with a failure.
        self.producer = None;
        let producer = start_producer(&self.config, &self.target, &self.trouble)
            .map_err(|error| error_text(&error))?;
        self.producer = Some(producer);
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

/// librdkafka takes the headers of a record with it, so each record has its own.
fn headers_of(destination: &Destination) -> OwnedHeaders {
    let headers = OwnedHeaders::new_with_capacity(destination.headers.len());
    let pairs = destination.headers.iter();
    pairs.fold(headers, |headers, (key, value)| {
        headers.insert(Header {
            key,
            value: Some(value),
        })
    })
}

/// librdkafka's callbacks.
struct Context {
    target: Arc<dyn AckTarget>,
    trouble: Arc<Mutex<Option<String>>>,
    /// Saves a lock per delivered record while all is well.
    in_trouble: AtomicBool,
}

impl Context {
    fn note_trouble(&self, text: String) {
        let mut trouble = self.trouble.lock();
        if trouble.as_deref() != Some(text.as_str()) {
            tracing::warn!(reason = text, "Kafka is in trouble: lines wait");
            *trouble = Some(text);
        }
        self.in_trouble.store(true, Ordering::Release);
    }

    fn note_delivery(&self) {
        if self.in_trouble.load(Ordering::Acquire) {
            self.in_trouble.store(false, Ordering::Release);
            if self.trouble.lock().take().is_some() {
                tracing::info!("Kafka takes lines again");
            }
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::debug!(facility, "librdkafka: {message}"),
            _ => tracing::trace!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.target.push_producer_broken(reason.to_owned());
        } else {
            self.note_trouble(reason.to_owned());
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<BlockToken>;

    fn delivery(&self, result: &DeliveryResult<'_>, token: Arc<BlockToken>) {
        match result {
            Ok(_) => self.note_delivery(),
            Err((error, _)) => token.fail(|| error_text(error)),
        }
    }
}

fn start_producer(
    config: &ClientConfig,
    target: &Arc<dyn AckTarget>,
    trouble: &Arc<Mutex<Option<String>>>,
) -> Result<ThreadedProducer<Context>, KafkaError> {
    config.create_with_context(Context {
        target: Arc::clone(target),
        trouble: Arc::clone(trouble),
        in_trouble: AtomicBool::new(trouble.lock().is_some()),
    })
}

fn client_config(properties: &BTreeMap<String, String>, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    // librdkafka sets in the order given to it, which is that of a hash map: an alias and its
    // property must never both be there.
    for (name, aliases, value) in DEFAULTS {
        let given = properties.contains_key(name)
            || aliases.iter().any(|alias| properties.contains_key(*alias));
        if !given {
            config.set(name, value);
        }
    }
    if !properties.contains_key("client.id") {
        config.set("client.id", client_id);
    }
    for (name, value) in properties {
        config.set(name, value);
    }
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

fn limits(config: &ClientConfig) -> Limits {
    let number = |name: &str| {
        config
            .get(name)
            .and_then(|text| text.trim().parse::<usize>().ok())
    };
    let message_max_bytes = number("message.max.bytes").unwrap_or(MESSAGE_MAX_BYTES);
    let queue_max_kbytes = number("queue.buffering.max.kbytes").unwrap_or(QUEUE_MAX_KBYTES);
    Limits {
        max_line_bytes: message_max_bytes
            .saturating_sub(MESSAGE_OVERHEAD_BYTES)
            .max(message_max_bytes / 2)
            .max(1),
        in_flight_max_bytes: queue_max_kbytes as u64 * 1024,
    }
}

/// librdkafka's words for an error, without rdkafka's wrapping.
fn error_text(error: &KafkaError) -> String {
    match error {
        KafkaError::MessageProduction(code) | KafkaError::Global(code) => {
            format!("Kafka: {code}")
        }
        other => format!("Kafka: {other}"),
    }
}

fn config_error_text(error: &KafkaError) -> String {
    match error {
        // librdkafka's text may name the property by its other name.
        KafkaError::ClientConfig(_, reason, name, value) => {
            format!("{name}={value}: {}", reason.replace('\n', " "))
        }
        KafkaError::ClientCreation(reason) => reason.replace('\n', " "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Inbox;

    fn sink(properties: &[(&str, &str)]) -> Result<KafkaSink, String> {
        let properties = properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let target: Arc<Inbox<()>> = Arc::default();
        KafkaSink::new(&properties, "logagent-test", target).map_err(|error| error.to_string())
    }

    #[test]
    fn properties_are_checked_without_a_broker() {
        let servers = ("bootstrap.servers", "127.0.0.1:1");
        assert!(sink(&[servers]).is_ok());
        for (bad, words) in [
            (("linger.mz", "5"), "linger.mz"),
            (("linger.ms", "many"), "linger.ms"),
            (("acks", "1"), "acks"),
        ] {
            let error = sink(&[servers, bad]).err().unwrap();
            assert!(
                error.starts_with("kafka: ") && error.contains(words),
                "{error}"
            );
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn an_alias_replaces_our_default() {
        let given = BTreeMap::from([("queue.buffering.max.ms".to_owned(), "70".to_owned())]);
        let config = client_config(&given, "a");
        assert_eq!(config.get("linger.ms"), None);
        assert_eq!(config.get("queue.buffering.max.ms"), Some("70"));
        assert_eq!(config.get("acks"), Some("all"));
    }

    #[test]
    fn limits_follow_the_properties() {
        let of = |pairs: &[(&str, &str)]| {
            let given = pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect();
            limits(&client_config(&given, "a"))
        };
        assert_eq!(of(&[]).max_line_bytes, 1_000_000 - MESSAGE_OVERHEAD_BYTES);
        assert_eq!(of(&[]).in_flight_max_bytes, 32 << 20);
        let small = of(&[
            ("message.max.bytes", "2000"),
            ("queue.buffering.max.kbytes", "64"),
        ]);
        assert_eq!(
            small,
            Limits {
                max_line_bytes: 1_000,
                in_flight_max_bytes: 65_536
            }
        );
    }
}
