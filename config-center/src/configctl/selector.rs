//! `-l role=web,zone!=a`: labels of hosts, in kubectl's notation.

use schemas::objects::{LabelKey, LabelValue, Operator, Requirement, Selector};

/// Reads a selector; all of its requirements must hold. The error is a sentence.
pub(crate) fn parse(text: &str) -> Result<Selector, String> {
    let mut selector = Selector::default();
    for part in split(text) {
        let requirement =
            requirement(part.trim()).map_err(|reason| format!("{text:?}: {reason}"))?;
        selector.match_expressions.push(requirement);
    }
    if selector.match_expressions.is_empty() {
        return Err("an empty selector would mean every host: write KEY=VALUE".into());
    }
    Ok(selector)
}

/// At the commas outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let is_comma = move |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    };
    let parts = text.split(is_comma).map(str::trim);
    parts.filter(|part| !part.is_empty()).collect()
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let made = |key: &str, operator, values: &[&str]| {
        Ok(Requirement {
            key: LabelKey::new(key.trim())?,
            operator,
            values: values
                .iter()
                .map(|value| LabelValue::new(value.trim()))
                .collect::<Result<_, _>>()?,
        })
    };
    if let Some((head, rest)) = part.split_once('(') {
        let rest = rest
            .strip_suffix(')')
            .ok_or_else(|| format!("{part:?} has no closing bracket"))?;
        let values: Vec<&str> = rest.split(',').collect();
        let words: Vec<&str> = head.split_whitespace().collect();
        return match words[..] {
            [key, "in"] => made(key, Operator::In, &values),
            [key, "notin"] => made(key, Operator::NotIn, &values),
            _ => Err(format!("{part:?} is not KEY in (A, B) or KEY notin (A, B)")),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return made(key, Operator::NotIn, &[value]);
    }
    if let Some((key, value)) = part.split_once('=') {
        return made(
            key,
            Operator::In,
            &[value.strip_prefix('=').unwrap_or(value)],
        );
    }
    match part.strip_prefix('!') {
        Some(key) => made(key, Operator::DoesNotExist, &[]),
        None => made(part, Operator::Exists, &[]),
    }
}

#[cfg(test)]
mod tests {
    use schemas::objects::Labels;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pair = |(key, value): &(&str, &str)| {
            (
                LabelKey::new(*key).unwrap(),
                LabelValue::new(*value).unwrap(),
            )
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn selectors_are_kubectls() {
        let host = labels(&[("role", "web"), ("zone", "a")]);
        for (text, expected) in [
            ("role=web", true),
            ("role==web,zone=a", true),
            ("role=web,zone!=a", false),
            ("rack!=7", true),
            ("role", true),
            ("!role", false),
            ("!rack", true),
            ("zone in (a, b), role", true),
            ("zone notin (a,b)", false),
        ] {
            assert_eq!(parse(text).unwrap().matches(&host), expected, "{text}");
        }
        for bad in [
            "",
            " , ",
            "=web",
            "zone in a",
            "zone in (a",
            "role of (a)",
            "a b=c",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
