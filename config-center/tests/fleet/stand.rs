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
    mvccpb::event::EventType,
};
use schemas_client::{Client, ConnectOptions, prefix_end};
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

    pub(crate) async fn stop(self) {
        match self.running {
            Running::Own(mut server) => server.take().unwrap().shutdown().await,
            Running::Etcd(mut child) => child.kill().await.unwrap(),
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_configctl"));
        command
            .args(["--endpoints", &self.endpoint])
            .args(args)
            .env_remove("ETCDCTL_ENDPOINTS")
            .env("USER", "anna")
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
        let kv = self.client.get(self.ns.config(host)).await.unwrap().kv?;
        Some(String::from_utf8(kv.value.to_vec()).unwrap())
    }

    /// How often a host's key was written.
    pub(crate) async fn writes(&self, host: &str) -> i64 {
        let kv = self.client.get(self.ns.config(host)).await.unwrap().kv;
        kv.map_or(0, |kv| kv.version)
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
    let mut urls = Vec::new();
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        urls.push(format!("http://{}", listener.local_addr().unwrap()));
    }
    let (client, peer) = (&urls[0], &urls[1]);
    let mut command = Command::new("etcd");
    command
        .args([
            "--name",
            "default",
            "--logger",
            "zap",
            "--log-outputs",
            "stderr",
            "--data-dir",
        ])
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
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let child = command
        .spawn()
        .expect("the etcd program is needed: install Debian's etcd-server");
    (Running::Etcd(child), client.clone())
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
            report(&client, &ns, host, None, None).await;
        }
        let prefix = ns.configs();
        let mut watch = client
            .watch(WatchCreateRequest {
                range_end: prefix_end(prefix.as_bytes()),
                key: prefix.clone().into(),
                ..Default::default()
            })
            .await
            .unwrap();
        let (watching, reporting, trouble) = (client.clone(), ns.clone(), troubled.clone());
        let task = tokio::spawn(async move {
            while let Ok(response) = watch.next().await {
                for event in response.events {
                    let is_gone = event.r#type() == EventType::Delete;
                    let kv = event.kv.unwrap();
                    let key = String::from_utf8(kv.key.to_vec()).unwrap();
                    let host = key.strip_prefix(&prefix).unwrap().to_owned();
                    if hosts.contains(&host) {
                        let reason = trouble.lock().unwrap().get(&host).cloned();
                        let config = (!is_gone).then_some((kv.mod_revision, kv.value));
                        report(&watching, &reporting, &host, config, reason).await;
                    }
                }
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
        report(
            &self.client,
            &self.ns,
            host,
            Some((kv.mod_revision, kv.value)),
            None,
        )
        .await;
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn report(
    client: &Client,
    ns: &Namespace,
    host: &str,
    config: Option<(i64, bytes::Bytes)>,
    trouble: Option<String>,
) {
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
    client.put(request).await.unwrap();
}
