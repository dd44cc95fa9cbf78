//! A store, the real configctl, and agents that only say what they run.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use config_center::{
    flags::{self, Invocation},
    fleet::keys::Namespace,
    server::Server,
};
use config_center_core::fleet::sha256_hex;
use schemas::{
    etcdserverpb::{PutRequest, WatchCreateRequest},
    fleet::{AgentStatus, Attempt, EntryState, EntryStatus, RunningConfig},
    mvccpb::{KeyValue, event::EventType},
};
use schemas_client::{Client, ClientError, ConnectOptions, prefix_end};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpListener, process::Command, task::JoinHandle};

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Which store a test runs on: the fleet must not notice.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Own,
    /// Debian's etcd, by its `etcd` program (package etcd-server).
    Etcd,
}

enum Running {
    Own(Option<Box<Server>>),
    Etcd(tokio::process::Child),
    Members(Vec<tokio::process::Child>),
}

pub(crate) struct Stand {
    running: Running,
    pub(crate) endpoint: String,
    pub(crate) client: Client,
    pub(crate) ns: Namespace,
    pub(crate) folder: TempDir,
}

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        self
    }
}

impl Stand {
    pub(crate) async fn start(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (running, endpoint) = match kind {
            Kind::Own => own(&data).await,
            Kind::Etcd => etcd(&data).await,
        };
        let client = Client::new(ConnectOptions::new([endpoint.clone()])).unwrap();
        let stand = Self {
            running,
            endpoint,
            client,
            ns: Namespace::new("/ningxin/backend"),
            folder,
        };
        stand
            .eventually("the store answers", async || {
                stand.client.get("x").await.is_ok()
            })
            .await;
        stand
    }

    /// Three members, as processes.
    pub(crate) async fn cluster(kind: Kind) -> Self {
        let program = match kind {
            Kind::Own => env!("CARGO_BIN_EXE_config-center"),
            Kind::Etcd => "etcd",
        };
        let folder = tempfile::tempdir().unwrap();
        let (mut clients, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            clients.push(free_url().await);
            peers.push(free_url().await);
        }
        let cluster: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(index, peer)| format!("m{index}={peer}"))
            .collect();
        let cluster = cluster.join(",");
        let members = (0..3).map(|index| {
            let name = format!("m{index}");
            let data = folder.path().join(&name);
            let (client, peer) = (&clients[index], &peers[index]);
            let spawned = member(program, &name, &data, client, peer, &cluster).spawn();
            spawned.unwrap_or_else(|error| panic!("{program}: {error}"))
        });
        let running = Running::Members(members.collect());
        let client = Client::new(ConnectOptions::new(clients.clone())).unwrap();
        let endpoint = clients.join(",");
        let stand = Self {
            running,
            endpoint,
            client,
            ns: Namespace::new("/ningxin/backend"),
            folder,
        };
        stand
            .eventually("the cluster answers", async || {
                stand.client.get("x").await.is_ok()
            })
            .await;
        stand
    }

    /// Kills the process of the member that leads.
    pub(crate) async fn kill_leader(&mut self) {
        let mut leader = None;
        for (index, endpoint) in self.endpoint.split(',').enumerate() {
            let status = self.client.status(endpoint).await.unwrap();
            if status.leader == status.header.unwrap().member_id {
                leader = Some(index);
            }
        }
        let Running::Members(members) = &mut self.running else {
            panic!("this is no cluster")
        };
        members[leader.expect("somebody leads")]
            .kill()
            .await
            .unwrap();
    }

    pub(crate) async fn stop(self) {
        match self.running {
            Running::Own(mut server) => server.take().unwrap().shutdown().await,
            Running::Etcd(mut child) => child.kill().await.unwrap(),
            Running::Members(members) => drop(members),
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_configctl"));
        command
            .args(["--endpoints", &self.endpoint])
            .args(args)
            .env_remove("ETCDCTL_ENDPOINTS")
            .env("USER", "anna")
            // Logins of the developer's own are not part of a test.
            .env("XDG_CONFIG_HOME", self.folder.path().join("no-logins"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// `config-center fleet` for this store.
    pub(crate) fn service(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_config-center"));
        command
            .args(["fleet", "--endpoints", &self.endpoint])
            .env_remove("ETCDCTL_ENDPOINTS")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn configctl(&self, args: &[&str]) -> Said {
        self.configctl_with(args, "").await
    }

    /// Runs configctl with this standard input.
    pub(crate) async fn configctl_with(&self, args: &[&str], input: &str) -> Said {
        let mut child = self.command(args).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read its input may have closed it.
        stdin.write_all(input.as_bytes()).await.unwrap_or_default();
        drop(stdin);
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{args:?} hangs")).unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) async fn put(&self, key: String, value: &str) {
        let request = PutRequest {
            key: key.into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        self.client.put(request).await.unwrap();
    }

    /// A host's document; `None` when there is no key.
    pub(crate) async fn config(&self, host: &str) -> Option<String> {
        let kv = self.get(self.ns.config(host)).await?;
        Some(String::from_utf8(kv.value.to_vec()).unwrap())
    }

    /// Reads a key, also while a cluster elects a leader.
    async fn get(&self, key: String) -> Option<KeyValue> {
        let reading = async {
            loop {
                if let Ok(found) = self.client.get(key.clone()).await {
                    return found.kv;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, reading)
            .await
            .unwrap_or_else(|_| panic!("{key} cannot be read"))
    }

    /// How often a host's key was written.
    pub(crate) async fn writes(&self, host: &str) -> i64 {
        self.get(self.ns.config(host))
            .await
            .map_or(0, |kv| kv.version)
    }

    pub(crate) async fn revision(&self) -> i64 {
        self.client.get("x").await.unwrap().revision
    }

    /// Waits for a condition.
    pub(crate) async fn eventually(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let looking = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, looking)
            .await
            .unwrap_or_else(|_| panic!("not in time: {what}"));
    }
}

async fn own(data: &std::path::Path) -> (Running, String) {
    let line = vec![
        "--listen-client-urls=http://127.0.0.1:0".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        format!("--data-dir={}", data.display()),
    ];
    let Ok(Invocation::Serve(settings)) = flags::parse(line, []) else {
        panic!("the flags are wrong")
    };
    let server = Server::start(&settings)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let endpoint = format!("http://{}", server.client_addresses()[0]);
    (Running::Own(Some(Box::new(server))), endpoint)
}

async fn etcd(data: &std::path::Path) -> (Running, String) {
    let (client, peer) = (free_url().await, free_url().await);
    let cluster = format!("default={peer}");
    let mut command = member("etcd", "default", data, &client, &peer, &cluster);
    let child = command
        .spawn()
        .expect("the etcd program is needed: install Debian's etcd-server");
    (Running::Etcd(child), client)
}

/// A member of a cluster: the flags are etcd's, whichever program it is.
fn member(
    program: &str,
    name: &str,
    data: &std::path::Path,
    client: &str,
    peer: &str,
    cluster: &str,
) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--name", name, "--data-dir"])
        .arg(data)
        .args([
            "--listen-client-urls",
            client,
            "--advertise-client-urls",
            client,
        ])
        .args([
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
        ])
        .args([
            "--initial-cluster",
            cluster,
            "--initial-cluster-state",
            "new",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn free_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Agents that report what their keys hold, at once, or with trouble.
pub(crate) struct Agents {
    troubled: Arc<Mutex<BTreeMap<String, String>>>,
    client: Client,
    ns: Namespace,
    task: JoinHandle<()>,
}

impl Agents {
    pub(crate) async fn start(stand: &Stand, hosts: impl IntoIterator<Item = String>) -> Self {
        let hosts: BTreeSet<String> = hosts.into_iter().collect();
        let (client, ns) = (stand.client.clone(), stand.ns.clone());
        let troubled = Arc::new(Mutex::new(BTreeMap::new()));
        for host in &hosts {
            report(&client, &ns, host, None, None).await.unwrap();
        }
        let (watching, reporting, trouble) = (client.clone(), ns.clone(), troubled.clone());
        let task = tokio::spawn(async move {
            // A stream breaks when a member dies; agents list again and go on.
            while follow(&watching, &reporting, &hosts, &trouble)
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self {
            troubled,
            client,
            ns,
            task,
        }
    }

    /// From now on the first file of this host cannot be read.
    pub(crate) fn trouble(&self, host: &str, reason: &str) {
        self.troubled
            .lock()
            .unwrap()
            .insert(host.into(), reason.into());
    }

    /// The file can be read again, and the agent says so.
    pub(crate) async fn mend(&self, host: &str) {
        self.troubled.lock().unwrap().remove(host);
        let kv = self
            .client
            .get(self.ns.config(host))
            .await
            .unwrap()
            .kv
            .unwrap();
        let config = Some((kv.mod_revision, kv.value));
        report(&self.client, &self.ns, host, config, None)
            .await
            .unwrap();
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Trouble = Mutex<BTreeMap<String, String>>;

async fn follow(
    client: &Client,
    ns: &Namespace,
    hosts: &BTreeSet<String>,
    trouble: &Trouble,
) -> Result<(), ClientError> {
    let prefix = ns.configs();
    let reason = |host: &str| trouble.lock().unwrap().get(host).cloned();
    let host_of = |key: &[u8]| {
        let key = std::str::from_utf8(key).unwrap();
        key.strip_prefix(&prefix).unwrap().to_owned()
    };
    let listed = client.get_prefix(prefix.clone()).await?;
    let revision = listed.header.unwrap().revision;
    for kv in listed.kvs {
        let host = host_of(&kv.key);
        if hosts.contains(&host) {
            report(
                client,
                ns,
                &host,
                Some((kv.mod_revision, kv.value)),
                reason(&host),
            )
            .await?;
        }
    }
    let request = WatchCreateRequest {
        range_end: prefix_end(prefix.as_bytes()),
        key: prefix.clone().into(),
        start_revision: revision + 1,
        ..Default::default()
    };
    let mut watch = client.watch(request).await?;
    loop {
        for event in watch.next().await?.events {
            let is_gone = event.r#type() == EventType::Delete;
            let kv = event.kv.unwrap();
            let host = host_of(&kv.key);
            if hosts.contains(&host) {
                let config = (!is_gone).then_some((kv.mod_revision, kv.value));
                report(client, ns, &host, config, reason(&host)).await?;
            }
        }
    }
}

async fn report(
    client: &Client,
    ns: &Namespace,
    host: &str,
    config: Option<(i64, bytes::Bytes)>,
    trouble: Option<String>,
) -> Result<(), ClientError> {
    let mut status = AgentStatus {
        host: host.into(),
        agent_version: "sim".into(),
        ..Default::default()
    };
    if let Some((revision, value)) = config {
        let sha256 = sha256_hex(&value);
        status.running = Some(RunningConfig {
            revision,
            sha256: sha256.clone(),
            since_ms: 0,
        });
        status.last_attempt = Some(Attempt {
            revision,
            sha256,
            ..Default::default()
        });
        let entries: Vec<serde_json::Value> = serde_json::from_slice(&value).unwrap_or_default();
        let entry = |(index, entry): (usize, &serde_json::Value)| EntryStatus {
            path: entry["path"].as_str().unwrap_or_default().into(),
            topic: entry["topic"].as_str().unwrap_or_default().into(),
            state: if index == 0 && trouble.is_some() {
                EntryState::Failing
            } else {
                EntryState::Running
            },
            error: trouble.clone().filter(|_| index == 0),
            ..Default::default()
        };
        status.entries = entries.iter().enumerate().map(entry).collect();
    }
    let request = PutRequest {
        key: ns.status(host).into(),
        value: serde_json::to_vec(&status).unwrap().into(),
        ..Default::default()
    };
    client.put(request).await.map(drop)
}
