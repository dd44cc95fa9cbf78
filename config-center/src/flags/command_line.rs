//! Reads arguments and `ETCD_*` variables into name → text, by the rules of Go's flag package, so
//! that an etcd unit file works with the binary swapped. Knows syntax, not meaning.

use std::collections::BTreeMap;

use super::UsageError;
use super::definitions::{DEFINITIONS, Definition, Kind, closest, find};

/// Where a value came from; a flag wins over a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Flag,
    Variable,
    /// A key of the file, as it is written there.
    File(String),
}

/// Everything that was given, before it is judged.
#[derive(Debug, Default)]
pub(super) struct Given {
    values: BTreeMap<&'static str, (String, Source)>,
    pub(super) warnings: Vec<String>,
}

impl Given {
    /// The text given for a flag; `None` when it was left to its default.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(text, _)| text.as_str())
    }

    /// How the operator wrote it, for messages.
    pub(super) fn spelled(&self, name: &str) -> String {
        match self.values.get(name) {
            Some((_, Source::Variable)) => variable(name),
            Some((_, Source::File(key))) => key.clone(),
            _ => format!("--{name}"),
        }
    }

    pub(super) fn set(&mut self, definition: &'static Definition, text: String, source: Source) {
        self.values.insert(definition.name, (text, source));
    }

    /// How many settings were given.
    pub(super) fn count(&self) -> usize {
        self.values.len()
    }

    pub(super) fn switch(&self, name: &str) -> bool {
        self.text(name).and_then(parse_switch).unwrap_or(false)
    }
}

/// `initial-cluster` → `ETCD_INITIAL_CLUSTER`.
fn variable(name: &str) -> String {
    format!("ETCD_{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// The spellings that Go accepts for a boolean.
fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads both sources. `arguments` excludes the program's name.
pub(super) fn read(
    arguments: impl IntoIterator<Item = String>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Given, UsageError> {
    let mut given = Given::default();
    read_arguments(&mut given, arguments)?;
    read_environment(&mut given, environment)?;
    Ok(given)
}

fn read_arguments(
    given: &mut Given,
    arguments: impl IntoIterator<Item = String>,
) -> Result<(), UsageError> {
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let body = match argument
            .strip_prefix("--")
            .or_else(|| argument.strip_prefix('-'))
        {
            Some(body) if !body.is_empty() => body,
            // `--` ends the flags in Go; nothing may follow it here.
            Some(_) if argument == "--" => match arguments.next() {
                Some(rest) => return Err(UsageError::NotAFlag(rest)),
                None => return Ok(()),
            },
            _ => return Err(UsageError::NotAFlag(argument)),
        };
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let Some(definition) = find(name) else {
            return Err(UsageError::Unknown {
                name: name.to_owned(),
                meant: closest(name),
            });
        };
        let value = match (definition.kind, inline) {
            (_, Some(value)) => value,
            (Kind::Switch, None) => "true".to_owned(),
            (_, None) => arguments
                .next()
                .ok_or_else(|| UsageError::MissingValue(definition.name.to_owned()))?,
        };
        check(definition, &value, &format!("--{}", definition.name))?;
        given.values.insert(definition.name, (value, Source::Flag));
    }
    Ok(())
}

fn read_environment(
    given: &mut Given,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(), UsageError> {
    let mut variables: Vec<_> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with("ETCD_"))
        .collect();
    variables.sort();
    for (name, value) in variables {
        let known = DEFINITIONS
            .iter()
            .find(|definition| variable(definition.name) == name);
        match known {
            None => given
                .warnings
                .push(format!("unknown environment variable {name} is ignored")),
            // An empty variable is an unset one, as in unit files with optional settings.
            Some(_) if value.is_empty() => {}
            Some(definition) if given.values.contains_key(definition.name) => {
                given
                    .warnings
                    .push(format!("{name} is overridden by --{}", definition.name));
            }
            Some(definition) => {
                check(definition, &value, &name)?;
                given
                    .values
                    .insert(definition.name, (value, Source::Variable));
            }
        }
    }
    Ok(())
}

pub(super) fn check(definition: &Definition, value: &str, spelled: &str) -> Result<(), UsageError> {
    let fault = match definition.kind {
        Kind::Switch if parse_switch(value).is_none() => "it is not true or false",
        Kind::Number if value.parse::<u64>().is_err() => "it is not a whole number",
        Kind::Duration if duration_ms(value).is_none() => {
            "it is not a duration such as 500ms, 10m or 1h30m"
        }
        _ => return Ok(()),
    };
    Err(UsageError::invalid(spelled, value, fault))
}

/// Milliseconds of a duration in Go's notation; `None` when it is none or is negative.
pub(crate) fn duration_ms(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit_ms = match &rest[..unit_end] {
            "ns" => 1e-6,
            "us" | "µs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            _ => return None,
        };
        total += amount * unit_ms;
        rest = &rest[unit_end..];
    }
    // A century is more than any interval here means, and far from where floats lose whole numbers.
    const LONGEST_MS: f64 = 100.0 * 365.0 * 86_400_000.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the sum of non-negative amounts below the bound"
    )]
    (!text.is_empty() && total <= LONGEST_MS).then_some(total as u64)
}
