//! The objects by which operators say what a fleet should collect.
//!
//! `LogSet`, `Group`, `Host` and `RolloutPolicy`, as YAML or JSON, strict: an unknown field is an
//! error. Knows the shape and the rules within one object; rules between objects (a group that
//! uses a log set which is not there) are the fleet core's.

mod checked;
mod log;
mod options;
mod policy;
mod selector;

pub use checked::{
    LabelKey, LabelValue, LogPath, MAX_NAME_BYTES, Name, Span, Topic, validate_name,
};
pub use log::Log;
pub use options::{
    ENCODINGS, Format, Multiline, OnLongLine, Rate, StartAt, encoding_fault, headers_fault,
    key_fault, line_limit_fault, line_pattern,
};
pub use policy::{Offline, OnFailure, PolicySpec, Wave, Weekday, Window};
pub use selector::{Operator, Requirement, Selector};

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Priorities of groups lie between its negative and itself.
pub const MAX_PRIORITY: i32 = 1_000_000;

/// The version of the objects' layout.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum ApiVersion {
    #[default]
    #[serde(rename = "logconf/v1")]
    V1,
}

/// The kinds of objects. Their order is the order in which they are listed.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub enum Kind {
    LogSet,
    Group,
    Host,
    RolloutPolicy,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::LogSet, Self::Group, Self::Host, Self::RolloutPolicy];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::LogSet => "LogSet",
            Self::Group => "Group",
            Self::Host => "Host",
            Self::RolloutPolicy => "RolloutPolicy",
        }
    }

    /// The segment of the key under which objects of this kind lie.
    pub fn folder(self) -> &'static str {
        match self {
            Self::LogSet => "logsets",
            Self::Group => "groups",
            Self::Host => "hosts",
            Self::RolloutPolicy => "policies",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which object is meant, such as `Group/web-prod`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId {
    pub kind: Kind,
    pub name: Name,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// `Group/web`, also `group/web` and `groups/web`, as people type it.
impl FromStr for ObjectId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let kinds = Kind::ALL.map(Kind::as_str).join(", ");
            format!("{text:?} names no object: write KIND/NAME, KIND one of {kinds}")
        };
        let (kind, name) = text.split_once('/').ok_or_else(wrong)?;
        let kind = kind.to_lowercase();
        let is_meant = |known: &Kind| {
            kind == known.as_str().to_lowercase()
                || kind == known.folder()
                || kind == known.folder().trim_end_matches('s')
        };
        let kind = Kind::ALL.into_iter().find(is_meant).ok_or_else(wrong)?;
        Ok(Self {
            kind,
            name: Name::new(name)?,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    pub name: Name,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
}

pub type Labels = BTreeMap<LabelKey, LabelValue>;

/// Entries that several groups use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogSetSpec {
    pub logs: Vec<Log>,
}

/// Which hosts belong together, and what they collect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// The higher one wins where two groups name the same path.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// Hosts by their labels. Absent: none; `{}`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Hosts by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Name>,
    /// Log sets.
    #[serde(default, rename = "use", skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<Name>,
    /// Entries of this group alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<Log>,
    /// The rollout policy by which changes reach this group's hosts. Absent: all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Name>,
}

/// What is particular to one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    /// Entries that win over those of any group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<Log>,
    /// Paths that this host does not collect, whichever group asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<LogPath>,
}

macro_rules! object {
    ($name:ident, $kind:ident, $spec:ty) => {
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            #[serde(rename = "apiVersion")]
            pub api_version: ApiVersion,
            pub kind: $kind,
            pub metadata: Metadata,
            pub spec: $spec,
        }

        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
        )]
        #[schemars(inline)]
        pub enum $kind {
            $name,
        }

        impl $name {
            pub fn new(name: Name, spec: $spec) -> Self {
                Self {
                    api_version: ApiVersion::V1,
                    kind: $kind::$name,
                    metadata: Metadata {
                        name,
                        labels: Labels::new(),
                    },
                    spec,
                }
            }
        }
    };
}

object!(LogSet, LogSetKind, LogSetSpec);
object!(Group, GroupKind, GroupSpec);
object!(Host, HostKind, HostSpec);
object!(RolloutPolicy, RolloutPolicyKind, PolicySpec);

/// Any of the objects.
///
/// Reading goes by `kind` (see the fleet core's decoder), so that an error speaks of the kind that
/// was meant and not of all four.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Object {
    LogSet(LogSet),
    Group(Group),
    Host(Host),
    RolloutPolicy(RolloutPolicy),
}

/// A rule that an object breaks: where, as segments of a path into the document, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub place: Vec<Step>,
    pub message: String,
}

/// One step into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Field(&'static str),
    Index(usize),
}

impl Object {
    pub fn kind(&self) -> Kind {
        match self {
            Self::LogSet(_) => Kind::LogSet,
            Self::Group(_) => Kind::Group,
            Self::Host(_) => Kind::Host,
            Self::RolloutPolicy(_) => Kind::RolloutPolicy,
        }
    }

    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::LogSet(object) => &object.metadata,
            Self::Group(object) => &object.metadata,
            Self::Host(object) => &object.metadata,
            Self::RolloutPolicy(object) => &object.metadata,
        }
    }

    pub fn id(&self) -> ObjectId {
        ObjectId {
            kind: self.kind(),
            name: self.metadata().name.clone(),
        }
    }

    /// The object as it is stored: compact JSON, fields in the order of the types.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an object has string keys and finite numbers only")
    }

    /// Every rule that this object breaks by itself.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        match self {
            Self::LogSet(object) => log_faults(&object.spec.logs, &mut faults),
            Self::Group(object) => group_faults(&object.spec, &mut faults),
            Self::Host(object) => host_faults(&object.spec, &mut faults),
            Self::RolloutPolicy(object) => policy_faults(&object.spec, &mut faults),
        }
        faults
    }
}

fn spec_fault(steps: impl IntoIterator<Item = Step>, message: String) -> Fault {
    Fault {
        place: std::iter::once(Step::Field("spec")).chain(steps).collect(),
        message,
    }
}

fn log_faults(logs: &[Log], faults: &mut Vec<Fault>) {
    for (index, log) in logs.iter().enumerate() {
        let at = |field| [Step::Field("logs"), Step::Index(index), Step::Field(field)];
        for (field, message) in log.faults() {
            faults.push(spec_fault(at(field), message));
        }
        let same = |other: &&Log| (&other.path, &other.topic) == (&log.path, &log.topic);
        if logs[..index].iter().any(|other| same(&other)) {
            faults.push(spec_fault(
                at("path"),
                format!("{} → {} is listed twice", log.path, log.topic),
            ));
        }
    }
}

fn twice<'a, T: PartialEq + fmt::Display>(
    field: &'static str,
    items: &'a [T],
) -> impl Iterator<Item = Fault> + 'a {
    let repeated = move |(index, item): (usize, &'a T)| {
        items[..index].contains(item).then(|| {
            spec_fault(
                [Step::Field(field), Step::Index(index)],
                format!("{item} is listed twice"),
            )
        })
    };
    items.iter().enumerate().filter_map(repeated)
}

fn group_faults(spec: &GroupSpec, faults: &mut Vec<Fault>) {
    log_faults(&spec.logs, faults);
    faults.extend(twice("members", &spec.members));
    faults.extend(twice("use", &spec.uses));
    if !(-MAX_PRIORITY..=MAX_PRIORITY).contains(&spec.priority) {
        faults.push(spec_fault(
            [Step::Field("priority")],
            format!("priority goes from -{MAX_PRIORITY} to {MAX_PRIORITY}"),
        ));
    }
    for (index, message) in spec.selector.iter().flat_map(Selector::faults) {
        faults.push(spec_fault(
            [
                Step::Field("selector"),
                Step::Field("matchExpressions"),
                Step::Index(index),
            ],
            message,
        ));
    }
}

fn host_faults(spec: &HostSpec, faults: &mut Vec<Fault>) {
    log_faults(&spec.logs, faults);
    faults.extend(twice("exclude", &spec.exclude));
    for (index, path) in spec.exclude.iter().enumerate() {
        if spec.logs.iter().any(|log| log.path == *path) {
            faults.push(spec_fault(
                [Step::Field("exclude"), Step::Index(index)],
                format!("{path} is both excluded and listed under logs: keep one of them"),
            ));
        }
    }
}

fn policy_faults(spec: &PolicySpec, faults: &mut Vec<Fault>) {
    for (field, index, message) in spec.faults() {
        let steps = std::iter::once(Step::Field(field)).chain(index.map(Step::Index));
        faults.push(spec_fault(steps, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_people_type_them() {
        for text in ["Group/web", "group/web", "groups/web"] {
            assert_eq!(
                text.parse::<ObjectId>().map(|id| id.to_string()),
                Ok("Group/web".into())
            );
        }
        assert_eq!(
            "logset/x".parse::<ObjectId>().map(|id| id.kind),
            Ok(Kind::LogSet)
        );
        assert_eq!(
            "policies/x".parse::<ObjectId>().map(|id| id.kind),
            Ok(Kind::RolloutPolicy)
        );
        for bad in ["web", "Pod/web", "Host/a b", "Host/"] {
            assert!(bad.parse::<ObjectId>().is_err(), "{bad}");
        }
    }
}
