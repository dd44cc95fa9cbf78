//! The command line: etcd's flag names and `ETCD_*` variables, turned into [`Settings`].
//!
//! Knows which settings exist and which of them this version honours. Opens nothing but the file
//! that `--config-file` names, and starts nothing. A flag that would be unsafe to ignore is refused here, before anything is touched.

mod command_line;
mod config_file;
mod definitions;
mod settings;

pub use settings::{
    FleetSettings, ListenAt, ListenUrl, LogFormat, LogLevel, LogOutput, Settings, TokenKind,
};

pub(crate) use command_line::duration_ms;

use command_line::Given;
use definitions::{DEFINITIONS, Treatment};

/// The version of etcd whose API is served, as `--version`, `/version` and Maintenance.Status give
/// it. Clients choose what to ask for by it, so it is the newest with which a real etcd was compared
/// call by call (deploy/e2e/tests/version.rs and deploy/e2e/tests/differential.rs).
pub const ETCD_VERSION: &str = "3.7.1";

/// The version of the cluster and of the storage schema that goes with [`ETCD_VERSION`].
pub const ETCD_CLUSTER_VERSION: &str = "3.7.0";

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    Serve(Box<Settings>),
    /// `--version`
    Version,
    /// `--help`
    Help,
}

/// Why the command line was not accepted. Each text is one line; the process exits with 2.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("unknown flag --{name}{}; see --help", meant.map(|meant| format!(", did you mean --{meant}?")).unwrap_or_default())]
    Unknown {
        name: String,
        meant: Option<&'static str>,
    },
    #[error("{0:?} is not a flag; see --help")]
    NotAFlag(String),
    #[error("--{0} needs a value")]
    MissingValue(String),
    #[error("invalid value {value:?} for {spelled}: {fault}")]
    Invalid {
        spelled: String,
        value: String,
        fault: String,
    },
    #[error("{path} cannot be used as --config-file: {fault}")]
    ConfigFile { path: String, fault: String },
    #[error("{spelled} is not supported yet: {note}")]
    NotSupported { spelled: String, note: &'static str },
}

impl UsageError {
    fn invalid(spelled: &str, value: &str, fault: impl Into<String>) -> Self {
        Self::Invalid {
            spelled: spelled.to_owned(),
            value: value.to_owned(),
            fault: fault.into(),
        }
    }
}

/// Reads arguments (without the program's name) and environment.
///
/// # Errors
/// One line that names the flag and the fault.
pub fn parse(
    arguments: impl IntoIterator<Item = String>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Invocation, UsageError> {
    let given = command_line::read(arguments, environment)?;
    if given.switch("help") || given.switch("h") {
        return Ok(Invocation::Help);
    }
    if given.switch("version") {
        return Ok(Invocation::Version);
    }
    let given = match given.text("config-file") {
        None | Some("") => given,
        Some(path) => from_file(path, &given)?,
    };
    Settings::judge(given).map(|settings| Invocation::Serve(Box::new(settings)))
}

/// The settings of the file; what was given beside it does not count.
fn from_file(path: &str, beside: &Given) -> Result<Given, UsageError> {
    let content = std::fs::read_to_string(path).map_err(|error| UsageError::ConfigFile {
        path: path.to_owned(),
        fault: error.to_string(),
    })?;
    let mut given = config_file::read(path, &content)?;
    if beside.count() > 1 {
        given.warnings.push(format!(
            "settings come from {path}: flags and variables beside it are ignored"
        ));
    }
    Ok(given)
}

/// What `--version` prints: etcd's line first, because tools parse it.
#[must_use]
pub fn version_text() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nconfig-center Version: {}\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// What `--help` prints.
#[must_use]
pub fn help_text() -> String {
    let mut text = String::from(
        "config-center: a replicated store that speaks the etcd API.\n\n\
         Usage: config-center [flags]\n\
         Flags have etcd's names; each is also read from ETCD_<NAME>, and the flag wins.\n\
         --config-file takes all of them from a YAML file instead.\n\n",
    );
    let mut idle = String::new();
    for definition in DEFINITIONS {
        match definition.treatment {
            Treatment::Used if definition.name == "h" => {}
            Treatment::Used => {
                text.push_str(&format!(
                    "  --{} '{}'\n",
                    definition.name, definition.default
                ));
            }
            Treatment::NoEffect(note) => {
                idle.push_str(&format!("  --{}: {note}\n", definition.name));
            }
            Treatment::Refused(_) => {}
        }
    }
    text.push_str("\nAccepted for etcd's sake, without effect in this version:\n");
    text.push_str(&idle);
    text.push_str(
        "\nExit codes: 0 stopped on request, 1 cannot start or cannot go on, 2 bad flags.\n",
    );
    text
}
