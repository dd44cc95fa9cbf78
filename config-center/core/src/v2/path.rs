//! Paths: which keys v2 can name, and how a request's path is brought into that form.

use bytes::Bytes;

use crate::mvcc::KeyRange;

pub(super) const ROOT: &[u8] = b"/";

/// Brings the path of a request into its one form: absolute, no empty, `.` or `..` segments, no
/// slash at the end.
#[must_use]
pub fn clean_path(path: &str) -> Bytes {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    Bytes::from(format!("/{}", segments.join("/")))
}

/// Whether v2 can name this key. It cannot name binary keys, keys without a leading slash, with
/// one at the end, or with segments that a path never has.
pub(super) fn is_visible(key: &[u8]) -> bool {
    std::str::from_utf8(key).is_ok()
        && key.len() > 1
        && key[0] == b'/'
        && key[1..]
            .split(|byte| *byte == b'/')
            .all(|segment| !matches!(segment, b"" | b"." | b".."))
}

/// `/a/b` → `/a`, `/a` → `/`, `/` → none.
pub(super) fn parent(path: &[u8]) -> Option<&[u8]> {
    if path == ROOT {
        return None;
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => Some(ROOT),
        Some(end) => Some(&path[..end]),
    }
}

/// The path and everything above it but the root, outermost first.
pub(super) fn ancestry(path: &[u8]) -> Vec<&[u8]> {
    let mut steps = Vec::new();
    let mut at = path;
    while at != ROOT {
        steps.push(at);
        at = parent(at).unwrap_or(ROOT);
    }
    steps.reverse();
    steps
}

/// What every path inside a directory begins with.
pub(super) fn inside(directory: &[u8]) -> Vec<u8> {
    let mut prefix = directory.to_vec();
    if directory != ROOT {
        prefix.push(b'/');
    }
    prefix
}

/// The first path that is not inside: `0` follows `/`.
pub(super) fn beyond(directory: &[u8]) -> Vec<u8> {
    let mut end = inside(directory);
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

pub(super) fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// The keys whose changes a watcher of a path must be woken for.
#[must_use]
pub fn watched_range(watched: &Bytes, recursive: bool) -> KeyRange {
    if recursive {
        KeyRange::Span {
            start: watched.clone(),
            end: beyond(watched).into(),
        }
    } else {
        KeyRange::Single(watched.clone())
    }
}

/// Names that begin with `_` are not listed.
pub(super) fn is_hidden(path: &[u8]) -> bool {
    name(path).first() == Some(&b'_')
}

/// Whether something below `watched` on the way to `path` is hidden.
pub(super) fn is_hidden_below(watched: &[u8], path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(watched) else {
        return false;
    };
    rest.starts_with(b"_") && watched == ROOT || rest.windows(2).any(|pair| pair == b"/_")
}

pub(super) fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
