//! Where in the text of a configuration value an entry and its field stand.
//!
//! The text is known to be JSON: what is looked for is found or is not there, nothing is judged.

/// Line and column, both from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// The entry at `index` of the array, or its field's name when it has that field.
pub(super) fn locate(text: &[u8], index: usize, field: Option<&str>) -> Option<Position> {
    let at = skip_space(text, 0);
    if text.get(at) != Some(&b'[') {
        return None;
    }
    let mut at = at + 1;
    for _ in 0..index {
        at = skip_value(text, skip_space(text, at));
        at = skip_space(text, at);
        if text.get(at) != Some(&b',') {
            return None;
        }
        at += 1;
    }
    let entry = skip_space(text, at);
    let place = field.and_then(|field| field_in(text, entry, field));
    Some(position(text, place.unwrap_or(entry)))
}

pub(super) fn position(text: &[u8], at: usize) -> Position {
    let before = &text[..at.min(text.len())];
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    Position {
        line: memchr::memchr_iter(b'\n', before).count() + 1,
        column: String::from_utf8_lossy(&before[line_start..])
            .chars()
            .count()
            + 1,
    }
}

/// Where the name of the field begins.
fn field_in(text: &[u8], entry: usize, field: &str) -> Option<usize> {
    if text.get(entry) != Some(&b'{') {
        return None;
    }
    let mut at = skip_space(text, entry + 1);
    while text.get(at) == Some(&b'"') {
        let end = skip_value(text, at);
        let name: String = serde_json::from_slice(text.get(at..end)?).ok()?;
        if name == field {
            return Some(at);
        }
        let colon = skip_space(text, end);
        at = skip_space(text, skip_value(text, skip_space(text, colon + 1)));
        at = skip_space(text, at + 1);
    }
    None
}

fn skip_space(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest
        .iter()
        .take_while(|byte| byte.is_ascii_whitespace())
        .count()
}

/// The offset after the value that begins at `at`.
fn skip_value(text: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut end = at;
    while let Some(byte) = text.get(end) {
        match byte {
            b'"' => {
                end = skip_string(text, end);
                if depth == 0 {
                    return end;
                }
                continue;
            }
            b'[' | b'{' => depth += 1,
            // The end of what the value lies in.
            b']' | b'}' | b',' if depth == 0 => return end,
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return end + 1;
                }
            }
            byte if depth == 0 && byte.is_ascii_whitespace() => return end,
            _ => {}
        }
        end += 1;
    }
    end
}

fn skip_string(text: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while let Some(byte) = text.get(end) {
        match byte {
            b'\\' => end += 2,
            b'"' => return end + 1,
            _ => end += 1,
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, index: usize, field: Option<&str>) -> Option<(usize, usize)> {
        locate(text.as_bytes(), index, field).map(|place| (place.line, place.column))
    }

    #[test]
    fn entries_and_fields_are_found() {
        let text = "\n [ {\"path\":\"/日志,]}\\\"\", \"topic\":\"t\"} ,\n  7,[1,{\"a\":[]}],\n  {\"x\": {\"topic\":1},\n   \"topic\":2}]";
        assert_eq!(at(text, 0, None), Some((2, 4)));
        assert_eq!(at(text, 0, Some("topic")), Some((2, 24)));
        assert_eq!(at(text, 1, None), Some((3, 3)));
        assert_eq!(at(text, 2, Some("path")), Some((3, 5)));
        assert_eq!(at(text, 3, Some("topic")), Some((5, 4)));
        assert_eq!(at(text, 3, Some("path")), Some((4, 3)));
        assert_eq!(at(text, 4, None), None);
        assert_eq!(at("{}", 0, None), None);
    }
}
