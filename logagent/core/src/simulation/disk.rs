//! A directory in memory: names, inodes, descriptors that outlive names, and inode reuse.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::identity::{FileId, FileStat};
use crate::rotation::Sibling;

/// Change times are this coarse, as on a real disk: two changes may look like none.
const CLOCK_TICK_MS: u64 = 4;
const DEV: u64 = 7;

#[derive(Debug, Default)]
pub(super) struct Inode {
    pub(super) content: Vec<u8>,
    /// Which lines stand in it, as the model numbers them.
    pub(super) lines: Vec<usize>,
    changed_ns: i64,
    born_ns: i64,
    /// A compressed file; `content` is what was compressed.
    packed: bool,
    /// Its end is not written yet.
    pub(super) torn: bool,
    links: usize,
    opens: usize,
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) now_ms: u64,
    names: BTreeMap<String, u64>,
    inodes: BTreeMap<u64, Inode>,
    /// Freed numbers, the one freed last at the end: a new file takes that one first.
    free: Vec<u64>,
    next_ino: u64,
    /// Where the tailed path leads, when it is a symlink.
    pub(super) link: Option<String>,
}

impl Disk {
    pub(super) fn create(&mut self, name: &str) -> u64 {
        if let Some(ino) = self.names.get(name) {
            return *ino;
        }
        let ino = self.free.pop().unwrap_or_else(|| {
            self.next_ino += 1;
            self.next_ino
        });
        self.inodes.insert(
            ino,
            Inode {
                born_ns: self.tick_ns(),
                links: 1,
                ..Inode::default()
            },
        );
        self.names.insert(name.into(), ino);
        self.touch(ino);
        ino
    }

    /// Never 0, which would be a file system that does not tell births.
    fn tick_ns(&self) -> i64 {
        (self.now_ms / CLOCK_TICK_MS + 1) as i64 * 1_000_000
    }

    fn touch(&mut self, ino: u64) {
        let now_ns = self.tick_ns();
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.changed_ns = now_ns;
        }
    }

    pub(super) fn lookup(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }

    /// What the path leads to.
    pub(super) fn at_path(&self, path: &str) -> Option<u64> {
        self.lookup(self.link.as_deref().unwrap_or(path))
    }

    pub(super) fn inode(&self, ino: u64) -> &Inode {
        &self.inodes[&ino]
    }

    /// Writes at an offset; a gap before it reads as NULs.
    pub(super) fn write_at(&mut self, ino: u64, offset: usize, bytes: &[u8]) {
        self.touch(ino);
        let Some(inode) = self.inodes.get_mut(&ino) else {
            return;
        };
        let end = offset + bytes.len();
        if inode.content.len() < end {
            inode.content.resize(end, 0);
        }
        inode.content[offset..end].copy_from_slice(bytes);
    }

    pub(super) fn note_line(&mut self, ino: u64, line: usize) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lines.push(line);
        }
    }

    pub(super) fn truncate(&mut self, ino: u64) {
        self.touch(ino);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.content.clear();
            inode.lines.clear();
        }
    }

    pub(super) fn copy(&mut self, from: u64, name: &str) {
        let ino = self.create(name);
        self.copy_into(from, ino);
    }

    pub(super) fn copy_into(&mut self, from: u64, to: u64) {
        let (content, lines) = {
            let inode = self.inode(from);
            (inode.content.clone(), inode.lines.clone())
        };
        self.touch(to);
        if let Some(inode) = self.inodes.get_mut(&to) {
            inode.content = content;
            inode.lines = lines;
        }
    }

    /// Makes `name` the compressed form of a file, or of its beginning.
    pub(super) fn pack(&mut self, from: u64, name: &str, torn: bool) -> Option<u64> {
        self.copy(from, name);
        let ino = self.lookup(name)?;
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.packed = true;
            inode.torn = torn;
        }
        Some(ino)
    }

    /// Takes the last lines from a copy that is still being made.
    pub(super) fn shorten(&mut self, ino: u64, len: usize, lines: usize) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.content.truncate(len);
            inode.lines.truncate(lines);
        }
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if let Some(ino) = self.names.remove(from) {
            self.unlink(to);
            self.names.insert(to.into(), ino);
            self.touch(ino);
        }
    }

    pub(super) fn unlink(&mut self, name: &str) {
        if let Some(ino) = self.names.remove(name)
            && let Some(inode) = self.inodes.get_mut(&ino)
        {
            inode.links -= 1;
            self.free_unused(ino);
        }
    }

    pub(super) fn hold(&mut self, ino: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.opens += 1;
        }
    }

    pub(super) fn release(&mut self, ino: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.opens -= 1;
            self.free_unused(ino);
        }
    }

    fn free_unused(&mut self, ino: u64) {
        if self
            .inodes
            .get(&ino)
            .is_some_and(|inode| inode.links == 0 && inode.opens == 0)
        {
            self.inodes.remove(&ino);
            self.free.push(ino);
        }
    }

    /// What a directory shows of it.
    pub(super) fn stat(&self, ino: u64) -> FileStat {
        let inode = self.inode(ino);
        let size = inode.content.len() as u64;
        FileStat {
            size: if inode.packed { size / 3 + 20 } else { size },
            ..self.stat_open(ino)
        }
    }

    /// What its reader shows of it: of a compressed file the size of the content.
    pub(super) fn stat_open(&self, ino: u64) -> FileStat {
        let inode = self.inode(ino);
        FileStat {
            id: FileId {
                dev: DEV,
                ino,
                born_ns: inode.born_ns,
            },
            size: inode.content.len() as u64,
            changed_ns: inode.changed_ns,
        }
    }

    pub(super) fn siblings(&self, base: &str) -> Vec<Sibling> {
        let named = self.names.iter().filter(|(name, _)| name.starts_with(base));
        named
            .map(|(name, ino)| Sibling {
                name: name.clone(),
                stat: self.stat(*ino),
            })
            .collect()
    }

    /// None where a compressed file breaks off.
    pub(super) fn read(&self, ino: u64, offset: u64, max_bytes: usize) -> Option<Bytes> {
        let inode = self.inode(ino);
        let content = &inode.content;
        let from = content.len().min(offset as usize);
        let to = content.len().min(from + max_bytes);
        let breaks_off = inode.torn && to - from < max_bytes;
        (!breaks_off).then(|| Bytes::copy_from_slice(&content[from..to]))
    }

    /// Inodes that have a name.
    pub(super) fn named(&self) -> impl Iterator<Item = (&String, u64)> {
        self.names.iter().map(|(name, ino)| (name, *ino))
    }
}
