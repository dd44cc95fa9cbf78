//! The operator's hand against a real center and a real agent.

use std::process::Command;
use std::time::Duration;

use e2e::agent::{HOST, config_key};
use e2e::tools::{Output, run};
use e2e::{Agent, AgentSetup, Center, DEADLINE, Delivery, Kafka, LineFormat, LineWriter, binaries};
use serde_json::{Value, json};

struct Operator {
    center: Center,
}

impl Operator {
    fn configctl(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(binaries::program("configctl")?);
        command.arg("--endpoints").arg(self.center.url()).args(args);
        run(&mut command, "")
    }

    fn config(&self) -> anyhow::Result<Value> {
        let pair = self.center.store()?.get(&config_key(HOST))?;
        Ok(pair
            .map(|pair| serde_json::from_slice(&pair.value))
            .transpose()?
            .unwrap_or_default())
    }
}

#[test]
fn push_waits_until_the_agent_runs_it() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let kafka = Kafka::mock()?;
    for topic in ["nginx_log", "nginx_error"] {
        kafka.create_topic(topic, 1)?;
    }
    let formats = [
        LineFormat::access("access.log"),
        LineFormat::error("error.log"),
    ];
    let delivery = Delivery::start(&kafka, &["nginx_log", "nginx_error"], &formats)?;
    let operator = Operator {
        center: Center::start(work.path())?,
    };
    let setup = AgentSetup::new(&operator.center.url(), kafka.bootstrap(), work.path());
    let mut agent = Agent::start(work.path(), &setup)?;
    let paths = ["access.log", "error.log"].map(|file| work.path().join(file));
    let [access, error] = paths
        .each_ref()
        .map(|path| path.to_str().expect("a plain path"));
    let mut writers = Vec::new();
    for (path, format) in paths.iter().zip(formats.clone()) {
        let mut writer = LineWriter::create(path, format)?;
        writer.write(100)?;
        writers.push(writer);
    }

    let push = [
        "push",
        access,
        "--topic",
        "nginx_log",
        "--host",
        HOST,
        "--wait",
    ];
    let printed = operator.configctl(&push)?.ok()?;
    assert!(
        printed.contains(&format!("applied on {HOST} in ")),
        "{printed}"
    );
    delivery.wait_for("access.log", 100, DEADLINE)?;

    // Adding error.log never removes access.log.
    let push = [
        "push",
        error,
        "--topic",
        "nginx_error",
        "--host",
        HOST,
        "--wait",
    ];
    operator.configctl(&push)?.ok()?;
    let both = json!([
        { "path": access, "topic": "nginx_log" },
        { "path": error, "topic": "nginx_error" },
    ]);
    assert_eq!(operator.config()?, both);
    delivery.wait_for("error.log", 100, DEADLINE)?;

    let shown = operator.configctl(&["get", HOST, "-o", "json"])?.ok()?;
    assert!(shown.contains(access) && shown.contains(error), "{shown}");
    let agents = operator.configctl(&["agents", "list"])?.ok()?;
    assert!(agents.contains(HOST), "{agents}");
    let agents = operator
        .configctl(&["agents", "list", "-o", "json"])?
        .ok()?;
    serde_json::from_str::<Value>(&agents)?;

    operator
        .configctl(&["rm-path", access, "--host", HOST])?
        .ok()?;
    assert_eq!(
        operator.config()?,
        json!([{ "path": error, "topic": "nginx_error" }])
    );

    let verdicts = {
        delivery.wait_quiet(Duration::from_millis(500))?;
        let tally = delivery.tally();
        ["access.log", "error.log"].map(|file| tally.verdict(file, 100))
    };
    assert!(
        verdicts.iter().all(|verdict| verdict.is_exact()),
        "{verdicts:?}"
    );

    // Without an agent, nobody applies: the wait ends with the code for a timeout.
    agent.process.terminate()?;
    let push = [
        "push",
        access,
        "--topic",
        "t",
        "--host",
        HOST,
        "--wait",
        "--timeout",
        "1s",
    ];
    let output = operator.configctl(&push)?;
    assert_eq!(output.code, Some(7), "{output:#?}");
    // A topic that Kafka would refuse never reaches the store.
    let output = operator.configctl(&["push", access, "--topic", "a b", "--host", HOST])?;
    assert_eq!(output.code, Some(3), "{output:#?}");
    Ok(())
}
