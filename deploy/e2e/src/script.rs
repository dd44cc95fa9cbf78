//! A script of etcdctl commands, played to one server: what each command says, with what may differ
//! between two servers that behave alike masked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::process::Process;
use crate::tools::run;
use crate::wait::{DEADLINE, wait_until};

/// A command that waits for good is a difference, and must not be the end of the test run.
const COMMAND_TIME_S: &str = "60";

/// One server under the script, with the lease ids that it has given.
pub struct Session {
    etcdctl: PathBuf,
    client_port: u16,
    member_name: &'static str,
    folder: PathBuf,
    leases: BTreeMap<&'static str, String>,
    watchers: usize,
}

/// One command of the script.
pub enum Step {
    /// Arguments and standard input. `{name}` stands for a lease granted under that name, `{dir}` for
    /// a folder of the session.
    Run(&'static [&'static str], &'static str),
    /// The same; numbers are masked, so that the shape of what is said remains.
    Shape(&'static [&'static str]),
    /// `lease grant TTL`, remembered under a name.
    Grant(&'static str, &'static str),
    /// A command that does not end by itself: wait for this many lines, then run the next
    /// command, wait for as many lines again as given, and end it.
    Follow {
        args: &'static [&'static str],
        lines: usize,
        then: &'static [&'static str],
        more: usize,
    },
}

use Step::{Follow, Grant, Run, Shape};

impl Step {
    fn text(&self) -> String {
        match self {
            Run(args, stdin) => format!("{args:?} {stdin:?}"),
            Shape(args) => format!("{args:?}"),
            Grant(_, ttl) => format!("lease grant {ttl}"),
            Follow { args, then, .. } => format!("{args:?} and {then:?}"),
        }
    }
}

/// Plays the script to both, step by step, and tells the steps that went differently.
pub fn differences(
    script: &[Step],
    oracle: &mut Session,
    subject: &mut Session,
) -> anyhow::Result<String> {
    // `E2E_ETCDCTL_SHOW=1` prints what the oracle says: for whoever extends the script.
    let is_shown = std::env::var_os("E2E_ETCDCTL_SHOW").is_some();
    let mut differences = String::new();
    for (number, step) in script.iter().enumerate() {
        let (wanted, got) = (oracle.step(step)?, subject.step(step)?);
        if is_shown {
            println!("step {number}: {}\n{wanted}\n", step.text());
        }
        if wanted != got {
            differences.push_str(&format!(
                "step {number}: etcdctl {}\n=== etcd\n{wanted}\n=== ours\n{got}\n\n",
                step.text()
            ));
        }
    }
    Ok(differences)
}

impl Session {
    /// Below `folder`, with this etcdctl against the member of this name on this port.
    pub fn new(
        etcdctl: &Path,
        folder: &Path,
        (subject, member_name): (&str, &'static str),
        client_port: u16,
    ) -> anyhow::Result<Self> {
        let folder = folder.join(subject);
        fs::create_dir_all(&folder)?;
        Ok(Self {
            etcdctl: etcdctl.to_owned(),
            client_port,
            member_name,
            folder,
            leases: BTreeMap::new(),
            watchers: 0,
        })
    }

    fn arguments(&self, args: &[&str]) -> Vec<String> {
        let fill = |arg: &&str| {
            let mut arg = arg.replace("{dir}", &self.folder.to_string_lossy());
            for (name, id) in &self.leases {
                arg = arg.replace(&format!("{{{name}}}"), id);
            }
            arg
        };
        args.iter().map(fill).collect()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.etcdctl);
        // Of 3.4; later ones have no choice, and warn about every variable that they do not know.
        if self.etcdctl == Path::new("etcdctl") {
            command.env("ETCDCTL_API", "3");
        }
        // Without a scheme: with one, the etcdctl of 3.4 sends the whole URL as :authority in the
        // status call, which the HTTP/2 library refuses as malformed.
        command.arg(format!("--endpoints=127.0.0.1:{}", self.client_port));
        command.args(self.arguments(args));
        command
    }

    /// A command that should end by itself.
    fn bounded(&self, args: &[&str]) -> Command {
        let command = self.command(args);
        let mut bounded = Command::new("timeout");
        bounded.arg(COMMAND_TIME_S).arg(command.get_program());
        bounded.args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                bounded.env(name, value);
            }
        }
        bounded
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<String> {
        match step {
            Run(args, stdin) => {
                let output = run(&mut self.bounded(args), stdin)?;
                Ok(self.masked(output.code, &output.stdout, &output.stderr))
            }
            Shape(args) => {
                let output = run(&mut self.bounded(args), "")?;
                let text = self.masked(output.code, &output.stdout, &output.stderr);
                Ok(mask_numbers(&text))
            }
            Grant(name, ttl) => {
                let output = run(&mut self.command(&["lease", "grant", ttl]), "")?;
                let id = output.stdout.split(' ').nth(1).unwrap_or_default();
                self.leases.insert(name, id.to_owned());
                Ok(self.masked(output.code, &output.stdout, &output.stderr))
            }
            Follow {
                args,
                lines,
                then,
                more,
            } => {
                self.watchers += 1;
                let log = self.folder.join(format!("watch-{}.log", self.watchers));
                let watcher = Process::spawn("etcdctl watch", self.command(args), &log)?;
                let grown = |lines: usize| {
                    let what = format!("{lines} lines of etcdctl {args:?}");
                    wait_until(&what, DEADLINE, || {
                        let text = watcher.log_text();
                        (text.lines().count() >= lines).then_some(text)
                    })
                };
                let history = grown(*lines)?.lines().count();
                run(&mut self.bounded(then), "")?.ok()?;
                let text = grown(history + more)?;
                Ok(self.masked(None, &text, ""))
            }
        }
    }

    fn masked(&self, code: Option<i32>, stdout: &str, stderr: &str) -> String {
        let mask = |text: &str| {
            let lines: Vec<_> = text.lines().map(|line| self.masked_line(line)).collect();
            lines.join("\n")
        };
        format!("exit {code:?}\n{}\n--\n{}", mask(stdout), mask(stderr))
    }

    /// Hides what may differ between two servers that behave alike.
    fn masked_line(&self, line: &str) -> String {
        if let Ok(mut json) = serde_json::from_str::<Value>(line)
            && (json.is_object() || json.is_array())
        {
            self.mask_json(&mut json);
            return self.masked_text(&json.to_string());
        }
        self.masked_text(line)
    }

    fn mask_json(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                let is_log = fields.contains_key("caller");
                fields.retain(|name, _| !(is_log && DROPPED_FIELDS.contains(&name.as_str())));
                for (name, field) in fields.iter_mut() {
                    if name == "name" && *field == self.member_name {
                        *field = "<name>".into();
                    }
                    // A key-value pair has a "version" too, and that one must be equal.
                    if MASKED_FIELDS.contains(&name.as_str())
                        && !(name == "version" && field.is_i64())
                    {
                        *field = match field {
                            Value::Number(_) => "<number>".into(),
                            Value::String(_) => "<text>".into(),
                            Value::Array(items) => format!("<{} items>", items.len()).into(),
                            _ => "<other>".into(),
                        };
                    } else {
                        self.mask_json(field);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_json(item)),
            _ => {}
        }
    }

    fn masked_text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, id) in &self.leases {
            text = text.replace(id, &format!("<lease {name}>"));
            if let Ok(number) = i64::from_str_radix(id, 16) {
                text = text.replace(&number.to_string(), &format!("<lease {name}>"));
            }
        }
        text = text.replace(&*self.folder.to_string_lossy(), "<dir>");
        // The member's name in a list: in plain text, in a table, as a field.
        for (before, after) in [
            (", ", ", "),
            ("│ ", " "),
            ("| ", " "),
            ("\"Name\" : \"", "\""),
        ] {
            let name = format!("{before}{}{after}", self.member_name);
            text = text.replace(&name, &format!("{before}<name>{after}"));
        }
        text = text.replace(&format!("127.0.0.1:{}", self.client_port), "<client>");
        for (before, after) in [
            ("remaining(", "s)"),
            ("took = ", "\n"),
            ("successfully committed proposal: took", "\n"),
            ("\"ClusterID\" : ", "\n"),
            ("\"MemberID\" : ", "\n"),
            ("\"RaftTerm\" : ", "\n"),
            ("LocalAddr: '", "'"),
            ("http://127.0.0.1:", ","),
        ] {
            if let Some(at) = text.find(before) {
                let from = at + before.len();
                let to = text[from..]
                    .find(after)
                    .map_or(text.len(), |end| from + end);
                text.replace_range(from..to, "<masked>");
            }
        }
        mask_words(&text, "<id>", is_id)
    }
}

/// Ids, terms, log positions, sizes and versions; presence and type stay visible.
const MASKED_FIELDS: &[&str] = &[
    "cluster_id",
    "member_id",
    "raft_term",
    "leader",
    "raftIndex",
    "raftTerm",
    "raftAppliedIndex",
    "dbSize",
    "dbSizeInUse",
    "version",
    "ID",
    "Endpoint",
    "peerURLs",
    "clientURLs",
];
/// Fields of etcdctl's own log lines that tell when and where, not what.
const DROPPED_FIELDS: &[&str] = &["ts", "target", "caller", "attempt"];

/// Words of 13 to 16 hexadecimal digits are ids of members, clusters and leases.
fn is_id(word: &str) -> bool {
    (13..=16).contains(&word.len()) && is_hex(word)
}

/// A hash of 32 bits, if it is no word of letters.
fn is_hash(word: &str) -> bool {
    (6..=8).contains(&word.len()) && is_hex(word) && word.contains(|c: char| c.is_ascii_digit())
}

fn is_hex(word: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase();
    word.chars().all(is_digit)
}

fn mask_words(text: &str, mask: &str, is_masked: fn(&str) -> bool) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    let mut masked = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_word(c)).unwrap_or(from.len()));
        masked.push_str(before);
        masked.push_str(if is_masked(word) { mask } else { word });
        rest = after;
    }
    masked + rest
}

/// Numbers, also hexadecimal ones, units of size, what pads a table's columns, and how far a bar has
/// come.
fn mask_numbers(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(behind_progress)
        .filter(|line| !line.contains(" / "))
        .collect();
    let mut masked = String::new();
    let mut last = ' ';
    for c in mask_words(&lines.join("\n"), "#", is_hash).chars() {
        let c = match c {
            '0'..='9' | '.' if last == '#' => continue,
            '0'..='9' => '#',
            '─' | '-' | ' ' if last == c => continue,
            c => c,
        };
        masked.push(c);
        last = c;
    }
    for unit in ["# kB", "# MB", "# GB", "# B"] {
        masked = masked.replace(unit, "# bytes");
    }
    masked
}

/// What a line says behind the progress bars that etcdctl has written over each other.
pub fn behind_progress(line: &str) -> &str {
    line.rsplit("p/s").next().unwrap_or_default()
}
