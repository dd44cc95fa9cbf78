//! Parameters, from the query and from a form in the body, by the rules of Go's `net/http`: a
//! parameter of the body comes before one of the query, and the first of several counts.

use axum::body::{Body, to_bytes};
use http::{HeaderMap, Method, header};

const FORM: &str = "application/x-www-form-urlencoded";

/// Names and values; values are bytes, as any file may be put.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form(Vec<(String, Vec<u8>)>);

impl Form {
    pub(super) async fn read(
        method: &Method,
        headers: &HeaderMap,
        query: Option<&str>,
        body: Body,
        max_bytes: usize,
    ) -> Result<Self, String> {
        let mut form = Self::default();
        let has_form = matches!(*method, Method::PUT | Method::POST)
            && headers
                .get(header::CONTENT_TYPE)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.split(';').next())
                .is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM));
        if has_form {
            let body = to_bytes(body, max_bytes)
                .await
                .map_err(|_| "http: request body too large".to_owned())?;
            form.add(&body)?;
        }
        form.add(query.unwrap_or_default().as_bytes())?;
        Ok(form)
    }

    fn add(&mut self, encoded: &[u8]) -> Result<(), String> {
        for pair in encoded.split(|byte| *byte == b'&') {
            if pair.contains(&b';') {
                return Err("invalid semicolon separator in query".to_owned());
            }
            if pair.is_empty() {
                continue;
            }
            let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &b""[..]),
            };
            let name = String::from_utf8_lossy(&unescaped(name, true)?).into_owned();
            self.0.push((name, unescaped(value, true)?));
        }
        Ok(())
    }

    /// `None` when the parameter is not there at all.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice())
    }
}

/// Undoes percent encoding; in a form, a plus is a space.
pub(super) fn unescaped(encoded: &[u8], in_form: bool) -> Result<Vec<u8>, String> {
    let mut plain = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let digits = after
                    .get(..2)
                    .filter(|two| two.iter().all(u8::is_ascii_hexdigit))
                    .and_then(|two| std::str::from_utf8(two).ok());
                let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
                let Some(byte) = byte else {
                    let shown = &after[..after.len().min(2)];
                    let shown = String::from_utf8_lossy(shown);
                    return Err(format!("invalid URL escape \"%{shown}\""));
                };
                plain.push(byte);
                rest = &after[2..];
            }
            b'+' if in_form => plain.push(b' '),
            other => plain.push(other),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_bad_ones_named() {
        assert_eq!(unescaped(b"a%20b+c%2F", true).unwrap(), b"a b c/");
        assert_eq!(unescaped(b"a+%ff", false).unwrap(), b"a+\xff");
        for bad in ["%", "%2", "%zz", "x%+1"] {
            let error = unescaped(bad.as_bytes(), true).unwrap_err();
            assert!(error.starts_with("invalid URL escape \"%"), "{error}");
        }
    }

    #[test]
    fn the_body_comes_before_the_query() {
        let mut form = Form::default();
        form.add(b"value=body&&dir").unwrap();
        form.add(b"value=query&ttl=5").unwrap();
        assert_eq!(form.get("value"), Some(&b"body"[..]));
        assert_eq!(form.get("dir"), Some(&b""[..]));
        assert_eq!(form.get("ttl"), Some(&b"5"[..]));
        assert_eq!(form.get("none"), None);
        assert!(form.add(b"a=1;b=2").is_err());
    }
}
