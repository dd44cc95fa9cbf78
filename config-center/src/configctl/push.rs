//! `push` and `rm-path`: publish to one or many hosts, then wait for their agents if asked to.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, stream};
use schemas::agent::{LogEntry, validate_path, validate_topic};
use serde::Serialize;

use super::{
    Context,
    document::Document,
    exit::{Exit, Failure, combined},
    flags,
    host_state::{Desired, problem_sentence},
    merge::{self, Change, OtherTopic},
    publish::{Edited, Published, publish},
    wait::{News, Outcome, Target, wait_for_agents},
};

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
struct Note {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic_before: Option<String>,
}

impl Note {
    fn sentence(&self) -> String {
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
struct HostResult {
    host: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    written: bool,
    changes: Vec<Note>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

#[derive(Debug, Serialize)]
struct AgentResult {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

pub(crate) async fn push(context: &Context, args: &flags::Push) -> Result<Exit, Failure> {
    validate_topic(&args.topic).map_err(Failure::invalid)?;
    let mut wanted: Vec<LogEntry> = Vec::new();
    for path in &args.paths {
        validate_path(path).map_err(Failure::invalid)?;
        let entry = LogEntry {
            path: path.clone(),
            topic: args.topic.clone(),
        };
        if !wanted.contains(&entry) {
            wanted.push(entry);
        }
    }
    let other_topic = if args.add {
        OtherTopic::KeepBoth
    } else {
        OtherTopic::Change
    };
    let still_holds =
        |document: &Document| wanted.iter().all(|entry| merge::holds(document, entry));
    let edit = |host: &str, document: Option<&Document>| {
        let mut document = document.cloned().unwrap_or_default();
        let mut notes = Vec::new();
        for entry in &wanted {
            let (after, change) = merge::push(&document, entry, other_topic)
                .map_err(|ambiguous| Failure::invalid(format!("{host}: {ambiguous}")))?;
            document = after;
            notes.push(push_note(entry, change));
        }
        Ok(Edited { document, notes })
    };
    change_hosts(context, &args.hosts, &args.wait, edit, &still_holds).await
}

fn push_note(entry: &LogEntry, change: Change) -> Note {
    let (change, topic_before) = match change {
        Change::Added => ("added", None),
        Change::TopicChanged { from } => ("topic changed", from),
        Change::AlreadyThere => ("already there", None),
    };
    Note {
        path: entry.path.clone(),
        topic: Some(entry.topic.clone()),
        change,
        topic_before,
    }
}

pub(crate) async fn rm_path(context: &Context, args: &flags::RmPath) -> Result<Exit, Failure> {
    let topic = args.topic.as_deref();
    let still_holds = |document: &Document| {
        let is_gone = |path: &String| merge::remove(document, path, topic).1.is_empty();
        args.paths.iter().all(is_gone)
    };
    let edit = |host: &str, document: Option<&Document>| {
        let not_found = |what: String| Failure::new(Exit::NotFound, format!("{host}: {what}"));
        let mut document = document
            .cloned()
            .ok_or_else(|| not_found("no configuration; nothing was changed".into()))?;
        let mut notes = Vec::new();
        for path in &args.paths {
            let (after, topics) = merge::remove(&document, path, topic);
            if topics.is_empty() {
                let with = topic.map(|topic| format!(" → {topic}")).unwrap_or_default();
                return Err(not_found(format!(
                    "{path}{with} is not there; nothing was changed"
                )));
            }
            document = after;
            notes.extend(topics.into_iter().map(|topic| Note {
                path: path.clone(),
                topic,
                change: "removed",
                topic_before: None,
            }));
        }
        Ok(Edited { document, notes })
    };
    change_hosts(context, &args.hosts, &args.wait, edit, &still_holds).await
}

async fn change_hosts(
    context: &Context,
    hosts: &flags::Hosts,
    wait: &flags::Wait,
    edit: impl Fn(&str, Option<&Document>) -> Result<Edited<Vec<Note>>, Failure>,
    still_holds: &(dyn Fn(&Document) -> bool + Sync),
) -> Result<Exit, Failure> {
    let edit = &edit;
    let changed: Vec<_> = stream::iter(hosts.names()?)
        .map(|host| async move {
            let key = context.namespace.config(&host);
            let published = publish(&context.client, &host, &key, |document| {
                edit(&host, document)
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
                still_holds,
            });
        }
        let result = host_result(host, key, published);
        tell_published(context, &result)?;
        results.push(result);
    }
    if wait.wait && !targets.is_empty() {
        wait_for(context, wait, targets, &mut results).await?;
    }
    if !context.out.is_prose() {
        print_results(context, &results)?;
    }
    Ok(combined(results.iter().map(|result| result.exit)))
}

fn host_result(
    host: String,
    key: String,
    published: Result<Published<Vec<Note>>, Failure>,
) -> HostResult {
    match published {
        Ok(published) => HostResult {
            host,
            key,
            revision: Some(published.revision),
            sha256: Some(published.sha256),
            written: published.written,
            changes: published.notes,
            agent: None,
            error: None,
            exit: Exit::Done,
        },
        Err(failure) => HostResult {
            host,
            key,
            revision: None,
            sha256: None,
            written: false,
            changes: Vec::new(),
            agent: None,
            error: Some(failure.message),
            exit: failure.exit,
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

async fn wait_for(
    context: &Context,
    wait: &flags::Wait,
    targets: Vec<Target<'_>>,
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
    let mut slowest_ms = 0;
    let mut applied = 0;
    for (host, outcome) in hosts.iter().zip(&outcomes) {
        let (exit, agent, sentence) = describe(host, outcome, wait);
        if let Some(took_ms) = agent.took_ms {
            applied += 1;
            slowest_ms = slowest_ms.max(took_ms);
            if alone && context.out.is_prose() {
                context.out.line(&sentence)?;
            }
        } else {
            context.out.remark(&format!("configctl: {sentence}"));
        }
        if let Some(result) = results.iter_mut().find(|result| &result.host == host) {
            result.exit = combined([result.exit, exit]);
            result.agent = Some(agent);
        }
    }
    if !alone && context.out.is_prose() {
        let slowest = match applied {
            0 => String::new(),
            _ => format!(", slowest {slowest_ms} ms"),
        };
        context.out.line(&format!(
            "applied on {applied}/{} hosts{slowest}",
            hosts.len()
        ))?;
    }
    Ok(())
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
