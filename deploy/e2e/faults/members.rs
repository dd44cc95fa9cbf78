//! The members: each with a namespace, a disk and a clock of its own, and a process that comes and
//! goes.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use e2e::{Process, binaries};
use schemas::etcdserverpb::{Member as Listed, StatusResponse};

use crate::calls;
use crate::disk::Disk;
use crate::network::{Network, address};

/// What a member's process is told about the time: its wall clock, and only that, is moved.
const FAKETIME: &str = "libfaketime.so.1";

/// Life numbers of a process: odd while it runs, even in between.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life(Arc<AtomicU64>);

impl Life {
    fn turn(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// The number of the life that is lived now.
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) at: usize,
    pub(crate) name: String,
    pub(crate) disk: Disk,
    pub(crate) life: Life,
    clock: PathBuf,
    log: PathBuf,
    initial_cluster: String,
    state: &'static str,
    process: Option<Process>,
    /// It was stopped by a fault, and does not answer signals but CONT and KILL.
    pub(crate) is_paused: bool,
}

impl Member {
    fn create(at: usize, folder: &Path) -> anyhow::Result<Self> {
        let name = format!("m{}", at + 1);
        let clock = folder.join(format!("{name}.clock"));
        std::fs::write(&clock, "+0\n")?;
        Ok(Self {
            at,
            disk: Disk::create(folder, &name)?,
            log: folder.join(format!("{name}.log")),
            clock,
            life: Life::default(),
            initial_cluster: String::new(),
            state: "new",
            process: None,
            is_paused: false,
            name,
        })
    }

    pub(crate) fn client_url(&self) -> String {
        client_url(self.at)
    }

    pub(crate) fn peer_url(&self) -> String {
        format!("http://{}:2380", address(self.at))
    }

    pub(crate) fn start(&mut self, network: &Network) -> anyhow::Result<()> {
        let mut command = network.command(self.at, &binaries::program("config-center")?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        let (client, peer) = (self.client_url(), self.peer_url());
        command
            .args(["--name", &self.name])
            .arg("--data-dir")
            .arg(self.disk.data_dir())
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.initial_cluster])
            .args(["--initial-cluster-state", self.state])
            // Short enough for members to fall behind it and get the state instead of the log.
            .args(["--snapshot-count", "2000"])
            .args(["--snapshot-catchup-entries", "500"])
            .env("LD_PRELOAD", faketime_library()?)
            .env("FAKETIME_TIMESTAMP_FILE", &self.clock)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        self.process = Some(Process::spawn(&self.name, command, &self.log)?);
        self.is_paused = false;
        self.life.turn();
        Ok(())
    }

    fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().context("the member was started")
    }

    /// The exit status of a process that has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::exit_status)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill9()?;
            self.life.turn();
        }
        Ok(())
    }

    pub(crate) fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        let status = self.process()?.terminate()?;
        self.process = None;
        self.life.turn();
        Ok(status)
    }

    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.is_paused = true;
        self.process()?.pause()
    }

    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.is_paused) {
            self.process()?.resume()?;
        }
        Ok(())
    }

    /// Moves the wall clock by so many seconds from what is true.
    pub(crate) fn set_clock(&self, offset_s: i64) -> anyhow::Result<()> {
        std::fs::write(&self.clock, format!("{offset_s:+}\n"))?;
        Ok(())
    }

    pub(crate) fn status(&self) -> Option<StatusResponse> {
        calls::status(&self.client_url())
    }

    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let from = text.len().saturating_sub(3_000);
        String::from_utf8_lossy(&text[from..]).into_owned()
    }
}

pub(crate) fn client_url(at: usize) -> String {
    format!("http://{}:2379", address(at))
}

fn faketime_library() -> anyhow::Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?;
    let mut libraries = folders
        .flatten()
        .map(|entry| entry.path().join("faketime").join(FAKETIME));
    let found = libraries.find(|path| path.is_file());
    found.context("libfaketime is missing; run as root: apt-get install -y faketime")
}

/// All members, and the network between them.
#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) network: Network,
    pub(crate) seats: Vec<Member>,
    names_given: usize,
}

impl Members {
    pub(crate) fn start(folder: &Path, size: usize) -> anyhow::Result<Self> {
        let network = Network::create(size)?;
        let seats: Result<Vec<Member>, _> =
            (0..size).map(|at| Member::create(at, folder)).collect();
        let mut seats = seats?;
        let pairs: Vec<String> = seats
            .iter()
            .map(|seat| format!("{}={}", seat.name, seat.peer_url()))
            .collect();
        for seat in &mut seats {
            seat.initial_cluster = pairs.join(",");
            seat.start(&network)?;
        }
        Ok(Self {
            network,
            seats,
            names_given: size,
        })
    }

    /// The member that a majority follows, or else the one that says so with the highest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let statuses: Vec<Option<StatusResponse>> = self.seats.iter().map(Member::status).collect();
        let claims = statuses.iter().enumerate().filter_map(|(at, status)| {
            let status = status.as_ref()?;
            let own = status.header.as_ref().map_or(0, |header| header.member_id);
            (status.leader == own && own != 0).then_some((status.raft_term, at))
        });
        claims.max().map(|(_, at)| at)
    }

    /// Whether every member answers, and all name the same leader.
    pub(crate) fn agree(&self) -> bool {
        let leaders: Option<Vec<u64>> = self
            .seats
            .iter()
            .map(|seat| seat.status().map(|status| status.leader))
            .collect();
        leaders.is_some_and(|leaders| leaders[0] != 0 && leaders.iter().all(|id| *id == leaders[0]))
    }

    /// Takes the member, whose disk is lost, out of the cluster and puts a new one in its place.
    pub(crate) fn replace(&mut self, at: usize, deadline: Duration) -> anyhow::Result<()> {
        self.seats[at].kill()?;
        self.seats[at].disk.wipe()?;
        let others: Vec<String> = self
            .seats
            .iter()
            .filter(|seat| seat.at != at)
            .map(Member::client_url)
            .collect();
        let peer = self.seats[at].peer_url();
        let mut turn = others.iter().cycle();
        let mut ask = || turn.next().map(String::as_str).unwrap_or_default();
        // Whichever of the others can do it now; an answer may get lost, so look before doing.
        e2e::wait_until("the lost member to be removed", deadline, || {
            let url = ask();
            let lost = listed(&calls::members(url)?, &peer).map(|member| member.id);
            match lost {
                None => Some(()),
                Some(id) => calls::remove_member(url, id),
            }
        })?;
        let members = e2e::wait_until("the new member to be added", deadline, || {
            let url = ask();
            let members = calls::members(url)?;
            match listed(&members, &peer) {
                Some(_) => Some(members),
                // Whether it worked is seen in the next list.
                None => calls::add_member(url, &peer).and(None),
            }
        })?;
        self.names_given += 1;
        let seat = &mut self.seats[at];
        seat.name = format!("m{}", self.names_given);
        seat.state = "existing";
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
        seat.start(&self.network)
    }
}

fn listed<'a>(members: &'a [Listed], peer_url: &str) -> Option<&'a Listed> {
    let mut members = members.iter();
    members.find(|member| member.peer_ur_ls.iter().any(|url| url == peer_url))
}
