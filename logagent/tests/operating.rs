//! What an operator on the host sees: commands, metrics, health, losses, a second agent.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a panic with a place"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Output;

use schemas::fleet::{AgentStatus, EntryState};
use support::agent::{
    Agent, CONFIG_KEY, HOST, Home, append, numbered, text_of, wait_running, wait_status,
};
use support::broker::Broker;
use support::center::Center;
use support::wait_until;

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(both).unwrap()
}

/// Status code and body.
fn http(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}

/// Where the agent listens, as its log says.
fn listens_at(agent: &Agent) -> SocketAddr {
    support::wait_for("the listener", || {
        let log = agent.log_text();
        let (_, rest) = log.split_once("/status address=")?;
        rest.split_whitespace().next()?.parse().ok()
    })
}

#[test]
fn the_host_asks_its_agent() {
    let (center, mut broker) = (Center::start(), Broker::start());
    let mut home = Home::new(&center, &broker);
    home.yaml.push_str("listen: 127.0.0.1:0\n");
    assert_eq!(home.ask(&["status"]).status.code(), Some(4));
    append(&home.log("a.log"), "1\n2\nhalf");
    let agent = home.start();
    let address = listens_at(&agent);
    assert_eq!(http(address, "/livez").unwrap().0, 200);
    // An empty key is a configuration, too.
    wait_until("ready", || http(address, "/readyz").unwrap().0 == 200);
    let revision = center.put(CONFIG_KEY, home.config(&[("a.log", "t")]));
    wait_running(&center, revision);
    broker.expect("t", &["1", "2"]);
    wait_status(&center, "2 lines", |s| s.totals.lines_acked == 2);

    let (code, metrics) = http(address, "/metrics").unwrap();
    assert_eq!(code, 200);
    let path = home.log("a.log").display().to_string();
    for line in [
        format!("logagent_entry_lines_acked_total{{path=\"{path}\",topic=\"t\"}} 2"),
        format!("logagent_entry_lag_bytes{{path=\"{path}\",topic=\"t\"}} 4"),
        format!("logagent_config_running_revision {revision}"),
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} in\n{metrics}"
        );
    }
    assert_eq!(http(address, "/nowhere").unwrap().0, 404);

    let output = home.ask(&["status", "-o", "json"]);
    let status: AgentStatus = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{status:#?}");
    let file = &status.files[0];
    assert_eq!(
        (file.acked_offset, file.size_bytes, file.lag_bytes),
        (4, 8, 4)
    );
    assert!(file.last_ack_ms.is_some() && status.in_flight.max_bytes > 0);
    let output = home.ask(&["status"]);
    assert!(text(&output).contains(&path), "{}", text(&output));

    // An entry in trouble is an exit code, and the reason is told.
    std::fs::create_dir(home.log("dir.log")).unwrap();
    center.put(CONFIG_KEY, home.config(&[("a.log", "t"), ("dir.log", "d")]));
    wait_status(&center, "a failing entry", |s| {
        s.entries.iter().any(|e| e.state == EntryState::Failing)
    });
    let output = home.ask(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("directory"), "{}", text(&output));

    // Offsets: read at any time, forgotten only while nobody runs.
    wait_until("the offsets on disk", || {
        text(&home.ask(&["offsets", "list"])).contains("current")
    });
    let output = home.ask(&["offsets", "reset", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("another logagent"),
        "{}",
        text(&output)
    );
    assert_eq!(agent.terminate(), Some(0));
    assert!(!home.data("agent.sock").exists());
    let output = home.ask(&["offsets", "reset", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(
        home.ask(&["offsets", "reset", &path]).status.code(),
        Some(1)
    );
    let _agent = home.start();
    broker.expect("t", &["1", "2", "1", "2"]);
}

#[test]
fn a_value_and_a_path_are_tried_without_an_agent() {
    let home = Home::with("http://127.0.0.1:1", "127.0.0.1:1");
    append(&home.log("a.log"), "first line\n");
    let pattern = home.log("*.log").display().to_string();
    let output = home.ask(&["try", &pattern]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("first line"), "{}", text(&output));
    let missing = home.log("b.log").display().to_string();
    assert_eq!(home.ask(&["try", &missing]).status.code(), Some(1));
    let output = home.ask(&["try", "/etc/passwd"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("allow"), "{}", text(&output));

    let check = |source: &str| home.run_to_end_bare(&["check", source]);
    let output = check(&home.config(&[("a.log", "t")]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let file = home.path().join("value.json");
    std::fs::write(&file, "[\n {\"path\":\"a\", \"topic\":\"t\"}]").unwrap();
    let output = check(&file.display().to_string());
    assert_eq!(output.status.code(), Some(3));
    let place = format!("{}:2:3: error: entry 0: ", file.display());
    assert!(text(&output).starts_with(&place), "{}", text(&output));
}

#[test]
fn what_is_lost_is_told_also_after_a_kill() {
    let (center, mut broker) = (Center::start(), Broker::start());
    broker.cluster.create_topic("t", 1, 1).unwrap();
    broker.cluster.broker_down(-1).unwrap();
    let mut home = Home::new(&center, &broker);
    // Little room, so that most of the file cannot be read while the broker is down.
    home.yaml = home
        .yaml
        .replace("200 }", "200, queue.buffering.max.kbytes: 64 }");
    append(
        &home.log("a.log"),
        text_of(&numbered("a line of some length", 0..50_000)),
    );
    center.put(CONFIG_KEY, home.config(&[("a.log", "t")]));
    let agent = home.start();
    let size = std::fs::metadata(home.log("a.log")).unwrap().len();
    let status = wait_status(&center, "reading paused", |s| {
        s.in_flight.paused_files == 1 && s.files.iter().any(|f| f.size_bytes == size)
    });
    assert!(status.in_flight.bytes >= 64 * 1024, "{status:#?}");
    assert!(status.files[0].read_offset < size, "{status:#?}");
    // Cut to nothing, and there is no copy.
    std::fs::write(home.log("a.log"), "new\n").unwrap();
    broker.cluster.broker_up(-1).unwrap();
    let status = wait_status(&center, "a loss", |s| !s.losses.is_empty());
    let loss = &status.losses[0];
    assert_eq!(loss.to_offset, size, "{loss:?}");
    assert!(
        loss.from_offset > 0 && loss.file == status.files[0].identity,
        "{status:#?}"
    );
    let lines = broker.wait_lines("t", 2);
    wait_until("the ledger", || home.data("losses").exists());
    // Everything before the range arrived, and what came after it.
    support::wait_for("the new line", || {
        broker.lines("t").contains(&"new".to_owned()).then_some(())
    });
    assert_eq!(lines[0], "a line of some length 0");
    agent.kill();
    let _agent = home.start();
    let after = wait_status(&center, "the loss after a kill", |s| {
        !s.losses.is_empty() && s.instance != status.instance
    });
    assert_eq!(after.losses, status.losses);
    assert_eq!(after.totals.lost_bytes, loss.to_offset - loss.from_offset);
    let output = home.ask(&["status"]);
    assert!(text(&output).contains(&loss.reason), "{}", text(&output));
}

#[test]
fn two_agents_under_one_id_are_reported() {
    let (center, broker) = (Center::start(), Broker::start());
    let first = Home::new(&center, &broker);
    let second = Home::new(&center, &broker);
    let revision = center.put(CONFIG_KEY, "[]");
    let agent = first.start();
    assert_eq!(wait_running(&center, revision).conflict, None);
    let other = second.start();
    for agent in [&agent, &other] {
        agent.wait_log("another agent reports under the same key");
    }
    let status = wait_status(&center, "a conflict", |s| s.conflict.is_some());
    assert_ne!(status.conflict.as_ref().unwrap().instance, status.instance);
    assert!(
        status.warnings.iter().any(|w| w.contains("same key")),
        "{status:#?}"
    );
    assert_eq!(first.ask(&["status"]).status.code(), Some(1));
    // The next one alone under the key is no rival of the one before.
    assert_eq!(other.terminate(), Some(0));
    assert_eq!(agent.terminate(), Some(0));
    let third = first.start();
    let status = wait_status(&center, "a new instance", |s| s.instance != status.instance);
    assert_eq!(status.conflict, None, "{HOST}");
    drop(third);
}

/// Descriptors of the process whose target lies below the folder.
fn open_below(pid: u32, folder: &std::path::Path) -> usize {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    open.flatten()
        .filter(|entry| {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            target.starts_with(folder)
        })
        .count()
}

#[test]
fn more_files_than_descriptors() {
    const FILES: usize = 300;
    let (center, mut broker) = (Center::start(), Broker::start());
    let home = Home::new(&center, &broker);
    for number in 0..FILES {
        append(
            &home.log(&format!("{number}.log")),
            format!("first {number}\n"),
        );
    }
    let value = home.config(&[("*.log", "t")]);
    let revision = center.put(CONFIG_KEY, value);
    let agent = home.start_limited(128);
    wait_running(&center, revision);
    broker.wait_lines("t", FILES);
    let folder = home.log("0.log").parent().unwrap().to_owned();
    assert!(open_below(agent.pid(), &folder) <= 64);
    wait_status(&center, "everything acknowledged", |s| {
        s.totals.lines_acked == FILES as u64 && s.entries[0].files == FILES as u64
    });
    // A new line in each, a rotation of some, whether their descriptors were given back or not.
    let rotated = |number: usize| number.is_multiple_of(7);
    for number in 0..FILES {
        let path = home.log(&format!("{number}.log"));
        append(&path, format!("second {number}\n"));
        if rotated(number) {
            std::fs::rename(&path, home.log(&format!("{number}.log.1"))).unwrap();
            append(&path, format!("third {number}\n"));
        }
    }
    let expected = 2 * FILES + (0..FILES).filter(|number| rotated(*number)).count();
    let lines = broker.wait_lines("t", expected);
    assert_eq!(lines.len(), expected);
    for number in 0..FILES {
        let of = |word: &str| {
            let line = format!("{word} {number}");
            lines.iter().position(|found| *found == line)
        };
        assert!(of("first") < of("second"), "{number}");
        assert!(!rotated(number) || of("second") < of("third"), "{number}");
    }
    // What is deleted is let go, so that its space is free again. (The successor of a rotated file
    // is held until that one has been quiet for a minute: its lines come behind.)
    for number in (0..FILES).filter(|number| !rotated(*number)) {
        std::fs::remove_file(home.log(&format!("{number}.log"))).unwrap();
    }
    wait_until("deleted files to be let go", || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap();
        open.flatten().all(|entry| {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            !target.to_string_lossy().ends_with(" (deleted)") || !target.starts_with(&folder)
        })
    });
    assert_eq!(broker.lines("t").len(), expected);
}
