//! `describe`: everything about one host, or about one object and the hosts that it reaches.

use config_center_core::fleet::{
    host_state::{Report, complaints},
    render::{Effective, Verdict, effective},
};
use schemas::{
    fleet::{AgentStatus, EntryState},
    objects::{Kind, Name, Object, ObjectId},
};
use serde::Serialize;

use super::{
    Context,
    agents::drift_sentence,
    exit::{Exit, Failure},
    flags::Format,
    table::{Cell, Paint, Table, age, size},
};
use crate::fleet::{
    audit::now_ms,
    records::Release,
    releases, snapshot,
    snapshot::Snapshot,
    view::{Drift, View},
};

/// Releases that are named; `history` has all of them.
const RELEASES_SHOWN: usize = 5;
/// Hosts that are named beside an object.
const HOSTS_SHOWN: usize = 20;

pub(crate) async fn describe(context: &Context, what: &str) -> Result<Exit, Failure> {
    let (client, ns) = (&context.client, &context.namespace);
    let snapshot = snapshot::read(client, ns).await?;
    let releases = releases::releases(client, ns).await?;
    if what.contains('/') {
        let id: ObjectId = what
            .parse()
            .map_err(|reason| Failure::new(Exit::Usage, reason))?;
        return object(context, &snapshot, &releases, &id);
    }
    let view = View::load(client, ns).await?;
    let host = Name::new(what).map_err(Failure::invalid)?;
    host_of(context, &snapshot, &view, &releases, &host)
}

#[derive(Debug, Serialize)]
struct ShownHost<'a> {
    host: &'a Name,
    state: String,
    desired_revision: Option<i64>,
    problems: Vec<String>,
    drift: Option<Drift>,
    groups: Vec<String>,
    policy: Option<String>,
    object: Option<&'a Object>,
    releases: Vec<u64>,
    status: Option<&'a AgentStatus>,
}

fn host_of(
    context: &Context,
    snapshot: &Snapshot,
    view: &View,
    releases: &[Release],
    host: &Name,
) -> Result<Exit, Failure> {
    let name = host.as_str();
    let is_declared = snapshot.inventory.host_names().contains(host);
    if !is_declared && !view.hosts().contains(&name) {
        let message = format!("no key, no agent and no object speaks of {host}");
        return Err(Failure::new(Exit::NotFound, message));
    }
    let rendered = is_declared
        .then(|| effective(&snapshot.inventory, host).ok())
        .flatten();
    let desired = view.desired(name);
    let report = view.report(name);
    let drift = view.drift(name);
    let mut problems = complaints(desired.as_ref(), report);
    problems.extend(drift.as_ref().map(drift_sentence));
    let id = ObjectId {
        kind: Kind::Host,
        name: host.clone(),
    };
    let of_host = releases
        .iter()
        .filter(|made| made.hosts.iter().any(|host| host == name));
    let shown = ShownHost {
        host,
        state: match &drift {
            Some(_) => "drifted".into(),
            None => view.state(name).to_string(),
        },
        desired_revision: desired.map(|desired| desired.revision),
        problems,
        drift,
        groups: rendered
            .iter()
            .flat_map(|e| e.groups.iter().map(Name::to_string))
            .collect(),
        policy: rendered
            .as_ref()
            .and_then(|e| e.policy.as_ref().map(Name::to_string)),
        object: snapshot.inventory.get(&id).map(|loaded| &loaded.object),
        releases: of_host
            .map(|made| made.number)
            .take(RELEASES_SHOWN)
            .collect(),
        status: match report {
            Report::Status(status) => Some(status),
            Report::Absent | Report::Unreadable(_) => None,
        },
    };
    match context.out.format {
        Format::Json | Format::Yaml => context.out.document(&shown)?,
        Format::Name => context.out.line(name)?,
        Format::Table | Format::Wide => tell_host(context, &shown, rendered.as_ref())?,
    }
    Ok(Exit::Done)
}

fn tell_host(
    context: &Context,
    shown: &ShownHost<'_>,
    rendered: Option<&Effective>,
) -> Result<(), Failure> {
    let out = context.out;
    out.line(&format!("{}: {}", shown.host, shown.state))?;
    let mut facts = Table::new(["", ""]);
    let mut fact = |name: &str, text: String| facts.row([name.into(), Cell::from(text)]);
    let running = shown.status.and_then(|status| status.running.as_ref());
    let revision = |revision: Option<i64>| revision.map_or("none".into(), |at| at.to_string());
    fact(
        "  config",
        format!(
            "revision {}, running {}",
            revision(shown.desired_revision),
            revision(running.map(|running| running.revision))
        ),
    );
    if !shown.groups.is_empty() {
        let policy = shown.policy.as_deref().unwrap_or("none: all at once");
        fact(
            "  groups",
            format!("{}; policy {policy}", shown.groups.join(", ")),
        );
    }
    if let Some(status) = shown.status {
        let seen = age(now_ms().saturating_sub(status.reported_at_ms));
        fact(
            "  agent",
            format!(
                "{} on {}, seen {seen} ago",
                status.agent_version, status.hostname
            ),
        );
        let labels: Vec<String> = status
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        if !labels.is_empty() {
            fact("  labels", labels.join(", "));
        }
        fact(
            "  totals",
            format!(
                "{} lines read, {} acknowledged, {} delivery errors, {} lost",
                status.totals.lines_read,
                status.totals.lines_acked,
                status.totals.delivery_errors,
                size(status.totals.lost_bytes)
            ),
        );
    }
    if !shown.releases.is_empty() {
        let numbers: Vec<String> = shown.releases.iter().map(ToString::to_string).collect();
        fact("  releases", numbers.join(", "));
    }
    // The table's own header says nothing here.
    let text = facts.render(false);
    out.write(
        text.split_once('\n')
            .map_or("", |(_, rest)| rest)
            .as_bytes(),
    )?;
    for problem in &shown.problems {
        out.line(&format!("  ! {problem}"))?;
    }
    if let Some(status) = shown.status {
        out.line("")?;
        out.table(&entries(status, rendered))?;
        if !status.files.is_empty() {
            out.line("")?;
            out.table(&files(status))?;
        }
    }
    Ok(())
}

fn entries(status: &AgentStatus, rendered: Option<&Effective>) -> Table {
    let mut table = Table::new(["PATH", "TOPIC", "STATE", "LINES", "FROM"]);
    for entry in &status.entries {
        let (word, paint) = match entry.state {
            EntryState::Waiting => ("waiting", Paint::Notice),
            EntryState::Running => ("running", Paint::Good),
            EntryState::Failing => ("failing", Paint::Bad),
            EntryState::Rejected => ("rejected", Paint::Bad),
        };
        let story = rendered.and_then(|effective| {
            let mut stories = effective.stories.iter();
            stories.find(|story| story.path.as_str() == entry.path)
        });
        let from = story
            .filter(|story| story.verdict == Verdict::Collected)
            .and_then(|story| story.claims.first())
            .map_or("-".to_owned(), |claim| claim.origin.to_string());
        table.row([
            entry.path.as_str().into(),
            entry.topic.as_str().into(),
            Cell::painted(word, paint),
            entry.lines_acked.to_string().into(),
            from.into(),
        ]);
    }
    table
}

fn files(status: &AgentStatus) -> Table {
    let mut table = Table::new(["FILE", "TOPIC", "SIZE", "LAG", "LINES/S", "LAST ACK"]);
    for file in &status.files {
        let last_ack = file.last_ack_ms.map_or("-".to_owned(), |at_ms| {
            format!("{} ago", age(now_ms().saturating_sub(at_ms)))
        });
        table.row([
            file.path.as_str().into(),
            file.topic.as_str().into(),
            size(file.size_bytes).into(),
            size(file.lag_bytes).into(),
            format!("{:.1}", file.lines_per_s).into(),
            last_ack.into(),
        ]);
    }
    table
}

#[derive(Debug, Serialize)]
struct ShownObject<'a> {
    object: &'a Object,
    revision: i64,
    hosts: Vec<String>,
    releases: Vec<u64>,
}

fn object(
    context: &Context,
    snapshot: &Snapshot,
    releases: &[Release],
    id: &ObjectId,
) -> Result<Exit, Failure> {
    let loaded = snapshot.inventory.get(id).ok_or_else(|| {
        let message = format!("there is no {id}: see `configctl history {id}`");
        Failure::new(Exit::NotFound, message)
    })?;
    let is_of = |made: &&Release| made.changes.iter().any(|changed| changed.id == *id);
    let of_object = releases.iter().filter(is_of);
    let shown = ShownObject {
        object: &loaded.object,
        revision: loaded.store_revision().unwrap_or_default(),
        hosts: reached(snapshot, id),
        releases: of_object
            .map(|made| made.number)
            .take(RELEASES_SHOWN)
            .collect(),
    };
    let out = context.out;
    match out.format {
        Format::Json | Format::Yaml => out.document(&shown)?,
        Format::Name => out.line(&id.to_string())?,
        Format::Table | Format::Wide => {
            out.yaml(shown.object)?;
            out.line("")?;
            let named: Vec<&str> = shown
                .hosts
                .iter()
                .take(HOSTS_SHOWN)
                .map(String::as_str)
                .collect();
            let more = match shown.hosts.len().saturating_sub(HOSTS_SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            out.line(&format!(
                "reaches {} hosts: {}{more}",
                shown.hosts.len(),
                named.join(", ")
            ))?;
            let numbers: Vec<String> = shown.releases.iter().map(ToString::to_string).collect();
            out.line(&format!("changed by releases: {}", numbers.join(", ")))?;
        }
    }
    Ok(Exit::Done)
}

/// Hosts whose document rests on the object.
fn reached(snapshot: &Snapshot, id: &ObjectId) -> Vec<String> {
    let inventory = &snapshot.inventory;
    let uses = |group: &Name| {
        let mut groups = inventory.groups();
        groups.any(|(object, _)| {
            object.metadata.name == *group && object.spec.uses.contains(&id.name)
        })
    };
    let rests = |host: &Name| {
        let Ok(effective) = effective(inventory, host) else {
            return false;
        };
        match id.kind {
            Kind::Host => *host == id.name,
            Kind::Group => effective.groups.contains(&id.name),
            Kind::LogSet => effective.groups.iter().any(uses),
            Kind::RolloutPolicy => effective.policy.as_ref() == Some(&id.name),
        }
    };
    let names = inventory.host_names();
    names
        .iter()
        .filter(|host| rests(host))
        .map(Name::to_string)
        .collect()
}
