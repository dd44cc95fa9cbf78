//! What "collect this path" and "stop collecting it" mean for the objects of a fleet.
//!
//! A host's own entries win over those of its groups, path by path, so a host object that takes one
//! path over has to say everything that is to be collected from it. Each edit finds its work done
//! when it is asked for again.

use schemas::objects::{Group, Host, Log, LogPath, Topic};

use super::{
    merge::{Ambiguous, Change, OtherTopic},
    render::Effective,
};

/// Has one host collect a path, beside whatever its groups say.
pub fn push_to_host(
    host: &mut Host,
    effective: Option<&Effective>,
    path: &LogPath,
    topic: &Topic,
    other: OtherTopic,
) -> Result<Change, Ambiguous> {
    let collected: Vec<Log> = effective
        .into_iter()
        .flat_map(Effective::logs)
        .filter(|log| log.path == *path)
        .cloned()
        .collect();
    if collected.iter().any(|log| log.topic == *topic) {
        return Ok(Change::AlreadyThere);
    }
    let (logs, change) = changed(collected, path, topic, other)?;
    host.spec.exclude.retain(|excluded| excluded != path);
    host.spec.logs.retain(|log| log.path != *path);
    host.spec.logs.extend(logs);
    Ok(change)
}

/// Has all hosts of a group collect a path.
pub fn push_to_group(
    group: &mut Group,
    path: &LogPath,
    topic: &Topic,
    other: OtherTopic,
) -> Result<Change, Ambiguous> {
    let is_meant = |log: &Log| log.path == *path;
    let collected: Vec<Log> = group
        .spec
        .logs
        .iter()
        .filter(|log| is_meant(log))
        .cloned()
        .collect();
    if collected.iter().any(|log| log.topic == *topic) {
        return Ok(Change::AlreadyThere);
    }
    let (logs, change) = changed(collected, path, topic, other)?;
    group.spec.logs.retain(|log| !is_meant(log));
    group.spec.logs.extend(logs);
    Ok(change)
}

/// The entries of one path after a push.
fn changed(
    mut there: Vec<Log>,
    path: &LogPath,
    topic: &Topic,
    other: OtherTopic,
) -> Result<(Vec<Log>, Change), Ambiguous> {
    match (&mut there[..], other) {
        // An entry keeps its options when only its topic changes.
        ([only], OtherTopic::Change) => {
            let from = std::mem::replace(&mut only.topic, topic.clone());
            let from = Some(from.to_string());
            Ok((there, Change::TopicChanged { from }))
        }
        ([_, _, ..], OtherTopic::Change) => Err(Ambiguous {
            path: path.to_string(),
            topics: there.iter().map(|log| log.topic.to_string()).collect(),
        }),
        _ => {
            there.push(Log::new(path.clone(), topic.clone()));
            Ok((there, Change::Added))
        }
    }
}

/// Has one host stop collecting a path; the topics that it went to.
pub fn remove_from_host(
    host: &mut Host,
    effective: Option<&Effective>,
    path: &LogPath,
    topic: Option<&Topic>,
) -> Vec<Topic> {
    let collected: Vec<Log> = effective
        .into_iter()
        .flat_map(Effective::logs)
        .filter(|log| log.path == *path)
        .cloned()
        .collect();
    let is_meant = |log: &Log| topic.is_none_or(|topic| log.topic == *topic);
    let removed: Vec<Topic> = collected
        .iter()
        .filter(|log| is_meant(log))
        .map(|log| log.topic.clone())
        .collect();
    if removed.is_empty() {
        return removed;
    }
    host.spec.logs.retain(|log| log.path != *path);
    let rest: Vec<Log> = collected.into_iter().filter(|log| !is_meant(log)).collect();
    if rest.is_empty() {
        // Its groups may still ask for it.
        if !host.spec.exclude.contains(path) {
            host.spec.exclude.push(path.clone());
        }
    } else {
        host.spec.logs.extend(rest);
    }
    removed
}

/// Has a group stop asking for a path; the topics that it went to.
pub fn remove_from_group(group: &mut Group, path: &LogPath, topic: Option<&Topic>) -> Vec<Topic> {
    let is_meant = |log: &Log| log.path == *path && topic.is_none_or(|topic| log.topic == *topic);
    let removed = group
        .spec
        .logs
        .iter()
        .filter(|log| is_meant(log))
        .map(|log| log.topic.clone())
        .collect();
    group.spec.logs.retain(|log| !is_meant(log));
    removed
}

#[cfg(test)]
mod tests {
    use schemas::objects::Name;

    use super::*;
    use crate::fleet::{
        inventory::{Inventory, load},
        render::effective,
    };

    const FLEET: &str = "
apiVersion: logconf/v1
kind: Group
metadata: {name: web}
spec: {members: [h], logs: [{path: /a, topic: t, from: end}, {path: /b, topic: t}]}
---
apiVersion: logconf/v1
kind: Host
metadata: {name: h}
spec: {exclude: [/b]}
";

    fn fleet(text: &str) -> (Inventory, Host, Group) {
        let loading = load("fleet.yaml", text);
        assert!(loading.problems.is_empty(), "{:?}", loading.problems);
        let inventory = Inventory::new(loading.objects).unwrap();
        let host = inventory.host(&Name::new("h").unwrap()).unwrap().0.clone();
        let group = inventory.groups().next().unwrap().0.clone();
        (inventory, host, group)
    }

    /// What the host collects once its object and its group are these.
    fn collects(host: &Host, group: &Group) -> Vec<String> {
        let json = |value: serde_json::Value| value.to_string();
        let text = format!(
            "{}\n---\n{}",
            json(serde_json::to_value(host).unwrap()),
            json(serde_json::to_value(group).unwrap())
        );
        let (inventory, ..) = fleet(&text);
        let effective = effective(&inventory, &host.metadata.name).unwrap();
        effective
            .logs()
            .map(|log| format!("{}>{}", log.path, log.topic))
            .collect()
    }

    fn path(text: &str) -> LogPath {
        LogPath::new(text).unwrap()
    }

    fn topic(text: &str) -> Topic {
        Topic::new(text).unwrap()
    }

    #[test]
    fn a_host_takes_a_path_over() {
        let table = [
            ("/a", "t", OtherTopic::Change, Change::AlreadyThere, "/a>t"),
            (
                "/a",
                "u",
                OtherTopic::Change,
                Change::TopicChanged {
                    from: Some("t".into()),
                },
                "/a>u",
            ),
            ("/a", "u", OtherTopic::KeepBoth, Change::Added, "/a>t /a>u"),
            ("/b", "t", OtherTopic::Change, Change::Added, "/a>t /b>t"),
            ("/c", "t", OtherTopic::Change, Change::Added, "/a>t /c>t"),
        ];
        for (at, to, other, expected, collected) in table {
            let (inventory, mut host, group) = fleet(FLEET);
            let now = effective(&inventory, &host.metadata.name).unwrap();
            let change = push_to_host(&mut host, Some(&now), &path(at), &topic(to), other).unwrap();
            assert_eq!(change, expected, "{at} {to}");
            assert_eq!(collects(&host, &group).join(" "), collected, "{at} {to}");
            if matches!(expected, Change::TopicChanged { .. }) {
                assert!(host.spec.logs[0].from.is_some(), "options stay");
            }
        }
    }

    #[test]
    fn a_host_lets_go_of_a_path() {
        let (inventory, mut host, group) = fleet(FLEET);
        let now = effective(&inventory, &host.metadata.name).unwrap();
        assert!(remove_from_host(&mut host, Some(&now), &path("/b"), None).is_empty());
        assert!(remove_from_host(&mut host, Some(&now), &path("/a"), Some(&topic("x"))).is_empty());
        let removed = remove_from_host(&mut host, Some(&now), &path("/a"), None);
        assert_eq!(removed, [topic("t")]);
        assert!(collects(&host, &group).is_empty());
    }

    #[test]
    fn a_group_changes_for_all_its_hosts() {
        let (_, host, mut group) = fleet(FLEET);
        let push = |group: &mut Group, at, to, other| {
            push_to_group(group, &path(at), &topic(to), other).unwrap()
        };
        assert_eq!(
            push(&mut group, "/a", "t", OtherTopic::Change),
            Change::AlreadyThere
        );
        assert_eq!(
            push(&mut group, "/c", "t", OtherTopic::Change),
            Change::Added
        );
        assert_eq!(
            push(&mut group, "/c", "u", OtherTopic::KeepBoth),
            Change::Added
        );
        assert_eq!(collects(&host, &group), ["/a>t", "/c>t", "/c>u"]);
        let open = push_to_group(&mut group, &path("/c"), &topic("v"), OtherTopic::Change);
        assert_eq!(open.unwrap_err().topics, ["t", "u"]);
        assert_eq!(
            remove_from_group(&mut group, &path("/c"), Some(&topic("t"))),
            [topic("t")]
        );
        assert_eq!(collects(&host, &group), ["/a>t", "/c>u"]);
        assert!(remove_from_group(&mut group, &path("/x"), None).is_empty());
    }
}
