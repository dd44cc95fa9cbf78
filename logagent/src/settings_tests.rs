//! Tables of what an agent.yaml and a command line may say.

use super::*;

fn names() -> HostNames {
    HostNames {
        ip: "192.168.56.1".to_owned(),
        hostname: "web-1".to_owned(),
    }
}

const MINIMAL: &str = "kafka: { bootstrap.servers: 127.0.0.1:9092 }\n";

fn settings(yaml: &str, flags: &Flags) -> Result<Settings, String> {
    parse(Path::new("agent.yaml"), yaml)
        .and_then(|file| merge(flags, file, &names()))
        .map_err(|error| error.to_string())
}

fn from_yaml(yaml: &str) -> Result<Settings, String> {
    settings(yaml, &Flags::default())
}

#[test]
fn one_property_is_enough() {
    let settings = from_yaml(MINIMAL).unwrap();
    assert_eq!(settings.etcd.endpoints, ["http://127.0.0.1:2379"]);
    assert_eq!(
        settings.config_key,
        "/ningxin/backend/logagent/config/192.168.56.1"
    );
    assert_eq!(
        settings.status_key.as_deref(),
        Some("/ningxin/backend/logagent/status/192.168.56.1")
    );
    assert_eq!(settings.host, "192.168.56.1");
    assert_eq!(settings.allow, [PathBuf::from("/var/log")]);
    assert_eq!(settings.data_dir, PathBuf::from("/var/lib/logagent"));
    assert_eq!(settings.status_interval, Duration::from_secs(5));
}

#[test]
fn the_documented_file_is_accepted() {
    let yaml = r#"
etcd: { endpoints: ["http://127.0.0.1:2379", "https://10.0.0.2:2379/", "c:22379"] }
key: /ningxin/backend/logagent/config/{ip}
host: 192.168.56.9
kafka: { bootstrap.servers: "127.0.0.1:9092", linger.ms: 5, enable.idempotence: true }
data_dir: /var/lib/logagent
allow: [/var/log, /data]
labels: { role: web, rack: 7 }
status_interval: 500ms
"#;
    let settings = from_yaml(yaml).unwrap();
    assert_eq!(
        settings.etcd.endpoints,
        ["http://127.0.0.1:2379", "https://10.0.0.2:2379/", "c:22379"]
    );
    assert_eq!(
        settings.config_key,
        "/ningxin/backend/logagent/config/192.168.56.9"
    );
    assert_eq!(settings.kafka["linger.ms"], "5");
    assert_eq!(settings.kafka["enable.idempotence"], "true");
    assert_eq!(settings.labels["rack"], "7");
    assert_eq!(settings.status_interval, Duration::from_millis(500));
}

#[test]
fn key_templates() {
    let check = |template: &str, key: &str, status: Option<&str>| {
        let settings = from_yaml(&format!("{MINIMAL}id: a7\nkey: \"{template}\"\n")).unwrap();
        assert_eq!(settings.config_key, key, "{template}");
        assert_eq!(settings.status_key.as_deref(), status, "{template}");
    };
    check(
        "/x/config/%s",
        "/x/config/192.168.56.1",
        Some("/x/status/192.168.56.1"),
    );
    check(
        "/x/config/{hostname}",
        "/x/config/web-1",
        Some("/x/status/web-1"),
    );
    check(
        "/config/a/config/{id}",
        "/config/a/config/a7",
        Some("/config/a/status/a7"),
    );
    check("/logagent/conf/", "/logagent/conf/", None);
    check("/x/config", "/x/config", None);
}

#[test]
fn flags_win_over_the_file() {
    let flags = Flags {
        etcd_endpoints: Some(vec!["10.0.0.9:2379".to_owned()]),
        host: Some("flagged".to_owned()),
        bootstrap_servers: Some("k:9092".to_owned()),
        kafka: vec!["linger.ms=50".to_owned()],
        allow: Some(vec![PathBuf::from("/data")]),
        labels: vec!["role=db".to_owned()],
        ..Flags::default()
    };
    let yaml = "host: filed\nkafka: { bootstrap.servers: f:1, linger.ms: 5, acks: all }\n\
                labels: { role: web }\nallow: [/var/log]\n";
    let settings = settings(yaml, &flags).unwrap();
    assert_eq!(settings.etcd.endpoints, ["10.0.0.9:2379"]);
    assert_eq!(settings.host, "flagged");
    assert_eq!(settings.kafka["bootstrap.servers"], "k:9092");
    assert_eq!(settings.kafka["linger.ms"], "50");
    assert_eq!(settings.kafka["acks"], "all");
    assert_eq!(settings.allow, [PathBuf::from("/data")]);
    assert_eq!(settings.labels["role"], "db");
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let check = |yaml: &str, parts: &[&str]| {
        let error = from_yaml(yaml).unwrap_err();
        assert!(!error.contains('\n'), "{error}");
        for part in parts {
            assert!(error.contains(part), "{yaml:?}: {error:?} lacks {part:?}");
        }
    };
    check(
        "kafka: { bootstrap.servers: x }\nalow: [/x]\n",
        &["agent.yaml", "alow", "line 2"],
    );
    check("host: a\n\netcd:\n  endpoint: x\n", &["endpoint", "line 4"]);
    check("host: [a]\n", &["host", "line 1"]);
    check("host: a\n  b: [\n", &["agent.yaml", "line 2"]);
    check("just text\n", &["agent.yaml"]);
    check("", &["bootstrap.servers"]);
    check("# nothing\n", &["bootstrap.servers"]);
    check("kafka: { bootstrap.servers: '' }\n", &["bootstrap.servers"]);
    let check_more = |yaml: &str, parts: &[&str]| check(&format!("{MINIMAL}{yaml}"), parts);
    check_more("etcd: { endpoints: [] }\n", &["etcd.endpoints", "empty"]);
    check_more("etcd: { username: root }\n", &["password"]);
    check_more("etcd: { cert: /c }\n", &["etcd.key"]);
    check_more("key: /x/{host}\n", &["key", "{host}"]);
    check_more("key: /x/{id}\n", &["key", "id"]);
    check_more("key: /\n", &["key", "empty"]);
    check_more("key: /x/{ip\n", &["key"]);
    check_more("allow: []\n", &["allow", "empty"]);
    check_more("allow: [logs]\n", &["allow", "absolute"]);
    check_more("status_interval: 5\n", &["status_interval"]);
    check_more("status_interval: 5 parsecs\n", &["status_interval", "5s"]);
    check_more("status_interval: 1ms\n", &["status_interval", "100ms"]);
    check_more(
        "status_interval: 99999999999999999999s\n",
        &["status_interval"],
    );
    check_more(
        "status_key: /ningxin/backend/logagent/config/{ip}\n",
        &["status_key"],
    );
}

#[test]
fn flags_are_checked_too() {
    let flags = Flags {
        kafka: vec!["linger.ms".to_owned()],
        ..Flags::default()
    };
    assert!(
        settings(MINIMAL, &flags)
            .unwrap_err()
            .contains("NAME=VALUE")
    );
}

#[test]
fn a_listener_is_off_until_it_is_asked_for() {
    let listen = |text: &str| {
        from_yaml(&format!("{MINIMAL}listen: {text}\n")).map(|settings| settings.listen)
    };
    assert_eq!(from_yaml(MINIMAL).unwrap().listen, None);
    assert_eq!(listen("off").unwrap(), None);
    let local = Some("127.0.0.1:5066".parse().unwrap());
    for same in ["5066", "\":5066\"", "127.0.0.1:5066"] {
        assert_eq!(listen(same).unwrap(), local, "{same}");
    }
    assert_eq!(listen("\"[::1]:5066\"").unwrap(), "[::1]:5066".parse().ok());
    assert!(listen("nowhere").unwrap_err().contains("listen"));
    assert!(listen("70000").unwrap_err().contains("70000"));
}

#[test]
fn a_trial_needs_no_broker_and_has_its_own_checkpoints() {
    let settings = from_yaml("sink: stdout\ndata_dir: /d\n").unwrap();
    assert_eq!(settings.sink, SinkChoice::Stdout);
    assert_eq!(settings.data_dir, PathBuf::from("/d/tried-on-stdout"));
    let settings = from_yaml("sink: \"file:/tmp/{topic}.log\"\ndata_dir: /d\n").unwrap();
    assert_eq!(
        settings.sink,
        SinkChoice::File("/tmp/{topic}.log".to_owned())
    );
    assert_eq!(settings.data_dir, PathBuf::from("/d/tried-on-file"));
    assert_eq!(
        from_yaml(MINIMAL).unwrap().data_dir,
        PathBuf::from("/var/lib/logagent")
    );
    for bad in ["file:relative", "sdtout"] {
        assert!(
            from_yaml(&format!("sink: {bad}\n"))
                .unwrap_err()
                .contains("sink")
        );
    }
}
