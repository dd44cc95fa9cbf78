//! From the lines of one file to records of the sink: value, key, headers, pace, dead letters.
//!
//! Knows what one line becomes; must not know files, offsets to come or when to run.

use std::borrow::Cow;
use std::sync::Arc;

use logagent_core::config::Entry;
use logagent_core::framing::{Line, TextEncoding};
use logagent_core::pace::Pace;
use logagent_core::record::Shape;
use logagent_core::tailer::{Blame, Block, Fate};
use parking_lot::Mutex;
use schemas::objects::OnLongLine;

use crate::inbox::{BlockLoad, Failure};
use crate::sink::{BlockToken, Destination, Refusal, Sent, Sink};
use crate::status::unix_ms;

/// What librdkafka spends on a record besides its bytes, roughly: charged so that short lines do
/// not fill the memory while the budget still looks empty.
const RECORD_OVERHEAD_BYTES: u64 = 256;
/// The same key is the same partition, which keeps the order of a file.
const DEFAULT_KEY: &str = "{host}:{path}";
/// So many lines are handed over with one call.
const BATCH_LINES: usize = 128;
/// Of a dead letter that was refused too, a quarter is tried once more, and at most so much.
const SHORT_LETTER_BYTES: usize = 16 * 1024;
/// A dead letter that was refused so often is lost, and written in the ledger.
const LETTER_ATTEMPTS: u32 = 2;

/// One bucket for all files of an entry.
pub type SharedPace = Arc<Mutex<Pace>>;

/// What an entry's lines need besides the entry itself.
#[derive(Debug, Clone, Default)]
pub struct OutletSettings {
    pub host: String,
    pub dead_letter_topic: Option<String>,
    pub pace: Option<SharedPace>,
}

/// See the module's words.
pub struct Outlet {
    pub destination: Destination,
    settings: OutletSettings,
    shape: Shape,
    path: String,
    skip_empty: bool,
    on_long_line: OnLongLine,
}

/// What became of a block's lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handed {
    /// All that can be handed over is.
    All,
    /// The sink has no space.
    Full,
    /// The entry's rate allows no more before this time.
    Paced { until_ms: u64 },
}

/// A line that goes nowhere: it was refused for good, and there is no place for dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostLine {
    pub from_offset: u64,
    pub to_offset: u64,
    pub reason: String,
}

/// A block of which not every line has been taken by the sink yet.
pub struct Held {
    pub block: Block,
    at: usize,
    pub token: Arc<BlockToken>,
    pub load: BlockLoad,
}

impl Held {
    pub fn new(block: Block, token: Arc<BlockToken>) -> Self {
        Self {
            block,
            at: 0,
            token,
            load: BlockLoad::default(),
        }
    }
}

/// How an entry's text is encoded, when it is converted.
pub fn encoding_of(entry: &Entry) -> Option<TextEncoding> {
    entry
        .options
        .encoding
        .as_deref()
        .and_then(TextEncoding::named)
}

impl Outlet {
    pub fn new(entry: &Entry, settings: OutletSettings) -> Self {
        let options = &entry.options;
        let key = options.key.as_deref().unwrap_or(DEFAULT_KEY);
        let destination = Destination {
            topic: entry.id.topic.clone(),
            key: key
                .replace("{host}", &settings.host)
                .replace("{path}", &entry.id.path)
                .into_bytes(),
            headers: options.headers.clone(),
        };
        let encoding = encoding_of(entry);
        Self {
            destination,
            shape: Shape::new(encoding, options.format, &settings.host, &entry.id.path),
            settings,
            path: entry.id.path.clone(),
            skip_empty: options.skip_empty,
            on_long_line: options.on_long_line,
        }
    }

    /// Gives the waiting block's lines to the sink, as many as it takes.
    pub fn hand_over<S: Sink>(
        &self,
        sink: &S,
        now_ms: u64,
        held: &mut Held,
        lost: &mut Vec<LostLine>,
    ) -> Handed {
        let before = held.load;
        let handed = self.hand_over_lines(sink, now_ms, held, lost);
        let lines = held.load.lines - before.lines;
        held.load.charged_bytes += held.load.bytes - before.bytes
            + lines * (RECORD_OVERHEAD_BYTES + self.destination.overhead_bytes());
        handed
    }

    fn hand_over_lines<S: Sink>(
        &self,
        sink: &S,
        now_ms: u64,
        held: &mut Held,
        lost: &mut Vec<LostLine>,
    ) -> Handed {
        loop {
            let offered = self.offer(sink, now_ms, held);
            let failure = match offered {
                Offered::Done(handed) => return handed,
                Offered::More => continue,
                Offered::Letter => None,
                Offered::Refused(failure) if failure.blame == Blame::Record => Some(failure),
                Offered::Refused(failure) => {
                    // The whole block is read and sent again after a pause, so the rest of it
                    // need not be tried now.
                    held.token.fail(|| failure);
                    return Handed::All;
                }
            };
            let Some((line, next)) = held.block.lines.get(held.at) else {
                return Handed::All;
            };
            match self.post(sink, &line, failure, &held.block.fate, &held.token) {
                Posted::Taken { bytes } => {
                    held.load.lines += 1;
                    held.load.bytes += bytes;
                    held.load.dead_letters += 1;
                }
                Posted::Nowhere { reason } => lost.push(LostLine {
                    from_offset: line.start,
                    to_offset: line.end,
                    reason,
                }),
                Posted::Full => return Handed::Full,
                Posted::Refused(failure) => {
                    held.token.fail(|| failure);
                    return Handed::All;
                }
            }
            held.load.cut_lines += u64::from(is_cut(&line));
            held.at = next;
        }
    }

    /// Offers the next lines to the sink with one call, up to one that is a dead letter.
    fn offer<S: Sink>(&self, sink: &S, now_ms: u64, held: &mut Held) -> Offered {
        let mut batch: [&[u8]; BATCH_LINES] = [&[]; BATCH_LINES];
        // Of each line: the position after it, and whether it was cut.
        let mut places = [(0, false); BATCH_LINES];
        let mut shaped: Vec<Cow<'_, [u8]>> = Vec::new();
        let (mut count, mut at) = (0, held.at);
        let mut then = None;
        while count < BATCH_LINES {
            let Some((line, next)) = held.block.lines.get(at) else {
                then = Some(Offered::Done(Handed::All));
                break;
            };
            if line.bytes.is_empty() && self.skip_empty {
                at = next;
                continue;
            }
            if self.is_letter(&held.block.fate, &line) {
                then = Some(Offered::Letter);
                break;
            }
            if let Some(pace) = &self.settings.pace
                && let Err(until_ms) = pace.lock().take(now_ms)
            {
                then = Some(Offered::Done(Handed::Paced { until_ms }));
                break;
            }
            if self.shape.is_plain() {
                batch[count] = line.bytes;
            } else {
                shaped.push(self.shape.value(&line, unix_ms));
            }
            places[count] = (next, is_cut(&line));
            count += 1;
            at = next;
        }
        for (slot, value) in batch.iter_mut().zip(&shaped) {
            *slot = value;
        }
        let sent = match count {
            0 => Sent::all(0),
            _ => sink.send(&self.destination, &batch[..count], &held.token),
        };
        let taken = batch.iter().take(sent.taken);
        held.load.bytes += taken.map(|value| value.len() as u64).sum::<u64>();
        held.load.lines += sent.taken as u64;
        let cut = places.iter().take(sent.taken).filter(|(_, is_cut)| *is_cut);
        held.load.cut_lines += cut.count() as u64;
        held.at = match sent.taken {
            all if all == count => at,
            0 => held.at,
            some => places[some - 1].0,
        };
        if let Some(pace) = &self.settings.pace {
            pace.lock().put_back((count - sent.taken) as u64);
        }
        match sent.refusal {
            Some(Refusal::Full) => Offered::Done(Handed::Full),
            Some(Refusal::Record(failure)) => {
                // Empty lines before the refused one are not sent either.
                while let Some((line, next)) = held.block.lines.get(held.at)
                    && line.bytes.is_empty()
                    && self.skip_empty
                {
                    held.at = next;
                }
                Offered::Refused(failure)
            }
            None => then.unwrap_or(Offered::More),
        }
    }

    /// Sends one line as a dead letter; `failure` is why the producer itself does not take it. The
    /// lines before it are on their way and are not to come twice, so this happens at once.
    fn post<S: Sink>(
        &self,
        sink: &S,
        line: &Line<'_>,
        failure: Option<Failure>,
        fate: &Fate,
        token: &Arc<BlockToken>,
    ) -> Posted {
        let mut fate = match failure {
            None => fate.clone(),
            Some(failure) => Fate::DeadLetter {
                reason: failure.reason,
                attempt: 1,
            },
        };
        loop {
            let (destination, value) = match self.letter_of(&fate, line) {
                Letter::Post { destination, value } => (destination, value),
                Letter::Lost(reason) => return Posted::Nowhere { reason },
            };
            match sink.send(&destination, &[value.as_slice()], token).refusal {
                None => {
                    let bytes = value.len() as u64;
                    return Posted::Taken { bytes };
                }
                Some(Refusal::Full) => return Posted::Full,
                Some(Refusal::Record(failure)) if failure.blame == Blame::Record => {
                    let attempt = match fate {
                        Fate::Topic => 1,
                        Fate::DeadLetter { attempt, .. } => attempt + 1,
                    };
                    fate = Fate::DeadLetter {
                        reason: failure.reason,
                        attempt,
                    };
                }
                Some(Refusal::Record(failure)) => return Posted::Refused(failure),
            }
        }
    }

    /// Whether a line does not go to its topic.
    fn is_letter(&self, fate: &Fate, line: &Line<'_>) -> bool {
        let is_too_long = line.whole_bytes.is_some() && self.on_long_line == OnLongLine::DeadLetter;
        *fate != Fate::Topic || is_too_long
    }

    /// The dead letter of a line that does not go to its topic.
    fn letter_of(&self, fate: &Fate, line: &Line<'_>) -> Letter {
        let (reason, attempt) = match fate {
            Fate::DeadLetter { reason, attempt } => (reason.clone(), *attempt),
            Fate::Topic => {
                let whole_bytes = line.whole_bytes.unwrap_or_default();
                let reason = format!("the line has {whole_bytes} bytes, more than max_line_bytes");
                (reason, 1)
            }
        };
        let Some(topic) = &self.settings.dead_letter_topic else {
            return Letter::Lost(format!("{reason}; no dead_letter_topic is set"));
        };
        if attempt > LETTER_ATTEMPTS {
            return Letter::Lost(format!(
                "{reason}; the dead-letter topic {topic} refused it too"
            ));
        }
        let mut value = self.shape.value(line, unix_ms).into_owned();
        let mut headers = self.destination.headers.clone();
        let mut header = |name: &str, text: String| headers.push((name.to_owned(), text));
        header("reason", reason);
        header("topic", self.destination.topic.clone());
        header("host", self.settings.host.clone());
        header("path", self.path.clone());
        header("offset", line.start.to_string());
        let whole_bytes = line.whole_bytes.unwrap_or(line.bytes.len() as u64);
        header("bytes", whole_bytes.to_string());
        if attempt > 1 {
            value.truncate(SHORT_LETTER_BYTES.min(value.len() / 4));
        }
        let destination = Destination {
            topic: topic.clone(),
            key: self.destination.key.clone(),
            headers,
        };
        Letter::Post { destination, value }
    }
}

/// How an offer ended.
enum Offered {
    Done(Handed),
    /// All of a full batch were taken.
    More,
    /// The next line is a dead letter.
    Letter,
    /// The next line was refused.
    Refused(Failure),
}

/// What became of a dead letter.
enum Posted {
    Taken {
        bytes: u64,
    },
    /// There is no place for it.
    Nowhere {
        reason: String,
    },
    Full,
    Refused(Failure),
}

/// Whether a line is a piece, which has no newline behind it, or stands for a longer one.
fn is_cut(line: &Line<'_>) -> bool {
    line.end - line.start == line.bytes.len() as u64 || line.whole_bytes.is_some()
}

/// What a line that does not go to its topic becomes.
enum Letter {
    Post {
        destination: Destination,
        value: Vec<u8>,
    },
    Lost(String),
}
