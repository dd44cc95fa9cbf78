//! Reads a file that somebody else may have written, cut off or damaged: every number is checked
//! against the file before it is followed, and no page is visited twice, so that reading ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;

use super::layout::{
    BRANCH, BUCKET_HEADER_BYTES, ELEMENT_BYTES, IS_BUCKET, LEAF, META_BYTES, Meta,
    PAGE_HEADER_BYTES, PageHeader, u32_at, u64_at,
};

/// Page sizes of the machines that etcd runs on, and what bbolt can be told.
const PAGE_SIZES: [u64; 8] = [4096, 8192, 16384, 32768, 65536, 2048, 1024, 512];

/// A page with its overflow. A leaf of etcd holds a few values at most when they are large, and a
/// value is limited by the largest request.
const MAX_PAGE_BYTES: u64 = 256 << 20;

/// Branches above a leaf. Ten levels of full pages are more than any disk holds.
const MAX_DEPTH: usize = 32;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BoltError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is no bbolt database: neither of its first two pages describes one")]
    Foreign,
    #[error("it is cut off: {bytes} bytes of at least {expected}")]
    CutOff { bytes: u64, expected: u64 },
    #[error("page {page} {what}")]
    Damaged { page: u64, what: &'static str },
}

type Result<T> = std::result::Result<T, BoltError>;

fn damaged<T>(page: u64, what: &'static str) -> Result<T> {
    Err(BoltError::Damaged { page, what })
}

/// Where the bytes are.
pub(crate) trait Source {
    fn bytes(&self) -> io::Result<u64>;
    /// Fills the buffer from this offset; an end before that is an error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

/// An open file, and the buckets in it.
pub(crate) struct FileReader<S> {
    source: S,
    page_bytes: u64,
    /// Pages in use lie below this one, and within the file.
    end: u64,
    /// One bit for each page: whether it was visited.
    visited: Vec<u64>,
    buckets: BTreeMap<Bytes, Bucket>,
}

#[derive(Debug, Clone)]
enum Bucket {
    Root(u64),
    /// A small bucket lies within the page that names it; this is its only page.
    Inline(Bytes),
}

impl<S: Source> FileReader<S> {
    pub(crate) fn open(source: S) -> Result<Self> {
        let bytes = source.bytes()?;
        let meta = newest_meta(&source, bytes)?.ok_or(BoltError::Foreign)?;
        let page_bytes = u64::from(meta.page_bytes);
        let expected = meta.end.saturating_mul(page_bytes);
        if bytes < expected {
            return Err(BoltError::CutOff { bytes, expected });
        }
        let words = usize::try_from(meta.end / 64 + 1).unwrap_or(usize::MAX);
        let mut reader = Self {
            source,
            page_bytes,
            end: meta.end,
            visited: vec![0; words],
            buckets: BTreeMap::new(),
        };
        let mut names = Cursor::at(&Bucket::Root(meta.root));
        while let Some(pair) = names.step(&mut reader)? {
            if !pair.is_bucket {
                return damaged(meta.root, "has a pair where only buckets belong");
            }
            let bucket = bucket_of(&pair.value, meta.root)?;
            reader.buckets.insert(pair.key, bucket);
        }
        Ok(reader)
    }

    /// The names of the buckets, in order.
    pub(crate) fn names(&self) -> Vec<Bytes> {
        self.buckets.keys().cloned().collect()
    }

    /// Bytes of the pages in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.end * self.page_bytes
    }

    /// Begins to read a bucket; `None` when there is none of this name. A file is read once: a page
    /// that comes up again, from wherever, counts as damaged.
    pub(crate) fn cursor(&self, name: &[u8]) -> Option<Cursor> {
        self.buckets.get(name).map(Cursor::at)
    }

    /// Reads a page, each one once.
    fn page(&mut self, id: u64) -> Result<Page> {
        // The metas are no part of the tree.
        if id < 2 || id >= self.end {
            return damaged(id, "is pointed to and lies outside of the pages in use");
        }
        let (word, bit) = ((id / 64) as usize, 1 << (id % 64));
        let Some(word) = self.visited.get_mut(word) else {
            return damaged(id, "is pointed to and lies outside of the pages in use");
        };
        if *word & bit != 0 {
            return damaged(id, "is pointed to twice");
        }
        *word |= bit;
        let offset = id * self.page_bytes;
        let mut header = [0; PAGE_HEADER_BYTES];
        self.source.read_at(&mut header, offset)?;
        let Some(header) = PageHeader::decode(&header) else {
            return damaged(id, "has no header");
        };
        if header.id != id {
            return damaged(id, "says that it is another one");
        }
        let pages = 1 + u64::from(header.overflow);
        let bytes = pages.saturating_mul(self.page_bytes);
        if pages > self.end - id {
            return damaged(id, "goes on beyond the pages in use");
        }
        if bytes > MAX_PAGE_BYTES {
            return damaged(id, "is larger than any page of etcd");
        }
        let mut bytes = vec![0; bytes as usize];
        self.source.read_at(&mut bytes, offset)?;
        Page::new(id, header, bytes.into())
    }
}

/// Both metas of a file are tried, the second one at every place where it can be.
fn newest_meta(source: &impl Source, bytes: u64) -> Result<Option<Meta>> {
    let mut newest: Option<Meta> = None;
    for (page_bytes, at) in [(None, 0)]
        .into_iter()
        .chain(PAGE_SIZES.map(|size| (Some(size), size)))
    {
        let at = at + PAGE_HEADER_BYTES as u64;
        if bytes < at + META_BYTES as u64 {
            continue;
        }
        let mut meta = [0; META_BYTES];
        source.read_at(&mut meta, at)?;
        let Some(meta) = Meta::decode(&meta) else {
            continue;
        };
        let size = u64::from(meta.page_bytes);
        let is_in_place = page_bytes.is_none_or(|expected| expected == size);
        if is_in_place
            && PAGE_SIZES.contains(&size)
            && newest.is_none_or(|newest| newest.transaction < meta.transaction)
        {
            newest = Some(meta);
        }
    }
    Ok(newest)
}

fn bucket_of(value: &Bytes, named_by: u64) -> Result<Bucket> {
    match u64_at(value, 0) {
        Some(0) if value.len() >= BUCKET_HEADER_BYTES => {
            Ok(Bucket::Inline(value.slice(BUCKET_HEADER_BYTES..)))
        }
        Some(root) => Ok(Bucket::Root(root)),
        None => damaged(named_by, "names a bucket without a root"),
    }
}

enum Start {
    Page(u64),
    Inline(Bytes),
}

/// Where the reading of a bucket stands.
pub(crate) struct Cursor {
    /// From the root to the leaf, with the next element of each.
    stack: Vec<(Page, usize)>,
    start: Option<Start>,
    last_key: Bytes,
}

struct Pair {
    key: Bytes,
    value: Bytes,
    is_bucket: bool,
}

impl Cursor {
    fn at(bucket: &Bucket) -> Self {
        let start = match bucket {
            Bucket::Root(page) => Start::Page(*page),
            Bucket::Inline(page) => Start::Inline(page.clone()),
        };
        Self {
            stack: Vec::new(),
            start: Some(start),
            last_key: Bytes::new(),
        }
    }

    /// The next pair, in the order of keys.
    pub(crate) fn next<S: Source>(
        &mut self,
        reader: &mut FileReader<S>,
    ) -> Result<Option<(Bytes, Bytes)>> {
        match self.step(reader)? {
            Some(pair) if pair.is_bucket => {
                damaged(self.leaf(), "has a bucket where only pairs belong")
            }
            Some(pair) => Ok(Some((pair.key, pair.value))),
            None => Ok(None),
        }
    }

    fn leaf(&self) -> u64 {
        self.stack.last().map_or(0, |(page, _)| page.id)
    }

    fn step<S: Source>(&mut self, reader: &mut FileReader<S>) -> Result<Option<Pair>> {
        match self.start.take() {
            Some(Start::Page(page)) => self.stack.push((reader.page(page)?, 0)),
            Some(Start::Inline(bytes)) => self.stack.push((Page::inline(bytes)?, 0)),
            None => {}
        }
        loop {
            let depth = self.stack.len();
            let Some((page, next)) = self.stack.last_mut() else {
                return Ok(None);
            };
            if *next == page.count {
                self.stack.pop();
                continue;
            }
            let element = *next;
            *next += 1;
            if page.is_branch {
                let child = page.child(element)?;
                if depth == MAX_DEPTH {
                    return damaged(child, "lies too deep");
                }
                let child = reader.page(child)?;
                self.stack.push((child, 0));
                continue;
            }
            let pair = page.pair(element)?;
            if pair.key <= self.last_key {
                return damaged(page.id, "has a key out of order");
            }
            self.last_key = pair.key.clone();
            return Ok(Some(pair));
        }
    }
}

/// A leaf or a branch, as far as its header tells.
struct Page {
    id: u64,
    is_branch: bool,
    count: usize,
    bytes: Bytes,
}

impl Page {
    fn new(id: u64, header: PageHeader, bytes: Bytes) -> Result<Self> {
        if header.flags != BRANCH && header.flags != LEAF {
            return damaged(id, "is neither a branch nor a leaf");
        }
        Ok(Self {
            id,
            is_branch: header.flags == BRANCH,
            count: header.count.into(),
            bytes,
        })
    }

    /// The page of a small bucket has no number of its own, and is a leaf.
    fn inline(bytes: Bytes) -> Result<Self> {
        match PageHeader::decode(&bytes) {
            Some(header) if header.flags == LEAF => Self::new(0, header, bytes),
            _ => damaged(0, "of a small bucket is no leaf"),
        }
    }

    fn child(&self, element: usize) -> Result<u64> {
        match u64_at(&self.bytes, place(element) + 8) {
            Some(child) => Ok(child),
            None => damaged(self.id, "has more children than it has room for"),
        }
    }

    fn pair(&self, element: usize) -> Result<Pair> {
        let at = place(element);
        let number = |n: usize| u32_at(&self.bytes, at + 4 * n).map(|number| number as usize);
        let (Some(flags), Some(from_element), Some(key_bytes), Some(value_bytes)) =
            (number(0), number(1), number(2), number(3))
        else {
            return damaged(self.id, "has more pairs than it has room for");
        };
        // Each is below 2^32: the sums cannot overflow.
        let key_at = at + from_element;
        let value_at = key_at + key_bytes;
        let end = value_at + value_bytes;
        if end > self.bytes.len() {
            return damaged(self.id, "has a pair that reaches beyond it");
        }
        Ok(Pair {
            key: self.bytes.slice(key_at..value_at),
            value: self.bytes.slice(value_at..end),
            is_bucket: flags as u32 & IS_BUCKET != 0,
        })
    }
}

fn place(element: usize) -> usize {
    PAGE_HEADER_BYTES + ELEMENT_BYTES * element
}
