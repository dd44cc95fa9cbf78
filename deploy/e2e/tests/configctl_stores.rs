//! configctl against config-center and against a real etcd 3.7.1: the same commands, the same exit
//! codes, the same words.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use e2e::agent::{HOST, config_key, status_key};
use e2e::tools::{Output, run};
use e2e::{
    Agent, AgentSetup, Center, DEADLINE, Kafka, LineFormat, LineWriter, Peer, Store, binaries,
    ports, wait_until,
};
use serde_json::{Value, json};

/// One store and the operator in front of it.
struct Operator {
    name: &'static str,
    url: String,
    store: Store,
    _guard: Guard,
}

/// Keeps the server alive.
enum Guard {
    Center(#[expect(dead_code, reason = "kept for its Drop")] Center),
    Etcd(#[expect(dead_code, reason = "kept for its Drop")] Peer),
}

impl Operator {
    fn command(&self) -> anyhow::Result<Command> {
        let mut command = bare()?;
        command.args(["--endpoints", &self.url]);
        Ok(command)
    }

    fn run(&self, args: &[&str]) -> anyhow::Result<Output> {
        run(self.command()?.args(args), "")
    }

    /// Runs and checks the exit code; the message shows all that was printed.
    fn expect(&self, code: i32, args: &[&str]) -> anyhow::Result<Output> {
        let output = self.run(args)?;
        assert_eq!(
            output.code,
            Some(code),
            "{}: {args:?}: {output:#?}",
            self.name
        );
        Ok(output)
    }

    fn config(&self, host: &str) -> anyhow::Result<Value> {
        let pair = self.store.get(&config_key(host))?;
        Ok(pair
            .map(|pair| serde_json::from_slice(&pair.value))
            .transpose()?
            .unwrap_or_default())
    }
}

/// configctl without the developer's own settings.
fn bare() -> anyhow::Result<Command> {
    let mut command = Command::new(binaries::program("configctl")?);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("ETCDCTL_") || name.starts_with("CONFIGCTL_") {
            command.env_remove(&*name);
        }
    }
    Ok(command)
}

/// Runs the check on both stores, each in a folder of its own.
fn on_both(check: impl Fn(&Operator, &Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let folder = work.path().join("center");
    std::fs::create_dir_all(&folder)?;
    let center = Center::start(&folder)?;
    let operator = Operator {
        name: "config-center",
        url: center.url(),
        store: center.store()?,
        _guard: Guard::Center(center),
    };
    check(&operator, &folder)?;
    drop(operator);

    let folder = work.path().join("etcd");
    std::fs::create_dir_all(&folder)?;
    let etcd = Peer::start(&folder, &[])?;
    let url = etcd.url.clone();
    let operator = Operator {
        name: "etcd 3.7.1",
        store: Store::new(&url)?,
        url,
        _guard: Guard::Etcd(etcd),
    };
    check(&operator, &folder)
}

#[test]
fn a_push_touches_only_its_own_entry() -> anyhow::Result<()> {
    on_both(|operator, _| {
        let push = |path: &str, topic: &str| {
            ["push", path, "-t", topic, "--host", HOST].map(str::to_owned)
        };
        let push = |code, path, topic| {
            let args = push(path, topic);
            operator.expect(code, &args.each_ref().map(String::as_str))
        };
        // What another hand wrote keeps its bytes, unknown fields and spacing included.
        let written = "[\n  {\"topic\":\"nginx_log\", \"path\":\"/var/log/nginx/access.log\", \"owner\":\"web\"}\n]";
        operator.store.put(&config_key(HOST), written)?;
        push(0, "/var/log/nginx/error.log", "nginx_err")?;
        let pair = operator.store.get(&config_key(HOST))?.expect("just pushed");
        let text = String::from_utf8(pair.value.to_vec())?;
        let entry = &written[4..written.len() - 2];
        assert!(text.contains(entry), "{}: {text}", operator.name);
        assert_eq!(operator.config(HOST)?.as_array().map(Vec::len), Some(2));

        // The same push again succeeds and writes nothing.
        let again = push(0, "/var/log/nginx/error.log", "nginx_err")?;
        assert!(again.stdout.contains("already there"), "{again:#?}");
        let after = operator.store.get(&config_key(HOST))?.expect("still there");
        assert_eq!(after.mod_revision, pair.mod_revision, "{}", operator.name);

        // Another topic for the same path changes it, --add keeps both.
        let changed = push(0, "/var/log/nginx/error.log", "errors")?;
        assert!(
            changed.stdout.contains("nginx_err → errors"),
            "{changed:#?}"
        );
        let add = [
            "push",
            "/var/log/nginx/error.log",
            "-t",
            "copy",
            "--host",
            HOST,
            "--add",
        ];
        operator.expect(0, &add)?;
        assert_eq!(operator.config(HOST)?.as_array().map(Vec::len), Some(3));
        // Now it is open which of the two would get a third topic.
        let ambiguous = push(3, "/var/log/nginx/error.log", "third")?;
        assert!(ambiguous.stderr.contains("--add"), "{ambiguous:#?}");

        let remove = [
            "rm-path",
            "/var/log/nginx/error.log",
            "-t",
            "copy",
            "--host",
            HOST,
        ];
        operator.expect(0, &remove)?;
        operator.expect(9, &remove)?;
        operator.expect(0, &["rm-path", "/var/log/nginx/error.log", "--host", HOST])?;
        let left = operator
            .store
            .get(&config_key(HOST))?
            .expect("one entry is left");
        assert_eq!(
            serde_json::from_slice::<Value>(&left.value)?,
            json!([{ "topic": "nginx_log", "path": "/var/log/nginx/access.log", "owner": "web" }])
        );
        operator.expect(9, &["rm-path", "/a", "--host", "10.9.9.9"])?;
        Ok(())
    })
}

#[test]
fn pushes_at_the_same_moment_all_survive() -> anyhow::Result<()> {
    const WRITERS: usize = 6;
    on_both(|operator, _| {
        let mut children = Vec::new();
        for number in 0..WRITERS {
            let mut command = operator.command()?;
            let path = format!("/var/log/app/{number}.log");
            command.args(["push", &path, "--topic", "apps", "--host", HOST]);
            command.stdout(std::process::Stdio::null());
            children.push(command.spawn()?);
        }
        for mut child in children {
            assert!(child.wait()?.success(), "{}", operator.name);
        }
        let config = operator.config(HOST)?;
        let paths: BTreeSet<_> = config
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["path"].as_str())
            .collect();
        assert_eq!(paths.len(), WRITERS, "{}: {config}", operator.name);
        Ok(())
    })
}

#[test]
fn a_value_that_is_no_document_is_never_overwritten() -> anyhow::Result<()> {
    on_both(|operator, _| {
        for value in ["sample_value", "{", "", "{\"path\":\"x\"}", "[null]"] {
            operator.store.put(&config_key(HOST), value)?;
            let push = ["push", "/a.log", "-t", "t", "--host", HOST];
            let output = operator.expect(3, &push)?;
            assert!(
                output.stderr.contains("Nothing was changed") && output.stderr.contains(HOST),
                "{value:?}: {output:#?}"
            );
            let kept = operator.store.get(&config_key(HOST))?.expect("kept");
            assert_eq!(&kept.value[..], value.as_bytes(), "{}", operator.name);
            operator.expect(3, &["get", HOST])?;
        }
        Ok(())
    })
}

#[test]
fn results_come_as_table_json_yaml_and_names() -> anyhow::Result<()> {
    on_both(|operator, _| {
        let second = "192.168.56.2";
        let hosts = format!("{HOST},{second}");
        let push = [
            "push", "/b.log", "/a.log", "-t", "t", "--host", &hosts, "-o", "json",
        ];
        let pushed: Value = serde_json::from_str(&operator.expect(0, &push)?.stdout)?;
        for (result, host) in pushed
            .as_array()
            .expect("a list")
            .iter()
            .zip([HOST, second])
        {
            assert_eq!(result["host"], host, "{pushed}");
            assert_eq!(result["written"], true, "{pushed}");
            assert_eq!(result["key"], config_key(host), "{pushed}");
        }

        let one: Value =
            serde_json::from_str(&operator.expect(0, &["get", HOST, "-o", "json"])?.stdout)?;
        assert_eq!(one["host"], HOST);
        assert_eq!(one["entries"], operator.config(HOST)?);
        let pair = operator.store.get(&config_key(HOST))?.expect("just pushed");
        assert_eq!(one["revision"], pair.mod_revision);
        let all: Value = serde_json::from_str(&operator.expect(0, &["get", "-o", "json"])?.stdout)?;
        assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");

        let table = operator.expect(0, &["get"])?.stdout;
        let heading = table.lines().next().unwrap_or_default();
        assert!(
            heading.starts_with("HOST") && heading.contains("REVISION"),
            "{table}"
        );
        assert_eq!(table.lines().count(), 1 + 4, "{table}");
        assert!(
            !table.contains('\u{1b}'),
            "no colours into a pipe: {table:?}"
        );
        let names = operator.expect(0, &["get", "-o", "name"])?.stdout;
        assert_eq!(names, format!("{HOST}\n{second}\n"));
        let yaml = operator.expect(0, &["get", HOST, "-o", "yaml"])?.stdout;
        assert!(yaml.contains("host: 192.168.56.1"), "{yaml}");

        // Hosts without an agent, an agent without a configuration, an unreadable status.
        operator
            .store
            .put(&status_key("192.168.56.3"), "not a status")?;
        let agents: Value = serde_json::from_str(
            &operator
                .expect(0, &["agents", "list", "-o", "json"])?
                .stdout,
        )?;
        let states: Vec<_> = agents
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| (row["host"].clone(), row["state"].clone()))
            .collect();
        let wanted = [
            (HOST, "offline"),
            (second, "offline"),
            ("192.168.56.3", "unknown"),
        ];
        assert_eq!(
            states,
            wanted.map(|(host, state)| (host.into(), state.into())),
            "{agents}"
        );
        let table = operator.expect(0, &["agents", "list"])?.stdout;
        assert!(
            table
                .lines()
                .next()
                .is_some_and(|line| line.starts_with("HOST")),
            "{table}"
        );
        assert_eq!(table.lines().count(), 1 + 3, "{table}");
        Ok(())
    })
}

#[test]
fn connection_flags_and_variables_are_etcdctls() -> anyhow::Result<()> {
    on_both(|operator, _| {
        let nobody = format!("http://127.0.0.1:{}", ports::free_port());
        let with_env = |name: &str, value: &str, args: &[&str]| {
            let mut command = bare()?;
            command.env(name, value).args(args);
            run(&mut command, "")
        };
        let put = ["kv", "put", "/x", "1"];
        assert_eq!(
            with_env("ETCDCTL_ENDPOINTS", &operator.url, &put)?.code,
            Some(0)
        );
        let value = operator.store.get("/x")?.expect("just put").value;
        assert_eq!(&value[..], b"1");

        // The flag wins over the variable.
        let flag = ["--endpoints", &operator.url, "kv", "get", "/x"];
        let got = with_env("ETCDCTL_ENDPOINTS", &nobody, &flag)?;
        assert_eq!(got.code, Some(0), "{got:#?}");
        // A second endpoint is tried when the first does not answer, and a scheme is optional.
        let bare_address = operator.url.trim_start_matches("http://");
        let both = format!("{nobody},{bare_address}");
        let got = with_env("ETCDCTL_ENDPOINTS", &both, &["kv", "get", "/x"])?;
        assert_eq!(got.code, Some(0), "{got:#?}");

        let namespace = ["push", "/a.log", "-t", "t", "--host", HOST];
        let mut command = operator.command()?;
        command
            .env("CONFIGCTL_NAMESPACE", "/other/")
            .args(namespace);
        run(&mut command, "")?.ok()?;
        let key = format!("/other/logagent/config/{HOST}");
        assert!(operator.store.get(&key)?.is_some(), "{}", operator.name);

        let mut command = operator.command()?;
        command
            .env("ETCDCTL_USER", "root")
            .args(["kv", "get", "/x"]);
        let output = run(&mut command, "")?;
        assert_eq!(output.code, Some(128), "{output:#?}");
        Ok(())
    })
}

#[test]
fn each_failure_has_its_exit_code() -> anyhow::Result<()> {
    on_both(|operator, folder| {
        // Nobody listens; somebody listens and never answers.
        let nobody = format!("http://127.0.0.1:{}", ports::free_port());
        let silent = TcpListener::bind("127.0.0.1:0")?;
        let silent = format!("http://{}", silent.local_addr()?);
        for endpoint in [&nobody, &silent] {
            let mut command = bare()?;
            command.args(["--endpoints", endpoint, "--command-timeout", "1s"]);
            command.args(["--dial-timeout", "1s", "get"]);
            let output = run(&mut command, "")?;
            assert_eq!(output.code, Some(2), "{output:#?}");
            assert!(
                output
                    .stderr
                    .contains(endpoint.trim_start_matches("http://")),
                "{output:#?}"
            );
            assert_eq!(output.stderr.trim().lines().count(), 1, "{output:#?}");
        }

        let missing = folder.join("missing.pem");
        let mut command = bare()?;
        command.args(["--endpoints", "https://127.0.0.1:1", "get", "--cacert"]);
        let output = run(command.arg(&missing), "")?;
        assert_eq!(output.code, Some(6), "{output:#?}");
        assert!(output.stderr.contains("missing.pem"), "{output:#?}");

        let long_host = "x".repeat(254);
        let table: [(i32, &[&str]); 10] = [
            (3, &["push", "/a.log", "-t", "a b", "--host", HOST]),
            (3, &["push", "/a.log", "-t", "", "--host", HOST]),
            (3, &["push", "relative.log", "-t", "t", "--host", HOST]),
            (3, &["push", "/a.log", "-t", "t", "--host", "a/b"]),
            (3, &["push", "/a.log", "-t", "t", "--host", &long_host]),
            (9, &["get", "10.9.9.9"]),
            (128, &["push", "/a.log", "--host", HOST]),
            (128, &["nonsense"]),
            (128, &["get", "-o", "xml"]),
            (128, &["--dial-timeout", "soon", "get"]),
        ];
        for (code, args) in table {
            let output = operator.expect(code, args)?;
            assert!(!output.stderr.contains("panicked"), "{output:#?}");
            assert!(
                output.stdout.is_empty(),
                "errors are no results: {output:#?}"
            );
        }
        assert_eq!(operator.config(HOST)?, Value::Null, "nothing was written");
        Ok(())
    })
}

#[test]
fn wait_ends_with_what_the_agent_said() -> anyhow::Result<()> {
    let kafka = Kafka::mock()?;
    kafka.create_topic("nginx_log", 1)?;
    on_both(|operator, folder| {
        let setup = AgentSetup::new(&operator.url, kafka.bootstrap(), folder);
        let mut agent = Agent::start(folder, &setup)?;
        let log = folder.join("access.log");
        LineWriter::create(&log, LineFormat::access("access.log"))?.write(10)?;
        let log = log.to_str().expect("a plain path");

        let push = ["push", log, "-t", "nginx_log", "--host", HOST, "--wait"];
        let output = operator.expect(0, &push)?;
        assert!(
            output.stdout.contains(&format!("applied on {HOST} in ")),
            "{}: {output:#?}",
            operator.name
        );
        wait_until("agents list to say applied", DEADLINE, || {
            let listed = operator.run(&["agents", "list", "-o", "json"]).ok()?;
            let rows: Value = serde_json::from_str(&listed.stdout).ok()?;
            (rows[0]["state"] == "applied").then_some(())
        })?;

        // Outside of its allow-list: the agent refuses this entry and says so.
        let push = [
            "push",
            "/etc/hosts",
            "-t",
            "nginx_log",
            "--host",
            HOST,
            "--wait",
            "-o",
            "json",
        ];
        let output = operator.expect(1, &push)?;
        let results: Value = serde_json::from_str(&output.stdout)?;
        assert_eq!(
            results[0]["agent"]["state"], "partly applied",
            "{output:#?}"
        );
        assert!(output.stderr.contains("/etc/hosts"), "{output:#?}");
        operator.expect(0, &["rm-path", "/etc/hosts", "--host", HOST, "--wait"])?;

        agent.process.terminate()?;
        let push = [
            "push",
            "/b.log",
            "-t",
            "t",
            "--host",
            HOST,
            "--wait",
            "--timeout",
            "300ms",
        ];
        let output = operator.expect(7, &push)?;
        assert!(output.stderr.contains("the publish stands"), "{output:#?}");
        Ok(())
    })
}
