//! Kafka as the destination: this file and its `batch` are the only ones that name rdkafka.
//!
//! Knows librdkafka's properties, its errors and its threads. Must not know files or offsets: it
//! answers blocks. Retries are librdkafka's (`message.timeout.ms=0` never gives a record up); what
//! comes back as an error is for the tailer to hold and send again.

mod batch;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logagent_core::tailer::Blame;
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rustc_hash::FxHashMap;

use batch::{Share, Topic};

use super::{BlockToken, Destination, Refusal, Sent, Sink};
use crate::inbox::{AckTarget, Failure};

/// What a record may have at most, unless `message.max.bytes` says otherwise; librdkafka's default.
const MESSAGE_MAX_BYTES: usize = 1_000_000;
/// Key, record and batch headers that share the limit with the line.
const MESSAGE_OVERHEAD_BYTES: usize = 8 * 1024;
/// Bytes in flight, lines and bookkeeping together, unless `queue.buffering.max.kbytes` is set.
const QUEUE_MAX_KBYTES: usize = 32 * 1024;
/// A shorter value stands in a text by chance.
const NAMED_VALUE_MIN_CHARS: usize = 3;
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

impl Default for Limits {
    fn default() -> Self {
        limits(&ClientConfig::new())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("kafka: {0}")]
pub struct KafkaConfigError(String);

/// See the module's words.
pub struct KafkaSink {
    config: ClientConfig,
    /// A record may have so many bytes, key and line together.
    message_max_bytes: usize,
    target: Arc<dyn AckTarget>,
    trouble: Arc<Mutex<Option<String>>>,
    /// Made on first use. Given up before the producer is.
    topics: RefCell<FxHashMap<String, Topic>>,
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
        refuse_broken_promises(properties)?;
        let config = client_config(properties, client_id);
        let trouble = Arc::default();
        let producer = start_producer(&config, &target, &trouble)
            .map_err(|error| KafkaConfigError(config_error_text(&error, properties)))?;
        let probing = Arc::default();
        Ok(Self {
            message_max_bytes: message_max_bytes(&config),
            config,
            target,
            trouble,
            topics: RefCell::default(),
            producer: Some(producer),
            probing,
        })
    }

    pub fn limits(&self) -> Limits {
        limits(&self.config)
    }

    fn send_one(
        &self,
        destination: &Destination,
        line: &[u8],
        token: &Arc<BlockToken>,
    ) -> Result<(), Refusal> {
        let Some(producer) = &self.producer else {
            return Err(Refusal::Full);
        };
        let record = BaseRecord::with_opaque_to(&destination.topic, Share::alone(token))
            .key(destination.key.as_slice())
            .payload(line)
            .headers(headers_of(destination));
        producer.send(record).map_err(|(error, _)| {
            let code = error.rdkafka_error_code();
            code.map_or_else(|| Refusal::Record(failure_of(&error)), refusal)
        })
    }

    /// librdkafka's batch call knows no headers.
    fn send_together(
        &self,
        destination: &Destination,
        lines: &[&[u8]],
        token: &Arc<BlockToken>,
    ) -> Sent {
        let refused = |taken, refusal| Sent {
            taken,
            refusal: Some(refusal),
        };
        let Some(producer) = &self.producer else {
            return refused(0, Refusal::Full);
        };
        let mut topics = self.topics.borrow_mut();
        if !topics.contains_key(&destination.topic) {
            match Topic::new(producer, &destination.topic) {
                Ok(topic) => topics.insert(destination.topic.clone(), topic),
                Err(code) => return refused(0, refusal(code)),
            };
        }
        let Some(topic) = topics.get(&destination.topic) else {
            return refused(0, Refusal::Full);
        };
        // A call refuses such a line alone and takes those after it: it must not be in one.
        let key = &destination.key;
        let fits = |line: &&&[u8]| line.len() + key.len() <= self.message_max_bytes;
        let fitting = lines.iter().take_while(fits).count();
        let outcome = topic.produce(key, &lines[..fitting], token);
        match outcome.error {
            None if fitting < lines.len() => {
                refused(fitting, refusal(RDKafkaErrorCode::MessageSizeTooLarge))
            }
            None => Sent::all(outcome.taken),
            Some(code) => refused(outcome.taken, refusal(code)),
        }
    }
}

impl Sink for KafkaSink {
    fn send(&self, destination: &Destination, lines: &[&[u8]], token: &Arc<BlockToken>) -> Sent {
        if destination.headers.is_empty() {
            return self.send_together(destination, lines, token);
        }
        for (taken, line) in lines.iter().enumerate() {
            if let Err(refusal) = self.send_one(destination, line, token) {
                return Sent {
                    taken,
                    refusal: Some(refusal),
                };
            }
        }
        Sent::all(lines.len())
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
        self.topics.get_mut().clear();
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
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => self.target.push_producer_broken(reason.to_owned()),
            // Follows upon what ended each connection: that cause is what an operator can mend.
            Some(RDKafkaErrorCode::AllBrokersDown) if self.trouble.lock().is_some() => {}
            _ => self.note_trouble(reason.to_owned()),
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Share;

    fn delivery(&self, result: &DeliveryResult<'_>, share: Share) {
        match result {
            Ok(_) => self.note_delivery(),
            Err((error, _)) => share.token().fail(|| failure_of(error)),
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

/// Properties that librdkafka takes, and with which an offset would pass a line that no broker has.
fn refuse_broken_promises(properties: &BTreeMap<String, String>) -> Result<(), KafkaConfigError> {
    for name in ["acks", "request.required.acks"] {
        if properties
            .get(name)
            .is_some_and(|value| value.trim() == "0")
        {
            return Err(KafkaConfigError(format!(
                "{name}=0: no broker would acknowledge a line, so none could count as delivered; \
                 use all, or 1"
            )));
        }
    }
    let quiet = properties.get("delivery.report.only.error");
    if quiet.is_some_and(|value| value.trim() != "false") {
        return Err(KafkaConfigError(
            "delivery.report.only.error: offsets follow the reports of delivered lines; leave it \
             out"
            .to_owned(),
        ));
    }
    Ok(())
}

fn number(config: &ClientConfig, name: &str) -> Option<usize> {
    config.get(name)?.trim().parse().ok()
}

fn message_max_bytes(config: &ClientConfig) -> usize {
    number(config, "message.max.bytes").unwrap_or(MESSAGE_MAX_BYTES)
}

fn limits(config: &ClientConfig) -> Limits {
    let message_max_bytes = message_max_bytes(config);
    let queue_max_kbytes = number(config, "queue.buffering.max.kbytes").unwrap_or(QUEUE_MAX_KBYTES);
    Limits {
        max_line_bytes: message_max_bytes
            .saturating_sub(MESSAGE_OVERHEAD_BYTES)
            .max(message_max_bytes / 2)
            .max(1),
        in_flight_max_bytes: queue_max_kbytes as u64 * 1024,
    }
}

/// A full queue and a producer that is to be made anew take the same line later.
fn refusal(code: RDKafkaErrorCode) -> Refusal {
    match code {
        RDKafkaErrorCode::QueueFull | RDKafkaErrorCode::Fatal => Refusal::Full,
        code => Refusal::Record(failure_of(&KafkaError::MessageProduction(code))),
    }
}

/// What an error is about. Only these are certain to come again with the same record; all others
/// are waited out.
fn failure_of(error: &KafkaError) -> Failure {
    let is_of_record = matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::MessageBatchTooLarge
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::InvalidTimestamp
        )
    );
    Failure {
        blame: if is_of_record {
            Blame::Record
        } else {
            Blame::Topic
        },
        reason: error_text(error),
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

fn config_error_text(error: &KafkaError, properties: &BTreeMap<String, String>) -> String {
    match error {
        // librdkafka's text may name the property by its other name.
        KafkaError::ClientConfig(_, reason, name, value) => {
            format!("{name}={value}: {}", reason.replace('\n', " "))
        }
        KafkaError::ClientCreation(reason) => {
            let reason = reason.replace('\n', " ");
            // Some of its texts tell a wrong value without its name.
            let is_meant = |(name, value): &(&String, &String)| {
                value.len() >= NAMED_VALUE_MIN_CHARS
                    && !name.contains("password")
                    && reason.contains(value.as_str())
                    && !reason.contains(name.as_str())
            };
            match properties.iter().find(is_meant) {
                Some((name, value)) => format!("{name}={value}: {reason}"),
                None if reason.contains("SASL mechanism") => format!("sasl.mechanism: {reason}"),
                None => reason,
            }
        }
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
            (("acks", "0"), "acks=0"),
            (
                ("delivery.report.only.error", "true"),
                "delivery.report.only.error",
            ),
            (("security.protocol", "tls"), "security.protocol"),
            (("compression.codec", "lz5"), "compression.codec"),
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
    fn every_way_to_log_in_is_built_in() {
        let servers = ("bootstrap.servers", "127.0.0.1:1");
        let user = [("sasl.username", "u"), ("sasl.password", "p")];
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            for protocol in ["sasl_plaintext", "sasl_ssl"] {
                let login = [
                    ("sasl.mechanism", mechanism),
                    ("security.protocol", protocol),
                ];
                let all: Vec<_> = [servers].into_iter().chain(login).chain(user).collect();
                assert_eq!(sink(&all).err(), None, "{mechanism} {protocol}");
            }
        }
        for (protocol, bad, words) in [
            (
                "sasl_ssl",
                ("sasl.mechanism", "SCRAM-MD5"),
                "sasl.mechanism=SCRAM-MD5",
            ),
            ("sasl_ssl", ("client.id", "a"), "sasl.mechanism: "),
            (
                "ssl",
                ("ssl.ca.location", "/nowhere.pem"),
                "ssl.ca.location",
            ),
        ] {
            let error = sink(&[servers, ("security.protocol", protocol), bad]);
            let error = error.err().unwrap();
            assert!(error.contains(words), "{error}");
        }
        assert!(sink(&[servers, ("security.protocol", "ssl")]).is_ok());
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
