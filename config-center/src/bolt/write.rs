//! Writes a file from pairs that come bucket by bucket and in the order of their keys. Pages are
//! written as they fill up, and only the unfinished one of each level is in memory; what belongs at
//! the front of the file is written last.

use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};

use super::layout::{
    BRANCH, BUCKET_HEADER_BYTES, ELEMENT_BYTES, FREE_LIST, IS_BUCKET, LEAF, META, Meta,
    PAGE_HEADER_BYTES, PageHeader,
};

/// The size of a page on nearly every machine that etcd runs on.
pub(super) const PAGE_BYTES: usize = 4096;

const FREE_LIST_PAGE: u64 = 2;
const FIRST_PAGE: u64 = 3;

/// A file that begins to exist. Without `finish` it is no database.
pub(crate) struct FileWriter<W> {
    out: W,
    next_page: u64,
    /// The buckets by name, and the root page of each.
    buckets: BTreeMap<Vec<u8>, u64>,
}

impl<W: Write + Seek> FileWriter<W> {
    /// `out` is empty and stands at its beginning.
    pub(crate) fn new(mut out: W) -> io::Result<Self> {
        for _ in 0..FIRST_PAGE {
            out.write_all(&[0; PAGE_BYTES])?;
        }
        Ok(Self {
            out,
            next_page: FIRST_PAGE,
            buckets: BTreeMap::new(),
        })
    }

    /// Begins a bucket; buckets come in any order.
    pub(crate) fn bucket(&mut self, name: &str) -> BucketWriter<'_, W> {
        BucketWriter {
            file: self,
            name: name.as_bytes().to_vec(),
            last_key: Vec::new(),
            leaf: Unwritten::new(LEAF),
            branches: Vec::new(),
        }
    }

    /// Writes what names the buckets, then the front of the file. Gives back the output, flushed.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let mut names = Unwritten::new(LEAF);
        for (name, root) in std::mem::take(&mut self.buckets) {
            let mut value = [0; BUCKET_HEADER_BYTES];
            value[..8].copy_from_slice(&root.to_le_bytes());
            names.push_pair(&name, &value, IS_BUCKET);
        }
        let root = self.write_page(&mut names)?;
        let meta = |transaction| Meta {
            page_bytes: PAGE_BYTES as u32,
            root,
            free_list: FREE_LIST_PAGE,
            end: self.next_page,
            transaction,
        };
        let header = |id, flags| PageHeader {
            id,
            flags,
            count: 0,
            overflow: 0,
        };
        // A transaction's meta goes to the page of its parity: both describe the same contents.
        let fronts = [(0, meta(2)), (1, meta(1))];
        for (id, meta) in fronts {
            self.out.seek(SeekFrom::Start(id * PAGE_BYTES as u64))?;
            self.out.write_all(&header(id, META).encode())?;
            self.out.write_all(&meta.encode())?;
        }
        let place = FREE_LIST_PAGE * PAGE_BYTES as u64;
        self.out.seek(SeekFrom::Start(place))?;
        let free_list = header(FREE_LIST_PAGE, FREE_LIST);
        self.out.write_all(&free_list.encode())?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Writes the page and empties it; returns its number.
    fn write_page(&mut self, page: &mut Unwritten) -> io::Result<u64> {
        let id = self.next_page;
        let bytes = page.encode(id);
        self.out.write_all(&bytes)?;
        self.next_page += (bytes.len() / PAGE_BYTES) as u64;
        *page = Unwritten::new(page.flags);
        Ok(id)
    }
}

/// One bucket; without `finish` it is not in the file.
pub(crate) struct BucketWriter<'a, W> {
    file: &'a mut FileWriter<W>,
    name: Vec<u8>,
    last_key: Vec<u8>,
    leaf: Unwritten,
    /// The unfinished branch of each level, the lowest first.
    branches: Vec<Unwritten>,
}

impl<W: Write + Seek> BucketWriter<'_, W> {
    /// Adds a pair whose key is above all before; keys are not empty.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if key <= self.last_key.as_slice() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a pair does not come in the order of keys",
            ));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        if !self.leaf.is_empty() && !self.leaf.has_room(key.len() + value.len()) {
            self.write_leaf()?;
        }
        self.leaf.push_pair(key, value, 0);
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        let root = if self.branches.is_empty() {
            // One page is enough, for no pairs as well.
            self.file.write_page(&mut self.leaf)?
        } else {
            self.write_leaf()?;
            self.write_branches()?
        };
        self.file.buckets.insert(self.name, root);
        Ok(())
    }

    fn write_leaf(&mut self) -> io::Result<()> {
        let first_key = self.leaf.first_key().to_vec();
        let page = self.file.write_page(&mut self.leaf)?;
        self.add_child(first_key, page)
    }

    fn add_child(&mut self, mut first_key: Vec<u8>, mut page: u64) -> io::Result<()> {
        for level in 0.. {
            if level == self.branches.len() {
                self.branches.push(Unwritten::new(BRANCH));
            }
            let branch = &mut self.branches[level];
            // A branch of one child is legal and wasteful: each leaves one behind for the next.
            if branch.len() < 3 || branch.has_room(first_key.len()) {
                branch.push_child(&first_key, page);
                return Ok(());
            }
            let (last_key, last_child) = branch.pop_child();
            let branch_key = branch.first_key().to_vec();
            let written = self.file.write_page(branch)?;
            branch.push_child(&last_key, last_child);
            branch.push_child(&first_key, page);
            (first_key, page) = (branch_key, written);
        }
        Ok(())
    }

    /// Writes the unfinished branches from below; returns the root.
    fn write_branches(&mut self) -> io::Result<u64> {
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.branches.len();
            let branch = &mut self.branches[level];
            let first_key = branch.first_key().to_vec();
            let page = self.file.write_page(branch)?;
            if is_top {
                return Ok(page);
            }
            level += 1;
            // The level above was made by a page of this one, and has room for its last: a branch
            // that is written a little longer than a page goes on in the next.
            self.branches[level].push_child(&first_key, page);
        }
    }
}

/// The elements of a page that is not written yet.
struct Unwritten {
    flags: u16,
    elements: Vec<Element>,
    /// Keys and values behind each other.
    data: Vec<u8>,
}

struct Element {
    flags: u32,
    at: usize,
    key_bytes: usize,
    value_bytes: usize,
    /// Of a branch.
    child: u64,
}

impl Unwritten {
    fn new(flags: u16) -> Self {
        Self {
            flags,
            elements: Vec::new(),
            data: Vec::new(),
        }
    }

    fn len(&self) -> usize {
        self.elements.len()
    }

    fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    fn has_room(&self, bytes: usize) -> bool {
        let used = PAGE_HEADER_BYTES + ELEMENT_BYTES * self.len() + self.data.len();
        used + ELEMENT_BYTES + bytes <= PAGE_BYTES
    }

    fn push_pair(&mut self, key: &[u8], value: &[u8], flags: u32) {
        self.elements.push(Element {
            flags,
            at: self.data.len(),
            key_bytes: key.len(),
            value_bytes: value.len(),
            child: 0,
        });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    fn push_child(&mut self, first_key: &[u8], child: u64) {
        self.push_pair(first_key, &[], 0);
        if let Some(element) = self.elements.last_mut() {
            element.child = child;
        }
    }

    /// There is one.
    fn pop_child(&mut self) -> (Vec<u8>, u64) {
        self.elements.pop().map_or((Vec::new(), 0), |element| {
            (self.data.split_off(element.at), element.child)
        })
    }

    fn first_key(&self) -> &[u8] {
        self.elements
            .first()
            .map_or(&[], |first| &self.data[..first.key_bytes])
    }

    /// The page with its overflow, filled up with zeros.
    fn encode(&self, id: u64) -> Vec<u8> {
        let data_at = PAGE_HEADER_BYTES + ELEMENT_BYTES * self.len();
        let pages = (data_at + self.data.len()).div_ceil(PAGE_BYTES);
        let mut bytes = Vec::with_capacity(pages * PAGE_BYTES);
        let header = PageHeader {
            id,
            flags: self.flags,
            // Elements alone take 16 bytes each: a page has room for 255, and an overflowing one
            // holds one large pair, or few keys of a branch.
            count: self.len() as u16,
            overflow: (pages - 1) as u32,
        };
        bytes.extend_from_slice(&header.encode());
        for element in &self.elements {
            let from_element = (data_at + element.at - bytes.len()) as u32;
            let key_bytes = element.key_bytes as u32;
            if self.flags == BRANCH {
                bytes.extend_from_slice(&from_element.to_le_bytes());
                bytes.extend_from_slice(&key_bytes.to_le_bytes());
                bytes.extend_from_slice(&element.child.to_le_bytes());
            } else {
                bytes.extend_from_slice(&element.flags.to_le_bytes());
                bytes.extend_from_slice(&from_element.to_le_bytes());
                bytes.extend_from_slice(&key_bytes.to_le_bytes());
                bytes.extend_from_slice(&(element.value_bytes as u32).to_le_bytes());
            }
        }
        bytes.extend_from_slice(&self.data);
        bytes.resize(pages * PAGE_BYTES, 0);
        bytes
    }
}
