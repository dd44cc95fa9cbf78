//! `logagent check`: what an agent would make of a configuration value, without running it.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use logagent_core::config;
use schemas::fleet::Problem;
use serde::Serialize;

use super::position::{Position, locate, position};
use super::{Answer, CommandError, DONE, INVALID, json};
use crate::flags::Output;

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    entries: Vec<Collected>,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Collected {
    path: String,
    topic: String,
}

#[derive(Debug, Serialize)]
struct Finding {
    index: Option<usize>,
    field: Option<String>,
    #[serde(flatten)]
    position: Option<Position>,
    message: String,
}

/// `source` is a file, `-`, or the value itself, which begins with a bracket.
pub fn run(source: &str, output: Output) -> Result<Answer, CommandError> {
    let failed = |path: &str| {
        let path = path.into();
        move |source| CommandError::Read { path, source }
    };
    let (name, value) = if source == "-" {
        let mut value = Vec::new();
        std::io::stdin()
            .read_to_end(&mut value)
            .map_err(failed("standard input"))?;
        ("stdin", value)
    } else if source.trim_start().starts_with(['[', '{']) && !Path::new(source).exists() {
        ("value", source.as_bytes().to_vec())
    } else {
        (source, std::fs::read(source).map_err(failed(source))?)
    };
    let report = judge(&value);
    let text = match output {
        Output::Json => json(&report)?,
        Output::Table => words(name, &report),
    };
    Ok(Answer {
        text,
        exit_code: if report.ok { DONE } else { INVALID },
    })
}

fn judge(value: &[u8]) -> Report {
    let find = |problem: Problem| Finding {
        position: problem
            .index
            .and_then(|index| locate(value, index, problem.field.as_deref())),
        index: problem.index,
        field: problem.field,
        message: problem.message,
    };
    match config::parse(Some(value)) {
        Ok(plan) => Report {
            ok: plan.problems.is_empty(),
            entries: plan
                .entries
                .into_iter()
                .map(|entry| Collected {
                    path: entry.id.path,
                    topic: entry.id.topic,
                })
                .collect(),
            errors: plan.problems.into_iter().map(find).collect(),
            warnings: plan.warnings.into_iter().map(find).collect(),
        },
        Err(rejected) => Report {
            ok: false,
            entries: Vec::new(),
            errors: match syntax_error(value) {
                Some(finding) => vec![finding],
                None => rejected.problems.into_iter().map(find).collect(),
            },
            warnings: Vec::new(),
        },
    }
}

/// What is not JSON, with a place in the whole text.
fn syntax_error(value: &[u8]) -> Option<Finding> {
    let error = serde_json::from_slice::<serde::de::IgnoredAny>(value).err()?;
    let line_start = match error.line() {
        0 | 1 => 0,
        line => memchr::memchr_iter(b'\n', value)
            .nth(line - 2)
            .map_or(0, |newline| newline + 1),
    };
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or(&words);
    Some(Finding {
        index: None,
        field: None,
        position: Some(position(
            value,
            line_start + error.column().saturating_sub(1),
        )),
        message: format!("the value is not JSON: {words}"),
    })
}

fn words(name: &str, report: &Report) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        // Writing into a String cannot fail.
        let written = writeln!(text, "{words}");
        debug_assert!(written.is_ok());
    };
    for entry in &report.entries {
        line(format!("collect {} -> {}", entry.path, entry.topic));
    }
    if report.entries.is_empty() && report.ok {
        line("collect nothing".to_owned());
    }
    let findings = report
        .errors
        .iter()
        .map(|finding| ("error", finding))
        .chain(report.warnings.iter().map(|finding| ("warning", finding)));
    for (kind, finding) in findings {
        let place = finding
            .position
            .map_or_else(String::new, |at| format!(":{}:{}", at.line, at.column));
        let entry = finding
            .index
            .map_or_else(String::new, |index| format!("entry {index}: "));
        line(format!("{name}{place}: {kind}: {entry}{}", finding.message));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str) -> (String, bool) {
        let report = judge(value.as_bytes());
        (words("v", &report), report.ok)
    }

    #[test]
    fn what_would_run_and_what_would_not() {
        let good = check(r#"[{"path":"/var/log/a","topic":"t"}]"#);
        assert_eq!(good, ("collect /var/log/a -> t\n".to_owned(), true));
        assert_eq!(check("").0, "collect nothing\n");
        let (text, ok) = check(
            "[{\"path\":\"/var/log/a\",\"topic\":\"t\"},\n {\"path\":\"a\",\"topic\":\"t\"}]",
        );
        assert!(
            !ok && text.starts_with("collect /var/log/a -> t\nv:2:3: error: entry 1: "),
            "{text}"
        );
    }

    #[test]
    fn what_is_not_json_has_a_place_in_the_file() {
        for (value, place) in [
            ("{", "v:1:1: "),
            ("\n\n[{\"path\" \"/a\"}]", "v:3:10: "),
            ("[1,]", "v:1:4: "),
        ] {
            let (text, ok) = check(value);
            assert!(!ok && text.starts_with(place), "{value:?}: {text}");
            assert!(text.contains("error: the value is not JSON: "), "{text}");
        }
        assert!(
            check("{}")
                .0
                .starts_with("v: error: the value is an object")
        );
    }
}
