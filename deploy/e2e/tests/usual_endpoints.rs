//! The seed's Go program and etcdctl on etcd's three usual endpoints, which are built into them, with
//! any member dead and through deaths of the leader.
//!
//! The members and the programs run in a network namespace of the test's own, so that the fixed ports
//! are free whatever else the machine does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use e2e::tools::{self, Output};
use e2e::{DEADLINE, Process, binaries, wait_until};

const CLIENT_PORTS: [u16; 3] = [2379, 22379, 32379];
const PEER_PORTS: [u16; 3] = [2380, 22380, 32380];
const LEADER_KILLS: usize = 3;
/// Puts between two kills.
const PUTS: usize = 15;

/// A network namespace with nothing but its loopback; gone with this value.
struct Space(String);

impl Space {
    fn create() -> anyhow::Result<Self> {
        static CREATED: AtomicUsize = AtomicUsize::new(0);
        let number = CREATED.fetch_add(1, Ordering::Relaxed);
        let space = Self(format!("usual-endpoints-{}-{number}", std::process::id()));
        let name = space.0.as_str();
        for arguments in [
            &["netns", "add", name][..],
            &["-n", name, "link", "set", "lo", "up"],
        ] {
            let mut ip = Command::new("ip");
            tools::run(ip.args(arguments), "")?.ok().with_context(|| {
                let own = std::env::args().next().unwrap_or_default();
                format!("network namespaces need root; run: sudo {own}")
            })?;
        }
        Ok(space)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.0))
            .arg(program);
        command
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let deleted = Command::new("ip")
            .args(["netns", "delete", &self.0])
            .status();
        if !deleted
            .as_ref()
            .is_ok_and(std::process::ExitStatus::success)
        {
            eprintln!("ip netns delete {}: {deleted:?}", self.0);
        }
    }
}

struct Scene {
    // Ends before the namespace that it is in.
    members: [Option<Process>; 3],
    space: Space,
    folder: PathBuf,
    go_program: PathBuf,
}

impl Scene {
    fn create(folder: &Path) -> anyhow::Result<Self> {
        let go_program = folder.join("go-clientv3");
        let mut build = Command::new("go");
        build
            .current_dir(binaries::repository().join("examples/go-clientv3"))
            .args(["build", "-mod=readonly", "-o"])
            .arg(&go_program)
            .arg(".");
        tools::run(&mut build, "")?.ok()?;
        let mut scene = Self {
            members: [None, None, None],
            space: Space::create()?,
            folder: folder.to_owned(),
            go_program,
        };
        for at in 0..3 {
            scene.start(at)?;
        }
        scene.wait_healthy()?;
        Ok(scene)
    }

    fn start(&mut self, at: usize) -> anyhow::Result<()> {
        let mut command = self.space.command(&binaries::program("config-center")?);
        let name = format!("n{at}");
        let client = format!("http://127.0.0.1:{}", CLIENT_PORTS[at]);
        let peers = PEER_PORTS.map(|port| format!("http://127.0.0.1:{port}"));
        let cluster: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(at, peer)| format!("n{at}={peer}"))
            .collect();
        command
            .args(["--name", &name, "--data-dir"])
            .arg(self.folder.join(&name))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peers[at]])
            .args(["--initial-advertise-peer-urls", &peers[at]])
            .args(["--initial-cluster", &cluster.join(",")]);
        let log = self.folder.join(format!("{name}.log"));
        self.members[at] = Some(Process::spawn(&name, command, &log)?);
        Ok(())
    }

    fn kill(&mut self, at: usize) -> anyhow::Result<()> {
        let mut member = self.members[at].take().context("the member runs")?;
        member.kill9()
    }

    fn etcdctl(&self, ports: &[u16], arguments: &[&str]) -> anyhow::Result<Output> {
        let endpoints: Vec<String> = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
        let mut command = self.space.command(Path::new("etcdctl"));
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", endpoints.join(",")))
            .args(arguments);
        tools::run(&mut command, "")
    }

    fn wait_healthy(&self) -> anyhow::Result<()> {
        wait_until("all members to be healthy", DEADLINE, || {
            let answer = self.etcdctl(&CLIENT_PORTS, &["endpoint", "health"]).ok()?;
            (answer.code == Some(0)).then_some(())
        })
    }

    fn leader(&self) -> anyhow::Result<usize> {
        wait_until("a leader", DEADLINE, || {
            (0..3).filter(|at| self.members[*at].is_some()).find(|at| {
                let ports = &CLIENT_PORTS[*at..=*at];
                let arguments = ["endpoint", "status", "--write-out=fields"];
                let status = self.etcdctl(ports, &arguments).and_then(Output::ok);
                status.is_ok_and(|text| {
                    let field = |name: &str| {
                        let mut lines = text.lines();
                        let line = lines.find(|line| line.starts_with(name))?;
                        line.split(" : ").nth(1).map(str::to_owned)
                    };
                    field("\"MemberID\"").is_some() && field("\"MemberID\"") == field("\"Leader\"")
                })
            })
        })
    }

    /// The seed's program: it knows its endpoints by itself.
    fn run_go_program(&self) -> anyhow::Result<Output> {
        let mut command = self.space.command(&self.go_program);
        command.env_remove("ETCD_ENDPOINTS");
        tools::run(&mut command, "")
    }
}

const EXPECTED: &str = concat!(
    "connect succ\n",
    "/ningxin/backend/logagent/config/192.168.56.1 : ",
    r#"[{"path":"D:/project/nginx/logs/access.log","topic":"nginx_log"},"#,
    r#"{"path":"D:/project/nginx/logs/error.log","topic":"nginx_log_err"}]"#,
    "\nconnect succ\n/logagent/conf/ : sample_value\n",
);

#[test]
fn the_seeds_programs_work_with_any_member_dead_and_through_deaths_of_the_leader()
-> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let mut scene = Scene::create(work.path())?;
    for dead in 0..3 {
        scene.kill(dead)?;
        // Whoever led may just have died: until there is another leader the program, which waits
        // one second for an answer, says so.
        wait_until("the Go program to work", DEADLINE, || {
            let answer = scene.run_go_program().ok()?;
            (answer.code == Some(0) && answer.stdout == EXPECTED).then_some(())
        })?;
        let key = format!("dead{dead}");
        scene
            .etcdctl(&CLIENT_PORTS, &["put", &key, "value"])?
            .ok()?;
        let got = scene.etcdctl(&CLIENT_PORTS, &["get", &key])?.ok()?;
        assert_eq!(got, format!("{key}\nvalue\n"));
        // Once there is a leader nothing fails, again and again.
        for _ in 0..5 {
            let answer = scene.run_go_program()?;
            assert_eq!(
                (answer.code, answer.stdout.as_str()),
                (Some(0), EXPECTED),
                "{answer:?}"
            );
        }
        scene.start(dead)?;
        scene.wait_healthy()?;
    }
    let mut number = 0;
    for _ in 0..LEADER_KILLS {
        let leader = scene.leader()?;
        for put in 0..PUTS {
            if put == PUTS / 3 {
                scene.kill(leader)?;
            }
            number += 1;
            let (key, value) = (format!("loop/{number:03}"), number.to_string());
            // etcdctl waits five seconds for an answer, which is longer than an election.
            scene
                .etcdctl(&CLIENT_PORTS, &["put", &key, &value])?
                .ok()
                .with_context(|| format!("put {key} after the leader died"))?;
        }
        scene.start(leader)?;
        scene.wait_healthy()?;
    }
    for at in 0..3 {
        let arguments = ["get", "loop/", "--prefix", "--print-value-only"];
        let got = scene.etcdctl(&CLIENT_PORTS[at..=at], &arguments)?.ok()?;
        let expected: String = (1..=number).map(|n| format!("{n}\n")).collect();
        assert_eq!(got, expected, "member {at}");
    }
    Ok(())
}

#[test]
fn one_of_three_says_that_there_is_no_leader() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let mut scene = Scene::create(work.path())?;
    scene.etcdctl(&CLIENT_PORTS, &["put", "k", "v"])?.ok()?;
    scene.kill(0)?;
    scene.kill(1)?;
    let alone = &CLIENT_PORTS[2..];
    let refused = scene.etcdctl(alone, &["put", "k", "w"])?;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let old = scene
        .etcdctl(alone, &["get", "k", "--consistency=s"])?
        .ok()?;
    assert_eq!(old, "k\nv\n");
    let refused = scene.run_go_program()?;
    assert!(refused.stdout.contains("put failed"), "{refused:?}");
    scene.start(0)?;
    wait_until(
        "the Go program to work",
        DEADLINE + Duration::from_secs(5),
        || {
            let answer = scene.run_go_program().ok()?;
            (answer.code == Some(0) && answer.stdout == EXPECTED).then_some(())
        },
    )
}
