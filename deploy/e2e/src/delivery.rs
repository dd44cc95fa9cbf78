//! What arrived in Kafka, compared with what was written: lost, duplicated, reordered, split,
//! extra.
//!
//! The tally is a plain data structure with its own tests, since a checker that cannot fail
//! proves nothing. A thread of its own feeds it from the topics.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::broker::Kafka;
use crate::lines::{LineFormat, parse};
use crate::wait::{DEADLINE, wait_until};

const POLL: Duration = Duration::from_millis(50);
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
/// Examples of bad records that a verdict shows.
const MAX_EXAMPLES: usize = 3;

/// What became of the lines of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub written: u64,
    /// Records, duplicates included.
    pub delivered: u64,
    /// Lines of which no record arrived.
    pub lost: u64,
    /// Records beyond the first of each line.
    pub duplicated: u64,
    /// Lines whose first record came after a later line's, or in another partition.
    pub reordered: u64,
    /// Records that are a piece of a line, or an altered line.
    pub split: u64,
    /// Records of lines that were never written.
    pub extra: u64,
    /// The beginnings of some bad records.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Every line exactly once, in order.
    pub fn is_exact(&self) -> bool {
        self.is_complete() && self.duplicated == 0
    }

    /// Every line at least once, in order after removing duplicates: the promise after a crash.
    pub fn is_complete(&self) -> bool {
        self.lost + self.reordered + self.split + self.extra == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            written,
            delivered,
            lost,
            duplicated,
            reordered,
            split,
            extra,
            examples,
        } = self;
        write!(
            f,
            "written {written}, delivered {delivered}, lost {lost}, duplicated {duplicated}, \
             reordered {reordered}, split {split}, extra {extra}"
        )?;
        for example in examples {
            write!(f, "\n  bad record: {example}")?;
        }
        Ok(())
    }
}

/// The records of one file in one topic.
#[derive(Debug, Default)]
struct Stream {
    /// How often each line arrived.
    counts: Vec<u32>,
    records: u64,
    highest: Option<(i32, u64)>,
    reordered: u64,
    first_at: Option<Instant>,
}

impl Stream {
    fn record(&mut self, partition: i32, seq: u64, at: Instant) {
        self.records += 1;
        self.first_at.get_or_insert(at);
        let index = index(seq);
        if self.counts.len() <= index {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += 1;
        if self.counts[index] > 1 {
            return;
        }
        match self.highest {
            Some((home, highest)) if home != partition || seq < highest => self.reordered += 1,
            _ => self.highest = Some((partition, seq)),
        }
    }
}

/// The records of one file.
#[derive(Debug, Default)]
struct FileRecords {
    topics: BTreeMap<String, Stream>,
    /// Which lines have arrived in any topic, and how many those are.
    seen: Vec<bool>,
    distinct: u64,
}

/// Counts of everything that arrived.
#[derive(Debug)]
pub struct Tally {
    formats: HashMap<String, LineFormat>,
    files: BTreeMap<String, FileRecords>,
    split: u64,
    foreign: u64,
    examples: Vec<String>,
    /// For rebuilding a line without allocating.
    expected: Vec<u8>,
}

/// No test writes more lines to one file; a larger number is a damaged record.
const MAX_SEQ: u64 = 100_000_000;

impl Tally {
    pub fn new(formats: &[LineFormat]) -> Self {
        Self {
            formats: formats
                .iter()
                .map(|f| (f.name.clone(), f.clone()))
                .collect(),
            files: BTreeMap::new(),
            split: 0,
            foreign: 0,
            examples: Vec::new(),
            expected: Vec::new(),
        }
    }

    pub fn record(&mut self, topic: &str, partition: i32, value: &[u8], at: Instant) {
        let parsed = parse(value).filter(|&(_, seq)| seq < MAX_SEQ);
        let Some((name, seq)) = parsed else {
            self.split += 1;
            return self.keep_example(value);
        };
        let Some(format) = self.formats.get(name) else {
            self.foreign += 1;
            return self.keep_example(value);
        };
        self.expected.clear();
        format.append_line(seq, &mut self.expected);
        if self.expected != value {
            self.split += 1;
            return self.keep_example(value);
        }
        if !self.files.contains_key(name) {
            self.files.insert(name.to_owned(), FileRecords::default());
        }
        let file = self.files.get_mut(name).expect("inserted above");
        if !file.topics.contains_key(topic) {
            file.topics.insert(topic.to_owned(), Stream::default());
        }
        file.topics
            .get_mut(topic)
            .expect("inserted above")
            .record(partition, seq, at);
        let index = index(seq);
        if file.seen.len() <= index {
            file.seen.resize(index + 1, false);
        }
        if !std::mem::replace(&mut file.seen[index], true) {
            file.distinct += 1;
        }
    }

    fn keep_example(&mut self, value: &[u8]) {
        if self.examples.len() < MAX_EXAMPLES {
            let head = &value[..value.len().min(160)];
            self.examples
                .push(String::from_utf8_lossy(head).into_owned());
        }
    }

    /// The file's lines over all topics together: a line in two topics is a duplicate.
    pub fn verdict(&self, file: &str, written: u64) -> Verdict {
        self.judge(file, written, |_| true)
    }

    /// The file's lines in one topic alone.
    pub fn verdict_in(&self, topic: &str, file: &str, written: u64) -> Verdict {
        self.judge(file, written, |candidate| candidate == topic)
    }

    fn judge(&self, file: &str, written: u64, wanted: impl Fn(&str) -> bool) -> Verdict {
        let mut total = vec![0_u32; index(written)];
        let mut verdict = Verdict {
            written,
            split: self.split,
            extra: self.foreign,
            examples: self.examples.clone(),
            ..Verdict::default()
        };
        let topics = self.files.get(file).map(|file| file.topics.iter());
        for (_, stream) in topics
            .into_iter()
            .flatten()
            .filter(|(topic, _)| wanted(topic))
        {
            verdict.delivered += stream.records;
            verdict.reordered += stream.reordered;
            for (seq, &count) in stream.counts.iter().enumerate() {
                match total.get_mut(seq) {
                    Some(sum) => *sum += count,
                    None => verdict.extra += u64::from(count),
                }
            }
        }
        for count in total {
            match count {
                0 => verdict.lost += 1,
                more => verdict.duplicated += u64::from(more - 1),
            }
        }
        verdict
    }

    /// Distinct lines of the file that arrived in any topic.
    pub fn distinct(&self, file: &str) -> u64 {
        self.files.get(file).map_or(0, |file| file.distinct)
    }

    pub fn records(&self, topic: &str, file: &str) -> u64 {
        self.stream(topic, file).map_or(0, |stream| stream.records)
    }

    pub fn records_of(&self, topic: &str) -> u64 {
        self.files
            .values()
            .filter_map(|file| file.topics.get(topic))
            .map(|s| s.records)
            .sum()
    }

    /// When the first record of the file arrived in the topic.
    pub fn first_at(&self, topic: &str, file: &str) -> Option<Instant> {
        self.stream(topic, file)?.first_at
    }

    /// The lowest and highest line of the file in the topic.
    pub fn bounds(&self, topic: &str, file: &str) -> Option<(u64, u64)> {
        let counts = &self.stream(topic, file)?.counts;
        let first = counts.iter().position(|&count| count > 0)?;
        Some((first as u64, counts.len() as u64 - 1))
    }

    fn stream(&self, topic: &str, file: &str) -> Option<&Stream> {
        self.files.get(file)?.topics.get(topic)
    }
}

fn index(seq: u64) -> usize {
    usize::try_from(seq).expect("64-bit targets only")
}

/// A consumer of some topics that counts in the background.
#[derive(Debug)]
pub struct Delivery {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delivery {
    /// Reads the topics from their beginnings. They must exist.
    pub fn start(kafka: &Kafka, topics: &[&str], formats: &[LineFormat]) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap())
            .set("group.id", "e2e")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "20")
            .set("fetch.error.backoff.ms", "20")
            .set("auto.offset.reset", "earliest")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            // A broker says that it has made a topic a little before it shows it.
            let partitions = wait_until(&format!("topic {topic}"), DEADLINE, || {
                let metadata = consumer
                    .fetch_metadata(Some(topic), METADATA_TIMEOUT)
                    .ok()?;
                let found = metadata.topics().iter().find(|t| t.name() == *topic)?;
                let ids: Vec<i32> = found.partitions().iter().map(|p| p.id()).collect();
                (!ids.is_empty()).then_some(ids)
            })?;
            for partition in partitions {
                assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&assignment)?;
        let tally = Arc::new(Mutex::new(Tally::new(formats)));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("delivery".into()).spawn({
            let (tally, stop) = (Arc::clone(&tally), Arc::clone(&stop));
            move || consume(&consumer, &tally, &stop)
        })?;
        Ok(Self {
            tally,
            stop,
            thread: Some(thread),
        })
    }

    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until this many distinct lines of the file have arrived, in whatever topics.
    pub fn wait_for(&self, file: &str, lines: u64, deadline: Duration) -> anyhow::Result<()> {
        let what = format!("{lines} lines of {file} in Kafka");
        let outcome = wait_until(&what, deadline, || {
            (self.tally().distinct(file) >= lines).then_some(())
        });
        outcome.with_context(|| format!("{file}: {}", self.tally().verdict(file, lines)))
    }

    /// Waits for the first record of a file in a topic and tells when it arrived.
    pub fn wait_first(&self, topic: &str, file: &str) -> anyhow::Result<Instant> {
        let what = format!("a line of {file} in topic {topic}");
        wait_until(&what, crate::DEADLINE, || {
            self.tally().first_at(topic, file)
        })
    }

    /// Waits until nothing has arrived for a while: what is in flight would show by then.
    pub fn wait_quiet(&self, quiet: Duration) -> anyhow::Result<()> {
        let mut last = (self.total(), Instant::now());
        wait_until("the topics to fall quiet", crate::DEADLINE, || {
            let now = self.total();
            if now != last.0 {
                last = (now, Instant::now());
            }
            (last.1.elapsed() >= quiet).then_some(())
        })
    }

    fn total(&self) -> u64 {
        let tally = self.tally();
        let streams = tally.files.values().flat_map(|file| file.topics.values());
        streams.map(|stream| stream.records).sum::<u64>() + tally.split + tally.foreign
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the consumer has shown itself as missing lines already.
            drop(thread.join());
        }
    }
}

fn consume(consumer: &BaseConsumer, tally: &Mutex<Tally>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // Errors are the client's own retries: a broker that went away, a leader that moved.
        if let Some(Ok(record)) = consumer.poll(POLL) {
            let at = Instant::now();
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            let value = record.payload().unwrap_or_default();
            tally.record(record.topic(), record.partition(), value, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally_of(records: &[(&str, i32, Vec<u8>)]) -> Tally {
        let mut tally = Tally::new(&[LineFormat::access("a")]);
        for (topic, partition, value) in records {
            tally.record(topic, *partition, value, Instant::now());
        }
        tally
    }

    /// The verdict over lines of file `a` that arrive in this order in one topic.
    fn verdict_of(order: &[u64], written: u64) -> Verdict {
        let format = LineFormat {
            epoch_s: 0,
            ..LineFormat::access("a")
        };
        let mut tally = Tally::new(std::slice::from_ref(&format));
        for &seq in order {
            tally.record("t", 0, &format.line(seq), Instant::now());
        }
        tally.verdict("a", written)
    }

    #[test]
    fn a_perfect_delivery_is_exact() {
        let verdict = verdict_of(&[0, 1, 2], 3);
        assert!(verdict.is_exact(), "{verdict}");
        assert_eq!((verdict.written, verdict.delivered), (3, 3));
    }

    #[test]
    fn each_planted_fault_is_seen() {
        let lost = verdict_of(&[0, 2], 3);
        assert_eq!((lost.lost, lost.is_complete()), (1, false));
        let tail_lost = verdict_of(&[0, 1], 3);
        assert_eq!((tail_lost.lost, tail_lost.is_complete()), (1, false));
        let reordered = verdict_of(&[0, 2, 1], 3);
        assert_eq!((reordered.reordered, reordered.is_complete()), (1, false));
        let extra = verdict_of(&[0, 1, 2, 3], 3);
        assert_eq!((extra.extra, extra.is_complete()), (1, false));
        let duplicated = verdict_of(&[0, 1, 0, 1, 2], 3);
        assert_eq!((duplicated.duplicated, duplicated.reordered), (2, 0));
        assert!(duplicated.is_complete() && !duplicated.is_exact());
        assert_eq!(verdict_of(&[], 3).lost, 3);
    }

    #[test]
    fn pieces_and_strangers_are_seen() {
        let whole = LineFormat {
            epoch_s: 0,
            ..LineFormat::access("a")
        }
        .line(0);
        let mut formats = Tally::new(&[LineFormat {
            epoch_s: 0,
            ..LineFormat::access("a")
        }]);
        formats.record("t", 0, &whole[..whole.len() - 1], Instant::now());
        formats.record("t", 0, &whole[60..], Instant::now());
        formats.record("t", 0, b"", Instant::now());
        let stranger = LineFormat::access("b").line(0);
        formats.record("t", 0, &stranger, Instant::now());
        let verdict = formats.verdict("a", 0);
        assert_eq!(
            (verdict.split, verdict.extra, verdict.is_complete()),
            (3, 1, false)
        );
    }

    #[test]
    fn a_line_in_two_topics_or_partitions_is_seen() {
        let format = LineFormat::access("a");
        let tally = tally_of(&[
            ("t", 0, format.line(0)),
            ("t", 1, format.line(1)),
            ("u", 0, format.line(1)),
        ]);
        let verdict = tally.verdict("a", 2);
        assert_eq!(
            (verdict.duplicated, verdict.reordered, verdict.lost),
            (1, 1, 0)
        );
        assert_eq!(tally.verdict_in("u", "a", 2).lost, 1);
        assert_eq!(tally.bounds("t", "a"), Some((0, 1)));
        assert_eq!((tally.records_of("t"), tally.distinct("a")), (2, 2));
    }
}
