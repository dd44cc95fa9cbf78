//! A fleet declared, rolled out, broken, mended and taken back: twenty simulated agents and two real
//! ones, the real configctl, three members of config-center or of Debian's etcd. With etcd, one
//! `config-center fleet` stands beside it; config-center needs nothing beside itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bench_fleet::{Fleet, Setup};
use e2e::agent::{config_key, status_key};
use e2e::cluster::Cluster;
use e2e::store::{channel, runtime};
use e2e::tools::{Output, run};
use e2e::{AgentSetup, DEADLINE, Kafka, Process, Store, binaries, ports, wait_until};
use schemas::etcdserverpb::StatusRequest;
use schemas::etcdserverpb::maintenance_client::MaintenanceClient;
use schemas::fleet::AgentStatus;
use serde_json::Value;

const CONTRACT: &str =
    include_str!("../../../config-center/core/tests/fleet-corpus/accept/contract.yaml");
/// The host of the contract that has an object of its own.
const CANARY: &str = "192.168.56.1";

#[derive(Debug, Clone, Copy)]
enum Kind {
    Center,
    Etcd,
}

enum Members {
    Center(Cluster),
    Etcd(Vec<Process>),
}

/// Three members, and whatever they need beside them to have rollouts carried out.
struct Stage {
    folder: PathBuf,
    endpoints: Vec<String>,
    members: Members,
    _service: Option<Process>,
}

impl Stage {
    fn start(kind: Kind, folder: &Path) -> anyhow::Result<Self> {
        let (members, endpoints, service) = match kind {
            Kind::Center => {
                let cluster = Cluster::start(folder, 3)?;
                let url = |port: u16| format!("http://127.0.0.1:{port}");
                let endpoints = cluster
                    .seats
                    .iter()
                    .map(|seat| url(seat.client_port))
                    .collect();
                (Members::Center(cluster), endpoints, None)
            }
            Kind::Etcd => {
                let (members, endpoints) = etcds(folder)?;
                let mut service = Command::new(binaries::program("config-center")?);
                service.args(["fleet", "--endpoints", &endpoints.join(",")]);
                let log = folder.join("fleet-service.log");
                let service = Process::spawn("config-center fleet", service, &log)?;
                (Members::Etcd(members), endpoints, Some(service))
            }
        };
        let stage = Self {
            folder: folder.to_owned(),
            endpoints,
            members,
            _service: service,
        };
        wait_until("the members to answer", DEADLINE, || stage.get("x").ok())?;
        Ok(stage)
    }

    /// A store that answers now.
    fn store(&self) -> anyhow::Result<Store> {
        for endpoint in &self.endpoints {
            let store = Store::new(endpoint)?;
            if store.get("x").is_ok() {
                return Ok(store);
            }
        }
        anyhow::bail!("no member answers")
    }

    fn get(&self, key: &str) -> anyhow::Result<Option<schemas::mvccpb::KeyValue>> {
        Ok(self.store()?.get(key)?)
    }

    fn kill_leader(&mut self) -> anyhow::Result<()> {
        let leader = wait_until("a leader", DEADLINE, || {
            self.endpoints.iter().position(|endpoint| leads(endpoint))
        })?;
        match &mut self.members {
            Members::Center(cluster) => cluster.seats[leader].process()?.kill9(),
            Members::Etcd(members) => members[leader].kill9(),
        }
    }

    fn run(&self, args: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut command = Command::new(binaries::program("configctl")?);
        command
            .args(["--endpoints", &self.endpoints.join(",")])
            .args(args)
            .env("XDG_CONFIG_HOME", self.folder.join("no-logins"))
            .env("USER", "anna");
        run(&mut command, input)
    }

    /// Runs configctl and checks the exit code.
    #[track_caller]
    fn ctl(&self, code: i32, args: &[&str]) -> String {
        let output = self
            .run(args, "")
            .unwrap_or_else(|error| panic!("{args:?}: {error}"));
        assert_eq!(output.code, Some(code), "{args:?}: {output:#?}");
        format!("{}{}", output.stdout, output.stderr)
    }

    fn file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn status(&self, host: &str) -> Option<AgentStatus> {
        let kv = self.get(&status_key(host)).ok()??;
        serde_json::from_slice(&kv.value).ok()
    }

    /// What the agent of a host runs, as "path>topic", once it runs what its key holds.
    fn runs(&self, host: &str) -> Option<Vec<String>> {
        let status = self.status(host)?;
        let key = self.get(&config_key(host)).ok()?;
        let revision = key.map(|kv| kv.mod_revision);
        let running = status.running.map(|running| running.revision);
        let entry = |entry: &schemas::fleet::EntryStatus| format!("{}>{}", entry.path, entry.topic);
        (running >= revision).then(|| status.entries.iter().map(entry).collect())
    }

    fn wait_runs(&self, host: &str, expected: &[String]) -> anyhow::Result<()> {
        wait_until(&format!("{host} to run {expected:?}"), DEADLINE, || {
            (self.runs(host)? == expected).then_some(())
        })
    }

    /// How often each host's key was written.
    fn writes(&self, hosts: &[String]) -> anyhow::Result<BTreeMap<String, i64>> {
        let version = |host: &String| {
            let kv = self.get(&config_key(host))?;
            Ok((host.clone(), kv.map_or(0, |kv| kv.version)))
        };
        hosts.iter().map(version).collect()
    }

    fn wait_completed(&self, rollout: &str) -> anyhow::Result<()> {
        wait_until(&format!("{rollout} to complete"), DEADLINE, || {
            let output = self.run(&["rollout", "status", rollout], "").ok()?;
            output.stdout.contains("completed").then_some(())
        })
    }

    fn last_release(&self) -> anyhow::Result<u64> {
        let history = self.ctl(0, &["history", "-o", "name"]);
        let newest = history.lines().next().unwrap_or_default();
        Ok(newest.parse()?)
    }

    fn state(&self, host: &str) -> anyhow::Result<String> {
        let listed: Value =
            serde_json::from_str(&self.run(&["agents", "list", "-o", "json"], "")?.stdout)?;
        let rows = listed.as_array().cloned().unwrap_or_default();
        let row = rows.iter().find(|row| row["host"] == host);
        Ok(row.map_or_else(String::new, |row| {
            row["state"].as_str().unwrap_or_default().to_owned()
        }))
    }
}

fn leads(endpoint: &str) -> bool {
    let Ok(channel) = channel(endpoint) else {
        return false;
    };
    let mut client = MaintenanceClient::new(channel);
    let answer = runtime().block_on(client.status(StatusRequest {}));
    answer.is_ok_and(|answer| {
        let status = answer.into_inner();
        let own = status.header.map_or(0, |header| header.member_id);
        status.leader == own && own != 0
    })
}

/// Three members of the etcd program (Debian: etcd-server).
fn etcds(folder: &Path) -> anyhow::Result<(Vec<Process>, Vec<String>)> {
    let url = || format!("http://127.0.0.1:{}", ports::free_port());
    let places: Vec<(String, String, String)> =
        (1..=3).map(|n| (format!("e{n}"), url(), url())).collect();
    let pairs: Vec<String> = places
        .iter()
        .map(|(name, _, peer)| format!("{name}={peer}"))
        .collect();
    let mut members = Vec::new();
    for (name, client, peer) in &places {
        let mut command = Command::new("etcd");
        command
            .args(["--name", name, "--data-dir"])
            .arg(folder.join(name))
            .args([
                "--listen-client-urls",
                client,
                "--advertise-client-urls",
                client,
            ])
            .args([
                "--listen-peer-urls",
                peer,
                "--initial-advertise-peer-urls",
                peer,
            ])
            .args(["--initial-cluster", &pairs.join(",")]);
        members.push(Process::spawn(
            name,
            command,
            &folder.join(format!("{name}.log")),
        )?);
    }
    Ok((
        members,
        places.into_iter().map(|(_, client, _)| client).collect(),
    ))
}

/// A real agent that cannot read what its user may not read, also when that user is root.
fn real_agent(stage: &Stage, host: &str, kafka: &Kafka, logs: &Path) -> anyhow::Result<Process> {
    let folder = stage.folder.join(format!("agent-{host}"));
    fs::create_dir_all(&folder)?;
    let setup = AgentSetup {
        host: host.to_owned(),
        etcd_endpoints: stage.endpoints.clone(),
        kafka_bootstrap: kafka.bootstrap().to_owned(),
        allow: logs.to_owned(),
        kafka: Vec::new(),
    };
    let yaml = folder.join("agent.yaml");
    fs::write(&yaml, setup.yaml(&folder.join("data")))?;
    let program = binaries::program("logagent")?;
    let command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .arg("--bounding-set=-dac_override,-dac_read_search")
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    let mut command = command;
    command.arg("--config").arg(&yaml);
    Process::spawn(&format!("logagent of {host}"), command, &folder.join("log"))
}

fn may_read(file: &Path, may: bool) -> anyhow::Result<()> {
    let mode = if may { 0o644 } else { 0o000 };
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(mode))?)
}

/// The hosts in the order in which every rollout of them goes.
fn order_of(stage: &Stage, rollout: &str) -> anyhow::Result<Vec<String>> {
    let prefix = format!("/ningxin/backend/fleet/plans/{rollout}/");
    let (found, _) = stage.store()?.get_from(&prefix)?;
    let mut bytes = Vec::new();
    for kv in found
        .iter()
        .take_while(|kv| kv.key.starts_with(prefix.as_bytes()))
    {
        bytes.extend_from_slice(&kv.value);
    }
    let plan: Value = serde_json::from_slice(&bytes)?;
    Ok(serde_json::from_value(plan["plan"]["hosts"].clone())?)
}

#[test]
fn a_fleet_on_config_center() -> anyhow::Result<()> {
    a_fleet(Kind::Center)
}

#[test]
fn a_fleet_on_an_etcd_of_somebody_else() -> anyhow::Result<()> {
    a_fleet(Kind::Etcd)
}

fn a_fleet(kind: Kind) -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let mut stage = Stage::start(kind, work.path())?;
    let logs = work.path().join("nginx");
    fs::create_dir_all(&logs)?;
    let (access, error) = (logs.join("access.log"), logs.join("error.log"));
    for file in [&access, &error] {
        fs::write(file, "one line\n")?;
    }
    let at = |file: &Path, topic: &str| format!("{}>{topic}", file.display());
    let kafka = Kafka::mock()?;

    // The contract's own YAML, on this machine's paths, for 22 hosts, and less patient.
    let mut hosts: Vec<String> = (1..=21).map(|n| format!("10.9.0.{n}")).collect();
    let contract = CONTRACT
        .replace("/var/log/nginx", &logs.to_string_lossy())
        .replace("192.168.56.20", &hosts.join(", "))
        .replace("bake: 30s", "bake: 200ms");
    hosts.push(CANARY.to_owned());
    let file = stage.file("fleet.yaml", &contract)?;
    let diff = stage.ctl(1, &["diff", "-f", &file]);
    assert!(diff.contains("22 hosts"), "{diff}");
    stage.ctl(0, &["apply", "-f", &file, "--reason", "the contract"]);
    stage.ctl(0, &["diff", "-f", &file]);
    let first = "0000000001-prod-safe";
    let order = order_of(&stage, first)?;
    assert_eq!(order.len(), 22);

    // A file of wave 2 that its agent may not read.
    may_read(&access, false)?;
    let real = [order[1].clone(), order[6].clone()];
    let _agents = [
        real_agent(&stage, &real[0], &kafka, &logs)?,
        real_agent(&stage, &real[1], &kafka, &logs)?,
    ];
    let setup = Setup::new(&stage.endpoints);
    let fleet = {
        let _inside = runtime().enter();
        let simulated = order.iter().filter(|host| !real.contains(host));
        Fleet::start(&setup, simulated.cloned())?
    };
    assert_eq!(fleet.len(), 20);
    let reason = format!("{}: {}: ", real[0], access.display());
    wait_until(
        "the rollout to pause with host and reason",
        DEADLINE,
        || {
            let output = stage.run(&["rollout", "status", first], "").ok()?;
            let is_paused = output.code == Some(1) && output.stdout.contains("paused, wave 2 of 4");
            (is_paused && output.stdout.contains(&reason)).then_some(())
        },
    )?;
    assert!(
        stage.get(&config_key(&order[21]))?.is_none(),
        "no later wave was touched"
    );
    may_read(&access, true)?;
    stage.ctl(0, &["rollout", "retry", first, "--reason", "chmod"]);
    stage.wait_completed(first)?;
    for (host, writes) in stage.writes(&hosts)? {
        assert_eq!(writes, 1, "{host} was not written exactly once");
    }

    // The leader dies between two waves: somebody goes on, and nobody is written twice.
    let second = contract
        .replace("topic: nginx_log_err", "topic: nginx_err")
        .replace("bake: 200ms", "bake: 1s");
    let file = stage.file("second.yaml", &second)?;
    stage.ctl(0, &["apply", "-f", &file]);
    let release = stage.last_release()?;
    let rollout = format!("{release:010}-prod-safe");
    // The canary excludes the file whose topic changes, so it is in no wave.
    let order = order_of(&stage, &rollout)?;
    assert_eq!(order.len(), 21);
    wait_until("wave 2", DEADLINE, || {
        let kv = stage.get(&config_key(&order[1])).ok()??;
        (kv.version == 2).then_some(())
    })?;
    stage.kill_leader()?;
    stage.wait_completed(&rollout)?;
    for (host, writes) in stage.writes(&order)? {
        assert_eq!(writes, 2, "{host} was not written exactly once more");
    }

    // What is exported is what is there.
    let exported = stage.run(&["export"], "")?.stdout;
    let before = stage
        .get("/ningxin/backend/fleet/head")?
        .map(|kv| kv.mod_revision);
    let again = stage.run(&["apply", "-f", "-"], &exported)?;
    assert!(again.stdout.contains("nothing written"), "{again:?}");
    assert_eq!(
        stage
            .get("/ningxin/backend/fleet/head")?
            .map(|kv| kv.mod_revision),
        before
    );

    edits_by_hand(&stage, &real[0], &access)?;
    versions_come_back(&stage, &real, &at(&access, "nginx_log"), &logs, &kafka)?;

    // The audit holds, and a copy in which a row was changed does not.
    stage.ctl(0, &["audit", "--verify"]);
    let copy = stage
        .run(&["audit", "-o", "json", "--last", "100000"], "")?
        .stdout;
    let kept = stage.file("audit.json", &copy)?;
    stage.ctl(0, &["audit", "--file", &kept]);
    let forged = stage.file(
        "forged.json",
        &copy.replacen("the contract", "the contrast", 1),
    )?;
    stage.ctl(1, &["audit", "--file", &forged]);
    Ok(())
}

/// `etcdctl put` to a host's key is drift, reaches the agent, and is adopted or undone.
fn edits_by_hand(stage: &Stage, host: &str, access: &Path) -> anyhow::Result<()> {
    let put = |topic: &str| -> anyhow::Result<()> {
        let value = format!(r#"[{{"path":"{}","topic":"{topic}"}}]"#, access.display());
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &stage.endpoints.join(",")])
            .args(["put", &config_key(host), &value]);
        let output = run(&mut command, "")?;
        anyhow::ensure!(output.code == Some(0), "{output:?}");
        wait_until("the edit to show as drift", DEADLINE, || {
            (stage.state(host).ok()? == "drifted").then_some(())
        })?;
        stage.wait_runs(host, &[format!("{}>{topic}", access.display())])
    };
    put("by_hand")?;
    stage.ctl(0, &["agents", "restore", host, "--reason", "no"]);
    wait_until("the agent to run what was published", DEADLINE, || {
        let runs = stage.runs(host)?;
        (!runs.iter().any(|entry| entry.ends_with(">by_hand"))).then_some(())
    })?;
    put("canary")?;
    stage.ctl(0, &["agents", "adopt", host, "--reason", "yes"]);
    wait_until("the drift to be gone", DEADLINE, || {
        (stage.state(host).ok()? == "applied").then_some(())
    })?;
    stage.wait_runs(host, &[format!("{}>canary", access.display())])
}

/// Restore of a version, undo of the last publish, undelete of a host: seen on real agents.
fn versions_come_back(
    stage: &Stage,
    real: &[String; 2],
    from_group: &str,
    logs: &Path,
    kafka: &Kafka,
) -> anyhow::Result<()> {
    let host = &real[1];
    let group = |topic: &str| {
        format!(
            "apiVersion: logconf/v1\nkind: Group\nmetadata: {{name: extra}}\nspec: {{members: [{host}], logs: \
             [{{path: {}/extra.log, topic: {topic}}}]}}\n",
            logs.display()
        )
    };
    let extra = |topic: &str| format!("{}/extra.log>{topic}", logs.display());
    let with = |topic: &str| -> Vec<String> {
        let published = stage.get(&config_key(host)).ok().flatten();
        assert!(published.is_some());
        vec![
            from_group.to_owned(),
            format!("{}/error.log>nginx_err", logs.display()),
            extra(topic),
        ]
    };
    let mut releases = Vec::new();
    for topic in ["v1", "v2", "v3", "v4"] {
        let file = stage.file("extra.yaml", &group(topic))?;
        stage.ctl(0, &["apply", "-f", &file, "--wait", "--timeout", "40s"]);
        releases.push(stage.last_release()?);
        stage.wait_runs(host, &with(topic))?;
    }
    let oldest = releases[0].to_string();
    stage.ctl(
        0,
        &[
            "rollback",
            "Group/extra",
            "--to",
            &oldest,
            "--wait",
            "--timeout",
            "40s",
        ],
    );
    stage.wait_runs(host, &with("v1"))?;
    stage.ctl(0, &["undo", "--wait", "--timeout", "40s"]);
    stage.wait_runs(host, &with("v4"))?;

    // The host has something of its own; it is retired, and comes back.
    let own = format!("{}/own.log", logs.display());
    fs::write(&own, "first words\n")?;
    let wait = ["--wait", "--timeout", "40s"];
    let push = ["push", &own, "--topic", "own", "--host", host];
    let said = stage.ctl(0, &[&push[..], &wait].concat());
    let is_told = said.contains(&format!("applied on {host} in "))
        && said.contains(" ms; first line in Kafka after ");
    assert!(is_told, "{said}");
    let brokers = [
        "--brokers",
        kafka.bootstrap(),
        "--last",
        "1",
        "--count",
        "1",
    ];
    let tail = |whose: &[&str]| stage.ctl(0, &[&["tail"], whose, &brokers].concat());
    let said = tail(&["own"]);
    assert!(said.contains("first words"), "{said}");
    // Of the host's topics, whichever Kafka answers for first.
    let said = tail(&["--host", host]);
    let written = ["first words", "one line"];
    assert!(written.iter().any(|line| said.contains(line)), "{said}");
    stage.ctl(0, &["agents", "retire", host]);
    stage.wait_runs(host, &[])?;
    stage.ctl(
        0,
        &[
            "undelete",
            &format!("Host/{host}"),
            "--wait",
            "--timeout",
            "40s",
        ],
    );
    stage.wait_runs(host, &[format!("{own}>own")])
}
