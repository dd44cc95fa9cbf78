//! From a put in the center to lines in Kafka: starting, reloading, rotating, restarting.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a panic with a place"
)]

mod support;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use schemas::fleet::{AttemptResult, ConfigSource, EntryState};
use support::agent::{
    CONFIG_KEY, HOST, Home, append, appender, numbered, text_of, wait_running, wait_status,
};
use support::broker::Broker;
use support::center::Center;
use support::wait_until;

#[test]
fn lines_arrive_and_the_status_says_so() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    append(&home.log("access.log"), "one\ntwo\r\n\nhalf");
    let value = home.config(&[("access.log", "nginx_log")]);
    let revision = center.put(CONFIG_KEY, &value);
    let agent = home.start();

    broker.expect("nginx_log", &["one", "two\r", ""]);
    let key = format!("{HOST}:{}", home.log("access.log").display());
    assert!(
        broker
            .records("nginx_log")
            .iter()
            .all(|record| record.key == key)
    );
    append(&home.log("access.log"), " line\nthree\n");
    broker.expect("nginx_log", &["one", "two\r", "", "half line", "three"]);

    let status = wait_status(&center, "5 lines acknowledged", |s| {
        s.totals.lines_acked == 5
    });
    let running = status.running.unwrap();
    assert_eq!(running.revision, revision);
    assert_eq!(
        running.sha256,
        logagent::durable::sha256_hex(value.as_bytes())
    );
    assert_eq!(status.desired_seen.unwrap().sha256, running.sha256);
    assert_eq!(status.last_attempt.unwrap().result, AttemptResult::Applied);
    assert_eq!(status.config_source, ConfigSource::Center);
    assert_eq!(status.entries.len(), 1);
    assert_eq!(status.entries[0].state, EntryState::Running);
    let file = &status.files[0];
    assert_eq!((file.acked_offset, file.lag_bytes), (file.size_bytes, 0));

    assert_eq!(agent.terminate(), Some(0));
    assert!(
        center.status(HOST).is_none(),
        "the lease is revoked at the end"
    );
}

#[test]
fn a_reload_touches_nothing_else() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    append(&home.log("a.log"), "a1\n");
    append(&home.log("b.log"), "b1\n");
    center.put(CONFIG_KEY, home.config(&[("a.log", "a")]));
    let _agent = home.start();
    broker.expect("a", &["a1"]);

    let both = center.put(CONFIG_KEY, home.config(&[("b.log", "b"), ("a.log", "a")]));
    broker.expect("b", &["b1"]);
    wait_running(&center, both);
    append(&home.log("a.log"), "a2\n");
    broker.expect("a", &["a1", "a2"]);
    let status = wait_status(&center, "both lines of a", |status| {
        status
            .entries
            .iter()
            .any(|entry| entry.topic == "a" && entry.lines_acked == 2)
    });
    assert_eq!(status.entries[0].topic, "b", "in the order of the config");

    // Removed, then asked for again: it goes on where it was stopped.
    let without = center.put(CONFIG_KEY, home.config(&[("b.log", "b")]));
    wait_running(&center, without);
    append(&home.log("a.log"), "a3\n");
    center.put(CONFIG_KEY, home.config(&[("b.log", "b"), ("a.log", "a")]));
    broker.expect("a", &["a1", "a2", "a3"]);

    let none = center.delete(CONFIG_KEY);
    assert!(wait_running(&center, none).entries.is_empty());
    append(&home.log("b.log"), "b2\n");
    center.put(CONFIG_KEY, home.config(&[("b.log", "b")]));
    broker.expect("b", &["b1", "b2"]);
}

#[test]
fn a_topic_change_puts_each_line_into_one_topic() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    let path = home.log("a.log");
    append(&path, "");
    center.put(CONFIG_KEY, home.config(&[("a.log", "t0")]));
    let _agent = home.start();
    let enough = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let enough = Arc::clone(&enough);
        move || {
            let mut file = appender(&path);
            let mut written = 0;
            while !enough.load(Ordering::Relaxed) {
                let lines = numbered("line", written..written + 10);
                file.write_all(text_of(&lines).as_bytes()).unwrap();
                written += lines.len();
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            written
        }
    });
    let topics = ["t0", "t1", "t2", "t3"];
    for (index, topic) in topics.iter().enumerate() {
        center.put(CONFIG_KEY, home.config(&[("a.log", topic)]));
        broker.wait_lines(topics[index], 100);
    }
    enough.store(true, Ordering::Relaxed);
    let written = writer.join().unwrap();
    wait_until("all lines", || {
        topics
            .iter()
            .map(|topic| broker.lines(topic).len())
            .sum::<usize>()
            >= written
    });
    let all: Vec<String> = topics
        .iter()
        .flat_map(|topic| broker.lines(topic))
        .collect();
    assert!(
        all == numbered("line", 0..written),
        "lost, doubled or reordered"
    );
}

#[test]
fn rotation_and_truncation() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    let path = home.log("a.log");
    append(&path, "1\n");
    center.put(CONFIG_KEY, home.config(&[("a.log", "t")]));
    let _agent = home.start();
    broker.expect("t", &["1"]);

    let mut old = appender(&path);
    std::fs::rename(&path, home.log("a.log.1")).unwrap();
    old.write_all(b"2\n").unwrap();
    append(&path, "4\n");
    broker.wait_lines("t", 2);
    old.write_all(b"3\n").unwrap();
    let mut lines = broker.wait_lines("t", 4);
    assert_eq!(lines[..2], ["1", "2"]);
    lines.sort();
    assert_eq!(lines, ["1", "2", "3", "4"]);

    std::fs::write(&path, "5\n").unwrap();
    append(&path, "6\n");
    lines.extend(["5".to_owned(), "6".to_owned()]);
    let mut now = broker.wait_lines("t", 6);
    now.sort();
    assert_eq!(now, lines);

    std::fs::remove_file(&path).unwrap();
    wait_status(&center, "waiting", |s| {
        s.entries[0].state == EntryState::Waiting
    });
    append(&path, "7\n");
    let now = broker.wait_lines("t", 7);
    assert_eq!(now[6], "7");
}

#[test]
fn a_directory_made_later_is_found() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    center.put(CONFIG_KEY, home.config(&[("x/y/z.log", "t")]));
    let _agent = home.start();
    wait_status(&center, "waiting", |s| {
        s.entries
            .first()
            .is_some_and(|entry| entry.state == EntryState::Waiting)
    });
    std::fs::create_dir_all(home.log("x/y")).unwrap();
    append(&home.log("x/y/z.log"), "1\n");
    broker.expect("t", &["1"]);
    append(&home.log("x/y/z.log"), "2\n");
    broker.expect("t", &["1", "2"]);
}

#[test]
fn after_an_orderly_stop_nothing_is_sent_twice() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    let path = home.log("a.log");
    center.put(CONFIG_KEY, home.config(&[("a.log", "t")]));
    let mut file = appender(&path);
    let mut written = 0;
    for round in 0..5 {
        let agent = home.start();
        for _ in 0..10 {
            let lines = numbered("line", written..written + 500);
            file.write_all(text_of(&lines).as_bytes()).unwrap();
            written += 500;
        }
        // Stopped in the middle of it, not after it.
        broker.wait_lines("t", written - 4_000);
        assert_eq!(agent.terminate(), Some(0), "round {round}");
        // Rotated while nobody looks.
        if round == 2 {
            std::fs::rename(&path, home.log("a.log.1")).unwrap();
            file = appender(&path);
        }
    }
    let _agent = home.start();
    let lines = broker.wait_lines("t", written);
    assert!(
        lines == numbered("line", 0..written),
        "lost, doubled or reordered"
    );
}

#[test]
fn after_kills_nothing_is_missing() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    let path = home.log("a.log");
    center.put(CONFIG_KEY, home.config(&[("a.log", "t")]));
    let mut file = appender(&path);
    let mut written = 0;
    for round in 0..8 {
        let agent = home.start();
        let lines = numbered("line", written..written + 3_000);
        file.write_all(text_of(&lines).as_bytes()).unwrap();
        written += lines.len();
        let before = broker.lines("t").len();
        broker.wait_lines("t", before + 100 * round);
        agent.kill();
    }
    let _agent = home.start();
    let last = format!("line {}", written - 1);
    wait_until("the last line", || broker.lines("t").contains(&last));
    let mut seen = std::collections::HashSet::new();
    let mut lines = broker.lines("t");
    lines.retain(|line| seen.insert(line.clone()));
    assert!(lines == numbered("line", 0..written), "lost or reordered");
}

#[test]
fn the_files_of_a_pattern_come_and_go() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    std::fs::create_dir_all(home.log("app/one")).unwrap();
    append(&home.log("app/one/a.log"), "a1\n");
    append(&home.log("app/one/a.log.1"), "old\n");
    append(&home.log("app/debug.log"), "d1\n");
    let entry = |topic: &str| {
        serde_json::json!([{
            "path": home.log("app/**/*.log*"), "topic": topic, "exclude": ["debug*"],
        }])
        .to_string()
    };
    center.put(CONFIG_KEY, entry("t"));
    let agent = home.start();
    broker.expect("t", &["a1"]);
    // A directory that comes later, three levels deep, with content.
    std::fs::create_dir_all(home.log("app/two/x/y")).unwrap();
    append(&home.log("app/two/x/y/b.log"), "b1\n");
    broker.expect("t", &["a1", "b1"]);
    let key = format!("{HOST}:{}", home.log("app/two/x/y/b.log").display());
    assert_eq!(broker.records("t")[1].key, key);
    // Rotated under the pattern: the old file is not another one.
    std::fs::rename(home.log("app/one/a.log.1"), home.log("app/one/a.log.2")).unwrap();
    std::fs::rename(home.log("app/one/a.log"), home.log("app/one/a.log.1")).unwrap();
    append(&home.log("app/one/a.log"), "a2\n");
    broker.expect("t", &["a1", "b1", "a2"]);
    // One entry in the status, with the lines of all its files.
    let status = wait_status(&center, "3 lines of one entry", |s| {
        s.entries.len() == 1 && s.entries[0].lines_acked == 3
    });
    assert_eq!(status.entries[0].state, EntryState::Running);
    assert!(status.entries[0].path.ends_with("app/**/*.log*"));
    // After a restart nothing is sent again; what was rotated meanwhile is.
    assert_eq!(agent.terminate(), Some(0));
    append(&home.log("app/one/a.log"), "a3\n");
    std::fs::rename(home.log("app/one/a.log"), home.log("app/one/a.log.0")).unwrap();
    append(&home.log("app/two/x/y/b.log"), "b2\n");
    let _agent = home.start();
    let mut lines = broker.wait_lines("t", 5);
    lines.sort();
    assert_eq!(lines, ["a1", "a2", "a3", "b1", "b2"]);
    // Another topic takes over where each file is.
    let revision = center.put(CONFIG_KEY, entry("u"));
    wait_running(&center, revision);
    append(&home.log("app/two/x/y/b.log"), "b3\n");
    broker.expect("u", &["b3"]);
    // A file that is gone is let go.
    std::fs::remove_file(home.log("app/two/x/y/b.log")).unwrap();
    append(&home.log("app/c.log"), "c1\n");
    broker.expect("u", &["b3", "c1"]);
    assert_eq!(broker.lines("t").len(), 5);
}

#[test]
fn keys_headers_and_empty_lines_are_as_asked() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    append(&home.log("a.log"), "1\n\n2\n");
    let value = serde_json::json!([{
        "path": home.log("a.log"), "topic": "t", "skip_empty": true, "key": "k-{host}",
        "headers": { "team": "shop" }, "service": "web",
    }]);
    center.put(CONFIG_KEY, value.to_string());
    let agent = home.start();
    broker.expect("t", &["1", "2"]);
    for record in broker.records("t") {
        assert_eq!(record.key, format!("k-{HOST}"));
        assert_eq!(record.headers, ["team=shop", "service=web"]);
    }
    // Only empty lines: they are acknowledged all the same, also over a restart.
    append(&home.log("a.log"), "\n\n");
    wait_status(&center, "nothing waiting", |status| {
        status
            .files
            .first()
            .is_some_and(|file| file.size_bytes == 7 && file.lag_bytes == 0)
    });
    assert_eq!(agent.terminate(), Some(0));
    // A changed option goes on where the entry was.
    center.put(CONFIG_KEY, home.config(&[("a.log", "t")]));
    let _agent = home.start();
    append(&home.log("a.log"), "\n3\n");
    broker.expect("t", &["1", "2", "", "3"]);
    assert_eq!(broker.records("t")[3].headers, [] as [&str; 0]);
}
