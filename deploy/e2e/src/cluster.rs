//! Several config-center processes that form one cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use schemas::etcdserverpb::Member;
use schemas::etcdserverpb::cluster_client::ClusterClient;
use schemas::etcdserverpb::maintenance_client::MaintenanceClient;
use schemas::etcdserverpb::{
    HashKvRequest, MemberAddRequest, MemberListRequest, MemberRemoveRequest, StatusRequest,
    StatusResponse,
};
use tonic::Status;
use tonic::transport::Channel;

use crate::center::http_get;
use crate::process::Process;
use crate::store::{Store, channel, runtime};
use crate::tools::run;
use crate::wait::{DEADLINE, wait_until};
use crate::{binaries, center, ports};

/// One member's place: name, ports and folder stay when its process goes.
#[derive(Debug)]
pub struct Seat {
    pub name: String,
    pub client_port: u16,
    peer_port: u16,
    folder: PathBuf,
    /// `--initial-cluster` and its state, as this member was told.
    initial_cluster: String,
    state: &'static str,
    /// What this member is started with besides.
    flags: Vec<String>,
    process: Option<Process>,
}

impl Seat {
    fn new(folder: &Path, name: String) -> Self {
        Self {
            client_port: ports::free_port(),
            peer_port: ports::free_port(),
            folder: folder.to_owned(),
            initial_cluster: String::new(),
            state: "new",
            flags: Vec::new(),
            process: None,
            name,
        }
    }

    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join(format!("{}.data", self.name))
    }

    pub fn store(&self) -> anyhow::Result<Store> {
        Store::new(&format!("http://127.0.0.1:{}", self.client_port))
    }

    /// A new connection each time: nothing of an earlier life of the process remains.
    pub fn channel(&self) -> anyhow::Result<Channel> {
        channel(&format!("http://127.0.0.1:{}", self.client_port))
    }

    pub fn start(&mut self) -> anyhow::Result<()> {
        let mut command = center::command(&self.data_dir(), self.client_port, self.peer_port)?;
        // The last of two equal flags counts.
        self.name_in(&mut command);
        let log = self.folder.join(format!("{}.log", self.name));
        self.process = Some(Process::spawn(&self.name, command, &log)?);
        Ok(())
    }

    fn name_in(&self, command: &mut Command) {
        command
            .args(["--name", &self.name])
            .args(["--initial-cluster", &self.initial_cluster])
            .args(["--initial-cluster-state", self.state])
            .args(&self.flags);
    }

    /// The process; there is one between `start` and its end.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        let process = self.process.as_mut();
        process.ok_or_else(|| anyhow::anyhow!("the member was not started"))
    }

    pub fn status(&self) -> Result<StatusResponse, Status> {
        let channel = self.channel().map_err(|e| Status::unknown(e.to_string()))?;
        let mut client = MaintenanceClient::new(channel);
        let answer = runtime().block_on(client.status(StatusRequest {}))?;
        Ok(answer.into_inner())
    }

    /// The digest of everything up to this revision.
    pub fn hash_kv(&self, revision: i64) -> Result<u32, Status> {
        let channel = self.channel().map_err(|e| Status::unknown(e.to_string()))?;
        let mut client = MaintenanceClient::new(channel);
        let answer = runtime().block_on(client.hash_kv(HashKvRequest { revision }))?;
        Ok(answer.into_inner().hash)
    }

    pub fn is_healthy(&self) -> bool {
        http_get(self.client_port, "/health").is_some_and(|body| body.contains("\"true\""))
    }

    pub fn members(&self) -> Result<Vec<Member>, Status> {
        let request = MemberListRequest { linearizable: true };
        let mut client = self.cluster_client()?;
        let answer = runtime().block_on(client.member_list(request))?;
        Ok(answer.into_inner().members)
    }

    fn cluster_client(&self) -> Result<ClusterClient<Channel>, Status> {
        let channel = self.channel().map_err(|e| Status::unknown(e.to_string()))?;
        Ok(ClusterClient::new(channel))
    }

    pub fn remove_member(&self, id: u64) -> Result<Vec<Member>, Status> {
        let mut client = self.cluster_client()?;
        let answer = runtime().block_on(client.member_remove(MemberRemoveRequest { id }))?;
        Ok(answer.into_inner().members)
    }

    pub fn add_member(&self, peer_url: String) -> Result<Vec<Member>, Status> {
        let mut client = self.cluster_client()?;
        let request = MemberAddRequest {
            peer_ur_ls: vec![peer_url],
            is_learner: false,
        };
        let answer = runtime().block_on(client.member_add(request))?;
        Ok(answer.into_inner().members)
    }
}

/// The members in the order in which they were added.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    pub seats: Vec<Seat>,
}

impl Cluster {
    /// Starts so many members together and waits until all are healthy.
    pub fn start(folder: &Path, size: usize) -> anyhow::Result<Self> {
        Self::start_with(folder, size, &[])
    }

    /// The same, with these flags for each.
    pub fn start_with(folder: &Path, size: usize, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_prepared(folder, size, flags, |_| Ok(()))
    }

    /// The same, with each member restored from this snapshot first.
    pub fn restore(folder: &Path, size: usize, snapshot: &Path) -> anyhow::Result<Self> {
        Self::start_prepared(folder, size, &[], |seat| {
            let mut command = Command::new(binaries::program("configctl")?);
            command
                .args(["cluster", "snapshot", "restore"])
                .arg(snapshot);
            command.arg("--data-dir").arg(seat.data_dir());
            command.args(["--initial-advertise-peer-urls", &seat.peer_url()]);
            command.args(["--name", &seat.name]);
            command.args(["--initial-cluster", &seat.initial_cluster]);
            run(&mut command, "")?.ok().map(|_| ())
        })
    }

    fn start_prepared(
        folder: &Path,
        size: usize,
        flags: &[&str],
        prepare: impl Fn(&Seat) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut seats: Vec<Seat> = (1..=size)
            .map(|n| Seat::new(folder, format!("n{n}")))
            .collect();
        let pairs: Vec<String> = seats
            .iter()
            .map(|seat| format!("{}={}", seat.name, seat.peer_url()))
            .collect();
        for seat in &mut seats {
            seat.initial_cluster = pairs.join(",");
            seat.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            prepare(seat)?;
            seat.start()?;
        }
        let cluster = Self {
            folder: folder.to_owned(),
            seats,
        };
        cluster.wait_healthy()?;
        Ok(cluster)
    }

    pub fn wait_healthy(&self) -> anyhow::Result<()> {
        wait_until("all members to be healthy", DEADLINE, || {
            self.seats.iter().all(Seat::is_healthy).then_some(())
        })
    }

    /// The place of the leader, as soon as some member knows one that runs.
    pub fn leader(&mut self) -> anyhow::Result<usize> {
        wait_until("a leader", DEADLINE, || {
            let statuses: Vec<Option<StatusResponse>> =
                self.seats.iter().map(|seat| seat.status().ok()).collect();
            statuses.iter().position(|status| {
                status.as_ref().is_some_and(|status| {
                    let own = status.header.as_ref().map_or(0, |header| header.member_id);
                    status.leader != 0 && status.leader == own
                })
            })
        })
    }

    /// Has the cluster take another member in, and starts it.
    pub fn grow(&mut self, asked: usize) -> anyhow::Result<usize> {
        let name = format!("n{}", self.seats.len() + 1);
        let mut seat = Seat::new(&self.folder, name);
        // A cluster that has just lost a member counts it as connected for a while.
        let members = wait_until("the new member to be accepted", DEADLINE, || {
            self.seats[asked].add_member(seat.peer_url()).ok()
        })?;
        let pairs: Vec<String> = members
            .iter()
            .map(|member| {
                let name = if member.name.is_empty() {
                    &seat.name
                } else {
                    &member.name
                };
                format!("{name}={}", member.peer_ur_ls.join(""))
            })
            .collect();
        seat.initial_cluster = pairs.join(",");
        seat.state = "existing";
        seat.start()?;
        self.seats.push(seat);
        Ok(self.seats.len() - 1)
    }
}
