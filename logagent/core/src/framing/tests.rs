use super::*;
use proptest::prelude::*;

/// The definition, in the plainest words: a record's bytes and the offset after it.
fn naive(content: &[u8], max: usize, with_rest: bool) -> Vec<(Vec<u8>, u64)> {
    let mut records = Vec::new();
    let mut start = 0;
    while start < content.len() {
        let newline = content[start..].iter().position(|byte| *byte == b'\n');
        let (line, after) = match newline {
            Some(len) => (&content[start..start + len], start + len + 1),
            None if with_rest => (&content[start..], content.len()),
            None => {
                // Without its newline, only full pieces that something follows are known.
                let rest = &content[start..];
                let known = rest.len().saturating_sub(1) / max * max;
                (&rest[..known], start + known)
            }
        };
        let mut at = start;
        for piece in line.chunks(max) {
            at += piece.len();
            records.push((piece.to_vec(), at as u64));
        }
        if line.is_empty() && newline.is_some() {
            records.push((Vec::new(), after as u64));
        } else if let Some(last) = records.last_mut().filter(|_| !line.is_empty()) {
            last.1 = after as u64;
        }
        if newline.is_none() {
            break;
        }
        start = after;
    }
    records
}

fn records(lines: &Lines) -> Vec<(Vec<u8>, u64)> {
    lines
        .iter()
        .map(|line| (line.bytes.to_vec(), line.end))
        .collect()
}

/// Reads like a tail: always on from the end of the last whole line, `block` bytes at a time.
fn read_in_blocks(content: &[u8], max: usize, blocks: &[usize]) -> Vec<(Vec<u8>, u64)> {
    let (mut offset, mut out, mut want, mut turn) = (0, Vec::new(), 0, 0);
    loop {
        let block = want.max(blocks[turn % blocks.len()]);
        turn += 1;
        let end = content.len().min(offset + block);
        let bytes = Bytes::copy_from_slice(&content[offset..end]);
        if let Some(lines) = Lines::split(offset as u64, &bytes, max) {
            out.extend(records(&lines));
            offset = lines.end() as usize;
            want = 0;
        } else if end < content.len() {
            want = max + 2;
        } else {
            out.extend(
                Lines::finish(offset as u64, &bytes, max)
                    .iter()
                    .flat_map(records),
            );
            return out;
        }
    }
}

#[track_caller]
fn check(content: &[u8], max: usize, want: &[&[u8]], rest: &[u8]) {
    let bytes = Bytes::copy_from_slice(content);
    let lines = Lines::split(0, &bytes, max);
    let got: Vec<_> = lines
        .iter()
        .flat_map(records)
        .map(|(line, _)| line)
        .collect();
    assert_eq!(got, want);
    let end = lines.map_or(0, |lines| lines.end());
    assert_eq!(&content[end as usize..], rest);
}

#[test]
fn lines_are_bytes_without_the_newline() {
    check(b"", 9, &[], b"");
    check(b"half", 9, &[], b"half");
    check(b"a\nb\n", 9, &[b"a", b"b"], b"");
    check(
        b"a\r\n\n\0\xff\nrest",
        9,
        &[b"a\r", b"", b"\0\xff"],
        b"rest",
    );
    check(b"\n\n\n", 9, &[b"", b"", b""], b"");
}

#[test]
fn long_lines_come_in_pieces() {
    check(b"abcd\n", 4, &[b"abcd"], b"");
    check(b"abcde\n", 4, &[b"abcd", b"e"], b"");
    check(b"abcdefgh\nx\n", 4, &[b"abcd", b"efgh", b"x"], b"");
    // A newline may still follow a piece that fills the block: it waits.
    check(b"abcd", 4, &[], b"abcd");
    check(b"abcde", 4, &[b"abcd"], b"e");
    check(b"abcdefgh", 4, &[b"abcd"], b"efgh");
}

#[test]
fn every_byte_value_passes() {
    let content: Vec<u8> = (0..=255).chain([b'\n']).collect();
    let bytes = Bytes::from(content.clone());
    let lines = Lines::split(0, &bytes, 1_000).unwrap();
    let joined: Vec<u8> = lines
        .iter()
        .flat_map(|l| [l.bytes, b"\n"].concat())
        .collect();
    assert_eq!(joined, content);
}

#[test]
fn lines_are_slices_of_the_block() {
    let bytes = Bytes::from_static(b"one\ntwo\n");
    let lines = Lines::split(100, &bytes, 9).unwrap();
    let (line, next) = lines.get(4).unwrap();
    assert_eq!(line.bytes.as_ptr(), bytes[4..].as_ptr());
    assert_eq!((line.bytes, line.end, next), (&b"two"[..], 108, 8));
    assert_eq!(lines.get(8), None);
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(b'\n'), 6 => any::<u8>(), 3 => Just(b'\r'), 9 => Just(b'x')];
    proptest::collection::vec(byte, 0..200)
}

proptest! {
    #[test]
    fn one_block_is_split_as_defined(content in content(), max in 1..30_usize) {
        let bytes = Bytes::copy_from_slice(&content);
        let split = Lines::split(0, &bytes, max);
        let got: Vec<_> = split.iter().flat_map(records).collect();
        prop_assert_eq!(got, naive(&content, max, false));
    }

    /// However the blocks fall, and wherever a reader starts again, the records are the same.
    #[test]
    fn chunking_changes_nothing(
        content in content(),
        max in 1..30_usize,
        blocks in proptest::collection::vec(1..50_usize, 1..6),
        restart: proptest::sample::Index,
    ) {
        let want = naive(&content, max, true);
        prop_assert_eq!(&read_in_blocks(&content, max, &blocks), &want);
        if !want.is_empty() {
            let at = restart.index(want.len());
            let offset = want[at].1;
            let again = read_in_blocks(&content[offset as usize..], max, &blocks);
            let again: Vec<_> =
                again.into_iter().map(|(line, end)| (line, end + offset)).collect();
            prop_assert_eq!(&again[..], &want[at + 1..]);
        }
    }
}

fn joining(start: &str, max_lines: u32) -> Joining {
    Joining::new(&schemas::objects::Multiline {
        start: Some(start.into()),
        continues: None,
        timeout_ms: None,
        max_lines: Some(max_lines),
    })
    .unwrap()
}

/// Each record: its bytes, the offset after it, and the length of the line when it was cut.
type Record = (Vec<u8>, u64, Option<u64>);

/// Reads like a tail, with any framing; the end of a long line is looked for block by block.
fn read_framed(framing: &Framing, content: &[u8], from: u64, blocks: &[usize]) -> Vec<Record> {
    let (mut offset, mut out, mut want, mut turn) = (from as usize, Vec::new(), 0, 0);
    loop {
        let block = want.max(blocks[turn % blocks.len()]);
        turn += 1;
        let end = content.len().min(offset + block);
        let bytes = Bytes::copy_from_slice(&content[offset..end]);
        let is_last = end == content.len();
        let mode = if is_last { End::Finished } else { End::Open };
        match framing.split(offset as u64, &bytes, mode) {
            Split::Records(lines) => {
                let taken = lines.iter().map(|line| {
                    assert_eq!(
                        &content[line.start as usize..][..line.bytes.len()],
                        line.bytes
                    );
                    (line.bytes.to_vec(), line.end, line.whole_bytes)
                });
                out.extend(taken);
                offset = lines.end() as usize;
                want = 0;
            }
            Split::LongLine => {
                let found = framing.find_newline(content, end & !1);
                let (after, newline) = found.unwrap_or((content.len(), 0));
                let whole = (after - newline - offset) as u64;
                let lines = framing.beginning_of(offset as u64, &bytes, whole, after as u64);
                let (line, _) = lines.get(0).unwrap();
                out.push((line.bytes.to_vec(), line.end, line.whole_bytes));
                offset = after;
                want = 0;
            }
            Split::Nothing if is_last => return out,
            Split::Nothing => {
                assert!(bytes.len() < framing.window_bytes(), "no progress");
                want = framing.window_bytes();
            }
        }
    }
}

#[track_caller]
fn check_framed(framing: &Framing, content: &[u8], want: &[(&[u8], Option<u64>)]) {
    let got = read_framed(framing, content, 0, &[1_000]);
    let got: Vec<_> = got
        .iter()
        .map(|(bytes, _, cut)| (bytes.as_slice(), *cut))
        .collect();
    assert_eq!(got, want);
}

#[test]
fn lines_are_joined_by_what_begins_or_continues_one() {
    let by_start = Framing::lines(100).joined(Some(joining("^[0-9]", 3)));
    let whole = |text: &'static str| (text.as_bytes(), None);
    check_framed(
        &by_start,
        b"  lost\n1 a\n  b\n\n2 c\n3 d\n x\n y\n z\n w\n",
        &[
            whole("  lost"),
            whole("1 a\n  b\n"),
            whole("2 c"),
            whole("3 d\n x\n y"),
            whole(" z\n w"),
        ],
    );
    let by_continue = Framing::lines(100).joined(Some(
        Joining::new(&schemas::objects::Multiline {
            start: None,
            continues: Some(r"^\s".into()),
            timeout_ms: None,
            max_lines: None,
        })
        .unwrap(),
    ));
    check_framed(
        &by_continue,
        b"a\n b\n\tc\nd\n",
        &[whole("a\n b\n\tc"), whole("d")],
    );
    // Before the line with which it would be too long, a group ends; a long line is alone.
    let short = Framing::lines(10).joined(Some(joining("^[0-9]", 99)));
    check_framed(
        &short,
        b"1 a\n bcd\n efgh\n0123456789abc\nx\n",
        &[
            whole("1 a\n bcd"),
            whole(" efgh"),
            whole("0123456789"),
            whole("abc\nx"),
        ],
    );
}

#[test]
fn an_open_group_waits_and_a_quiet_one_does_not() {
    let framing = Framing::lines(100).joined(Some(joining("^[0-9]", 9)));
    let bytes = Bytes::from_static(b"1 a\n b\nhalf");
    assert!(matches!(
        framing.split(0, &bytes, End::Open),
        Split::Nothing
    ));
    let Split::Records(lines) = framing.split(0, &bytes, End::Quiet) else {
        panic!("a quiet group is a record");
    };
    assert_eq!(
        (lines.get(0).unwrap().0.bytes, lines.end()),
        (&b"1 a\n b"[..], 7)
    );
    let Split::Records(lines) = framing.split(0, &bytes, End::Finished) else {
        panic!("a finished file has records");
    };
    assert_eq!(lines.get(0).unwrap().0.bytes, b"1 a\n b\nhalf");
}

#[test]
fn long_lines_are_cut_when_that_is_asked_for() {
    for policy in [OnLongLine::Truncate, OnLongLine::DeadLetter] {
        let framing = Framing::lines(4).on_long_line(policy);
        check_framed(
            &framing,
            b"abcd\nabcdefgh\nx\nabcdefghijkl",
            &[
                (b"abcd", None),
                (b"abcd", Some(8)),
                (b"x", None),
                (b"abcd", Some(12)),
            ],
        );
        let bytes = Bytes::from_static(b"abcdefghijkl");
        assert!(matches!(
            framing.split(0, &bytes, End::Open),
            Split::LongLine
        ));
    }
}

#[test]
fn the_first_record_can_be_taken_alone() {
    for framing in [
        Framing::lines(9),
        Framing::lines(9).on_long_line(OnLongLine::Truncate),
    ] {
        let Split::Records(lines) = framing.split(5, &Bytes::from_static(b"a\nb\n"), End::Open)
        else {
            panic!("two lines");
        };
        let first = lines.first();
        assert_eq!(
            (first.iter().count(), first.start(), first.end()),
            (1, 5, 7)
        );
    }
}

fn framing() -> impl Strategy<Value = Framing> {
    let policy = prop_oneof![
        Just(OnLongLine::Split),
        Just(OnLongLine::Truncate),
        Just(OnLongLine::DeadLetter)
    ];
    let encoding = prop_oneof![
        Just("utf-8"),
        Just("gbk"),
        Just("utf-16le"),
        Just("utf-16be")
    ];
    let joined = proptest::option::of(1..6_u32);
    (16..40_usize, policy, encoding, joined).prop_map(|(max, policy, encoding, joined)| {
        Framing::lines(max)
            .on_long_line(policy)
            .in_encoding(TextEncoding::named(encoding))
            .joined(joined.map(|max_lines| joining("[x\u{ff}]", max_lines)))
    })
}

proptest! {
    /// The general way finds the same lines as the fast one.
    #[test]
    fn both_ways_agree(content in content(), max in 1..30_usize, finished: bool) {
        let bytes = Bytes::copy_from_slice(&content);
        let framing = Framing::lines(max);
        let end = if finished { End::Finished } else { End::Open };
        let all = |split| match split {
            Split::Records(lines) => records(&lines),
            Split::Nothing | Split::LongLine => Vec::new(),
        };
        let fast = all(framing.split(7, &bytes, end));
        let general = all(framing.split_records(7, &bytes, end));
        prop_assert_eq!(fast, general);
    }

    /// Joined, cut, in any encoding: neither blocks nor restarts change a record.
    #[test]
    fn chunking_changes_no_record(
        content in content(),
        framing in framing(),
        blocks in proptest::collection::vec(1..50_usize, 1..6),
        restart: proptest::sample::Index,
    ) {
        let blocks: Vec<usize> = blocks.iter().map(|block| block * 2).collect();
        let want = read_framed(&framing, &content, 0, &[1_000]);
        prop_assert_eq!(&read_framed(&framing, &content, 0, &blocks), &want);
        prop_assert_eq!(want.last().map_or(0, |last| last.1), content.len() as u64);
        if !want.is_empty() {
            let at = restart.index(want.len());
            let again = read_framed(&framing, &content, want[at].1, &blocks);
            prop_assert_eq!(&again[..], &want[at + 1..]);
        }
    }
}
