//! The program itself: exit codes, first lines, signals.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_config-center");

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD_")) {
        command.env_remove(name);
    }
    command.output().unwrap()
}

/// A running program that dies with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start(folder: &tempfile::TempDir, url: &str) -> (Running, Vec<String>) {
    let mut child = Command::new(PROGRAM)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .args(["--listen-client-urls", url])
        .args(["--listen-peer-urls", "http://127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "ended before it was ready: {lines:?}"
        );
        let ready = line.contains("ready to serve client requests");
        lines.push(line);
        if ready {
            break;
        }
    }
    child.stderr = Some(log.into_inner());
    (Running(child), lines)
}

fn port_of(lines: &[String]) -> String {
    let line = lines.last().unwrap();
    line.rsplit("127.0.0.1:").next().unwrap().trim().to_owned()
}

#[test]
fn the_version_begins_with_etcds_line() {
    let output = run(&["--version"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("etcd Version: 3.7.1"));
    assert!(lines.next().unwrap().starts_with("config-center Version: "));
}

#[test]
fn bad_flags_are_one_line_and_exit_code_two() {
    for (arguments, expected) in [
        (vec!["--nmae", "x"], "did you mean --name?"),
        (vec!["--cert-file", "x"], "it needs --key-file as well"),
        (
            vec!["--listen-client-urls", "nonsense"],
            "must begin with http://",
        ),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_taken_port_and_a_locked_folder_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let (_running, lines) = start(&folder, "http://127.0.0.1:0");
    let url = format!("http://127.0.0.1:{}", port_of(&lines));
    let elsewhere = tempfile::tempdir().unwrap();
    let other_folder = elsewhere.path().join("data");
    let taken = run(&[
        "--data-dir",
        other_folder.to_str().unwrap(),
        "--listen-client-urls",
        &url,
        "--listen-peer-urls",
        "http://127.0.0.1:0",
    ]);
    assert_eq!(taken.status.code(), Some(1));
    let text = String::from_utf8(taken.stderr).unwrap();
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    assert!(
        errors[0].contains(&port_of(&lines)) && errors[0].contains("another process"),
        "{text}"
    );
    assert!(
        !other_folder.exists(),
        "a taken port must not leave a data folder behind"
    );

    let folder = folder.path().join("data");
    let locked = run(&[
        "--data-dir",
        folder.to_str().unwrap(),
        "--listen-client-urls",
        "http://127.0.0.1:0",
        "--listen-peer-urls",
        "http://127.0.0.1:0",
    ]);
    assert_eq!(locked.status.code(), Some(1));
    let text = String::from_utf8(locked.stderr).unwrap();
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    assert!(errors[0].contains(folder.to_str().unwrap()), "{text}");
}

#[test]
fn sigterm_stops_it_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (mut running, _) = start(&folder, "http://127.0.0.1:0");
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut rest = String::new();
    running
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut rest)
        .unwrap();
    let status = running.0.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{rest}");
    assert!(
        rest.contains("SIGTERM") && rest.contains("stopped"),
        "{rest}"
    );
}
