//! How a fresh data folder becomes a member: of the cluster that the flags describe, or of one that
//! runs already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use openraft::Membership;
use schemas::etcdserverpb::Member;
use schemas::peer as pb;

use super::config::{ClusterState, InitialMember, NodeConfig};
use super::error::StartError;
use super::identity;
use super::peer::{Directory, PeerDialer, Timing, describe_request};
use super::types::{PeerNode, encode_membership};
use crate::storage::{EntryId, EntryKind, EntryRow, Identity, LogHandle, LogRecovery, VoteRow};

/// The members that the flags name, by the ids that all of them compute.
pub(super) fn initial_voters(config: &NodeConfig) -> BTreeMap<u64, PeerNode> {
    initial_members(config)
        .into_iter()
        .map(|member| {
            let id = identity::member_id(&config.cluster_token, &member.peer_urls);
            let node = PeerNode {
                peer_urls: member.peer_urls,
                votes_when_ready: false,
            };
            (id, node)
        })
        .collect()
}

/// `--initial-cluster`, or this member alone.
fn initial_members(config: &NodeConfig) -> Vec<InitialMember> {
    if config.initial_cluster.is_empty() {
        return vec![InitialMember {
            name: config.name.clone(),
            peer_urls: config.peer_urls.clone(),
        }];
    }
    config.initial_cluster.clone()
}

/// Who a fresh data folder belongs to.
pub(super) async fn identify(
    config: &NodeConfig,
    dialer: &Arc<dyn PeerDialer>,
    timing: Timing,
) -> Result<Identity, StartError> {
    check_flags(config)?;
    match config.cluster_state {
        ClusterState::New => found(config, dialer, timing).await,
        ClusterState::Existing => join(config, dialer, timing).await,
    }
}

/// Who a member is that is there from the beginning.
pub(super) fn founding_identity(config: &NodeConfig) -> Identity {
    Identity {
        member_id: identity::member_id(&config.cluster_token, &config.peer_urls),
        cluster_id: identity::cluster_id(initial_voters(config).into_keys()),
    }
}

/// The cluster is formed now, by all members of the list together.
async fn found(
    config: &NodeConfig,
    dialer: &Arc<dyn PeerDialer>,
    timing: Timing,
) -> Result<Identity, StartError> {
    let members = initial_members(config);
    let identity = founding_identity(config);
    // A member whose folder was lost must not vote again under its old id: it has forgotten what it
    // promised. Those who remember its start say so.
    let described = describe(config, &members, dialer, timing).await;
    let started_before = described
        .iter()
        .filter(|cluster| cluster.cluster_id == identity.cluster_id)
        .flat_map(|cluster| &cluster.members)
        .any(|member| member.id == identity.member_id && !member.name.is_empty());
    if started_before {
        return Err(StartError::Bootstrap(format!(
            "member {:x} has already been bootstrapped: its data folder was lost or replaced; \
             remove it from the cluster, add it again, and start it with --initial-cluster-state \
             existing",
            identity.member_id
        )));
    }
    Ok(identity)
}

/// The cluster runs, and has been told that this member comes.
async fn join(
    config: &NodeConfig,
    dialer: &Arc<dyn PeerDialer>,
    timing: Timing,
) -> Result<Identity, StartError> {
    let members = initial_members(config);
    let described = describe(config, &members, dialer, timing).await;
    let mut fault = StartError::Bootstrap(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the \
         given URLs"
            .to_owned(),
    );
    // One that is behind may not have heard of this member yet; another one has.
    for cluster in described.iter().filter(|c| !c.members.is_empty()) {
        match own_place(config, &members, cluster) {
            Ok(identity) => return Ok(identity),
            Err(error) => fault = error,
        }
    }
    Err(fault)
}

/// Where this member stands in a running cluster, if the flags describe it as it is.
fn own_place(
    config: &NodeConfig,
    members: &[InitialMember],
    cluster: &pb::DescribeResponse,
) -> Result<Identity, StartError> {
    let invalid = |what: String| {
        StartError::Bootstrap(format!("error validating peerURLs of the cluster: {what}"))
    };
    if cluster.members.len() != members.len() {
        return Err(invalid(format!(
            "member count is unequal: the cluster has {}, --initial-cluster names {}",
            cluster.members.len(),
            members.len()
        )));
    }
    for member in members {
        find(&cluster.members, &member.peer_urls).ok_or_else(|| {
            invalid(format!(
                "PeerURLs: no match found for {}={}",
                member.name,
                member.peer_urls.join(",")
            ))
        })?;
    }
    let own = find(&cluster.members, &config.peer_urls).ok_or_else(|| {
        invalid(format!(
            "PeerURLs: no match found for this member ({})",
            config.peer_urls.join(",")
        ))
    })?;
    if !own.name.is_empty() {
        return Err(StartError::Bootstrap(format!(
            "member {:x} has already been bootstrapped: its data folder was lost or replaced; \
             remove it from the cluster and add it again",
            own.id
        )));
    }
    Ok(Identity {
        member_id: own.id,
        cluster_id: cluster.cluster_id,
    })
}

fn find<'a>(members: &'a [Member], peer_urls: &[String]) -> Option<&'a Member> {
    let sorted = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort_unstable();
        urls
    };
    let wanted = sorted(peer_urls);
    members
        .iter()
        .find(|member| sorted(&member.peer_ur_ls) == wanted)
}

/// What the other members of the list say about their cluster. Those that are not there, or have
/// nothing to say yet, are left out.
async fn describe(
    config: &NodeConfig,
    members: &[InitialMember],
    dialer: &Arc<dyn PeerDialer>,
    timing: Timing,
) -> Vec<pb::DescribeResponse> {
    let others = members
        .iter()
        .filter(|member| member.name != config.name)
        .flat_map(|member| &member.peer_urls);
    let asked = others.map(|url| async move {
        let mut peer = Directory::stranger(Arc::clone(dialer), timing, url);
        let asking = peer.describe(describe_request());
        match tokio::time::timeout(timing.election, asking).await {
            Ok(Ok(described)) => Some(described.into_inner()),
            Ok(Err(status)) => {
                tracing::debug!(url, %status, "a peer does not describe its cluster");
                None
            }
            Err(_) => None,
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Makes this member the only one of its cluster, whatever became of the others: an entry of the
/// log says so, behind everything that is there. Nothing that may have been acknowledged is lost;
/// the others can never come back, because they may have acknowledged something else since.
pub(super) async fn force_new_cluster(
    log: &LogHandle,
    recovery: &mut LogRecovery,
    config: &NodeConfig,
    identity: Identity,
) -> Result<(), StartError> {
    // A fresh folder has no cluster to be cut out of.
    let Some(last) = recovery.last else {
        return Ok(());
    };
    let node = PeerNode {
        peer_urls: config.peer_urls.clone(),
        votes_when_ready: false,
    };
    let me = identity.member_id;
    let membership = Membership::new(vec![BTreeSet::from([me])], BTreeMap::from([(me, node)]))
        .map_err(|error| StartError::Bootstrap(error.to_string()))?;
    // A term that no leader had: the entry is nobody else's.
    let term = recovery.vote.map_or(0, |vote| vote.term).max(last.term) + 1;
    let vote = VoteRow {
        term,
        node_id: me,
        committed: false,
    };
    let row = EntryRow {
        id: EntryId {
            term,
            index: last.index + 1,
        },
        kind: EntryKind::Membership,
        payload: encode_membership(&membership),
    };
    log.save_vote(vote).await?;
    let (done, written) = tokio::sync::oneshot::channel();
    let appended = Box::new(move |result: std::io::Result<()>| {
        done.send(result).ok();
    });
    log.append(vec![row.clone()], appended).await?;
    match written.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(StartError::Bootstrap(error.to_string())),
        Err(_) => return Err(StartError::Bootstrap("the log has stopped".to_owned())),
    }
    recovery.vote = Some(vote);
    recovery.first = recovery.first.or(Some(row.id.index));
    recovery.last = Some(row.id);
    tracing::warn!("this member is now the only one of its cluster, as --force-new-cluster asks");
    Ok(())
}

/// What the flags of a fresh member must agree about, in etcd's words. A member that has started
/// before does not look at them any more.
pub(super) fn check_flags(config: &NodeConfig) -> Result<(), StartError> {
    let refuse = |text: String| Err(StartError::Bootstrap(text));
    let members = initial_members(config);
    let as_text = |members: &[InitialMember]| {
        let pairs: Vec<String> = members
            .iter()
            .flat_map(|member| {
                let name = &member.name;
                member
                    .peer_urls
                    .iter()
                    .map(move |url| format!("{name}={url}"))
            })
            .collect();
        pairs.join(",")
    };
    let mut all: Vec<&String> = members
        .iter()
        .flat_map(|member| &member.peer_urls)
        .collect();
    all.sort_unstable();
    if all.windows(2).any(|pair| pair[0] == pair[1]) {
        return refuse(format!(
            "initial cluster {} has duplicate url",
            as_text(&members)
        ));
    }
    let Some(own) = members.iter().find(|member| member.name == config.name) else {
        return refuse(format!(
            "couldn't find local name {:?} in the initial cluster configuration",
            config.name
        ));
    };
    let missing = |from: &[String], what: &[String]| -> Vec<String> {
        let gone = what.iter().filter(|url| !from.contains(url));
        gone.map(|url| format!("{}={url}", config.name)).collect()
    };
    let unadvertised = missing(&config.peer_urls, &own.peer_urls);
    if !unadvertised.is_empty() {
        return refuse(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={}",
            unadvertised.join(","),
            config.peer_urls.join(",")
        ));
    }
    let unlisted: Vec<&str> = config
        .peer_urls
        .iter()
        .filter(|url| !own.peer_urls.contains(url))
        .map(String::as_str)
        .collect();
    if !unlisted.is_empty() {
        return refuse(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
            unlisted.join(","),
            as_text(std::slice::from_ref(own))
        ));
    }
    Ok(())
}
