//! `--config-file`: etcd's YAML, whose keys are the names of the flags. As in etcd a file stands
//! alone: flags and variables beside it are not looked at.
//!
//! Stricter than etcd in one point: a key that is no setting is refused and not skipped.

use serde_yaml::Value;

use super::UsageError;
use super::command_line::{Given, Source, check};
use super::definitions::{Definition, Kind, closest, find};

/// Sections of the file that have flags of their own for each key.
const CLIENT_SECTION: &str = "client-transport-security";
const PEER_SECTION: &str = "peer-transport-security";

/// Reads the text of a file.
pub(super) fn read(path: &str, content: &str) -> Result<Given, UsageError> {
    let faulty = |fault: String| UsageError::ConfigFile {
        path: path.to_owned(),
        fault,
    };
    let document: Value =
        serde_yaml::from_str(content).map_err(|error| faulty(error.to_string()))?;
    let mut given = Given::default();
    match document {
        Value::Null => {}
        Value::Mapping(entries) => {
            for (key, value) in entries {
                let key = key_text(&key).map_err(faulty)?;
                match key {
                    CLIENT_SECTION | PEER_SECTION => {
                        read_section(&mut given, key, value).map_err(faulty)?;
                    }
                    _ => {
                        let definition = known(key, key).map_err(faulty)?;
                        take(&mut given, definition, key, &value).map_err(faulty)?;
                    }
                }
            }
        }
        _ => return Err(faulty("it is not a list of `key: value` lines".to_owned())),
    }
    Ok(given)
}

fn key_text(key: &Value) -> Result<&str, String> {
    key.as_str()
        .ok_or_else(|| format!("the key {key:?} is not a text"))
}

/// A flag that a file may set.
fn known(name: &str, spelled: &str) -> Result<&'static Definition, String> {
    match find(name) {
        Some(definition) if !matches!(name, "config-file" | "version" | "help" | "h") => {
            Ok(definition)
        }
        _ => Err(match closest(name) {
            Some(meant) if meant != name => {
                format!("unknown key {spelled:?}, did you mean {meant:?}?")
            }
            _ => format!("unknown key {spelled:?}"),
        }),
    }
}

fn read_section(given: &mut Given, section: &str, value: Value) -> Result<(), String> {
    let entries = match value {
        Value::Null => return Ok(()),
        Value::Mapping(entries) => entries,
        _ => return Err(format!("{section} is not a section of keys")),
    };
    for (key, value) in entries {
        let key = key_text(&key)?;
        let spelled = format!("{section}.{key}");
        let flag = match (section, key) {
            (CLIENT_SECTION, "allowed-hostname") => "client-cert-allowed-hostname".to_owned(),
            (PEER_SECTION, "allowed-cn") => "peer-cert-allowed-cn".to_owned(),
            (PEER_SECTION, "allowed-hostname") => "peer-cert-allowed-hostname".to_owned(),
            (PEER_SECTION, key) => format!("peer-{key}"),
            (_, key) => key.to_owned(),
        };
        let is_listed = matches!(
            key,
            "cert-file"
                | "key-file"
                | "client-cert-file"
                | "client-key-file"
                | "client-cert-auth"
                | "trusted-ca-file"
                | "auto-tls"
                | "allowed-cn"
                | "allowed-hostname"
                | "skip-client-san-verification"
        );
        let definition = find(&flag)
            .filter(|_| is_listed)
            .ok_or_else(|| format!("unknown key {spelled:?}"))?;
        take(given, definition, &spelled, &value)?;
    }
    Ok(())
}

fn take(
    given: &mut Given,
    definition: &'static Definition,
    spelled: &str,
    value: &Value,
) -> Result<(), String> {
    let Some(text) = plain_text(definition, value)
        .ok_or_else(|| format!("the value of {spelled:?} is not a plain one"))?
    else {
        return Ok(());
    };
    check(definition, &text, spelled).map_err(|error| error.to_string())?;
    given.set(definition, text, Source::File(spelled.to_owned()));
    Ok(())
}

/// The value as a flag would have it; `Some(None)` when the key has none.
#[expect(
    clippy::option_option,
    reason = "no value and no possible value are two things"
)]
fn plain_text(definition: &Definition, value: &Value) -> Option<Option<String>> {
    let text = match value {
        Value::Null => return Some(None),
        Value::Bool(value) => value.to_string(),
        // Go keeps durations as nanoseconds, and so do the files written for etcd.
        Value::Number(number) if definition.kind == Kind::Duration => format!("{number}ns"),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Sequence(items) => {
            let items: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            items?.join(",")
        }
        _ => return None,
    };
    Some(Some(text))
}
