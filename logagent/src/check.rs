//! `logagent check`: what this agent would make of a configuration value, without running it.

use std::fmt::Write as _;

use logagent_core::config;
use schemas::fleet::Problem;

/// The report and whether the value is entirely good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub text: String,
    pub is_good: bool,
}

pub fn report(value: &[u8]) -> Report {
    let mut text = String::new();
    let mut line = |words: String| {
        // Writing into a String cannot fail.
        let written = writeln!(text, "{words}");
        debug_assert!(written.is_ok());
    };
    let is_good = match config::parse(Some(value)) {
        Err(rejected) => {
            rejected
                .problems
                .iter()
                .for_each(|problem| line(format!("error: {}", say(problem))));
            false
        }
        Ok(plan) => {
            for entry in &plan.entries {
                line(format!("collect {} -> {}", entry.id.path, entry.id.topic));
            }
            plan.problems
                .iter()
                .for_each(|problem| line(format!("error: {}", say(problem))));
            plan.warnings
                .iter()
                .for_each(|problem| line(format!("warning: {}", say(problem))));
            if plan.entries.is_empty() && plan.problems.is_empty() {
                line("collect nothing".to_owned());
            }
            plan.problems.is_empty()
        }
    };
    Report { text, is_good }
}

fn say(problem: &Problem) -> String {
    let index = problem
        .index
        .map(|index| format!("entry {index}: "))
        .unwrap_or_default();
    format!("{index}{}", problem.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_run_and_what_would_not() {
        let good = report(br#"[{"path":"/var/log/a","topic":"t"}]"#);
        assert_eq!(
            good,
            Report {
                text: "collect /var/log/a -> t\n".to_owned(),
                is_good: true
            }
        );
        assert_eq!(report(b"").text, "collect nothing\n");
        let partly = report(br#"[{"path":"/var/log/a","topic":"t"},{"path":"/a"}]"#);
        assert!(
            !partly.is_good && partly.text.contains("collect") && partly.text.contains("entry 1")
        );
        assert!(!report(b"{").is_good);
    }
}
