//! The objects of a fleet, each with the place it was read from, and the rules between them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use schemas::objects::{
    Fault, Group, Host, Kind, LogSet, Name, Object, ObjectId, RolloutPolicy, Step,
};
use serde::de::DeserializeOwned;

use super::{
    decode::{DecodeError, Head, decode, suggestion},
    source::{Node, Place, Value, read},
};

/// Where an object comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    File {
        file: Arc<str>,
        root: Arc<Node>,
    },
    /// In the store since this revision.
    Store {
        revision: i64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub object: Object,
    pub origin: Origin,
}

/// Something wrong, and where; in one line as compilers write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `web.yaml:7:9`, or the object in the store.
    pub at: String,
    pub object: Option<ObjectId>,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.object {
            Some(object) => write!(f, "{}: {object}: {}", self.at, self.message),
            None => write!(f, "{}: {}", self.at, self.message),
        }
    }
}

/// What a text held: the good objects, and what is wrong with the others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loading {
    pub objects: Vec<Loaded>,
    pub problems: Vec<Problem>,
}

/// Reads the objects of one file.
pub fn load(file: &str, text: &str) -> Loading {
    let mut loading = Loading::default();
    let documents = match read(text) {
        Ok(documents) => documents,
        Err(error) => {
            loading
                .problems
                .push(problem(file, error.place, None, error.message));
            return loading;
        }
    };
    let file: Arc<str> = file.into();
    for root in documents {
        // `kubectl get -o yaml` habits: a list of objects is as good as several documents.
        let roots = match root.value {
            Value::List(items) => items,
            _ => vec![root],
        };
        for root in roots {
            load_one(&file, root, &mut loading);
        }
    }
    loading
}

fn load_one(file: &Arc<str>, root: Node, loading: &mut Loading) {
    match object(&root) {
        Ok(object) => {
            let loaded = Loaded {
                object,
                origin: Origin::File {
                    file: file.clone(),
                    root: Arc::new(root),
                },
            };
            loading.problems.extend(loaded.faults());
            loading.objects.push(loaded);
        }
        Err(error) => {
            let message = error.to_string();
            loading
                .problems
                .push(problem(file, error.place, named(&root), message));
        }
    }
}

/// Reads an object as it lies in the store. Objects are checked before they are stored, so a
/// problem here means that somebody wrote the key by hand.
pub fn load_stored(key: &str, revision: i64, value: &[u8]) -> Result<Loaded, Problem> {
    let at = format!("{key} at revision {revision}");
    let text = std::str::from_utf8(value).map_err(|_| Problem {
        at: at.clone(),
        object: None,
        message: "the value is not UTF-8 text".into(),
    })?;
    let mut loading = load(&at, text);
    if let Some(problem) = loading.problems.pop() {
        return Err(problem);
    }
    match (loading.objects.pop(), loading.objects.is_empty()) {
        (Some(loaded), true) => Ok(Loaded {
            object: loaded.object,
            origin: Origin::Store { revision },
        }),
        _ => Err(Problem {
            at,
            object: None,
            message: "the value is not one object".into(),
        }),
    }
}

fn problem(file: &str, place: Place, object: Option<ObjectId>, message: String) -> Problem {
    let at = if place == Place::default() {
        file.to_owned()
    } else {
        format!("{file}:{place}")
    };
    Problem {
        at,
        object,
        message,
    }
}

/// The object that a broken document was probably meant to be.
fn named(root: &Node) -> Option<ObjectId> {
    let text = |node: &Node| match &node.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    let kind = text(root.field("kind")?)?;
    let name = text(root.field("metadata")?.field("name")?)?;
    Some(ObjectId {
        kind: Kind::ALL.into_iter().find(|known| known.as_str() == kind)?,
        name: Name::new(name).ok()?,
    })
}

fn object(root: &Node) -> Result<Object, DecodeError> {
    let names = Kind::ALL.map(Kind::as_str);
    let fail = |place: Place, message: String| Err(DecodeError::placed(place, message));
    if !matches!(root.value, Value::Map(_)) {
        return fail(
            root.place,
            "this is no object: write apiVersion, kind, metadata and spec".into(),
        );
    }
    let head: Head = decode(root)?;
    let place = |field| root.field(field).map_or(root.place, |node| node.place);
    match head.api_version.as_ref().map(|version| version.as_str()) {
        Some(Some("logconf/v1")) => {}
        Some(found) => {
            let found = found.unwrap_or("something else than text");
            let message = format!("apiVersion is {found:?}: this program reads logconf/v1");
            return fail(place("apiVersion"), message);
        }
        None => return fail(root.place, "apiVersion is missing: write logconf/v1".into()),
    }
    match head
        .kind
        .as_ref()
        .map(|kind| kind.as_str().unwrap_or_default())
    {
        Some("LogSet") => typed::<LogSet>(root).map(Object::LogSet),
        Some("Group") => typed::<Group>(root).map(Object::Group),
        Some("Host") => typed::<Host>(root).map(Object::Host),
        Some("RolloutPolicy") => typed::<RolloutPolicy>(root).map(Object::RolloutPolicy),
        Some(other) => fail(
            place("kind"),
            format!("kind {other:?} is not known: {}", suggestion(other, &names)),
        ),
        None => fail(
            root.place,
            format!("kind is missing: write one of {}", names.join(", ")),
        ),
    }
}

fn typed<T: DeserializeOwned>(root: &Node) -> Result<T, DecodeError> {
    decode(root)
}

impl Loaded {
    /// Where a part of the object is written, for messages.
    pub fn location(&self, steps: &[Step]) -> String {
        match &self.origin {
            Origin::File { file, root } => format!("{file}:{}", place_of(root, steps)),
            Origin::Store { revision } => {
                format!("{} in the store, revision {revision}", self.object.id())
            }
        }
    }

    /// The revision in the store, for an object that comes from there.
    pub fn store_revision(&self) -> Option<i64> {
        match self.origin {
            Origin::File { .. } => None,
            Origin::Store { revision } => Some(revision),
        }
    }

    fn faults(&self) -> Vec<Problem> {
        let told = |fault: Fault| self.problem(&fault.place, fault.message);
        self.object.faults().into_iter().map(told).collect()
    }

    fn problem(&self, steps: &[Step], message: String) -> Problem {
        let id = self.object.id();
        Problem {
            at: self.location(steps),
            object: Some(id),
            message,
        }
    }
}

/// The deepest node on the way that exists: a missing field is reported where it would be.
fn place_of(root: &Node, steps: &[Step]) -> Place {
    let mut node = root;
    for step in steps {
        let next = match step {
            Step::Field(name) => node.field(name),
            Step::Index(index) => node.item(*index),
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node.place
}

/// All objects of a fleet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    objects: BTreeMap<ObjectId, Loaded>,
}

impl Inventory {
    /// Objects that name each other as they should, or every problem there is.
    pub fn new(objects: impl IntoIterator<Item = Loaded>) -> Result<Self, Vec<Problem>> {
        let mut inventory = Self::default();
        let mut problems = Vec::new();
        for loaded in objects {
            let id = loaded.object.id();
            if let Some(first) = inventory.objects.get(&id) {
                let message = format!("is written twice, first at {}", first.location(&[]));
                problems.push(loaded.problem(&[], message));
            } else {
                inventory.objects.insert(id, loaded);
            }
        }
        problems.extend(inventory.dangling());
        if problems.is_empty() {
            Ok(inventory)
        } else {
            Err(problems)
        }
    }

    /// Objects as they are: what is in a store may have been written by hand, and a check belongs
    /// to what is about to be written.
    pub fn unchecked(objects: impl IntoIterator<Item = Loaded>) -> Self {
        let objects = objects
            .into_iter()
            .map(|loaded| (loaded.object.id(), loaded));
        Self {
            objects: objects.collect(),
        }
    }

    /// This inventory with some objects put in or replaced and others taken away.
    pub fn changed(
        &self,
        put: impl IntoIterator<Item = Loaded>,
        deleted: &[ObjectId],
    ) -> Result<Self, Vec<Problem>> {
        let mut objects = self.objects.clone();
        for id in deleted {
            objects.remove(id);
        }
        let mut given = BTreeMap::new();
        let mut problems = Vec::new();
        for loaded in put {
            let id = loaded.object.id();
            if let Some(first) = given.insert(id.clone(), loaded.location(&[])) {
                problems.push(loaded.problem(&[], format!("is written twice, first at {first}")));
            }
            objects.insert(id, loaded);
        }
        let inventory = Self { objects };
        problems.extend(inventory.dangling());
        if problems.is_empty() {
            Ok(inventory)
        } else {
            Err(problems)
        }
    }

    pub fn get(&self, id: &ObjectId) -> Option<&Loaded> {
        self.objects.get(id)
    }

    pub fn objects(&self) -> impl Iterator<Item = (&ObjectId, &Loaded)> {
        self.objects.iter()
    }

    pub fn log_set(&self, name: &Name) -> Option<(&LogSet, &Loaded)> {
        let loaded = self.of(Kind::LogSet, name)?;
        match &loaded.object {
            Object::LogSet(set) => Some((set, loaded)),
            _ => None,
        }
    }

    pub fn policy(&self, name: &Name) -> Option<&RolloutPolicy> {
        match &self.of(Kind::RolloutPolicy, name)?.object {
            Object::RolloutPolicy(policy) => Some(policy),
            _ => None,
        }
    }

    pub fn host(&self, name: &Name) -> Option<(&Host, &Loaded)> {
        let loaded = self.of(Kind::Host, name)?;
        match &loaded.object {
            Object::Host(host) => Some((host, loaded)),
            _ => None,
        }
    }

    pub fn groups(&self) -> impl Iterator<Item = (&Group, &Loaded)> {
        self.objects
            .values()
            .filter_map(|loaded| match &loaded.object {
                Object::Group(group) => Some((group, loaded)),
                _ => None,
            })
    }

    /// Every host that the objects speak of: declared ones and members of groups.
    pub fn host_names(&self) -> Vec<Name> {
        let declared = self.objects.keys().filter(|id| id.kind == Kind::Host);
        let members = self.groups().flat_map(|(group, _)| &group.spec.members);
        let mut names: Vec<Name> = declared
            .map(|id| &id.name)
            .chain(members)
            .cloned()
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn of(&self, kind: Kind, name: &Name) -> Option<&Loaded> {
        self.objects.get(&ObjectId {
            kind,
            name: name.clone(),
        })
    }

    /// Names that lead nowhere.
    fn dangling(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (group, loaded) in self.groups() {
            let uses = group.spec.uses.iter().enumerate().map(|(index, name)| {
                (
                    Kind::LogSet,
                    name,
                    vec![Step::Field("spec"), Step::Field("use"), Step::Index(index)],
                )
            });
            let rollout = group.spec.rollout.iter().map(|name| {
                (
                    Kind::RolloutPolicy,
                    name,
                    vec![Step::Field("spec"), Step::Field("rollout")],
                )
            });
            for (kind, name, steps) in uses.chain(rollout) {
                if self.of(kind, name).is_none() {
                    let known: Vec<&str> = self
                        .objects
                        .keys()
                        .filter(|id| id.kind == kind)
                        .map(|id| id.name.as_str())
                        .collect();
                    let message = match known[..] {
                        [] => format!("there is no {kind} {name}"),
                        _ => {
                            let hint = suggestion(name.as_str(), &known);
                            format!("there is no {kind} {name}: {hint}")
                        }
                    };
                    problems.push(loaded.problem(&steps, message));
                }
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let loading = load("f.yaml", text);
        let mut problems = loading.problems;
        problems.extend(Inventory::new(loading.objects).err().unwrap_or_default());
        problems.iter().map(Problem::to_string).collect()
    }

    const SET: &str = "apiVersion: logconf/v1\nkind: LogSet\nmetadata: {name: nginx}\n";

    #[test]
    fn problems_are_written_like_a_compilers() {
        let table = [
            (
                format!("{SET}spec:\n  logs:\n    - path: /a\n      tpoic: t\n"),
                "f.yaml:7:7: LogSet/nginx: spec.logs[0]: unknown field \"tpoic\": did you mean \"topic\"?",
            ),
            (
                format!("{SET}spec:\n  logs:\n    - {{path: a/b, topic: t}}\n"),
                "f.yaml:6:14: LogSet/nginx: spec.logs[0].path: path \"a/b\" is not absolute: an agent on \
                 Linux needs a path that begins with /",
            ),
            (
                format!(
                    "{SET}spec:\n  logs:\n    - {{path: /a, topic: t}}\n    - {{path: /a, topic: t}}\n"
                ),
                "f.yaml:7:14: LogSet/nginx: /a → t is listed twice",
            ),
            (
                format!("{SET}spec: {{logs: [{{path: /a, topic: t, max_line_bytes: 3}}]}}\n"),
                "f.yaml:4:52: LogSet/nginx: max_line_bytes is 3: write a number from 16 to 921600",
            ),
            (
                "kind: LogSet\n".into(),
                "f.yaml:1:1: apiVersion is missing: write logconf/v1",
            ),
            (
                "apiVersion: v1\nkind: LogSet\n".into(),
                "f.yaml:1:13: apiVersion is \"v1\": this program reads logconf/v1",
            ),
            (
                "apiVersion: logconf/v1\nkind: Logset\n".into(),
                "f.yaml:2:7: kind \"Logset\" is not known: did you mean \"LogSet\"?",
            ),
            (
                format!("{SET}specs: {{}}\n"),
                "f.yaml:4:1: LogSet/nginx: unknown field \"specs\": did you mean \"spec\"?",
            ),
            (
                "apiVersion: logconf/v1\nkind: Group\nmetadata: {name: g}\nspec: {use: [ngnix]}\n"
                    .into(),
                "f.yaml:4:14: Group/g: there is no LogSet ngnix",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(problems(&text), [expected], "{text}");
        }
    }

    #[test]
    fn names_that_lead_nowhere_suggest_what_is_there() {
        let set = format!("{SET}spec: {{logs: []}}\n");
        let group =
            "---\napiVersion: logconf/v1\nkind: Group\nmetadata: {name: g}\nspec: {use: [ngnix]}\n";
        assert_eq!(
            problems(&format!("{set}{group}")),
            ["f.yaml:9:14: Group/g: there is no LogSet ngnix: did you mean \"nginx\"?"]
        );
    }

    #[test]
    fn one_bad_document_hides_no_other() {
        let good = format!("{SET}spec: {{logs: []}}\n");
        let text = format!("{good}---\nkind: x\n---\n{good}");
        let loading = load("f.yaml", &text);
        assert_eq!((loading.objects.len(), loading.problems.len()), (2, 1));
        let twice = Inventory::new(loading.objects).unwrap_err();
        assert_eq!(
            twice[0].to_string(),
            "f.yaml:8:1: LogSet/nginx: is written twice, first at f.yaml:1:1"
        );
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let loaded = load(
            "f",
            &format!("{SET}spec: {{logs: [{{path: /a, topic: t}}]}}\n"),
        )
        .objects
        .remove(0);
        let json = loaded.object.to_json();
        assert_eq!(
            json,
            r#"{"apiVersion":"logconf/v1","kind":"LogSet","metadata":{"name":"nginx"},"spec":{"logs":[{"path":"/a","topic":"t"}]}}"#
        );
        let stored = load_stored("/k", 7, json.as_bytes()).unwrap();
        assert_eq!(stored.object, loaded.object);
        assert_eq!(
            stored.location(&[]),
            "LogSet/nginx in the store, revision 7"
        );
        for bad in [&b"\xff"[..], b"", b"{}", b"[]"] {
            assert!(load_stored("/k", 7, bad).is_err(), "{bad:?}");
        }
    }
}
