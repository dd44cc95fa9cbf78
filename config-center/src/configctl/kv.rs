//! `kv`: plain keys, printed as etcdctl prints them, for looking behind the scenes.

use bytes::Bytes;
use schemas::{
    etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, WatchCreateRequest},
    mvccpb::{KeyValue, event::EventType},
};
use schemas_client::prefix_end;
use serde::Serialize;

use super::{
    Context,
    exit::{Exit, Failure},
    flags,
};

/// A key and its value; bytes that are no UTF-8 are shown with replacement characters.
#[derive(Debug, Serialize)]
struct Pair {
    key: String,
    value: String,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    lease: i64,
}

impl From<&KeyValue> for Pair {
    fn from(kv: &KeyValue) -> Self {
        Self {
            key: String::from_utf8_lossy(&kv.key).into_owned(),
            value: String::from_utf8_lossy(&kv.value).into_owned(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        }
    }
}

pub(crate) async fn run(context: &Context, command: &flags::Kv) -> Result<Exit, Failure> {
    match command {
        flags::Kv::Get { key, prefix } => get(context, key, *prefix).await,
        flags::Kv::Put { key, value } => put(context, key, value).await,
        flags::Kv::Del { key, prefix } => del(context, key, *prefix).await,
        flags::Kv::Watch { key, prefix, rev } => watch(context, key, *prefix, *rev).await,
    }
}

/// Key and range end of one key or of all that begin with it.
fn keys(key: &str, prefix: bool) -> (Bytes, Bytes) {
    match (key, prefix) {
        // Every key begins with nothing, and the store wants the smallest key by name.
        ("", true) => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
        (key, true) => (Bytes::from(key.to_owned()), prefix_end(key.as_bytes())),
        (key, false) => (Bytes::from(key.to_owned()), Bytes::new()),
    }
}

async fn get(context: &Context, key: &str, prefix: bool) -> Result<Exit, Failure> {
    let (start, range_end) = keys(key, prefix);
    let request = RangeRequest {
        key: start,
        range_end,
        ..Default::default()
    };
    let answer = context.client.range(request).await?;
    if answer.kvs.is_empty() && !prefix {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no key {key}"),
        ));
    }
    match context.out.format {
        flags::Format::Table | flags::Format::Wide => {
            for kv in &answer.kvs {
                // The bytes as they are, so that a value can be saved and put back.
                context.out.write(&kv.key)?;
                context.out.write(b"\n")?;
                context.out.write(&kv.value)?;
                context.out.write(b"\n")?;
            }
        }
        flags::Format::Name => {
            for kv in &answer.kvs {
                context.out.line(&String::from_utf8_lossy(&kv.key))?;
            }
        }
        flags::Format::Json | flags::Format::Yaml => {
            let pairs: Vec<Pair> = answer.kvs.iter().map(Pair::from).collect();
            context.out.document(&pairs)?;
        }
    }
    Ok(Exit::Done)
}

async fn put(context: &Context, key: &str, value: &str) -> Result<Exit, Failure> {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    let answer = context.client.put(request).await?;
    let revision = answer.header.map_or(0, |header| header.revision);
    told(
        context,
        &serde_json::json!({ "revision": revision }),
        &format!("OK (revision {revision})"),
    )
}

async fn del(context: &Context, key: &str, prefix: bool) -> Result<Exit, Failure> {
    let (start, range_end) = keys(key, prefix);
    let request = DeleteRangeRequest {
        key: start,
        range_end,
        ..Default::default()
    };
    let deleted = context.client.delete_range(request).await?.deleted;
    if deleted == 0 && !prefix {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no key {key}"),
        ));
    }
    told(
        context,
        &serde_json::json!({ "deleted": deleted }),
        &deleted.to_string(),
    )
}

fn told(context: &Context, document: &serde_json::Value, line: &str) -> Result<Exit, Failure> {
    match context.out.format {
        flags::Format::Json | flags::Format::Yaml => context.out.document(document)?,
        flags::Format::Table | flags::Format::Wide | flags::Format::Name => {
            context.out.line(line)?
        }
    }
    Ok(Exit::Done)
}

async fn watch(context: &Context, key: &str, prefix: bool, from: i64) -> Result<Exit, Failure> {
    let (start, range_end) = keys(key, prefix);
    let mut next_revision = from;
    loop {
        let opened = context
            .client
            .watch(WatchCreateRequest {
                key: start.clone(),
                range_end: range_end.clone(),
                start_revision: next_revision,
                ..Default::default()
            })
            .await?;
        let mut stream = opened;
        if next_revision == 0 {
            next_revision = stream.created_revision() + 1;
        }
        loop {
            match stream.next().await {
                Ok(response) => {
                    for event in &response.events {
                        let Some(kv) = &event.kv else { continue };
                        next_revision = next_revision.max(kv.mod_revision + 1);
                        print_event(context, event.r#type(), kv)?;
                    }
                }
                // The stream resumes where it broke: nothing is missed and nothing shown twice.
                Err(error) if error.is_transient() => {
                    context.out.remark(&format!("configctl: {error}; resuming"));
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn print_event(context: &Context, kind: EventType, kv: &KeyValue) -> Result<(), Failure> {
    let word = match kind {
        EventType::Put => "PUT",
        EventType::Delete => "DELETE",
    };
    if context.out.is_prose() {
        context.out.write(format!("{word}\n").as_bytes())?;
        context.out.write(&kv.key)?;
        context.out.write(b"\n")?;
        context.out.write(&kv.value)?;
        context.out.write(b"\n")
    } else {
        let event = serde_json::json!({ "type": word, "kv": Pair::from(kv) });
        context.out.line(&event.to_string())
    }
}
