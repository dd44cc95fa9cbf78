//! A member that starts on the data folder of an etcd becomes that etcd: same data, same ids.
//!
//! Only a cluster of one can be taken over so. What etcd has left stays as it is beside our files,
//! and is never looked at again: the way back goes through a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use openraft::Membership;

use super::config::NodeConfig;
use super::error::StartError;
use super::types::{PeerNode, encode_membership};
use crate::storage::{self, DataFolder, EtcdFolder, RestoredAs};

/// Makes the databases from what etcd has left, if it has. The folder holds no identity of ours:
/// what else of ours is in it is left over from an attempt that did not come to its end.
pub(super) async fn take_over(folder: &DataFolder, config: &NodeConfig) -> Result<(), StartError> {
    let Some(etcd) = EtcdFolder::find(folder)? else {
        return Ok(());
    };
    let me = etcd.identity.member_id;
    tracing::info!(
        member = format!("{me:x}"),
        database = %etcd.database.display(),
        "taking over the data of an etcd"
    );
    folder.remove_databases()?;
    let node = PeerNode {
        peer_urls: config.peer_urls.clone(),
        votes_when_ready: false,
    };
    let membership = Membership::new(vec![BTreeSet::from([me])], BTreeMap::from([(me, node)]))
        .map_err(|error| StartError::Bootstrap(error.to_string()))?;
    let restored_as = RestoredAs {
        identity: etcd.identity,
        voted_for: me,
        membership: encode_membership(&membership),
        revision_bump: 0,
    };
    let restored = storage::restore_snapshot(&etcd.database, false, folder, restored_as).await?;
    tracing::info!(
        revision = restored.state.revision(),
        keys = restored.state.live_keys(),
        "took over the data of an etcd; its files stay, and are not used any more"
    );
    Ok(())
}
