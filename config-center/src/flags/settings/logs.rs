//! The flags about the log.

use std::path::PathBuf;

use super::text;
use crate::flags::UsageError;
use crate::flags::command_line::Given;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Console,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOutput {
    Stderr,
    Stdout,
    /// Lines are appended.
    File(PathBuf),
}

pub(super) fn level(given: &Given) -> Result<LogLevel, UsageError> {
    match text(given, "log-level") {
        "debug" => Ok(LogLevel::Debug),
        "info" => Ok(LogLevel::Info),
        "warn" => Ok(LogLevel::Warn),
        // etcd's two levels above error have no counterpart.
        "error" | "panic" | "fatal" => Ok(LogLevel::Error),
        other => Err(UsageError::invalid(
            &given.spelled("log-level"),
            other,
            "it is debug, info, warn or error",
        )),
    }
}

pub(super) fn format(given: &Given) -> Result<LogFormat, UsageError> {
    match text(given, "log-format") {
        "console" => Ok(LogFormat::Console),
        "json" => Ok(LogFormat::Json),
        other => Err(UsageError::invalid(
            &given.spelled("log-format"),
            other,
            "it is json or console",
        )),
    }
}

/// Comma-separated; one that comes twice counts once.
pub(super) fn outputs(given: &Given) -> Result<Vec<LogOutput>, UsageError> {
    const FLAG: &str = "log-outputs";
    const LOGGER: &str = "logger";
    let logger = text(given, LOGGER);
    if !matches!(logger, "zap" | "capnslog") {
        let fault = "it is zap or capnslog";
        return Err(UsageError::invalid(&given.spelled(LOGGER), logger, fault));
    }
    let mut outputs = Vec::new();
    for name in text(given, FLAG).split(',').map(str::trim) {
        let output = match name {
            "default" | "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            "" | "systemd/journal" => {
                let fault = "it is stderr, stdout or a file; what a service writes to stderr is \
                             in the journal already";
                return Err(UsageError::invalid(&given.spelled(FLAG), name, fault));
            }
            file => LogOutput::File(PathBuf::from(file)),
        };
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    Ok(outputs)
}
