//! Standard output or a file as the destination, to try an agent out without Kafka.
//!
//! A line counts as delivered when the kernel has taken it. What a disk refuses waits, as it does for
//! a broker: nothing is dropped.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::{BlockToken, Destination, Refusal, Sent, Sink};

/// What stands for the topic in the path of the file.
const TOPIC_FIELD: &str = "{topic}";

/// See the module's words.
#[derive(Debug)]
pub struct PlainSink {
    /// The path of the file, `None` for standard output.
    path: Option<String>,
    outputs: RefCell<FxHashMap<String, File>>,
    /// The lines of one call, so that they are one write.
    buffer: RefCell<Vec<u8>>,
    trouble: Mutex<Option<String>>,
}

impl PlainSink {
    pub fn stdout() -> Self {
        Self::with(None)
    }

    /// Each topic has its own file when the path says `{topic}`.
    pub fn file(path: String) -> Self {
        Self::with(Some(path))
    }

    fn with(path: Option<String>) -> Self {
        Self {
            path,
            outputs: RefCell::default(),
            buffer: RefCell::default(),
            trouble: Mutex::default(),
        }
    }

    fn write(&self, topic: &str, bytes: &[u8]) -> std::io::Result<()> {
        let Some(path) = &self.path else {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(bytes)?;
            return stdout.flush();
        };
        let path = path.replace(TOPIC_FIELD, topic);
        let mut outputs = self.outputs.borrow_mut();
        let file = match outputs.get_mut(&path) {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().create(true).append(true).open(&path)?;
                outputs.entry(path).or_insert(file)
            }
        };
        // What a full disk has taken of it must not stand there as half a line.
        let before = file.metadata()?;
        let written = file.write_all(bytes);
        if written.is_err() && before.is_file() {
            file.set_len(before.len())?;
        }
        written
    }
}

impl Sink for PlainSink {
    fn send(&self, destination: &Destination, lines: &[&[u8]], _: &Arc<BlockToken>) -> Sent {
        let mut buffer = self.buffer.borrow_mut();
        buffer.clear();
        for line in lines {
            buffer.extend_from_slice(line);
            buffer.push(b'\n');
        }
        let written = self.write(&destination.topic, &buffer);
        *self.trouble.lock() = written.as_ref().err().map(|error| {
            let place = self.path.as_deref().unwrap_or("standard output");
            format!("{place}: {error}")
        });
        match written {
            Ok(()) => Sent::all(lines.len()),
            Err(_) => Sent {
                taken: 0,
                refusal: Some(Refusal::Full),
            },
        }
    }

    fn probe(&self, _: &str) {}

    fn flush(&self, _: Duration) -> bool {
        true
    }

    fn restart(&mut self) -> Result<(), String> {
        self.outputs.borrow_mut().clear();
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use logagent_core::ack::BlockId;
    use logagent_core::tailer::{Handle, Ticket};

    use super::*;
    use crate::inbox::{AckTarget, Inbox};

    #[test]
    fn each_topic_has_its_file_and_a_refusal_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out/{topic}.log").display().to_string();
        let sink = PlainSink::file(path);
        let inbox: Arc<Inbox<()>> = Arc::default();
        let target = Arc::clone(&inbox) as Arc<dyn AckTarget>;
        let ticket = Ticket {
            handle: Handle(0),
            block: BlockId(0),
        };
        let token = BlockToken::new(&target, 0, ticket, 0);
        let to = |topic: &str| Destination {
            topic: topic.to_owned(),
            key: Vec::new(),
            headers: Vec::new(),
        };
        let refused = sink.send(&to("a"), &[b"x"], &token);
        assert_eq!((refused.taken, refused.refusal), (0, Some(Refusal::Full)));
        assert!(sink.trouble().is_some());
        std::fs::create_dir(folder.path().join("out")).unwrap();
        assert_eq!(
            sink.send(&to("a"), &[b"1", b"", b"2"], &token),
            Sent::all(3)
        );
        assert_eq!(sink.send(&to("b"), &[b"3"], &token), Sent::all(1));
        assert_eq!(sink.trouble(), None);
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            (read("out/a.log"), read("out/b.log")),
            ("1\n\n2\n".to_owned(), "3\n".to_owned())
        );
    }
}
