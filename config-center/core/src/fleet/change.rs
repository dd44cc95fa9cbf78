//! What a change of objects means: which objects, which hosts, and whether it looks like a mistake.

use std::{collections::BTreeMap, fmt};

use schemas::objects::{Name, Object, ObjectId};
use serde::Serialize;

use super::{
    diff::{BlastRadius, HostChange, diff, rows_of_value},
    inventory::Inventory,
    render::{Effective, RenderProblem, effective, render},
    sha256_hex,
};

/// More emptied hosts than this, and more than one in five, need to be asked for.
const EMPTIED_UNASKED: usize = 3;

/// One object that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectDiff {
    pub id: ObjectId,
    pub before: Option<Object>,
    pub after: Option<Object>,
}

impl ObjectDiff {
    pub fn word(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "created",
            (_, None) => "deleted",
            _ => "changed",
        }
    }
}

/// The document of one host, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// Absent: the objects said nothing about this host.
    pub before: Option<String>,
    pub after: Option<String>,
    /// By which the change reaches the host.
    pub policy: Option<Name>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub objects: Vec<ObjectDiff>,
    /// Only hosts whose document differs.
    pub hosts: BTreeMap<Name, Affected>,
    /// Hosts that the objects speak of, before or after.
    pub hosts_known: usize,
    /// Remarks that forbid nothing.
    pub remarks: Vec<String>,
}

/// Too many hosts would stop collecting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{emptied} of {known} hosts would collect nothing afterwards: if that is meant, ask for it \
     with --allow-emptying"
)]
pub struct MassRemoval {
    pub emptied: usize,
    pub known: usize,
}

/// Compares what two inventories say.
pub fn change(before: &Inventory, after: &Inventory) -> Result<Change, Vec<RenderProblem>> {
    let rendered = render(after)?;
    // What is in the store may contradict itself when keys were written by hand; then this change
    // is what mends it, and it counts for every host that could not be rendered.
    let old = |host: &Name| effective(before, host).ok();
    let before_names = before.host_names();
    let mut names: Vec<&Name> = rendered.hosts.keys().chain(&before_names).collect();
    names.sort();
    names.dedup();
    let mut change = Change {
        objects: object_diffs(before, after),
        hosts_known: names.len(),
        ..Default::default()
    };
    for host in names {
        let was = old(host).filter(|_| before_names.contains(host));
        let is = rendered.hosts.get(host);
        let documents = (
            was.as_ref().map(Effective::document),
            is.map(Effective::document),
        );
        if documents.0 != documents.1 {
            let policy = is
                .or(was.as_ref())
                .and_then(|effective| effective.policy.clone());
            let affected = Affected {
                before: documents.0,
                after: documents.1,
                policy,
            };
            change.hosts.insert(host.clone(), affected);
        }
        for path in is.map_or(&[][..], |effective| &effective.idle_excludes) {
            change.remarks.push(format!(
                "Host/{host} excludes {path}, which no group collects"
            ));
        }
    }
    Ok(change)
}

fn object_diffs(before: &Inventory, after: &Inventory) -> Vec<ObjectDiff> {
    let mut ids: Vec<&ObjectId> = before
        .objects()
        .chain(after.objects())
        .map(|(id, _)| id)
        .collect();
    ids.sort();
    ids.dedup();
    let object = |inventory: &Inventory, id: &ObjectId| {
        inventory.get(id).map(|loaded| loaded.object.clone())
    };
    ids.into_iter()
        .map(|id| ObjectDiff {
            id: id.clone(),
            before: object(before, id),
            after: object(after, id),
        })
        .filter(|diff| diff.before != diff.after)
        .collect()
}

impl Affected {
    /// What changes, entry by entry.
    pub fn host_change(&self, host: &Name) -> HostChange {
        let rows = |text: &Option<String>| {
            rows_of_value(text.as_deref().map(str::as_bytes)).unwrap_or_default()
        };
        let (before, after) = (rows(&self.before), rows(&self.after));
        HostChange {
            host: host.to_string(),
            changes: diff(&before, &after),
            is_emptied: !before.is_empty() && after.is_empty(),
        }
    }

    pub fn sha256_after(&self) -> Option<String> {
        self.after.as_ref().map(|text| sha256_hex(text.as_bytes()))
    }
}

impl Change {
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn host_changes(&self) -> Vec<HostChange> {
        self.hosts
            .iter()
            .map(|(host, affected)| affected.host_change(host))
            .collect()
    }

    pub fn radius(&self) -> BlastRadius {
        BlastRadius::of(&self.host_changes())
    }

    /// Deleting one group by mistake must not stop the collection of a whole fleet.
    pub fn guard(&self) -> Result<(), MassRemoval> {
        let emptied = self.radius().emptied;
        if emptied > EMPTIED_UNASKED && emptied * 5 > self.hosts_known {
            return Err(MassRemoval {
                emptied,
                known: self.hosts_known,
            });
        }
        Ok(())
    }
}

/// One line per object, as `diff -f` prints it.
impl fmt::Display for ObjectDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id, self.word())
    }
}

impl Serialize for ObjectDiff {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut fields = serializer.serialize_struct("ObjectDiff", 4)?;
        fields.serialize_field("object", &self.id.to_string())?;
        fields.serialize_field("change", self.word())?;
        fields.serialize_field("before", &self.before)?;
        fields.serialize_field("after", &self.after)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::inventory::load;

    fn inventory(text: &str) -> Inventory {
        let loading = load("f.yaml", text);
        assert_eq!(loading.problems, []);
        Inventory::new(loading.objects).unwrap()
    }

    fn group(members: &str, logs: &str) -> String {
        format!(
            "apiVersion: logconf/v1\nkind: Group\nmetadata: {{name: g}}\nspec: {{members: [{members}], logs: [{logs}]}}\n"
        )
    }

    #[test]
    fn only_affected_hosts_are_in_a_change() {
        let before = inventory(&group("a, b", "{path: /x, topic: t}"));
        let after = inventory(&group("b, c", "{path: /x, topic: t}"));
        let change = change(&before, &after).unwrap();
        let hosts: Vec<&str> = change.hosts.keys().map(Name::as_str).collect();
        assert_eq!(hosts, ["a", "c"]);
        assert_eq!(change.hosts[&Name::new("a").unwrap()].after, None);
        assert_eq!(
            change.radius().to_string(),
            "2 hosts · +1 path · -1 path · 1 host would collect nothing"
        );
        assert_eq!(
            change
                .objects
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["Group/g changed"]
        );
    }

    #[test]
    fn the_same_again_is_no_change() {
        let fleet = inventory(&group("a, b", "{path: /x, topic: t}"));
        let nothing = change(&fleet, &fleet).unwrap();
        assert!(nothing.is_empty() && nothing.hosts.is_empty());
        assert_eq!(nothing.hosts_known, 2);
    }

    #[test]
    fn emptying_many_hosts_must_be_asked_for() {
        let members = "h1, h2, h3, h4, h5";
        let before = inventory(&group(members, "{path: /x, topic: t}"));
        let emptied = change(&before, &inventory(&group(members, ""))).unwrap();
        assert_eq!(
            emptied.guard(),
            Err(MassRemoval {
                emptied: 5,
                known: 5
            })
        );
        let gone = change(&before, &Inventory::default()).unwrap();
        assert!(gone.guard().is_err());
        let some = change(
            &before,
            &inventory(&group("h1, h2", "{path: /x, topic: t}")),
        )
        .unwrap();
        assert_eq!(some.guard(), Ok(()));
    }
}
