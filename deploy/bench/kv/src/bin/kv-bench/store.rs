//! One server process on its own folder and ports, and the few calls that prepare it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::{CompactionRequest, RangeRequest};

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

/// A running server; ends with the value.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) endpoint: SocketAddr,
    pub(crate) data_dir: PathBuf,
    program: PathBuf,
    peer_port: u16,
    child: Child,
}

impl Server {
    /// Starts on an empty folder below `work` and waits until it serves.
    pub(crate) fn start(kind: Kind, program: &Path, work: &Path) -> anyhow::Result<Self> {
        let data_dir = work.join(kind.name().replace([' ', ','], "-"));
        if data_dir.exists() {
            std::fs::remove_dir_all(&data_dir)?;
        }
        std::fs::create_dir_all(&data_dir)?;
        let endpoint = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let peer_port = free_port()?;
        let child = spawn(kind, program, &data_dir, endpoint, peer_port)?;
        let mut server = Self {
            kind,
            endpoint,
            data_dir,
            program: program.to_owned(),
            peer_port,
            child,
        };
        server.wait_ready()?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it and starts it again on the same folder; how long until it answered a linearizable
    /// read, counted from the start of the new process.
    pub(crate) fn restart(&mut self) -> anyhow::Result<Duration> {
        self.terminate()?;
        let since = Instant::now();
        self.child = spawn(
            self.kind,
            &self.program,
            &self.data_dir,
            self.endpoint,
            self.peer_port,
        )?;
        self.wait_ready()?;
        Ok(since.elapsed())
    }

    fn terminate(&mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid())?;
        let pid = rustix::process::Pid::from_raw(pid).context("a child has a process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!(
                    "{} ended with {status}, see {}",
                    self.kind.name(),
                    log_path(&self.data_dir).display()
                );
            }
            let ready = if self.kind.is_store() {
                self.revision().is_ok()
            } else {
                TcpStream::connect(self.endpoint).is_ok()
            };
            if ready {
                return Ok(());
            }
            anyhow::ensure!(
                since.elapsed() < READY,
                "{} does not serve after {} s, see {}",
                self.kind.name(),
                READY.as_secs(),
                log_path(&self.data_dir).display()
            );
            std::thread::sleep(POLL);
        }
    }

    /// The store's revision, by a linearizable read.
    fn revision(&self) -> anyhow::Result<i64> {
        block_on(async {
            let mut client = KvClient::connect(format!("http://{}", self.endpoint)).await?;
            let mut request = tonic::Request::new(RangeRequest {
                key: b"bench".to_vec().into(),
                ..RangeRequest::default()
            });
            request.set_timeout(Duration::from_secs(2));
            let answer = client.range(request).await?.into_inner();
            Ok(answer.header.context("an answer has a header")?.revision)
        })
    }

    /// Forgets superseded revisions, as every installation does now and then.
    pub(crate) fn compact(&self) -> anyhow::Result<()> {
        let revision = self.revision()?;
        let outcome = block_on(async {
            let mut client = KvClient::connect(format!("http://{}", self.endpoint)).await?;
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

    /// How many fsyncs of its log the server has counted; `None` when it tells nothing.
    pub(crate) fn fsyncs(&self) -> Option<u64> {
        const NAME: &str = "etcd_disk_wal_fsync_duration_seconds_count ";
        let mut stream = TcpStream::connect(self.endpoint).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.endpoint
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let count = text.lines().find_map(|line| line.strip_prefix(NAME))?;
        count.trim().parse::<f64>().ok().map(|count| count as u64)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Failing to kill or reap means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
        // Half a gigabyte per server is not left behind; a folder that stays harms nothing.
        drop(std::fs::remove_dir_all(&self.data_dir));
    }
}

fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.with_extension("log")
}

fn spawn(
    kind: Kind,
    program: &Path,
    data_dir: &Path,
    endpoint: SocketAddr,
    peer_port: u16,
) -> anyhow::Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_path(data_dir))?;
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
        let (client, peer) = (
            format!("http://{endpoint}"),
            format!("http://127.0.0.1:{peer_port}"),
        );
        command.arg("--data-dir").arg(data_dir.join("data"));
        for (flag, value) in [
            ("--name", "bench"),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &format!("bench={peer}")),
        ] {
            command.args([flag, value]);
        }
    } else {
        command.args(["--listen", &endpoint.to_string()]);
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

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}
