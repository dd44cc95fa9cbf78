//! What neither program can work with ends in one clear line on stderr and a non-zero exit.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use e2e::tools::Output;
use e2e::{Agent, AgentSetup, Center, DEADLINE, agent, binaries, center, ports, wait_until};

/// Runs a program that must end by itself, and checks how it says why.
fn refuses(what: &str, mut command: Command, words: &[&str]) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let [out, err] = ["out", "err"].map(|name| folder.path().join(name));
    command
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out)?)
        .stderr(fs::File::create(&err)?);
    let mut child = command.spawn()?;
    let ended = wait_until(&format!("{what}: the program to end"), DEADLINE, || {
        child.try_wait().ok().flatten()
    });
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let output = Output {
        code: ended?.code(),
        stdout: fs::read_to_string(out)?,
        stderr: fs::read_to_string(err)?,
    };
    assert!(
        output.code.is_some_and(|code| code != 0),
        "{what}: {output:#?}"
    );
    let lines: Vec<_> = output
        .stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        // The log may have begun; what counts is that the reason is one line.
        .filter(|line| !line.contains(" INFO ") && !line.contains(" WARN "))
        .collect();
    assert_eq!(lines.len(), 1, "{what}: one line says why: {output:#?}");
    for word in words {
        assert!(
            lines[0].contains(word),
            "{what}: {word:?} is named: {output:#?}"
        );
    }
    for internal in ["panicked", "RUST_BACKTRACE", "unwrap()", "Os {"] {
        assert!(
            !lines[0].contains(internal),
            "{what}: words for an operator: {output:#?}"
        );
    }
    Ok(())
}

fn center_command(data_dir: &Path) -> anyhow::Result<Command> {
    center::command(data_dir, ports::free_port(), ports::free_port())
}

#[test]
fn config_center_says_why_it_does_not_start() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let command = center::command(&work.path().join("a"), port, ports::free_port())?;
    refuses(
        "client port in use",
        command,
        &[&port.to_string(), "in use"],
    )?;

    let running = Center::start(work.path())?;
    let folder = running.data_dir.display().to_string();
    refuses(
        "data folder locked",
        center_command(&running.data_dir)?,
        &[&folder],
    )?;

    let file = work.path().join("file");
    fs::write(&file, "")?;
    let below = file.join("data");
    let shown = below.display().to_string();
    refuses("folder below a file", center_command(&below)?, &[&shown])?;
    let proc = Path::new("/proc/config-center");
    refuses(
        "folder that cannot be made",
        center_command(proc)?,
        &["/proc/config-center"],
    )?;

    let mut command = center_command(&work.path().join("b"))?;
    command.arg("--no-such-flag");
    refuses("unknown flag", command, &["--no-such-flag"])?;
    let mut command = Command::new(binaries::program("config-center")?);
    command.args(["--heartbeat-interval", "soon"]);
    refuses(
        "flag with a bad value",
        command,
        &["heartbeat-interval", "soon"],
    )?;
    Ok(())
}

#[test]
fn logagent_says_why_it_does_not_start() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let setup = AgentSetup::new("http://127.0.0.1:1", "127.0.0.1:1", work.path());
    let running = Agent::start(work.path(), &setup)?;
    wait_until("the agent's data folder", DEADLINE, || {
        running.data_dir.read_dir().ok()?.next().map(|_| ())
    })?;
    let folder = running.data_dir.display().to_string();
    refuses(
        "data folder locked",
        agent::command(&running.yaml)?,
        &[&folder],
    )?;

    let with_yaml = |name: &str, text: &str| -> anyhow::Result<Command> {
        let path = work.path().join(name);
        fs::write(&path, text)?;
        agent::command(&path)
    };
    let file = work.path().join("file");
    fs::write(&file, "")?;
    let below = file.join("data");
    let command = with_yaml("below.yaml", &setup.yaml(&below))?;
    refuses(
        "folder below a file",
        command,
        &[&below.display().to_string()],
    )?;
    let command = with_yaml("proc.yaml", &setup.yaml(Path::new("/proc/logagent")))?;
    refuses("folder that cannot be made", command, &["/proc/logagent"])?;

    let data_dir = work.path().join("other");
    let mut command = with_yaml("flag.yaml", &setup.yaml(&data_dir))?;
    command.arg("--no-such-flag");
    refuses("unknown flag", command, &["--no-such-flag"])?;
    let missing = work.path().join("missing.yaml");
    let shown = missing.display().to_string();
    refuses("no such file", agent::command(&missing)?, &[&shown])?;
    let text = format!("{}retries: 3\n", setup.yaml(&data_dir));
    let line = format!("line {}", text.lines().count());
    refuses(
        "unknown key",
        with_yaml("key.yaml", &text)?,
        &["retries", &line],
    )?;
    let mut wrong = setup.clone();
    wrong.kafka.push(("no.such.property".into(), "1".into()));
    let command = with_yaml("kafka.yaml", &wrong.yaml(&data_dir))?;
    refuses("unknown Kafka property", command, &["no.such.property"])?;
    Ok(())
}
