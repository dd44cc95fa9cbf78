//! `draft …`: changes that are prepared and not live. What is live and what is a draft are never
//! shown together but as the difference between them.

use config_center_core::fleet::inventory::Loaded;
use schemas::objects::{Name, ObjectId};

use super::{
    Context, actor, declare,
    exit::{Exit, Failure},
    files, flags,
    flags::Format,
    rollouts,
    table::{Cell, Table, age},
};
use crate::fleet::{
    audit::now_ms,
    drafts,
    publish::{self, Prepared},
    snapshot,
};

pub(crate) async fn run(context: &Context, command: &flags::Draft) -> Result<Exit, Failure> {
    match command {
        flags::Draft::Create(args) => create(context, args).await,
        flags::Draft::List => list(context).await,
        flags::Draft::Show { name } => show(context, name).await,
        flags::Draft::Diff { name } => diff(context, name).await,
        flags::Draft::Publish(args) => publish_draft(context, args).await,
        flags::Draft::Discard { name } => discard(context, name).await,
    }
}

async fn create(context: &Context, args: &flags::DraftCreate) -> Result<Exit, Failure> {
    let name = Name::new(args.name.as_str()).map_err(Failure::invalid)?;
    let objects = files::objects(&args.files.files)?;
    let delete = args.delete.iter().map(|id| id.parse::<ObjectId>());
    let delete = delete.collect::<Result<_, _>>().map_err(Failure::invalid)?;
    let author = actor(context, &args.why);
    let (client, ns) = (&context.client, &context.namespace);
    let draft = drafts::save(client, ns, &name, &objects, delete, 0, &author).await?;
    told(context, &draft.record.name, "made; nothing is live of it")
}

fn told(context: &Context, name: &str, what: &str) -> Result<Exit, Failure> {
    match context.out.format {
        Format::Json | Format::Yaml => context
            .out
            .document(&serde_json::json!({ "draft": name, "done": what }))?,
        Format::Name => context.out.line(name)?,
        Format::Table | Format::Wide => context.out.line(&format!("draft {name}: {what}"))?,
    }
    Ok(Exit::Done)
}

async fn list(context: &Context) -> Result<Exit, Failure> {
    let drafts = drafts::list(&context.client, &context.namespace).await?;
    match context.out.format {
        Format::Json | Format::Yaml => {
            let records: Vec<_> = drafts.iter().map(|draft| &draft.record).collect();
            context.out.document(&records)?;
        }
        Format::Name => {
            for draft in &drafts {
                context.out.line(&draft.record.name)?;
            }
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new(["DRAFT", "MADE", "AUTHOR", "OBJECTS", "REASON"]);
            for draft in &drafts {
                let record = &draft.record;
                let objects: Vec<String> =
                    record.base.iter().map(|(id, _)| id.to_string()).collect();
                let cells: [Cell; 5] = [
                    record.name.as_str().into(),
                    format!("{} ago", age(now_ms().saturating_sub(record.at_ms))).into(),
                    record.author.as_str().into(),
                    objects.join(", ").into(),
                    record.reason.as_str().into(),
                ];
                table.row(cells);
            }
            context.out.table(&table)?;
        }
    }
    Ok(Exit::Done)
}

async fn show(context: &Context, name: &str) -> Result<Exit, Failure> {
    let draft = drafts::read(&context.client, &context.namespace, name).await?;
    match context.out.format {
        Format::Json => context.out.document(&draft.record)?,
        Format::Name => {
            for (id, _) in &draft.record.base {
                context.out.line(&id.to_string())?;
            }
        }
        Format::Yaml | Format::Table | Format::Wide => {
            for Loaded { object, .. } in draft.objects()? {
                context.out.line("---")?;
                context.out.yaml(&object)?;
            }
            for id in &draft.record.delete {
                context.out.line(&format!("# deletes {id}"))?;
            }
        }
    }
    Ok(Exit::Done)
}

async fn diff(context: &Context, name: &str) -> Result<Exit, Failure> {
    let (client, ns) = (&context.client, &context.namespace);
    let draft = drafts::read(client, ns, name).await?;
    let snapshot = snapshot::read(client, ns).await?;
    let Prepared { change, .. } = publish::prepare(&snapshot, &draft.wish(ns)?)?;
    declare::show(context, &change)?;
    Ok(if change.is_empty() {
        Exit::Done
    } else {
        Exit::AnsweredNo
    })
}

async fn publish_draft(context: &Context, args: &flags::DraftPublish) -> Result<Exit, Failure> {
    let author = actor(context, &args.why);
    let (client, ns) = (&context.client, &context.namespace);
    let published =
        drafts::publish_draft(client, ns, &args.name, args.allow_emptying, &author).await?;
    let longest = args.wait.wait.then_some(args.wait.timeout);
    rollouts::follow_publish(context, published, longest).await
}

async fn discard(context: &Context, name: &str) -> Result<Exit, Failure> {
    drafts::discard(&context.client, &context.namespace, name).await?;
    told(context, name, "thrown away")
}
