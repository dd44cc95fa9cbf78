//! Where each number of a page stands. Read by both directions, decided by neither.

/// `id: u64, flags: u16, count: u16, overflow: u32`.
pub(super) const PAGE_HEADER_BYTES: usize = 16;

/// Of a leaf `flags, pos, key size, value size: u32`, of a branch `pos, key size: u32, child: u64`;
/// `pos` counts from the element itself.
pub(super) const ELEMENT_BYTES: usize = 16;

/// What a bucket's value begins with: `root page, sequence: u64`. Root 0: its only page follows.
pub(super) const BUCKET_HEADER_BYTES: usize = 16;

pub(super) const META_BYTES: usize = 64;
/// The part of the meta that its checksum covers.
const SUMMED_BYTES: usize = 56;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META: u16 = 0x04;
pub(super) const FREE_LIST: u16 = 0x10;

/// The flag of a leaf's element that is a bucket.
pub(super) const IS_BUCKET: u32 = 0x01;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) id: u64,
    pub(super) flags: u16,
    pub(super) count: u16,
    /// Further pages that belong to this one.
    pub(super) overflow: u32,
}

impl PageHeader {
    pub(super) fn encode(self) -> [u8; PAGE_HEADER_BYTES] {
        let mut bytes = [0; PAGE_HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }

    /// `None` when there are too few bytes.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let low = u32_at(bytes, 8)?;
        Some(Self {
            id: u64_at(bytes, 0)?,
            flags: (low & 0xFFFF) as u16,
            count: (low >> 16) as u16,
            overflow: u32_at(bytes, 12)?,
        })
    }
}

/// What a meta page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_bytes: u32,
    /// The root page of the bucket of buckets.
    pub(super) root: u64,
    pub(super) free_list: u64,
    /// Pages in use lie below this one.
    pub(super) end: u64,
    pub(super) transaction: u64,
}

impl Meta {
    pub(super) fn encode(&self) -> [u8; META_BYTES] {
        let mut bytes = [0; META_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.page_bytes.to_le_bytes());
        // 12: flags, 24: the root bucket's sequence; both unused.
        bytes[16..24].copy_from_slice(&self.root.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.free_list.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.end.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.transaction.to_le_bytes());
        let sum = fnv1a(&bytes[..SUMMED_BYTES]);
        bytes[56..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None` when this is no meta, one of another version, or a damaged one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let is_meta = u32_at(bytes, 0)? == MAGIC
            && u32_at(bytes, 4)? == VERSION
            && u64_at(bytes, 56)? == fnv1a(bytes.get(..SUMMED_BYTES)?);
        let meta = Self {
            page_bytes: u32_at(bytes, 8)?,
            root: u64_at(bytes, 16)?,
            free_list: u64_at(bytes, 32)?,
            end: u64_at(bytes, 40)?,
            transaction: u64_at(bytes, 48)?,
        };
        is_meta.then_some(meta)
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(4)?)?;
    part.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(8)?)?;
    part.try_into().ok().map(u64::from_le_bytes)
}

/// The 64-bit Fowler–Noll–Vo hash, variant 1a.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
