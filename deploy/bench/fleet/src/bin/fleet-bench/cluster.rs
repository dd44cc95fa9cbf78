//! Members of config-center as processes, and what they cost.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use schemas_client::{Client, ConnectOptions};

use super::http;

const START_TIME: Duration = Duration::from_secs(30);
/// Linux counts the time of processes in hundredths of a second, whatever the kernel's own clock.
const TICK_MS: u64 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Members that live as long as this value.
pub(crate) struct Cluster {
    members: Vec<Seat>,
    folder: PathBuf,
}

struct Seat {
    address: String,
    command: Command,
    process: Option<Child>,
}

impl Cluster {
    pub(crate) async fn start(server: &Path, work: &Path, members: usize) -> anyhow::Result<Self> {
        let folder = work.join(format!("members-{members}"));
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let mut places = Vec::new();
        for index in 0..members {
            places.push((format!("m{index}"), free_address()?, free_address()?));
        }
        let cluster: Vec<String> = places
            .iter()
            .map(|(name, _, peer)| format!("{name}=http://{peer}"))
            .collect();
        let cluster = cluster.join(",");
        let mut seats = Vec::new();
        for (name, client, peer) in places {
            let log = File::create(folder.join(format!("{name}.log")))?;
            let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
            let mut command = Command::new(server);
            command
                .args(["--name", &name, "--data-dir"])
                .arg(folder.join(&name))
                .args(["--listen-client-urls", &client_url])
                .args(["--advertise-client-urls", &client_url])
                .args(["--listen-peer-urls", &peer_url])
                .args(["--initial-advertise-peer-urls", &peer_url])
                .args(["--initial-cluster", &cluster])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log);
            let process = command.spawn().context("start a member")?;
            seats.push(Seat {
                address: client,
                command,
                process: Some(process),
            });
        }
        let cluster = Self {
            members: seats,
            folder,
        };
        cluster.ready().await?;
        Ok(cluster)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        for seat in &self.members {
            loop {
                let answer = http::send(&seat.address, "GET", "/health", "").await;
                if answer.is_ok_and(|(status, _)| status == 200) {
                    break;
                }
                anyhow::ensure!(began.elapsed() < START_TIME, "a member does not come up");
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        let url = |seat: &Seat| format!("http://{}", seat.address);
        self.members.iter().map(url).collect()
    }

    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(ConnectOptions::new(self.endpoints()))?)
    }

    /// Where requests to the API go: any member answers them.
    pub(crate) fn address(&self) -> &str {
        &self.members[self.members.len() - 1].address
    }

    /// CPU time of all members so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let mut total = Duration::ZERO;
        for seat in &self.members {
            if let Some(process) = &seat.process {
                total += cpu_of(process.id())?;
            }
        }
        Ok(total)
    }

    /// Kills the leader's process; the endpoint that is gone.
    pub(crate) async fn kill_leader(&mut self) -> anyhow::Result<String> {
        let client = self.client()?;
        for seat in &mut self.members {
            let endpoint = format!("http://{}", seat.address);
            let status = client.status(&endpoint).await?;
            let id = status.header.map_or(0, |header| header.member_id);
            if status.leader == id
                && let Some(mut process) = seat.process.take()
            {
                process.kill()?;
                process.wait()?;
                return Ok(endpoint);
            }
        }
        anyhow::bail!("nobody leads")
    }

    /// Starts again whoever was killed.
    pub(crate) async fn mend(&mut self) -> anyhow::Result<()> {
        for seat in &mut self.members {
            if seat.process.is_none() {
                seat.process = Some(seat.command.spawn()?);
            }
        }
        self.ready().await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for seat in &mut self.members {
            if let Some(process) = &mut seat.process {
                // It may have ended by itself; its log says why.
                drop(process.kill());
                drop(process.wait());
            }
        }
        // What is left behind is overwritten by the next run.
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// User and system time of a process, as the kernel counts them.
fn cpu_of(process: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in brackets may hold blanks.
    let (_, fields) = stat.rsplit_once(") ").context("a process has a name")?;
    let field = |index: usize| -> anyhow::Result<u64> {
        let text = fields.split(' ').nth(index).context("too few fields")?;
        Ok(text.parse()?)
    };
    Ok(Duration::from_millis((field(11)? + field(12)?) * TICK_MS))
}

fn free_address() -> anyhow::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}
