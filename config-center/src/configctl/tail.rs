//! `tail`: lines as they reach Kafka, read by the kcat program.
//!
//! configctl speaks to the store and to nothing else, so that it needs no Kafka library and works
//! where only the store can be reached. Lines are Kafka's, and kcat is the tool that everybody who
//! runs Kafka has; this finds out which topics to ask for and which lines to show.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::Command,
    sync::mpsc,
};

use super::{
    Context,
    document::Document,
    exit::{Exit, Failure},
    flags,
};
use crate::fleet::keys::validate_host;

/// Lines that wait for a slow terminal.
const LINES_QUEUED: usize = 256;
/// Between key and line in kcat's output; no key that an agent makes holds it.
const SEPARATOR: char = '\t';

pub(crate) async fn tail(context: &Context, args: &flags::Tail) -> Result<Exit, Failure> {
    let (topics, key_prefix) = match (&args.topic, &args.host) {
        (Some(topic), _) => (vec![topic.clone()], None),
        (None, Some(host)) => (topics_of(context, host).await?, Some(format!("{host}:"))),
        (None, None) => return Err(Failure::new(Exit::Usage, "name a topic or a host")),
    };
    let (lines, mut arriving) = mpsc::channel(LINES_QUEUED);
    let mut readers = Vec::new();
    for topic in topics {
        let mut reader = kcat(args, &topic)?;
        let out = reader
            .stdout
            .take()
            .ok_or_else(|| local("kcat has no output"))?;
        tokio::spawn(forward(out, key_prefix.clone(), lines.clone()));
        readers.push(reader);
    }
    drop(lines);
    let mut left = args.count.unwrap_or(usize::MAX);
    while left > 0 {
        match arriving.recv().await {
            Some(line) => context.out.line(&printable(&line))?,
            None => break,
        }
        left -= 1;
    }
    if left > 0 {
        // Every kcat has ended by itself, and said why.
        let mut said = String::new();
        for reader in readers {
            let output = reader.wait_with_output().await;
            let output = output.map_err(|error| local(&error.to_string()))?;
            said.push_str(String::from_utf8_lossy(&output.stderr).trim());
        }
        return Err(Failure::new(
            Exit::Unreachable,
            format!("kcat has ended: {}", printable(&said)),
        ));
    }
    Ok(Exit::Done)
}

/// Where the host's entries go at present.
async fn topics_of(context: &Context, host: &str) -> Result<Vec<String>, Failure> {
    validate_host(host).map_err(Failure::invalid)?;
    let key = context.namespace.config(host);
    let kv = context.client.get(key.clone()).await?.kv;
    let kv = kv.ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!("{host} collects nothing: there is no {key}"),
        )
    })?;
    let document = Document::parse(&kv.value)
        .map_err(|error| Failure::not_a_document(host, &key, kv.mod_revision, &error))?;
    let entries = document.entries().iter();
    let mut topics: Vec<String> = entries.filter_map(|entry| entry.topic.clone()).collect();
    topics.sort();
    topics.dedup();
    if topics.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            format!("{host} collects nothing"),
        ));
    }
    Ok(topics)
}

fn kcat(args: &flags::Tail, topic: &str) -> Result<tokio::process::Child, Failure> {
    let offset = match args.last {
        0 => "end".to_owned(),
        last => format!("-{last}"),
    };
    Command::new("kcat")
        .args(["-C", "-u", "-q", "-b", &args.brokers, "-t", topic, "-o", &offset])
        .args(["-f", &format!("%k{SEPARATOR}%s\n")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            local(&format!(
                "kcat cannot be started ({error}): lines are read with it, so install it (Debian: kcat)"
            ))
        })
}

async fn forward(
    out: impl AsyncRead + Unpin,
    key_prefix: Option<String>,
    lines: mpsc::Sender<String>,
) {
    let mut read = BufReader::new(out).lines();
    while let Ok(Some(line)) = read.next_line().await {
        let (key, text) = line.split_once(SEPARATOR).unwrap_or(("", &line));
        let is_meant = key_prefix
            .as_ref()
            .is_none_or(|prefix| key.starts_with(prefix));
        if is_meant && lines.send(text.to_owned()).await.is_err() {
            return;
        }
    }
}

/// A line of somebody's log must not reach the terminal as anything else than text.
fn printable(line: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\t' {
            '\u{fffd}'
        } else {
            c
        }
    };
    line.chars().map(shown).collect()
}

fn local(message: &str) -> Failure {
    Failure::new(Exit::LocalIo, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_text_only() {
        assert_eq!(printable("a\tb\u{1b}[2Jc"), "a\tb\u{fffd}[2Jc");
    }

    #[tokio::test]
    async fn lines_are_picked_by_key() {
        let (lines, mut arriving) = mpsc::channel(8);
        let out: &[u8] = b"h1:/a\tone\nh2:/a\ttwo\n\tno key\nh1:/b\tthree\tfour\n";
        forward(out, Some("h1:".into()), lines).await;
        assert_eq!(arriving.recv().await.as_deref(), Some("one"));
        assert_eq!(arriving.recv().await.as_deref(), Some("three\tfour"));
        assert_eq!(arriving.recv().await, None);
    }
}
