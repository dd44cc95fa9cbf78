//! The JSON Schemas of the documents that cross the network, as they stand in `schemas/json`.

use schemars::{JsonSchema, generate::SchemaSettings};

use crate::{
    agent::LogEntry,
    fleet::AgentStatus,
    objects::{Group, Host, LogSet, Object, RolloutPolicy},
};

/// File name and text of every committed JSON Schema.
///
/// `cargo run -p schemas --example write-json-schemas` writes them; a test fails when they drift.
pub fn json_schemas() -> Result<Vec<(&'static str, String)>, serde_json::Error> {
    Ok(vec![
        (
            "log-config.json",
            schema_text::<Vec<LogEntry>>("Log configuration of one host")?,
        ),
        (
            "agent-status.json",
            schema_text::<AgentStatus>("Status of one agent")?,
        ),
        (
            "fleet-object.json",
            schema_text::<Object>("Any object of the fleet")?,
        ),
        ("log-set.json", schema_text::<LogSet>("LogSet")?),
        ("group.json", schema_text::<Group>("Group")?),
        ("host.json", schema_text::<Host>("Host")?),
        (
            "rollout-policy.json",
            schema_text::<RolloutPolicy>("RolloutPolicy")?,
        ),
    ])
}

fn schema_text<T: JsonSchema>(title: &str) -> Result<String, serde_json::Error> {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>();
    schema.insert("title".into(), title.into());
    let mut text = serde_json::to_string_pretty(&schema)?;
    text.push('\n');
    Ok(text)
}
