//! Where the log of a process goes, and who is heard in it.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, stderr, stdout};
use std::sync::Arc;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt as _};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::flags::{LogFormat, LogLevel, LogOutput};

/// Begins to log, once per process.
///
/// At debug level everything speaks; above it the libraries are heard only when they fail, because
/// what they tell is written for their own developers.
///
/// # Errors
/// When a file cannot be written; one line for the operator.
pub fn start(level: LogLevel, format: LogFormat, outputs: &[LogOutput]) -> Result<(), String> {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let speakers = if level == LevelFilter::DEBUG {
        Targets::new().with_default(level)
    } else {
        Targets::new()
            .with_default(LevelFilter::ERROR)
            .with_target("config_center", level)
    };
    let has_colours = outputs.iter().all(|output| match output {
        LogOutput::Stderr => stderr().is_terminal(),
        LogOutput::Stdout => stdout().is_terminal(),
        LogOutput::File(_) => false,
    });
    let lines = tracing_subscriber::fmt::layer().with_writer(writer(outputs)?);
    let registry = tracing_subscriber::registry();
    match format {
        LogFormat::Console => {
            let lines = lines.compact().with_target(false).with_ansi(has_colours);
            registry.with(lines).with(speakers).init();
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            registry.with(lines).with(speakers).init();
        }
    }
    Ok(())
}

fn writer(outputs: &[LogOutput]) -> Result<BoxMakeWriter, String> {
    let mut all: Option<BoxMakeWriter> = None;
    for output in outputs {
        let one = match output {
            LogOutput::Stderr => BoxMakeWriter::new(stderr),
            LogOutput::Stdout => BoxMakeWriter::new(stdout),
            LogOutput::File(path) => {
                let file = appended(path).map_err(|error| {
                    format!(
                        "cannot log to {}: {error}; nothing was changed",
                        path.display()
                    )
                })?;
                BoxMakeWriter::new(Arc::new(file))
            }
        };
        all = Some(match all {
            None => one,
            Some(others) => BoxMakeWriter::new(others.and(one)),
        });
    }
    Ok(all.unwrap_or_else(|| BoxMakeWriter::new(stderr)))
}

/// Whoever rotates the file may copy and truncate it meanwhile.
fn appended(path: &std::path::Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
