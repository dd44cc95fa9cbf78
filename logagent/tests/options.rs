//! What the options of an entry make of its lines, from the file to the topic.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a panic with a place"
)]

mod support;

use std::io::Write as _;
use std::time::{Duration, Instant};

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use schemas::fleet::EntryState;
use serde_json::{Value, json};
use support::agent::{
    CONFIG_KEY, HOST, Home, append, appender, numbered, text_of, wait_running, wait_status,
};
use support::broker::Broker;
use support::center::Center;

/// One entry of the config value: the file, the topic and options.
fn entry(home: &Home, name: &str, topic: &str, options: Value) -> Value {
    let mut entry = json!({ "path": home.log(name), "topic": topic });
    let fields = entry.as_object_mut().unwrap();
    fields.extend(options.as_object().unwrap().clone());
    entry
}

fn with_letters(home: &mut Home) {
    home.yaml.push_str("dead_letter_topic: letters\n");
}

fn header<'a>(headers: &'a [String], name: &str) -> &'a str {
    let begin = format!("{name}=");
    let found = headers.iter().find_map(|text| text.strip_prefix(&begin));
    found.unwrap_or_else(|| panic!("no {name} in {headers:?}"))
}

#[test]
fn joined_lines_over_rotation_restart_and_timeout() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    let path = home.log("a.log");
    let multiline = json!({ "multiline": { "start": "^[0-9]", "timeout_ms": 300 } });
    center.put(
        CONFIG_KEY,
        json!([entry(&home, "a.log", "t", multiline)]).to_string(),
    );
    append(&path, "1 error\n  at x\n  at y\n2 fine\n3 half");
    let agent = home.start();
    // What is complete by what follows it comes at once, the last one after its timeout.
    broker.expect("t", &["1 error\n  at x\n  at y", "2 fine"]);
    append(&path, " line\n");
    broker.expect("t", &["1 error\n  at x\n  at y", "2 fine", "3 half line"]);

    // Killed with a group that is not complete: it is read again from its beginning.
    let multiline = json!({ "multiline": { "start": "^[0-9]", "timeout_ms": 600_000 } });
    let revision = center.put(
        CONFIG_KEY,
        json!([entry(&home, "a.log", "t", multiline)]).to_string(),
    );
    wait_running(&center, revision);
    append(&path, "4 error\n  at x\n");
    wait_status(&center, "the group read", |status| {
        status
            .files
            .first()
            .is_some_and(|file| file.lag_bytes == 15)
    });
    agent.kill();
    append(&path, "  at y\n");
    let agent = home.start();
    // Rotated with an open group: the writer goes on with its descriptor.
    let mut old = appender(&path);
    std::fs::rename(&path, home.log("a.log.1")).unwrap();
    old.write_all(b"  at z\n5 end\n").unwrap();
    let want = [
        "1 error\n  at x\n  at y",
        "2 fine",
        "3 half line",
        "4 error\n  at x\n  at y\n  at z",
    ];
    broker.expect("t", &want);
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn other_encodings_become_utf8() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    // Its bytes would be U+0A4E in UTF-16: the byte 10 is half of a character.
    let text = "日志一 \u{a4e}\u{4e0a}\r\n\n中文 end\n";
    let utf16 = |to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        let marked = format!("\u{feff}{text}");
        marked.encode_utf16().flat_map(to_bytes).collect()
    };
    append(&home.log("le.log"), utf16(u16::to_le_bytes));
    append(&home.log("be.log"), utf16(u16::to_be_bytes));
    let (gbk, _, _) = encoding_rs::GB18030.encode(text);
    append(&home.log("gb.log"), &gbk);
    let value = json!([
        entry(&home, "le.log", "le", json!({ "encoding": "utf-16le" })),
        entry(&home, "be.log", "be", json!({ "encoding": "UTF-16BE" })),
        entry(&home, "gb.log", "gb", json!({ "encoding": "gb18030" })),
    ]);
    center.put(CONFIG_KEY, value.to_string());
    let _agent = home.start();
    for topic in ["le", "be", "gb"] {
        broker.expect(topic, &["日志一 \u{a4e}\u{4e0a}\r", "", "中文 end"]);
    }
    // A line that comes in halves of its characters.
    let more: Vec<u8> = "更多\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    append(&home.log("le.log"), &more[..3]);
    append(&home.log("le.log"), &more[3..]);
    broker.wait_lines("le", 4);
    assert_eq!(broker.lines("le")[3], "更多");
}

#[test]
fn long_lines_are_cut_or_dead_letters_and_neighbours_arrive() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let mut home = Home::new(&center, &broker);
    let long = "x".repeat(3_000_000);
    for name in ["cut.log", "letter.log", "split.log"] {
        append(&home.log(name), format!("before\n{long}\nafter\n"));
    }
    let limit = 100_000;
    let options = |policy: &str| json!({ "on_long_line": policy, "max_line_bytes": limit });
    let value = json!([
        entry(&home, "cut.log", "cut", options("truncate")),
        entry(&home, "letter.log", "letter", options("dead_letter")),
        entry(&home, "split.log", "split", options("split")),
    ]);
    center.put(CONFIG_KEY, value.to_string());
    // Without a topic for dead letters the entry that asks for it is refused, alone.
    let agent = home.start();
    broker.expect("cut", &["before", &long[..limit], "after"]);
    let status = wait_status(&center, "a rejected entry", |status| {
        status
            .entries
            .iter()
            .any(|entry| entry.state == EntryState::Rejected)
    });
    let problem = &status.last_attempt.unwrap().errors[0];
    assert_eq!(
        (problem.index, problem.field.as_deref()),
        (Some(1), Some("on_long_line"))
    );
    assert_eq!(agent.terminate(), Some(0));

    with_letters(&mut home);
    let _agent = home.start();
    broker.expect("letter", &["before", "after"]);
    broker.expect("letters", &[&long[..limit]]);
    let headers = broker.records("letters")[0].headers.clone();
    assert!(header(&headers, "reason").contains("3000000 bytes"));
    assert_eq!(header(&headers, "offset"), "7");
    assert_eq!(header(&headers, "bytes"), "3000000");
    assert_eq!(header(&headers, "topic"), "letter");
    assert!(header(&headers, "path").ends_with("letter.log"));
    let pieces = broker.wait_lines("split", 32);
    assert_eq!(pieces.len(), 32);
    assert_eq!(pieces.concat(), format!("before{long}after"));
    let status = wait_status(&center, "one dead letter", |s| s.totals.dead_letters == 1);
    assert_eq!(status.totals.lost_bytes, 0);
    // Everything is acknowledged: nothing is sent again.
    wait_status(&center, "no lag", |s| {
        s.files.iter().all(|file| file.lag_bytes == 0)
    });
}

#[test]
fn a_record_refused_for_good_is_a_dead_letter_and_the_others_arrive() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let mut home = Home::new(&center, &broker);
    with_letters(&mut home);
    broker.cluster.create_topic("t", 1, 1).unwrap();
    broker.cluster.create_topic("letters", 1, 1).unwrap();
    // The batch, then twice the one line of it that is sent alone first.
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    broker
        .cluster
        .request_errors(RDKafkaApiKey::Produce, &[too_large; 3]);
    append(&home.log("a.log"), "1\n2\n3\n");
    center.put(CONFIG_KEY, home.config(&[("a.log", "t")]));
    let agent = home.start();
    broker.expect("letters", &["1"]);
    broker.expect("t", &["2", "3"]);
    let headers = broker.records("letters")[0].headers.clone();
    assert!(
        header(&headers, "reason").starts_with("Kafka: "),
        "{headers:?}"
    );
    assert_eq!(header(&headers, "offset"), "0");
    let status = wait_status(&center, "no lag", |status| {
        status
            .files
            .first()
            .is_some_and(|file| file.lag_bytes == 0 && file.size_bytes == 6)
    });
    assert_eq!(
        (status.totals.dead_letters, status.totals.lines_acked),
        (1, 3)
    );
    append(&home.log("a.log"), "4\n");
    broker.expect("t", &["2", "3", "4"]);
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn without_a_topic_for_dead_letters_the_ledger_has_them() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let mut home = Home::new(&center, &broker);
    home.yaml = home.yaml.replace("200 }", "200, message.max.bytes: 2000 }");
    // Each control character has six in JSON: more than the producer takes.
    append(
        &home.log("a.log"),
        format!("1\n{}\n3\n", "\u{1}".repeat(450)),
    );
    center.put(
        CONFIG_KEY,
        json!([entry(&home, "a.log", "t", json!({ "format": "json" }))]).to_string(),
    );
    let _agent = home.start();
    let values = broker.wait_lines("t", 2);
    let messages: Vec<Value> = values
        .iter()
        .map(|v| serde_json::from_str(v).unwrap())
        .collect();
    assert_eq!(
        (&messages[0]["message"], &messages[1]["message"]),
        (&json!("1"), &json!("3"))
    );
    let status = wait_status(&center, "a loss", |status| status.losses.len() == 1);
    let loss = &status.losses[0];
    assert_eq!((loss.from_offset, loss.to_offset), (2, 453));
    assert!(loss.reason.contains("dead_letter_topic"), "{}", loss.reason);
}

#[test]
fn the_envelope_says_where_a_line_is_from() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    append(&home.log("a.log"), "one\nsay \"two\"\n");
    let value = json!([entry(&home, "a.log", "t", json!({ "format": "json" }))]);
    center.put(CONFIG_KEY, value.to_string());
    let _agent = home.start();
    let values = broker.wait_lines("t", 2);
    let second: Value = serde_json::from_str(&values[1]).unwrap();
    assert_eq!(second["host"], HOST);
    assert_eq!(second["path"], home.log("a.log").to_str().unwrap());
    assert_eq!(second["offset"], 4);
    assert_eq!(second["message"], "say \"two\"");
    assert!(second["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_rate_delays_and_loses_nothing() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    let path = home.log("a.log");
    append(&path, text_of(&numbered("line", 0..150)));
    append(&home.log("b.log"), "free\n");
    let rate = json!({ "rate": { "lines_per_s": 100, "burst": 20 } });
    let value = json!([
        entry(&home, "a.log", "t", rate),
        entry(&home, "b.log", "u", json!({}))
    ]);
    center.put(CONFIG_KEY, value.to_string());
    let began = Instant::now();
    let _agent = home.start();
    broker.wait_lines("t", 1);
    // A rotation is seen while lines wait, and another entry does not wait.
    std::fs::rename(&path, home.log("a.log.1")).unwrap();
    append(&path, text_of(&numbered("line", 150..200)));
    broker.expect("u", &["free"]);
    broker.expect("t", &numbered("line", 0..200));
    // 180 lines beyond the burst: a lower bound, which a slow machine cannot break.
    assert!(
        began.elapsed() >= Duration::from_millis(1_790),
        "{:?}",
        began.elapsed()
    );
}
