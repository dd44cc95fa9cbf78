//! The types that openraft is configured with, and how an entry of the log becomes a row and back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use config_center_core::{Refusal, Reply};
use openraft::type_config::alias::{EntryOf, LogIdOf, StoredMembershipOf, VoteOf};
use openraft::{EntryPayload, Membership, OptionalSend, RaftTypeConfig};
use prost::Message as _;
use schemas::command::{Command, StoredMembership, StoredNode, VoterSet};

use super::proposer::ReplySender;
use crate::storage::{EntryId, EntryKind, EntryRow, VoteRow};

/// The version of `Command` that this program writes.
pub(super) const COMMAND_VERSION: u32 = config_center_core::state::COMMAND_VERSION;

/// Those that it can apply.
pub(super) const COMMAND_VERSIONS: RangeInclusive<u32> =
    config_center_core::state::OLDEST_COMMAND_VERSION..=COMMAND_VERSION;

/// How a member can be reached; part of the replicated membership.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PeerNode {
    pub peer_urls: Vec<String>,
    /// Added to vote, though it does not yet: see `membership`.
    pub votes_when_ready: bool,
}

/// A command on its way through the log: the bytes that are stored and sent, and what they mean.
/// Encoded once by the proposer, decoded only where it was read back. Cheap to clone.
#[derive(Clone)]
pub(super) struct Proposal(Arc<ProposalParts>);

struct ProposalParts {
    encoded: Bytes,
    command: Command,
}

impl Proposal {
    pub(super) fn new(encoded: Bytes, command: Command) -> Self {
        Self(Arc::new(ProposalParts { encoded, command }))
    }

    pub(super) fn decode(encoded: Bytes) -> io::Result<Self> {
        let command = Command::decode(encoded.clone()).map_err(io::Error::other)?;
        Ok(Self::new(encoded, command))
    }

    pub(super) fn encoded(&self) -> &Bytes {
        &self.0.encoded
    }

    pub(super) fn command(&self) -> &Command {
        &self.0.command
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.encoded.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry answered.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The entry was no command.
    Nothing,
    Command {
        reply: Result<Reply, Refusal>,
        revision: i64,
        index: u64,
    },
}

/// One leader per term, as in the Raft paper: an entry is identified by its term and index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Outcome;
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Proposal, u64, PeerNode>;
    type Entry =
        openraft::Entry<openraft::vote::leader_id_std::CommittedLeaderId<u64>, Self::Payload>;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    type Responder<T>
        = ReplySender<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(super) type Entry = EntryOf<TypeConfig>;
pub(super) type LogId = LogIdOf<TypeConfig>;
pub(super) type Vote = VoteOf<TypeConfig>;
pub(super) type RaftMembership = StoredMembershipOf<TypeConfig>;

pub(super) fn entry_id(id: &LogId) -> EntryId {
    EntryId {
        term: id.committed_leader_id().term,
        index: id.index(),
    }
}

pub(super) fn log_id(id: EntryId) -> LogId {
    LogId::new_term_index(id.term, id.index)
}

pub(super) fn vote_row(vote: &Vote) -> VoteRow {
    VoteRow {
        term: vote.leader_id.term,
        node_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(super) fn vote(row: VoteRow) -> Vote {
    if row.committed {
        Vote::new_committed(row.term, row.node_id)
    } else {
        Vote::new(row.term, row.node_id)
    }
}

pub(super) fn entry_row(entry: &Entry) -> EntryRow {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (EntryKind::Blank, Bytes::new()),
        EntryPayload::Normal(proposal) => (EntryKind::Command, proposal.encoded().clone()),
        EntryPayload::Membership(membership) => {
            (EntryKind::Membership, encode_membership(membership))
        }
    };
    EntryRow {
        id: entry_id(&entry.log_id),
        kind,
        payload,
    }
}

pub(super) fn entry(row: EntryRow) -> io::Result<Entry> {
    let payload = match row.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Command => EntryPayload::Normal(Proposal::decode(row.payload)?),
        EntryKind::Membership => EntryPayload::Membership(decode_membership(&row.payload)?),
    };
    Ok(Entry {
        log_id: log_id(row.id),
        payload,
    })
}

pub(super) fn encode_membership(membership: &Membership<u64, PeerNode>) -> Bytes {
    let stored = StoredMembership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|ids| VoterSet {
                ids: ids.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| StoredNode {
                id: *id,
                peer_urls: node.peer_urls.clone(),
                votes_when_ready: node.votes_when_ready,
            })
            .collect(),
    };
    stored.encode_to_vec().into()
}

pub(super) fn decode_membership(encoded: &[u8]) -> io::Result<Membership<u64, PeerNode>> {
    let stored = StoredMembership::decode(encoded).map_err(io::Error::other)?;
    let configs: Vec<BTreeSet<u64>> = stored
        .configs
        .into_iter()
        .map(|set| set.ids.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, PeerNode> = stored
        .nodes
        .into_iter()
        .map(|node| {
            let peer = PeerNode {
                peer_urls: node.peer_urls,
                votes_when_ready: node.votes_when_ready,
            };
            (node.id, peer)
        })
        .collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joint_membership_with_a_learner_survives_the_row() {
        let nodes: BTreeMap<u64, PeerNode> = (1..=4)
            .map(|id| {
                let node = PeerNode {
                    peer_urls: vec![format!("http://127.0.0.1:{id}")],
                    votes_when_ready: id == 4,
                };
                (id, node)
            })
            .collect();
        let joint = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
        let before = Entry {
            log_id: LogId::new_term_index(3, 9),
            payload: EntryPayload::Membership(Membership::new(joint, nodes).unwrap()),
        };
        let after = entry(entry_row(&before)).unwrap();
        assert_eq!(after.log_id, before.log_id);
        assert_eq!(format!("{after}"), format!("{before}"));
        let EntryPayload::Membership(membership) = after.payload else {
            panic!("{after}");
        };
        assert_eq!(membership.learner_ids().collect::<Vec<_>>(), [4]);
        assert!(membership.get_node(&4).unwrap().votes_when_ready);
    }
}
