//! What the program does besides running as an agent: each command gives a text and an exit code.
//!
//! Commands read; only `offsets reset` writes, and only while no agent runs on the folder.

pub mod check;
pub mod offsets;
mod position;
pub mod status;
mod table;
pub mod try_path;

use std::path::PathBuf;

use crate::checkpoint_store::Damaged;
use crate::durable::DataDirError;
use crate::local::client::AskError;
use crate::settings::SettingsError;

/// Exit codes, as docs/operating.md lists them.
pub const DONE: u8 = 0;
/// Something is in trouble, or nothing was found.
pub const NEGATIVE: u8 = 1;
pub const INVALID: u8 = 3;
pub const NOT_RUNNING: u8 = 4;

/// What a command prints, and how it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    pub exit_code: u8,
}

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0}")]
    Folder(#[from] DataDirError),
    #[error("{0}; nothing was changed")]
    Checkpoint(#[from] Damaged),
    #[error("cannot write the checkpoint in {path}: {source}; the old one stays", path = path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl CommandError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ask(AskError::NotRunning { .. }) => NOT_RUNNING,
            _ => NEGATIVE,
        }
    }
}

/// JSON for machines, one document, with its newline.
fn json(value: &impl serde::Serialize) -> Result<String, CommandError> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}
