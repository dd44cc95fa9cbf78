//! The agent logs in at a real Kafka: TLS, SASL PLAIN and SCRAM, and what it says when it may not.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use e2e::agent::{HOST, config_key, entries};
use e2e::{
    Agent, AgentSetup, Center, DEADLINE, Delivery, Kafka, LineFormat, LineWriter, binaries, ports,
};
use schemas::fleet::EntryState;

const USER: &str = "logagent";
const PASSWORD: &str = "correct horse";
const QUIET: Duration = Duration::from_millis(300);

/// A broker with a plain listener for the test itself, one with TLS and one with TLS and SASL.
struct Broker {
    plain: String,
    tls: String,
    sasl: String,
    libraries: String,
}

impl Broker {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let [plain, tls, sasl, controller] = [(); 4].map(|()| ports::free_port());
        let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let (key, chain) = (
            certificate.signing_key.serialize_pem(),
            certificate.cert.pem(),
        );
        fs::write(folder.join("server.pem"), format!("{key}{chain}"))?;
        fs::write(folder.join("ca.pem"), chain)?;
        let listeners = format!(
            "PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{sasl}"
        );
        let login = "org.apache.kafka.common.security";
        let properties = [
            format!("listeners={listeners},CONTROLLER://127.0.0.1:{controller}"),
            format!("advertised.listeners={listeners}"),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,\
             CONTROLLER:PLAINTEXT"
                .to_owned(),
            "ssl.keystore.type=PEM".to_owned(),
            format!(
                "ssl.keystore.location={}",
                folder.join("server.pem").display()
            ),
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned(),
            format!(
                "listener.name.sasl_ssl.plain.sasl.jaas.config={login}.plain.PlainLoginModule \
                 required user_{USER}=\"{PASSWORD}\";"
            ),
            format!(
                "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=\
                 {login}.scram.ScramLoginModule required;"
            ),
            format!(
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
                 {login}.scram.ScramLoginModule required;"
            ),
        ];
        let script = binaries::repository().join("deploy/peers/kafka/kafka.sh");
        let mut command = Command::new(script);
        command
            .args(["start", "--port", &plain.to_string()])
            .args(["--controller-port", &controller.to_string()])
            .args(["--owner", &std::process::id().to_string()])
            .arg("--dir")
            .arg(folder.join("kafka"));
        for property in &properties {
            command.args(["--set", property]);
        }
        let output = command.output()?;
        anyhow::ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let broker = Self {
            plain: format!("127.0.0.1:{plain}"),
            tls: format!("127.0.0.1:{tls}"),
            sasl: format!("127.0.0.1:{sasl}"),
            libraries: libraries()?,
        };
        broker.add_scram_user()?;
        Ok(broker)
    }

    /// Kafka takes one credential of a user per request.
    fn add_scram_user(&self) -> anyhow::Result<()> {
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let secret = format!("{mechanism}=[password={PASSWORD}]");
            let output = Command::new("java")
                .args(["-Xmx128m", "-cp", &format!("{}/*", self.libraries)])
                .args(["kafka.admin.ConfigCommand", "--bootstrap-server"])
                .arg(&self.plain)
                .args(["--alter", "--entity-type", "users", "--entity-name", USER])
                .args(["--add-config", &secret])
                .output()
                .context("run java")?;
            anyhow::ensure!(
                output.status.success(),
                "add a {mechanism} user: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}

/// Where kafka.sh keeps the jars: as process.bash says it.
fn libraries() -> anyhow::Result<String> {
    let script = binaries::repository().join("deploy/peers/process.bash");
    let output = Command::new("bash")
        .args(["-c", "source \"$1\"; printf %s \"$CACHE_DIR\"", "bash"])
        .arg(script)
        .output()?;
    let cache = String::from_utf8(output.stdout)?;
    let newest = fs::read_dir(&cache)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("complete").is_file())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("kafka-"))
        });
    let newest = newest.with_context(|| format!("no Kafka in {cache}"))?;
    Ok(newest.display().to_string())
}

#[test]
fn every_way_to_log_in_and_a_wrong_password() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let broker = Broker::start(work.path())?;
    let kafka = Kafka::at(&broker.plain);
    let center = Center::start(work.path())?;
    let store = center.store()?;
    let ca = work.path().join("ca.pem").display().to_string();
    let sasl = |mechanism: &str, password: &str| {
        vec![
            ("security.protocol", "sasl_ssl".to_owned()),
            ("ssl.ca.location", ca.clone()),
            ("sasl.mechanism", mechanism.to_owned()),
            ("sasl.username", USER.to_owned()),
            ("sasl.password", password.to_owned()),
        ]
    };
    let tls = vec![
        ("security.protocol", "ssl".to_owned()),
        ("ssl.ca.location", ca.clone()),
    ];
    let ways = [
        ("tls", &broker.tls, tls),
        ("plain", &broker.sasl, sasl("PLAIN", PASSWORD)),
        ("scram256", &broker.sasl, sasl("SCRAM-SHA-256", PASSWORD)),
        ("scram512", &broker.sasl, sasl("SCRAM-SHA-512", PASSWORD)),
    ];
    for (name, address, properties) in ways {
        let folder = work.path().join(name);
        fs::create_dir(&folder)?;
        let topic = kafka.fresh_topic(name)?;
        let format = LineFormat::access(name);
        let delivery = Delivery::start(&kafka, &[&topic], std::slice::from_ref(&format))?;
        let path = folder.join("access.log");
        let mut writer = LineWriter::create(&path, format)?;
        writer.write(1_000)?;
        store.put(&config_key(HOST), entries(&[(&path, &topic)]))?;
        let mut setup = AgentSetup::new(&center.url(), address, &folder);
        let property = |(name, value): (&str, String)| (name.to_owned(), value);
        setup.kafka = properties.into_iter().map(property).collect();
        let mut agent = Agent::start(&folder, &setup)?;
        delivery
            .wait_for(name, 1_000, DEADLINE)
            .with_context(|| agent.process.log_text())?;
        delivery.wait_quiet(QUIET)?;
        let verdict = delivery.tally().verdict(name, 1_000);
        assert!(verdict.is_exact(), "{name}: {verdict}");
        assert!(agent.process.terminate()?.success());
    }

    // Refused: the lines wait, and the reason is told.
    let folder = work.path().join("wrong");
    fs::create_dir(&folder)?;
    let path = folder.join("access.log");
    LineWriter::create(&path, LineFormat::access("wrong"))?.write(10)?;
    store.put(&config_key(HOST), entries(&[(&path, "wrong")]))?;
    let mut setup = AgentSetup::new(&center.url(), &broker.sasl, &folder);
    let property = |(name, value): (&str, String)| (name.to_owned(), value);
    setup.kafka = sasl("SCRAM-SHA-512", "wrong")
        .into_iter()
        .map(property)
        .collect();
    let mut agent = Agent::start(&folder, &setup)?;
    let status = agent.wait_status(&store, "a failing entry", |status| {
        status
            .entries
            .iter()
            .any(|entry| entry.state == EntryState::Failing && entry.topic == "wrong")
    })?;
    let error = status.entries[0].error.clone().unwrap_or_default();
    assert!(error.to_lowercase().contains("authentication"), "{error}");
    assert!(!error.contains(PASSWORD) && !agent.process.log_text().contains("sasl.password"));
    assert!(agent.process.is_running());
    Ok(())
}
