//! What is written is read back; what is damaged is refused or harmless, and never a panic.

use std::collections::BTreeMap;
use std::io::{self, Cursor as Memory};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::read::Source;
use super::write::PAGE_BYTES;
use super::{BoltError, FileReader, FileWriter};

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;
type Buckets = BTreeMap<String, Pairs>;

struct InMemory(Vec<u8>);

impl Source for InMemory {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let part = self.0.get(at..at + buffer.len());
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

fn written(buckets: &Buckets) -> Vec<u8> {
    let mut file = FileWriter::new(Memory::new(Vec::new())).unwrap();
    for (name, pairs) in buckets {
        let mut bucket = file.bucket(name);
        for (key, value) in pairs {
            bucket.put(key, value).unwrap();
        }
        bucket.finish().unwrap();
    }
    file.finish().unwrap().into_inner()
}

fn read(bytes: Vec<u8>) -> Result<Buckets, BoltError> {
    let mut file = FileReader::open(InMemory(bytes))?;
    let mut buckets = Buckets::new();
    for name in file.names() {
        let mut cursor = file.cursor(&name).unwrap();
        let pairs = buckets
            .entry(String::from_utf8_lossy(&name).into_owned())
            .or_default();
        while let Some((key, value)) = cursor.next(&mut file)? {
            pairs.insert(key.to_vec(), value.to_vec());
        }
    }
    Ok(buckets)
}

/// So many pairs of growing keys.
fn many(count: u32, value_bytes: usize) -> Buckets {
    let pairs = (1..=count)
        .map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; value_bytes]))
        .collect();
    Buckets::from([("key".to_owned(), pairs)])
}

#[test]
fn trees_of_every_height_come_back() {
    // 16 bytes of head, 16 + 4 + 12 bytes a pair: 127 pairs fill a leaf, 203 children a branch.
    for count in [0, 1, 127, 128, 129, 127 * 203, 127 * 203 + 1, 127 * 204 + 5] {
        let buckets = many(count, 12);
        let bytes = written(&buckets);
        assert_eq!(bytes.len() % PAGE_BYTES, 0);
        assert_eq!(read(bytes).unwrap(), buckets, "{count} pairs");
    }
}

#[test]
fn large_values_go_on_in_further_pages() {
    for value_bytes in [4_000, 4_060, 4_061, 70_000, 1_600_000] {
        let buckets = many(5, value_bytes);
        assert_eq!(read(written(&buckets)).unwrap(), buckets, "{value_bytes}");
    }
}

#[test]
fn pairs_out_of_order_are_not_written() {
    let mut file = FileWriter::new(Memory::new(Vec::new())).unwrap();
    let mut bucket = file.bucket("key");
    bucket.put(b"b", b"").unwrap();
    for key in [&b"b"[..], b"a", b""] {
        let refused = bucket.put(key, b"").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn either_meta_is_enough() {
    let buckets = many(1_000, 20);
    for damaged in [0, 1] {
        let mut bytes = written(&buckets);
        bytes[damaged * PAGE_BYTES + 20] ^= 1;
        assert_eq!(read(bytes).unwrap(), buckets, "meta {damaged}");
    }
    let mut bytes = written(&buckets);
    for damaged in [0, 1] {
        bytes[damaged * PAGE_BYTES + 20] ^= 1;
    }
    assert!(matches!(read(bytes), Err(BoltError::Foreign)));
}

#[test]
fn a_file_that_is_cut_off_says_so() {
    let bytes = written(&many(1_000, 20));
    for kept in [bytes.len() - 1, bytes.len() / 2, 3 * PAGE_BYTES] {
        let outcome = read(bytes[..kept].to_vec());
        assert!(matches!(outcome, Err(BoltError::CutOff { .. })), "{kept}");
    }
    assert!(matches!(read(Vec::new()), Err(BoltError::Foreign)));
    assert!(matches!(
        read(b"SQLite format 3\0".repeat(999)),
        Err(BoltError::Foreign)
    ));
}

#[test]
fn a_page_that_points_back_does_not_go_in_circles() {
    let mut bytes = written(&many(1_000, 20));
    // The last page names the bucket; its root becomes the page itself.
    let last = bytes.len() - PAGE_BYTES;
    let page = (last / PAGE_BYTES) as u64;
    let value = last + 16 + 16 + "key".len();
    bytes[value..value + 8].copy_from_slice(&page.to_le_bytes());
    let told = read(bytes).unwrap_err().to_string();
    assert!(told.contains("is pointed to twice"), "{told}");
}

fn any_buckets() -> impl Strategy<Value = Buckets> {
    let keys = vec(any::<u8>(), 1..40);
    let values = prop_oneof![
        4 => vec(any::<u8>(), 0..60),
        1 => vec(any::<u8>(), 0..9_000),
    ];
    btree_map("[a-z_.]{1,12}", btree_map(keys, values, 0..120), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read(buckets in any_buckets()) {
        prop_assert_eq!(read(written(&buckets)).unwrap(), buckets);
    }

    /// Bytes anywhere, and more of them where the structure is.
    #[test]
    fn damage_never_panics(
        buckets in any_buckets(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..12),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = written(&buckets);
        for (place, byte, in_head) in damage {
            let pages = bytes.len() / PAGE_BYTES;
            let at = if in_head {
                place.index(pages) * PAGE_BYTES + place.index(64)
            } else {
                place.index(bytes.len())
            };
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // Contents may differ: a file without its digest has no other check of them.
        drop(read(bytes));
    }
}
