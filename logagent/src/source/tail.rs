//! One running entry: carries out what the core's tailer asks for.
//!
//! Owns the entry's descriptors and the block that waits for space. All decisions about files are
//! the core's; all decisions about when to run are the supervisor's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use logagent_core::config::{Entry, EntryId};
use logagent_core::tailer::{Blocked, Handle, Note, Step, Tailer, Target};
use rustc_hash::FxHashMap;

use super::allow::AllowList;
use super::blocks::BlockPool;
use super::directories::Directories;
use super::files;
use super::open_file::{OpenFile, Place};
use super::outlet::{Handed, Held, LostLine, Outlet, OutletSettings};
use crate::inbox::AckTarget;
use crate::sink::{BlockToken, Sink};

/// After this much, the next tail has its turn.
const TURN_MAX_BYTES: u64 = 1024 * 1024;
/// What a rotated file is called that is read unpacked.
const GZIP: &str = ".gz";
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
    /// The entry's rate allows no more lines before this time.
    Paced { until_ms: u64 },
}

/// See the module's words.
pub struct Tail {
    pub entry: Entry,
    pub tailer: Tailer,
    pub outlet: Outlet,
    route: u64,
    lane: usize,
    path: PathBuf,
    /// Where the path led when it was last opened; the path itself before that.
    resolved: PathBuf,
    open: FxHashMap<Handle, OpenFile>,
    held: Option<Held>,
    /// Charged since the supervisor last asked.
    charged_bytes: u64,
    lines_read: u64,
    wants_save: bool,
    /// Lines that went nowhere since they were last asked for.
    lost: Vec<Note>,
}

impl Tail {
    pub fn new(
        entry: Entry,
        tailer: Tailer,
        outlet: OutletSettings,
        route: u64,
        lane: usize,
    ) -> Self {
        Self {
            path: PathBuf::from(&entry.id.path),
            resolved: PathBuf::from(&entry.id.path),
            outlet: Outlet::new(&entry, outlet),
            entry,
            tailer,
            route,
            lane,
            open: FxHashMap::default(),
            held: None,
            charged_bytes: 0,
            lines_read: 0,
            wants_save: false,
            lost: Vec::new(),
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
        self.open.values_mut().for_each(OpenFile::release);
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
        let waiting = self.hand_over_held(around);
        if waiting.is_some() {
            // Nothing is read meanwhile, but a rotation is seen.
            self.tailer.set_max_unacked_bytes(0);
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
                    let place = Place {
                        entry: &self.path,
                        allow: around.allow,
                        directories: around.directories,
                    };
                    let result = match self.open.get_mut(&handle) {
                        Some(file) => file.stat(place),
                        None => Err(Blocked::Missing),
                    };
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
                    let place = Place {
                        entry: &self.path,
                        allow: around.allow,
                        directories: around.directories,
                    };
                    let result = match self.open.get_mut(&handle) {
                        Some(file) => file.read(place, around.blocks, offset, max_bytes),
                        None => Err(Blocked::Missing),
                    };
                    let result = match result {
                        // The tailer asks again.
                        Ok(None) => return Turn::More,
                        Ok(Some(bytes)) => Ok(bytes),
                        Err(blocked) => Err(blocked),
                    };
                    self.tailer.read_done(handle, offset, result);
                }
                Step::Produce(block) => {
                    produced_bytes += block.lines.len_bytes();
                    let token = BlockToken::new(around.target, self.route, block.ticket, self.lane);
                    self.held = Some(Held::new(block, token));
                    if let Some(turn) = self.hand_over_held(around) {
                        return turn;
                    }
                    if produced_bytes >= TURN_MAX_BYTES {
                        return Turn::More;
                    }
                }
                Step::Persist => self.wants_save = true,
                Step::Close { handle } => {
                    self.open.remove(&handle);
                }
                Step::Idle { until_ms } => {
                    return match waiting {
                        None => Turn::Idle { until_ms },
                        Some(Turn::Paced { until_ms: paced_ms }) => Turn::Paced {
                            until_ms: until_ms.min(paced_ms),
                        },
                        Some(turn) => turn,
                    };
                }
            }
        }
        Turn::More
    }

    fn open(&mut self, handle: Handle, target: &Target, allow: &AllowList) {
        let path = match target {
            Target::Path => self.path.clone(),
            Target::Sibling(name) => directory_of(&self.path).join(name),
        };
        let is_packed = matches!(target, Target::Sibling(name) if name.ends_with(GZIP));
        let opened = files::open(&path, allow).and_then(|opened| {
            let resolved = opened.resolved.clone();
            let (file, stat) = if is_packed {
                OpenFile::gzip(opened, &path)?
            } else {
                OpenFile::plain(opened, &path)
            };
            Ok((stat, file, resolved))
        });
        match opened {
            Ok((stat, file, resolved)) => {
                if *target == Target::Path {
                    self.resolved = resolved;
                }
                self.open.insert(handle, file);
                self.tailer.opened(handle, Ok(stat));
            }
            Err(blocked) => self.tailer.opened(handle, Err(blocked)),
        }
    }

    /// Gives the waiting block's lines to the sink; how the turn ends when some are left.
    fn hand_over_held<S: Sink>(&mut self, around: &Surroundings<'_, S>) -> Option<Turn> {
        let mut held = self.held.take()?;
        if !self.tailer.is_open(held.block.ticket) {
            // A failure before it made the block void: it will be read again.
            held.token.set_load(held.load);
            return None;
        }
        let before = held.load;
        let mut lost = Vec::new();
        let handed = self
            .outlet
            .hand_over(around.sink, around.now_ms, &mut held, &mut lost);
        self.charged_bytes += held.load.charged_bytes - before.charged_bytes;
        self.lines_read += held.load.lines - before.lines;
        if let Some(file) = self.tailer.file_of(held.block.ticket) {
            let note = |line: LostLine| Note::Lost {
                file,
                from_offset: line.from_offset,
                to_offset: line.to_offset,
                reason: line.reason,
            };
            self.lost.extend(lost.into_iter().map(note));
        }
        let turn = match handed {
            Handed::All => {
                held.token.set_load(held.load);
                return None;
            }
            Handed::Full => Turn::Full,
            Handed::Paced { until_ms } => Turn::Paced { until_ms },
        };
        self.held = Some(held);
        Some(turn)
    }

    /// What happened that deserves a line in the log or in the ledger.
    pub fn take_notes(&mut self) -> Vec<Note> {
        let mut notes = self.tailer.take_notes();
        notes.append(&mut self.lost);
        notes
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
