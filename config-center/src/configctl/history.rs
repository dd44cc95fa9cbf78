//! `history`, `show`, `rollback`: every release, and the way back to any of them.

use schemas::objects::ObjectId;
use serde::Serialize;

use super::{
    Context, actor,
    exit::{Exit, Failure},
    flags,
    flags::Format,
    rollouts,
    table::{Cell, Table, age},
};
use crate::fleet::{audit::now_ms, publish::Published, records::Release, releases, snapshot};

/// What a history is of.
enum Of {
    Everything,
    Object(ObjectId),
    Host(String),
}

fn object_id(text: &str) -> Result<ObjectId, Failure> {
    text.parse()
        .map_err(|reason| Failure::new(Exit::Usage, reason))
}

fn of(text: Option<&str>) -> Result<Of, Failure> {
    Ok(match text {
        None => Of::Everything,
        Some(text) if text.contains('/') => Of::Object(object_id(text)?),
        Some(host) => Of::Host(host.to_owned()),
    })
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    release: u64,
    at_ms: u64,
    author: &'a str,
    reason: &'a str,
    summary: &'a str,
    objects: Vec<String>,
}

pub(crate) async fn history(context: &Context, what: Option<&str>) -> Result<Exit, Failure> {
    let of = of(what)?;
    let made = releases::releases(&context.client, &context.namespace).await?;
    let is_meant = |release: &&Release| match &of {
        Of::Everything => true,
        Of::Object(id) => release.changes.iter().any(|changed| changed.id == *id),
        Of::Host(host) => release.hosts.contains(host),
    };
    let rows: Vec<Row<'_>> = made
        .iter()
        .filter(is_meant)
        .map(|release| row(release, &of))
        .collect();
    if rows.is_empty() {
        context.out.remark("no release changed it");
    }
    match context.out.format {
        Format::Json | Format::Yaml => context.out.document(&rows)?,
        Format::Name => {
            for row in &rows {
                context.out.line(&row.release.to_string())?;
            }
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new(["RELEASE", "WHEN", "AUTHOR", "WHAT", "REACH", "REASON"]);
            for row in &rows {
                let cells: [Cell; 6] = [
                    row.release.to_string().into(),
                    format!("{} ago", age(now_ms().saturating_sub(row.at_ms))).into(),
                    row.author.into(),
                    row.objects.join(", ").into(),
                    row.summary.into(),
                    row.reason.into(),
                ];
                table.row(cells);
            }
            context.out.table(&table)?;
        }
    }
    Ok(Exit::Done)
}

fn row<'a>(release: &'a Release, of: &Of) -> Row<'a> {
    let changes = release.changes.iter().filter(|changed| match of {
        Of::Object(id) => changed.id == *id,
        Of::Everything | Of::Host(_) => true,
    });
    let objects = changes.map(|changed| {
        let word = match (&changed.before, &changed.after) {
            (None, _) => "created",
            (_, None) => "deleted",
            _ => "changed",
        };
        format!("{} {word}", changed.id)
    });
    Row {
        release: release.number,
        at_ms: release.at_ms,
        author: &release.author,
        reason: &release.reason,
        summary: &release.summary,
        objects: objects.collect(),
    }
}

pub(crate) async fn show(context: &Context, args: &flags::Show) -> Result<Exit, Failure> {
    let (client, ns) = (&context.client, &context.namespace);
    if let Ok(number) = args.what.parse::<u64>() {
        let release = releases::release(client, ns, number).await?;
        document(context, &release)?;
        return Ok(Exit::Done);
    }
    let id = object_id(&args.what)?;
    let Some(number) = args.release else {
        let snapshot = snapshot::read(client, ns).await?;
        let loaded = snapshot.inventory.get(&id);
        let loaded =
            loaded.ok_or_else(|| Failure::new(Exit::NotFound, format!("there is no {id}")))?;
        document(context, &loaded.object)?;
        return Ok(Exit::Done);
    };
    let release = releases::release(client, ns, number).await?;
    let changed = release.changes.iter().find(|changed| changed.id == id);
    let version = changed
        .and_then(|changed| changed.after.as_ref())
        .ok_or_else(|| {
            Failure::new(
                Exit::NotFound,
                format!("release {number} made no version of {id}"),
            )
        })?;
    document(context, version)?;
    Ok(Exit::Done)
}

/// A document for people is YAML, the form in which it is written.
fn document<T: Serialize>(context: &Context, value: &T) -> Result<(), Failure> {
    match context.out.format {
        Format::Json => context.out.document(value),
        _ => context.out.yaml(value),
    }
}

pub(crate) async fn undelete(context: &Context, args: &flags::Undelete) -> Result<Exit, Failure> {
    let author = actor(context, &args.why);
    let (client, ns) = (&context.client, &context.namespace);
    let published = releases::undelete(client, ns, &object_id(&args.what)?, &author).await?;
    let longest = args.wait.wait.then_some(args.wait.timeout);
    rollouts::follow_publish(context, published, longest).await
}

pub(crate) async fn rollback(context: &Context, args: &flags::Rollback) -> Result<Exit, Failure> {
    let (client, ns) = (&context.client, &context.namespace);
    let author = actor(context, &args.why);
    let published: Published = match (&args.what, args.to) {
        (Some(what), Some(to)) => {
            releases::restore(client, ns, &object_id(what)?, to, &author).await?
        }
        (Some(_), None) => {
            return Err(Failure::new(
                Exit::Usage,
                "say to which release: --to N (see `configctl history`)",
            ));
        }
        (None, to) => {
            let last = match to {
                Some(_) => {
                    return Err(Failure::new(
                        Exit::Usage,
                        "--to restores one object: name it, or put a whole release back with --release N",
                    ));
                }
                None => args.release,
            };
            let number = match last {
                Some(number) => number,
                None => snapshot::read(client, ns).await?.head.release,
            };
            if number == 0 {
                return Err(Failure::new(Exit::NotFound, "nothing was released yet"));
            }
            releases::put_back(client, ns, number, &author).await?
        }
    };
    rollouts::follow_publish(
        context,
        published,
        args.wait.wait.then_some(args.wait.timeout),
    )
    .await
}
