//! `push` and `rm-path` where objects speak: the change is a release, with author and reason, and
//! travels by the rollout policies of the groups.

use std::collections::BTreeMap;

use config_center_core::fleet::{
    edit::{push_to_group, push_to_host, remove_from_group, remove_from_host},
    inventory::Inventory,
    render::effective,
};
use schemas::{
    agent::LogEntry,
    objects::{Group, Host, LogPath, Name, Object, Topic},
};

use super::{
    Context, actor,
    exit::{Exit, Failure},
    flags,
    push::{AgentResult, HostResult, Note, Wanted, missing, tell_applied, wait_for_standing},
    rollouts::{self, Followed},
};
use crate::fleet::{edit::publish_edit, error::FleetError, publish::Published};

/// What goes with every such change.
pub(crate) struct How<'a> {
    pub(crate) why: &'a flags::Why,
    pub(crate) wait: &'a flags::Wait,
    pub(crate) allow_emptying: bool,
}

type Notes = BTreeMap<Name, Vec<Note>>;

/// Changes a group, and with it what all of its hosts collect.
pub(crate) async fn group(
    context: &Context,
    name: &Name,
    wanted: &Wanted,
    how: &How<'_>,
) -> Result<Exit, Failure> {
    let edit = |inventory: &Inventory| -> Result<(Vec<Object>, Notes), FleetError> {
        let there = inventory
            .groups()
            .find(|(group, _)| group.metadata.name == *name);
        let (group, _) =
            there.ok_or_else(|| FleetError::NotFound(format!("there is no group {name}")))?;
        let mut after = group.clone();
        let notes = edit_group(&mut after, wanted)?;
        let objects = if after == *group {
            Vec::new()
        } else {
            vec![Object::Group(after)]
        };
        Ok((objects, Notes::from([(name.clone(), notes)])))
    };
    let (published, notes) = publish(context, how, edit).await?;
    if context.out.is_prose() {
        for note in notes.values().flatten() {
            context
                .out
                .line(&format!("Group/{name}: {}", note.sentence()))?;
        }
    }
    let hosts: Vec<String> = hosts_of(&published);
    let longest = how.wait.wait.then_some(how.wait.timeout);
    let Followed { exit, stopwatch } = rollouts::follow(context, published, longest).await?;
    if how.wait.wait && context.out.is_prose() && !hosts.is_empty() {
        tell_applied(context, &hosts, &stopwatch.applied, wanted).await?;
    }
    Ok(exit)
}

fn hosts_of(published: &Published) -> Vec<String> {
    let release = published.release.as_ref();
    release.map_or_else(Vec::new, |release| release.hosts.clone())
}

fn edit_group(group: &mut Group, wanted: &Wanted) -> Result<Vec<Note>, FleetError> {
    let mut notes = Vec::new();
    match wanted {
        Wanted::Push(entries, other) => {
            for entry in entries {
                let (path, topic) = parts(entry)?;
                let change = push_to_group(group, &path, &topic, *other)
                    .map_err(|ambiguous| FleetError::Invalid(ambiguous.to_string()))?;
                notes.push(Note::pushed(entry, change));
            }
        }
        Wanted::Remove { paths, topic } => {
            for path in paths {
                let removed = remove_from_group(group, &log_path(path)?, of(topic)?.as_ref());
                if removed.is_empty() {
                    return Err(FleetError::NotFound(format!(
                        "Group/{}: {} among its own entries; nothing was changed. What comes from a \
                         log set is changed there",
                        group.metadata.name,
                        missing(path, topic.as_deref())
                    )));
                }
                let topics = removed.into_iter().map(|topic| topic.to_string());
                notes.extend(topics.map(|topic| Note::removed(path, Some(topic))));
            }
        }
    }
    Ok(notes)
}

/// Changes the objects of these hosts in one release.
pub(crate) async fn hosts(
    context: &Context,
    hosts: &[Name],
    wanted: &Wanted,
    how: &How<'_>,
) -> Result<Vec<HostResult>, Failure> {
    let edit = |inventory: &Inventory| -> Result<(Vec<Object>, Notes), FleetError> {
        let (mut objects, mut all_notes) = (Vec::new(), Notes::new());
        for name in hosts {
            let there = inventory.host(name).map(|(host, _)| host.clone());
            let mut host = there
                .clone()
                .unwrap_or_else(|| Host::new(name.clone(), Default::default()));
            let notes = edit_host(inventory, &mut host, wanted)?;
            let is_new = there.as_ref() != Some(&host);
            let says_something = there.is_some() || host.spec != Default::default();
            if is_new && says_something {
                objects.push(Object::Host(host));
            }
            all_notes.insert(name.clone(), notes);
        }
        Ok((objects, all_notes))
    };
    let (published, notes) = publish(context, how, edit).await?;
    let release = published.release.as_ref().map(|release| release.number);
    let mut results: Vec<HostResult> = notes
        .into_iter()
        .map(|(host, changes)| HostResult {
            key: context.namespace.config(host.as_str()),
            host: host.to_string(),
            revision: Some(published.revision),
            release,
            sha256: None,
            written: release.is_some(),
            changes,
            agent: None,
            error: None,
            exit: Exit::Done,
        })
        .collect();
    if context.out.is_prose() {
        for result in &results {
            for note in &result.changes {
                context
                    .out
                    .line(&format!("{}: {}", result.host, note.sentence()))?;
            }
        }
    }
    if release.is_none() {
        if how.wait.wait {
            wait_for_standing(context, how.wait, wanted, &mut results).await?;
        }
        return Ok(results);
    }
    let longest = how.wait.wait.then_some(how.wait.timeout);
    let followed = rollouts::follow_quietly(context, published, longest).await?;
    let names: Vec<String> = results.iter().map(|result| result.host.clone()).collect();
    if how.wait.wait && context.out.is_prose() {
        tell_applied(context, &names, &followed.stopwatch.applied, wanted).await?;
    }
    if how.wait.wait {
        for result in &mut results {
            judge(result, &followed);
        }
    }
    Ok(results)
}

/// What became of one host of a release that was waited for.
fn judge(result: &mut HostResult, followed: &Followed) {
    let took = followed.stopwatch.applied.get(&result.host);
    let took_ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    let is_applied = took.is_some();
    result.agent = Some(AgentResult {
        state: if is_applied { "applied" } else { "pending" },
        took_ms,
        errors: Vec::new(),
    });
    if !is_applied {
        result.exit = match followed.exit {
            Exit::Done => Exit::Timeout,
            exit => exit,
        };
    }
}

fn edit_host(
    inventory: &Inventory,
    host: &mut Host,
    wanted: &Wanted,
) -> Result<Vec<Note>, FleetError> {
    let name = host.metadata.name.clone();
    // Objects that contradict each other here may be mended by exactly this change.
    let now = effective(inventory, &name).ok();
    let mut notes = Vec::new();
    match wanted {
        Wanted::Push(entries, other) => {
            for entry in entries {
                let (path, topic) = parts(entry)?;
                let change = push_to_host(host, now.as_ref(), &path, &topic, *other)
                    .map_err(|ambiguous| FleetError::Invalid(format!("{name}: {ambiguous}")))?;
                notes.push(Note::pushed(entry, change));
            }
        }
        Wanted::Remove { paths, topic } => {
            for path in paths {
                let removed =
                    remove_from_host(host, now.as_ref(), &log_path(path)?, of(topic)?.as_ref());
                if removed.is_empty() {
                    return Err(FleetError::NotFound(format!(
                        "{name}: {}; nothing was changed",
                        missing(path, topic.as_deref())
                    )));
                }
                let topics = removed.into_iter().map(|topic| topic.to_string());
                notes.extend(topics.map(|topic| Note::removed(path, Some(topic))));
            }
        }
    }
    Ok(notes)
}

fn parts(entry: &LogEntry) -> Result<(LogPath, Topic), FleetError> {
    let topic = Topic::new(entry.topic.as_str()).map_err(FleetError::Invalid)?;
    Ok((log_path(&entry.path)?, topic))
}

fn log_path(path: &str) -> Result<LogPath, FleetError> {
    LogPath::new(path).map_err(FleetError::Invalid)
}

fn of(topic: &Option<String>) -> Result<Option<Topic>, FleetError> {
    let topic = topic.as_deref().map(Topic::new);
    topic.transpose().map_err(FleetError::Invalid)
}

async fn publish(
    context: &Context,
    how: &How<'_>,
    edit: impl Fn(&Inventory) -> Result<(Vec<Object>, Notes), FleetError>,
) -> Result<(Published, Notes), Failure> {
    let author = actor(context, how.why);
    let (client, ns) = (&context.client, &context.namespace);
    Ok(publish_edit(client, ns, &author, how.allow_emptying, edit).await?)
}
