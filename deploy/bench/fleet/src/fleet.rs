//! Many agents, and what can be done to them and seen of them from outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use schemas::fleet::AgentStatus;
use schemas_client::{Client, ClientError, ConnectOptions};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Behaviour;
use crate::agent::Agent;
use crate::document::{Config, Running};

/// How often an agent speaks; the agent's own figures unless told otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub report: Duration,
    pub renewal: Duration,
    pub lease_ttl_s: i64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            report: Duration::from_secs(5),
            renewal: Duration::from_secs(5),
            lease_ttl_s: 15,
        }
    }
}

/// What a fleet needs to start.
#[derive(Debug, Clone)]
pub struct Setup {
    pub options: ConnectOptions,
    pub namespace: String,
    pub timing: Timing,
    /// Agents begin one after the other within this time.
    pub ramp: Duration,
}

impl Setup {
    pub fn new(endpoints: &[String]) -> Self {
        Self {
            options: ConnectOptions::new(endpoints.to_vec()),
            namespace: "/ningxin/backend".into(),
            timing: Timing::default(),
            ramp: Duration::ZERO,
        }
    }
}

/// One agent as seen from outside.
#[derive(Debug, Default)]
pub struct Member {
    seen: Mutex<Seen>,
    breaks: AtomicU64,
    reports: AtomicU64,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    /// Where its watch is; `None` while it has none.
    endpoint: Option<String>,
    connected_at: Option<Instant>,
    /// The hash of what runs, and when the store acknowledged the status that first said so.
    running: Option<(String, Instant)>,
    trouble: Option<String>,
}

impl Member {
    pub(crate) fn connected(&self, endpoint: &str) {
        let mut seen = self.seen.lock();
        seen.endpoint = Some(endpoint.to_owned());
        seen.connected_at = Some(Instant::now());
        seen.trouble = None;
    }

    pub(crate) fn lost(&self, error: &ClientError) {
        self.breaks.fetch_add(1, Ordering::Relaxed);
        let mut seen = self.seen.lock();
        seen.endpoint = None;
        seen.trouble = Some(error.to_string());
    }

    pub(crate) fn reported(&self, sha256: Option<String>) {
        self.reports.fetch_add(1, Ordering::Relaxed);
        let mut seen = self.seen.lock();
        let is_same = seen.running.as_ref().map(|(known, _)| known) == sha256.as_ref();
        if !is_same {
            seen.running = sha256.map(|sha256| (sha256, Instant::now()));
        }
    }

    /// The endpoint that serves its watch; `None` while there is none.
    pub fn endpoint(&self) -> Option<String> {
        self.seen.lock().endpoint.clone()
    }

    /// When its present watch was opened.
    pub fn connected_at(&self) -> Option<Instant> {
        let seen = self.seen.lock();
        seen.connected_at.filter(|_| seen.endpoint.is_some())
    }

    /// What it runs, and when the store acknowledged the status that says so.
    pub fn running(&self) -> Option<(String, Instant)> {
        self.seen.lock().running.clone()
    }

    /// Why it has no watch.
    pub fn trouble(&self) -> Option<String> {
        self.seen.lock().trouble.clone()
    }

    /// Statuses that the store acknowledged.
    pub fn reports(&self) -> u64 {
        self.reports.load(Ordering::Relaxed)
    }

    /// How often it lost the store.
    pub fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::Relaxed)
    }
}

struct Handle {
    behaviour: watch::Sender<Behaviour>,
    member: Arc<Member>,
}

/// Agents that live as long as this value.
pub struct Fleet {
    handles: BTreeMap<String, Handle>,
    _tasks: JoinSet<()>,
}

impl Fleet {
    /// Starts one agent per host; needs a runtime around it.
    ///
    /// # Errors
    /// When the options do not make a client.
    pub fn start(
        setup: &Setup,
        hosts: impl IntoIterator<Item = String>,
    ) -> Result<Self, ClientError> {
        let mut tasks = JoinSet::new();
        let mut handles = BTreeMap::new();
        let hosts: Vec<String> = hosts.into_iter().collect();
        let count = hosts.len().max(1);
        for (index, host) in hosts.into_iter().enumerate() {
            let (behaviour, receiver) = watch::channel(Behaviour::default());
            let member = Arc::new(Member::default());
            let agent = agent(setup, &host, index, receiver, Arc::clone(&member))?;
            let begins = setup.ramp.mul_f64(index as f64 / count as f64);
            tasks.spawn(async move {
                tokio::time::sleep(begins).await;
                agent.run().await;
            });
            handles.insert(host, Handle { behaviour, member });
        }
        Ok(Self {
            handles,
            _tasks: tasks,
        })
    }

    /// Has an agent behave like this from now on, and say so at once.
    ///
    /// # Panics
    /// When there is no such host.
    pub fn set(&self, host: &str, behaviour: Behaviour) {
        self.handles[host].behaviour.send_replace(behaviour);
    }

    /// # Panics
    /// When there is no such host.
    pub fn member(&self, host: &str) -> &Member {
        &self.handles[host].member
    }

    /// By host.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.handles
            .iter()
            .map(|(host, handle)| (host.as_str(), &*handle.member))
    }

    pub fn len(&self) -> usize {
        self.handles.len()
    }

    pub fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }
}

fn agent(
    setup: &Setup,
    host: &str,
    index: usize,
    behaviour: watch::Receiver<Behaviour>,
    member: Arc<Member>,
) -> Result<Agent, ClientError> {
    let mut options = setup.options.clone();
    // Agents of a large fleet name their members in different orders.
    let turn = index % options.endpoints.len().max(1);
    options.endpoints.rotate_left(turn);
    let ns = setup.namespace.trim_end_matches('/');
    let config_key = format!("{ns}/logagent/config/{host}");
    let base = AgentStatus {
        agent_version: "simulated".into(),
        instance: format!("{}-{index}", std::process::id()),
        hostname: host.to_owned(),
        host: host.to_owned(),
        config_key: config_key.clone(),
        ..AgentStatus::default()
    };
    Ok(Agent {
        client: Client::new(options)?,
        config_key: config_key.into(),
        status_key: format!("{ns}/logagent/status/{host}").into(),
        base,
        timing: setup.timing,
        behaviour,
        member,
        // The golden ratio spreads any number of them evenly.
        phase: (index as f64 * 0.618_033_988_749_895).fract(),
        seen: Config::default(),
        running: Running::default(),
        lines: 0,
        lease: None,
    })
}
