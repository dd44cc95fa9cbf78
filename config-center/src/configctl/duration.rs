//! Durations as etcdctl's flags and environment write them: `5s`, `1m30s`, `250ms`.

use std::time::Duration;

/// Parses a duration; a bare number counts seconds. The error is a sentence for the operator.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write 500ms, 5s, 1m30s or 1h");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit_s = match &rest[..letters] {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        total += Duration::try_from_secs_f64(number * unit_s).map_err(|_| wrong())?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_etcdctl_writes_them() {
        let table = [
            ("5s", Some(5_000)),
            ("250ms", Some(250)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1_500)),
            ("2h", Some(7_200_000)),
            ("30", Some(30_000)),
            ("0s", Some(0)),
            ("", None),
            ("s", None),
            ("5", Some(5_000)),
            ("5x", None),
            ("-5s", None),
            ("5s3", None),
            ("1e99h", None),
        ];
        for (text, expected) in table {
            let got = parse_duration(text).ok().map(|d| d.as_millis());
            assert_eq!(got, expected, "{text:?}");
        }
    }
}
