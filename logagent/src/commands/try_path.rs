//! `logagent try PATH`: what an entry would collect on this host, without collecting it.
//!
//! Files are found, judged and opened as the agent does it, but by the user who asks: what that user
//! may read is not always what the agent's user may.

use std::path::{Path, PathBuf};

use logagent_core::config::{self, Entry};
use logagent_core::tailer::Blocked;
use serde::Serialize;

use super::table::{columns, printable, row, size};
use super::{Answer, CommandError, DONE, INVALID, NEGATIVE, json};
use crate::flags::{Home, Output};
use crate::settings;
use crate::source::allow::AllowList;
use crate::source::blocks::BlockPool;
use crate::source::files;
use crate::source::walk::Walk;

/// How much of a file's beginning is looked at for its first lines.
const HEAD_BYTES: usize = 64 * 1024;
const LINE_SHOWN_CHARS: usize = 160;
/// More files than this are only counted; `-o json` has them all.
const FILES_SHOWN_MAX: usize = 200;

#[derive(Debug, Serialize)]
struct Trial {
    path: String,
    /// What is wrong with the path itself.
    problems: Vec<String>,
    files: Vec<Found>,
    readable: usize,
}

#[derive(Debug, Serialize)]
struct Found {
    path: PathBuf,
    size_bytes: Option<u64>,
    readable: bool,
    reason: Option<String>,
    first_lines: Vec<String>,
}

/// What is tried.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub path: &'a str,
    pub exclude: &'a [String],
    pub lines: usize,
}

pub fn run(wanted: Wanted<'_>, home: &Home, output: Output) -> Result<Answer, CommandError> {
    let allow = AllowList::new(settings::whereabouts(home)?.allow);
    let (trial, is_valid) = attempt(wanted, &allow);
    let text = match output {
        Output::Json => json(&trial)?,
        Output::Table => words(&trial),
    };
    let exit_code = match (is_valid, trial.readable) {
        (false, _) => INVALID,
        (true, 0) => NEGATIVE,
        (true, _) => DONE,
    };
    Ok(Answer { text, exit_code })
}

fn attempt(wanted: Wanted<'_>, allow: &AllowList) -> (Trial, bool) {
    let mut trial = Trial {
        path: wanted.path.to_owned(),
        problems: Vec::new(),
        files: Vec::new(),
        readable: 0,
    };
    // Judged as the value of a config key would be; the topic is not looked at.
    let mut item = serde_json::json!({ "path": wanted.path, "topic": "try" });
    if !wanted.exclude.is_empty() {
        item["exclude"] = wanted.exclude.into();
    }
    let value = serde_json::Value::Array(vec![item]).to_string();
    let plan = match config::parse(Some(value.as_bytes())) {
        Ok(plan) => plan,
        Err(rejected) => {
            trial.problems = rejected.problems.into_iter().map(|p| p.message).collect();
            return (trial, false);
        }
    };
    trial.problems = plan.problems.into_iter().map(|p| p.message).collect();
    let Some(entry) = plan.entries.first() else {
        return (trial, false);
    };
    let paths = paths_of(entry, &mut trial.problems);
    trial.files = paths
        .iter()
        .map(|path| look(path, wanted.lines, allow))
        .collect();
    trial.readable = trial.files.iter().filter(|file| file.readable).count();
    (trial, true)
}

fn paths_of(entry: &Entry, problems: &mut Vec<String>) -> Vec<PathBuf> {
    let Some(pattern) = entry.compiled() else {
        return vec![PathBuf::from(&entry.id.path)];
    };
    let mut walk = Walk::new(pattern);
    walk.walk();
    problems.extend(walk.trouble().map(str::to_owned));
    walk.found().keys().cloned().collect()
}

fn look(path: &Path, lines: usize, allow: &AllowList) -> Found {
    let mut found = Found {
        path: path.to_owned(),
        size_bytes: None,
        readable: false,
        reason: None,
        first_lines: Vec::new(),
    };
    let opened = match files::open(path, allow) {
        Ok(opened) => opened,
        Err(Blocked::Missing) => {
            found.reason = Some("the file is not there; an agent would wait for it".to_owned());
            return found;
        }
        Err(Blocked::Refused(reason)) => {
            found.reason = Some(reason);
            return found;
        }
    };
    found.size_bytes = Some(opened.stat.size);
    match BlockPool::new(HEAD_BYTES).read(&opened.file, 0, HEAD_BYTES) {
        Ok(head) => {
            found.readable = true;
            let whole = memchr::memrchr(b'\n', &head).map_or(0, |newline| newline + 1);
            found.first_lines = head[..whole]
                .split(|byte| *byte == b'\n')
                .take(lines)
                .filter(|line| !line.is_empty())
                .map(|line| printable(line, LINE_SHOWN_CHARS))
                .collect();
        }
        Err(error) => found.reason = Some(files::refused(path, &error).to_string()),
    }
    found
}

fn words(trial: &Trial) -> String {
    let mut text = String::new();
    for problem in &trial.problems {
        text.push_str(&format!("error: {problem}\n"));
    }
    if trial.files.is_empty() {
        if trial.problems.is_empty() {
            text.push_str(&format!("{} means no file now\n", trial.path));
        }
        return text;
    }
    let mut rows = vec![row(["FILE", "SIZE", "READABLE"])];
    for file in trial.files.iter().take(FILES_SHOWN_MAX) {
        rows.push(vec![
            file.path.display().to_string(),
            file.size_bytes.map_or_else(|| "-".to_owned(), size),
            match &file.reason {
                None => "yes".to_owned(),
                Some(reason) => format!("no: {reason}"),
            },
        ]);
    }
    text.push_str(&columns(&rows));
    for file in trial.files.iter().take(FILES_SHOWN_MAX) {
        if !file.first_lines.is_empty() {
            text.push_str(&format!("\n{}:\n", file.path.display()));
        }
        for line in &file.first_lines {
            text.push_str(&format!("  {line}\n"));
        }
    }
    let count = trial.files.len();
    let hidden = count.saturating_sub(FILES_SHOWN_MAX);
    if hidden > 0 {
        text.push_str(&format!("\n{hidden} more files: -o json has all\n"));
    }
    let readable = trial.readable;
    text.push_str(&format!(
        "\n{readable} of {count} can be read by this user\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matches_what_is_readable_and_how_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("in")).unwrap();
        std::fs::write(root.join("in/a.log"), "one\n\ntwo\x07\nhalf").unwrap();
        std::fs::write(root.join("in/b.log"), "x\n").unwrap();
        std::fs::write(root.join("secret"), "s\n").unwrap();
        std::os::unix::fs::symlink(root.join("secret"), root.join("in/c.log")).unwrap();
        let allow = AllowList::new(vec![root.join("in")]);
        let path = |name: &str| root.join(name).display().to_string();
        let try_it = |name: &str, exclude: &[String]| {
            let path = path(name);
            attempt(
                Wanted {
                    path: &path,
                    exclude,
                    lines: 3,
                },
                &allow,
            )
        };
        let (trial, is_valid) = try_it("in/*.log", &["b.log".to_owned()]);
        assert!(is_valid && trial.readable == 1, "{trial:#?}");
        assert_eq!(trial.files[0].first_lines, ["one", "two\\u{7}"]);
        assert_eq!(trial.files[0].size_bytes, Some(14));
        let (trial, _) = try_it("in/c.log", &[]);
        assert_eq!(trial.readable, 0);
        assert!(words(&trial).contains("allow"), "{}", words(&trial));
        let (trial, is_valid) = try_it("in/none.log", &[]);
        assert!(
            is_valid && words(&trial).contains("wait for it"),
            "{trial:#?}"
        );
        let (trial, is_valid) = attempt(
            Wanted {
                path: "relative",
                exclude: &[],
                lines: 3,
            },
            &allow,
        );
        assert!(
            !is_valid && words(&trial).starts_with("error: "),
            "{trial:#?}"
        );
    }
}
