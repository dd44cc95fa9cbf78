//! What the agent does when the center, the broker, the configuration or the disk is bad.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a panic with a place"
)]

mod support;

use schemas::fleet::{AttemptResult, ConfigSource, EntryState};
use support::agent::{
    CONFIG_KEY, HOST, Home, append, numbered, text_of, wait_running, wait_status,
};
use support::broker::Broker;
use support::center::Center;

#[test]
fn kafka_down_at_the_start() {
    let (center, mut broker) = (Center::start(), Broker::start());
    broker.cluster.create_topic("t", 1, 1).unwrap();
    broker.cluster.broker_down(-1).unwrap();
    let home = Home::new(&center, &broker);
    let lines = numbered("line", 0..50_000);
    append(&home.log("a.log"), text_of(&lines));
    let revision = center.put(CONFIG_KEY, home.config(&[("a.log", "t")]));
    let _agent = home.start();
    wait_running(&center, revision);
    let status = wait_status(&center, "a Kafka error", |status| {
        status
            .entries
            .iter()
            .any(|entry| entry.state == EntryState::Failing)
    });
    assert!(status.entries[0].error.is_some());
    assert_eq!(status.totals.lines_acked, 0);
    // Rotated while the broker is down.
    std::fs::rename(home.log("a.log"), home.log("a.log.1")).unwrap();
    append(&home.log("a.log"), "last\n");
    broker.cluster.broker_up(-1).unwrap();
    let mut expected = lines;
    expected.push("last".to_owned());
    let arrived = broker.wait_lines("t", expected.len());
    assert!(arrived == expected, "lost, doubled or reordered");
    wait_status(&center, "running", |status| {
        status.entries[0].state == EntryState::Running
    });
}

#[test]
fn the_center_is_down_and_comes_back() {
    let (mut center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    append(&home.log("a.log"), "a1\n");
    append(&home.log("b.log"), "b1\n");
    let cached = center.put(CONFIG_KEY, home.config(&[("a.log", "a")]));
    let agent = home.start();
    broker.expect("a", &["a1"]);
    wait_running(&center, cached);
    agent.wait_log("running");
    support::wait_until("the cache", || home.data("config.cache").exists());

    // Gone while the agent runs: nothing happens.
    center.stop();
    append(&home.log("a.log"), "a2\n");
    broker.expect("a", &["a1", "a2"]);
    assert_eq!(agent.terminate(), Some(0));

    // Gone at the start: the cached configuration runs.
    append(&home.log("a.log"), "a3\n");
    let agent = home.start();
    broker.expect("a", &["a1", "a2", "a3"]);

    // Back, with the same configuration: the source changes and nothing else.
    center.start_again();
    let status = wait_status(&center, "source center", |status| {
        status.config_source == ConfigSource::Center && status.running.is_some()
    });
    assert_eq!(status.running.unwrap().revision, cached);
    append(&home.log("a.log"), "a4\n");
    broker.expect("a", &["a1", "a2", "a3", "a4"]);

    // A change and a compaction while it is away.
    center.stop();
    center.put(CONFIG_KEY, "[]");
    let newest = center.put(CONFIG_KEY, home.config(&[("a.log", "a"), ("b.log", "b")]));
    center.compact();
    center.start_again();
    wait_running(&center, newest);
    broker.expect("b", &["b1"]);
    broker.expect("a", &["a1", "a2", "a3", "a4"]);

    center.expire_leases();
    wait_status(&center, "a new lease", |_| true);
    drop(agent);
}

#[test]
fn the_cached_source_is_reported() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    append(&home.log("a.log"), "a1\n");
    for _ in 0..10 {
        center.put("/something/else", "");
    }
    let revision = center.put(CONFIG_KEY, home.config(&[("a.log", "a")]));
    let agent = home.start();
    wait_running(&center, revision);
    support::wait_until("the cache", || home.data("config.cache").exists());
    assert_eq!(agent.terminate(), Some(0));
    broker.expect("a", &["a1"]);
    // The same cluster, but behind: as after a restore from a backup.
    center.wipe(7);
    center.put(CONFIG_KEY, "[]");
    let agent = home.start();
    let status = wait_status(&center, "source cache", |status| {
        status.config_source == ConfigSource::Cache && status.running.is_some()
    });
    assert_eq!(status.running.unwrap().revision, revision);
    agent.wait_log("restored from a backup");
    append(&home.log("a.log"), "a2\n");
    broker.expect("a", &["a1", "a2"]);
    // Another cluster counts anew.
    center.wipe(8);
    let other = center.put(CONFIG_KEY, "[]");
    assert!(wait_running(&center, other).entries.is_empty());
}

#[test]
fn no_center_and_no_cache_is_waited_for() {
    let (mut center, mut broker) = (Center::stopped(), Broker::start());
    let home = Home::new(&center, &broker);
    append(&home.log("a.log"), "a1\n");
    let mut agent = home.start();
    agent.wait_log("waiting for it");
    assert!(agent.is_running());
    center.put(CONFIG_KEY, home.config(&[("a.log", "a")]));
    center.start_again();
    broker.expect("a", &["a1"]);
    assert_eq!(
        agent.log_text().matches("cannot be followed").count(),
        1,
        "said once"
    );
}

#[test]
fn bad_values_keep_what_runs() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    append(&home.log("a.log"), "0\n");
    let good = center.put(CONFIG_KEY, home.config(&[("a.log", "t")]));
    let _agent = home.start();
    wait_running(&center, good);
    let huge = format!("[{}]", " ".repeat(5 * 1024 * 1024));
    let mut expected = vec!["0".to_owned()];
    for (number, bad) in ["sample_value", "{", r#"{"path":"x"}"#, &huge, "\0"]
        .iter()
        .enumerate()
    {
        let revision = center.put(CONFIG_KEY, bad);
        let status = wait_status(&center, "a rejection", |status| {
            status
                .last_attempt
                .as_ref()
                .is_some_and(|attempt| attempt.revision == revision)
        });
        let attempt = status.last_attempt.unwrap();
        assert_eq!(attempt.result, AttemptResult::Rejected);
        assert!(!attempt.errors.is_empty());
        assert_eq!(status.running.unwrap().revision, good);
        assert_eq!(status.desired_seen.unwrap().revision, revision);
        append(&home.log("a.log"), format!("{number}\n"));
        expected.push(number.to_string());
        broker.expect("t", &expected);
    }
    // Entries that are bad alone: the good one runs.
    let mixed = home.config(&[("a.log", "t")]);
    let mixed = format!(
        "{},[1],null,{{\"path\":\"/a\"}},{{\"path\":\"/a\",\"topic\":\"a b\"}}]",
        mixed.trim_end_matches(']')
    );
    let revision = center.put(CONFIG_KEY, mixed);
    let status = wait_running(&center, revision);
    let attempt = status.last_attempt.unwrap();
    assert_eq!(attempt.result, AttemptResult::PartlyApplied);
    let indexes: Vec<_> = attempt
        .errors
        .iter()
        .map(|problem| problem.index.unwrap())
        .collect();
    assert_eq!(indexes, [1, 2, 3, 4]);
    // Values that ask for nothing.
    for empty in ["", "[]"] {
        let revision = center.put(CONFIG_KEY, empty);
        assert!(wait_running(&center, revision).entries.is_empty());
        let revision = center.put(CONFIG_KEY, home.config(&[("a.log", "t")]));
        wait_running(&center, revision);
    }
    append(&home.log("a.log"), "end\n");
    expected.push("end".to_owned());
    broker.expect("t", &expected);
}

#[test]
fn paths_outside_are_refused_alone_and_permission_heals() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    append(&home.log("good.log"), "g1\n");
    append(&home.path().join("secret"), "s1\n");
    std::os::unix::fs::symlink(home.path().join("secret"), home.log("link.log")).unwrap();
    std::fs::create_dir(home.log("dir.log")).unwrap();
    let names = ["good.log", "link.log", "dir.log", "../secret"];
    let entries: Vec<_> = names.iter().map(|name| (*name, "t")).collect();
    center.put(CONFIG_KEY, home.config(&entries));
    let _agent = home.start();
    broker.expect("t", &["g1"]);
    let status = wait_status(&center, "two failing entries", |status| {
        status
            .entries
            .iter()
            .filter(|entry| entry.state == EntryState::Failing)
            .count()
            == 2
    });
    let error = |name: &str| {
        let found = status
            .entries
            .iter()
            .find(|entry| entry.path.ends_with(name))
            .unwrap();
        found.error.clone().unwrap()
    };
    assert!(error("link.log").contains("allow"), "{}", error("link.log"));
    assert!(
        error("dir.log").contains("directory"),
        "{}",
        error("dir.log")
    );
    // What was refused is tried again.
    std::fs::remove_file(home.log("link.log")).unwrap();
    append(&home.log("link.log"), "l1\n");
    broker.expect("t", &["g1", "l1"]);
}

#[test]
fn a_topic_that_is_unknown_holds_only_its_entry() {
    let (center, mut broker) = (Center::start(), Broker::start());
    broker.cluster.create_topic("good", 1, 1).unwrap();
    broker.cluster.create_topic("bad", 1, 1).unwrap();
    let unknown = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    broker.cluster.topic_error("bad", unknown).unwrap();
    let mut home = Home::new(&center, &broker);
    home.yaml = home
        .yaml
        .replace("200 }", "200, topic.metadata.propagation.max.ms: 100 }");
    append(&home.log("bad.log"), text_of(&numbered("b", 0..1_000)));
    append(&home.log("good.log"), "g1\n");
    center.put(
        CONFIG_KEY,
        home.config(&[("bad.log", "bad"), ("good.log", "good")]),
    );
    let _agent = home.start();
    let status = wait_status(&center, "a failing entry", |status| {
        status
            .entries
            .iter()
            .any(|e| e.topic == "bad" && e.error.is_some())
            && status.totals.delivery_errors > 0
    });
    assert!(
        status.entries[0]
            .error
            .as_ref()
            .unwrap()
            .to_lowercase()
            .contains("topic")
    );
    append(&home.log("good.log"), "g2\n");
    broker.expect("good", &["g1", "g2"]);
    let fine = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    broker.cluster.topic_error("bad", fine).unwrap();
    let lines = broker.wait_lines("bad", 1_000);
    assert!(
        lines == numbered("b", 0..1_000),
        "lost, doubled or reordered"
    );
    wait_status(&center, "recovered", |s| {
        s.entries.iter().all(|e| e.error.is_none())
    });
}

#[test]
fn a_damaged_checkpoint_sends_again_and_says_so() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    append(&home.log("a.log"), "1\n");
    center.put(CONFIG_KEY, home.config(&[("a.log", "t")]));
    let agent = home.start();
    broker.expect("t", &["1"]);
    assert_eq!(agent.terminate(), Some(0));
    for name in ["checkpoint", "checkpoint.previous"] {
        std::fs::write(home.data(name), [0; 512]).unwrap();
    }
    let agent = home.start();
    broker.expect("t", &["1", "1"]);
    wait_status(&center, "a warning", |s| {
        s.warnings.iter().any(|w| w.contains("checkpoint"))
    });
    assert_eq!(agent.terminate(), Some(0));
    let _agent = home.start();
    append(&home.log("a.log"), "2\n");
    broker.expect("t", &["1", "1", "2"]);
}

#[test]
fn a_data_folder_that_cannot_be_written_stops_nothing() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    append(&home.log("a.log"), "1\n");
    center.put(CONFIG_KEY, home.config(&[("a.log", "t")]));
    let agent = home.start();
    broker.expect("t", &["1"]);
    wait_status(&center, "no warning", |s| {
        s.totals.lines_acked == 1 && s.warnings.is_empty()
    });
    // A file in the folder's place refuses every write, as a full disk does.
    let (data, away) = (home.path().join("data"), home.path().join("away"));
    std::fs::rename(&data, &away).unwrap();
    std::fs::write(&data, "").unwrap();
    append(&home.log("a.log"), "2\n");
    broker.expect("t", &["1", "2"]);
    wait_status(&center, "a warning", |s| {
        s.warnings
            .iter()
            .any(|w| w.contains("cannot write the checkpoint"))
    });
    append(&home.log("a.log"), "3\n");
    broker.expect("t", &["1", "2", "3"]);
    std::fs::remove_file(&data).unwrap();
    std::fs::rename(&away, &data).unwrap();
    wait_status(&center, "no warning any more", |s| s.warnings.is_empty());
    assert_eq!(agent.terminate(), Some(0));
    append(&home.log("a.log"), "4\n");
    let _agent = home.start();
    broker.expect("t", &["1", "2", "3", "4"]);
}

#[test]
fn what_cannot_start_says_one_line() {
    let mut home = Home::with("http://127.0.0.1:1", "127.0.0.1:1");
    let check = |home: &Home, arguments: &[&str], words: &str| {
        let output = home.run_to_end(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{words}: {text}");
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("logagent: "))
            .collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert!(lines[0].contains(words), "{text}");
    };
    check(&home, &["--no-such-flag"], "--no-such-flag");
    check(&home, &["--kafka", "linger.mz=1"], "linger.mz");
    check(&home, &["--etcd-endpoints", "ftp://x"], "ftp://x");
    check(&home, &["--data-dir", "/proc/nowhere"], "/proc/nowhere");
    check(&home, &["--key", "/x/{nobody}"], "{nobody}");
    let good = home.yaml.clone();
    home.yaml.push_str("alow: [/x]\n");
    check(&home, &[], "line 7");
    home.yaml = good;
    let mut first = home.start();
    first.wait_log("logagent starts");
    support::wait_until("the lock", || home.data("lock").exists());
    support::wait_until("a second agent to be refused", || {
        let output = home.run_to_end(&["--no-such-flag"]);
        !output.status.success()
    });
    check(&home, &[], "another logagent");
    assert!(first.is_running());
    let output = home.run_to_end(&["--version"]);
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .starts_with("logagent "),
        "{HOST}"
    );
}
