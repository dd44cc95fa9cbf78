//! One server under calls of the v2 API. Few paths, so that most calls meet a node.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use super::Subject;
use crate::http::{self, Streaming};
use crate::v2;

const LENGTH: std::ops::Range<usize> = 1..40;

/// `/d` and `/q` are mostly directories, `/_h` is hidden.
const PATHS: [&str; 9] = [
    "/a", "/b", "/d", "/d/x", "/d/e", "/d/e/y", "/q", "/_h", "/a/x",
];
/// Where every sequence ends, and the next one begins.
const TOPS: [&str; 5] = ["/a", "/b", "/d", "/q", "/_h"];
/// No numbers: in the text of a refusal they would look like indexes.
const VALUES: [&str; 3] = ["one", "two", "a%26b+c"];
/// How many indexes a watcher may wait ahead of the newest.
const AHEAD: i64 = 2;

const FORM: [(&str, &str); 1] = [("Content-Type", "application/x-www-form-urlencoded")];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum V2Operation {
    Call {
        verb: &'static str,
        path: &'static str,
        parameters: Vec<(&'static str, Value)>,
        /// In the body, not behind the path.
        in_form: bool,
    },
    /// Answered at the end of the sequence at the latest.
    Wait {
        path: &'static str,
        recursive: bool,
        since: Option<Index>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(&'static str),
    Index(Index),
}

/// An index relative to what the sequence knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    SinceStart(i64),
    /// Counted back from the newest.
    Ago(i64),
}

fn path() -> impl Strategy<Value = &'static str> {
    select(&PATHS[..])
}

fn index() -> impl Strategy<Value = Index> {
    prop_oneof![
        (1..25_i64).prop_map(Index::SinceStart),
        (0..6_i64).prop_map(Index::Ago)
    ]
}

fn text(of: &'static [&'static str]) -> impl Strategy<Value = Value> {
    select(of).prop_map(Value::Text)
}

fn parameter(
    name: &'static str,
    probability: f64,
    value: impl Strategy<Value = Value> + 'static,
) -> BoxedStrategy<Option<(&'static str, Value)>> {
    weighted(probability, value.prop_map(move |value| (name, value))).boxed()
}

fn call(
    verb: &'static str,
    parameters: Vec<BoxedStrategy<Option<(&'static str, Value)>>>,
) -> impl Strategy<Value = V2Operation> {
    (path(), parameters, any::<bool>()).prop_map(move |(path, parameters, in_form)| {
        V2Operation::Call {
            verb,
            path,
            parameters: parameters.into_iter().flatten().collect(),
            in_form: in_form && !["GET", "HEAD", "DELETE"].contains(&verb),
        }
    })
}

/// Once in a while with a value that is none.
const BOOLEANS: &[&str] = &["true", "true", "true", "true", "false", "false", "maybe"];

fn conditions() -> Vec<BoxedStrategy<Option<(&'static str, Value)>>> {
    vec![
        parameter("prevExist", 0.25, text(BOOLEANS)),
        parameter("prevValue", 0.15, text(&["one", "one", "two", "two", ""])),
        parameter("prevIndex", 0.15, index().prop_map(Value::Index)),
        parameter("noValueOnSuccess", 0.05, text(BOOLEANS)),
    ]
}

fn operation() -> impl Strategy<Value = V2Operation> {
    let mut put = conditions();
    put.push(parameter("value", 0.8, text(&VALUES)));
    put.push(parameter("dir", 0.2, text(BOOLEANS)));
    put.push(parameter("ttl", 0.15, text(&["505", "905", "", "soon"])));
    put.push(parameter("refresh", 0.08, text(BOOLEANS)));
    let mut delete = conditions();
    delete.push(parameter("dir", 0.3, text(BOOLEANS)));
    delete.push(parameter("recursive", 0.3, text(BOOLEANS)));
    let get = || {
        vec![
            parameter("recursive", 0.4, text(BOOLEANS)),
            parameter("sorted", 0.4, text(BOOLEANS)),
            parameter("quorum", 0.2, text(BOOLEANS)),
        ]
    };
    let post = vec![
        parameter("value", 0.8, text(&VALUES)),
        parameter("dir", 0.1, text(BOOLEANS)),
        parameter("ttl", 0.1, text(&["505", ""])),
    ];
    // A hidden node is told to nobody above it, and kept from history: see docs/v2.md.
    let wait = (
        select(&["/a", "/b", "/d", "/d/x", "/d/e", "/q"][..]),
        any::<bool>(),
        weighted(0.7, index()),
    );
    prop_oneof![
        40 => call("PUT", put),
        15 => call("DELETE", delete),
        20 => call("GET", get()),
        2 => call("HEAD", get()),
        8 => call("POST", post),
        6 => wait.prop_map(|(path, recursive, since)| V2Operation::Wait { path, recursive, since }),
    ]
}

pub(super) struct Session {
    port: u16,
    base: i64,
    newest: i64,
    waiting: Vec<(&'static str, Streaming)>,
}

impl Subject for Session {
    type Operation = V2Operation;

    fn sequences() -> impl Strategy<Value = Vec<V2Operation>> {
        vec(operation(), LENGTH)
    }

    async fn connect(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            port: url.rsplit(':').next().unwrap_or_default().parse()?,
            base: 0,
            newest: 0,
            waiting: Vec::new(),
        })
    }

    async fn reset(&mut self) -> anyhow::Result<()> {
        self.waiting.clear();
        self.clear()?;
        self.base = v2::index_of(self.port)?;
        self.newest = self.base;
        Ok(())
    }

    async fn perform(&mut self, operation: &V2Operation) -> anyhow::Result<String> {
        match operation {
            V2Operation::Call {
                verb,
                path,
                parameters,
                in_form,
            } => {
                let parameters: Vec<String> = parameters
                    .iter()
                    .map(|(name, value)| match value {
                        Value::Text(text) => format!("{name}={text}"),
                        Value::Index(index) => format!("{name}={}", self.index(*index)),
                    })
                    .collect();
                let (query, form) = match (parameters.join("&"), in_form) {
                    (parameters, true) => (String::new(), parameters),
                    (parameters, false) => (format!("?{parameters}"), String::new()),
                };
                let target = format!("/v2/keys{path}{query}");
                let mut answer = http::exchange(self.port, verb, &target, &FORM, &form)?;
                anyhow::ensure!(answer.status != 503, "no answer: {answer:?}");
                self.note(answer.header("x-etcd-index"));
                if !query.contains("sorted=true") {
                    answer.body = v2::in_order(&answer.body);
                }
                Ok(format!("{:#}", v2::shown(&answer, self.base)))
            }
            V2Operation::Wait {
                path,
                recursive,
                since,
            } => {
                let mut target = format!("/v2/keys{path}?wait=true&recursive={recursive}");
                if let Some(since) = since {
                    // History from before the sequence would be told otherwise.
                    let since = self.index(*since).clamp(self.base + 1, self.newest + AHEAD);
                    target.push_str(&format!("&waitIndex={since}"));
                }
                let waiting = http::open(self.port, "GET", &target, &[], "")?;
                let header = waiting
                    .headers
                    .iter()
                    .find(|(name, _)| name == "x-etcd-index");
                let index: Option<i64> = header.and_then(|(_, index)| index.parse().ok());
                let told = format!(
                    "{} {:?}",
                    waiting.status,
                    index.map(|index| index - self.base)
                );
                self.waiting.push((path, waiting));
                Ok(told)
            }
        }
    }

    /// Makes each watcher's path change often enough for it to be told, and reads what it was.
    async fn finish(&mut self) -> anyhow::Result<String> {
        let mut told = Vec::new();
        for (path, mut waiting) in std::mem::take(&mut self.waiting) {
            self.clear()?;
            for _ in 0..=AHEAD {
                let target = format!("/v2/keys{path}");
                http::exchange(self.port, "PUT", &target, &FORM, "value=end")?;
            }
            let body = waiting.piece()?.unwrap_or_default();
            let mut event = serde_json::from_str(&body).unwrap_or_else(|_| body.into());
            v2::relative(&mut event, self.base);
            told.push(format!("{path}: {event:#}"));
        }
        Ok(told.join("\n"))
    }
}

impl Session {
    fn index(&self, index: Index) -> i64 {
        match index {
            Index::SinceStart(count) => self.base + count,
            Index::Ago(count) => self.newest - count,
        }
    }

    fn note(&mut self, index: Option<&str>) {
        let index = index.and_then(|index| index.parse().ok());
        self.newest = self.newest.max(index.unwrap_or(0));
    }

    /// Deletes every node that a sequence may have made.
    fn clear(&self) -> anyhow::Result<()> {
        for path in TOPS {
            let target = format!("/v2/keys{path}?recursive=true&dir=true");
            let answer = http::exchange(self.port, "DELETE", &target, &[], "")?;
            anyhow::ensure!([200, 404].contains(&answer.status), "{target}: {answer:?}");
        }
        Ok(())
    }
}
