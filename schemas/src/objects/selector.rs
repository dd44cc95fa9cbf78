//! Which hosts a group means, by their labels, in Kubernetes' words.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Labels,
    checked::{LabelKey, LabelValue},
};

/// All of it must hold. An empty selector matches every host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Selector {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: Labels,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    pub key: LabelKey,
    pub operator: Operator,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<LabelValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    pub fn matches(&self, labels: &Labels) -> bool {
        let equal = |(key, value)| labels.get::<LabelKey>(key) == Some(value);
        self.match_labels.iter().all(equal)
            && self.match_expressions.iter().all(|one| one.matches(labels))
    }

    /// Index of the expression and what is wrong with it.
    pub(super) fn faults(&self) -> Vec<(usize, String)> {
        let fault = |(index, requirement): (usize, &Requirement)| {
            let Requirement {
                operator, values, ..
            } = requirement;
            let message = match (operator, values.is_empty()) {
                (Operator::In | Operator::NotIn, true) => {
                    format!("{operator:?} needs values to compare with")
                }
                (Operator::Exists | Operator::DoesNotExist, false) => {
                    format!("{operator:?} compares with no values: leave them out")
                }
                _ => return None,
            };
            Some((index, message))
        };
        self.match_expressions
            .iter()
            .enumerate()
            .filter_map(fault)
            .collect()
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            // As in Kubernetes: a host without the label is not in the values either.
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        let pair = |word: &str| {
            let (key, value) = word.split_once('=').unwrap();
            (LabelKey::new(key).unwrap(), LabelValue::new(value).unwrap())
        };
        text.split_whitespace().map(pair).collect()
    }

    fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
        Requirement {
            key: LabelKey::new(key).unwrap(),
            operator,
            values: values
                .iter()
                .map(|value| LabelValue::new(*value).unwrap())
                .collect(),
        }
    }

    #[test]
    fn all_labels_must_be_equal() {
        let selector = Selector {
            match_labels: labels("role=web zone=a"),
            ..Default::default()
        };
        assert!(selector.matches(&labels("role=web zone=a rack=7")));
        assert!(!selector.matches(&labels("role=web")));
        assert!(!selector.matches(&labels("role=web zone=b")));
        assert!(Selector::default().matches(&labels("")));
    }

    #[test]
    fn operators_follow_kubernetes() {
        use Operator::{DoesNotExist, Exists, In, NotIn};
        let table = [
            (In, &["web", "db"][..], "role=db", true),
            (In, &["web"], "role=db", false),
            (In, &["web"], "", false),
            (NotIn, &["web"], "role=db", true),
            (NotIn, &["web"], "role=web", false),
            (NotIn, &["web"], "", true),
            (Exists, &[], "role=x", true),
            (Exists, &[], "", false),
            (DoesNotExist, &[], "", true),
            (DoesNotExist, &[], "role=x", false),
        ];
        for (operator, values, host, expected) in table {
            let selector = Selector {
                match_expressions: vec![requirement("role", operator, values)],
                ..Default::default()
            };
            assert_eq!(
                selector.matches(&labels(host)),
                expected,
                "{operator:?} {values:?} {host}"
            );
            assert!(selector.faults().is_empty());
        }
    }

    #[test]
    fn values_fit_the_operator() {
        for (operator, values) in [(Operator::In, &[][..]), (Operator::Exists, &["x"])] {
            let selector = Selector {
                match_expressions: vec![requirement("role", operator, values)],
                ..Default::default()
            };
            assert_eq!(selector.faults().len(), 1, "{operator:?}");
        }
    }
}
