//! The Kafka of a test: librdkafka's mock cluster, a real broker of ours, or one given by address.
//!
//! The mock keeps only the newest 5 MB of each partition: consume while producing.

use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaErrorCode;

use crate::store::runtime;
use crate::{binaries, ports};

/// A cluster to publish to.
pub struct Kafka {
    bootstrap: String,
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

impl Kafka {
    /// A mock cluster of one broker inside this process; it ends with the value.
    pub fn mock() -> anyhow::Result<Self> {
        let mock = MockCluster::new(1).context("start the mock cluster")?;
        Ok(Self {
            bootstrap: mock.bootstrap_servers(),
            mock: Some(mock),
        })
    }

    /// The real broker that all tests of this process share; it ends with the process.
    pub fn real() -> anyhow::Result<Self> {
        static BROKER: OnceLock<Result<String, String>> = OnceLock::new();
        let address = BROKER.get_or_init(|| {
            let folder = std::env::temp_dir().join(format!("e2e-kafka-{}", std::process::id()));
            start_real(&folder, ports::free_port()).map_err(|error| format!("{error:#}"))
        });
        Ok(Self::at(&address.clone().map_err(anyhow::Error::msg)?))
    }

    /// A cluster that somebody else runs.
    pub fn at(bootstrap: &str) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            mock: None,
        }
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub fn is_mock(&self) -> bool {
        self.mock.is_some()
    }

    /// Creates a topic; one that is there already is left as it is.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> anyhow::Result<()> {
        if let Some(mock) = &self.mock {
            return mock
                .create_topic(topic, partitions, 1)
                .with_context(|| format!("create the mock topic {topic}"));
        }
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .create()?;
        let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new();
        let outcome = runtime().block_on(admin.create_topics([&wanted], &options))?;
        for result in outcome {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => anyhow::bail!("create topic {topic}: {code}"),
            }
        }
        Ok(())
    }

    /// A topic name that no other test uses, created with one partition.
    pub fn fresh_topic(&self, stem: &str) -> anyhow::Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let topic = format!("{stem}-{}-{number}", std::process::id());
        self.create_topic(&topic, 1)?;
        Ok(topic)
    }
}

/// Starts a real broker with its data in `folder`; it is wiped when this process has ended.
pub fn start_real(folder: &std::path::Path, port: u16) -> anyhow::Result<String> {
    let script = binaries::repository().join("deploy/peers/kafka/kafka.sh");
    let output = Command::new(&script)
        .arg("start")
        .arg("--dir")
        .arg(folder)
        .args(["--port", &port.to_string()])
        .args(["--controller-port", &ports::free_port().to_string()])
        .args(["--owner", &std::process::id().to_string()])
        .output()
        .with_context(|| format!("run {}", script.display()))?;
    anyhow::ensure!(
        output.status.success(),
        "{} start failed: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let printed = String::from_utf8_lossy(&output.stdout);
    let address = printed.lines().last().unwrap_or_default().trim().to_owned();
    anyhow::ensure!(
        address.contains(':'),
        "{} start printed {printed:?}",
        script.display()
    );
    Ok(address)
}
