//! What each host collects, and why: precedence by path, with the origin of every entry.
//!
//! ```text
//! /var/log/nginx/access.log   Host/192.168.56.1            nginx_log_canary   wins
//!                             Group/web-prod → LogSet/nginx nginx_log          priority 100, below the host
//! ```
//!
//! A host's own entries win over those of its groups, and a group with a higher priority over one
//! with a lower. What wins a path wins all of it: its entries replace those of the others, also
//! when it sends one file to two topics. Two origins of the same rank that say different things
//! about one path are a conflict, and nobody guesses.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use schemas::objects::{Group, Kind, Log, LogPath, Name, ObjectId, Step};

use super::{
    inventory::{Inventory, Loaded},
    sha256_hex,
};
use crate::planted::{self, Bug};

/// Half of what an agent reads: the fleet layer keeps a copy of what it published, and both are
/// written in one transaction, which stores limit to 1.5 MiB.
pub const MAX_DOCUMENT_BYTES: usize = 512 * 1_024;

/// Who speaks: later is stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Group { priority: i32 },
    Host,
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group { priority } => write!(f, "priority {priority}"),
            Self::Host => f.write_str("the host itself"),
        }
    }
}

/// Where entries for a path are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryOrigin {
    pub rank: Rank,
    /// The object that holds the entry.
    pub object: ObjectId,
    /// The group through which a log set reaches the host.
    pub group: Option<Name>,
    /// File and line, or the object's revision in the store.
    pub location: String,
}

impl fmt::Display for EntryOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "Group/{group} → {} ({})", self.object, self.location),
            None => write!(f, "{} ({})", self.object, self.location),
        }
    }
}

/// What one origin says about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub origin: EntryOrigin,
    /// Ordered by topic.
    pub logs: Vec<Log>,
}

/// How the entries of a path came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The first of `claims` won; others of its rank say the same.
    Collected,
    /// The host excludes the path.
    Excluded { by: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStory {
    pub path: LogPath,
    pub verdict: Verdict,
    /// Strongest first.
    pub claims: Vec<Claim>,
}

/// One host's share of the fleet's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub host: Name,
    /// By path.
    pub stories: Vec<PathStory>,
    /// Groups that the host belongs to, strongest first.
    pub groups: Vec<Name>,
    /// Policy of the strongest group that names one.
    pub policy: Option<Name>,
    /// Excluded paths that no group asks for: a slip of the pen, or left over.
    pub idle_excludes: Vec<LogPath>,
}

/// Two origins of one rank disagree about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub path: LogPath,
    pub rank: Rank,
    pub first: Claim,
    pub second: Claim,
    /// The hosts on which they meet.
    pub hosts: Vec<Name>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HOSTS_NAMED: usize = 3;
        let topics = |claim: &Claim| {
            let topics: Vec<_> = claim.logs.iter().map(|log| log.topic.as_str()).collect();
            topics.join(", ")
        };
        let named: Vec<_> = self
            .hosts
            .iter()
            .take(HOSTS_NAMED)
            .map(Name::as_str)
            .collect();
        let more = match self.hosts.len().saturating_sub(HOSTS_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let difference = if topics(&self.first) == topics(&self.second) {
            "with other options"
        } else {
            "with another topic"
        };
        write!(
            f,
            "{} → {} by {} and → {} by {} {difference}, both at {}, on {}{more}: give one group a \
             higher priority, or decide for the host",
            self.path,
            topics(&self.first),
            self.first.origin,
            topics(&self.second),
            self.second.origin,
            self.rank,
            named.join(", "),
        )
    }
}

/// Every host's share, or why there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    pub hosts: BTreeMap<Name, Effective>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenderProblem {
    Conflict(Box<Conflict>),
    TooLarge { host: Name, bytes: usize },
}

impl fmt::Display for RenderProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(conflict) => conflict.fmt(f),
            Self::TooLarge { host, bytes } => write!(
                f,
                "the document of {host} has {bytes} bytes, more than the {MAX_DOCUMENT_BYTES} allowed: \
                 collect with patterns instead of single paths"
            ),
        }
    }
}

/// Renders all hosts that the inventory speaks of.
pub fn render(inventory: &Inventory) -> Result<Rendered, Vec<RenderProblem>> {
    let mut rendered = Rendered::default();
    let mut conflicts: Vec<Conflict> = Vec::new();
    let mut problems = Vec::new();
    for host in inventory.host_names() {
        match effective(inventory, &host) {
            Ok(effective) => {
                let bytes = effective.document().len();
                if bytes > MAX_DOCUMENT_BYTES {
                    problems.push(RenderProblem::TooLarge {
                        host: host.clone(),
                        bytes,
                    });
                }
                rendered.hosts.insert(host, effective);
            }
            Err(found) => {
                for conflict in found {
                    // One disagreement of two groups is one problem, on however many hosts.
                    let same = conflicts.iter_mut().find(|known| {
                        (&known.path, &known.first.origin, &known.second.origin)
                            == (
                                &conflict.path,
                                &conflict.first.origin,
                                &conflict.second.origin,
                            )
                    });
                    match same {
                        Some(known) => known.hosts.extend(conflict.hosts),
                        None => conflicts.push(conflict),
                    }
                }
            }
        }
    }
    problems.extend(
        conflicts
            .into_iter()
            .map(Box::new)
            .map(RenderProblem::Conflict),
    );
    if problems.is_empty() {
        Ok(rendered)
    } else {
        Err(problems)
    }
}

/// Renders one host.
pub fn effective(inventory: &Inventory, host: &Name) -> Result<Effective, Vec<Conflict>> {
    let mut groups = groups_of(inventory, host);
    // Names break ties, so that the order in which objects are read decides nothing.
    groups.sort_by(|(a, _), (b, _)| strength(b, a));
    let mut claims: BTreeMap<LogPath, Vec<Claim>> = BTreeMap::new();
    let declared = inventory.host(host);
    if let Some((object, loaded)) = declared {
        claim(&mut claims, &object.spec.logs, Rank::Host, loaded, None);
    }
    for (group, loaded) in &groups {
        let rank = Rank::Group {
            priority: group.spec.priority,
        };
        claim(&mut claims, &group.spec.logs, rank, loaded, None);
        for name in &group.spec.uses {
            if let Some((set, holder)) = inventory.log_set(name) {
                claim(
                    &mut claims,
                    &set.spec.logs,
                    rank,
                    holder,
                    Some(&group.metadata.name),
                );
            }
        }
    }
    let excludes = declared.map_or(&[][..], |(object, _)| &object.spec.exclude);
    let idle = |path: &&LogPath| !claims.contains_key::<LogPath>(path);
    let idle_excludes = excludes.iter().filter(idle).cloned().collect();
    let mut stories = Vec::new();
    let mut conflicts = Vec::new();
    for (path, mut claims) in claims {
        claims.sort_by(|a, b| {
            let by_rank = b.origin.rank.cmp(&a.origin.rank);
            by_rank.then_with(|| {
                (&a.origin.group, &a.origin.object).cmp(&(&b.origin.group, &b.origin.object))
            })
        });
        let excluded = excludes.iter().position(|excluded| *excluded == path);
        if let (Some(index), Some((_, loaded))) = (excluded, declared) {
            let at = [
                Step::Field("spec"),
                Step::Field("exclude"),
                Step::Index(index),
            ];
            let by = format!("Host/{host} ({})", loaded.location(&at));
            stories.push(PathStory {
                path,
                verdict: Verdict::Excluded { by },
                claims,
            });
            continue;
        }
        let (first, others) = claims
            .split_first()
            .expect("a path is there because of a claim");
        let rival = others
            .iter()
            .take_while(|other| other.origin.rank == first.origin.rank)
            .find(|other| other.logs != first.logs);
        match rival {
            Some(second) if !planted::is(Bug::EqualPriorityFirstWins) => conflicts.push(Conflict {
                path,
                rank: first.origin.rank,
                first: first.clone(),
                second: second.clone(),
                hosts: vec![host.clone()],
            }),
            _ => stories.push(PathStory {
                path,
                verdict: Verdict::Collected,
                claims,
            }),
        }
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    Ok(Effective {
        host: host.clone(),
        stories,
        policy: groups
            .iter()
            .find_map(|(group, _)| group.spec.rollout.clone()),
        groups: groups
            .iter()
            .map(|(group, _)| group.metadata.name.clone())
            .collect(),
        idle_excludes,
    })
}

fn groups_of<'a>(inventory: &'a Inventory, host: &Name) -> Vec<(&'a Group, &'a Loaded)> {
    let labels = inventory
        .host(host)
        .map(|(object, _)| object.metadata.labels.clone())
        .unwrap_or_default();
    inventory
        .groups()
        .filter(|(group, _)| {
            group.spec.members.contains(host)
                || group
                    .spec
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selector.matches(&labels))
        })
        .collect()
}

fn strength(a: &Group, b: &Group) -> Ordering {
    let by_priority = a.spec.priority.cmp(&b.spec.priority);
    by_priority.then_with(|| b.metadata.name.cmp(&a.metadata.name))
}

/// Adds what one object says, one claim per path.
fn claim(
    claims: &mut BTreeMap<LogPath, Vec<Claim>>,
    logs: &[Log],
    rank: Rank,
    holder: &Loaded,
    group: Option<&Name>,
) {
    let mut by_path: BTreeMap<&LogPath, (usize, Vec<Log>)> = BTreeMap::new();
    for (index, log) in logs.iter().enumerate() {
        by_path
            .entry(&log.path)
            .or_insert((index, Vec::new()))
            .1
            .push(log.clone());
    }
    for (path, (index, mut logs)) in by_path {
        logs.sort_by(|a, b| a.topic.cmp(&b.topic));
        let at = [Step::Field("spec"), Step::Field("logs"), Step::Index(index)];
        let origin = EntryOrigin {
            rank,
            object: holder.object.id(),
            group: group.cloned(),
            location: holder.location(&at),
        };
        claims
            .entry(path.clone())
            .or_default()
            .push(Claim { origin, logs });
    }
}

impl Effective {
    /// The entries that the host collects, by path and topic.
    pub fn logs(&self) -> impl Iterator<Item = &Log> {
        let collected = |story: &&PathStory| story.verdict == Verdict::Collected;
        let winners = self.stories.iter().filter(collected);
        winners.flat_map(|story| {
            story
                .claims
                .first()
                .into_iter()
                .flat_map(|claim| &claim.logs)
        })
    }

    /// The value of the host's key: the only thing that an agent reads.
    pub fn document(&self) -> String {
        let logs: Vec<&Log> = self.logs().collect();
        serde_json::to_string(&logs).expect("entries have string keys and whole numbers only")
    }

    pub fn sha256(&self) -> String {
        sha256_hex(self.document().as_bytes())
    }

    /// True when some object says something about this host's entries; without, its key is not the
    /// fleet's to write.
    pub fn is_managed(&self, inventory: &Inventory) -> bool {
        !self.groups.is_empty()
            || inventory
                .get(&ObjectId {
                    kind: Kind::Host,
                    name: self.host.clone(),
                })
                .is_some()
    }
}

#[cfg(test)]
mod tests;
