//! `logagent offsets`: what the checkpoint on disk says, and how to make it forget.
//!
//! Forgetting takes the folder's lock: an agent that runs would write its own offsets over it.

use std::path::Path;

use logagent_core::checkpoint::{Checkpoint, EntryRows, RowState};
use logagent_core::pattern::{Pattern, is_pattern};
use serde::Serialize;

use super::table::{columns, row};
use super::{Answer, CommandError, DONE, NEGATIVE, json};
use crate::checkpoint_store;
use crate::durable::DataDir;
use crate::flags::{Home, OffsetsCommand, Output};
use crate::settings;

#[derive(Debug, Serialize)]
struct Offset<'a> {
    path: &'a str,
    topic: &'a str,
    /// False when the entry does not run: its offsets wait for it.
    active: bool,
    identity: String,
    state: RowState,
    acked_offset: u64,
    seen_bytes: u64,
}

pub fn run(command: &OffsetsCommand) -> Result<Answer, CommandError> {
    match command {
        OffsetsCommand::List { home, output } => list(home, *output),
        OffsetsCommand::Reset {
            path,
            topic,
            home,
            all: _,
        } => reset(home, path.as_deref(), topic.as_deref()),
    }
}

fn list(home: &Home, output: Output) -> Result<Answer, CommandError> {
    let data_dir = settings::whereabouts(home)?.data_dir;
    let loaded = checkpoint_store::load(&data_dir);
    let offsets = offsets_of(&loaded.checkpoint);
    let mut text = match output {
        Output::Json => json(&offsets)?,
        Output::Table => table(&offsets),
    };
    if let (Output::Table, Some(problem)) = (output, &loaded.problem) {
        text = format!("warning: {problem}\n{text}");
    }
    let exit_code = if loaded.problem.is_none() {
        DONE
    } else {
        NEGATIVE
    };
    Ok(Answer { text, exit_code })
}

fn offsets_of(checkpoint: &Checkpoint) -> Vec<Offset<'_>> {
    let mut offsets = Vec::new();
    for entry in &checkpoint.entries {
        offsets.extend(entry.files.iter().map(|file| Offset {
            path: &entry.path,
            topic: &entry.topic,
            active: entry.active,
            identity: file.id.to_string(),
            state: file.state,
            acked_offset: file.acked_offset,
            seen_bytes: file.seen_bytes,
        }));
    }
    offsets.sort_by_key(|offset| (offset.path, offset.topic));
    offsets
}

fn table(offsets: &[Offset<'_>]) -> String {
    if offsets.is_empty() {
        return "no offsets: every file would be read as its entry says\n".to_owned();
    }
    let mut rows = vec![row(["PATH", "TOPIC", "IDENTITY", "ACKED", "SEEN", "STATE"])];
    for offset in offsets {
        let state = match (offset.active, offset.state) {
            (false, _) => "entry stopped",
            (true, RowState::Current) => "current",
            (true, RowState::Draining) => "rotated away",
            (true, RowState::Done) => "finished",
        };
        rows.push(vec![
            offset.path.to_owned(),
            offset.topic.to_owned(),
            offset.identity.clone(),
            offset.acked_offset.to_string(),
            offset.seen_bytes.to_string(),
            state.to_owned(),
        ]);
    }
    columns(&rows)
}

/// Without a path, everything.
fn reset(home: &Home, path: Option<&str>, topic: Option<&str>) -> Result<Answer, CommandError> {
    let data_dir = settings::whereabouts(home)?.data_dir;
    // A folder that is not there has nothing to forget, and need not be made.
    if !data_dir.exists() {
        return Ok(nothing(&data_dir));
    }
    let lock = DataDir::open(&data_dir)?;
    let mut checkpoint = match path {
        Some(_) => checkpoint_store::load_whole(lock.path())?,
        // Everything goes, so damage does not matter.
        None => checkpoint_store::load(lock.path()).checkpoint,
    };
    let before = checkpoint.entries.len();
    let matches = matcher(path);
    checkpoint.entries.retain(|entry: &EntryRows| {
        let is_topic = topic.is_none_or(|topic| entry.topic == topic);
        !(is_topic && matches(&entry.path))
    });
    let forgotten = before - checkpoint.entries.len();
    if forgotten == 0 && path.is_some() {
        return Ok(nothing(&data_dir));
    }
    checkpoint_store::replace_all(lock.path(), checkpoint).map_err(|source| {
        CommandError::Write {
            path: data_dir.clone(),
            source,
        }
    })?;
    Ok(Answer {
        text: format!(
            "{forgotten} entries forgotten: the next start reads their files as their `from` says\n"
        ),
        exit_code: DONE,
    })
}

fn nothing(data_dir: &Path) -> Answer {
    Answer {
        text: format!(
            "{} has no such offsets; nothing was changed\n",
            data_dir.display()
        ),
        exit_code: NEGATIVE,
    }
}

fn matcher(path: Option<&str>) -> impl Fn(&str) -> bool {
    let pattern = path
        .filter(|path| is_pattern(path))
        .and_then(|path| Pattern::parse(path, &[]).ok());
    let exact = path.map(logagent_core::config::normal_path);
    move |candidate: &str| match (&pattern, &exact) {
        (_, None) => true,
        (Some(pattern), _) if pattern.matches(candidate) => true,
        (_, Some(exact)) => candidate == exact,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_a_pattern_or_all() {
        let check = |path: Option<&str>, candidate: &str, expected: bool| {
            assert_eq!(matcher(path)(candidate), expected, "{path:?} {candidate}");
        };
        check(None, "/a", true);
        check(Some("/var//log/a"), "/var/log/a", true);
        check(Some("/var/log/a"), "/var/log/ab", false);
        check(Some("/var/log/*.log"), "/var/log/a.log", true);
        check(Some("/var/log/*.log"), "/var/log/x/a.log", false);
    }
}
