//! `push` and `rm-path`: publish to one or many hosts, then wait for their agents if asked to.
//!
//! Of a host of which objects speak, the objects are changed (`push_objects`): its key follows from
//! them, and an edit of the key would be drift. The keys of other hosts are written as they are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use config_center_core::fleet::merge::Ambiguous;
use futures::{StreamExt as _, stream};
use schemas::{
    agent::{LogEntry, validate_path, validate_topic},
    objects::{Name, Selector},
};
use serde::Serialize;

use super::{
    Context,
    document::Document,
    exit::{Exit, Failure, combined},
    flags,
    flags::{Place, Where},
    host_state::{Desired, problem_sentence},
    merge::{self, Change, OtherTopic},
    publish::{Edited, Published, publish},
    push_objects,
    rollouts::p99_ms,
    sha256_hex,
    wait::{News, Outcome, Target, first_line, wait_for_agents},
};
use crate::fleet::{error::FleetError, snapshot, view::View};

/// Hosts that are written to at the same time.
const HOSTS_AT_ONCE: usize = 16;

/// What has been published so far: an interrupted command says what stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing(Arc<Mutex<Vec<(String, i64)>>>);

impl Standing {
    fn add(&self, host: &str, revision: i64) {
        let mut published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.push((host.to_owned(), revision));
    }

    pub(crate) fn add_release(&self, number: u64) {
        let mut published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.push((format!("release {number}"), 0));
    }

    /// One phrase per host, such as "192.168.56.1 at revision 12".
    pub(crate) fn words(&self) -> Vec<String> {
        let published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let phrase = |(what, revision): &(String, i64)| match revision {
            0 => what.clone(),
            revision => format!("{what} at revision {revision}"),
        };
        published.iter().map(phrase).collect()
    }
}

/// What happened to one path on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Note {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic_before: Option<String>,
}

impl Note {
    pub(crate) fn pushed(entry: &LogEntry, change: Change) -> Self {
        let (change, topic_before) = match change {
            Change::Added => ("added", None),
            Change::TopicChanged { from } => ("topic changed", from),
            Change::AlreadyThere => ("already there", None),
        };
        Self {
            path: entry.path.clone(),
            topic: Some(entry.topic.clone()),
            change,
            topic_before,
        }
    }

    pub(crate) fn removed(path: &str, topic: Option<String>) -> Self {
        Self {
            path: path.to_owned(),
            topic,
            change: "removed",
            topic_before: None,
        }
    }

    pub(crate) fn sentence(&self) -> String {
        let topic = self.topic.as_deref().unwrap_or("no topic");
        let path = &self.path;
        match (self.change, self.topic_before.as_deref()) {
            ("topic changed", before) => {
                format!(
                    "{path}: topic changed {} → {topic}",
                    before.unwrap_or("none")
                )
            }
            ("already there", _) => format!("{path} → {topic} is already there"),
            (change, _) => format!("{change} {path} → {topic}"),
        }
    }
}

/// The result for one host, as `-o json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct HostResult {
    pub(crate) host: String,
    pub(crate) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revision: Option<i64>,
    /// The release by which it is published; absent when the key alone was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) release: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
    pub(crate) written: bool,
    pub(crate) changes: Vec<Note>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<AgentResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip)]
    pub(crate) exit: Exit,
}

#[derive(Debug, Serialize)]
pub(crate) struct AgentResult {
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) took_ms: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<String>,
}

/// What is asked for, whatever it is done to.
pub(crate) enum Wanted {
    Push(Vec<LogEntry>, OtherTopic),
    Remove {
        paths: Vec<String>,
        topic: Option<String>,
    },
}

impl Wanted {
    /// The entries whose first lines are worth waiting for.
    pub(crate) fn entries(&self) -> &[LogEntry] {
        match self {
            Self::Push(entries, _) => entries,
            Self::Remove { .. } => &[],
        }
    }

    fn holds(&self, document: &Document) -> bool {
        match self {
            Self::Push(entries, _) => entries.iter().all(|entry| merge::holds(document, entry)),
            Self::Remove { paths, topic } => paths
                .iter()
                .all(|path| merge::remove(document, path, topic.as_deref()).1.is_empty()),
        }
    }

    fn edit(&self, host: &str, document: Option<&Document>) -> Result<Edited<Vec<Note>>, Failure> {
        match self {
            Self::Push(entries, other_topic) => {
                let mut document = document.cloned().unwrap_or_default();
                let mut notes = Vec::new();
                for entry in entries {
                    let ambiguous = |error: Ambiguous| Failure::invalid(format!("{host}: {error}"));
                    let (after, change) =
                        merge::push(&document, entry, *other_topic).map_err(ambiguous)?;
                    document = after;
                    notes.push(Note::pushed(entry, change));
                }
                Ok(Edited { document, notes })
            }
            Self::Remove { paths, topic } => {
                let topic = topic.as_deref();
                let not_found =
                    |what: String| Failure::new(Exit::NotFound, format!("{host}: {what}"));
                let mut document = document
                    .cloned()
                    .ok_or_else(|| not_found("no configuration; nothing was changed".into()))?;
                let mut notes = Vec::new();
                for path in paths {
                    let (after, topics) = merge::remove(&document, path, topic);
                    if topics.is_empty() {
                        return Err(not_found(format!(
                            "{}; nothing was changed",
                            missing(path, topic)
                        )));
                    }
                    document = after;
                    notes.extend(topics.into_iter().map(|topic| Note::removed(path, topic)));
                }
                Ok(Edited { document, notes })
            }
        }
    }
}

pub(crate) fn missing(path: &str, topic: Option<&str>) -> String {
    let with = topic.map(|topic| format!(" → {topic}")).unwrap_or_default();
    format!("{path}{with} is not there")
}

pub(crate) async fn push(context: &Context, args: &flags::Push) -> Result<Exit, Failure> {
    validate_topic(&args.topic).map_err(Failure::invalid)?;
    let mut entries: Vec<LogEntry> = Vec::new();
    for path in &args.paths {
        validate_path(path).map_err(Failure::invalid)?;
        let entry = LogEntry {
            path: path.clone(),
            topic: args.topic.clone(),
        };
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    let other_topic = if args.add {
        OtherTopic::KeepBoth
    } else {
        OtherTopic::Change
    };
    let wanted = Wanted::Push(entries, other_topic);
    let how = push_objects::How {
        why: &args.why,
        wait: &args.wait,
        allow_emptying: false,
    };
    change(context, &args.place, &wanted, &how).await
}

pub(crate) async fn rm_path(context: &Context, args: &flags::RmPath) -> Result<Exit, Failure> {
    let wanted = Wanted::Remove {
        paths: args.paths.clone(),
        topic: args.topic.clone(),
    };
    let how = push_objects::How {
        why: &args.why,
        wait: &args.wait,
        allow_emptying: args.allow_emptying,
    };
    change(context, &args.place, &wanted, &how).await
}

async fn change(
    context: &Context,
    place: &Place,
    wanted: &Wanted,
    how: &push_objects::How<'_>,
) -> Result<Exit, Failure> {
    let hosts = match place.read()? {
        Where::Group(group) => return push_objects::group(context, &group, wanted, how).await,
        Where::Hosts(hosts) => hosts,
        Where::Selected(selector) => selected(context, &selector).await?,
    };
    let (declared, plain) = split(context, hosts).await?;
    let mut results = Vec::new();
    if !declared.is_empty() {
        results.extend(push_objects::hosts(context, &declared, wanted, how).await?);
    }
    if !plain.is_empty() {
        results.extend(change_keys(context, plain, wanted, how.wait).await?);
    }
    if !context.out.is_prose() {
        print_results(context, &results)?;
    }
    Ok(combined(results.iter().map(|result| result.exit)))
}

/// Hosts that have these labels by their objects, or else by what their agents say.
async fn selected(context: &Context, selector: &Selector) -> Result<Vec<String>, Failure> {
    let inventory = snapshot::read(&context.client, &context.namespace)
        .await?
        .inventory;
    let view = View::load(&context.client, &context.namespace).await?;
    let mut known: BTreeMap<String, bool> = BTreeMap::new();
    for host in view.hosts() {
        known.insert(host.to_owned(), selector.matches(&view.labels(host)));
    }
    for host in inventory.host_names() {
        if let Some((object, _)) = inventory.host(&host) {
            let labels = &object.metadata.labels;
            known.insert(host.to_string(), selector.matches(labels));
        }
    }
    let hosts: Vec<String> = known
        .into_iter()
        .filter_map(|(host, matches)| matches.then_some(host))
        .collect();
    if hosts.is_empty() {
        let message = "no host has these labels; nothing was changed";
        return Err(Failure::new(Exit::NotFound, message));
    }
    Ok(hosts)
}

/// Hosts of which objects speak, and the others.
async fn split(context: &Context, hosts: Vec<String>) -> Result<(Vec<Name>, Vec<String>), Failure> {
    let declared = match snapshot::read(&context.client, &context.namespace).await {
        Ok(snapshot) => snapshot.inventory.host_names(),
        // Who may write keys and not read objects has plain keys to work with.
        Err(FleetError::Client(error)) if error.is_denied() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for host in hosts {
        match declared.iter().find(|name| name.as_str() == host) {
            Some(name) => with.push(name.clone()),
            None => without.push(host),
        }
    }
    Ok((with, without))
}

async fn change_keys(
    context: &Context,
    hosts: Vec<String>,
    wanted: &Wanted,
    wait: &flags::Wait,
) -> Result<Vec<HostResult>, Failure> {
    let still_holds = |document: &Document| wanted.holds(document);
    let changed: Vec<_> = stream::iter(hosts)
        .map(|host| async move {
            let key = context.namespace.config(&host);
            let published = publish(&context.client, &host, &key, |document| {
                wanted.edit(&host, document)
            })
            .await;
            if let Ok(published) = &published {
                context.standing.add(&host, published.revision);
            }
            (host, key, published)
        })
        .buffered(HOSTS_AT_ONCE)
        .collect()
        .await;
    let mut results = Vec::new();
    let mut targets = Vec::new();
    for (host, key, published) in changed {
        if let Ok(published) = &published {
            targets.push(Target {
                host: host.clone(),
                desired: Desired {
                    revision: published.revision,
                    sha256: published.sha256.clone(),
                },
                sent_at: published.sent_at,
                still_holds: &still_holds,
            });
        }
        let result = host_result(host, key, published);
        tell_published(context, &result)?;
        results.push(result);
    }
    if wait.wait && !targets.is_empty() {
        wait_for(context, wait, targets, wanted, &mut results).await?;
    }
    Ok(results)
}

fn host_result(
    host: String,
    key: String,
    published: Result<Published<Vec<Note>>, Failure>,
) -> HostResult {
    let nothing = HostResult {
        host,
        key,
        revision: None,
        release: None,
        sha256: None,
        written: false,
        changes: Vec::new(),
        agent: None,
        error: None,
        exit: Exit::Done,
    };
    match published {
        Ok(published) => HostResult {
            revision: Some(published.revision),
            sha256: Some(published.sha256),
            written: published.written,
            changes: published.notes,
            ..nothing
        },
        Err(failure) => HostResult {
            error: Some(failure.message),
            exit: failure.exit,
            ..nothing
        },
    }
}

fn tell_published(context: &Context, result: &HostResult) -> Result<(), Failure> {
    if let Some(error) = &result.error {
        context.out.remark(&format!("configctl: {error}"));
    }
    if !context.out.is_prose() {
        return Ok(());
    }
    let written = if result.written {
        ""
    } else {
        ", nothing written"
    };
    for note in &result.changes {
        let revision = result.revision.unwrap_or_default();
        let sentence = note.sentence();
        context.out.line(&format!(
            "{}: {sentence} (revision {revision}{written})",
            result.host
        ))?;
    }
    Ok(())
}

/// Waits for hosts whose keys hold already what is wanted.
pub(crate) async fn wait_for_standing(
    context: &Context,
    wait: &flags::Wait,
    wanted: &Wanted,
    results: &mut [HostResult],
) -> Result<(), Failure> {
    let still_holds = |document: &Document| wanted.holds(document);
    let mut targets = Vec::new();
    for result in results.iter_mut() {
        match context.client.get(result.key.clone()).await?.kv {
            Some(kv) => targets.push(Target {
                host: result.host.clone(),
                desired: Desired {
                    revision: kv.mod_revision,
                    sha256: sha256_hex(&kv.value),
                },
                sent_at: Instant::now(),
                still_holds: &still_holds,
            }),
            None => {
                result.exit = Exit::AnsweredNo;
                result.agent = Some(AgentResult {
                    state: "pending",
                    took_ms: None,
                    errors: vec!["its key is not written yet: a rollout is under way".into()],
                });
            }
        }
    }
    if targets.is_empty() {
        return Ok(());
    }
    wait_for(context, wait, targets, wanted, results).await
}

async fn wait_for(
    context: &Context,
    wait: &flags::Wait,
    targets: Vec<Target<'_>>,
    wanted: &Wanted,
    results: &mut [HostResult],
) -> Result<(), Failure> {
    let hosts: Vec<String> = targets.iter().map(|target| target.host.clone()).collect();
    let alone = hosts.len() == 1;
    let tell =
        |news: News<'_>| {
            match news {
        News::Settled { host, outcome } => {
            if let (Outcome::Applied { took }, false) = (outcome, alone) {
                let took_ms = took.as_millis();
                context.out.remark(&format!("applied on {host} in {took_ms} ms"));
            }
        }
        News::NoAgentYet { host, revision } => context.out.remark(&format!(
            "no agent reports for {host}; the config is stored at revision {revision} and will be \
             applied when one starts"
        )),
        News::AgentGone { host } => {
            context.out.remark(&format!("the agent of {host} stopped reporting"));
        }
        News::StoreGone { reason } => context.out.remark(&format!("still waiting: {reason}")),
    }
        };
    let outcomes = wait_for_agents(
        &context.client,
        &context.namespace,
        targets,
        wait.timeout,
        tell,
    )
    .await?;
    let mut took: BTreeMap<String, Duration> = BTreeMap::new();
    for (host, outcome) in hosts.iter().zip(&outcomes) {
        let (exit, agent, sentence) = describe(host, outcome, wait);
        if let Outcome::Applied { took: time } = outcome {
            took.insert(host.clone(), *time);
        } else {
            context.out.remark(&format!("configctl: {sentence}"));
        }
        if let Some(result) = results.iter_mut().find(|result| &result.host == host) {
            result.exit = combined([result.exit, exit]);
            result.agent = Some(agent);
        }
    }
    if context.out.is_prose() {
        tell_applied(context, &hosts, &took, wanted).await?;
    }
    Ok(())
}

/// "applied on 12/12 hosts, p99 84 ms; first line in Kafka after 210 ms"
pub(crate) async fn tell_applied(
    context: &Context,
    hosts: &[String],
    took: &BTreeMap<String, Duration>,
    wanted: &Wanted,
) -> Result<(), Failure> {
    let mut words = match (hosts, took.len()) {
        ([_], 0) => return Ok(()),
        ([only], _) => format!("applied on {only} in {} ms", p99_ms(took.values().copied())),
        (_, 0) => format!("applied on 0/{} hosts", hosts.len()),
        (_, applied) => format!(
            "applied on {applied}/{} hosts, p99 {} ms",
            hosts.len(),
            p99_ms(took.values().copied())
        ),
    };
    if !wanted.entries().is_empty() && !took.is_empty() {
        let (client, ns) = (&context.client, &context.namespace);
        words.push_str(
            &match first_line(client, ns, took, wanted.entries()).await {
                Some(after) => format!("; first line in Kafka after {} ms", after.as_millis()),
                None => "; no line in Kafka yet".to_owned(),
            },
        );
    }
    context.out.line(&words)
}

fn describe(host: &str, outcome: &Outcome, wait: &flags::Wait) -> (Exit, AgentResult, String) {
    let agent = |state, errors| AgentResult {
        state,
        took_ms: None,
        errors,
    };
    let waited_s = wait.timeout.as_secs_f64();
    match outcome {
        Outcome::Applied { took } => {
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let result = AgentResult {
                state: "applied",
                took_ms: Some(took_ms),
                errors: Vec::new(),
            };
            (
                Exit::Done,
                result,
                format!("applied on {host} in {took_ms} ms"),
            )
        }
        Outcome::PartlyApplied(problems) => {
            let errors: Vec<String> = problems.iter().map(problem_sentence).collect();
            let sentence = format!("{host} applied it only in part: {}", errors.join("; "));
            (Exit::AnsweredNo, agent("partly applied", errors), sentence)
        }
        Outcome::Rejected(problems) => {
            let errors: Vec<String> = problems.iter().map(problem_sentence).collect();
            let sentence = format!(
                "{host} rejected it and goes on with what it ran before: {}",
                errors.join("; ")
            );
            (Exit::AnsweredNo, agent("rejected", errors), sentence)
        }
        Outcome::Superseded { revision } => {
            let sentence =
                format!("{host} runs revision {revision}, in which a later change took this back");
            (Exit::AnsweredNo, agent("superseded", Vec::new()), sentence)
        }
        Outcome::TimedOut => {
            let sentence = format!(
                "the agent of {host} did not report it within {waited_s} s; the publish stands, see \
                 `configctl agents list`"
            );
            (Exit::Timeout, agent("pending", Vec::new()), sentence)
        }
        Outcome::NoAgent => {
            let sentence =
                format!("no agent reported for {host} within {waited_s} s; the publish stands");
            (Exit::Timeout, agent("offline", Vec::new()), sentence)
        }
    }
}

fn print_results(context: &Context, results: &[HostResult]) -> Result<(), Failure> {
    if context.out.format != flags::Format::Name {
        return context.out.document(&results);
    }
    for result in results.iter().filter(|result| result.exit == Exit::Done) {
        context.out.line(&result.host)?;
    }
    Ok(())
}
