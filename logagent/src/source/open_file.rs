//! One open file of a tail: a plain one, or a compressed one that is read as what it was made of.
//!
//! Knows descriptors; must not know why a file is read.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use logagent_core::identity::FileStat;
use logagent_core::tailer::Blocked;

use super::allow::AllowList;
use super::blocks::BlockPool;
use super::descriptor::Descriptor;
use super::directories::Directories;
use super::files::{self, Opened};
use super::gzip::GzipReader;

/// See the module's words.
pub enum OpenFile {
    Plain(Descriptor),
    Gzip {
        reader: Box<GzipReader>,
        /// With the size of the content. Nobody writes to a compressed file.
        stat: FileStat,
        path: PathBuf,
    },
}

/// Where a file is looked for whose descriptor was given back.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The path of the entry, beside which its rotated files lie.
    pub entry: &'a Path,
    pub allow: &'a AllowList,
    pub directories: &'a Directories,
}

impl OpenFile {
    pub fn plain(opened: Opened, path: &Path) -> (Self, FileStat) {
        let stat = opened.stat;
        (Self::Plain(Descriptor::new(path.to_owned(), opened)), stat)
    }

    /// A compressed file that another one became.
    pub fn gzip(opened: Opened, path: &Path) -> Result<(Self, FileStat), Blocked> {
        let size =
            GzipReader::size_hint(&opened.file).map_err(|error| files::refused(path, &error))?;
        let stat = FileStat {
            size,
            ..opened.stat
        };
        let file = Self::Gzip {
            reader: Box::new(GzipReader::new(opened.file)),
            stat,
            path: path.to_owned(),
        };
        Ok((file, stat))
    }

    pub fn is_open(&self) -> bool {
        match self {
            Self::Plain(descriptor) => descriptor.is_open(),
            Self::Gzip { .. } => true,
        }
    }

    /// Gives the descriptor back, if it can be opened again where it was.
    pub fn release(&mut self) {
        if let Self::Plain(descriptor) = self {
            descriptor.release();
        }
    }

    /// The stat, and whether a name still leads to the file.
    pub fn stat(&mut self, place: Place<'_>) -> Result<(FileStat, bool), Blocked> {
        match self {
            Self::Plain(descriptor) => {
                let path = descriptor.path().to_owned();
                let file = descriptor.open(place.entry, place.allow, place.directories)?;
                files::stat_open(&path, file)
            }
            Self::Gzip { stat, .. } => Ok((*stat, true)),
        }
    }

    /// Empty at the end of the file. `None`: not there yet, ask again.
    pub fn read(
        &mut self,
        place: Place<'_>,
        blocks: &BlockPool,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Option<Bytes>, Blocked> {
        match self {
            Self::Plain(descriptor) => {
                let path = descriptor.path().to_owned();
                let file = descriptor.open(place.entry, place.allow, place.directories)?;
                let read = blocks.read(file, offset, max_bytes);
                read.map(Some)
                    .map_err(|error| files::refused(&path, &error))
            }
            Self::Gzip { reader, path, .. } => {
                let read = reader.read(offset, max_bytes);
                read.map_err(|error| files::refused(path, &error))
            }
        }
    }
}
