//! The contract's example, the rules one by one, and properties over random fleets.

use proptest::prelude::*;
use schemas::objects::{Group, Host, LabelKey, LabelValue, LogSet, Object, Selector, Topic};

use super::*;
use crate::fleet::inventory::{Origin, load};

const CONTRACT: &str = include_str!("../../../tests/fleet-corpus/accept/contract.yaml");

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn inventory(text: &str) -> Inventory {
    let loading = load("fleet.yaml", text);
    assert_eq!(loading.problems, []);
    Inventory::new(loading.objects).unwrap()
}

fn document(inventory: &Inventory, host: &str) -> String {
    effective(inventory, &name(host)).unwrap().document()
}

#[test]
fn the_contracts_example() {
    let fleet = inventory(CONTRACT);
    let rendered = render(&fleet).unwrap();
    assert_eq!(
        rendered.hosts[&name("192.168.56.20")].document(),
        r#"[{"path":"/var/log/nginx/access.log","topic":"nginx_log"},{"path":"/var/log/nginx/error.log","topic":"nginx_log_err"}]"#
    );
    let canary = &rendered.hosts[&name("192.168.56.1")];
    assert_eq!(
        canary.document(),
        r#"[{"path":"/var/log/nginx/access.log","topic":"nginx_log_canary"}]"#
    );
    assert_eq!(canary.policy, Some(name("prod-safe")));
    let access = &canary.stories[0];
    let told: Vec<String> = access
        .claims
        .iter()
        .map(|claim| claim.origin.to_string())
        .collect();
    assert_eq!(
        told,
        [
            "Host/192.168.56.1 (fleet.yaml:18:11)",
            "Group/web-prod → LogSet/nginx (fleet.yaml:6:7)"
        ]
    );
    assert_eq!(
        canary.stories[1].verdict,
        Verdict::Excluded {
            by: "Host/192.168.56.1 (fleet.yaml:19:14)".into()
        }
    );
}

fn two_groups(first: (i32, &str), second: (i32, &str)) -> String {
    let group = |name: &str, (priority, topic): (i32, &str)| {
        format!(
            "---\napiVersion: logconf/v1\nkind: Group\nmetadata: {{name: {name}}}\nspec:\n  \
             priority: {priority}\n  members: [h]\n  logs: [{{path: /a, topic: {topic}}}]\n"
        )
    };
    group("one", first) + &group("two", second)
}

#[test]
fn the_higher_priority_wins() {
    for (first, second) in [((2, "x"), (1, "y")), ((1, "y"), (2, "x"))] {
        let fleet = inventory(&two_groups(first, second));
        assert_eq!(document(&fleet, "h"), r#"[{"path":"/a","topic":"x"}]"#);
    }
}

#[test]
fn equal_priorities_must_agree() {
    assert_eq!(
        document(&inventory(&two_groups((1, "x"), (1, "x"))), "h"),
        r#"[{"path":"/a","topic":"x"}]"#
    );
    let problems = render(&inventory(&two_groups((1, "x"), (1, "y")))).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "/a → x by Group/one (fleet.yaml:8:10) and → y by Group/two (fleet.yaml:16:10) with another \
          topic, both at priority 1, on h: give one group a higher priority, or decide for the host"
        ]
    );
}

#[test]
fn a_host_decides_what_its_groups_cannot() {
    let host = "---\napiVersion: logconf/v1\nkind: Host\nmetadata: {name: h}\nspec: {logs: [{path: /a, topic: z}]}\n";
    let fleet = inventory(&(two_groups((1, "x"), (1, "y")) + host));
    assert_eq!(document(&fleet, "h"), r#"[{"path":"/a","topic":"z"}]"#);
    let exclude =
        "---\napiVersion: logconf/v1\nkind: Host\nmetadata: {name: h}\nspec: {exclude: [/a, /b]}\n";
    let fleet = inventory(&(two_groups((1, "x"), (1, "y")) + exclude));
    assert_eq!(document(&fleet, "h"), "[]");
    let told = effective(&fleet, &name("h")).unwrap();
    assert_eq!(told.idle_excludes, [LogPath::new("/b").unwrap()]);
}

#[test]
fn one_conflict_of_many_hosts_is_told_once() {
    let fleet = two_groups((1, "x"), (1, "y")).replace("[h]", "[h1, h2, h3, h4, h5]");
    let problems = render(&inventory(&fleet)).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].to_string().contains("on h1, h2, h3 and 2 more"),
        "{}",
        problems[0]
    );
}

#[test]
fn a_path_may_go_to_two_topics_and_is_won_as_a_whole() {
    let text = "apiVersion: logconf/v1\nkind: Group\nmetadata: {name: g}\nspec:\n  members: [h, i]\n  \
                logs: [{path: /a, topic: y}, {path: /a, topic: x}]\n---\n\
                apiVersion: logconf/v1\nkind: Host\nmetadata: {name: i}\nspec: {logs: [{path: /a, topic: z}]}\n";
    let fleet = inventory(text);
    assert_eq!(
        document(&fleet, "h"),
        r#"[{"path":"/a","topic":"x"},{"path":"/a","topic":"y"}]"#
    );
    assert_eq!(document(&fleet, "i"), r#"[{"path":"/a","topic":"z"}]"#);
}

#[test]
fn options_are_written_only_when_set() {
    let text = "apiVersion: logconf/v1\nkind: Host\nmetadata: {name: h}\nspec:\n  logs:\n  - path: /a\n    \
                topic: t\n    from: end\n    multiline: {start: '^\\d', max_lines: 10}\n    rate: {lines_per_s: 5}\n";
    assert_eq!(
        document(&inventory(text), "h"),
        r#"[{"path":"/a","topic":"t","from":"end","multiline":{"start":"^\\d","max_lines":10},"rate":{"lines_per_s":5}}]"#
    );
}

/// A small random fleet: few names, so that things meet.
fn fleets() -> impl Strategy<Value = Vec<Object>> {
    let logs = || {
        prop::collection::btree_set(("/[a-c]", "[xy]"), 0..3).prop_map(|pairs| {
            let log = |(path, topic): (String, String)| {
                Log::new(LogPath::new(path).unwrap(), Topic::new(topic).unwrap())
            };
            pairs.into_iter().map(log).collect::<Vec<_>>()
        })
    };
    let sets = prop::collection::btree_map("s[1-2]", logs(), 2..3);
    let groups = prop::collection::btree_map(
        "g[1-4]",
        (
            logs(),
            0..3i32,
            prop::collection::btree_set("h[1-3]", 0..3),
            any::<bool>(),
            prop::option::of("[ab]"),
        ),
        0..4,
    );
    let hosts =
        prop::collection::btree_map("h[1-3]", (logs(), "[ab]", prop::option::of("/[a-c]")), 0..3);
    (sets, groups, hosts).prop_map(|(sets, groups, hosts)| {
        let mut objects = Vec::new();
        let sets_there: Vec<Name> = sets.keys().map(|set| name(set)).collect();
        for (set, logs) in sets {
            let mut object = LogSet::new(name(&set), Default::default());
            object.spec.logs = logs;
            objects.push(Object::LogSet(object));
        }
        for (group, (logs, priority, members, uses, label)) in groups {
            let mut object = Group::new(name(&group), Default::default());
            object.spec.logs = logs;
            object.spec.priority = priority;
            object.spec.members = members.iter().map(|member| name(member)).collect();
            object.spec.uses = if uses {
                sets_there[..1].to_vec()
            } else {
                Vec::new()
            };
            object.spec.selector = label.map(|label| Selector {
                match_labels: [(LabelKey::new("l").unwrap(), LabelValue::new(label).unwrap())]
                    .into(),
                ..Default::default()
            });
            objects.push(Object::Group(object));
        }
        for (host, (logs, label, exclude)) in hosts {
            let mut object = Host::new(name(&host), Default::default());
            object
                .metadata
                .labels
                .insert(LabelKey::new("l").unwrap(), LabelValue::new(label).unwrap());
            let exclude = exclude.map(|path| LogPath::new(path).unwrap());
            object.spec.exclude = exclude
                .into_iter()
                .filter(|path| logs.iter().all(|log| log.path != *path))
                .collect();
            object.spec.logs = logs;
            objects.push(Object::Host(object));
        }
        objects
    })
}

fn stored(objects: &[Object]) -> Inventory {
    let load = |object: &Object| Loaded {
        object: object.clone(),
        origin: Origin::Store { revision: 1 },
    };
    Inventory::new(objects.iter().map(load)).unwrap()
}

/// The rules once more, as plainly as they can be said: per host and path, ask every group.
fn naive(objects: &[Object], host: &str) -> Result<Vec<(String, String)>, String> {
    let hosts: Vec<&Host> = objects
        .iter()
        .filter_map(|o| match o {
            Object::Host(h) => Some(h),
            _ => None,
        })
        .collect();
    let sets: Vec<&LogSet> = objects
        .iter()
        .filter_map(|o| match o {
            Object::LogSet(s) => Some(s),
            _ => None,
        })
        .collect();
    let own = hosts
        .iter()
        .find(|object| object.metadata.name.as_str() == host);
    let mut entries = Vec::new();
    for path in ["/a", "/b", "/c"] {
        let of = |logs: &[Log]| {
            let mut topics: Vec<String> = logs
                .iter()
                .filter(|log| log.path.as_str() == path)
                .map(|log| log.topic.to_string())
                .collect();
            topics.sort();
            topics
        };
        let mine = own.map(|own| of(&own.spec.logs)).unwrap_or_default();
        if own.is_some_and(|own| {
            own.spec
                .exclude
                .iter()
                .any(|excluded| excluded.as_str() == path)
        }) {
            continue;
        }
        let mut best: Option<(i32, Vec<String>)> = None;
        if mine.is_empty() {
            let mut said: Vec<(i32, Vec<String>)> = Vec::new();
            for object in objects {
                let Object::Group(group) = object else {
                    continue;
                };
                let by_label = group.spec.selector.as_ref().is_some_and(|selector| {
                    let none = Default::default();
                    selector.matches(own.map_or(&none, |own| &own.metadata.labels))
                });
                if !by_label
                    && !group
                        .spec
                        .members
                        .iter()
                        .any(|member| member.as_str() == host)
                {
                    continue;
                }
                said.push((group.spec.priority, of(&group.spec.logs)));
                for uses in &group.spec.uses {
                    let set = sets.iter().find(|set| set.metadata.name == *uses).unwrap();
                    said.push((group.spec.priority, of(&set.spec.logs)));
                }
            }
            said.retain(|(_, topics)| !topics.is_empty());
            let highest = said.iter().map(|(priority, _)| *priority).max();
            let top: Vec<_> = said
                .into_iter()
                .filter(|(priority, _)| Some(*priority) == highest)
                .collect();
            if top.iter().any(|(_, topics)| *topics != top[0].1) {
                return Err(path.into());
            }
            best = top.into_iter().next();
        }
        let topics = if mine.is_empty() {
            best.map(|(_, topics)| topics).unwrap_or_default()
        } else {
            mine
        };
        entries.extend(topics.into_iter().map(|topic| (path.to_owned(), topic)));
    }
    Ok(entries)
}

/// Compares with the naive rules; the error tells the first difference.
fn compare(objects: &[Object]) -> Result<(), String> {
    let inventory = stored(objects);
    for host in inventory.host_names() {
        let got = effective(&inventory, &host).map(|effective| {
            effective
                .logs()
                .map(|log| (log.path.to_string(), log.topic.to_string()))
                .collect::<Vec<_>>()
        });
        match (got, naive(objects, host.as_str())) {
            (Ok(got), Ok(expected)) if got == expected => {}
            (Err(conflicts), Err(path)) if conflicts.iter().any(|c| c.path.as_str() == path) => {}
            (got, expected) => return Err(format!("{host}: {got:?} instead of {expected:?}")),
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn rendering_follows_the_rules(objects in fleets()) {
        prop_assert_eq!(compare(&objects), Ok(()));
    }

    #[test]
    fn order_does_not_matter(objects in fleets(), shuffled in any::<prop::sample::Index>()) {
        let mut other = objects.clone();
        other.rotate_left(shuffled.index(objects.len().max(1)));
        other.reverse();
        for object in &mut other {
            match object {
                Object::LogSet(set) => set.spec.logs.reverse(),
                Object::Host(host) => host.spec.logs.reverse(),
                Object::Group(group) => { group.spec.logs.reverse(); group.spec.members.reverse(); }
                Object::RolloutPolicy(_) => {}
            }
        }
        let bytes = |objects: &[Object]| render(&stored(objects)).map(|rendered| {
            rendered.hosts.into_iter().map(|(host, effective)| (host, effective.document(), effective.sha256())).collect::<Vec<_>>()
        }).map_err(|problems| problems.len());
        prop_assert_eq!(bytes(&objects), bytes(&other));
    }
}

#[test]
fn the_comparison_can_fail() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut caught = |bug| {
        (0..2_000).any(|_| {
            let objects = fleets().new_tree(&mut runner).unwrap().current();
            planted::with(bug, || compare(&objects)).is_err()
        })
    };
    assert!(caught(Bug::EqualPriorityFirstWins));
}
