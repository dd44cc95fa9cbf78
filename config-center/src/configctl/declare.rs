//! `validate`, `diff`, `apply` and `effective`: the fleet as objects in files.

use config_center_core::fleet::{
    change::Change,
    inventory::Inventory,
    render::{Effective, PathStory, Verdict, effective, render},
};
use schemas::objects::{Log, Name};
use serde::Serialize;

use super::{
    Context, actor,
    exit::{Exit, Failure},
    files, flags,
    flags::Format,
    output::Output,
    rollouts,
    table::{Cell, Table},
};
use crate::fleet::{
    error::FleetError,
    publish::{self, Prepared, Wish},
    snapshot,
};

/// Hosts that are named where many have the same changes.
const HOSTS_NAMED: usize = 5;

/// Checks files without a store: as if they were the whole fleet.
pub(crate) fn validate(out: Output, args: &flags::Files) -> Result<Exit, Failure> {
    let loading = files::read(&args.files)?;
    let mut told: Vec<String> = loading.problems.iter().map(ToString::to_string).collect();
    let objects = loading.objects.len();
    let mut hosts = 0;
    if told.is_empty() {
        match Inventory::new(loading.objects) {
            Err(problems) => told.extend(problems.iter().map(ToString::to_string)),
            Ok(inventory) => match render(&inventory) {
                Err(problems) => told.extend(problems.iter().map(ToString::to_string)),
                Ok(rendered) => hosts = rendered.hosts.len(),
            },
        }
    }
    if !told.is_empty() {
        return Err(Failure::invalid(told.join("\n")));
    }
    match out.format {
        Format::Json | Format::Yaml => {
            out.document(&serde_json::json!({ "objects": objects, "hosts": hosts }))?;
        }
        Format::Table | Format::Wide | Format::Name => {
            out.line(&format!("valid: {objects} objects for {hosts} hosts"))?
        }
    }
    Ok(Exit::Done)
}

pub(crate) async fn diff(context: &Context, args: &flags::Diff) -> Result<Exit, Failure> {
    let wish = Wish {
        put: files::objects(&args.files.files)?,
        prune: args.prune,
        ..Default::default()
    };
    let snapshot = snapshot::read(&context.client, &context.namespace).await?;
    let Prepared { change, .. } = publish::prepare(&snapshot, &wish)?;
    show(context, &change)?;
    Ok(if change.is_empty() {
        Exit::Done
    } else {
        Exit::AnsweredNo
    })
}

pub(crate) async fn apply(context: &Context, args: &flags::Apply) -> Result<Exit, Failure> {
    let wish = Wish {
        put: files::objects(&args.files.files)?,
        prune: args.prune,
        allow_emptying: args.allow_emptying,
        ..Default::default()
    };
    if args.dry_run {
        let snapshot = snapshot::read(&context.client, &context.namespace).await?;
        let Prepared { change, .. } = publish::prepare(&snapshot, &wish)?;
        show(context, &change)?;
        if !wish.allow_emptying {
            change.guard().map_err(FleetError::from)?;
        }
        context.out.remark("dry run: nothing was written");
        return Ok(Exit::Done);
    }
    let author = actor(context, &args.why);
    let published = publish::publish(&context.client, &context.namespace, &wish, &author).await?;
    rollouts::follow_publish(
        context,
        published,
        args.wait.wait.then_some(args.wait.timeout),
    )
    .await
}

pub(crate) async fn effective_of(
    context: &Context,
    args: &flags::Effective,
) -> Result<Exit, Failure> {
    let inventory = match &args.files[..] {
        [] => {
            snapshot::read(&context.client, &context.namespace)
                .await?
                .inventory
        }
        files => inventory_of(files)?,
    };
    show_effective(context.out, args, &inventory)
}

fn inventory_of(paths: &[std::path::PathBuf]) -> Result<Inventory, Failure> {
    let objects = files::objects(paths)?;
    Inventory::new(objects).map_err(|problems| FleetError::Objects(problems).into())
}

/// Renders one host from files alone.
pub(crate) fn effective_offline(out: Output, args: &flags::Effective) -> Result<Exit, Failure> {
    show_effective(out, args, &inventory_of(&args.files)?)
}

#[derive(Serialize)]
struct Shown<'a> {
    host: &'a Name,
    sha256: String,
    groups: &'a [Name],
    policy: Option<&'a Name>,
    entries: Vec<&'a Log>,
    paths: Vec<ShownPath>,
}

#[derive(Serialize)]
struct ShownPath {
    path: String,
    collected: bool,
    why: String,
    claims: Vec<ShownClaim>,
}

#[derive(Serialize)]
struct ShownClaim {
    topics: Vec<String>,
    origin: String,
    rank: String,
}

fn show_effective(
    out: Output,
    args: &flags::Effective,
    inventory: &Inventory,
) -> Result<Exit, Failure> {
    let host = Name::new(args.host.as_str()).map_err(Failure::invalid)?;
    if !inventory.host_names().contains(&host) {
        let message =
            format!("no object speaks of {host}: it is no Host, and no group has it as a member");
        return Err(Failure::new(Exit::NotFound, message));
    }
    let effective = effective(inventory, &host).map_err(|conflicts| {
        let lines: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
        Failure::invalid(lines.join("\n"))
    })?;
    match out.format {
        Format::Table | Format::Wide if args.explain => explain(out, &effective)?,
        Format::Table | Format::Wide => out.table(&table(&effective))?,
        Format::Name => {
            for log in effective.logs() {
                out.line(log.path.as_str())?;
            }
        }
        Format::Json | Format::Yaml => out.document(&Shown {
            host: &effective.host,
            sha256: effective.sha256(),
            groups: &effective.groups,
            policy: effective.policy.as_ref(),
            entries: effective.logs().collect(),
            paths: effective.stories.iter().map(shown_path).collect(),
        })?,
    }
    Ok(Exit::Done)
}

fn shown_path(story: &PathStory) -> ShownPath {
    ShownPath {
        path: story.path.to_string(),
        collected: story.verdict == Verdict::Collected,
        why: why(story),
        claims: story
            .claims
            .iter()
            .map(|claim| ShownClaim {
                topics: claim.logs.iter().map(|log| log.topic.to_string()).collect(),
                origin: claim.origin.to_string(),
                rank: claim.origin.rank.to_string(),
            })
            .collect(),
    }
}

fn table(effective: &Effective) -> Table {
    let mut table = Table::new(["PATH", "TOPIC", "FROM"]);
    for story in effective
        .stories
        .iter()
        .filter(|story| story.verdict == Verdict::Collected)
    {
        let Some(claim) = story.claims.first() else {
            continue;
        };
        for log in &claim.logs {
            let cells: [Cell; 3] = [
                log.path.as_str().into(),
                log.topic.as_str().into(),
                claim.origin.to_string().into(),
            ];
            table.row(cells);
        }
    }
    table
}

/// Why a path is collected as it is, in one sentence.
fn why(story: &PathStory) -> String {
    match (&story.verdict, &story.claims[..]) {
        (Verdict::Excluded { by }, _) => format!("not collected: excluded by {by}"),
        (Verdict::Collected, [only]) => format!("from {}", only.origin),
        (Verdict::Collected, [first, others @ ..]) => {
            let same = others
                .iter()
                .filter(|other| other.origin.rank == first.origin.rank)
                .count();
            let lower = others.len() - same;
            let mut words = format!("from {} ({})", first.origin, first.origin.rank);
            if same > 0 {
                words.push_str(&format!(", as {same} other of the same rank say"));
            }
            if lower > 0 {
                words.push_str(&format!(", above {lower} of lower rank"));
            }
            words
        }
        (Verdict::Collected, []) => String::new(),
    }
}

fn explain(out: Output, effective: &Effective) -> Result<(), Failure> {
    let names = |names: &[Name]| match names {
        [] => "none".to_owned(),
        names => names
            .iter()
            .map(Name::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    let policy = effective
        .policy
        .as_ref()
        .map_or("none: all at once", Name::as_str);
    out.line(&format!(
        "{}   sha256 {}",
        effective.host,
        effective.sha256()
    ))?;
    out.line(&format!(
        "groups: {}   rollout policy: {policy}",
        names(&effective.groups)
    ))?;
    for story in &effective.stories {
        out.line("")?;
        out.line(&format!("{}   {}", story.path, why(story)))?;
        for claim in &story.claims {
            let topics: Vec<&str> = claim.logs.iter().map(|log| log.topic.as_str()).collect();
            out.line(&format!(
                "  → {}   {}   {}",
                topics.join(", "),
                claim.origin,
                claim.origin.rank
            ))?;
        }
    }
    for path in &effective.idle_excludes {
        out.line("")?;
        out.line(&format!("{path}   excluded, and no group collects it"))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct ShownChange<'a> {
    objects: &'a [config_center_core::fleet::change::ObjectDiff],
    hosts: Vec<config_center_core::fleet::diff::HostChange>,
    blast_radius: config_center_core::fleet::diff::BlastRadius,
    remarks: &'a [String],
}

/// Prints a change: objects, hosts with their entries, and how far it reaches.
pub(crate) fn show(context: &Context, change: &Change) -> Result<(), Failure> {
    let out = context.out;
    for remark in &change.remarks {
        out.remark(&format!("remark: {remark}"));
    }
    match out.format {
        Format::Json | Format::Yaml => out.document(&ShownChange {
            objects: &change.objects,
            hosts: change.host_changes(),
            blast_radius: change.radius(),
            remarks: &change.remarks,
        }),
        Format::Name => {
            for object in &change.objects {
                out.line(&object.id.to_string())?;
            }
            Ok(())
        }
        Format::Table | Format::Wide if change.is_empty() => out.line("no difference"),
        Format::Table | Format::Wide => {
            for object in &change.objects {
                out.line(&object.to_string())?;
            }
            // Hosts with the same changes are told together: a group has a thousand of them.
            let mut told: Vec<(Vec<String>, Vec<String>)> = Vec::new();
            for host in change.host_changes() {
                let lines: Vec<String> = host.changes.iter().map(ToString::to_string).collect();
                match told.iter_mut().find(|(known, _)| *known == lines) {
                    Some((_, hosts)) => hosts.push(host.host),
                    None => told.push((lines, vec![host.host])),
                }
            }
            for (lines, hosts) in told {
                let named = hosts
                    .iter()
                    .take(HOSTS_NAMED)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ");
                let more = match hosts.len().saturating_sub(HOSTS_NAMED) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                out.line(&format!("  {named}{more}"))?;
                if lines.is_empty() {
                    out.line("    collects nothing, before as after")?;
                }
                for line in lines {
                    out.line(&format!("    {line}"))?;
                }
            }
            out.line(&change.radius().to_string())
        }
    }
}
