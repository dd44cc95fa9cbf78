//! A store under measurement: one member or a cluster of them, each a process on its own folder and
//! ports, and the few calls that prepare it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::maintenance_client::MaintenanceClient;
use schemas::etcdserverpb::{CompactionRequest, RangeRequest, StatusRequest};

const READY: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);

/// Who is measured, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Center,
    Etcd37,
    Etcd34,
    Floor,
    GroupedFloor,
}

pub(crate) const STORES: [Kind; 3] = [Kind::Center, Kind::Etcd37, Kind::Etcd34];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Center => "config-center",
            Self::Etcd37 => "etcd 3.7.1",
            Self::Etcd34 => "etcd 3.4.23",
            Self::Floor => "floor",
            Self::GroupedFloor => "floor, grouped",
        }
    }

    pub(crate) fn is_store(self) -> bool {
        STORES.contains(&self)
    }
}

/// A running store; ends with the value.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) kind: Kind,
    pub(crate) members: Vec<Member>,
    program: PathBuf,
}

/// One process of it.
#[derive(Debug)]
pub(crate) struct Member {
    name: String,
    pub(crate) endpoint: SocketAddr,
    pub(crate) data_dir: PathBuf,
    peer_url: String,
    child: Option<Child>,
}

impl Store {
    /// Starts one member on an empty folder below `work` and waits until it serves.
    pub(crate) fn start(kind: Kind, program: &Path, work: &Path) -> anyhow::Result<Self> {
        Self::start_members(kind, program, work, 1)
    }

    /// The same with so many members.
    pub(crate) fn start_members(
        kind: Kind,
        program: &Path,
        work: &Path,
        count: usize,
    ) -> anyhow::Result<Self> {
        let mut members = Vec::new();
        for number in 1..=count {
            let name = format!("bench{number}");
            let folder = format!("{}-{number}", kind.name().replace([' ', ','], "-"));
            let data_dir = work.join(folder);
            if data_dir.exists() {
                std::fs::remove_dir_all(&data_dir)?;
            }
            std::fs::create_dir_all(&data_dir)?;
            members.push(Member {
                name,
                endpoint: SocketAddr::from(([127, 0, 0, 1], free_port()?)),
                data_dir,
                peer_url: format!("http://127.0.0.1:{}", free_port()?),
                child: None,
            });
        }
        let mut store = Self {
            kind,
            members,
            program: program.to_owned(),
        };
        for number in 0..count {
            store.spawn(number)?;
        }
        for number in 0..count {
            store.wait_ready(number)?;
        }
        Ok(store)
    }

    /// The only member's, or the first one's.
    pub(crate) fn first(&self) -> &Member {
        &self.members[0]
    }

    pub(crate) fn endpoints(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.endpoint).collect()
    }

    /// Of the processes that run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let running = self.members.iter().filter_map(|one| one.child.as_ref());
        running.map(Child::id).collect()
    }

    /// Ends the only member and starts it again on the same folder; how long until it answered a
    /// linearizable read, counted from the start of the new process.
    pub(crate) fn restart(&mut self) -> anyhow::Result<Duration> {
        self.signal(0, rustix::process::Signal::TERM)?;
        let since = Instant::now();
        self.spawn(0)?;
        self.wait_ready(0)?;
        Ok(since.elapsed())
    }

    /// Kills a member and reaps it.
    pub(crate) fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        self.signal(number, rustix::process::Signal::KILL)
    }

    /// Starts a member that was killed and waits until it serves.
    pub(crate) fn revive(&mut self, number: usize) -> anyhow::Result<()> {
        self.spawn(number)?;
        self.wait_ready(number)
    }

    fn signal(&mut self, number: usize, signal: rustix::process::Signal) -> anyhow::Result<()> {
        let child = self.members[number].child.take();
        let mut child = child.context("a member that runs")?;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal)?;
        child.wait()?;
        Ok(())
    }

    fn spawn(&mut self, number: usize) -> anyhow::Result<()> {
        let cluster: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{}={}", member.name, member.peer_url))
            .collect();
        let member = &mut self.members[number];
        let child = spawn(self.kind, &self.program, member, &cluster.join(","))?;
        member.child = Some(child);
        Ok(())
    }

    fn wait_ready(&mut self, number: usize) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let name = self.kind.name();
            let member = &mut self.members[number];
            let log = log_path(&member.data_dir);
            if let Some(child) = &mut member.child
                && let Some(status) = child.try_wait()?
            {
                anyhow::bail!("{name} ended with {status}, see {}", log.display());
            }
            let ready = if self.kind.is_store() {
                revision(member.endpoint).is_ok()
            } else {
                TcpStream::connect(member.endpoint).is_ok()
            };
            if ready {
                return Ok(());
            }
            anyhow::ensure!(
                since.elapsed() < READY,
                "{name} does not serve after {} s, see {}",
                READY.as_secs(),
                log.display()
            );
            std::thread::sleep(POLL);
        }
    }

    /// Which member leads, as the first one that runs sees it.
    pub(crate) fn leader(&self) -> anyhow::Result<usize> {
        let mut ids = Vec::new();
        for member in &self.members {
            ids.push(status(member.endpoint)?);
        }
        let leader = ids[0].1;
        ids.iter()
            .position(|(id, _)| *id == leader)
            .context("the leader is a member")
    }

    /// Forgets superseded revisions, as every installation does now and then.
    pub(crate) fn compact(&self) -> anyhow::Result<()> {
        let endpoint = self.first().endpoint;
        let revision = revision(endpoint)?;
        let outcome = block_on(async {
            let mut client = KvClient::connect(format!("http://{endpoint}")).await?;
            let request = CompactionRequest {
                revision,
                physical: true,
            };
            Ok(client.compact(request).await)
        })?;
        match outcome {
            Ok(_) => Ok(()),
            // Nothing was written since the last time.
            Err(status) if status.code() == tonic::Code::OutOfRange => Ok(()),
            Err(status) => Err(status).context("compact"),
        }
    }

    /// How many fsyncs of their logs the members have counted; `None` when they tell nothing.
    pub(crate) fn fsyncs(&self) -> Option<u64> {
        self.members.iter().map(|one| fsyncs(one.endpoint)).sum()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Failing to kill or reap means that it has ended already.
            if let Some(child) = &mut member.child {
                drop(child.kill());
                drop(child.wait());
            }
            // Half a gigabyte per server is not left behind; a folder that stays harms nothing.
            drop(std::fs::remove_dir_all(&member.data_dir));
        }
    }
}

/// The store's revision, by a linearizable read.
fn revision(endpoint: SocketAddr) -> anyhow::Result<i64> {
    block_on(async {
        let mut client = KvClient::connect(format!("http://{endpoint}")).await?;
        let mut request = tonic::Request::new(RangeRequest {
            key: b"bench".to_vec().into(),
            ..RangeRequest::default()
        });
        request.set_timeout(Duration::from_secs(2));
        let answer = client.range(request).await?.into_inner();
        Ok(answer.header.context("an answer has a header")?.revision)
    })
}

/// A member's own id and its leader's.
fn status(endpoint: SocketAddr) -> anyhow::Result<(u64, u64)> {
    block_on(async {
        let mut client = MaintenanceClient::connect(format!("http://{endpoint}")).await?;
        let answer = client.status(StatusRequest::default()).await?.into_inner();
        let header = answer.header.context("an answer has a header")?;
        Ok((header.member_id, answer.leader))
    })
}

fn fsyncs(endpoint: SocketAddr) -> Option<u64> {
    const NAME: &str = "etcd_disk_wal_fsync_duration_seconds_count ";
    let mut stream = TcpStream::connect(endpoint).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let count = text.lines().find_map(|line| line.strip_prefix(NAME))?;
    count.trim().parse::<f64>().ok().map(|count| count as u64)
}

fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.with_extension("log")
}

fn spawn(kind: Kind, program: &Path, member: &Member, cluster: &str) -> anyhow::Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_path(&member.data_dir))?;
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(name);
        }
    }
    if kind.is_store() {
        let client = format!("http://{}", member.endpoint);
        command.arg("--data-dir").arg(member.data_dir.join("data"));
        for (flag, value) in [
            ("--name", member.name.as_str()),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &member.peer_url),
            ("--initial-advertise-peer-urls", &member.peer_url),
            ("--initial-cluster", cluster),
        ] {
            command.args([flag, value]);
        }
    } else {
        command.args(["--listen", &member.endpoint.to_string()]);
        if kind == Kind::GroupedFloor {
            command.args(["--group-us", "500"]);
        }
    }
    command
        .spawn()
        .with_context(|| format!("start {}", program.display()))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}
