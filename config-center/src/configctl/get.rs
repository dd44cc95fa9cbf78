//! `get`: what hosts are configured to collect, as the store has it.

use schemas::{etcdserverpb::RangeRequest, mvccpb::KeyValue};
use serde::Serialize;

use super::{
    Context,
    document::Document,
    exit::{Exit, Failure},
    flags::Format,
    keys::{host_of, under, validate_host},
    table::{Cell, Paint, Table},
};

/// One host's configuration, as `-o json` prints it.
#[derive(Debug, Serialize)]
struct HostConfig {
    host: String,
    key: String,
    revision: i64,
    /// The entries as they are, unknown fields included; absent when the value is no document.
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    document: Option<Document>,
}

pub(crate) async fn get(context: &Context, host: Option<&str>) -> Result<Exit, Failure> {
    let configs = match host {
        Some(host) => {
            validate_host(host).map_err(Failure::invalid)?;
            let key = context.namespace.config(host);
            let found = context.client.get(key.clone()).await?;
            let kv = found.kv.ok_or_else(|| {
                Failure::new(
                    Exit::NotFound,
                    format!("{host} has no configuration (there is no key {key})"),
                )
            })?;
            vec![read(host.to_owned(), &kv)]
        }
        None => {
            let prefix = context.namespace.configs();
            let keys = under(&prefix);
            let range = RangeRequest {
                key: keys.start,
                range_end: keys.end,
                ..Default::default()
            };
            let answer = context.client.range(range).await?;
            let config = |kv: &KeyValue| host_of(&kv.key, &prefix).map(|host| read(host, kv));
            let configs: Vec<_> = answer.kvs.iter().filter_map(config).collect();
            if configs.is_empty() {
                context
                    .out
                    .remark(&format!("no host has a configuration under {prefix}"));
            }
            configs
        }
    };
    match context.out.format {
        Format::Table | Format::Wide => context.out.table(&table(&configs))?,
        Format::Name => {
            for config in &configs {
                context.out.line(&config.host)?;
            }
        }
        Format::Json | Format::Yaml => match (&configs[..], host) {
            ([only], Some(_)) => context.out.document(only)?,
            _ => context.out.document(&configs)?,
        },
    }
    match (&configs[..], host) {
        (
            [
                HostConfig {
                    error: Some(error),
                    host,
                    ..
                },
            ],
            Some(_),
        ) => Err(Failure::invalid(format!("{host}: {error}"))),
        _ => Ok(Exit::Done),
    }
}

fn read(host: String, kv: &KeyValue) -> HostConfig {
    let (document, error) = match Document::parse(&kv.value) {
        Ok(document) => (Some(document), None),
        Err(error) => (None, Some(error.to_string())),
    };
    HostConfig {
        host,
        key: String::from_utf8_lossy(&kv.key).into_owned(),
        revision: kv.mod_revision,
        entries: document
            .as_ref()
            .and_then(|document| serde_json::from_str(document.text()).ok()),
        error,
        document,
    }
}

fn table(configs: &[HostConfig]) -> Table {
    let mut table = Table::new(["HOST", "PATH", "TOPIC", "REVISION"]);
    for config in configs {
        let row = |path: Cell, topic: &str| {
            [
                config.host.as_str().into(),
                path,
                topic.into(),
                config.revision.to_string().into(),
            ]
        };
        match (&config.document, &config.error) {
            (Some(document), _) if document.entries().is_empty() => {
                table.row(row("(nothing)".into(), "-"));
            }
            (Some(document), _) => {
                for entry in document.entries() {
                    let path = entry.path.as_deref().unwrap_or("(no path)");
                    table.row(row(
                        path.into(),
                        entry.topic.as_deref().unwrap_or("(no topic)"),
                    ));
                }
            }
            (None, error) => {
                let reason = format!("! {}", error.as_deref().unwrap_or("unreadable"));
                table.row(row(Cell::painted(reason, Paint::Bad), "-"));
            }
        }
    }
    table
}
