//! One running entry: carries out what the core's tailer asks for.
//!
//! Owns the entry's descriptors and the block that waits for space. All decisions about files are
//! the core's; all decisions about when to run are the supervisor's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logagent_core::config::{Entry, EntryId};
use logagent_core::tailer::{Block, Blocked, Handle, Step, Tailer, Target};
use rustc_hash::FxHashMap;

use super::allow::AllowList;
use super::blocks::BlockPool;
use super::descriptor::Descriptor;
use super::directories::Directories;
use super::files;
use crate::inbox::{AckTarget, BlockLoad};
use crate::sink::{BlockToken, Destination, Refusal, Sink};

/// What librdkafka spends on a record besides its bytes, roughly: charged so that short lines do
/// not fill the memory while the budget still looks empty.
const RECORD_OVERHEAD_BYTES: u64 = 256;
/// The same key is the same partition, which keeps the order of a file.
const DEFAULT_KEY: &str = "{host}:{path}";
/// After this much, the next tail has its turn.
const TURN_MAX_BYTES: u64 = 1024 * 1024;
/// So many lines are handed over with one call.
const BATCH_LINES: usize = 128;
/// A turn also ends after this many steps, so that no tail can hold the thread.
const TURN_MAX_STEPS: usize = 256;

/// What a tail needs of its surroundings for one turn.
pub struct Surroundings<'a, S: Sink> {
    pub sink: &'a S,
    pub blocks: &'a BlockPool,
    pub allow: &'a AllowList,
    pub directories: &'a Directories,
    pub target: &'a Arc<dyn AckTarget>,
    pub now_ms: u64,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing to do before this time.
    Idle { until_ms: u64 },
    /// There is more to do at once.
    More,
    /// The sink has no space.
    Full,
}

/// A block of which not every line has been taken by the sink yet.
struct Held {
    block: Block,
    at: usize,
    token: Arc<BlockToken>,
    load: BlockLoad,
}

/// See the module's words.
pub struct Tail {
    pub entry: Entry,
    pub tailer: Tailer,
    pub destination: Destination,
    route: u64,
    lane: usize,
    path: PathBuf,
    /// Where the path led when it was last opened; the path itself before that.
    resolved: PathBuf,
    open: FxHashMap<Handle, Descriptor>,
    held: Option<Held>,
    /// Charged since the supervisor last asked.
    charged_bytes: u64,
    lines_read: u64,
    wants_save: bool,
}

impl Tail {
    pub fn new(entry: Entry, tailer: Tailer, host: &str, route: u64, lane: usize) -> Self {
        let destination = Destination {
            topic: entry.id.topic.clone(),
            key: entry
                .key
                .as_deref()
                .unwrap_or(DEFAULT_KEY)
                .replace("{host}", host)
                .replace("{path}", &entry.id.path)
                .into_bytes(),
            headers: entry.headers.clone(),
        };
        Self {
            path: PathBuf::from(&entry.id.path),
            resolved: PathBuf::from(&entry.id.path),
            entry,
            tailer,
            destination,
            route,
            lane,
            open: FxHashMap::default(),
            held: None,
            charged_bytes: 0,
            lines_read: 0,
            wants_save: false,
        }
    }

    pub fn id(&self) -> &EntryId {
        &self.entry.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn resolved(&self) -> &Path {
        &self.resolved
    }

    pub fn lane(&self) -> usize {
        self.lane
    }

    /// Descriptors that are held now.
    pub fn open_files(&self) -> usize {
        self.open.values().filter(|file| file.is_open()).count()
    }

    /// Gives them back; each is opened again when it is wanted.
    pub fn release_files(&mut self) {
        self.open.values_mut().for_each(Descriptor::release);
    }

    /// True when a block waits for space in the sink.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// What was charged and read since the last call.
    pub fn take_charges(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.charged_bytes),
            std::mem::take(&mut self.lines_read),
        )
    }

    /// True once when reading waits for a checkpoint that knows this entry.
    pub fn take_wants_save(&mut self) -> bool {
        std::mem::take(&mut self.wants_save)
    }

    /// Carries out steps until there is nothing to do, no space, or the turn is over.
    pub fn run<S: Sink>(&mut self, around: &Surroundings<'_, S>) -> Turn {
        if !self.hand_over_held(around) {
            return Turn::Full;
        }
        let mut produced_bytes = 0;
        for _ in 0..TURN_MAX_STEPS {
            match self.tailer.next(around.now_ms) {
                Step::StatPath => {
                    let seen = files::look(&self.path, around.allow);
                    self.tailer.path_seen(seen);
                }
                Step::ListSiblings => {
                    let siblings = around
                        .directories
                        .siblings(directory_of(&self.path), base_of(&self.path));
                    self.tailer.siblings_seen(siblings);
                }
                Step::Open { handle, target } => self.open(handle, &target, around.allow),
                Step::StatHandle { handle } => {
                    let result = self.with_open(handle, around, files::stat_open);
                    // Gone by now, or by the time that its descriptor was to be opened again.
                    if matches!(result, Ok((_, false)) | Err(Blocked::Missing)) {
                        self.tailer.mark_deleted(handle);
                    }
                    let result = result.map(|(stat, _)| stat);
                    self.tailer.handle_seen(handle, result);
                }
                Step::Read {
                    handle,
                    offset,
                    max_bytes,
                } => {
                    let result = self.with_open(handle, around, |path, file| {
                        let read = around.blocks.read(file, offset, max_bytes);
                        read.map_err(|error| files::refused(path, &error))
                    });
                    self.tailer.read_done(handle, offset, result);
                }
                Step::Produce(block) => {
                    produced_bytes += block.lines.len_bytes() as u64;
                    let token = BlockToken::new(around.target, self.route, block.ticket, self.lane);
                    self.held = Some(Held {
                        block,
                        at: 0,
                        token,
                        load: BlockLoad::default(),
                    });
                    if !self.hand_over_held(around) {
                        return Turn::Full;
                    }
                    if produced_bytes >= TURN_MAX_BYTES {
                        return Turn::More;
                    }
                }
                Step::Persist => self.wants_save = true,
                Step::Close { handle } => {
                    self.open.remove(&handle);
                }
                Step::Idle { until_ms } => return Turn::Idle { until_ms },
            }
        }
        Turn::More
    }

    fn with_open<S: Sink, T>(
        &mut self,
        handle: Handle,
        around: &Surroundings<'_, S>,
        then: impl FnOnce(&Path, &File) -> Result<T, Blocked>,
    ) -> Result<T, Blocked> {
        let Some(descriptor) = self.open.get_mut(&handle) else {
            return Err(Blocked::Missing);
        };
        let path = descriptor.path().to_owned();
        let file = descriptor.open(&self.path, around.allow, around.directories)?;
        then(&path, file)
    }

    fn open(&mut self, handle: Handle, target: &Target, allow: &AllowList) {
        let path = match target {
            Target::Path => self.path.clone(),
            Target::Sibling(name) => directory_of(&self.path).join(name),
        };
        match files::open(&path, allow) {
            Ok(opened) => {
                if *target == Target::Path {
                    self.resolved.clone_from(&opened.resolved);
                }
                let stat = opened.stat;
                self.open.insert(handle, Descriptor::new(path, opened));
                self.tailer.opened(handle, Ok(stat));
            }
            Err(blocked) => self.tailer.opened(handle, Err(blocked)),
        }
    }

    /// Gives the waiting block's lines to the sink; false when it has no space for all of them.
    fn hand_over_held<S: Sink>(&mut self, around: &Surroundings<'_, S>) -> bool {
        let Some(mut held) = self.held.take() else {
            return true;
        };
        if !self.tailer.is_open(held.block.ticket) {
            // A failure before it made the block void: it will be read again.
            held.token.set_load(held.load);
            return true;
        }
        let key_bytes = self.destination.overhead_bytes();
        let before = held.load;
        let mut full = false;
        loop {
            let mut batch: [&[u8]; BATCH_LINES] = [&[]; BATCH_LINES];
            // Where each of its lines ends, so that the next one can be tried alone.
            let mut ends = [0; BATCH_LINES];
            let mut count = 0;
            let mut at = held.at;
            while count < BATCH_LINES
                && let Some((line, next)) = held.block.lines.get(at)
            {
                at = next;
                if line.bytes.is_empty() && self.entry.skip_empty {
                    continue;
                }
                batch[count] = line.bytes;
                ends[count] = next;
                count += 1;
            }
            if count == 0 {
                held.at = at;
                break;
            }
            let sent = around
                .sink
                .send(&self.destination, &batch[..count], &held.token);
            held.load.lines += sent.taken as u64;
            let taken = batch.iter().take(sent.taken);
            held.load.bytes += taken.map(|line| line.len() as u64).sum::<u64>();
            match sent.refusal {
                None => held.at = at,
                Some(refusal) => {
                    if let Some(last) = sent.taken.checked_sub(1) {
                        held.at = ends[last];
                    }
                    match refusal {
                        Refusal::Full => full = true,
                        // The whole block is read and sent again after a pause, so the rest of it
                        // need not be tried now.
                        Refusal::Record(reason) => held.token.fail(|| reason),
                    }
                    break;
                }
            }
        }
        held.load.charged_bytes =
            held.load.bytes + held.load.lines * (RECORD_OVERHEAD_BYTES + key_bytes);
        self.charged_bytes += held.load.charged_bytes - before.charged_bytes;
        self.lines_read += held.load.lines - before.lines;
        if full {
            self.held = Some(held);
        } else {
            held.token.set_load(held.load);
        }
        !full
    }
}

/// The directory in which the path's rotated files lie.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

pub fn base_of(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}
