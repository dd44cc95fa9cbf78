//! The floor: reads a file, cuts lines, produces them. No bookkeeping, no configuration, no restart.
//!
//! What it costs is what librdkafka and the kernel cost; an agent can only add to it.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bench_agent::properties::{COMMON, record_key};
use clap::Parser;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};

const BLOCK_BYTES: usize = 1 << 20;
const FULL_PAUSE: Duration = Duration::from_millis(1);

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    /// Read one after the other, each with its own key.
    #[arg(long, required = true, num_args = 1..)]
    file: Vec<PathBuf>,
    #[arg(long)]
    host: String,
    #[arg(long)]
    compression: String,
}

/// Counts what the broker has acknowledged.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU64>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &arguments.bootstrap)
        .set("compression.codec", &arguments.compression)
        .set("message.timeout.ms", "0");
    for (name, value) in COMMON {
        config.set(name, value);
    }
    let counting = Counting::default();
    let producer: ThreadedProducer<Counting> = config.create_with_context(counting.clone())?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut sent = 0_u64;
    for path in &arguments.file {
        let key = record_key(&arguments.host, &path.to_string_lossy());
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut filled = 0;
        loop {
            let bytes = file.read(&mut block[filled..])?;
            if bytes == 0 {
                break;
            }
            filled += bytes;
            let mut start = 0;
            while let Some(length) = memchr::memchr(b'\n', &block[start..filled]) {
                let line = &block[start..start + length];
                send(&producer, &arguments.topic, &key, line)?;
                sent += 1;
                start += length + 1;
            }
            block.copy_within(start..filled, 0);
            filled -= start;
        }
    }
    producer.flush(Duration::from_secs(120))?;
    let acknowledged = counting.0.load(Ordering::Relaxed);
    anyhow::ensure!(
        acknowledged == sent,
        "{acknowledged} of {sent} acknowledged"
    );
    Ok(())
}

fn send(
    producer: &ThreadedProducer<Counting>,
    topic: &str,
    key: &str,
    line: &[u8],
) -> anyhow::Result<()> {
    loop {
        let record = BaseRecord::to(topic).key(key).payload(line);
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(FULL_PAUSE);
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}
